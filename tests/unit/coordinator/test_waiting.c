/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs that wait: what lets them in, in which transaction, and what a coordinator that takes the
 * partition over finds. unclip.state is played by a table of the latest value of each key.
 */
#include <malloc.h>

#include "common/log.h"
#include "fixture.h"

#define CANCEL "{\"version\":1,\"type\":\"cancel\"}"
#define KEYS   32

struct world {
    struct fixture f;
    struct kafka_output state[KEYS]; /* owned keys and values: unclip.state, compacted */
    int64_t order[KEYS];             /* of the last write */
    size_t keys;
    int64_t written;
};

static void start(struct world *w, int in_flight)
{
    fixture_init(&w->f);
    ledger_partition_drop(w->f.ledger, HOME);
    ledger_bound(w->f.ledger,
                 &(struct admission_bounds){{in_flight, in_flight}, 1000000, 4, 1 << 20});
    ledger_partition_add(w->f.ledger, HOME);
}

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    start(w, 2);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    fixture_release(&w->f);
    for (size_t i = 0; i < w->keys; i++) {
        free((void *)(uintptr_t)w->state[i].key);
        free((void *)(uintptr_t)w->state[i].value);
    }
    free(w);
    return 0;
}

static struct outbox *send(struct world *w, const char *id, int n, const char *client)
{
    char *text = xasprintf("{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\","
                           "\"n\":%d,\"client\":\"%s\"}",
                           n, client);
    struct outbox *outbox = send_job(&w->f, id, text);
    free(text);
    return outbox;
}

static struct outbox *fail_picture(struct world *w, const char *id, int image)
{
    return send_event(&w->f, "picture-failed", id, image, STAGE_TEXT_ENCODE, FAILED);
}

static void store(struct world *w, const struct kafka_output *output)
{
    size_t i = 0;
    while (i < w->keys && (w->state[i].key_size != output->key_size ||
                           memcmp(w->state[i].key, output->key, output->key_size) != 0))
        i++;
    assert_true(i < KEYS);
    if (i == w->keys) {
        w->state[w->keys++] = (struct kafka_output){.topic = output->topic,
                                                    .key = strndup(output->key, output->key_size),
                                                    .key_size = output->key_size};
    }
    free((void *)(uintptr_t)w->state[i].value);
    w->state[i].value = output->value ? strndup(output->value, output->value_size) : NULL;
    w->state[i].value_size = output->value_size;
    w->order[i] = ++w->written;
}

static void commit(struct world *w)
{
    handle_settle(&w->f.handler);
    for (size_t r = 0; r < w->f.records; r++)
        for (size_t i = 0; i < w->f.outboxes[r].count; i++)
            if (strcmp(w->f.outboxes[r].outputs[i].topic, topic_name(TOPIC_STATE)) == 0)
                store(w, &w->f.outboxes[r].outputs[i]);
    fixture_commit(&w->f);
}

static void restore(struct world *w, const struct kafka_output *output)
{
    struct kafka_record record = {.topic = output->topic,
                                  .partition = HOME,
                                  .key = output->key,
                                  .key_size = output->key_size,
                                  .value = output->value,
                                  .value_size = output->value_size};
    struct live_job *job = NULL;
    struct err err;
    if (!output->value)
        return;
    if (state_decode(&job, HOME, &record, &err) < 0)
        fail_msg("%s: %.*s", err.text, (int)output->value_size, (const char *)output->value);
    ledger_restore(w->f.ledger, job);
}

/* Another coordinator takes over: it reads the log in the order of the last writes. */
static void take_over(struct world *w, int in_flight)
{
    int64_t offset = w->f.offset;
    commit(w);
    fixture_release(&w->f);
    start(w, in_flight);
    w->f.offset = offset;
    for (int64_t at = 1; at <= w->written; at++)
        for (size_t i = 0; i < w->keys; i++)
            if (w->order[i] == at)
                restore(w, &w->state[i]);
    ledger_partition_ready(w->f.ledger, HOME);
}

/* The keys of the tasks in the outbox, as "a/0 b/1". */
static void assert_tasks(const struct outbox *outbox, const char *keys)
{
    char text[256] = "";
    for (size_t i = 0; i < outbox->count; i++)
        if (strncmp(outbox->outputs[i].topic, TOPIC_TASKS_PREFIX, strlen(TOPIC_TASKS_PREFIX)) == 0)
            snprintf(text + strlen(text), sizeof text - strlen(text), "%s%.*s", *text ? " " : "",
                     (int)outbox->outputs[i].key_size, (const char *)outbox->outputs[i].key);
    assert_string_equal(text, keys);
}

static void test_waits_and_is_let_in(void **state)
{
    struct world *w = *state;
    assert_tasks(send(w, "a", 2, ""), "a/0 a/1");
    struct outbox *out = send(w, "b", 2, "");
    assert_tasks(out, "");
    handle_settle(&w->f.handler);
    json_t *json = output_json(out, TOPIC_STATE, "state");
    assert_member(json, "state", "accepted");
    assert_int_equal(json_array_size(json_object_get(json, "images")), 0);
    json_decref(json);
    fixture_commit(&w->f);
    out = fail_picture(w, "a", 1); /* one ends, one is let in: with its mark in the same outbox */
    assert_tasks(out, "b/0");
    struct live_job *b = find(&w->f, "b");
    assert_int_equal(b->state, JOB_QUEUED);
    assert_true(ledger_admission(w->f.ledger, HOME, CLASS_INTERACTIVE).waiting_bytes >=
                sizeof *b + 2 * sizeof *b->pictures); /* which it has, though half of it waits */
    handle_settle(&w->f.handler);
    char *found = NULL;
    for (size_t i = 0; i < out->count; i++)
        if (out->outputs[i].value && strcmp(out->outputs[i].topic, topic_name(TOPIC_STATE)) == 0 &&
            memcmp(out->outputs[i].key, "b", 1) == 0)
            found = strndup(out->outputs[i].value, out->outputs[i].value_size);
    assert_non_null(found);
    assert_non_null(strstr(found, "\"admitted\":1"));
    free(found);
    fixture_commit(&w->f);
    out = fail_picture(w, "a", 0); /* the job's end makes room too */
    assert_null(find(&w->f, "a"));
    assert_tasks(out, "b/1");
}

static void test_cancelled_while_it_waits(void **state)
{
    struct world *w = *state;
    send(w, "a", 1, "");
    send(w, "b", 2, "");
    send(w, "c", 3, "");
    assert_int_equal(find(&w->f, "b")->admitted, 1);
    struct outbox *out = send_job(&w->f, "c", CANCEL);
    assert_tasks(out, "");
    handle_settle(&w->f.handler);
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "cancelled");
    assert_int_equal(json_array_size(json_object_get(json, "images")), 3);
    assert_member(json_array_get(json_object_get(json, "images"), 2), "state", "dropped");
    json_decref(json);
    fixture_commit(&w->f);
    send(w, "d", 2, "");
    out = send_job(&w->f, "b", CANCEL); /* half admitted: its place is free */
    assert_tasks(out, "d/0");
    assert_tasks(fail_picture(w, "a", 0), "d/1");
    assert_int_equal(ledger_admission(w->f.ledger, HOME, CLASS_INTERACTIVE).waiting_jobs, 0);
}

/* A deadline that passes makes room too, in the timer's own transaction; one that waits goes. */
static void test_expiry_makes_room(void **state)
{
    static const char job[] = "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a\",\"n\":2,"
                              "\"deadline_s\":10}";
    struct world *w = *state;
    send_job(&w->f, "a", job);
    send_job(&w->f, "b", job);
    send(w, "c", 3, "");
    fixture_commit(&w->f);
    assert_int_equal(find(&w->f, "b")->state, JOB_ACCEPTED);
    w->f.now_ms += 10000;
    struct outbox *out = &w->f.outboxes[w->f.records++];
    assert_int_equal(handle_due(&w->f.handler, w->f.now_ms, out), 2);
    assert_tasks(out, "c/0 c/1");
    handle_settle(&w->f.handler);
    assert_null(find(&w->f, "a"));
    assert_null(find(&w->f, "b"));
    assert_int_equal(outputs_to(out, topic_name(TOPIC_RESULTS), NULL), 2);
    assert_int_equal(find(&w->f, "c")->admitted, 2);
    assert_int_equal(ledger_admission(w->f.ledger, HOME, CLASS_INTERACTIVE).in_flight, 2);
}

static void test_clients_take_turns(void **state)
{
    struct world *w = *state;
    send(w, "a", 4, "busy");
    send(w, "b", 4, "busy");
    send(w, "c", 1, "late");
    assert_tasks(fail_picture(w, "a", 0), "a/2");
    assert_tasks(fail_picture(w, "a", 1), "c/0");
    assert_tasks(fail_picture(w, "a", 2), "a/3");
}

static void test_events_of_what_waits(void **state)
{
    struct world *w = *state;
    send(w, "a", 3, "");
    send(w, "b", 1, "");
    assert_dead_letter(finish_stage(&w->f, "a", 2, STAGE_TEXT_ENCODE), "invalid_record");
    assert_dead_letter(finish_stage(&w->f, "b", 0, STAGE_TEXT_ENCODE), "invalid_record");
    assert_int_equal(find(&w->f, "b")->state, JOB_ACCEPTED);
}

/* Each picture gets one task, in the order of the jobs, through any number of takeovers. */
static void test_takeovers(void **state)
{
    static const char *const tasks[] = {"a/2", "b/0", "b/1", "c/0", "d/0", "d/1", "", ""};
    static const char *const ends[] = {"a0", "a1", "a2", "b0", "b1", "c0", "d0", "d1"};
    struct world *w = *state;
    send(w, "a", 3, "");
    commit(w);
    send(w, "b", 2, "");
    send(w, "c", 1, "");
    commit(w);
    send(w, "d", 2, "");
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        char id[2] = {ends[i][0], 0};
        take_over(w, 2);
        assert_tasks(fail_picture(w, id, ends[i][1] - '0'), tasks[i]);
    }
    commit(w);
    assert_int_equal(ledger_count(w->f.ledger), 0);
}

/* The jobs that were in flight cannot be read any more: what waited for them is let in at once, for
   nothing else may ever come. */
static void test_takeover_without_those_in_flight(void **state)
{
    struct world *w = *state;
    send(w, "a", 2, "");
    send(w, "b", 3, "");
    commit(w);
    for (size_t i = 0; i < w->keys; i++)
        if (memcmp(w->state[i].key, "a", 1) == 0) {
            free((void *)(uintptr_t)w->state[i].value);
            w->state[i].value = NULL;
        }
    take_over(w, 2);
    struct outbox *out = &w->f.outboxes[w->f.records++];
    assert_int_equal(handle_due(&w->f.handler, w->f.now_ms, out), 0);
    handle_admission(&w->f.handler, w->f.now_ms, out);
    assert_tasks(out, "b/0 b/1");
    handle_admission(&w->f.handler, w->f.now_ms, out);
    assert_tasks(out, "b/0 b/1");
    handle_settle(&w->f.handler);
    json_t *json = output_json(out, TOPIC_STATE, "state");
    assert_int_equal(json_integer_value(json_object_get(json, "admitted")), 2);
    json_decref(json);
}

/* A higher bound is used from the next record on. */
static void test_takeover_with_another_bound(void **state)
{
    struct world *w = *state;
    send(w, "a", 5, "");
    take_over(w, 4);
    assert_tasks(fail_picture(w, "a", 0), "a/2 a/3 a/4");
    take_over(w, 1);
    send(w, "b", 1, "");
    assert_tasks(fail_picture(w, "a", 1), "");
    assert_tasks(fail_picture(w, "a", 2), "");
    assert_tasks(fail_picture(w, "a", 3), "");
    assert_tasks(fail_picture(w, "a", 4), "b/0");
}

static struct outbox *send_long(struct world *w, int i)
{
    char id[16], member[24];
    char *metadata = xstrdup("\"k\":0");
    for (int k = 0; k < 400; k++) {
        snprintf(member, sizeof member, ",\"k%d\":0", k);
        char *longer = xasprintf("%s%s", metadata, member);
        free(metadata);
        metadata = longer;
    }
    char *text = xasprintf("{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\","
                           "\"client\":\"client-%d\",\"metadata\":{%s}}",
                           i, metadata);
    snprintf(id, sizeof id, "long-%d", i);
    struct outbox *outbox = send_job(&w->f, id, text);
    free(text);
    free(metadata);
    return outbox;
}

/* Few jobs, but with metadata that takes many times its text: they fill the partition's mebibyte.
 */
static void test_quota_of_memory(void **state)
{
    struct world *w = *state;
    struct outbox *out;
    int count = 0;
    send(w, "a", 2, "");
    for (;; count++) {
        out = send_long(w, count);
        if (outputs_to(out, topic_name(TOPIC_DEAD_LETTER), NULL) > 0)
            break;
        fixture_commit(&w->f);
    }
    assert_in_range(count, 15, 30);
    handle_settle(&w->f.handler);
    assert_dead_letter(out, "quota_exceeded");
}

/* Refused with a dead letter and a result; the id is used up. */
static void test_quota(void **state)
{
    struct world *w = *state;
    send(w, "a", 2, "");
    send(w, "b", 1, "");
    send(w, "c", 1, "");
    send(w, "d", 1, "");
    send(w, "d2", 1, "");
    fixture_commit(&w->f);
    struct outbox *out = send(w, "e", 2, "");
    handle_settle(&w->f.handler);
    assert_dead_letter(out, "quota_exceeded");
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "failed");
    assert_member(json, "error_code", "quota_exceeded");
    json_decref(json);
    fixture_commit(&w->f);
    assert_int_equal(send(w, "e", 2, "")->count, 0);
    handle_settle(&w->f.handler);
    out = send(w, "f", 2, "another");
    handle_settle(&w->f.handler);
    assert_int_equal(outputs_to(out, topic_name(TOPIC_DEAD_LETTER), NULL), 0);
    assert_int_equal(find(&w->f, "f")->state, JOB_ACCEPTED);
}

#define MANY 100000

/* A client with its own name for each ten jobs. The sanitizers' allocator does not tell. */
static void test_memory_of_a_waiting_job(void **state)
{
    struct world *w = *state;
    struct ledger *ledger = w->f.ledger;
    size_t before = mallinfo2().uordblks;
    for (int i = 0; i < MANY; i++) {
        struct job job = {.n = 4, .hops = ROUTE_MAX, .size = 1024, .task_class = CLASS_BULK};
        snprintf(job.id, sizeof job.id, "run-2026-01-31-%06d", i);
        strcpy(job.model, "emoji");
        job.prompt = xasprintf("a photo of a small red fox that sits in fresh snow at dusk, number "
                               "%d of a series, soft light, 35 mm, very detailed",
                               i);
        job.negative_prompt = xstrdup("blurry, text, watermark");
        job.client = xasprintf("client-%d", i / 10);
        struct live_job *live = ledger_add(ledger, HOME, &job, true, 7, NOW);
        live->offset = i;
        ledger_wait(ledger, live);
    }
    size_t bytes = (mallinfo2().uordblks - before) / MANY;
    assert_int_equal(ledger_admission(ledger, HOME, CLASS_BULK).waiting_jobs, MANY);
    print_message("%zu bytes a waiting job\n", bytes);
    assert_true(bytes < 1024);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_waits_and_is_let_in),
        TEST(test_cancelled_while_it_waits),
        TEST(test_expiry_makes_room),
        TEST(test_clients_take_turns),
        TEST(test_events_of_what_waits),
        TEST(test_quota),
        TEST(test_quota_of_memory),
        TEST(test_memory_of_a_waiting_job),
        TEST(test_takeovers),
        TEST(test_takeover_with_another_bound),
        TEST(test_takeover_without_those_in_flight),
    };
    log_init("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
