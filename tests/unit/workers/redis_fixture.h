/* SPDX-License-Identifier: Apache-2.0 */
/* A real Redis server for a test group, and a client that asks it. Include after cmocka.h. */
#ifndef UNCLIP_TESTS_REDIS_FIXTURE_H
#define UNCLIP_TESTS_REDIS_FIXTURE_H

#include <stdio.h>

#include "common/redis.h"
#include "tests/unit/redis_server.h"

struct redis_fixture {
    struct redis_server server;
    struct redis *redis;
};

static inline void redis_start(struct redis_fixture *fixture)
{
    struct err err = {0};
    redis_server_start(&fixture->server);
    assert_int_equal(redis_open(&fixture->redis, fixture->server.address, clock_system(), &err), 0);
}

static inline void redis_stop(struct redis_fixture *fixture)
{
    redis_close(fixture->redis);
    redis_server_stop(&fixture->server);
}

/* The reply's text, "" for none; valid until the next call. */
static inline const char *redis_ask(struct redis_fixture *fixture, const char *command,
                                    const char *key, const char *field)
{
    static char text[4096];
    struct redis_arg args[] = {REDIS_STRING(command), REDIS_STRING(key),
                               REDIS_STRING(field ? field : "")};
    struct redis_reply *reply;
    struct err err = {0};
    assert_int_equal(redis_command(fixture->redis, args, field ? 3 : 2, &reply, &err), 0);
    snprintf(text, sizeof(text), "%s", reply->kind == REDIS_BYTES ? reply->bytes : "");
    if (reply->kind == REDIS_INTEGER)
        snprintf(text, sizeof(text), "%lld", (long long)reply->integer);
    redis_reply_free(reply);
    return text;
}

static inline void redis_put(struct redis_fixture *fixture, const char *key, const char *field,
                             const char *value)
{
    struct redis_arg args[] = {REDIS_STRING("HSET"), REDIS_STRING(key), REDIS_STRING(field),
                               REDIS_STRING(value)};
    struct err err = {0};
    assert_int_equal(redis_command(fixture->redis, args, 4, NULL, &err), 0);
}

static inline void redis_empty(struct redis_fixture *fixture)
{
    struct redis_arg args[] = {REDIS_STRING("FLUSHALL")};
    struct err err = {0};
    assert_int_equal(redis_command(fixture->redis, args, 1, NULL, &err), 0);
}

#endif
