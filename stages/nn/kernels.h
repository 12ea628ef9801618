/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inner loops of our own ops, compiled for several instruction sets from kernels.inc; the
 * widest that the CPU has is chosen once. They work on 16 lanes at a time with plain IEEE
 * operations in a fixed order (no fused multiply-add, no reassociation), so every set gives the
 * same bits; but for avx512bf16, where bf16's products are of this set alone anyway (`dot`): it
 * takes bf16 rows with fused multiply-adds and a shorter exp, to 1e-5 of the others before they
 * are rounded.
 *
 * Rows are f32 or bf16 as `dtype` says; arithmetic is f32. No kernel uses threads.
 */
#ifndef UNCLIP_STAGES_NN_KERNELS_H
#define UNCLIP_STAGES_NN_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "common/safetensors.h"
#include "stages/nn/layers.h"

/* What a normalisation does with channel c: (x - mean[c]) scale[c] + shift[c], then act. */
struct affine {
    const float *mean, *scale, *shift; /* [c] */
    enum act act;
};

/*
 * Products of bf16 rows by weights [k, n] that are packed in panels: of 16 columns each, and within
 * a panel by pairs of k; an odd k and an incomplete panel are filled up with zeros. Sums are f32,
 * in k's order. Strides are in elements.
 */
struct dot {
    /* From the transposed weights, n rows of k; k is even. */
    void (*pack_columns)(uint16_t *panels, const uint16_t *src, size_t stride, size_t k, size_t n);
    /* From k rows of n. */
    void (*pack_rows)(uint16_t *panels, const uint16_t *src, size_t stride, size_t k, size_t n);
    /* dst [m, n] = src [m, k] · weights; dst is written, and src read, to the end of the filling.
     */
    void (*product)(float *dst, size_t dst_stride, const uint16_t *src, size_t src_stride,
                    const uint16_t *panels, size_t m, size_t k, size_t n);
};

struct kernels {
    const char *name;
    /* dst = act(src); dst may be src. */
    void (*act)(void *dst, const void *src, enum dtype dtype, size_t count, enum act act);
    /* dst = a + b; dst may be either. */
    void (*add)(void *dst, const void *a, const void *b, enum dtype dtype, size_t count);
    /*
     * For each of c channels, sums of x - pivot[c] and of its square over `pixels` rows, which lie
     * `stride` elements apart: added to sums[c] and squares[c], which are doubles.
     */
    void (*moments)(double *sums, double *squares, const void *src, const float *pivot,
                    enum dtype dtype, size_t pixels, size_t stride, size_t c);
    /* dst = affine(src), `pixels` rows of c, `stride` elements apart in both. */
    void (*affine)(void *dst, const void *src, const struct affine *affine, enum dtype dtype,
                   size_t pixels, size_t stride, size_t c);
    /* Layer normalisation of one row. */
    void (*layer_norm)(void *dst, const void *src, const float *gamma, const float *beta, float eps,
                       enum dtype dtype, size_t c);
    /*
     * Rows of dst = exp(scores scale + mask - their maximum), and zeros up to the next multiple of
     * 16, for which both have room; sums [rows] of what is in dst, rounding and all, so that a row
     * over its sum adds up to one. Rows of scores and dst lie `stride` elements apart, the mask's
     * `mask_stride` (0: one for all rows); mask may be NULL.
     */
    void (*softmax)(float *sums, void *dst, const float *scores, size_t stride, const float *mask,
                    size_t mask_stride, float scale, enum dtype dtype, size_t rows, size_t count);
    /* dst = src factor, from f32. */
    void (*scale)(void *dst, const float *src, float factor, enum dtype dtype, size_t count);
    /* dst = the mean of rows a and b of 2 pixels of c channels each. */
    void (*mean_of_4)(void *dst, const void *a, const void *b, enum dtype dtype, size_t c);
    const struct dot *dot; /* NULL where the CPU has no such instructions */
};

const struct kernels *kernels(void);
extern const struct kernels kernels_generic;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avx512, kernels_avx512bf16;
#endif

#endif
