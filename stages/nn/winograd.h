/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 3x3 convolutions of stride 1 by Winograd's minimal filtering F(4x4, 3x3): 36 products a channel
 * for 16 pixels where the direct way needs 144. Lavin and Gray, "Fast Algorithms for Convolutional
 * Neural Networks", arXiv:1509.09308, section 4.1.
 *
 *     x ── tiles of 6x6 pixels, 4 apart ── Bᵀ d B ──▶ V [36, tiles, ic]   a chunk at a time
 *     w ── 3x3 ── G g Gᵀ ──▶ U [36, ic, columns]                          a group of outputs
 *     M = V U, 36 products of matrices, [36, tiles, columns] f32
 *     y = Aᵀ M A + bias + residual, 4x4 pixels a tile
 *
 * Rounding V and U to bf16 would cost far more than bf16's own rounding of the result (an NMSE of
 * 5e-4 against 3e-6). So for bf16 they are fixed-point numbers of 16 bits, with a scale for each
 * row of V at each position, and one for each column of U and each kind of G's rows; their products
 * are summed exactly, in 32 bits, over a segment of channels, and the segments in f32. The scales
 * bound the norms of segments, so that no sum can overflow (Cauchy and Schwarz). Channels are
 * balanced first: pixels times the norm of their channel's weights, and weights divided by it; so a
 * channel counts for what it adds to the results. On top of the result's own rounding this costs an
 * NMSE of some 2e-6, and up to 1e-5 where all kernels are smooth. What is left is an error that goes
 * by the largest pixel of a tile: beside a pixel 10 times as large as the others, theirs get an NMSE
 * of 6e-5. For f32 all is f32.
 *
 * The weights are transformed in each call, into memory that stays near the core: so they take no
 * more memory than a direct convolution's. This is done in fixed-point numbers too: weights become
 * whole numbers as large as G g leaves room for, G g is rounded once more to make room for the
 * second product, and that is U. V is computed in f32. Where all of U fits a core's cache a thread
 * takes a few tiles at a time from pixels to results; else V of many tiles is made first, and then a
 * group of outputs at a time. A call takes up to 18 MB for V, or 0.3 MB a thread, and up to 3.4 MB
 * for each thread.
 *
 * Each output is computed by one thread, in an order and with scales that follow from its own tile:
 * results depend neither on the number of threads nor on the batch.
 */
#ifndef UNCLIP_STAGES_NN_WINOGRAD_H
#define UNCLIP_STAGES_NN_WINOGRAD_H

#include "stages/nn/packed.h"

/*
 * Whether calls on samples of this size are computed so: on CPUs with AVX-512 (for bf16 with VNNI,
 * and without AMX, which makes the direct way faster), in shapes where it pays.
 */
bool winograd_fits(const struct packed_layer *layer, int64_t ih, int64_t iw);
/* How the weights are wanted: [oc/16, ic, 3, 3, 16]. Owned. */
struct layout *winograd_layout(const struct packed_layer *layer);

/* What follows from the weights alone. Owned; NULL when there is no memory. */
struct winograd_scaling;
struct winograd_scaling *winograd_scaling_new(const struct packed_layer *layer, const void *weights,
                                              int threads);
void winograd_scaling_free(struct winograd_scaling *scaling); /* NULL is fine */

/* 0, or fails the context. call->act is ACT_NONE. */
int winograd_run(struct nn *nn, const struct packed_layer *layer, const void *weights,
                 const struct winograd_scaling *scaling, const struct packed_call *call);

#endif
