/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)). CLIP's encoder
 * layer (transformers, CLIPEncoderLayer) and the prior's (diffusers, BasicTransformerBlock with a
 * gelu FeedForward and no cross-attention) are this same block under two sets of names.
 */
#ifndef UNCLIP_STAGES_NETWORKS_TRANSFORMER_BLOCK_H
#define UNCLIP_STAGES_NETWORKS_TRANSFORMER_BLOCK_H

#include "stages/nn/layers.h"

/* What a checkpoint calls the block's parts. Where k is NULL, q names query, key and value as one.
 */
struct transformer_names {
    const char *norm1, *q, *k, *v, *out, *norm2, *fc1, *fc2;
};
extern const struct transformer_names TRANSFORMER_NAMES_CLIP;      /* self_attn.q_proj, … */
extern const struct transformer_names TRANSFORMER_NAMES_DIFFUSERS; /* attn1.to_q, … */
extern const struct transformer_names TRANSFORMER_NAMES_JOINED;    /* qkv, … */

struct transformer_shape {
    int64_t width;  /* channels of the residual stream */
    int64_t hidden; /* channels between the mlp's Linears */
    int heads, head_dim;
    float eps;
    enum act act;
};

struct transformer_block {
    struct layer_norm norm1;
    struct linear qkv; /* width → 3 · heads · head_dim: query, key, value */
    struct linear out; /* heads · head_dim → width */
    struct layer_norm norm2;
    struct linear fc1; /* width → hidden */
    struct linear fc2; /* hidden → width */
    int heads, head_dim;
    enum act act;
};

int transformer_block_load(struct transformer_block *block, struct nn *nn, struct weights *weights,
                           const char *prefix, const struct transformer_names *names,
                           const struct transformer_shape *shape, struct err *err);
void transformer_block_release(struct transformer_block *block);

/* x [n, l, width]; mask as in nn_attention(), or empty → [n, l, width]. */
struct tensor transformer_block_forward(struct nn *nn, struct transformer_block *block,
                                        struct tensor x, struct tensor mask);

/*
 * The same for positions at … at + l - 1 of longer sequences: `seen` [n, s, 2 · heads · head_dim]
 * keeps the keys and values of all positions and gets these ones'. mask [n, l, s] must hide the
 * positions that are not there yet; what stands in their place must be finite.
 */
struct tensor transformer_block_extend(struct nn *nn, struct transformer_block *block,
                                       struct tensor x, struct tensor seen, int64_t at,
                                       struct tensor mask);

/* `count` blocks "PREFIX.0" … one behind the other. *blocks is owned: transformer_release(). */
int transformer_load(struct transformer_block **blocks, int count, struct nn *nn,
                     struct weights *weights, const char *prefix,
                     const struct transformer_names *names, const struct transformer_shape *shape,
                     struct err *err);
void transformer_release(struct transformer_block *blocks, int count);
/* Takes x: it is given back to the pool. */
struct tensor transformer_forward(struct nn *nn, struct transformer_block *blocks, int count,
                                  struct tensor x, struct tensor mask);

/* What the reference adds to the score of a key that must not be seen. */
#define NETWORKS_MASKED -10000.0f

#endif
