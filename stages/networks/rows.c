/* SPDX-License-Identifier: Apache-2.0 */
/* Moving rows of channels about; see rows.h. */
#include "stages/networks/rows.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/nn/layers.h"

static void store(void *dst, enum dtype dtype, const float *values, size_t count)
{
    if (dtype == DTYPE_F32)
        memcpy(dst, values, count * sizeof *values);
    else
        convert_f32_to_bf16(dst, values, count);
}

int embedding_load(struct embedding *embedding, struct nn *nn, struct weights *weights,
                   const char *name, int rank, const int64_t *dim, struct err *err)
{
    const struct safetensors_entry *entry;
    int rc = weights_take(weights, name, rank, dim, &entry, err);
    if (rc)
        return rc;
    size_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= (size_t)dim[i];
    embedding->channels = dim[rank - 1];
    embedding->rows = (int64_t)count / embedding->channels;
    embedding->dtype = nn_dtype(nn);
    float *values = malloc(count * sizeof *values);
    embedding->data = malloc(count * dtype_size(embedding->dtype));
    if (values && embedding->data) {
        weights_read(weights, entry, 0, count, values);
        store(embedding->data, embedding->dtype, values, count);
    } else {
        rc = err_set(err, ERR_OUT_OF_MEMORY, "cannot hold '%s' of %zu values", name, count);
    }
    free(values);
    return rc;
}

void embedding_release(struct embedding *embedding)
{
    free(embedding->data);
    memset(embedding, 0, sizeof *embedding);
}

static void copy_rows(struct tensor dst, int64_t row, const struct embedding *embedding,
                      int64_t first, int64_t count)
{
    size_t bytes = (size_t)embedding->channels * dtype_size(embedding->dtype);
    memcpy((char *)dst.data + (size_t)row * bytes, (char *)embedding->data + (size_t)first * bytes,
           (size_t)count * bytes);
}

struct tensor nn_embed(struct nn *nn, const struct embedding *embedding, const int32_t *ids,
                       int64_t n, int64_t l)
{
    struct tensor out = NN_NEW(nn, embedding->dtype, n, l, embedding->channels);
    for (int64_t i = 0; i < n * l && !tensor_empty(out); i++) {
        BUG_ON(ids[i] < 0 || ids[i] >= embedding->rows);
        copy_rows(out, i, embedding, ids[i], 1);
    }
    return out;
}

struct tensor nn_repeat(struct nn *nn, const struct embedding *embedding, int64_t n, int64_t l)
{
    BUG_ON(l > embedding->rows);
    struct tensor out = NN_NEW(nn, embedding->dtype, n, l, embedding->channels);
    for (int64_t i = 0; i < n && !tensor_empty(out); i++)
        copy_rows(out, i * l, embedding, 0, l);
    return out;
}

struct tensor nn_pick_rows(struct nn *nn, struct tensor x, const int64_t *index)
{
    if (tensor_empty(x))
        return x;
    int64_t n = x.dim[0], l = x.dim[1], c = x.dim[2];
    struct tensor out = NN_NEW(nn, x.dtype, n, c);
    size_t bytes = (size_t)c * dtype_size(x.dtype);
    for (int64_t i = 0; i < n && !tensor_empty(out); i++) {
        BUG_ON(index[i] < 0 || index[i] >= l);
        memcpy((char *)out.data + (size_t)i * bytes,
               (char *)x.data + (size_t)(i * l + index[i]) * bytes, bytes);
    }
    return out;
}

struct tensor nn_pick_last(struct nn *nn, struct tensor x)
{
    if (tensor_empty(x))
        return x;
    int64_t n = x.dim[0];
    int64_t *last = xmalloc((size_t)n * sizeof *last);
    for (int64_t i = 0; i < n; i++)
        last[i] = x.dim[1] - 1;
    struct tensor out = nn_pick_rows(nn, x, last);
    free(last);
    return out;
}

struct tensor nn_add_positions(struct nn *nn, const struct embedding *embedding, struct tensor x,
                               int64_t at)
{
    if (tensor_empty(x))
        return x;
    int64_t n = x.dim[0], l = x.dim[1];
    BUG_ON(at < 0 || at + l > embedding->rows);
    struct embedding rest = *embedding;
    rest.rows -= at;
    rest.data = (char *)rest.data + (size_t)(at * rest.channels) * dtype_size(rest.dtype);
    struct tensor positions = nn_repeat(nn, &rest, n, l);
    nn_advance(nn, &x, nn_add(nn, x, positions));
    nn_drop(nn, &positions);
    return x;
}

void nn_move_kept(struct tensor x, void *const *kept, size_t at, size_t bytes, bool keep)
{
    if (tensor_empty(x))
        return;
    size_t sample = (size_t)(tensor_count(x) / x.dim[0]) * dtype_size(x.dtype);
    for (int64_t i = 0; i < x.dim[0]; i++) {
        char *outside = (char *)kept[i] + at, *inside = (char *)x.data + (size_t)i * sample;
        memcpy(keep ? outside : inside, keep ? inside : outside, bytes);
    }
}

void tensor_put(struct tensor tensor, int64_t at, const float *values, int64_t count)
{
    if (tensor_empty(tensor))
        return;
    BUG_ON(at < 0 || at + count > tensor_count(tensor));
    store((char *)tensor.data + (size_t)at * dtype_size(tensor.dtype), tensor.dtype, values,
          (size_t)count);
}

void tensor_get(struct tensor tensor, int64_t at, float *values, int64_t count)
{
    if (tensor_empty(tensor))
        return;
    BUG_ON(at < 0 || at + count > tensor_count(tensor));
    convert_to_f32(values, (char *)tensor.data + (size_t)at * dtype_size(tensor.dtype),
                   tensor.dtype, (size_t)count);
}

void nn_advance(struct nn *nn, struct tensor *tensor, struct tensor next)
{
    nn_drop(nn, tensor);
    *tensor = next;
}
