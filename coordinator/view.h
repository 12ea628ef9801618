/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis as a view of the ledger. Statuses are written after the commit that made them true, so
 * Redis may lag behind Kafka but never runs ahead, and whatever it loses is written anew: view.c's
 * opening comment says how that is noticed. Nothing here waits longer than redis.h's time limits.
 */
#ifndef UNCLIP_COORDINATOR_VIEW_H
#define UNCLIP_COORDINATOR_VIEW_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/kafka.h"
#include "common/redis.h"
#include "coordinator/ledger.h"
#include "coordinator/rates.h"

#define VIEW_CHECK_MS  1000  /* between two looks at unclip:view */
#define VIEW_SLICE     512   /* statuses in one pipeline: as many as a commit changes */
#define VIEW_ENDED_MAX 4096  /* ended jobs kept for a Redis that is away; then they are replayed */
#define VIEW_JOBS_MAX  10000 /* ids in unclip:jobs */
#define VIEW_SLACK_MS  60000 /* how far clocks differ, and how long a dead coordinator goes on */

struct view; /* opaque; used by the coordinator's one thread */

typedef int view_each_fn(void *context, const struct kafka_record *record, struct err *err);

struct view_options {
    struct redis *redis;       /* borrowed */
    struct ledger *ledger;     /* borrowed */
    const struct rates *rates; /* borrowed */
    struct clock *clock;       /* borrowed */
    int64_t ttl_ms;            /* of an ended job's status */
    /* Calls `each` for every result of the partition; kafka_replay() or a test's. */
    int (*replay)(void *context, int partition, view_each_fn *each, void *each_context,
                  struct err *err);
    void *context;
};

struct view *view_new(const struct view_options *options);
void view_free(struct view *view);

/* The ledger has added the partition: all of its statuses are to be checked; or will drop it. */
void view_partition_add(struct view *view, int partition);
void view_partition_drop(struct view *view, int partition);

/*
 * Writes some of what is to be written. Only to be called when every change in the ledger is
 * committed. Call it often: it does a slice at a time and costs nothing when there is nothing to
 * do.
 */
void view_serve(struct view *view);
/* Something is to be written, and Redis answers. */
bool view_pending(const struct view *view);

#endif
