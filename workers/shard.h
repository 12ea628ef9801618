/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stage's forward pass, spread over MPI ranks. Rank 0 alone talks to Kafka and Redis; it gives
 * each rank a part of the batch's pictures and gathers what they make of them. Without mpirun there
 * is one rank, and no MPI. Only shard.c knows MPI's types.
 *
 * A picture's bytes do not depend on how many ranks there are: ranks split the batch, never a
 * picture. With fewer pictures than ranks, those that work take the others' threads.
 *
 * All MPI calls but those of shard_open() and shard_close() come from one thread (the compute
 * thread on rank 0). A rank that dies takes the others with it at once: there is no batch without
 * it.
 */
#ifndef UNCLIP_WORKERS_SHARD_H
#define UNCLIP_WORKERS_SHARD_H

#include "workers/models.h"

struct shard; /* opaque */

/* Call it first in main(): MPI may change argc and argv. Error: ERR_INTERNAL. */
int shard_open(struct shard **out, int *argc, char ***argv, struct err *err);
/* Rank 0: ends the other ranks' shard_serve(). Then all of them leave MPI. Call it from main's
 * thread. */
void shard_close(struct shard *shard);
int shard_rank(const struct shard *shard);
int shard_size(const struct shard *shard);
/* All ranks: what to compute with. Borrowed until shard_close(). */
void shard_use(struct shard *shard, struct models *models, struct nn *nn, enum stage stage);

/*
 * Rank 0: stage_run() over all ranks. `watch` hears of this rank's steps; items that it stops are
 * stopped on their ranks. An item's own failure is in item->err; the return value is an error only
 * when the whole batch failed, as when the model is unknown.
 */
int shard_run(struct shard *shard, const char *model, struct item *const *items, size_t count,
              const struct stage_settings *settings, const struct stage_watch *watch,
              struct err *err);
/* Other ranks: works for rank 0 until shard_close() there. */
void shard_serve(struct shard *shard);

const char *shard_library_version(void);

#endif
