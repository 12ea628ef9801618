/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner loops of winograd.c, compiled from winograd.inc: in f32 for f32, and in fixed-point
 * numbers of 16 bits for bf16. An element is a value of V or U as these kernels have them: f32 or
 * int16_t. Strides count elements; ic and oc are multiples of WINOGRAD_LANES. No kernel uses
 * threads or allocates.
 *
 * A segment: input channels whose products are summed exactly; all but the last of one size.
 */
#ifndef UNCLIP_STAGES_NN_WINOGRAD_KERNELS_H
#define UNCLIP_STAGES_NN_WINOGRAD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>

#define WINOGRAD_IN        6 /* a tile's side in the input, */
#define WINOGRAD_OUT       4 /* and in the output */
#define WINOGRAD_POSITIONS (WINOGRAD_IN * WINOGRAD_IN)
#define WINOGRAD_PIXELS    (WINOGRAD_OUT * WINOGRAD_OUT)
#define WINOGRAD_TAPS      9
#define WINOGRAD_LANES     16
#define WINOGRAD_COLUMNS   64 /* outputs of a block, at most */
#define WINOGRAD_ROWS      6  /* tiles that the products take at a time, at most */

struct winograd_kernels {
    size_t element; /* bytes */
    /*
     * V = Bᵀ d B of one tile: v[p * v_stride + c], to be multiplied by scale[p * scale_stride].
     * d: its 6x6 pixels, of ic channels each. spare: WINOGRAD_POSITIONS * ic floats.
     */
    void (*input)(void *v, size_t v_stride, float *scale, size_t scale_stride, float *spare,
                  const void *const d[WINOGRAD_POSITIONS], size_t ic, size_t segment);
    /*
     * What U of 16 outputs is to be multiplied by, scale[p * stride + c] (and what a value of G g
     * Gᵀ is multiplied by to be stored, inverse[...]), g: the weights [ic, 9, 16].
     */
    void (*scales)(float *scale, float *inverse, size_t stride, const void *g, size_t ic,
                   size_t segment);
    /*
     * U = G g Gᵀ of a segment: u[p * u_stride + ...] as products() reads it. g: the weights
     * [oc/16, ic, 9, 16], from the segment's first channel on.
     */
    void (*weights)(void *u, size_t u_stride, const void *g, const float *inverse, size_t stride,
                    size_t ic, size_t segment, size_t oc);
    /*
     * m [rows, oc] = v · u of one position and a segment, without the scales; added to what is
     * there if `more`. v: [rows, ic], from the segment's first channel on.
     */
    void (*products)(float *m, const void *v, const void *u, size_t rows, size_t ic, size_t segment,
                     size_t oc, bool more);
    /*
     * y = Aᵀ M A + bias, added to what is there if `accumulate`, of one tile.
     * M: m[p * m_stride + c], times v_scale[p * v_stride] and u_scale[p * u_stride + c];
     * y: its 4x4 pixels, NULL where the picture ends before; bias may be NULL.
     */
    void (*output)(void *const y[WINOGRAD_PIXELS], const float *m, size_t m_stride,
                   const float *v_scale, size_t v_stride, const float *u_scale, size_t u_stride,
                   size_t oc, const float *bias, bool accumulate);
};

/* For CPUs with AVX-512, and VNNI for fixed-point; NULL where these were not compiled. */
const struct winograd_kernels *winograd_kernels_f32(void);
const struct winograd_kernels *winograd_kernels_fixed(void);

#endif
