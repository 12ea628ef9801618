/* SPDX-License-Identifier: Apache-2.0 */
/* What is inside a compute context: for the files of stages/nn alone. */
#ifndef UNCLIP_STAGES_NN_CONTEXT_H
#define UNCLIP_STAGES_NN_CONTEXT_H

#include "stages/nn/memory.h"
#include "stages/nn/nn.h"

struct product; /* product.h */
struct profile; /* profile.h */

struct nn {
    enum dtype compute;
    int threads;
    char *packed_folder;            /* NULL: packed weights are not kept */
    void (*note)(const char *text); /* may be NULL */
    struct pool pool;
    struct err first; /* the sticky error */
    struct product *products;
    struct profile *profile; /* NULL unless one was asked for */
};

/* Scratch memory of the pool, for one op: pool_drop() it. Fails the context and returns NULL. */
void *nn_scratch(struct nn *nn, size_t bytes);

/* Whether x has this shape, where -1 takes any size; if not, the context fails, naming `op`. */
bool nn_expect(struct nn *nn, const char *op, struct tensor x, int rank, const int64_t *dim);
#define NN_EXPECT(nn, op, x, ...)                                                                  \
    nn_expect((nn), (op), (x), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),          \
              (int64_t[]){__VA_ARGS__})

/* Elements of one sample: all dimensions but the first. */
static inline int64_t sample_count(struct tensor x)
{
    int64_t count = 1;
    for (int i = 1; i < x.rank; i++)
        count *= x.dim[i];
    return count;
}

static inline size_t sample_bytes(struct tensor x)
{
    return (size_t)sample_count(x) * dtype_size(x.dtype);
}

/* 0 when empty. */
static inline double tensor_bytes(struct tensor x)
{
    return x.data ? (double)x.dim[0] * (double)sample_bytes(x) : 0;
}

#endif
