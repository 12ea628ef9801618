/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The U-Net of decoder and upsamplers: diffusers' UNet2DConditionModel and UNet2DModel
 * (models/unets/), made of the blocks of unet_block.h.
 */
#ifndef UNCLIP_STAGES_NETWORKS_UNET_H
#define UNCLIP_STAGES_NETWORKS_UNET_H

#include "stages/networks/timestep_embedding.h"
#include "stages/networks/unet_block.h"

struct unet {
    struct unet_config config;
    struct conv2d conv_in;
    struct timestep_embedding time_embedding;
    struct unet_block down_blocks[UNET_LEVELS_MAX];
    struct unet_block mid_block;
    struct unet_block up_blocks[UNET_LEVELS_MAX];
    struct group_norm conv_norm_out;
    struct conv2d conv_out;
    int64_t kept_channels; /* of one token of a context, in all attentions */
};

/* Reads folder/config.json and the weights beside it. On error nothing is left to release. */
int unet_load(struct unet *unet, enum unet_class unet_class, struct nn *nn, const char *folder,
              struct err *err);
void unet_release(struct unet *unet);

/* Whether pictures of this size fit the network: every level halves them evenly. */
bool unet_size_fits(const struct unet *unet, int64_t size);

/* sample [n, h, w, in_channels] → [n, h, w, out_channels]. A U-Net without attention and class
   embedding takes a zeroed condition. */
struct tensor unet_forward(struct nn *nn, struct unet *unet, struct tensor sample, float timestep,
                           const struct unet_condition *condition);

/*
 * What the attentions make of a context (their keys and values of its tokens) is the same in all
 * steps. kept: for each sample, kept_bytes() of memory that read_context() fills from context
 * [n, l, cross_attention_dim]; a condition that points to it gives the same as one with the context
 * itself, to the bit. 0 bytes where no level has attention.
 */
size_t unet_kept_bytes(const struct nn *nn, const struct unet *unet, int64_t l);
void unet_read_context(struct nn *nn, struct unet *unet, struct tensor context, void *const *kept);

/*
 * The same as unet_forward() with the deep part shared between steps (DeepCache, arXiv 2312.00858):
 * all but conv_in and the last up block's last layer, which takes conv_in's output as its skip.
 * deep.h [n, h, w, block_out_channels[0]] of the compute dtype is the caller's; the deep part is
 * computed and written to it, or where it is known read from it.
 */
struct unet_deep {
    struct tensor h;
    bool known;
};
/* A deep.h for n pictures of that size; and the bytes of one. */
struct tensor unet_deep_new(struct nn *nn, const struct unet *unet, int64_t n, int64_t size);
size_t unet_deep_bytes(const struct nn *nn, const struct unet *unet, int64_t size);
struct tensor unet_forward_deep(struct nn *nn, struct unet *unet, struct tensor sample,
                                float timestep, const struct unet_condition *condition,
                                const struct unet_deep *deep);

#endif
