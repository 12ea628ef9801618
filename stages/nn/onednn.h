/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What stages/nn needs of oneDNN, without its types: only onednn.c includes its headers.
 *
 * A `struct packed` holds a layer's weights and the primitives made for it, one for each shape,
 * number of threads and set of fused operations; all are made when first needed and kept. A
 * primitive sees one sample; packed_run() loops over samples. A `struct product` multiplies two
 * activations on one thread, so that callers spread many products over threads themselves
 * (attention).
 *
 * Why results do not depend on the number of threads: the kernels chosen (brgemm, direct
 * convolution) give every output to one thread, which sums in an order that follows from the shape.
 * The library's "gemm" splits sums between threads, so it is passed over; where nothing else is
 * left (old CPUs), it is made to run on one. tests/unit/stages/test_invariance.c holds this.
 *
 * Accuracy: fpmath mode strict (no hidden bf16 or tf32), no Winograd, f32 accumulation.
 */
#ifndef UNCLIP_STAGES_NN_ONEDNN_H
#define UNCLIP_STAGES_NN_ONEDNN_H

#include "stages/nn/layers.h"
#include "stages/nn/nn.h"

struct device;

/* The library's engine and streams for one context. ERR_UNSUPPORTED when it cannot compute so. */
int device_open(struct device **out, enum dtype compute, struct err *err);
void device_close(struct device *device);
bool device_fast_bf16(void);
const char *device_version(void);

struct packed_layer {
    bool conv; /* else a matrix product */
    int64_t ic, oc;
    int k, stride, pad; /* conv */
    enum dtype dtype;
};
/*
 * Takes both memories (memory_new() or NULL for no bias): weights [oc, ic, k, k] or [oc, ic] in
 * layer->dtype, bias [oc] f32. Packing waits for the first shape.
 */
struct packed *packed_new(const struct packed_layer *layer, void *weights, float *bias);
void packed_free(struct packed *packed); /* NULL is fine */
const float *packed_bias(const struct packed *packed);

struct packed_call {
    int64_t n;      /* samples */
    int64_t ih, iw; /* of src; for a matrix product its rows, and 1 */
    enum act act;
    bool accumulate;     /* dst holds a residual that is added last */
    const void *src;     /* [n, ih, iw, ic] */
    void *dst;           /* [n, oh, ow, oc] */
    const float *bias;   /* [oc], or [n, oc] with bias_stride = oc, or NULL */
    int64_t bias_stride; /* floats from one sample's bias to the next */
};
/* 0, or fails the context. */
int packed_run(struct nn *nn, struct packed *packed, const struct packed_call *call);

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
/* Borrowed from the device, which makes each shape once; for `slots` threads at the same time. */
struct product *device_product(struct nn *nn, const struct product_shape *shape, int slots);
size_t product_scratch_bytes(const struct product *product); /* for each slot */
/* Runs on the calling thread, which must be the only one in `slot`. False when the library fails.
 */
struct product_args {
    const void *src, *weights;
    const float *bias; /* [n], or NULL */
    void *dst, *scratch;
};
bool product_run(struct product *product, int slot, const struct product_args *args);

/* tiles.c: a packed_call on plain weights [oc, ic], by products of tiles. */
int tiles_run(struct nn *nn, const struct packed_layer *layer, const void *weights,
              const struct packed_call *call);

#endif
