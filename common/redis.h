/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis: a view for people and a cache for workers, never the truth. So nothing here blocks for long
 * (connect and command time limits), a broken connection is re-opened with back-off on a later call,
 * and every caller goes on when Redis is away. Only redis.c knows hiredis's types.
 */
#ifndef UNCLIP_COMMON_REDIS_H
#define UNCLIP_COMMON_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/err.h"

struct redis; /* opaque; one connection, used by one thread */

/* Never connects by itself: the first command does. `address` is "host:port". */
int redis_open(struct redis **out, const char *address, struct clock *clock, struct err *err);
void redis_close(struct redis *redis);

struct redis_arg {
    const void *data;
    size_t size;
};
#define REDIS_STRING(text) ((struct redis_arg){(text), strlen(text)})

enum redis_kind { REDIS_NIL, REDIS_INTEGER, REDIS_BYTES, REDIS_ARRAY };
struct redis_reply {
    enum redis_kind kind;
    int64_t integer;
    const char *bytes; /* NUL-terminated too */
    size_t size;
    const struct redis_reply *items; /* of an array */
    size_t count;
    void *owner; /* private */
};

/*
 * Runs one command. *reply (may be NULL) is owned: redis_reply_free(). Errors: ERR_REDIS at once and
 * without a network wait while a back-off lasts (100 ms doubling to 5 s).
 */
int redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                  struct redis_reply **reply, struct err *err);
/* The same from a format of space-separated words: %s a string, %b bytes and size_t, %lld integers
   (long long). What a directive writes is never split into words. */
int redis_commandf(struct redis *redis, struct redis_reply **reply, struct err *err,
                   const char *format, ...);
void redis_reply_free(struct redis_reply *reply);
/* The value of `field` in a reply of HGETALL, or NULL. */
const char *redis_reply_field(const struct redis_reply *reply, const char *field);

/*
 * Pipelines: queue any number, then flush sends them and reads all replies; the first error is
 * returned. Queueing itself sends nothing and cannot fail; a flush empties the queue in any case.
 */
int redis_queue(struct redis *redis, const struct redis_arg *args, size_t count, struct err *err);
int redis_flush(struct redis *redis, struct err *err);

/*
 * A Lua script, sent by its SHA-1 (EVALSHA, after one SCRIPT LOAD) and by its text when the server
 * has forgotten it. `script` must be static; the first key_count args are keys.
 */
int redis_script(struct redis *redis, const char *script, const struct redis_arg *args, size_t count,
                 size_t key_count, struct redis_reply **reply, struct err *err);

bool redis_reachable(const struct redis *redis); /* the last command got an answer */
const char *redis_library_version(void);

#endif
