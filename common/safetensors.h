/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors format: model files, task records and cached embeddings all use it, so that
 * Python reads each of them with safetensors.numpy. A file is: u64 little-endian header length, a
 * JSON header {name: {dtype, shape, data_offsets}, "__metadata__": {text: text}}, then the data.
 *
 * Every byte may be hostile: the header is checked whole (length, JSON, dtype, shape overflow,
 * offsets inside the data, sizes equal shape × dtype, no overlap, no gap, no duplicate name) before
 * anything is handed out. Source: the format's README (huggingface/safetensors).
 */
#ifndef UNCLIP_COMMON_SAFETENSORS_H
#define UNCLIP_COMMON_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/err.h"

#define SAFETENSORS_HEADER_MAX  (16u << 20) /* bytes of JSON header */
#define SAFETENSORS_TENSORS_MAX 100000      /* tensors in a file */
#define SAFETENSORS_RANK_MAX    6

/*  X(identifier, name in files, bytes an element) */
#define DTYPE_TABLE(X)                                                                             \
    X(DTYPE_F32, "F32", 4)                                                                         \
    X(DTYPE_F16, "F16", 2)                                                                         \
    X(DTYPE_BF16, "BF16", 2)                                                                       \
    X(DTYPE_F64, "F64", 8)                                                                         \
    X(DTYPE_U8, "U8", 1)                                                                           \
    X(DTYPE_I8, "I8", 1)                                                                           \
    X(DTYPE_BOOL, "BOOL", 1)                                                                       \
    X(DTYPE_U16, "U16", 2)                                                                         \
    X(DTYPE_I16, "I16", 2)                                                                         \
    X(DTYPE_U32, "U32", 4)                                                                         \
    X(DTYPE_I32, "I32", 4)                                                                         \
    X(DTYPE_U64, "U64", 8)                                                                         \
    X(DTYPE_I64, "I64", 8)

enum dtype {
#define X(id, name, size) id,
    DTYPE_TABLE(X)
#undef X
        DTYPE_COUNT
};

const char *dtype_name(enum dtype dtype);
size_t dtype_size(enum dtype dtype);

struct safetensors_entry {
    const char *name; /* owned by the file; NUL-terminated UTF-8 */
    enum dtype dtype;
    int rank; /* 0..SAFETENSORS_RANK_MAX */
    int64_t dim[SAFETENSORS_RANK_MAX];
    size_t bytes;
    const void
        *data; /* into the mapping or the caller's buffer; may be unaligned in hostile files */
};

struct safetensors; /* opaque; read-only and shareable between threads after opening */

/* Maps the file read-only. Errors: ERR_IO, ERR_INVALID_MODEL. Returns an owned file in *out. */
int safetensors_open(struct safetensors **out, const char *path, struct err *err);
/* Reads a record. Borrows `bytes` until safetensors_free(). Error: ERR_INVALID_RECORD. */
int safetensors_parse(struct safetensors **out, const void *bytes, size_t size, struct err *err);
void safetensors_free(struct safetensors *file);

size_t safetensors_count(const struct safetensors *file);
const struct safetensors_entry *safetensors_at(const struct safetensors *file, size_t index);
/* What safetensors_open() mapped; borrowed. No bytes after safetensors_parse(). */
struct safetensors_source {
    const unsigned char *bytes;
    size_t size;
    struct timespec changed; /* the file's time of change when it was mapped */
};
struct safetensors_source safetensors_source(const struct safetensors *file);
/* NULL when there is no tensor of that name. O(1) or O(log n). */
const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name);
const char *safetensors_metadata(const struct safetensors *file, const char *key); /* or NULL */

struct safetensors_metadata_pair {
    const char *key, *value;
};

/*
 * Writes a record from entries (their `bytes` field is derived, data is copied). Deterministic:
 * tensors in the given order, header padded with spaces to 8 bytes. Returns an owned buffer
 * (free()). Errors: ERR_OUT_OF_MEMORY, ERR_TOO_LARGE (the header), ERR_INTERNAL (no UTF-8); a name
 * given twice is a BUG.
 */
int safetensors_encode(const struct safetensors_entry *entries, size_t count,
                       const struct safetensors_metadata_pair *metadata, size_t metadata_count,
                       void **bytes, size_t *size, struct err *err);

#endif
