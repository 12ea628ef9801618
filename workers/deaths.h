/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tasks that kill their worker. Before a task is computed it is counted in Redis,
 * unclip:started:NAME (task_hop_name()), and after its commit the count is removed; a worker that
 * dies in between leaves it behind. So a task that is found with a count is a suspect: it is
 * computed in a batch of its own, and after so many deaths not at all. Redis may be away: then
 * nothing is counted and nobody is a suspect, which is said once. Used by the Kafka thread alone.
 */
#ifndef UNCLIP_WORKERS_DEATHS_H
#define UNCLIP_WORKERS_DEATHS_H

#include <stdbool.h>

#include "common/redis.h"
#include "workers/parcel.h"

#define DEATHS_TTL_S 259200 /* a count is forgotten after three days */

struct deaths {
    struct redis *redis; /* borrowed */
    int limit;           /* deaths after which a task is not computed any more */
    bool away;           /* said so */
};

/* Reads the counts into parcel->deaths, in one round trip; a parcel over the limit fails as
   worker_died. Parcels without an open task are left out. */
void deaths_look(struct deaths *deaths, struct parcel *const *parcels, size_t count);
/* Counts the parcels that are about to be computed. */
void deaths_count(struct deaths *deaths, struct parcel *const *parcels, size_t count);
/* They are committed: removes the counts, also of one that has failed as worker_died. Parcels that
   are not counted are left out, here and below, and here those that were taken back. */
void deaths_clear(struct deaths *deaths, struct parcel *const *parcels, size_t count);
/* They are not ours any more, and their next worker counts for itself: takes back one each. */
void deaths_take_back(struct deaths *deaths, struct parcel *const *parcels, size_t count);

#endif
