/* SPDX-License-Identifier: Apache-2.0 */
/* The compute context, its tensors and its sticky error (nn.h). */
#include "stages/nn/nn.h"

#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/nn/context.h"
#include "stages/nn/onednn.h"
#include "stages/nn/product.h"
#include "stages/nn/profile.h"
#include "stages/nn/weights.h"

static int available_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0)
        return 1;
    return CPU_COUNT(&set);
}

int nn_open(struct nn **out, enum dtype compute, int threads, struct err *err)
{
    if (compute != DTYPE_F32 && compute != DTYPE_BF16)
        return err_set(err, ERR_UNSUPPORTED, "cannot compute in %s: use f32 or bf16",
                       dtype_name(compute));
    int rc = device_check(compute, err);
    if (rc)
        return rc;
    struct nn *nn = xcalloc(1, sizeof(*nn));
    nn->compute = compute;
    nn_set_threads(nn, threads);
    *out = nn;
    return 0;
}

void nn_close(struct nn *nn)
{
    if (!nn)
        return;
    products_free(nn->products);
    profile_free(nn->profile);
    free(nn->packed_folder);
    pool_release(&nn->pool);
    free(nn);
}

bool nn_cpu_has_bf16(void)
{
    return device_fast_bf16();
}

enum dtype nn_dtype(const struct nn *nn)
{
    return nn->compute;
}

/* The usual folder; owned. */
static char *packed_folder(void)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache == '/')
        return xasprintf("%s/unclip/packed", cache);
    return home && *home == '/' ? xasprintf("%s/.cache/unclip/packed", home) : NULL;
}

void nn_keep_packed(struct nn *nn, const char *folder, void (*note)(const char *text))
{
    free(nn->packed_folder);
    nn->packed_folder = NULL;
    nn->note = note;
    if (strcmp(folder, "auto") == 0)
        nn->packed_folder = packed_folder();
    else if (strcmp(folder, "off") != 0)
        nn->packed_folder = xstrdup(folder);
}

void nn_set_threads(struct nn *nn, int threads)
{
    nn->threads = threads > 0 ? threads : available_cores();
}

int nn_threads(const struct nn *nn)
{
    return nn->threads;
}

size_t nn_enter(struct nn *nn)
{
    return pool_enter(&nn->pool);
}

struct tensor nn_leave(struct nn *nn, size_t scope, struct tensor keep)
{
    pool_leave(&nn->pool, scope, keep.data);
    return keep;
}

void nn_leave_all(struct nn *nn, size_t scope)
{
    pool_leave(&nn->pool, scope, NULL);
}

void nn_drop(struct nn *nn, struct tensor *tensor)
{
    pool_drop(&nn->pool, tensor->data);
    *tensor = (struct tensor){0};
}

void *nn_scratch(struct nn *nn, size_t bytes)
{
    if (nn_failed(nn))
        return NULL;
    void *data = pool_take(&nn->pool, bytes);
    if (!data)
        nn_fail(nn, ERR_OUT_OF_MEMORY, "no memory for a tensor of %zu bytes", bytes);
    return data;
}

struct tensor nn_new(struct nn *nn, enum dtype dtype, int rank, const int64_t *dim)
{
    BUG_ON(rank < 1 || rank > 4);
    struct tensor tensor = {.dtype = dtype, .rank = rank};
    size_t bytes = dtype_size(dtype);
    for (int i = 0; i < rank; i++) {
        tensor.dim[i] = dim[i];
        if (dim[i] < 1 || __builtin_mul_overflow(bytes, (size_t)dim[i], &bytes)) {
            nn_fail(nn, ERR_COMPUTE, "a tensor cannot have %lld for dimension %d",
                    (long long)dim[i], i);
            return (struct tensor){0};
        }
    }
    tensor.data = nn_scratch(nn, bytes);
    return tensor.data ? tensor : (struct tensor){0};
}

struct tensor nn_from_f32(struct nn *nn, const float *data, int rank, const int64_t *dim)
{
    struct tensor tensor = nn_new(nn, nn->compute, rank, dim);
    size_t count = (size_t)tensor_count(tensor);
    if (count == 0)
        return tensor;
    if (nn->compute == DTYPE_F32)
        memcpy(tensor.data, data, count * sizeof(float));
    else
        convert_f32_to_bf16(tensor.data, data, count);
    return tensor;
}

void nn_to_f32(struct nn *nn, struct tensor tensor, float *out)
{
    if (!nn_failed(nn) && !tensor_empty(tensor))
        convert_to_f32(out, tensor.data, tensor.dtype, (size_t)tensor_count(tensor));
}

int64_t tensor_count(struct tensor tensor)
{
    return tensor_empty(tensor) ? 0 : tensor.dim[0] * sample_count(tensor);
}

bool tensor_empty(struct tensor tensor)
{
    return tensor.data == NULL;
}

struct tensor tensor_reshape(struct tensor tensor, int rank, const int64_t *dim)
{
    if (tensor_empty(tensor))
        return tensor;
    BUG_ON(rank < 1 || rank > 4);
    struct tensor shaped = {.dtype = tensor.dtype, .rank = rank, .data = tensor.data};
    memcpy(shaped.dim, dim, (size_t)rank * sizeof(*dim));
    BUG_ON(tensor_count(shaped) != tensor_count(tensor));
    return shaped;
}

int nn_fail(struct nn *nn, enum err_code code, const char *format, ...)
{
    if (nn_failed(nn))
        return -(int)nn->first.code;
    char text[sizeof(nn->first.text)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    return err_set(&nn->first, code, "%s", text);
}

bool nn_failed(const struct nn *nn)
{
    return nn->first.code != ERR_OK;
}

int nn_finish(struct nn *nn, struct err *err)
{
    if (!nn_failed(nn))
        return 0;
    int rc = -(int)nn->first.code;
    if (err)
        *err = nn->first;
    nn->first = (struct err){0};
    return rc;
}

static void print_dims(int rank, const int64_t *dim, char *out, size_t size)
{
    size_t place = 0;
    out[0] = '\0';
    for (int i = 0; i < rank && place < size; i++) {
        const char *comma = i ? ", " : "";
        if (dim[i] < 0)
            place += (size_t)snprintf(out + place, size - place, "%sany", comma);
        else
            place +=
                (size_t)snprintf(out + place, size - place, "%s%lld", comma, (long long)dim[i]);
    }
}

bool nn_expect(struct nn *nn, const char *op, struct tensor x, int rank, const int64_t *dim)
{
    if (nn_failed(nn))
        return false;
    bool same = !tensor_empty(x) && x.rank == rank;
    for (int i = 0; i < rank && same; i++)
        same = dim[i] < 0 || dim[i] == x.dim[i];
    if (same)
        return true;
    char found[128], expected[128];
    print_dims(x.rank, x.dim, found, sizeof(found));
    print_dims(rank, dim, expected, sizeof(expected));
    nn_fail(nn, ERR_COMPUTE, "%s got a tensor of shape [%s], not [%s]", op, found, expected);
    return false;
}

const char *nn_library_version(void)
{
    return device_version();
}
