/* SPDX-License-Identifier: Apache-2.0 */
/* Positions and estimates. */
#include "client/queue_place.h"

#include <stdlib.h>
#include <string.h>

#include "client/status_hash.h"
#include "common/clock.h"

#define COUNTER_MAX (INT64_C(1) << 53)
#define ETA_MAX_MS  INT64_C(3155760000000) /* a hundred years */

static int64_t at_least(int64_t least, int64_t number)
{
    return number > least ? number : least;
}

static int64_t at_most(int64_t most, int64_t number)
{
    return number < most ? number : most;
}

/* Rounds to go, each with a picture of every client, but no more than what waits besides it; and
   what is in flight goes before. */
static int64_t position_accepted(int64_t ticket, int64_t own, const struct queue_numbers *numbers)
{
    int64_t rounds = at_least(0, ticket - numbers->of[QUEUE_ROUND]);
    int64_t others = at_least(0, numbers->of[QUEUE_WAITING] - own);
    int64_t clients = at_least(1, numbers->of[QUEUE_CLIENTS]);
    int64_t ahead = rounds > others / clients ? others : rounds * clients;
    return at_most(ahead, others) + at_least(0, numbers->of[QUEUE_IN_FLIGHT]);
}

/* Redis may hold anything: what no queue can be is cut, so that all sums below have room. */
static int64_t within(int64_t least, int64_t most, int64_t number)
{
    return at_most(most, at_least(least, number));
}

static int64_t counter(const json_t *status, const char *field)
{
    return within(0, COUNTER_MAX, status_int(status, field));
}

/* -1: not known. */
static int64_t position_of(const json_t *status, const struct queue_numbers *numbers)
{
    const json_t *ticket = json_object_get(status, "queue_ticket");
    if (!json_is_integer(ticket) || numbers->of[QUEUE_ROUND] < 0 || numbers->of[QUEUE_ENDED] < 0)
        return -1;
    if (status_state(status) == JOB_ACCEPTED)
        return position_accepted(counter(status, "queue_ticket"), counter(status, "images_total"),
                                 numbers);
    return at_least(0, counter(status, "queue_ticket") - numbers->of[QUEUE_ENDED]);
}

/* The pictures ahead and its own at the present pace, but no less than its computing takes. */
static int64_t eta_of(const json_t *status, const struct queue_numbers *numbers, int64_t position)
{
    const json_t *work = json_object_get(status, "work_ms");
    int64_t own = counter(status, "images_total") - counter(status, "images_done") -
                  counter(status, "images_failed");
    int64_t interval = numbers->of[QUEUE_INTERVAL_MS], by_pace = -1;
    if (interval >= 0 &&
        __builtin_mul_overflow(at_least(0, at_least(0, position) + own), interval, &by_pace))
        by_pace = ETA_MAX_MS;
    return at_most(ETA_MAX_MS,
                   at_least(by_pace, json_is_integer(work) ? json_integer_value(work) : -1));
}

static bool is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; at && (at = strstr(at, name)); at++)
        if ((at == list || at[-1] == ',') && (!at[length] || at[length] == ','))
            return true;
    return false;
}

/* The first stage, from where the job is on, that has no worker; "" when all have. */
static const char *missing_stage(const json_t *status, const char *no_worker)
{
    bool ahead = false;
    size_t i;
    const json_t *hop;
    json_array_foreach (json_object_get(status, "route"), i, hop) {
        const char *stage = status_text(hop, "stage");
        ahead = ahead || strcmp(stage, status_text(status, "stage")) == 0;
        if (ahead && *stage && is_listed(no_worker, stage))
            return stage;
    }
    return "";
}

void queue_place(json_t *status, const struct queue_numbers *numbers, int64_t now_ms)
{
    char at[CLOCK_ISO_SIZE];
    const char *missing = missing_stage(status, numbers->no_worker);
    int64_t position = position_of(status, numbers);
    int64_t eta = eta_of(status, numbers, position);

    if (position >= 0)
        json_object_set_new(status, "queue_position", json_integer(position));
    if (*missing)
        json_object_set_new(status, "waiting", json_sprintf("no worker for stage %s", missing));
    if (eta < 0 || *missing)
        return;
    clock_iso8601(now_ms + eta, at);
    json_object_set_new(status, "eta_ms", json_integer(eta));
    json_object_set_new(status, "eta_at", json_string(at));
}

static const char *text_at(const struct redis_reply *reply, size_t i)
{
    return i < reply->count && reply->items[i].kind == REDIS_BYTES ? reply->items[i].bytes : "";
}

static int64_t number_of(const struct redis_reply *reply, size_t i)
{
    const char *text = text_at(reply, i);
    return *text ? within(-1, COUNTER_MAX, strtoll(text, NULL, 10)) : -1;
}

int queue_place_fetch(struct redis *redis, json_t *status, int64_t now_ms, struct err *err)
{
    char key[REDIS_KEY_SIZE], names[QUEUE_FIELD_COUNT][QUEUE_FIELD_SIZE];
    struct redis_arg args[3 + QUEUE_FIELD_COUNT] = {REDIS_STRING("HMGET")};
    struct redis_reply *reply = NULL;
    struct queue_numbers numbers;
    enum task_class task_class;

    if (job_state_final(status_state(status)) ||
        !task_class_parse(status_text(status, "class"), &task_class))
        return 0;
    args[1] = REDIS_STRING(redis_key(REDIS_KEY_QUEUE, NULL, key));
    for (enum queue_field i = 0; i < QUEUE_FIELD_COUNT; i++)
        args[2 + i] = REDIS_STRING(
            queue_field((int)status_int(status, "partition"), task_class, i, names[i]));
    args[2 + QUEUE_FIELD_COUNT] = REDIS_STRING(QUEUE_NO_WORKER);
    int rc = redis_command(redis, args, 3 + QUEUE_FIELD_COUNT, &reply, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < QUEUE_FIELD_COUNT; i++)
        numbers.of[i] = number_of(reply, (size_t)i);
    numbers.no_worker = text_at(reply, QUEUE_FIELD_COUNT);
    queue_place(status, &numbers, now_ms);
    redis_reply_free(reply);
    return 0;
}
