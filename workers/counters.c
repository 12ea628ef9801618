/* SPDX-License-Identifier: Apache-2.0 */
/* A stage's counters; see counters.h. */
#include "workers/counters.h"

#include <stdio.h>
#include <string.h>

static int queue(struct redis *redis, const char *key, const char *field, int64_t number,
                 struct err *err)
{
    char text[24];
    snprintf(text, sizeof(text), "%lld", (long long)number);
    struct redis_arg args[] = {REDIS_STRING("HINCRBY"), REDIS_STRING(key), REDIS_STRING(field),
                               REDIS_STRING(text)};
    return redis_queue(redis, args, 4, err);
}

int counters_add(const struct counters *counters, struct redis *redis, enum stage stage,
                 struct err *err)
{
    static const char *const names[] = {
#define X(field, meaning) #field,
        COUNTER_TABLE(X)
#undef X
    };
    const int64_t values[] = {
#define X(field, meaning) counters->field,
        COUNTER_TABLE(X)
#undef X
    };
    char key[REDIS_KEY_SIZE];
    redis_key(REDIS_KEY_STAGE, stage_name(stage), key);
    for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++) {
        int rc = queue(redis, key, names[i], values[i], err);
        if (rc)
            return rc;
    }
    return redis_flush(redis, err);
}
