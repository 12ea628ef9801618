/* SPDX-License-Identifier: Apache-2.0 */
/* The sign of life: one pipeline every few seconds. */
#include "workers/presence.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define RATE_MS 30000 /* over which the rate is about the mean */

void presence_count(struct presence *presence, int64_t tasks)
{
    presence->tasks += tasks;
}

static void rate_update(struct presence *presence, int64_t now_ms)
{
    int64_t ms = now_ms - presence->last_ms;
    double share = presence->last_ms == 0 || ms >= RATE_MS ? 1 : (double)ms / RATE_MS;
    if (ms <= 0)
        return;
    if (presence->last_ms > 0)
        presence->rate += ((double)presence->tasks * 1000 / (double)ms - presence->rate) * share;
    presence->last_ms = now_ms;
    presence->tasks = 0;
}

static int sign(const struct presence *presence, size_t partitions, struct err *err)
{
    char key[REDIS_KEY_SIZE], slots[REDIS_KEY_SIZE], since[CLOCK_ISO_SIZE], count[24], rate[32];
    char ttl[24];

    clock_iso8601(presence->since_ms, since);
    snprintf(count, sizeof count, "%zu", partitions);
    snprintf(rate, sizeof rate, "%.3f", presence->rate);
    snprintf(ttl, sizeof ttl, "%d", PRESENCE_TTL_MS);
    redis_key(REDIS_KEY_WORKER, presence->slot, key);
    redis_key(REDIS_KEY_WORKERS, NULL, slots);
    const struct redis_arg set[] = {
        REDIS_STRING("HSET"),        REDIS_STRING(key),
        REDIS_STRING("stage"),       REDIS_STRING(stage_name(presence->stage)),
        REDIS_STRING("model"),       REDIS_STRING(presence->model),
        REDIS_STRING("dtype"),       REDIS_STRING(presence->dtype),
        REDIS_STRING("since"),       REDIS_STRING(since),
        REDIS_STRING("partitions"),  REDIS_STRING(count),
        REDIS_STRING("tasks_per_s"), REDIS_STRING(rate)};
    const struct redis_arg expire[] = {REDIS_STRING("PEXPIRE"), REDIS_STRING(key),
                                       REDIS_STRING(ttl)};
    const struct redis_arg add[] = {REDIS_STRING("SADD"), REDIS_STRING(slots),
                                    REDIS_STRING(presence->slot)};
    int rc;
    if ((rc = redis_queue(presence->redis, set, sizeof set / sizeof *set, err)) < 0 ||
        (rc = redis_queue(presence->redis, expire, 3, err)) < 0 ||
        (rc = redis_queue(presence->redis, add, 3, err)) < 0)
        return rc;
    return redis_flush(presence->redis, err);
}

int presence_keep(struct presence *presence, size_t partitions, struct err *err)
{
    int64_t now_ms = clock_monotonic_ms(presence->clock);

    if (presence->since_ms == 0)
        presence->since_ms = clock_wall_ms(presence->clock);
    if (now_ms < presence->next_ms)
        return 0;
    presence->next_ms = now_ms + PRESENCE_EVERY_MS;
    rate_update(presence, now_ms);
    return sign(presence, partitions, err);
}

void presence_end(struct presence *presence)
{
    char key[REDIS_KEY_SIZE], slots[REDIS_KEY_SIZE];

    if (presence->since_ms == 0)
        return;
    redis_commandf(presence->redis, NULL, NULL, "DEL %s",
                   redis_key(REDIS_KEY_WORKER, presence->slot, key));
    redis_commandf(presence->redis, NULL, NULL, "SREM %s %s",
                   redis_key(REDIS_KEY_WORKERS, NULL, slots), presence->slot);
}
