/* SPDX-License-Identifier: Apache-2.0 */
/* Counting what is started and not finished; see deaths.h. */
#include "workers/deaths.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/memory.h"

/* Never leaves a count of nothing behind. */
static const char take_back[] = "local left = redis.call('DECR', KEYS[1])\n"
                                "if left <= 0 then redis.call('DEL', KEYS[1]) end\n"
                                "return left\n";

static const char *key_of(const struct parcel *parcel, char out[REDIS_KEY_SIZE])
{
    char *name = task_hop_name(&parcel->task, parcel->task.hop);
    redis_key(REDIS_KEY_STARTED, name, out);
    free(name);
    return out;
}

static void note(struct deaths *deaths, int rc, const struct err *err)
{
    if (rc && !deaths->away)
        log_warn("tasks that kill their worker are not counted: %s", err->text);
    if (!rc && deaths->away)
        log_info("tasks that kill their worker are counted again");
    deaths->away = rc != 0;
}

static bool open_task(const struct parcel *parcel)
{
    return parcel->has_task && parcel->outcome == OUTCOME_OPEN;
}

/* --- reading --- */

static void judge(const struct deaths *deaths, struct parcel *parcel)
{
    struct err err;
    if (parcel->deaths < deaths->limit)
        return;
    err_set(&err, ERR_WORKER_DIED, "worker died %d times", parcel->deaths);
    parcel_fail(parcel, &err);
}

static int read_counts(struct deaths *deaths, struct parcel **asked, size_t count, struct err *err)
{
    char(*keys)[REDIS_KEY_SIZE] = xcalloc(count, sizeof(*keys));
    struct redis_arg *args = xcalloc(count + 1, sizeof(*args));
    struct redis_reply *reply;
    args[0] = REDIS_STRING("MGET");
    for (size_t i = 0; i < count; i++)
        args[i + 1] = REDIS_STRING(key_of(asked[i], keys[i]));
    int rc = redis_command(deaths->redis, args, count + 1, &reply, err);
    for (size_t i = 0; !rc && i < count && i < reply->count; i++)
        if (reply->items[i].kind == REDIS_BYTES)
            asked[i]->deaths = (int)strtol(reply->items[i].bytes, NULL, 10);
    if (!rc)
        redis_reply_free(reply);
    free(args);
    free(keys);
    return rc;
}

void deaths_look(struct deaths *deaths, struct parcel *const *parcels, size_t count)
{
    struct parcel **asked = xcalloc(count + 1, sizeof(struct parcel *));
    struct err err = {0};
    size_t open = 0;
    for (size_t i = 0; i < count; i++)
        if (open_task(parcels[i]))
            asked[open++] = parcels[i];
    if (open > 0)
        note(deaths, read_counts(deaths, asked, open, &err), &err);
    for (size_t i = 0; i < open; i++)
        judge(deaths, asked[i]);
    free(asked);
}

/* --- counting --- */

static void queue(struct deaths *deaths, const struct parcel *parcel, const char *command,
                  const char *argument)
{
    char key[REDIS_KEY_SIZE];
    struct err err;
    struct redis_arg args[3] = {REDIS_STRING(command), REDIS_STRING(key_of(parcel, key)),
                                REDIS_STRING(argument ? argument : "")};
    redis_queue(deaths->redis, args, argument ? 3 : 2, &err);
}

void deaths_count(struct deaths *deaths, struct parcel *const *parcels, size_t count)
{
    char ttl[16];
    struct err err = {0};
    bool any = false;
    snprintf(ttl, sizeof(ttl), "%d", DEATHS_TTL_S);
    for (size_t i = 0; i < count; i++) {
        if (!open_task(parcels[i]))
            continue;
        queue(deaths, parcels[i], "INCR", NULL);
        queue(deaths, parcels[i], "EXPIRE", ttl);
        parcels[i]->counted = any = true;
    }
    if (any)
        note(deaths, redis_flush(deaths->redis, &err), &err);
}

/* Its dead letter is written: if it is sent again, it begins anew. */
static bool given_up(const struct parcel *parcel)
{
    return parcel->outcome == OUTCOME_FAILED && parcel->err.code == ERR_WORKER_DIED;
}

void deaths_clear(struct deaths *deaths, struct parcel *const *parcels, size_t count)
{
    struct err err = {0};
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        if (parcels[i]->gone || (!parcels[i]->counted && !given_up(parcels[i])))
            continue;
        queue(deaths, parcels[i], "DEL", NULL);
        parcels[i]->counted = false;
        any = true;
    }
    if (any)
        note(deaths, redis_flush(deaths->redis, &err), &err);
}

void deaths_take_back(struct deaths *deaths, struct parcel *const *parcels, size_t count)
{
    struct err err = {0};
    char key[REDIS_KEY_SIZE];
    int rc = 0;
    for (size_t i = 0; i < count; i++) {
        parcels[i]->gone = true;
        if (!parcels[i]->counted)
            continue;
        parcels[i]->counted = false;
        struct redis_arg args[] = {REDIS_STRING(key_of(parcels[i], key))};
        rc = redis_script(deaths->redis, take_back, args, 1, 1, NULL, &err);
        note(deaths, rc, &err);
    }
}
