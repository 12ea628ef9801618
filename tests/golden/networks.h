/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of blocks and of whole networks share: goldens as tensors, and tests by dtype. */
#ifndef GOLDEN_NETWORKS_H
#define GOLDEN_NETWORKS_H

#include "common/memory.h"
#include "golden.h"
#include "golden_limits.h"
#include "stages/nn/nn.h"

#define THREADS 2

/* One test: a golden, and the dtype to compute in. */
struct network_case {
    enum dtype dtype;
    const char *golden; /* without the prefix of its kind */
    const char *model;  /* test model and network of a net- case, or NULL */
    const char *network;
};

static inline struct nn *network_open_nn(enum dtype dtype)
{
    struct nn *nn;
    struct err err = {0};
    golden_ok(nn_open(&nn, dtype, THREADS, &err), &err);
    return nn;
}

/* A golden in the compute dtype; a picture (rank 4) becomes [n, h, w, c]. */
static inline struct tensor network_input(struct nn *nn, const struct golden *golden,
                                          const char *name)
{
    struct golden_tensor tensor = golden_get(golden, name);
    struct tensor out;
    if (tensor.rank == 4) {
        const int64_t *d = tensor.dim;
        float *nhwc = xmalloc(tensor.count * sizeof(float));
        golden_nchw_to_nhwc(tensor.values, d, nhwc);
        out = nn_from_f32(nn, nhwc, 4, (const int64_t[]){d[0], d[2], d[3], d[1]});
        free(nhwc);
    } else {
        out = nn_from_f32(nn, tensor.values, tensor.rank, tensor.dim);
    }
    free(tensor.values);
    return out;
}

/* "in.mask" [n, l] of bytes as an f32 tensor of what is added to the scores; empty without one. */
static inline struct tensor network_bias(struct nn *nn, const struct golden *golden)
{
    if (!golden_has(golden, "in.mask"))
        return (struct tensor){0};
    struct golden_tensor mask = golden_get(golden, "in.mask");
    struct tensor bias = nn_new(nn, DTYPE_F32, mask.rank, mask.dim);
    for (size_t i = 0; i < mask.count; i++)
        ((float *)bias.data)[i] = mask.values[i] != 0 ? 0 : -10000.0f;
    free(mask.values);
    return bias;
}

/* Holds a tensor against a golden. Pictures are turned to torch's layout first. */
static inline void network_check(struct nn *nn, const struct golden *golden, const char *name,
                                 struct tensor tensor, struct golden_limit limit)
{
    struct err err = {0};
    size_t count = (size_t)tensor_count(tensor);
    float *values = xmalloc((count + 1) * sizeof(float));
    nn_to_f32(nn, tensor, values);
    golden_ok(nn_finish(nn, &err), &err);
    if (tensor.rank == 4) {
        const int64_t *d = tensor.dim;
        float *nchw = xmalloc(count * sizeof(float));
        golden_nhwc_to_nchw(values, (const int64_t[]){d[0], d[3], d[1], d[2]}, nchw);
        free(values);
        values = nchw;
    }
    golden_check(golden, name, values, count, limit);
    free(values);
}

#endif
