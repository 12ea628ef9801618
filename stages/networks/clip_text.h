/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CLIP's text encoder: transformers' CLIPTextModelWithProjection (modeling_clip.py), a causal
 * transformer over token and position embeddings. The pipeline gives it no attention mask, so that
 * padding is attended to; what hides it is the causal mask alone.
 */
#ifndef UNCLIP_STAGES_NETWORKS_CLIP_TEXT_H
#define UNCLIP_STAGES_NETWORKS_CLIP_TEXT_H

#include "stages/networks/rows.h"
#include "stages/networks/transformer_block.h"

struct clip_text_config {
    int64_t vocab_size;
    int64_t hidden_size; /* W: width of the token states */
    int64_t intermediate_size;
    int64_t projection_dim; /* D: width of CLIP's shared space */
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t max_position_embeddings;
    double layer_norm_eps;
    enum act hidden_act;
    int64_t eos_token_id; /* 2: the old files' mistake; then the end is the greatest id */
};

struct clip_text {
    struct clip_text_config config;
    struct embedding token_embedding;    /* [vocab_size, W] */
    struct embedding position_embedding; /* [max_position_embeddings, W] */
    struct transformer_block *layers;    /* [num_hidden_layers] */
    struct layer_norm final_layer_norm;
    struct linear text_projection; /* W → D, no bias */
};

/* Reads folder/config.json and folder/model.safetensors. On error nothing is left to release. */
int clip_text_load(struct clip_text *clip, struct nn *nn, const char *folder, struct err *err);
void clip_text_release(struct clip_text *clip);

struct clip_text_output {
    struct tensor states; /* [n, l, W]: the last hidden state */
    struct tensor embed;  /* [n, D]: the projected state of the end token */
};
/* ids [n · l], each below vocab_size and l at most max_position_embeddings (the caller checks).
   The output's tensors belong to the caller's scope. */
struct clip_text_output clip_text_forward(struct nn *nn, struct clip_text *clip, const int32_t *ids,
                                          int64_t n, int64_t l);

#endif
