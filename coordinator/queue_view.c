/* SPDX-License-Identifier: Apache-2.0 */
/* One HSET a partition, all in one pipeline. */
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
    return any ? redis_flush(redis, err) : 0;
}
