/* SPDX-License-Identifier: Apache-2.0 */
/* Records in, outputs out: what docs/protocol.md promises of jobs, events and cancellations. */
#include "common/log.h"
#include "fixture.h"

#define HEART "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\"}"
#define HEARTS                                                                                     \
    "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\",\"n\":3,"                \
    "\"class\":\"bulk\",\"seed\":10}"
#define CANCEL "{\"version\":1,\"type\":\"cancel\"}"

/* --- jobs --- */

static void test_smallest_job(void **state)
{
    struct fixture *f = *state;
    struct outbox *out = send_job(f, "heart", HEART);
    const struct kafka_output *output = NULL;
    struct task task;
    struct err err;

    handle_settle(&f->handler);
    assert_int_equal(out->count, 2);
    assert_int_equal(outputs_to(out, "unclip.tasks.text-encode", &output), 1);
    assert_memory_equal(output->key, "heart/0", output->key_size);
    assert_string_equal(output->headers[0].name, "task");
    assert_int_equal(task_parse(&task, output->headers[0].value, output->headers[0].size, &err), 0);
    assert_int_equal(task.home, HOME);
    assert_int_equal(task.seed, 4242);
    assert_int_equal(task.created_at_ms, NOW - 5); /* the record's time */
    assert_int_equal(task.enqueued_at_ms, NOW);
    assert_int_equal(task.hops, 5);
    task_release(&task);
    json_t *json = output_json(out, TOPIC_STATE, "state");
    assert_member(json, "state", "queued");
    json_decref(json);
    assert_int_equal(find(f, "heart")->state, JOB_QUEUED);
}

static void test_pictures_become_tasks(void **state)
{
    struct fixture *f = *state;
    struct outbox *out = send_job(f, "hearts", HEARTS);
    const struct kafka_output *output = NULL;
    struct task task;
    struct err err;

    assert_int_equal(outputs_to(out, "unclip.tasks.text-encode.bulk", &output), 3);
    assert_memory_equal(output->key, "hearts/2", output->key_size);
    assert_int_equal(task_parse(&task, output->headers[0].value, output->headers[0].size, &err), 0);
    assert_int_equal(task.image, 2);
    assert_int_equal(task.images, 3);
    assert_int_equal(task.seed, 12);
    task_release(&task);
}

static void test_producer_clocks_are_not_believed(void **state)
{
    struct fixture *f = *state;
    struct kafka_record record = {.topic = topic_name(TOPIC_JOBS),
                                  .partition = HOME,
                                  .timestamp_ms = NOW + 3600000,
                                  .key = "ahead",
                                  .key_size = 5,
                                  .value = HEART,
                                  .value_size = strlen(HEART)};
    handle_record(&f->handler, &record, NOW, &f->outboxes[f->records++]);
    assert_int_equal(find(f, "ahead")->created_at_ms, NOW);
    record.key = "early";
    record.timestamp_ms = 1000;
    handle_record(&f->handler, &record, NOW, &f->outboxes[f->records++]);
    assert_int_equal(find(f, "early")->created_at_ms, NOW);
}

/* Refused with that code; `id` NULL: not even the id can be read. */
static void assert_refused(struct fixture *f, struct outbox *out, const char *id, const char *code)
{
    handle_settle(&f->handler);
    assert_dead_letter(out, code);
    if (!id) {
        assert_int_equal(out->count, 1);
        return;
    }
    assert_int_equal(out->count, 3); /* dead letter, result, tombstone */
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "id", id);
    assert_member(json, "state", "failed");
    assert_member(json, "error_code", code);
    json_decref(json);
    assert_null(find(f, id));
    assert_true(ledger_remembers(f->ledger, HOME, id, NULL));
}

static void test_bad_jobs(void **state)
{
    struct fixture *f = *state;
#define JOB(more) "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a\"" more "}"
    static const struct {
        const char *key, *value, *id, *code;
    } cases[] = {
        {"a", "hello", "a", "invalid_json"},
        {NULL, "hello", NULL, "invalid_json"},
        {"b", NULL, "b", "invalid_json"},
        {"c", "[]", "c", "invalid_job"},
        {"d", "{\"version\":2,\"type\":\"text-to-image\",\"prompt\":\"a\"}", "d", "unsupported"},
        {"e", JOB(",\"n\":65"), "e", "invalid_job"},
        {"f", JOB(",\"n\":0"), "f", "invalid_job"},
        {"g", JOB(",\"size\":100"), "g", "invalid_job"},
        {"h", JOB(",\"model\":\"nope\""), "h", "unknown_model"},
        {"i", JOB(",\"surprise\":1"), "i", "invalid_job"},
        {"j", JOB(",\"id\":\"k\""), "j", "invalid_job"},
        {NULL, JOB(",\"id\":\"l\",\"n\":65"), "l", "invalid_job"},
        {"../m", JOB(""), NULL, "invalid_job"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct outbox *out = send_job(f, cases[i].key, cases[i].value);
        assert_refused(f, out, cases[i].id, cases[i].code);
        fixture_commit(f);
    }
}

static void test_prompt_of_a_megabyte(void **state)
{
    struct fixture *f = *state;
    size_t size = 1 << 20;
    char *value = test_malloc(size);
    memset(value, 'a', size);
    memcpy(value, "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"", 46);
    memcpy(value + size - 2, "\"}", 2);
    struct outbox *out = send_bytes(f, topic_name(TOPIC_JOBS), "big", value, size);
    handle_settle(&f->handler);
    json_t *json = output_json(out, TOPIC_DEAD_LETTER, "dead-letter");
    assert_true(json_is_true(json_object_get(json, "truncated")));
    assert_int_equal(json_string_length(json_object_get(json, "value")), 64 << 10);
    json_decref(json);
    json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "failed");
    json_decref(json);
    test_free(value);
}

static void test_value_that_is_not_text(void **state)
{
    struct fixture *f = *state;
    struct outbox *out = send_bytes(f, topic_name(TOPIC_JOBS), "raw", "\xff\x00\x01", 3);
    json_t *json = output_json(out, TOPIC_DEAD_LETTER, "dead-letter");
    assert_member(json, "value_base64", "/wAB");
    json_decref(json);
}

/* Jobs and events with a key of most of a megabyte, and headers whose names swell in JSON. */
static void test_letters_fit(void **state)
{
    enum { SIZE = 900000, HEADERS = 4, NAME = 60000 };
    static const enum topic topics[] = {TOPIC_JOBS, TOPIC_EVENTS};
    struct fixture *f = *state;
    char *bytes = test_malloc(SIZE + 1);
    struct kafka_header headers[HEADERS];
    memset(bytes, 1, SIZE);
    bytes[SIZE] = 0;
    for (int i = 0; i < HEADERS; i++)
        headers[i] = (struct kafka_header){bytes + SIZE - NAME - i, "x", 1};
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++) {
        struct kafka_record record = {.topic = topic_name(topics[i]),
                                      .partition = HOME,
                                      .key = bytes,
                                      .key_size = SIZE,
                                      .value = "hello",
                                      .value_size = 5,
                                      .headers = headers,
                                      .header_count = HEADERS};
        struct outbox *out = &f->outboxes[f->records++];
        handle_record(&f->handler, &record, f->now_ms, out);
        assert_int_equal(out->count, 1);
        assert_null(out->outputs[0].key);
        assert_true(out->outputs[0].value_size < KAFKA_RECORD_MAX);
        json_t *json = output_json(out, TOPIC_DEAD_LETTER, "dead-letter");
        assert_true(json_is_true(json_object_get(json, "truncated")));
        json_decref(json);
    }
    test_free(bytes);
}

/* --- the same id again --- */

static void test_same_job_again(void **state)
{
    struct fixture *f = *state;
    send_job(f, "heart", HEART);
    struct outbox *out = send_job(f, "heart", HEART);
    assert_int_equal(out->count, 0);
    out = send_job(f, "heart",
                   "{ \"prompt\":\"a red heart\", \"type\":\"text-to-image\", "
                   "\"id\":\"heart\", \"version\":1}");
    assert_int_equal(out->count, 0); /* the same but for its spelling */
    out = send_job(f, "heart", HEARTS);
    assert_int_equal(out->count, 1);
    assert_dead_letter(out, "conflict");
    out = send_job(f, "heart", "not a job");
    assert_int_equal(out->count, 1);
    assert_dead_letter(out, "invalid_json");
    assert_int_equal(find(f, "heart")->state, JOB_QUEUED);
    assert_int_equal(find(f, "heart")->job.n, 1);
}

static void test_same_job_after_its_end(void **state)
{
    struct fixture *f = *state;
    send_job(f, "heart", HEART);
    send_job(f, "heart", CANCEL);
    fixture_commit(f);
    assert_int_equal(send_job(f, "heart", HEART)->count, 0);
    assert_dead_letter(send_job(f, "heart", HEARTS), "conflict");
    assert_null(find(f, "heart"));
}

/* --- newer versions --- */

#define NEWER                                                                                      \
    "{\"version\":2,\"type\":\"text-to-image\",\"prompt\":\"a red heart\",\"mood\":\"calm\"}"

static void test_newer_job(void **state)
{
    struct fixture *f = *state;
    struct outbox *out = send_job(f, "newer", NEWER);
    assert_dead_letter(out, "unsupported");
    handle_settle(&f->handler);
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "failed");
    assert_member(json, "error_code", "unsupported");
    assert_member(json, "error_message", "the record's version is 2, this unclip reads version 1");
    json_decref(json);
}

static void test_newer_event(void **state)
{
    struct fixture *f = *state;
    static const char event[] = "{\"version\":2,\"type\":\"picture-praised\",\"job\":\"heart\"}";
    send_job(f, "heart", HEART);
    assert_dead_letter(send_bytes(f, topic_name(TOPIC_EVENTS), "heart", event, strlen(event)),
                       "unsupported");
    assert_int_equal(find(f, "heart")->state, JOB_QUEUED);
}

static void test_newer_state(void **state)
{
    struct live_job *job = NULL;
    struct err err = {0};
    static const char text[] = "{\"version\":2,\"id\":\"heart\",\"state\":\"pondering\"}";
    struct kafka_record record = {.topic = topic_name(TOPIC_STATE),
                                  .key = "heart",
                                  .key_size = 5,
                                  .value = text,
                                  .value_size = strlen(text)};
    (void)state;
    assert_int_equal(state_decode(&job, HOME, &record, &err), -ERR_UNSUPPORTED);
    assert_null(job);
}

/* --- deadlines --- */

#define LATE                                                                                       \
    "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red "                                \
    "heart\",\"n\":2,\"deadline_s\":10}"

static size_t due_after(struct fixture *f, int64_t ms, struct outbox **out)
{
    *out = &f->outboxes[f->records++];
    f->now_ms += ms;
    size_t count = handle_due(&f->handler, f->now_ms, *out);
    handle_settle(&f->handler);
    return count;
}

static void assert_expired(const struct outbox *out)
{
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "expired");
    assert_member(json, "error_code", "expired");
    assert_member(json, "error_message", "the job's deadline of 10 s has passed");
    const json_t *images = json_object_get(json, "images");
    for (size_t i = 0; i < json_array_size(images); i++)
        assert_member(json_array_get(images, i), "state", "dropped");
    json_decref(json);
}

/* Ten seconds after the record's time, which is five milliseconds before it is handled. */
static void test_deadline(void **state)
{
    struct fixture *f = *state;
    const struct kafka_output *output = NULL;
    struct task task;
    struct err err;
    struct outbox *out = send_job(f, "late", LATE);

    outputs_to(out, "unclip.tasks.text-encode", &output);
    assert_int_equal(task_parse(&task, output->headers[0].value, output->headers[0].size, &err), 0);
    assert_int_equal(task.deadline_ms, NOW - 5 + 10000);
    task_release(&task);
    fixture_commit(f);
    assert_int_equal(due_after(f, 9994, &out), 0);
    assert_int_equal(due_after(f, 1, &out), 1);
    assert_expired(out);
    assert_int_equal(due_after(f, 60000, &out), 0);
    assert_int_equal(finish_stage(f, "late", 0, STAGE_TEXT_ENCODE)->count, 0); /* too late */
}

/* A worker's clock was first. */
static void test_deadline_seen_by_a_worker(void **state)
{
    struct fixture *f = *state;
    send_job(f, "late", LATE);
    struct outbox *out = send_event(f, "picture-dropped", "late", 1, STAGE_TEXT_ENCODE,
                                    ",\"error_code\":\"expired\",\"error_message\":\"x\"");
    handle_settle(&f->handler);
    assert_expired(out);
    assert_null(ledger_first_due(f->ledger));
}

/* --- events --- */

static void run_to_the_end(struct fixture *f, const char *id, int image)
{
    for (int stage = STAGE_TEXT_ENCODE; stage < STAGE_UPSAMPLER_2; stage++)
        finish_stage(f, id, image, (enum stage)stage);
}

static void test_a_picture_is_made(void **state)
{
    struct fixture *f = *state;
    send_job(f, "heart", HEART);
    finish_stage(f, "heart", 0, STAGE_TEXT_ENCODE);
    struct live_job *job = find(f, "heart");
    assert_int_equal(job->state, JOB_RUNNING);
    assert_int_equal(job->pictures[0].hops, 1);
    fixture_commit(f);
    for (int stage = STAGE_PRIOR; stage < STAGE_UPSAMPLER_2; stage++)
        finish_stage(f, "heart", 0, (enum stage)stage);
    f->now_ms += 1000;
    struct outbox *out = send_event(f, "picture-finished", "heart", 0, STAGE_UPSAMPLER_2,
                                    STORED("0") ",\"notices\":[\"resized\"]");
    handle_settle(&f->handler);
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "succeeded");
    assert_member(json, "finished_at", "2026-01-31T12:34:57.789Z");
    assert_member(json_array_get(json_object_get(json, "images"), 0), "uri", "file:///a/0.png");
    assert_true(json_number_value(json_object_get(json_object_get(json, "timings"), "prior")) ==
                100);
    assert_int_equal(json_array_size(json_object_get(json, "notices")), 1);
    json_decref(json);
    const struct kafka_output *tombstone = NULL;
    assert_int_equal(outputs_to(out, topic_name(TOPIC_STATE), &tombstone), 1);
    assert_null(tombstone->value);
    assert_int_equal(tombstone->partition, HOME);
}

static void test_events_count_once(void **state)
{
    struct fixture *f = *state;
    send_job(f, "hearts", HEARTS);
    finish_stage(f, "hearts", 0, STAGE_TEXT_ENCODE);
    finish_stage(f, "hearts", 0, STAGE_PRIOR);
    fixture_commit(f);
    finish_stage(f, "hearts", 0, STAGE_PRIOR);
    finish_stage(f, "hearts", 0, STAGE_TEXT_ENCODE);
    struct live_job *job = find(f, "hearts");
    assert_int_equal(job->pictures[0].hops, 2);
    assert_true(live_job_stage_ms(job, STAGE_PRIOR) == 100);
    assert_null(ledger_next_changed(f->ledger));
    send_event(f, "picture-failed", "hearts", 0, STAGE_DECODER, FAILED);
    send_event(f, "picture-finished", "hearts", 0, STAGE_UPSAMPLER_2, STORED("0"));
    assert_int_equal(job->pictures[0].state, PICTURE_FAILED);
}

static void test_one_state_a_commit(void **state)
{
    struct fixture *f = *state;
    struct outbox *first = send_job(f, "heart", HEART);
    struct outbox *second = finish_stage(f, "heart", 0, STAGE_TEXT_ENCODE);
    struct outbox *third = finish_stage(f, "heart", 0, STAGE_PRIOR);
    handle_settle(&f->handler);
    assert_int_equal(outputs_to(first, topic_name(TOPIC_STATE), NULL), 0);
    assert_int_equal(second->count, 0);
    json_t *json = output_json(third, TOPIC_STATE, "state");
    assert_member(json, "state", "running");
    json_decref(json);
}

static void test_a_failed_picture_takes_none_along(void **state)
{
    struct fixture *f = *state;
    send_job(f, "hearts", HEARTS);
    run_to_the_end(f, "hearts", 0);
    run_to_the_end(f, "hearts", 2);
    fixture_commit(f);
    send_event(f, "picture-failed", "hearts", 1, STAGE_DECODER, FAILED);
    send_event(f, "picture-finished", "hearts", 2, STAGE_UPSAMPLER_2, STORED("2"));
    assert_int_equal(find(f, "hearts")->state, JOB_RUNNING);
    struct outbox *out =
        send_event(f, "picture-finished", "hearts", 0, STAGE_UPSAMPLER_2, STORED("0"));
    handle_settle(&f->handler);
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "succeeded");
    assert_member(json, "error_code", "compute_failed");
    assert_member(json_array_get(json_object_get(json, "images"), 1), "state", "failed");
    json_decref(json);
}

static void test_all_pictures_fail(void **state)
{
    struct fixture *f = *state;
    send_job(f, "heart", HEART);
    struct outbox *out = send_event(f, "picture-failed", "heart", 0, STAGE_TEXT_ENCODE, FAILED);
    handle_settle(&f->handler);
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "failed");
    assert_member(json, "error_message", "step 3 is not finite");
    json_decref(json);
}

static void test_events_that_do_not_fit(void **state)
{
    struct fixture *f = *state;
    send_job(f, "heart", HEART);
    assert_dead_letter(finish_stage(f, "heart", 1, STAGE_PRIOR), "invalid_record");
    assert_dead_letter(finish_stage(f, "heart", 0, STAGE_UPSAMPLER_2), "invalid_record");
    assert_dead_letter(send_event(f, "picture-finished", "heart", 0, STAGE_PRIOR, STORED("0")),
                       "invalid_record");
    assert_dead_letter(send_event(f, "surprise", "heart", 0, STAGE_PRIOR, ""), "invalid_record");
    assert_int_equal(finish_stage(f, "unknown", 0, STAGE_PRIOR)->count, 0);
    assert_int_equal(find(f, "heart")->state, JOB_QUEUED);
}

/* --- cancellations --- */

static void test_cancel(void **state)
{
    struct fixture *f = *state;
    send_job(f, "hearts", HEARTS);
    run_to_the_end(f, "hearts", 0);
    send_event(f, "picture-finished", "hearts", 0, STAGE_UPSAMPLER_2, STORED("0"));
    struct outbox *out = send_job(f, "hearts", CANCEL);
    handle_settle(&f->handler);
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "cancelled");
    assert_member(json, "error_code", "cancelled");
    json_t *images = json_object_get(json, "images");
    assert_member(json_array_get(images, 0), "state", "stored");
    assert_member(json_array_get(images, 1), "state", "dropped");
    json_decref(json);
    fixture_commit(f);
    assert_int_equal(send_event(f, "picture-dropped", "hearts", 1, STAGE_PRIOR, "")->count, 0);
    assert_int_equal(send_job(f, "hearts", CANCEL)->count, 0); /* has ended: no error */
}

static void test_cancel_of_the_unknown(void **state)
{
    struct fixture *f = *state;
    assert_dead_letter(send_job(f, "nobody", CANCEL), "not_found");
    assert_dead_letter(send_job(f, NULL, CANCEL), "invalid_job");
}

/* Somebody waits for tasks, ends and refusals; nobody for how far a picture is. */
static void test_news_of_a_picture_under_way_may_wait(void **state)
{
    struct fixture *f = *state;
    send_job(f, "heart", HEART);
    assert_true(f->urgent);
    finish_stage(f, "heart", 0, STAGE_TEXT_ENCODE);
    assert_false(f->urgent);
    send_event(f, "stage-finished", "heart", 7, STAGE_PRIOR, COMPUTED);
    assert_true(f->urgent);
    send_event(f, "picture-finished", "heart", 0, STAGE_UPSAMPLER_2, STORED("0"));
    assert_true(f->urgent);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_news_of_a_picture_under_way_may_wait),
        TEST(test_smallest_job),
        TEST(test_pictures_become_tasks),
        TEST(test_producer_clocks_are_not_believed),
        TEST(test_bad_jobs),
        TEST(test_prompt_of_a_megabyte),
        TEST(test_value_that_is_not_text),
        TEST(test_letters_fit),
        TEST(test_same_job_again),
        TEST(test_same_job_after_its_end),
        TEST(test_a_picture_is_made),
        TEST(test_events_count_once),
        TEST(test_one_state_a_commit),
        TEST(test_a_failed_picture_takes_none_along),
        TEST(test_all_pictures_fail),
        TEST(test_events_that_do_not_fit),
        TEST(test_cancel),
        TEST(test_cancel_of_the_unknown),
        TEST(test_newer_job),
        TEST(test_newer_event),
        TEST(test_newer_state),
        TEST(test_deadline),
        TEST(test_deadline_seen_by_a_worker),
    };
    log_init("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
