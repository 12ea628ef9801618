/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Naive twins of the ops in layers.h, for tests: plain loops on f32 tensors with sums in double,
 * written from the definitions and not for speed. Shapes are in the comments; nothing is fused but
 * what the arguments say.
 */
#ifndef UNCLIP_STAGES_NN_REF_REF_H
#define UNCLIP_STAGES_NN_REF_REF_H

#include <stdbool.h>
#include <stdint.h>

#include "stages/nn/layers.h"

double ref_act(double x, enum act act);

/* dst [rows, oc] = act(src [rows, ic] · weights [oc, ic]ᵀ + bias) + residual; bias, residual or
 * NULL */
void ref_linear(float *dst, const float *src, const float *weights, const float *bias, int64_t rows,
                int64_t ic, int64_t oc, enum act act, const float *residual);

struct ref_conv {
    int64_t n, ih, iw, ic, oc;
    int k, stride, pad;
    const float *src, *weights, *bias; /* [n, ih, iw, ic]; [oc, ic, k, k]; [oc] or NULL */
    const float *add_channels;         /* [n, oc] or NULL */
    const float *residual;             /* [n, oh, ow, oc] or NULL */
};
void ref_conv2d(float *dst, const struct ref_conv *conv);

struct ref_group_norm {
    int64_t n, pixels, c;
    int groups;
    double eps;
    const float *src, *gamma, *beta;
    const float *scale_shift; /* [n, 2c] or NULL */
    enum act act;
};
void ref_group_norm(float *dst, const struct ref_group_norm *norm);

/* src [rows, c] */
void ref_layer_norm(float *dst, const float *src, const float *gamma, const float *beta,
                    int64_t rows, int64_t c, double eps);

struct ref_attention {
    int64_t n, lq, lk;
    int heads, head_dim;
    const float *q, *k, *v;               /* [n, l, ·], at their first channel */
    int64_t q_stride, k_stride, v_stride; /* channels of a row */
    double scale;
    const float *mask; /* [mask_n, mask_lq, lk] or NULL */
    int64_t mask_n, mask_lq;
};
void ref_attention(float *dst, const struct ref_attention *attention);

/* [rows, a] and [rows, b] → [rows, a + b] */
void ref_concat(float *dst, const float *a, const float *b, int64_t rows, int64_t a_count,
                int64_t b_count);
void ref_upsample_nearest_2x(float *dst, const float *src, int64_t n, int64_t h, int64_t w,
                             int64_t c);
void ref_avg_pool_2x(float *dst, const float *src, int64_t n, int64_t h, int64_t w, int64_t c);
void ref_timestep_embedding(float *dst, const float *timesteps, int64_t n, int64_t channels,
                            bool flip_sin_to_cos, double freq_shift);

/* How far `result` is from `expected`. */
struct ref_distance {
    double nmse;    /* Σ(r - e)² / Σe² */
    double maximum; /* max |r - e| / max |e| */
};
struct ref_distance ref_compare(const float *result, const float *expected, int64_t count);

#endif
