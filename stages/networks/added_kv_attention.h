/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder's attention: every pixel attends to the context and to all pixels in one softmax
 * (paper, section 2.1). Source: diffusers' Attention with AttnAddedKVProcessor2_0
 * (models/attention_processor.py).
 */
#ifndef UNCLIP_STAGES_NETWORKS_ADDED_KV_ATTENTION_H
#define UNCLIP_STAGES_NETWORKS_ADDED_KV_ATTENTION_H

#include "stages/networks/unet_config.h"

struct added_kv_attention {
    struct group_norm group_norm;
    struct linear to_q;   /* channels → channels */
    struct linear to_kv;  /* channels → key and value, 2 · channels */
    struct linear add_kv; /* context channels → key and value, 2 · channels */
    struct linear to_out; /* channels → channels */
    int heads, head_dim;
    int64_t kept_at; /* where the U-Net keeps its part of a context; see unet.h */
};

int added_kv_attention_load(struct added_kv_attention *attention, struct nn *nn,
                            struct weights *weights, const char *prefix,
                            const struct unet_config *config, int64_t channels, int64_t head_dim,
                            struct err *err);
void added_kv_attention_release(struct added_kv_attention *attention);

/* Keys and values of a context [n, l, context channels] → [n, l, 2 · channels]. */
struct tensor added_kv_attention_read(struct nn *nn, struct added_kv_attention *attention,
                                      struct tensor context);
/* Keeps what was read, added [n, l, 2 · channels], in its place of each sample's memory, or (`keep`
 * false) fills it from there. Nothing for an empty one. */
void added_kv_attention_move(const struct added_kv_attention *attention, struct tensor added,
                             void *const *kept, bool keep);
/*
 * x [n, h, w, channels], added [n, l, 2 · channels] what was read of the context, bias f32 [n, l]
 * added to the scores of its keys (or empty) → [n, h, w, channels], x added.
 */
struct tensor added_kv_attention_forward(struct nn *nn, struct added_kv_attention *attention,
                                         struct tensor x, struct tensor added, struct tensor bias);

#endif
