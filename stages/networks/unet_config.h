/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The config.json of a U-Net: diffusers' UNet2DConditionModel (the decoder) and UNet2DModel (the
 * upsamplers), as far as Karlo's kinds of block go. Both classes describe one and the same network;
 * what the second lacks (a class embedding, attention) is off in its config.
 */
#ifndef UNCLIP_STAGES_NETWORKS_UNET_CONFIG_H
#define UNCLIP_STAGES_NETWORKS_UNET_CONFIG_H

#include "stages/networks/netconfig.h"
#include "stages/nn/layers.h"

#define UNET_LEVELS_MAX   8
#define UNET_LAYERS_MAX   16    /* residual blocks of a level */
#define UNET_CHANNELS_MAX 16384 /* of one level */
#define UNET_KERNEL_MAX   15    /* of the first and the last convolution */

enum unet_class { UNET_2D, UNET_2D_CONDITION };

struct unet_config {
    int64_t sample_size; /* pixels a side; 0 where the file has null */
    int64_t in_channels, out_channels;
    int levels;
    int64_t block_out_channels[UNET_LEVELS_MAX];
    int64_t layers_per_block[UNET_LEVELS_MAX];
    /* Channels a head, by place: as in the reference, an up block i takes entry i, not its mirror.
     */
    int64_t attention_head_dim[UNET_LEVELS_MAX];
    bool down_attention[UNET_LEVELS_MAX]; /* SimpleCrossAttnDownBlock2D, else ResnetDownsample… */
    bool up_attention[UNET_LEVELS_MAX];   /* SimpleCrossAttnUpBlock2D, else ResnetUpsample… */
    bool mid_attention;                   /* UNetMidBlock2DSimpleCrossAttn, else UNetMidBlock2D */
    int64_t mid_resnets;                  /* 2, or 1 for UNet2DConditionModel's UNetMidBlock2D */
    int64_t cross_attention_dim;          /* channels of the context */
    int64_t time_embed_dim;
    int64_t norm_num_groups;
    double norm_eps;
    enum act act;      /* of the residual blocks */
    enum act act_time; /* of the time embedding */
    enum act act_out;  /* before the last convolution */
    bool scale_shift;  /* resnet_time_scale_shift: "scale_shift", else "default" */
    bool flip_sin_to_cos;
    double freq_shift;
    int64_t conv_in_kernel, conv_out_kernel;
    bool class_embedding; /* class_embed_type "identity": a vector is added to the time embedding */
};

/* ERR_INVALID_MODEL, ERR_UNSUPPORTED or ERR_TOO_LARGE naming file, key and value. */
int unet_config_read(struct unet_config *config, enum unet_class unet_class,
                     const struct netconfig *file, struct err *err);

#endif
