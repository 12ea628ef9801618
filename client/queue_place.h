/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A job's place in the queue and when it may be done, from its status and the numbers of its
 * partition's lines in unclip:queue: O(1) whatever waits. Estimates: docs/protocol.md, "Place and
 * ETA".
 */
#ifndef UNCLIP_CLIENT_QUEUE_PLACE_H
#define UNCLIP_CLIENT_QUEUE_PLACE_H

#include <jansson.h>
#include <stdint.h>

#include "common/err.h"
#include "common/protocol.h"
#include "common/redis.h"

struct queue_numbers {
    int64_t of[QUEUE_FIELD_COUNT]; /* -1 where not known */
    const char *no_worker; /* stages that have none, "prior,decoder"; borrowed; may be NULL */
};

/*
 * Adds to a status: `queue_position` (pictures ahead of it; of an accepted or queued job), `eta_ms`
 * and `eta_at` (of a job that has not ended), each only if it is known; and `waiting`, "no worker
 * for stage upsampler-2", where its way leads through a stage that nobody works on; such a job has
 * no ETA. Pure.
 */
void queue_place(json_t *status, const struct queue_numbers *numbers, int64_t now_ms);
/* The same with the numbers from Redis. Error: ERR_REDIS. */
int queue_place_fetch(struct redis *redis, json_t *status, int64_t now_ms, struct err *err);

#endif
