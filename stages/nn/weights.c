/* SPDX-License-Identifier: Apache-2.0 */
/* A network's weights file, and which of its tensors have been used (weights.h). */
#include "stages/nn/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/nn/store.h"

#define SCALE_SUFFIX ".scale"

/* Each array has an element for each tensor of the file. */
struct weights {
    struct safetensors *file;
    char *path;
    bool *used;
    const void **scale;  /* of a taken I8 tensor: f32 [oc] in the file, perhaps unaligned */
    struct store *store; /* NULL for none */
    bool store_asked;    /* it is opened once, or not at all */
};

int weights_open(struct weights **out, const char *path, struct err *err)
{
    struct safetensors *file;
    int rc = safetensors_open(&file, path, err);
    if (rc)
        return rc;
    struct weights *weights = xcalloc(1, sizeof(*weights));
    weights->file = file;
    weights->path = xstrdup(path);
    weights->used = xcalloc(safetensors_count(file) + 1, sizeof(*weights->used));
    weights->scale = xcalloc(safetensors_count(file) + 1, sizeof(*weights->scale));
    *out = weights;
    return 0;
}

void weights_close(struct weights *weights)
{
    if (!weights)
        return;
    safetensors_free(weights->file);
    store_release(weights->store);
    free(weights->path);
    free(weights->used);
    free(weights->scale);
    free(weights);
}

struct store *weights_store(struct weights *weights, const char *folder, enum dtype dtype,
                            void (*note)(const char *text))
{
    if (!weights->store_asked)
        weights->store = store_open(folder, weights->path, weights->file, dtype, note);
    weights->store_asked = true;
    return weights->store;
}

bool weights_have(const struct weights *weights, const char *name)
{
    return safetensors_find(weights->file, name) != NULL;
}

static bool is_float(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F16 || dtype == DTYPE_BF16 || dtype == DTYPE_F64;
}

static bool shape_fits(const struct safetensors_entry *entry, int rank, const int64_t *dim)
{
    if (entry->rank != rank)
        return false;
    for (int i = 0; i < rank; i++) {
        if (dim[i] != -1 && dim[i] != entry->dim[i])
            return false;
    }
    return true;
}

#define SHAPE_SIZE 160
/* "[320, 4, any]" */
static const char *print_shape(int rank, const int64_t *dim, char out[SHAPE_SIZE])
{
    size_t place = (size_t)snprintf(out, SHAPE_SIZE, "[");
    for (int i = 0; i < rank && place < SHAPE_SIZE; i++) {
        const char *comma = i ? ", " : "";
        size_t left = SHAPE_SIZE - place;
        if (dim[i] == -1)
            place += (size_t)snprintf(out + place, left, "%sany", comma);
        else
            place += (size_t)snprintf(out + place, left, "%s%lld", comma, (long long)dim[i]);
    }
    if (place < SHAPE_SIZE)
        snprintf(out + place, SHAPE_SIZE - place, "]");
    return out;
}

static int shape_error(const struct weights *weights, const struct safetensors_entry *entry,
                       int rank, const int64_t *dim, struct err *err)
{
    char found[SHAPE_SIZE], expected[SHAPE_SIZE];
    return err_set(err, ERR_INVALID_MODEL, "'%s': tensor '%s' has shape %s, not %s", weights->path,
                   entry->name, print_shape(entry->rank, entry->dim, found),
                   print_shape(rank, dim, expected));
}

static size_t index_of(const struct weights *weights, const struct safetensors_entry *entry)
{
    return (size_t)(entry - safetensors_at(weights->file, 0));
}

static int use(struct weights *weights, const struct safetensors_entry *entry, struct err *err)
{
    bool *used = &weights->used[index_of(weights, entry)];
    if (*used)
        return err_set(err, ERR_INVALID_MODEL, "'%s': tensor '%s' is used twice", weights->path,
                       entry->name);
    *used = true;
    return 0;
}

/* Finds and marks NAME.scale of an I8 tensor. */
static int take_scale(struct weights *weights, const struct safetensors_entry *entry,
                      struct err *err)
{
    if (entry->rank < 1)
        return err_set(err, ERR_INVALID_MODEL, "'%s': tensor '%s' is I8 and has no output to scale",
                       weights->path, entry->name);
    size_t size = strlen(entry->name) + sizeof(SCALE_SUFFIX);
    char *name = xmalloc(size);
    snprintf(name, size, "%s%s", entry->name, SCALE_SUFFIX);
    const struct safetensors_entry *scale = safetensors_find(weights->file, name);
    free(name);
    if (!scale)
        return err_set(err, ERR_INVALID_MODEL, "'%s': tensor '%s' is I8 and has no '%s%s'",
                       weights->path, entry->name, entry->name, SCALE_SUFFIX);
    if (scale->dtype != DTYPE_F32)
        return err_set(err, ERR_INVALID_MODEL, "'%s': tensor '%s' is %s, not F32", weights->path,
                       scale->name, dtype_name(scale->dtype));
    if (!shape_fits(scale, 1, entry->dim))
        return shape_error(weights, scale, 1, entry->dim, err);
    weights->scale[index_of(weights, entry)] = scale->data;
    return use(weights, scale, err);
}

int weights_take(struct weights *weights, const char *name, int rank, const int64_t *dim,
                 const struct safetensors_entry **entry, struct err *err)
{
    const struct safetensors_entry *found = safetensors_find(weights->file, name);
    char expected[SHAPE_SIZE];
    if (!found)
        return err_set(err, ERR_INVALID_MODEL, "'%s' has no tensor '%s' (shape %s is needed)",
                       weights->path, name, print_shape(rank, dim, expected));
    if (!shape_fits(found, rank, dim))
        return shape_error(weights, found, rank, dim, err);
    if (!is_float(found->dtype) && found->dtype != DTYPE_I8)
        return err_set(err, ERR_INVALID_MODEL, "'%s': tensor '%s' is %s, not a float",
                       weights->path, name, dtype_name(found->dtype));
    int rc = use(weights, found, err);
    if (rc == 0 && found->dtype == DTYPE_I8)
        rc = take_scale(weights, found, err);
    if (rc)
        return rc;
    *entry = found;
    return 0;
}

static void read_i8(const struct safetensors_entry *entry, const char *scales, size_t first,
                    size_t count, float *out)
{
    const int8_t *values = entry->data;
    size_t row = entry->bytes / (size_t)entry->dim[0];
    for (size_t i = first, end = first + count; i < end;) {
        size_t row_end = (i / row + 1) * row < end ? (i / row + 1) * row : end;
        float scale;
        memcpy(&scale, scales + i / row * sizeof(scale), sizeof(scale));
        for (; i < row_end; i++)
            *out++ = scale * (float)values[i];
    }
}

void weights_read(const struct weights *weights, const struct safetensors_entry *entry,
                  size_t first, size_t count, float *out)
{
    size_t size = dtype_size(entry->dtype);
    BUG_ON(first > entry->bytes / size || count > entry->bytes / size - first);
    if (count == 0)
        return;
    if (entry->dtype == DTYPE_I8)
        read_i8(entry, weights->scale[index_of(weights, entry)], first, count, out);
    else
        convert_to_f32(out, (const char *)entry->data + first * size, entry->dtype, count);
}

int weights_take_f32(struct weights *weights, const char *name, int rank, const int64_t *dim,
                     float *out, struct err *err)
{
    const struct safetensors_entry *entry;
    int rc = weights_take(weights, name, rank, dim, &entry, err);
    if (rc)
        return rc;
    weights_read(weights, entry, 0, entry->bytes / dtype_size(entry->dtype), out);
    return 0;
}

static bool ends_with(const char *text, const char *suffix)
{
    size_t size = strlen(text), suffix_size = strlen(suffix);
    return size >= suffix_size && strcmp(text + size - suffix_size, suffix) == 0;
}

void weights_ignore_suffix(struct weights *weights, const char *suffix)
{
    for (size_t i = 0; i < safetensors_count(weights->file); i++) {
        const struct safetensors_entry *entry = safetensors_at(weights->file, i);
        if (!is_float(entry->dtype) && ends_with(entry->name, suffix))
            weights->used[i] = true;
    }
}

int weights_finish(struct weights *weights, struct err *err)
{
    for (size_t i = 0; i < safetensors_count(weights->file); i++) {
        const struct safetensors_entry *entry = safetensors_at(weights->file, i);
        char shape[SHAPE_SIZE];
        if (!weights->used[i])
            return err_set(err, ERR_INVALID_MODEL, "'%s': tensor '%s' of shape %s is not used",
                           weights->path, entry->name, print_shape(entry->rank, entry->dim, shape));
    }
    return 0;
}
