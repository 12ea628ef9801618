/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unclip stages: what each stage has before it and who works on it. The lag is Kafka's, of the
 * workers' consumer groups; the workers are those that give a sign of life in Redis.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/status_hash.h"
#include "common/clock.h"

#define LAG_MS 10000

struct values {
    bool json;
};

/* --- Kafka --- */

static int put_lag(json_t *row, struct kafka_client *client, enum stage stage, struct err *err)
{
    json_t *lags = json_object();
    int rc = 0;
    for (enum task_class c = 0; c < CLASS_COUNT && rc == 0; c++) {
        int64_t lag = 0;
        rc = kafka_client_lag(client, topic_tasks_group(stage, c), topic_tasks(stage, c), LAG_MS,
                              &lag, err);
        json_object_set_new(lags, task_class_name(c), json_integer(lag));
    }
    json_object_set_new(row, "lag", lags);
    return rc;
}

/* --- Redis --- */

/* A worker's hash as an object; not for one that has gone. */
static json_t *worker_json(const char *slot, const struct redis_reply *reply)
{
    static const char *const texts[] = {"stage", "model", "dtype", "since"};
    const char *partitions = redis_reply_field(reply, "partitions");
    const char *rate = redis_reply_field(reply, "tasks_per_s");
    json_t *out = json_pack("{s:s}", "slot", slot);

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *text = redis_reply_field(reply, texts[i]);
        json_object_set_new(out, texts[i], json_string(text ? text : ""));
    }
    json_object_set_new(out, "partitions",
                        json_integer(partitions ? strtoll(partitions, NULL, 10) : 0));
    json_object_set_new(out, "tasks_per_s", json_real(rate ? strtod(rate, NULL) : 0));
    return out;
}

static int fetch_workers(struct redis *redis, json_t **out, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct redis_reply *slots = NULL;
    int rc = redis_commandf(redis, &slots, err, "SORT %s ALPHA",
                            redis_key(REDIS_KEY_WORKERS, NULL, key));

    *out = json_array();
    for (size_t i = 0; rc == 0 && i < slots->count; i++) {
        struct redis_reply *reply = NULL;
        if (slots->items[i].size > JOB_ID_MAX)
            continue;
        rc = redis_commandf(redis, &reply, err, "HGETALL %s",
                            redis_key(REDIS_KEY_WORKER, slots->items[i].bytes, key));
        if (rc == 0 && reply->count > 0)
            json_array_append_new(*out, worker_json(slots->items[i].bytes, reply));
        redis_reply_free(reply);
    }
    redis_reply_free(slots);
    return rc;
}

static void put_workers(json_t *row, const json_t *workers)
{
    json_t *own = json_array();
    double rate = 0;
    size_t i;
    json_t *worker;

    json_array_foreach (workers, i, worker) {
        if (strcmp(status_text(worker, "stage"), status_text(row, "stage")) != 0)
            continue;
        json_array_append(own, worker);
        rate += status_number(worker, "tasks_per_s");
    }
    json_object_set_new(row, "tasks_per_s", json_real(rate));
    json_object_set_new(row, "workers", own);
}

/* Milliseconds of computing a task, over all the time that the counters count. */
static int put_compute(json_t *row, struct redis *redis, enum stage stage, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct redis_reply *reply = NULL;
    int rc = redis_commandf(redis, &reply, err, "HGETALL %s",
                            redis_key(REDIS_KEY_STAGE, stage_name(stage), key));
    if (rc < 0)
        return rc;
    const char *ms = redis_reply_field(reply, "compute_ms");
    const char *computed = redis_reply_field(reply, "computed");
    double count = computed ? strtod(computed, NULL) : 0;
    json_object_set_new(row, "compute_ms",
                        ms && count > 0 ? json_real(strtod(ms, NULL) / count) : json_null());
    redis_reply_free(reply);
    return 0;
}

/* --- all of it --- */

static int fetch(struct redis *redis, struct kafka_client *client, json_t **out, struct err *err)
{
    json_t *workers = NULL;
    int rc = fetch_workers(redis, &workers, err);

    *out = json_array();
    for (enum stage stage = 0; stage < STAGE_COUNT && rc == 0; stage++) {
        json_t *row = json_pack("{s:s}", "stage", stage_name(stage));
        json_array_append_new(*out, row);
        if ((rc = put_lag(row, client, stage, err)) == 0 &&
            (rc = put_compute(row, redis, stage, err)) == 0)
            put_workers(row, workers);
    }
    json_decref(workers);
    return rc;
}

static void print_table(const json_t *rows)
{
    size_t i;
    const json_t *row;

    printf("%-12s %12s %12s %8s %10s %12s\n", "stage", "interactive", "bulk", "workers", "tasks/s",
           "ms a task");
    json_array_foreach (rows, i, row) {
        const json_t *lag = json_object_get(row, "lag"), *ms = json_object_get(row, "compute_ms");
        printf("%-12s %12lld %12lld %8zu %10.2f ", status_text(row, "stage"),
               (long long)status_int(lag, "interactive"), (long long)status_int(lag, "bulk"),
               json_array_size(json_object_get(row, "workers")), status_number(row, "tasks_per_s"));
        if (json_is_real(ms))
            printf("%12.1f\n", json_real_value(ms));
        else
            printf("%12s\n", "-");
    }
}

static enum exit_code run(const struct invocation *invocation)
{
    const struct values *values = invocation->values;
    struct redis *redis = NULL;
    struct kafka_client *client = NULL;
    struct err err;
    json_t *rows = NULL;
    enum exit_code code = EXIT_OK;

    if (redis_open(&redis, invocation->config->redis, clock_system(), &err) < 0 ||
        kafka_client_open(&client, invocation->config, &err) < 0 ||
        fetch(redis, client, &rows, &err) < 0)
        code = complain_of(invocation, &err);
    else if (values->json)
        json_dumpf(rows, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6)), puts("");
    else
        print_table(rows);
    json_decref(rows);
    kafka_client_close(client);
    redis_close(redis);
    return code;
}

static const struct option options[] = {
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, offsetof(struct values, json),
     "as an array, with each worker"},
    {0},
};
static const struct option_group groups[] = {{"Output", options}, {0}};

const struct command stages_command = {
    .name = "stages",
    .operands = "",
    .summary = "show what each stage has before it, and its workers",
    .details =
        "interactive and bulk: the lag in Kafka, about the tasks that no worker has finished yet.\n"
        "Jobs that wait for admission are not among them: unclip status shows their place.\n",
    .groups = groups,
    .values_size = sizeof(struct values),
    .settings = {"kafka", "redis"},
    .run = run,
};
