/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis on hiredis. A connection is in one of three states: open (context is set), closed and free
 * to be opened by the next command, or closed until retry_at_ms. Whatever goes wrong on the wire
 * closes it and starts or doubles the back-off; an answer, also an error that the server sends,
 * ends the back-off. A command is never sent twice, since the first may have been carried out.
 */
#include "common/redis.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/memory.h"

#define CONNECT_LIMIT_MS 300
#define COMMAND_LIMIT_MS 500
#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS  5000
#define SCRIPTS_MAX      16
#define SHA1_HEX         40
#define WORDS_MAX        64 /* in a format of redis_commandf() */

struct script {
    const char *text; /* static; compared by address */
    char sha1[SHA1_HEX + 1];
};

struct redis {
    char *host; /* owned */
    int port;
    struct clock *clock;
    redisContext *context; /* owned; NULL when closed */
    int64_t backoff_ms;    /* the last one; 0 after an answer */
    int64_t retry_at_ms;
    char trouble[200]; /* why it is closed */
    bool reachable;
    char *queue; /* owned: commands as they go over the wire */
    size_t queue_size, queue_room, queued;
    struct script scripts[SCRIPTS_MAX];
    size_t script_count;
};

/* --- opening and closing --- */

static int parse_port(const char *text, int *port)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < 1 || value > 65535)
        return -1;
    *port = (int)value;
    return 0;
}

int redis_open(struct redis **out, const char *address, struct clock *clock, struct err *err)
{
    const char *colon = strrchr(address, ':');
    int port = 0;
    if (!colon || colon == address || parse_port(colon + 1, &port) != 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "redis address '%s' is not host:port", address);
    struct redis *redis = xcalloc(1, sizeof *redis);
    bool bracketed = address[0] == '[' && colon[-1] == ']'; /* [::1]:6379 */
    redis->host = xasprintf("%.*s", (int)(colon - address) - 2 * bracketed, address + bracketed);
    redis->port = port;
    redis->clock = clock;
    *out = redis;
    return 0;
}

void redis_close(struct redis *redis)
{
    if (!redis)
        return;
    if (redis->context)
        redisFree(redis->context);
    free(redis->host);
    free(redis->queue);
    free(redis);
}

bool redis_reachable(const struct redis *redis)
{
    return redis->reachable;
}

const char *redis_library_version(void)
{
    return ERR_STRING(HIREDIS_MAJOR) "." ERR_STRING(HIREDIS_MINOR) "." ERR_STRING(HIREDIS_PATCH);
}

static struct timeval milliseconds(int ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

static void drop(struct redis *redis)
{
    redisFree(redis->context);
    redis->context = NULL;
}

/* Closes, and starts or doubles the back-off. */
static int fail(struct redis *redis, const char *trouble, struct err *err)
{
    snprintf(redis->trouble, sizeof redis->trouble, "%s", trouble);
    if (redis->context)
        drop(redis);
    int64_t next = redis->backoff_ms ? 2 * redis->backoff_ms : BACKOFF_FIRST_MS;
    redis->backoff_ms = next < BACKOFF_LAST_MS ? next : BACKOFF_LAST_MS;
    redis->retry_at_ms = clock_monotonic_ms(redis->clock) + redis->backoff_ms;
    redis->reachable = false;
    return err_set(err, ERR_REDIS, "redis %s:%d: %s", redis->host, redis->port, redis->trouble);
}

/* hiredis's own words for a time limit are those of EAGAIN. */
static int fail_on_wire(struct redis *redis, struct err *err)
{
    char text[64];
    if (redis->context->err != REDIS_ERR_IO || (errno != EAGAIN && errno != EWOULDBLOCK))
        return fail(redis, redis->context->errstr, err);
    snprintf(text, sizeof text, "no answer in %d ms", COMMAND_LIMIT_MS);
    return fail(redis, text, err);
}

static int connect_now(struct redis *redis, struct err *err)
{
    redis->context =
        redisConnectWithTimeout(redis->host, redis->port, milliseconds(CONNECT_LIMIT_MS));
    if (!redis->context)
        return fail(redis, "cannot allocate a connection", err);
    if (redis->context->err)
        return fail(redis, redis->context->errstr, err);
    if (redisSetTimeout(redis->context, milliseconds(COMMAND_LIMIT_MS)) != REDIS_OK)
        return fail(redis, redis->context->errstr, err);
    return 0;
}

/* Whether the server closed the connection while nobody used it, as when it was restarted. */
static bool went_stale(const struct redis *redis)
{
    char byte;
    ssize_t got = recv(redis->context->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

/* Makes sure that a command can be sent. */
static int ready(struct redis *redis, struct err *err)
{
    if (redis->context && !went_stale(redis))
        return 0;
    if (redis->context)
        drop(redis);
    int64_t wait = redis->retry_at_ms - clock_monotonic_ms(redis->clock);
    if (redis->backoff_ms && wait > 0)
        return err_set(err, ERR_REDIS, "redis %s:%d: %s; next try in %lld ms", redis->host,
                       redis->port, redis->trouble, (long long)wait);
    return connect_now(redis, err);
}

/* hiredis writes without MSG_NOSIGNAL: a SIGPIPE of ours is held back and swallowed. */
struct pipe_guard {
    sigset_t pipe, before;
    bool was_pending;
};

static void guard_pipe(struct pipe_guard *guard)
{
    sigset_t pending;
    sigemptyset(&guard->pipe);
    sigaddset(&guard->pipe, SIGPIPE);
    sigpending(&pending);
    guard->was_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &guard->pipe, &guard->before);
}

static void unguard_pipe(const struct pipe_guard *guard)
{
    static const struct timespec at_once = {0, 0};
    int error = errno;
    if (!guard->was_pending)
        while (sigtimedwait(&guard->pipe, NULL, &at_once) < 0 && errno == EINTR)
            ;
    pthread_sigmask(SIG_SETMASK, &guard->before, NULL);
    errno = error;
}

/* --- replies --- */

static void convert(struct redis_reply *out, const redisReply *in)
{
    switch (in->type) {
    case REDIS_REPLY_NIL:
        out->kind = REDIS_NIL;
        break;
    case REDIS_REPLY_INTEGER:
        out->kind = REDIS_INTEGER;
        out->integer = in->integer;
        break;
    case REDIS_REPLY_ARRAY:
        out->kind = REDIS_ARRAY;
        out->count = in->elements;
        struct redis_reply *items = xcalloc(in->elements, sizeof *items);
        for (size_t i = 0; i < in->elements; i++)
            convert(&items[i], in->element[i]);
        out->items = items;
        break;
    default: /* strings, statuses, and errors within an array */
        out->kind = REDIS_BYTES;
        out->bytes = in->str;
        out->size = in->len;
    }
}

static void free_items(const struct redis_reply *reply)
{
    for (size_t i = 0; i < reply->count; i++)
        free_items(&reply->items[i]);
    free((void *)(uintptr_t)reply->items);
}

void redis_reply_free(struct redis_reply *reply)
{
    if (!reply)
        return;
    free_items(reply);
    freeReplyObject(reply->owner);
    free(reply);
}

const char *redis_reply_field(const struct redis_reply *reply, const char *field)
{
    for (size_t i = 0; i + 1 < reply->count; i += 2)
        if (reply->items[i].kind == REDIS_BYTES && strcmp(reply->items[i].bytes, field) == 0)
            return reply->items[i + 1].bytes;
    return NULL;
}

/* Takes `raw`. The server's error text comes as it is: "WRONGTYPE Operation against …". */
static int deliver(struct redis *redis, redisReply *raw, struct redis_reply **reply,
                   struct err *err)
{
    int result = 0;
    redis->reachable = true;
    redis->backoff_ms = 0;
    if (raw->type == REDIS_REPLY_ERROR)
        result = err_set(err, ERR_REDIS, "redis: %s", raw->str);
    if (result != 0 || !reply) {
        freeReplyObject(raw);
        return result;
    }
    *reply = xcalloc(1, sizeof **reply);
    convert(*reply, raw);
    (*reply)->owner = raw;
    return 0;
}

/* --- commands --- */

/* One command as it goes over the wire. Owned: redisFreeCommand(). */
static char *encode(const struct redis_arg *args, size_t count, size_t *size)
{
    const char **data = xcalloc(count, sizeof *data);
    size_t *sizes = xcalloc(count, sizeof *sizes);
    char *wire = NULL;
    for (size_t i = 0; i < count; i++) {
        data[i] = args[i].data ? args[i].data : "";
        sizes[i] = args[i].size;
    }
    int length = redisFormatCommandArgv(&wire, (int)count, data, sizes);
    BUG_ON(length < 0);
    *size = (size_t)length;
    free(data);
    free(sizes);
    return wire;
}

/* Sends `wire` and hands each of `count` answers to deliver(); the first error wins. */
static int exchange(struct redis *redis, const char *wire, size_t size, size_t count,
                    struct redis_reply **reply, struct err *err)
{
    int result = ready(redis, err);
    if (result != 0)
        return result;
    if (redisAppendFormattedCommand(redis->context, wire, size) != REDIS_OK)
        return fail_on_wire(redis, err);
    for (size_t i = 0; i < count; i++) {
        redisReply *raw = NULL;
        if (redisGetReply(redis->context, (void **)&raw) != REDIS_OK) {
            int lost = fail_on_wire(redis, result == 0 ? err : NULL);
            return result == 0 ? lost : result;
        }
        int one = deliver(redis, raw, reply, result == 0 ? err : NULL);
        result = result == 0 ? one : result;
    }
    return result;
}

static int exchange_guarded(struct redis *redis, const char *wire, size_t size, size_t count,
                            struct redis_reply **reply, struct err *err)
{
    struct pipe_guard guard;
    guard_pipe(&guard);
    int result = exchange(redis, wire, size, count, reply, err);
    unguard_pipe(&guard);
    return result;
}

int redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                  struct redis_reply **reply, struct err *err)
{
    size_t size;
    char *wire = encode(args, count, &size);
    int result = exchange_guarded(redis, wire, size, 1, reply, err);
    redisFreeCommand(wire);
    return result;
}

int redis_queue(struct redis *redis, const struct redis_arg *args, size_t count, struct err *err)
{
    (void)err; /* nothing is sent yet, so nothing can fail */
    size_t size;
    char *wire = encode(args, count, &size);
    if (redis->queue_size + size > redis->queue_room) {
        redis->queue_room = 2 * (redis->queue_size + size);
        redis->queue = xrealloc(redis->queue, redis->queue_room);
    }
    memcpy(redis->queue + redis->queue_size, wire, size);
    redis->queue_size += size;
    redis->queued++;
    redisFreeCommand(wire);
    return 0;
}

int redis_flush(struct redis *redis, struct err *err)
{
    if (redis->queued == 0)
        return 0;
    int result = exchange_guarded(redis, redis->queue, redis->queue_size, redis->queued, NULL, err);
    redis->queue_size = redis->queued = 0;
    return result;
}

/* --- commands from a format --- */

struct words {
    struct redis_arg args[WORDS_MAX];
    char *memory[WORDS_MAX]; /* owned */
    size_t count;
};

static void write_directive(FILE *word, const char **format, va_list *values)
{
    if (strncmp(*format, "%s", 2) == 0) {
        fputs(va_arg(*values, const char *), word);
        *format += 2;
    } else if (strncmp(*format, "%b", 2) == 0) {
        const void *bytes = va_arg(*values, const void *);
        fwrite(bytes, 1, va_arg(*values, size_t), word);
        *format += 2;
    } else if (strncmp(*format, "%lld", 4) == 0) {
        fprintf(word, "%lld", va_arg(*values, long long));
        *format += 4;
    } else {
        BUG("a directive that redis_commandf() does not know");
    }
}

/* One word, up to a space or the end. */
static void take_word(struct words *words, const char **format, va_list *values)
{
    BUG_ON(words->count == WORDS_MAX);
    size_t size = 0;
    FILE *word = open_memstream(&words->memory[words->count], &size);
    BUG_ON(!word);
    while (**format && **format != ' ')
        if (**format == '%')
            write_directive(word, format, values);
        else
            fputc(*(*format)++, word);
    BUG_ON(fclose(word) != 0);
    words->args[words->count] = (struct redis_arg){words->memory[words->count], size};
    words->count++;
}

int redis_commandf(struct redis *redis, struct redis_reply **reply, struct err *err,
                   const char *format, ...)
{
    struct words words = {.count = 0};
    va_list values;
    va_start(values, format);
    while (*format)
        if (*format == ' ')
            format++;
        else
            take_word(&words, &format, &values);
    va_end(values);
    int result = redis_command(redis, words.args, words.count, reply, err);
    for (size_t i = 0; i < words.count; i++)
        free(words.memory[i]);
    return result;
}

/* --- scripts --- */

/* The server's name for a script, asked for once. */
static int find_script(struct redis *redis, const char *text, const char **sha1, struct err *err)
{
    for (size_t i = 0; i < redis->script_count; i++)
        if (redis->scripts[i].text == text) {
            *sha1 = redis->scripts[i].sha1;
            return 0;
        }
    BUG_ON(redis->script_count == SCRIPTS_MAX);
    struct redis_reply *reply;
    const struct redis_arg args[] = {REDIS_STRING("SCRIPT"), REDIS_STRING("LOAD"),
                                     REDIS_STRING(text)};
    int result = redis_command(redis, args, 3, &reply, err);
    if (result != 0)
        return result;
    if (reply->kind != REDIS_BYTES || reply->size != SHA1_HEX) {
        result = err_set(err, ERR_REDIS, "redis: SCRIPT LOAD did not answer with a SHA-1");
    } else {
        struct script *script = &redis->scripts[redis->script_count++];
        script->text = text;
        memcpy(script->sha1, reply->bytes, SHA1_HEX + 1);
        *sha1 = script->sha1;
    }
    redis_reply_free(reply);
    return result;
}

/* `verb` is EVALSHA or EVAL, `script` what it wants to know the script by. */
static int evaluate(struct redis *redis, const char *verb, const char *script,
                    const struct redis_arg *args, size_t count, size_t key_count,
                    struct redis_reply **reply, struct err *err)
{
    char keys[24];
    snprintf(keys, sizeof keys, "%zu", key_count);
    struct redis_arg *all = xcalloc(count + 3, sizeof *all);
    all[0] = REDIS_STRING(verb);
    all[1] = REDIS_STRING(script);
    all[2] = REDIS_STRING(keys);
    if (count > 0)
        memcpy(all + 3, args, count * sizeof *all);
    int result = redis_command(redis, all, count + 3, reply, err);
    free(all);
    return result;
}

int redis_script(struct redis *redis, const char *script, const struct redis_arg *args,
                 size_t count, size_t key_count, struct redis_reply **reply, struct err *err)
{
    static const char unknown[] = "redis: NOSCRIPT";
    const char *sha1 = NULL;
    struct err why = {0};
    int result = find_script(redis, script, &sha1, err);
    if (result != 0)
        return result;
    result = evaluate(redis, "EVALSHA", sha1, args, count, key_count, reply, &why);
    if (result != 0 && strncmp(why.text, unknown, sizeof unknown - 1) == 0)
        return evaluate(redis, "EVAL", script, args, count, key_count, reply, err);
    return result == 0 ? 0 : err_set_at(err, why.code, why.where, "%s", why.text);
}
