/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which tasks go into the next forward pass. Pure: no Kafka, no clock; time is an argument.
 *
 * Tasks wait in the order they were pulled, at most one batch of each class, so that neither keeps
 * the other from being pulled. A batch is led by the oldest task of the preferred class, else by
 * the oldest one, and takes all that may share its pass. Within a partition it never skips: once
 * one task stays behind, all later ones of its partition do, so that what is handed out is always a
 * prefix of what was pulled of each partition, as kafka_commit() demands.
 *
 * A task that is `alone` shares its pass with no other.
 *
 * Waiting for company saves at most a pass, so it may cost at most a tenth of what the last one
 * took; only a job's pictures are waited for in full, since they come together.
 */
#ifndef UNCLIP_WORKERS_BATCH_H
#define UNCLIP_WORKERS_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/job.h"

struct batch_entry {
    const struct task *task; /* borrowed; NULL: needs no pass and joins any batch */
    enum task_class task_class;
    bool alone;        /* its pass is its own */
    const char *topic; /* borrowed; with partition, what the order is kept within */
    int32_t partition;
    int64_t since_ms; /* when it was pulled */
    void *payload;    /* the caller's */
};

struct batcher {
    size_t capacity;       /* most tasks in a batch, and most of a class that wait */
    size_t ranks;          /* that share a batch, at most its capacity */
    int64_t linger_ms;     /* longest wait for company */
    int64_t pass_ms;       /* what the last pass took; -1: there was none yet */
    int64_t bulk_ms;       /* what a batch with bulk tasks may take, about */
    size_t bulk_capacity;  /* what fits into that, as far as is known */
    unsigned bulk_percent; /* of the batches prefer bulk tasks */
    uint64_t taken;        /* batches so far */
    struct batch_entry *waiting;
    size_t count;
};

void batcher_init(struct batcher *batcher, int capacity, int ranks, int64_t linger_ms,
                  int bulk_percent, int64_t bulk_ms);
void batcher_release(struct batcher *batcher); /* the payloads stay the caller's */

/* The class to pull first for the next batch; and whether another task of a class has a use. */
enum task_class batcher_prefers(const struct batcher *batcher);
bool batcher_wants(const struct batcher *batcher, enum task_class task_class);
void batcher_add(struct batcher *batcher, const struct batch_entry *entry); /* copied */

/* Milliseconds until a batch is due: 0 now, -1 nothing waits. It is due when its leader's class has
   as many as it can take, or when its leader has waited long enough. */
int64_t batcher_due(const struct batcher *batcher, int64_t now_ms);
/* Takes the payloads of the next batch, oldest first, into `payloads` (room for `capacity`), due or
   not. Returns how many. */
size_t batcher_take(struct batcher *batcher, void **payloads);
/* A pass, of whatever tasks, took so long. */
void batcher_passed(struct batcher *batcher, int64_t ms);
/* Computing so many tasks in one batch, some of them bulk ones, took so long. */
void batcher_ran(struct batcher *batcher, size_t tasks, int64_t ms);
/* Takes out every entry that `gone` says yes to, into `payloads` (room for `count`). Returns how
   many. */
size_t batcher_remove(struct batcher *batcher, bool (*gone)(void *context, const void *payload),
                      void *context, void **payloads);

#endif
