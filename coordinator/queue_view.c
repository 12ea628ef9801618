/* SPDX-License-Identifier: Apache-2.0 */
/* One HSET a partition, all in one pipeline, and a script for the workers. */
#include "coordinator/queue_view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FIELDS (CLASS_COUNT * QUEUE_FIELD_COUNT)

struct call {
    char names[FIELDS][QUEUE_FIELD_SIZE], values[FIELDS][24];
    struct redis_arg args[2 + 2 * FIELDS];
    size_t count;
};

static void add_class(struct call *call, const struct ledger *ledger, const struct rates *rates,
                      int partition, enum task_class task_class)
{
    struct admission_state state = ledger_admission(ledger, partition, task_class);
    double interval = rates_between_ends(rates, partition, task_class);
    const int64_t numbers[QUEUE_FIELD_COUNT] = {
        [QUEUE_ROUND] = state.round,
        [QUEUE_CLIENTS] = (int64_t)state.clients,
        [QUEUE_WAITING] = (int64_t)state.waiting_pictures,
        [QUEUE_IN_FLIGHT] = (int64_t)state.in_flight,
        [QUEUE_ENDED] = state.admitted - (int64_t)state.in_flight,
        [QUEUE_INTERVAL_MS] = interval < 0 ? -1 : (int64_t)(interval + 0.5),
    };
    for (enum queue_field field = 0; field < QUEUE_FIELD_COUNT; field++) {
        size_t i = (call->count - 2) / 2;
        queue_field(partition, task_class, field, call->names[i]);
        if (numbers[field] < 0)
            call->values[i][0] = 0;
        else
            snprintf(call->values[i], sizeof call->values[i], "%" PRId64, numbers[field]);
        call->args[call->count++] = REDIS_STRING(call->names[i]);
        call->args[call->count++] = REDIS_STRING(call->values[i]);
    }
}

/*
 * KEYS: unclip:queue, unclip:workers. ARGV: 1 the field, 2 the prefix of a worker's key, 3… the
 * stages. A slot whose sign of life has run out is forgotten.
 */
static const char workers_script[] =
    "local alive, missing = {}, {}\n"
    "for _, slot in ipairs(redis.call('SMEMBERS', KEYS[2])) do\n"
    "  local stage = redis.call('HGET', ARGV[2] .. slot, 'stage')\n"
    "  if stage then alive[stage] = true else redis.call('SREM', KEYS[2], slot) end\n"
    "end\n"
    "for i = 3, #ARGV do\n"
    "  if not alive[ARGV[i]] then table.insert(missing, ARGV[i]) end\n"
    "end\n"
    "redis.call('HSET', KEYS[1], ARGV[1], table.concat(missing, ','))\n"
    "return 1\n";

static int write_missing(struct redis *redis, struct err *err)
{
    char queue[REDIS_KEY_SIZE], workers[REDIS_KEY_SIZE], prefix[REDIS_KEY_SIZE];
    struct redis_arg args[4 + STAGE_COUNT] = {
        REDIS_STRING(redis_key(REDIS_KEY_QUEUE, NULL, queue)),
        REDIS_STRING(redis_key(REDIS_KEY_WORKERS, NULL, workers)),
        REDIS_STRING(QUEUE_NO_WORKER),
        REDIS_STRING(redis_key(REDIS_KEY_WORKER, "", prefix)),
    };
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++)
        args[4 + stage] = REDIS_STRING(stage_name(stage));
    return redis_script(redis, workers_script, args, 4 + STAGE_COUNT, 2, NULL, err);
}

int queue_view_write(struct redis *redis, const struct ledger *ledger, const struct rates *rates,
                     struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct call call;
    bool any = false;

    redis_key(REDIS_KEY_QUEUE, NULL, key);
    for (int i = 0; i < LEDGER_PARTITIONS_MAX; i++) {
        if (!ledger_partition_kept(ledger, i))
            continue;
        call.args[0] = REDIS_STRING("HSET");
        call.args[1] = REDIS_STRING(key);
        call.count = 2;
        for (enum task_class c = 0; c < CLASS_COUNT; c++)
            add_class(&call, ledger, rates, i, c);
        int rc = redis_queue(redis, call.args, call.count, err);
        if (rc < 0)
            return rc;
        any = true;
    }
    int rc = any ? redis_flush(redis, err) : 0;
    return any && rc == 0 ? write_missing(redis, err) : rc;
}
