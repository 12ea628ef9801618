/* SPDX-License-Identifier: Apache-2.0 */
/* Trying again: the waits, what the picture's state keeps, and when it is enough. */
#include "common/log.h"
#include "fixture.h"

#define HEART  "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\",\"size\":64}"
#define CANCEL "{\"version\":1,\"type\":\"cancel\"}"
#define ERROR                                                                                      \
    ",\"error_code\":\"io_error\",\"error_message\":\"cannot read 'x'\",\"queue_ms\":1,"           \
    "\"compute_ms\":3,\"batch\":1"
#define REF "file:///a/heart/0.decoder.safetensors"

static struct outbox *send_retry(struct fixture *f, enum stage stage, int attempt, const char *ref)
{
    char more[512];
    int size = snprintf(more, sizeof more, "%s,\"attempt\":%d", ERROR, attempt);
    if (ref)
        snprintf(more + size, sizeof more - (size_t)size, ",\"ref\":\"%s\"", ref);
    return send_event(f, "picture-retry", "heart", 0, stage, more);
}

/* What is due `ms` later, settled; the outbox is the fixture's. */
static struct outbox *due_after(struct fixture *f, int64_t ms)
{
    struct outbox *outbox = &f->outboxes[f->records++];
    f->now_ms += ms;
    handle_due(&f->handler, f->now_ms, outbox);
    handle_settle(&f->handler);
    return outbox;
}

static const struct picture *picture_of(const struct fixture *f)
{
    return &find(f, "heart")->pictures[0];
}

static void test_delays(void **state)
{
    struct retry a = {.base_ms = 1000, .max_ms = 60000, .state = 5}, b = a;
    bool differs = false;

    (void)state;
    for (int tries = 1; tries < 100; tries++) {
        int64_t most = tries > 6 ? 60000 : 1000 << (tries - 1), delay = retry_delay(&a, tries);
        assert_in_range(delay, most / 4, most);
        assert_int_equal(delay, retry_delay(&b, tries));
        differs |= tries > 7 && delay != retry_delay(&b, tries);
        b.state = a.state;
    }
    assert_true(differs);
}

static void test_goes_on_where_it_failed(void **state)
{
    struct fixture *f = *state;
    const struct kafka_output *output = NULL;
    struct task task;
    struct err err;

    send_job(f, "heart", HEART);
    finish_stage(f, "heart", 0, STAGE_TEXT_ENCODE);
    finish_stage(f, "heart", 0, STAGE_PRIOR);
    struct outbox *out = send_retry(f, STAGE_DECODER, 0, REF);
    handle_settle(&f->handler);
    json_t *json = output_json(out, TOPIC_STATE, "state");
    const json_t *image = json_array_get(json_object_get(json, "images"), 0);
    assert_int_equal(json_integer_value(json_object_get(image, "attempt")), 1);
    assert_member(image, "ref", REF);
    assert_true(iso8601_parse(json_string_value(json_object_get(image, "retry_at"))) >=
                f->now_ms + 250);
    json_decref(json);
    fixture_commit(f);

    assert_int_equal(due_after(f, 249)->count, 0);
    out = due_after(f, 751);
    assert_int_equal(outputs_to(out, "unclip.tasks.decoder", &output), 1);
    assert_int_equal(output->value_size, 0);
    assert_int_equal(output->header_count, 2);
    assert_string_equal(output->headers[1].name, "ref");
    assert_memory_equal(output->headers[1].value, REF, sizeof REF - 1);
    assert_int_equal(task_parse(&task, output->headers[0].value, output->headers[0].size, &err), 0);
    assert_int_equal(task.hop, STAGE_DECODER);
    assert_int_equal(task.attempt, 1);
    task_release(&task);
    json_decref(output_json(out, TOPIC_STATE, "state"));
    assert_int_equal(due_after(f, 100000)->count, 0);

    /* the first attempt's words come too late; the second's count */
    send_event(f, "picture-finished", "heart", 0, STAGE_DECODER, STORED("0"));
    assert_int_equal(picture_of(f)->state, PICTURE_PENDING);
    send_retry(f, STAGE_DECODER, 0, REF);
    assert_int_equal(picture_of(f)->attempt, 1);
    out =
        send_event(f, "picture-finished", "heart", 0, STAGE_DECODER, STORED("0") ",\"attempt\":1");
    handle_settle(&f->handler);
    json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "succeeded");
    json_decref(json);
}

static void test_starts_anew_without_its_tensors(void **state)
{
    struct fixture *f = *state;

    send_job(f, "heart", HEART);
    finish_stage(f, "heart", 0, STAGE_TEXT_ENCODE);
    send_retry(f, STAGE_PRIOR, 0, NULL);
    assert_int_equal(picture_of(f)->hops, 0);
    fixture_commit(f);
    assert_int_equal(outputs_to(due_after(f, 1000), "unclip.tasks.text-encode", NULL), 1);
    send_event(f, "stage-finished", "heart", 0, STAGE_TEXT_ENCODE, COMPUTED ",\"attempt\":1");
    assert_int_equal(picture_of(f)->hops, 1);
    assert_int_equal(picture_of(f)->tries[STAGE_PRIOR], 1); /* the stage's limit still counts */
}

static void test_enough(void **state)
{
    struct fixture *f = *state;
    struct outbox *out = NULL;

    send_job(f, "heart", HEART);
    finish_stage(f, "heart", 0, STAGE_TEXT_ENCODE);
    finish_stage(f, "heart", 0, STAGE_PRIOR);
    for (int attempt = 0; attempt <= f->retry.limit; attempt++) {
        out = send_retry(f, STAGE_DECODER, attempt, REF);
        if (attempt < f->retry.limit)
            due_after(f, 60000);
    }
    handle_settle(&f->handler);
    json_t *letter = output_json(out, TOPIC_DEAD_LETTER, "dead-letter");
    assert_member(letter, "error_code", "io_error");
    assert_member(letter, "error_message", "tried 3 times: cannot read 'x'");
    assert_member(letter, "stage", "decoder");
    assert_member(letter, "job", "heart");
    assert_member(json_object_get(letter, "headers"), "ref", REF);
    const char *task =
        json_string_value(json_object_get(json_object_get(letter, "headers"), "task"));
    assert_non_null(strstr(task, "\"hop\":2"));
    json_decref(letter);
    json_t *json = output_json(out, TOPIC_RESULTS, "result");
    assert_member(json, "state", "failed");
    assert_member(json, "error_code", "io_error");
    json_decref(json);
    assert_int_equal(due_after(f, 600000)->count, 0);
}

static void test_never(void **state)
{
    struct fixture *f = *state;

    f->retry.limit = 0;
    send_job(f, "heart", HEART);
    struct outbox *out = send_retry(f, STAGE_TEXT_ENCODE, 0, NULL);
    assert_dead_letter(out, "io_error");
}

static void test_cancelled_while_it_waits(void **state)
{
    struct fixture *f = *state;

    send_job(f, "heart", HEART);
    send_retry(f, STAGE_TEXT_ENCODE, 0, NULL);
    assert_non_null(ledger_first_due(f->ledger));
    send_job(f, "heart", CANCEL);
    assert_null(ledger_first_due(f->ledger));
    assert_int_equal(due_after(f, 60000)->count, 0);
}

/* The one task in the outbox refers to the tensors that are to go. */
static void assert_released(const struct outbox *out)
{
    const struct kafka_output *output = NULL;
    assert_int_equal(outputs_to(out, "unclip.tasks.decoder", &output), 1);
    assert_string_equal(output->headers[1].name, "ref");
    assert_memory_equal(output->headers[1].value, REF, sizeof REF - 1);
}

/* Its tensors do not stay behind: their task is written, for a worker to drop. */
static void test_ends_while_its_tensors_are_kept(void **state)
{
    static const char job[] =
        "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\","
        "\"size\":64,\"deadline_s\":10}";
    struct fixture *f = *state;

    f->retry.base_ms = f->retry.max_ms = 3600000;
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        const char *id = cancelled ? "heart" : "late";
        send_job(f, id, job);
        finish_stage(f, id, 0, STAGE_TEXT_ENCODE);
        finish_stage(f, id, 0, STAGE_PRIOR);
        send_event(f, "picture-retry", id, 0, STAGE_DECODER, ERROR ",\"ref\":\"" REF "\"");
        fixture_commit(f);
        assert_released(cancelled ? send_job(f, id, CANCEL) : due_after(f, 10000));
        fixture_commit(f);
        assert_int_equal(due_after(f, 3600000)->count, 0);
    }
}

static void test_not_ours(void **state)
{
    struct fixture *f = *state;

    send_job(f, "heart", HEART);
    assert_dead_letter(send_retry(f, STAGE_TEXT_ENCODE, 1, NULL), "invalid_record");
}

/* Another coordinator takes over: the wait goes on where it was. */
static void test_taken_over(void **state)
{
    struct fixture *f = *state;
    const struct kafka_output *output = NULL;
    struct live_job *copy;
    struct err err;

    send_job(f, "heart", HEART);
    finish_stage(f, "heart", 0, STAGE_TEXT_ENCODE);
    struct outbox *out = send_retry(f, STAGE_PRIOR, 0, REF);
    handle_settle(&f->handler);
    assert_int_equal(outputs_to(out, "unclip.state", &output), 1);
    struct kafka_record record = {.topic = "unclip.state",
                                  .partition = HOME,
                                  .key = output->key,
                                  .key_size = output->key_size,
                                  .value = output->value,
                                  .value_size = output->value_size};
    assert_int_equal(state_decode(&copy, HOME, &record, &err), 0);
    int64_t due = picture_of(f)->retry_at_ms;
    ledger_discard(f->ledger, find(f, "heart"));
    ledger_restore(f->ledger, copy);
    assert_int_equal(ledger_first_due(f->ledger)->timer.due_ms, due);
    assert_int_equal(picture_of(f)->tries[STAGE_PRIOR], 1);
    assert_int_equal(picture_of(f)->attempt, 1);
    assert_string_equal(picture_of(f)->ref, REF);
    assert_int_equal(outputs_to(due_after(f, 1000), "unclip.tasks.prior", NULL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delays),
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
        TEST(test_goes_on_where_it_failed),
        TEST(test_starts_anew_without_its_tensors),
        TEST(test_enough),
        TEST(test_never),
        TEST(test_cancelled_while_it_waits),
        TEST(test_ends_while_its_tensors_are_kept),
        TEST(test_not_ours),
        TEST(test_taken_over),
    };
    log_init("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
