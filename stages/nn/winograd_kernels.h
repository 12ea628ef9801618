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
#define WINOGRAD_COLUMNS   64 /* outputs of a group, at most */
#define WINOGRAD_ROWS      6  /* tiles that the products take at a time, at most */

/* Of the fixed-point numbers of a layer. For f32 the scale is G's factors, and the others are idle.
 */
struct winograd_scaling {
    float *balance; /* [ic]: pixels are multiplied by it, and weights divided */
    float *scale;   /* [WINOGRAD_POSITIONS, oc]: what U is to be multiplied by, */
    float *inverse; /* and what G g Gᵀ is multiplied by to become it */
};

/* M of a tile and a group of outputs: products that lack the scales of V and U. */
struct winograd_sums {
    const float *m, *v_scale, *u_scale;  /* of position 0 */
    size_t m_stride, v_stride, u_stride; /* from one position to the next */
};

struct winograd_kernels {
    size_t element; /* bytes */
    size_t spare;   /* floats for each channel that input() wants */
    /*
     * V = Bᵀ d B of one tile: v[p * v_stride + c], to be multiplied by scale[p * scale_stride].
     * d: its 6x6 pixels, of ic channels each.
     */
    void (*input)(void *v, size_t v_stride, float *scale, size_t scale_stride, float *spare,
                  const void *const d[WINOGRAD_POSITIONS], const float *balance, size_t ic,
                  size_t segment);
    /* Adds the squares of each input channel's weights to squares[ic]. g: [ic, 9, 16]. */
    void (*squares)(float *squares, const void *g, size_t ic);
    /* Fills scale and inverse from `output` on, of oc outputs, for 16 of them. g: [ic, 9, 16]. */
    void (*scaling)(const struct winograd_scaling *scaling, size_t output, size_t oc, const void *g,
                    size_t ic, size_t segment);
    /*
     * U = G g Gᵀ of some channels: u[p * u_stride + ...] as products() reads it. g: the weights
     * [columns/16, ic, 9, 16], and balance, from the first channel on; inverse: of the first
     * column, oc from one position to the next.
     */
    void (*weights)(void *u, size_t u_stride, const void *g, const float *balance,
                    const float *inverse, size_t oc, size_t ic, size_t channels, size_t columns);
    /*
     * m [rows, columns] = v · u of one position and of some channels, which are one segment at
     * most; added to what is there if `more`. v: [rows, ic], from the first channel on.
     */
    void (*products)(float *m, const void *v, const void *u, size_t rows, size_t ic,
                     size_t channels, size_t columns, bool more);
    /*
     * y = Aᵀ M A + bias, added to what is there if `accumulate`, of one tile. y: its 4x4 pixels,
     * NULL where the picture ends before; bias may be NULL.
     */
    void (*output)(void *const y[WINOGRAD_PIXELS], const struct winograd_sums *sums, size_t columns,
                   const float *bias, bool accumulate);
};

/* For CPUs with AVX-512, and VNNI for fixed-point; NULL where these were not compiled. */
const struct winograd_kernels *winograd_kernels_f32(void);
const struct winograd_kernels *winograd_kernels_fixed(void);

#endif
