/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One level of the U-Net on its way down or up, or its middle. One struct serves all of diffusers'
 * classes (models/unets/unet_2d_blocks.py): ResnetDownsampleBlock2D, SimpleCrossAttnDownBlock2D,
 * UNetMidBlock2D, UNetMidBlock2DSimpleCrossAttn, ResnetUpsampleBlock2D and SimpleCrossAttnUpBlock2D
 * differ in what a block has, not in what is done with it.
 */
#ifndef UNCLIP_STAGES_NETWORKS_UNET_BLOCK_H
#define UNCLIP_STAGES_NETWORKS_UNET_BLOCK_H

#include "stages/networks/added_kv_attention.h"
#include "stages/networks/resnet_block.h"
#include "stages/networks/unet_config.h"

struct unet_block_shape {
    int layers;                      /* residual blocks */
    int64_t ic[UNET_LAYERS_MAX + 1]; /* what each of them takes in: with its skip on the way up */
    int64_t oc;
    int attention_layers; /* 0 where the kind of block has none */
    int64_t head_dim;
    const char *sampler; /* "downsamplers", "upsamplers", or NULL for none */
    enum resample resample;
};

struct unet_block {
    int layers;
    struct resnet_block *resnets; /* [layers] */
    int attention_layers;
    struct added_kv_attention *attentions; /* [attention_layers] */
    struct resnet_block sampler;           /* "downsamplers.0" or "upsamplers.0" */
    bool has_sampler;
};

/* `config` gives what all blocks of a network share: groups, eps, time and context channels. */
int unet_block_load(struct unet_block *block, struct nn *nn, struct weights *weights,
                    const char *prefix, const struct unet_config *config,
                    const struct unet_block_shape *shape, struct err *err);
void unet_block_release(struct unet_block *block);

struct unet_condition {
    struct tensor context;      /* [n, l, cross_attention_dim]; not looked at where it is kept */
    struct tensor context_bias; /* f32 [n, l], added to the scores; or empty */
    struct tensor class_embed;  /* [n, time_embed_dim]; not looked at without class_embedding */
    void *const *kept;          /* [n]: what unet_read_context() kept of each context; or NULL */
    int64_t kept_length;        /* l of what is kept */
};

/* What all blocks of one forward pass share. */
#define UNET_SKIPS_MAX (1 + UNET_LEVELS_MAX * (UNET_LAYERS_MAX + 1))
struct unet_pass {
    struct nn *nn;
    struct tensor time; /* [n, time_embed_dim], activated already */
    const struct unet_condition *condition;
    struct tensor skips[UNET_SKIPS_MAX]; /* left by the way down, taken off by the way up */
    int skip_count;
};
void unet_push_skip(struct unet_pass *pass, struct tensor h);

/* h [n, h, w, c] must be the last skip pushed: it stays. What comes out is the last skip too. */
struct tensor unet_down_forward(struct unet_pass *pass, struct unet_block *block, struct tensor h);
/* h stays, as the last skip. */
struct tensor unet_mid_forward(struct unet_pass *pass, struct unet_block *block, struct tensor h);
/* Takes h, and a skip for each layer; all are given back to the pool. */
struct tensor unet_up_forward(struct unet_pass *pass, struct unet_block *block, struct tensor h);
/* Its layers from `from` to before `to` alone. */
struct tensor unet_up_layers(struct unet_pass *pass, struct unet_block *block, int from, int to,
                             struct tensor h);

#endif
