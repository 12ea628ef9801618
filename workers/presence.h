/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker's sign of life in Redis: the hash unclip:worker:SLOT, which goes when it is not renewed,
 * and SLOT in the set unclip:workers. A view for people and for the coordinator's "no worker for
 * stage …": the worker does without it when Redis is away.
 */
#ifndef UNCLIP_WORKERS_PRESENCE_H
#define UNCLIP_WORKERS_PRESENCE_H

#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/err.h"
#include "common/protocol.h"
#include "common/redis.h"

#define PRESENCE_EVERY_MS 5000
#define PRESENCE_TTL_MS   15000

struct presence {
    /* given; borrowed */
    struct redis *redis;
    struct clock *clock;
    enum stage stage;
    const char *slot; /* "decoder-0" */
    const char *model, *dtype;
    /* its own; all zero at first */
    int64_t since_ms; /* wall clock */
    int64_t next_ms;  /* monotonic */
    int64_t last_ms;  /* when the rate was last looked at */
    int64_t tasks;    /* done since then */
    double rate;      /* tasks a second, over the last half minute or so */
};

void presence_count(struct presence *presence, int64_t tasks);
/* Renews the sign when that is due; cheap otherwise. Error: ERR_REDIS; it tries again when it is
   due the next time. */
int presence_keep(struct presence *presence, size_t partitions, struct err *err);
/* The worker leaves. */
void presence_end(struct presence *presence);

#endif
