/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The layers that the networks are made of. Each has a struct with its packed weights (freed by its
 * _release(), which accepts a zeroed struct), a _load() that takes them by checkpoint name, and a
 * forward function. Words are oneDNN's: n, ic, oc, ih, iw, oh, ow, kh, kw. Each op has a naive twin
 * in ref/ref.h and its limits in tests/unit/stages/op_limits.h.
 *
 * "fuse" structs say what is done in the same pass; zeroed fields mean nothing. Activations enter
 * and leave in the compute dtype; accumulation, norms' statistics and softmax are f32.
 */
#ifndef UNCLIP_STAGES_NN_LAYERS_H
#define UNCLIP_STAGES_NN_LAYERS_H

#include "stages/nn/nn.h"
#include "stages/nn/weights.h"

enum act {
    ACT_NONE,
    ACT_SILU,       /* x sigmoid(x) */
    ACT_GELU,       /* x Φ(x), exact (erf): torch's gelu */
    ACT_GELU_TANH,  /* torch's gelu(approximate="tanh") */
    ACT_QUICK_GELU, /* x sigmoid(1.702 x) */
    ACT_RELU
};
/* By the name in a config.json ("silu", "swish", "gelu", "quick_gelu", …); ERR_UNSUPPORTED. */
int act_parse(const char *name, enum act *act, struct err *err);

struct packed; /* weights in the layout that oneDNN chose, and the primitives made for them */

/* torch.nn.Linear: weight [oc, ic], optional bias [oc]. */
struct linear {
    int64_t ic, oc;
    bool has_bias;
    struct packed *packed;
};
int linear_load(struct linear *linear, struct nn *nn, struct weights *weights, const char *name,
                int64_t ic, int64_t oc, bool bias, struct err *err);
/*
 * Several Linears of equal ic as one product, outputs one behind the other in the last dimension
 * (query, key and value). names is NULL-terminated, oc holds each one's outputs.
 */
int linear_load_joined(struct linear *linear, struct nn *nn, struct weights *weights,
                       const char *const *names, int64_t ic, const int64_t *oc, bool bias,
                       struct err *err);
void linear_release(struct linear *linear);
struct linear_fuse {
    enum act act;           /* applied after the bias */
    struct tensor residual; /* added last; the shape of the result */
};
/* x [..., ic] → [..., oc]; rank 2 or 3. */
struct tensor nn_linear(struct nn *nn, struct linear *linear, struct tensor x,
                        struct linear_fuse fuse);

/* torch.nn.Conv2d with square kernel: weight [oc, ic, k, k], bias [oc]. */
struct conv2d {
    int64_t ic, oc;
    int k, stride, pad;
    bool has_bias;
    struct packed *packed;
};
int conv2d_load(struct conv2d *conv, struct nn *nn, struct weights *weights, const char *name,
                int64_t ic, int64_t oc, int k, int stride, int pad, bool bias, struct err *err);
void conv2d_release(struct conv2d *conv);
struct conv_fuse {
    struct tensor add_channels; /* [n, oc], added to every pixel of its sample (time embedding) */
    struct tensor residual;     /* [n, oh, ow, oc], added */
};
/* x [n, ih, iw, ic] → [n, oh, ow, oc]. */
struct tensor nn_conv2d(struct nn *nn, struct conv2d *conv, struct tensor x, struct conv_fuse fuse);

/* torch.nn.GroupNorm over [n, h, w, c] or [n, l, c]. */
struct group_norm {
    int64_t channels;
    int groups;
    float eps;
    float *gamma, *beta; /* [channels] f32 */
};
int group_norm_load(struct group_norm *norm, struct nn *nn, struct weights *weights,
                    const char *name, int64_t channels, int groups, float eps, struct err *err);
void group_norm_release(struct group_norm *norm);
struct norm_fuse {
    struct tensor scale_shift; /* [n, 2c]: y (1 + scale) + shift after the norm */
    enum act act;              /* last */
};
struct tensor nn_group_norm(struct nn *nn, const struct group_norm *norm, struct tensor x,
                            struct norm_fuse fuse);

/* torch.nn.LayerNorm over the last dimension. */
struct layer_norm {
    int64_t channels;
    float eps;
    float *gamma, *beta; /* [channels] f32 */
};
int layer_norm_load(struct layer_norm *norm, struct nn *nn, struct weights *weights,
                    const char *name, int64_t channels, float eps, struct err *err);
void layer_norm_release(struct layer_norm *norm);
struct tensor nn_layer_norm(struct nn *nn, const struct layer_norm *norm, struct tensor x);

/*
 * softmax(q kᵀ scale + mask) v for each head. q [n, lq, ·], k and v [n, lk, ·]: the heads stand one
 * behind the other, head_dim each, starting at the channel offsets given (so that a joined query,
 * key and value is read in place). mask: f32 [n or 1, lq or 1, lk], added before the softmax, or
 * empty. → [n, lq, heads · head_dim].
 */
struct attention_args {
    struct tensor q, k, v;
    int64_t q_offset, k_offset, v_offset; /* channels */
    int heads, head_dim;
    float scale;
    struct tensor mask;
};
struct tensor nn_attention(struct nn *nn, struct attention_args args);

/* Elementwise and shape ops, each into a new tensor. */
struct tensor nn_act(struct nn *nn, struct tensor x, enum act act);
struct tensor nn_add(struct nn *nn, struct tensor a, struct tensor b); /* equal shapes */
/* Along the last dimension: [n, h, w, a] and [n, h, w, b] → [n, h, w, a + b]. */
struct tensor nn_concat_channels(struct nn *nn, struct tensor a, struct tensor b);
/* Along the middle: [n, la, c] and [n, lb, c] → [n, la + lb, c]. */
struct tensor nn_concat_rows(struct nn *nn, struct tensor a, struct tensor b);
struct tensor nn_upsample_nearest_2x(struct nn *nn, struct tensor x); /* [n,h,w,c] → [n,2h,2w,c] */
struct tensor nn_avg_pool_2x(struct nn *nn, struct tensor x); /* [n,h,w,c] → [n,h/2,w/2,c] */
/*
 * diffusers' get_timestep_embedding: timesteps [n] → [n, channels] in the compute dtype (computed
 * in f32). max_period 10000.
 */
struct tensor nn_timestep_embedding(struct nn *nn, const float *timesteps, int64_t n,
                                    int64_t channels, bool flip_sin_to_cos, float freq_shift);

#endif
