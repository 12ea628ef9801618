/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The autoregressive prior (paper, section 2.2): an image embedding as a row of codes, each the
 * bucket of one principal direction, which a causal transformer predicts one after the other. Its
 * twin is ArPriorNetwork in training/unclip_training/stages/ar_prior.py, which writes the folder
 * (docs/training.md has its layout). The sequence is
 *
 *     text token states [L] | text embedding | dot | codes [dimensions - 1]
 *
 * where dot says how well picture and text fit; the output at dot is the first code's
 * distribution. Keys and values of all positions are kept, so each code costs one position.
 */
#ifndef UNCLIP_STAGES_NETWORKS_AR_PRIOR_H
#define UNCLIP_STAGES_NETWORKS_AR_PRIOR_H

#include "stages/networks/rows.h"
#include "stages/networks/transformer_block.h"

struct ar_prior_config {
    int64_t embedding_dim;  /* D of text and image embedding */
    int64_t text_dim;       /* W: width of the token states */
    int64_t num_embeddings; /* L: text tokens */
    int64_t width;          /* of the residual stream */
    int64_t num_layers;
    int64_t num_attention_heads;
    int64_t dimensions;  /* codes of an embedding */
    int64_t buckets;     /* values of a code */
    int64_t dot_buckets; /* values of dot; larger fits better */
    double layer_norm_eps;
};

struct ar_prior {
    struct ar_prior_config config;
    struct linear text_in;      /* text_dim → width */
    struct linear embedding_in; /* embedding_dim → width */
    struct embedding dot_in;    /* [dot_buckets, width] */
    struct embedding bucket_in; /* [buckets, width] */
    struct embedding position;  /* [L + 1 + dimensions, width] */
    struct transformer_block *layers;
    struct layer_norm norm;
    struct linear head; /* width → buckets */
    float *mean;        /* [embedding_dim] */
    float *directions;  /* [dimensions][embedding_dim] */
    float *centres;     /* [dimensions][buckets]: a bucket's value along its direction */
};

/* Reads folder/config.json and the weights beside it. On error nothing is left to release. */
int ar_prior_load(struct ar_prior *prior, struct nn *nn, const char *folder, struct err *err);
void ar_prior_release(struct ar_prior *prior); /* accepts a zeroed struct */

struct ar_prior_input {
    struct tensor text_embed;  /* [n, embedding_dim] */
    struct tensor text_states; /* [n, L, text_dim] */
    const uint8_t *text_mask;  /* [n][L], 1 = token; borrowed during the call */
    const int32_t *dot;        /* [n], each below dot_buckets */
};

/*
 * n sequences on their way. Its tensors belong to the scope (nn_enter()) in which ar_prior_begin()
 * was called, and end with it; ar_prior_end() frees the rest and accepts a zeroed struct.
 */
struct ar_prior_sequence {
    int64_t n, at;       /* at: the position that comes next */
    struct tensor *seen; /* [layers]: keys and values, [n, L + 1 + dimensions, 2 · width] */
    struct tensor mask;  /* f32 [n, 1, L + 1 + dimensions]: of the keys that the next may see */
};
/* Puts the prefix in. → [n, buckets]: logits of the first code. */
struct tensor ar_prior_begin(struct nn *nn, struct ar_prior *prior,
                             const struct ar_prior_input *input,
                             struct ar_prior_sequence *sequence);
/* codes [n], each below buckets (a BUG otherwise); at most dimensions - 1 calls. → [n, buckets]:
   logits of the code after it. */
struct tensor ar_prior_next(struct nn *nn, struct ar_prior *prior,
                            struct ar_prior_sequence *sequence, const int32_t *codes);
void ar_prior_end(struct ar_prior_sequence *sequence);
/* About as many bytes as one row takes. */
size_t ar_prior_row_bytes(const struct nn *nn, const struct ar_prior *prior);

/* codes [dimensions] → the embedding [embedding_dim] at their buckets' centres. */
void ar_prior_decode(const struct ar_prior *prior, const int32_t *codes, float *out);

#endif
