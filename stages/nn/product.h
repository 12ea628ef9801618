/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products of two activations, each on one thread, so that callers spread many products over
 * threads themselves (attention, tiles).
 */
#ifndef UNCLIP_STAGES_NN_PRODUCT_H
#define UNCLIP_STAGES_NN_PRODUCT_H

#include "stages/nn/layers.h"
#include "stages/nn/nn.h"

/*
 * dst [m, n] = act(src [m, k] · weights + bias) + dst, where weights are [k, n], or [n, k] when
 * transposed, and all but the product is optional. Row strides in elements; within a row, elements
 * are adjacent. src and weights share a dtype.
 */
struct product_shape {
    int64_t m, n, k;
    int64_t src_stride, weights_stride, dst_stride;
    bool transposed;
    enum dtype src_dtype, dst_dtype;
    bool bias, accumulate;
    enum act act;
};
struct product;
/* Borrowed from the context, which makes each shape once; for `slots` threads at the same time. */
struct product *product_get(struct nn *nn, const struct product_shape *shape, int slots);
void products_free(struct product *products);                /* all that follow, too */
size_t product_scratch_bytes(const struct product *product); /* for each slot */
/* Runs on the calling thread, which must be the only one in `slot`. False when the library fails.
 */
struct product_args {
    const void *src, *weights;
    const float *bias; /* [n], or NULL */
    void *dst, *scratch;
};
bool product_run(struct product *product, int slot, const struct product_args *args);

#endif
