/* SPDX-License-Identifier: Apache-2.0 */
/* TimestepEmbedding; see timestep_embedding.h. */
#include "stages/networks/timestep_embedding.h"

#include "stages/networks/netconfig.h"
#include "stages/networks/rows.h"

int timestep_embedding_load(struct timestep_embedding *embedding, struct nn *nn,
                            struct weights *weights, const char *prefix, int64_t channels,
                            int64_t hidden, int64_t out, struct err *err)
{
    int rc = linear_load(&embedding->linear_1, nn, weights, NAME("%s.linear_1", prefix), channels,
                         hidden, true, err);
    if (rc)
        return rc;
    return linear_load(&embedding->linear_2, nn, weights, NAME("%s.linear_2", prefix), hidden, out,
                       true, err);
}

void timestep_embedding_release(struct timestep_embedding *embedding)
{
    linear_release(&embedding->linear_1);
    linear_release(&embedding->linear_2);
}

struct tensor timestep_embedding_mlp(struct nn *nn, struct timestep_embedding *embedding,
                                     struct tensor x)
{
    size_t scope = nn_enter(nn);
    x = nn_linear(nn, &embedding->linear_1, x, (struct linear_fuse){.act = embedding->act});
    return nn_leave(nn, scope, nn_linear(nn, &embedding->linear_2, x, (struct linear_fuse){0}));
}

struct tensor timestep_embedding_forward(struct nn *nn, struct timestep_embedding *embedding,
                                         float timestep, int64_t n)
{
    size_t scope = nn_enter(nn);
    /* one row, repeated: every sample has the same timestep */
    struct tensor t = nn_timestep_embedding(nn, &timestep, 1, embedding->linear_1.ic,
                                            embedding->flip_sin_to_cos, embedding->freq_shift);
    t = timestep_embedding_mlp(nn, embedding, t);
    struct embedding row = {
        .rows = 1, .channels = embedding->linear_2.oc, .dtype = nn_dtype(nn), .data = t.data};
    struct tensor rows = tensor_empty(t) ? t : nn_repeat(nn, &row, n, 1);
    return nn_leave(nn, scope, TENSOR_RESHAPE(rows, n, row.channels));
}
