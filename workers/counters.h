/* SPDX-License-Identifier: Apache-2.0 */
/* A stage's counters in Redis, unclip:stage:STAGE: added to after each commit. */
#ifndef UNCLIP_WORKERS_COUNTERS_H
#define UNCLIP_WORKERS_COUNTERS_H

#include <stdint.h>

#include "common/protocol.h"
#include "common/redis.h"

/*  X(field, meaning) */
#define COUNTER_TABLE(X)                                                                           \
    X(tasks, "tasks handed on, failed or dropped")                                                 \
    X(batches, "forward passes")                                                                   \
    X(failures, "tasks that failed")                                                               \
    X(cache_hits, "tasks whose embedding came from the cache")                                     \
    X(computed, "tasks that were computed")                                                        \
    X(wasted, "computed in vain: their partition went to another worker meanwhile")                \
    X(compute_ms, "milliseconds of computing")

struct counters {
#define X(field, meaning) int64_t field;
    COUNTER_TABLE(X)
#undef X
};

/* Adds them in one round trip. Error: ERR_REDIS; what was added is then unknown. */
int counters_add(const struct counters *counters, struct redis *redis, enum stage stage,
                 struct err *err);

#endif
