/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compute thread: takes a batch of parcels, runs the stage, and gives them back with their
 * outputs made. It owns the models, its own Redis connection (cache and progress) and the writing
 * of pictures. It shares nothing with the Kafka thread but the two slots that batches pass through.
 *
 * For each parcel: read its tensors; drop it when it is not wanted any more; read the pictures that
 * it names (pictures.h), and ask again before each; take its embedding from the cache; else compute
 * it with the others; then make the next task or the picture, and the event. Redis may be away at
 * any time: one log line when it goes and one when it is back.
 */
#ifndef UNCLIP_WORKERS_COMPUTE_H
#define UNCLIP_WORKERS_COMPUTE_H

#include "common/storage.h"
#include "workers/parcel.h"
#include "workers/probe.h"
#include "workers/shard.h"

/* A batch. Owned by whoever holds it, with its parcels; work_free(). */
struct work {
    struct parcel **parcels;
    size_t count;
    size_t passes; /* forward passes made of it: 0 or 1 */
    double compute_ms;
};
struct work *work_new(size_t capacity);
/* How many of a finished batch's tasks took its time, when that tells how long bulk tasks take:
   some of those that were computed are bulk ones, and all were computed to their end. Else 0. */
size_t work_lesson(const struct work *work);
void work_free(struct work *work); /* NULL is fine */

struct compute_options {
    enum stage stage;
    const char *worker; /* "decoder-0"; borrowed until compute_stop() */
    const char *redis;  /* address */
    int64_t cache_ttl_s;
    const char *fetch;       /* which servers pictures may come from (common/fetch.h); borrowed */
    int homes;               /* partitions of unclip.events */
    struct storage *storage; /* borrowed, as are the next three */
    struct shard *shard;
    struct models *models;
    const struct probe *probe; /* borrowed; NULL: finished pictures are not looked at */
    struct clock *clock;
    void (*wake)(void *context); /* called from the compute thread when a batch is done */
    void *context;
};

struct compute; /* opaque */
int compute_start(struct compute **out, const struct compute_options *options, struct err *err);
/* Waits for the batch in hand. */
void compute_stop(struct compute *compute);
/* Takes the work. There must be none in hand. */
void compute_submit(struct compute *compute, struct work *work);
/* The finished batch, owned, or NULL. Does not wait. */
struct work *compute_take(struct compute *compute);

#endif
