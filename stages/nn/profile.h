/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How ops report their time to the profile that nn_profile_start() switches on (nn.h). An op calls
 * profile_begin() first and profile_end() last; without a profile that is a test of a pointer.
 */
#ifndef UNCLIP_STAGES_NN_PROFILE_H
#define UNCLIP_STAGES_NN_PROFILE_H

#include "stages/nn/context.h"

/* What was done. Rows of the profile are told apart by all but the last two. */
struct profile_op {
    const char *name; /* a literal */
    struct tensor x;  /* what it read; only its shape matters */
    int64_t oc;       /* channels, or rows, of the result */
    int k, stride;    /* of a convolution, else 0 */
    double flop;      /* multiplications and additions; 0 for what only moves data */
    double bytes;     /* read and written, each element once */
};

struct profile *profile_new(void);
void profile_free(struct profile *profile); /* NULL is fine */
int64_t profile_now(void);                  /* ns */
void profile_add(struct profile *profile, int64_t began, const struct profile_op *op);

static inline int64_t profile_begin(const struct nn *nn)
{
    return nn->profile ? profile_now() : 0;
}

static inline void profile_end(struct nn *nn, int64_t began, const struct profile_op *op)
{
    if (nn->profile)
        profile_add(nn->profile, began, op);
}

/* For an op without products that made y of x and perhaps of `more`. */
static inline void profile_end_moved(struct nn *nn, int64_t began, const char *name,
                                     struct tensor x, struct tensor more, struct tensor y)
{
    profile_end(nn, began,
                &(struct profile_op){
                    .name = name,
                    .x = x,
                    .oc = y.rank ? y.dim[y.rank - 1] : 0,
                    .bytes = tensor_bytes(x) + tensor_bytes(more) + tensor_bytes(y),
                });
}

#endif
