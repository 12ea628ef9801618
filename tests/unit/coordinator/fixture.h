/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A coordinator without Kafka and Redis: records go in by hand, outputs are looked at. Time is what
 * the test says it is.
 */
#ifndef UNCLIP_TESTS_COORDINATOR_FIXTURE_H
#define UNCLIP_TESTS_COORDINATOR_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "common/memory.h"
#include "common/schema.h"
#include "coordinator/handle.h"
#include "coordinator/records.h"

#define HOME         3
#define NOW          1769862896789LL /* 2026-01-31T12:34:56.789Z */
#define OUTBOXES_MAX 64

struct fixture {
    struct ledger *ledger;
    struct planner planner;
    struct retry retry;
    struct handler handler;
    struct rates rates;
    struct outbox outboxes[OUTBOXES_MAX]; /* of the records since the last fixture_commit() */
    size_t records;
    int64_t now_ms, offset;
    bool urgent; /* what the last record's commit is */
};

static inline int64_t fixture_seed(void)
{
    return 4242;
}

static inline void fixture_init(struct fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->ledger = ledger_new();
    ledger_partition_add(fixture->ledger, HOME);
    planner_init(&fixture->planner, SOURCE_DIR "/models", "emoji");
    fixture->planner.seed = fixture_seed;
    fixture->retry = (struct retry){.limit = 2, .base_ms = 1000, .max_ms = 60000, .state = 1};
    fixture->handler = (struct handler){fixture->ledger, &fixture->planner, "coordinator-0",
                                        &fixture->retry, &fixture->rates,   NULL};
    fixture->now_ms = NOW;
}

/* As after a commit: the outputs are gone, all is shown. */
static inline void fixture_commit(struct fixture *fixture)
{
    struct live_job *job;

    handle_settle(&fixture->handler);
    for (size_t i = 0; i < fixture->records; i++)
        outbox_release(&fixture->outboxes[i]);
    fixture->records = 0;
    while ((job = ledger_first_unshown(fixture->ledger)))
        ledger_shown(fixture->ledger, job);
}

static inline void fixture_release(struct fixture *fixture)
{
    fixture_commit(fixture);
    ledger_free(fixture->ledger);
    planner_release(&fixture->planner);
}

static inline struct outbox *send_bytes(struct fixture *fixture, const char *topic, const char *key,
                                        const void *value, size_t size)
{
    struct kafka_record record = {
        .topic = topic,
        .partition = HOME,
        .offset = fixture->offset++,
        .timestamp_ms = fixture->now_ms - 5,
        .key = key,
        .key_size = key ? strlen(key) : 0,
        .value = value,
        .value_size = size,
    };
    assert_true(fixture->records < OUTBOXES_MAX);
    struct outbox *outbox = &fixture->outboxes[fixture->records++];
    fixture->urgent = handle_record(&fixture->handler, &record, fixture->now_ms, outbox);
    return outbox;
}

static inline struct outbox *send_job(struct fixture *fixture, const char *key, const char *value)
{
    return send_bytes(fixture, topic_name(TOPIC_JOBS), key, value, value ? strlen(value) : 0);
}

static inline struct outbox *send_event(struct fixture *fixture, const char *type, const char *job,
                                        int image, enum stage stage, const char *more)
{
    char *text =
        xasprintf("{\"version\":1,\"type\":\"%s\",\"job\":\"%s\",\"image\":%d,"
                  "\"stage\":\"%s\",\"hop\":%d,\"worker\":\"%s-0\","
                  "\"at\":\"2026-01-31T12:34:57.000Z\"%s}",
                  type, job, image, stage_name(stage), (int)stage, stage_name(stage), more);
    struct outbox *outbox = send_bytes(fixture, topic_name(TOPIC_EVENTS), job, text, strlen(text));
    free(text);
    return outbox;
}

#define COMPUTED ",\"queue_ms\":1,\"compute_ms\":100,\"batch\":1"
#define STORED(image)                                                                              \
    COMPUTED ",\"uri\":\"file:///a/" image ".png\",\"width\":1024,\"height\":1024,\"sha256\":"     \
             "\"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\""
#define FAILED ",\"error_code\":\"compute_failed\",\"error_message\":\"step 3 is not finite\""

static inline struct outbox *finish_stage(struct fixture *fixture, const char *job, int image,
                                          enum stage stage)
{
    return send_event(fixture, "stage-finished", job, image, stage, COMPUTED);
}

/* How many outputs of the topic there are; *found is the last. */
static inline size_t outputs_to(const struct outbox *outbox, const char *topic,
                                const struct kafka_output **found)
{
    size_t count = 0;
    for (size_t i = 0; i < outbox->count; i++)
        if (strcmp(outbox->outputs[i].topic, topic) == 0) {
            count++;
            if (found)
                *found = &outbox->outputs[i];
        }
    return count;
}

/* The one output of that topic, as JSON valid by `schema`. Owned. */
static inline json_t *output_json(const struct outbox *outbox, enum topic topic, const char *schema)
{
    const struct kafka_output *output = NULL;
    struct err err;
    assert_int_equal(outputs_to(outbox, topic_name(topic), &output), 1);
    if (schema_validate(schema, output->value, output->value_size, &err) < 0)
        fail_msg("%s: %.*s", err.text, (int)output->value_size, (const char *)output->value);
    json_t *json = json_loadb(output->value, output->value_size, 0, NULL);
    assert_non_null(json);
    return json;
}

static inline void assert_member(const json_t *json, const char *key, const char *value)
{
    const char *text = json_string_value(json_object_get(json, key));
    assert_non_null(text);
    assert_string_equal(text, value);
}

/* The one dead letter of the outbox has that code. */
static inline void assert_dead_letter(const struct outbox *outbox, const char *code)
{
    json_t *json = output_json(outbox, TOPIC_DEAD_LETTER, "dead-letter");
    assert_member(json, "error_code", code);
    json_decref(json);
}

/* A fixture for each test: cmocka_unit_test_setup_teardown() of these. */
static inline int fixture_setup(void **state)
{
    struct fixture *fixture = test_malloc(sizeof *fixture);
    fixture_init(fixture);
    *state = fixture;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    fixture_release(*state);
    test_free(*state);
    return 0;
}

static inline struct live_job *find(const struct fixture *fixture, const char *id)
{
    return ledger_find(fixture->ledger, HOME, id);
}

#endif
