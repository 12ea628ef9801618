/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner loops of winograd.c, compiled from winograd.inc: in f32 for f32, and in fixed-point
 * numbers of 16 bits for bf16. An element is a value of V or U as these kernels have them: f32 or
 * int16_t. Strides count elements; ic is a multiple of `block`, and oc of WINOGRAD_LANES. No kernel
 * uses threads or allocates.
 *
 * A segment: input channels whose products are summed exactly; all but the last of one size.
 */
#ifndef UNCLIP_STAGES_NN_WINOGRAD_KERNELS_H
#define UNCLIP_STAGES_NN_WINOGRAD_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WINOGRAD_IN        6 /* a tile's side in the input, */
#define WINOGRAD_OUT       4 /* and in the output */
#define WINOGRAD_POSITIONS (WINOGRAD_IN * WINOGRAD_IN)
#define WINOGRAD_PIXELS    (WINOGRAD_OUT * WINOGRAD_OUT)
#define WINOGRAD_TAPS      9
#define WINOGRAD_LANES     16
#define WINOGRAD_COLUMNS   64 /* outputs of a group, at most */
#define WINOGRAD_ROWS      6  /* tiles that the products take at a time, at most */

/* Rows of G that are alike: the first and the last, the two next to the first, and the other two.
 */
#define WINOGRAD_CLASSES 3

/* Of the fixed-point numbers of a layer. For f32 all but the scale, which is 1, are idle. */
struct winograd_scaling {
    float *balance;   /* [ic]: pixels are multiplied by it, */
    float *unbalance; /* and weights by this, its inverse */
    float *inverse;   /* [oc]: what makes weights fixed-point numbers */
    uint32_t *gain;   /* [classes, oc]: what G g is multiplied by then, twice in a word, in
                         2^-15; the first class's is idle */
    float *scale;     /* [classes, oc]: what rows of U stand for */
};

/* M of a tile and a group of outputs: products that lack the scales of V and U. */
struct winograd_sums {
    const float *m, *v_scale;  /* of position 0 */
    const float *u_scale;      /* [classes, oc], of the first column on */
    size_t m_stride, v_stride; /* from one position to the next */
    size_t oc;
};

/* The pixels that a tile makes, where the picture has them. */
struct winograd_results {
    void *first;
    size_t row, pixel;    /* from one to the next */
    size_t rows, columns; /* up to WINOGRAD_OUT */
};

struct winograd_kernels {
    size_t element; /* bytes */
    size_t block;   /* input channels that are taken at a time */
    size_t spare;   /* floats for each channel that input() wants */
    /*
     * V = Bᵀ d B of one tile: v[p * v_stride + c], to be multiplied by scale[p * scale_stride],
     * which has the factors of G at this position as well.
     * d: its 6x6 pixels, of ic channels each.
     */
    void (*input)(void *v, size_t v_stride, float *scale, size_t scale_stride, float *spare,
                  const void *const d[WINOGRAD_POSITIONS], const float *balance, size_t ic,
                  size_t segment);
    /* Adds the squares of each input channel's weights to squares[ic]. g: [ic, 9, 16]. NULL for
     * f32.
     */
    void (*squares)(float *squares, const void *g, size_t ic);
    /* Fills what 16 of oc outputs have there, from `output` on. g: [ic, 9, 16]. */
    void (*scaling)(const struct winograd_scaling *scaling, size_t output, size_t oc, const void *g,
                    size_t ic, size_t segment);
    /*
     * U = G g Gᵀ of some channels and some columns, `output` first: u[p * u_stride + ...] as
     * products() reads it. g: the weights [columns/16, ic, 9, 16], and unbalance, from the first
     * channel on.
     */
    void (*weights)(void *u, size_t u_stride, const void *g, const struct winograd_scaling *scaling,
                    size_t output, size_t oc, const float *unbalance, size_t ic, size_t channels,
                    size_t columns);
    /*
     * m [rows, columns] = v · u of one position and of some channels, which are one segment at
     * most; added to what is there if `more`. v: [rows, ic], from the first channel on.
     */
    void (*products)(float *m, const void *v, const void *u, size_t rows, size_t ic,
                     size_t channels, size_t columns, bool more);
    /* y = Aᵀ M A + bias, added to what is there if `accumulate`, of one tile. bias may be NULL. */
    void (*output)(const struct winograd_results *y, const struct winograd_sums *sums,
                   size_t columns, const float *bias, bool accumulate);
};

/* For CPUs with AVX-512, and VNNI for fixed-point; NULL where these were not compiled. */
const struct winograd_kernels *winograd_kernels_f32(void);
const struct winograd_kernels *winograd_kernels_fixed(void);

#endif
