/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's weights, and the kernels made for it: one for each shape, number of threads and set of
 * fused operations, made when first needed and kept. The weights are packed once, into the layout
 * that the first kernel wants. A kernel sees one sample; packed_run() loops over samples. Most
 * convolutions have a way of their own (winograd.h), which takes all samples at once.
 *
 * Why results do not depend on the number of threads: the kernels chosen (brgemm, direct
 * convolution) give every output to one thread, which sums in an order that follows from the shape.
 * The library's "gemm" splits sums between threads, so it is passed over; where nothing else is
 * left (old CPUs), it is made to run on one. tests/unit/stages/test_invariance.c holds this.
 */
#ifndef UNCLIP_STAGES_NN_PACKED_H
#define UNCLIP_STAGES_NN_PACKED_H

#include "stages/nn/layers.h"
#include "stages/nn/nn.h"
#include "stages/nn/store.h"

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
/* The same with weights that are packed already; takes layer's layout and holds the store. */
struct packed *packed_new_stored(const struct packed_layer *layer, struct store *store,
                                 struct store_layer stored, float *bias);
/* The weights of a layer as checkpoints have them. Owned. */
struct layout *packed_plain(const struct packed_layer *layer);
/* Has the weights written to the store under this name, once the first kernel has packed them. */
void packed_keep(struct packed *packed, struct store *store, const char *name);
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

/* For the store: the weights as the first kernel has them (borrowed), and the same from elsewhere.
 */
struct store_layer packed_settled(const struct packed *packed);
void packed_adopt(struct packed *packed, const void *data);

/* tiles.c: a packed_call on plain weights [oc, ic], by products of tiles. */
int tiles_run(struct nn *nn, const struct packed_layer *layer, const void *weights,
              const struct packed_call *call);

#endif
