/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The diffusion prior: diffusers' PriorTransformer (models/transformers/prior_transformer.py;
 * paper, section 2.2). A causal transformer over the sequence
 *
 *     text token states [L] | text embedding | timestep | noisy image embedding | learned "prd"
 * token
 *
 * whose state at the last position is the predicted image embedding (not the noise).
 */
#ifndef UNCLIP_STAGES_NETWORKS_PRIOR_TRANSFORMER_H
#define UNCLIP_STAGES_NETWORKS_PRIOR_TRANSFORMER_H

#include "stages/networks/rows.h"
#include "stages/networks/timestep_embedding.h"
#include "stages/networks/transformer_block.h"

struct prior_config {
    int64_t num_attention_heads;
    int64_t attention_head_dim;
    int64_t num_layers;
    int64_t embedding_dim;         /* D of the noisy embedding, and the width of the token states */
    int64_t num_embeddings;        /* L: text tokens */
    int64_t additional_embeddings; /* tokens after the text: 4, or 3 without prd */
    int64_t time_embed_dim;        /* hidden channels of the time embedding */
    int64_t embedding_proj_dim;    /* D of the text embedding */
    int64_t clip_embed_dim;        /* D of the prediction */
    enum act time_embed_act;
    bool prd; /* added_emb_type: "prd", or null */
};

struct prior_transformer {
    struct prior_config config;
    struct timestep_embedding time_embedding;
    struct linear proj_in;                    /* embedding_dim → inner */
    struct linear embedding_proj;             /* embedding_proj_dim → inner */
    struct linear encoder_hidden_states_proj; /* embedding_dim → inner */
    struct embedding positional_embedding;    /* [L + additional_embeddings, inner] */
    struct embedding prd_embedding;           /* [1, inner]; empty without prd */
    struct transformer_block *transformer_blocks;
    struct layer_norm norm_out;
    struct linear proj_to_clip_embeddings; /* inner → clip_embed_dim */
    float *clip_mean, *clip_std;           /* [clip_embed_dim] */
};

/* Reads folder/config.json and the weights beside it. On error nothing is left to release. */
int prior_transformer_load(struct prior_transformer *prior, struct nn *nn, const char *folder,
                           struct err *err);
void prior_transformer_release(struct prior_transformer *prior);

struct prior_input {
    struct tensor latents; /* [n, embedding_dim]: the noisy image embedding */
    float timestep;
    struct tensor text_embed;  /* [n, embedding_proj_dim] */
    struct tensor text_states; /* [n, L, embedding_dim] */
    struct tensor text_bias;   /* f32 [n, L]: 0, or NETWORKS_MASKED for padding; or empty */
};
/* → [n, clip_embed_dim]. */
struct tensor prior_transformer_forward(struct nn *nn, struct prior_transformer *prior,
                                        const struct prior_input *input);

/*
 * The same for sampling, where all steps have the same text. The sequence is causal when there is
 * a padding mask: so the states of the text's tokens and embedding depend on nothing that a step
 * changes, and it is enough to read them once, and in each step to extend what every block has seen
 * of them by the three tokens that are left. Equal to the forward pass but for rounding, as long as
 * NETWORKS_MASKED hides a key.
 *
 * kept: for each row, kept_bytes() of memory that read_text() fills from the input's text_embed,
 * text_states and text_bias, and step() reads; step() has no use for text_embed and text_states.
 */
size_t prior_transformer_kept_bytes(const struct nn *nn, const struct prior_transformer *prior);
void prior_transformer_read_text(struct nn *nn, struct prior_transformer *prior,
                                 const struct prior_input *input, void *const *kept);
struct tensor prior_transformer_step(struct nn *nn, struct prior_transformer *prior,
                                     const struct prior_input *input, void *const *kept);

/* The model's space → CLIP's, in place: x · clip_std + clip_mean; x [clip_embed_dim]. */
void prior_transformer_post_process(const struct prior_transformer *prior, float *x);

#endif
