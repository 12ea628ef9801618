/* SPDX-License-Identifier: Apache-2.0 */
/* TimestepEmbedding (diffusers, models/embeddings.py): two Linears with an activation between. */
#ifndef UNCLIP_STAGES_NETWORKS_TIMESTEP_EMBEDDING_H
#define UNCLIP_STAGES_NETWORKS_TIMESTEP_EMBEDDING_H

#include "stages/nn/layers.h"

struct timestep_embedding {
    struct linear linear_1; /* channels → hidden */
    struct linear linear_2; /* hidden → out */
    enum act act;
    bool flip_sin_to_cos;
    float freq_shift;
};

/* Takes "time_embedding.linear_1" and "…_2". act, flip_sin_to_cos and freq_shift are the caller's.
 */
int timestep_embedding_load(struct timestep_embedding *embedding, struct nn *nn,
                            struct weights *weights, const char *prefix, int64_t channels,
                            int64_t hidden, int64_t out, struct err *err);
void timestep_embedding_release(struct timestep_embedding *embedding);

/* x [n, channels] → [n, out]. */
struct tensor timestep_embedding_mlp(struct nn *nn, struct timestep_embedding *embedding,
                                     struct tensor x);
/* One timestep for all n samples → [n, out]. */
struct tensor timestep_embedding_forward(struct nn *nn, struct timestep_embedding *embedding,
                                         float timestep, int64_t n);

#endif
