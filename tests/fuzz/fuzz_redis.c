/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients and coordinators read from Redis, which anybody may have written. The first byte
 * says who reads: `l` unclip list, `t` unclip stages, `v` the coordinator's view, else unclip
 * status. Then follow the answers, one a line, with a tab between the items of an array; where the
 * answers end, all is empty.
 */
#include "client/command.h"
#include "client/progress.h"
#include "client/status_hash.h"
#include "common/log.h"
#include "coordinator/view.h"
#include "tests/fuzz/fuzz.h"

static struct input answers;
static char *texts[64]; /* what the answers point into; owned */
static size_t text_count;

/* --- a Redis and a Kafka that answer --- */

int __wrap_redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                         struct redis_reply **reply, struct err *err);
int __wrap_redis_commandf(struct redis *redis, struct redis_reply **reply, struct err *err,
                          const char *format, ...);
int __wrap_redis_queue(struct redis *redis, const struct redis_arg *args, size_t count,
                       struct err *err);
int __wrap_redis_flush(struct redis *redis, struct err *err);
int __wrap_redis_script(struct redis *redis, const char *script, const struct redis_arg *args,
                        size_t count, size_t key_count, struct redis_reply **reply,
                        struct err *err);
int __wrap_kafka_client_open(struct kafka_client **out, const struct config *config,
                             struct err *err);
void __wrap_kafka_client_close(struct kafka_client *client);
int __wrap_kafka_client_lag(struct kafka_client *client, const char *group, const char *topic,
                            int timeout_ms, int64_t *lag, struct err *err);

/* The next answer, owned, as an array; an empty item is nil where `nil` says so. */
static struct redis_reply *answer(bool nil)
{
    struct input line = take_line(&answers);
    struct redis_reply *reply = xcalloc(1, sizeof *reply);
    struct redis_reply *items = xcalloc(line.size + 1, sizeof *items);
    reply->kind = REDIS_ARRAY;
    reply->items = items;
    if (line.size == 0 || text_count == sizeof texts / sizeof *texts)
        return reply;
    char *at = texts[text_count++] = text_of_input(line), *end = at + line.size;
    while (at && at <= end) {
        char *tab = memchr(at, '\t', (size_t)(end - at));
        size_t size = (size_t)((tab ? tab : end) - at);
        at[size] = 0;
        items[reply->count++] =
            nil && size == 0 ? (struct redis_reply){.kind = REDIS_NIL}
                             : (struct redis_reply){.kind = REDIS_BYTES, .bytes = at, .size = size};
        at = tab ? tab + 1 : NULL;
    }
    return reply;
}

int __wrap_redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                         struct redis_reply **reply, struct err *err)
{
    (void)redis, (void)count, (void)err;
    if (reply)
        *reply = answer(args[0].size == 5 && memcmp(args[0].data, "HMGET", 5) == 0);
    return 0;
}

int __wrap_redis_commandf(struct redis *redis, struct redis_reply **reply, struct err *err,
                          const char *format, ...)
{
    (void)redis, (void)err, (void)format;
    if (reply)
        *reply = answer(false);
    return 0;
}

int __wrap_redis_queue(struct redis *redis, const struct redis_arg *args, size_t count,
                       struct err *err)
{
    (void)redis, (void)args, (void)count, (void)err;
    return 0;
}

int __wrap_redis_flush(struct redis *redis, struct err *err)
{
    (void)redis, (void)err;
    return 0;
}

int __wrap_redis_script(struct redis *redis, const char *script, const struct redis_arg *args,
                        size_t count, size_t key_count, struct redis_reply **reply, struct err *err)
{
    (void)redis, (void)script, (void)args, (void)count, (void)key_count, (void)err;
    if (!reply)
        return 0;
    *reply = answer(false);
    (*reply)->integer = (int64_t)(*reply)->count;
    return 0;
}

int __wrap_kafka_client_open(struct kafka_client **out, const struct config *config,
                             struct err *err)
{
    (void)config, (void)err;
    *out = NULL;
    return 0;
}

void __wrap_kafka_client_close(struct kafka_client *client)
{
    (void)client;
}

int __wrap_kafka_client_lag(struct kafka_client *client, const char *group, const char *topic,
                            int timeout_ms, int64_t *lag, struct err *err)
{
    (void)client, (void)group, (void)topic, (void)timeout_ms, (void)err;
    *lag = 7;
    return 0;
}

/* --- who reads --- */

/* What goes to a terminal does not steer it. */
static void check_shown(char *shown)
{
    for (const char *at = shown; *at; at++)
        BUG_ON(((unsigned char)*at < ' ' && *at != '\n') || *at == 0x7f);
    free(shown);
}

static void check_printed(const json_t *status)
{
    char *shown = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&shown, &size);
    BUG_ON(!out);
    status_print(status, out);
    fclose(out);
    check_shown(shown);
}

static void read_status(void)
{
    static const struct progress_style style = {.columns = 60, .utf8 = true};
    struct progress progress;
    struct err err = {0};
    json_t *status = NULL;
    int rc = status_fetch(NULL, "my-heart", &status, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    char *text = json_dumps(status, JSON_COMPACT);
    BUG_ON(!text);
    free(text);
    check_printed(status);
    progress_from_status(&progress, status);
    BUG_ON(!(progress.fraction >= 0 && progress.fraction <= 1));
    check_shown(progress_bars(&progress, progress.eta_s, &style));
    check_shown(progress_line(&progress));
    json_decref(status);
}

static void run(const struct command *command, bool json)
{
    static char redis[] = "127.0.0.1:6379";
    static const struct config config = {.redis = redis};
    void *values = xcalloc(1, command->values_size);
    if (command->defaults)
        command->defaults(values);
    *(bool *)values = json; /* the first option of both */
    struct invocation invocation = {.command = command, .config = &config, .values = values};
    BUG_ON(command->run(&invocation) != EXIT_OK);
    free(values);
}

static int replay_nothing(void *context, int partition, view_each_fn *each, void *each_context,
                          struct err *err)
{
    (void)context, (void)partition, (void)each, (void)each_context, (void)err;
    return 0;
}

static void read_view(void)
{
    struct clock clock;
    struct ledger *ledger = ledger_new();
    struct rates rates = {0};
    clock_fake_init(&clock, 1769862896789LL);
    struct view_options options = {.ledger = ledger,
                                   .rates = &rates,
                                   .clock = &clock,
                                   .ttl_ms = 86400000,
                                   .replay = replay_nothing};
    struct view *view = view_new(&options);
    ledger_partition_add(ledger, 0);
    view_partition_add(view, 0);
    for (int i = 0; i < 5; i++, clock.now_ms += VIEW_CHECK_MS)
        view_serve(view);
    view_free(view);
    ledger_free(ledger);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    BUG_ON(!freopen("/dev/null", "w", stdout));
    log_init("fuzz", LOG_LEVEL_ERROR);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    answers = (struct input){data, size};
    uint8_t who = take_byte(&answers);
    if (who == 'l' || who == 'L')
        run(&list_command, who == 'L');
    else if (who == 't' || who == 'T')
        run(&stages_command, who == 'T');
    else if (who == 'v')
        read_view();
    else
        read_status();
    while (text_count)
        free(texts[--text_count]);
    return 0;
}
