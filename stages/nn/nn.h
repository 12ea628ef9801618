/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compute context and its tensors. Layers (layers.h) take and return tensors; a forward pass
 * reads like the paper:
 *
 *     size_t scope = nn_enter(nn);
 *     struct tensor h = nn_group_norm(nn, &block->norm1, x, (struct norm_fuse){.act = ACT_SILU});
 *     h = nn_conv2d(nn, &block->conv1, h, (struct conv_fuse){0});
 *     return nn_leave(nn, scope, h);
 *
 * Memory: tensors are taken from a pool. nn_leave() gives back every tensor made since nn_enter()
 * but the one it returns, so after the first pass no step allocates. Errors are sticky: after a
 * failure every op returns an empty tensor at once and nn_finish() tells what happened first.
 *
 * Invariants that make a picture's bytes independent of its company:
 *  - every oneDNN primitive sees ONE sample; ops loop over n. So no blocking depends on the batch;
 *    what sees all samples at once (winograd.h) takes each part of a sample by itself;
 *  - every reduction of ours runs over fixed partitions, added in a fixed order, whatever the
 *    number of threads; and primitives are chosen whose sums do not depend on it (tested).
 * A primitive is made when a shape is first seen and kept; weights are packed once.
 *
 * A context belongs to one thread at a time (it uses OpenMP inside). Only onednn.c sees oneDNN.
 */
#ifndef UNCLIP_STAGES_NN_NN_H
#define UNCLIP_STAGES_NN_NN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/safetensors.h"

struct nn; /* opaque */

/*
 * Dense, row-major, at most four dimensions. Pictures are [n, h, w, c] (NHWC), sequences [n, l, c],
 * vectors [n, c]. Activations are in the context's compute dtype (f32 or bf16) unless an op says
 * otherwise. `data` is 64-byte aligned and belongs to the pool; NULL data is the empty tensor.
 */
struct tensor {
    enum dtype dtype;
    int rank;
    int64_t dim[4];
    void *data;
};

/*
 * `compute` is DTYPE_F32 or DTYPE_BF16 (ERR_UNSUPPORTED where the CPU cannot); threads 0 means one
 * per available core (affinity respected).
 */
int nn_open(struct nn **out, enum dtype compute, int threads, struct err *err);
void nn_close(struct nn *nn);
bool nn_cpu_has_bf16(void);
enum dtype nn_dtype(const struct nn *nn);
/* Later passes use this many threads; results do not depend on it. */
void nn_set_threads(struct nn *nn, int threads);
int nn_threads(const struct nn *nn);

/*
 * Weights of models loaded from now on are kept packed, in files of `folder` that are mapped: so
 * processes of one host share one copy and start at once (store.h). "auto" is unclip/packed under
 * XDG_CACHE_HOME or ~/.cache, "off" keeps none, as at first. note is told in a line when that
 * cannot be, or a file is damaged; it may be NULL.
 */
void nn_keep_packed(struct nn *nn, const char *folder, void (*note)(const char *text));

size_t nn_enter(struct nn *nn);
struct tensor nn_leave(struct nn *nn, size_t scope, struct tensor keep);
void nn_leave_all(struct nn *nn, size_t scope);
/* Gives one tensor back early; it is emptied. Only for tensors of the current scope. */
void nn_drop(struct nn *nn, struct tensor *tensor);

/* An uninitialised tensor of the pool. */
struct tensor nn_new(struct nn *nn, enum dtype dtype, int rank, const int64_t *dim);
#define NN_NEW(nn, dtype, ...)                                                                     \
    nn_new((nn), (dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),               \
           (int64_t[]){__VA_ARGS__})
/* Copies f32 data in, converted to the compute dtype; and out again. */
struct tensor nn_from_f32(struct nn *nn, const float *data, int rank, const int64_t *dim);
void nn_to_f32(struct nn *nn, struct tensor tensor, float *out);

int64_t tensor_count(struct tensor tensor); /* elements; 0 when empty */
bool tensor_empty(struct tensor tensor);
/* The same data under another shape of as many elements (a BUG otherwise). */
struct tensor tensor_reshape(struct tensor tensor, int rank, const int64_t *dim);
#define TENSOR_RESHAPE(tensor, ...)                                                                \
    tensor_reshape((tensor), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),            \
                   (int64_t[]){__VA_ARGS__})

/* Notes the first error; ops do nothing afterwards until nn_finish(). */
int nn_fail(struct nn *nn, enum err_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool nn_failed(const struct nn *nn);
/* Returns 0, or the first error since the last call, which is cleared. */
int nn_finish(struct nn *nn, struct err *err);

enum nn_company { NN_ALONE, NN_AMONG_OTHERS }; /* whether other processes want the same cores */
/*
 * First thing in main(): has OpenMP's threads sleep soon while they wait, unless the user chose
 * otherwise (OMP_WAIT_POLICY, GOMP_SPINCOUNT). By default they spin, which costs the processes
 * beside them whole time slices: ten times the time of a picture where five workers share two
 * cores. Starts the program anew with both variables set; goes on as it is where that is not
 * possible.
 */
void nn_wait_passively(char **argv, enum nn_company company);

/*
 * A profile: from nn_profile_start() on (which begins anew) every op's time is kept by its name and
 * shape. Nothing is measured before.
 */
struct nn_profile_row {
    const char *op; /* static */
    char shape[64]; /* "2x64x64x320 -> 640 3x3": what is read, and the channels made of it */
    int64_t calls;
    double seconds;
    double flop;  /* 0 for what only moves data */
    double bytes; /* read and written, each element once */
};
void nn_profile_start(struct nn *nn);
/* The rows, longest time first; borrowed until the next call. 0 without a
 * profile. */
size_t nn_profile_rows(struct nn *nn, const struct nn_profile_row **rows);
/* The same as a table, with the time that passed between ops; nothing without a profile. */
void nn_profile_print(struct nn *nn, FILE *out);

const char *nn_library_version(void); /* oneDNN's */

#endif
