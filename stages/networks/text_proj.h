/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the decoder is told: diffusers' UnCLIPTextProjModel (pipelines/unclip/text_proj.py; paper,
 * section 2.1). The image embedding becomes a few extra tokens in front of the projected text
 * states, and with the text embedding a vector that is added to the timestep's.
 */
#ifndef UNCLIP_STAGES_NETWORKS_TEXT_PROJ_H
#define UNCLIP_STAGES_NETWORKS_TEXT_PROJ_H

#include "stages/nn/layers.h"

struct text_proj_config {
    int64_t clip_extra_context_tokens; /* E: 4 */
    int64_t clip_embeddings_dim;       /* D; also the width of the text states */
    int64_t time_embed_dim;            /* T */
    int64_t cross_attention_dim;       /* C */
};

struct text_proj {
    struct text_proj_config config;
    float *learned_classifier_free_guidance_embeddings;             /* [D]: the image embedding of
                                                                       the unconditional half */
    struct linear embedding_proj;                                   /* D → T */
    struct linear clip_image_embeddings_project_to_time_embeddings; /* D → T */
    struct linear clip_extra_context_tokens_proj;                   /* D → C · E */
    struct linear encoder_hidden_states_proj;                       /* D → C */
    struct layer_norm text_encoder_hidden_states_norm;
};

/* Reads folder/config.json and the weights beside it. On error nothing is left to release. */
int text_proj_load(struct text_proj *proj, struct nn *nn, const char *folder, struct err *err);
void text_proj_release(struct text_proj *proj);

struct text_proj_output {
    struct tensor context; /* [n, E + l, C] */
    struct tensor time;    /* [n, T] */
};
/* image_embed [n, D], text_embed [n, D], text_states [n, l, D]. Outputs are of the caller's scope.
 */
struct text_proj_output text_proj_forward(struct nn *nn, struct text_proj *proj,
                                          struct tensor image_embed, struct tensor text_embed,
                                          struct tensor text_states);

#endif
