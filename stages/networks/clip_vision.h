/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CLIP's image encoder: transformers' CLIPVisionModelWithProjection (modeling_clip.py), a vision
 * transformer over patches with a class token in front.
 */
#ifndef UNCLIP_STAGES_NETWORKS_CLIP_VISION_H
#define UNCLIP_STAGES_NETWORKS_CLIP_VISION_H

#include "stages/networks/rows.h"
#include "stages/networks/transformer_block.h"

struct clip_vision_config {
    int64_t hidden_size; /* W */
    int64_t intermediate_size;
    int64_t projection_dim; /* D: width of CLIP's shared space */
    int64_t num_hidden_layers;
    int64_t num_attention_heads;
    int64_t num_channels;
    int64_t image_size; /* pixels a side */
    int64_t patch_size; /* divides image_size, as far as whole patches go */
    double layer_norm_eps;
    enum act hidden_act;
};

struct clip_vision {
    struct clip_vision_config config;
    struct embedding class_embedding;    /* [1, W] */
    struct embedding position_embedding; /* [1 + patches, W] */
    struct conv2d patch_embedding;  /* num_channels → W, kernel and stride patch_size, no bias */
    struct layer_norm pre_layrnorm; /* so spelt in checkpoints */
    struct transformer_block *layers; /* [num_hidden_layers] */
    struct layer_norm post_layernorm;
    struct linear visual_projection; /* W → D, no bias */
};

/* Reads folder/config.json and folder/model.safetensors. On error nothing is left to release. */
int clip_vision_load(struct clip_vision *clip, struct nn *nn, const char *folder, struct err *err);
void clip_vision_release(struct clip_vision *clip);

/* pixels [n, image_size, image_size, num_channels], normalised → image embedding [n, D]. */
struct tensor clip_vision_forward(struct nn *nn, struct clip_vision *clip, struct tensor pixels);

#endif
