/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The U-Net's residual block: diffusers' ResnetBlock2D (models/resnet.py), which the blocks of
 * Karlo use for down- and upsampling too (average pooling, nearest neighbour; no convolution of
 * their own).
 */
#ifndef UNCLIP_STAGES_NETWORKS_RESNET_BLOCK_H
#define UNCLIP_STAGES_NETWORKS_RESNET_BLOCK_H

#include "stages/networks/unet_config.h"

enum resample { RESAMPLE_NONE, RESAMPLE_DOWN, RESAMPLE_UP };

struct resnet_block {
    struct group_norm norm1;
    struct conv2d conv1;         /* 3×3, ic → oc */
    struct linear time_emb_proj; /* → oc, or 2 oc with scale_shift */
    struct group_norm norm2;
    struct conv2d conv2;         /* 3×3, oc → oc */
    struct conv2d conv_shortcut; /* 1×1, ic → oc, where they differ */
    bool has_shortcut;
    bool scale_shift; /* how the time enters: around norm2, else added after conv1 */
    enum resample resample;
    enum act act;
};

int resnet_block_load(struct resnet_block *block, struct nn *nn, struct weights *weights,
                      const char *prefix, const struct unet_config *config, int64_t ic, int64_t oc,
                      enum resample resample, struct err *err);
void resnet_block_release(struct resnet_block *block);

/* x [n, h, w, ic], time [n, time_embed_dim] (activated already) → [n, h, w, oc], or half or twice
   h and w. */
struct tensor resnet_block_forward(struct nn *nn, struct resnet_block *block, struct tensor x,
                                   struct tensor time);

#endif
