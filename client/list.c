/* SPDX-License-Identifier: Apache-2.0 */
/* unclip list: recent jobs, the newest first. */
#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/status_hash.h"
#include "client/text.h"
#include "common/clock.h"

#define PROMPT_COLUMNS 40
#define STATE_COLUMNS  20

struct values {
    bool json;
    int64_t n;
};

static void defaults(void *values)
{
    ((struct values *)values)->n = 20;
}

/* An array of statuses; ids whose hash is gone are left out. */
static int fetch(struct redis *redis, int64_t n, json_t **out, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct redis_reply *ids = NULL;
    int rc = redis_commandf(redis, &ids, err, "ZREVRANGE %s 0 %lld",
                            redis_key(REDIS_KEY_JOBS, NULL, key), (long long)n - 1);

    *out = json_array();
    for (size_t i = 0; rc == 0 && i < ids->count; i++) {
        json_t *status = NULL;
        rc = status_fetch(redis, ids->items[i].bytes, &status, err);
        if (rc == 0)
            json_array_append_new(*out, status);
        else if (rc == -ERR_NOT_FOUND)
            rc = 0;
    }
    redis_reply_free(ids);
    return rc;
}

/* To the second. */
static void print_time(const char *text)
{
    char at[20];
    snprintf(at, sizeof at, "%s", text);
    text_column(at, 20, 0, stdout);
}

/* Pictures before it in the queue. */
static void print_ahead(const json_t *job)
{
    const json_t *ahead = json_object_get(job, "queue_position");
    if (ahead)
        printf("%6lld  ", (long long)json_integer_value(ahead));
    else
        printf("%6s  ", "");
}

static void print_table(const json_t *list)
{
    size_t i;
    const json_t *job;

    if (json_array_size(list) == 0) {
        fprintf(stderr, "no jobs\n");
        return;
    }
    printf("%-28s %-10s %-20s %5s %8s %6s  %s\n", "id", "state", "created", "done", "pictures",
           "ahead", "prompt");
    json_array_foreach (list, i, job) {
        printf("%-28s ", status_text(job, "id"));
        text_column(status_text(job, "state"), 10, STATE_COLUMNS, stdout);
        putchar(' ');
        print_time(status_text(job, "created_at"));
        printf(" %3.0f %% %3lld of %lld ", status_number(job, "progress") * 100,
               (long long)status_int(job, "images_done"),
               (long long)status_int(job, "images_total"));
        print_ahead(job);
        text_column(status_text(job, "prompt"), 0, PROMPT_COLUMNS, stdout);
        putchar('\n');
    }
}

static enum exit_code run(const struct invocation *invocation)
{
    const struct values *values = invocation->values;
    struct redis *redis = NULL;
    struct err err;
    json_t *list = NULL;
    enum exit_code code = EXIT_OK;

    if (redis_open(&redis, invocation->config->redis, clock_system(), &err) < 0 ||
        fetch(redis, values->n, &list, &err) < 0)
        code = complain_of(invocation, &err);
    else if (values->json)
        json_dumpf(list, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15)), puts("");
    else
        print_table(list);
    json_decref(list);
    redis_close(redis);
    return code;
}

static const struct option options[] = {
    {"n", 'n', OPTION_INTEGER, "N", 1, 10000, "20", offsetof(struct values, n), "most jobs"},
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, offsetof(struct values, json),
     "as an array of statuses"},
    {0},
};
static const struct option_group groups[] = {{"Output", options}, {0}};

const struct command list_command = {
    .name = "list",
    .operands = "",
    .summary = "list recent jobs, the newest first",
    .groups = groups,
    .values_size = sizeof(struct values),
    .defaults = defaults,
    .settings = {"redis"},
    .run = run,
};
