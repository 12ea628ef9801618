/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moving rows of channels about: embedding tables, picking and writing rows of a tensor. No
 * arithmetic but the conversion between f32 and the compute dtype. On a failed context every
 * function does nothing and returns an empty tensor.
 */
#ifndef UNCLIP_STAGES_NETWORKS_ROWS_H
#define UNCLIP_STAGES_NETWORKS_ROWS_H

#include <stdint.h>

#include "stages/nn/nn.h"
#include "stages/nn/weights.h"

/* torch.nn.Embedding, or a Parameter of rows: [rows][channels] in the compute dtype. */
struct embedding {
    int64_t rows, channels;
    enum dtype dtype;
    void *data; /* owned; embedding_release() accepts a zeroed struct */
};
/* Takes tensor `name`, of which the last `rank` - 1 dims multiply to rows and channels; its shape
   in the file is `dim`. The size is checked against the file before anything is allocated. */
int embedding_load(struct embedding *embedding, struct nn *nn, struct weights *weights,
                   const char *name, int rank, const int64_t *dim, struct err *err);
void embedding_release(struct embedding *embedding);

/* ids [n · l], each below embedding->rows (a BUG otherwise) → [n, l, channels]. */
struct tensor nn_embed(struct nn *nn, const struct embedding *embedding, const int32_t *ids,
                       int64_t n, int64_t l);
/* The first l rows for each of n samples → [n, l, channels]. */
struct tensor nn_repeat(struct nn *nn, const struct embedding *embedding, int64_t n, int64_t l);
/* x [n, l, c] and index [n] → [n, c]: row index[i] of sample i. */
struct tensor nn_pick_rows(struct nn *nn, struct tensor x, const int64_t *index);
/* x [n, l, c] → [n, c]: the last row of each sample. */
struct tensor nn_pick_last(struct nn *nn, struct tensor x);
/* Adds rows at, at + 1, … of the embedding to those of each sample of x [n, l, c]. Takes x. */
struct tensor nn_add_positions(struct nn *nn, const struct embedding *embedding, struct tensor x,
                               int64_t at);

/*
 * Between memory of each sample, from byte `at` of kept[i] on, and the first `bytes` of sample i of
 * x [n, …]: to that memory (`keep`), or from it. Nothing for an empty x.
 */
void nn_move_kept(struct tensor x, void *const *kept, size_t at, size_t bytes, bool keep);

/* Writes count values from element `at` of a tensor of the compute dtype, and reads them. */
void tensor_put(struct tensor tensor, int64_t at, const float *values, int64_t count);
void tensor_get(struct tensor tensor, int64_t at, float *values, int64_t count);

/* Gives *tensor back and puts `next` in its place: one step along a forward pass. */
void nn_advance(struct nn *nn, struct tensor *tensor, struct tensor next);

#endif
