/* SPDX-License-Identifier: Apache-2.0 */
/* States and results read back are what was written; and nothing else is read. */
#include "common/clock.h"
#include "common/log.h"
#include "coordinator/status.h"
#include "fixture.h"

#define HEARTS                                                                                     \
    "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\",\"n\":2,"                \
    "\"metadata\":{\"mine\":[1,2]},\"client\":\"me\"}"

static struct kafka_record record_of(const struct kafka_output *output)
{
    return (struct kafka_record){
        .topic = output->topic,
        .partition = HOME,
        .key = output->key,
        .key_size = output->key_size,
        .value = output->value,
        .value_size = output->value_size,
        .headers = output->headers,
        .header_count = output->header_count,
    };
}

static void assert_same_status(const struct live_job *a, const struct live_job *b)
{
    struct status x, y;
    status_make(&x, a, NULL);
    status_make(&y, b, NULL);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++) {
        assert_string_equal(x.names[i], y.names[i]);
        assert_string_equal(x.values[i], y.values[i]);
    }
    assert_string_equal(x.stage, y.stage);
    assert_int_equal(x.step, y.step);
    assert_int_equal(x.steps, y.steps);
    assert_true(x.progress == y.progress);
    status_release(&x);
    status_release(&y);
}

/* A job with some of everything in it. */
static struct outbox *half_done(struct fixture *f)
{
    send_job(f, "hearts", HEARTS);
    for (int stage = STAGE_TEXT_ENCODE; stage < STAGE_UPSAMPLER_2; stage++)
        finish_stage(f, "hearts", 0, (enum stage)stage);
    send_event(f, "picture-finished", "hearts", 0, STAGE_UPSAMPLER_2, STORED("0"));
    finish_stage(f, "hearts", 1, STAGE_TEXT_ENCODE);
    return send_event(f, "stage-finished", "hearts", 1, STAGE_PRIOR,
                      COMPUTED ",\"notices\":[\"cut\",\"resized\"]");
}

static void test_state_comes_back(void **state)
{
    struct fixture f;
    const struct kafka_output *output = NULL;
    struct live_job *back = NULL;
    struct err err;
    (void)state;
    fixture_init(&f);
    struct outbox *out = half_done(&f);
    handle_settle(&f.handler);
    assert_int_equal(outputs_to(out, topic_name(TOPIC_STATE), &output), 1);
    struct kafka_record record = record_of(output);
    assert_int_equal(state_decode(&back, HOME, &record, &err), 0);
    struct live_job *job = find(&f, "hearts");
    assert_same_status(job, back);
    assert_int_equal(back->state, JOB_RUNNING);
    assert_int_equal(back->digest, job->digest);
    assert_int_equal(back->pictures[1].hops, 2);
    char *again = state_encode(back);
    assert_int_equal(strlen(again), record.value_size);
    assert_memory_equal(again, record.value, record.value_size);
    free(again);
    live_job_free(back);
    fixture_release(&f);
}

/* The ledger of another coordinator, out of the record, ends the job as the first one would have.
 */
static void test_another_coordinator_goes_on(void **state)
{
    struct fixture f, g;
    const struct kafka_output *output = NULL;
    struct live_job *back = NULL;
    struct err err;
    (void)state;
    fixture_init(&f);
    fixture_init(&g);
    struct outbox *out = half_done(&f);
    handle_settle(&f.handler);
    outputs_to(out, topic_name(TOPIC_STATE), &output);
    struct kafka_record record = record_of(output);
    assert_int_equal(state_decode(&back, HOME, &record, &err), 0);
    ledger_restore(g.ledger, back);
    for (int i = 0; i < 2; i++) {
        struct fixture *each = i ? &g : &f;
        finish_stage(each, "hearts", 1, STAGE_PRIOR); /* repeated */
        finish_stage(each, "hearts", 1, STAGE_DECODER);
        finish_stage(each, "hearts", 1, STAGE_UPSAMPLER_1);
        out = send_event(each, "picture-finished", "hearts", 1, STAGE_UPSAMPLER_2, STORED("1"));
        handle_settle(&each->handler);
    }
    const struct kafka_output *ours = NULL, *theirs = NULL;
    outputs_to(&f.outboxes[f.records - 1], topic_name(TOPIC_RESULTS), &ours);
    outputs_to(out, topic_name(TOPIC_RESULTS), &theirs);
    assert_int_equal(ours->value_size, theirs->value_size);
    assert_memory_equal(ours->value, theirs->value, ours->value_size);
    fixture_release(&f);
    fixture_release(&g);
}

static void test_result_comes_back(void **state)
{
    struct fixture f;
    const struct kafka_output *output = NULL;
    struct live_job *back = NULL;
    struct err err;
    (void)state;
    fixture_init(&f);
    half_done(&f);
    struct outbox *out = send_event(&f, "picture-failed", "hearts", 1, STAGE_DECODER, FAILED);
    handle_settle(&f.handler);
    assert_int_equal(outputs_to(out, topic_name(TOPIC_RESULTS), &output), 1);
    struct kafka_record record = record_of(output);
    assert_int_equal(result_decode(&back, HOME, &record, &err), 0);
    assert_same_status(ledger_first_unshown(f.ledger), back);
    live_job_free(back);
    fixture_release(&f);
}

static void test_refused_result_comes_back(void **state)
{
    static const char *const bodies[] = {
        "not a job", "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a\",\"size\":99}"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        const struct kafka_output *output = NULL;
        struct live_job *back = NULL;
        struct err err;
        fixture_init(&f);
        struct outbox *out = send_job(&f, "bad", bodies[i]);
        handle_settle(&f.handler);
        json_decref(output_json(out, TOPIC_RESULTS, "result"));
        assert_int_equal(outputs_to(out, topic_name(TOPIC_RESULTS), &output), 1);
        struct kafka_record record = record_of(output);
        assert_int_equal(result_decode(&back, HOME, &record, &err), 0);
        assert_same_status(ledger_first_unshown(f.ledger), back);
        live_job_free(back);
        fixture_release(&f);
    }
}

static void test_nonsense_is_refused(void **state)
{
    static const char *const values[] = {
        "", "{}", "[]", "{\"version\":1}",
        /* an image that the request does not have */
        "{\"version\":1,\"id\":\"a\",\"state\":\"running\",\"created_at\":\"2026-01-31T12:34:56."
        "789Z\""
        ",\"updated_at\":\"2026-01-31T12:34:56.789Z\",\"request\":{\"version\":1,\"type\":"
        "\"text-to-image\",\"prompt\":\"a\"},\"route\":[{\"stage\":\"prior\",\"steps\":1,"
        "\"guidance\":1}],\"images\":[{\"index\":5,\"seed\":1,\"state\":\"pending\",\"hop\":0}],"
        "\"timings\":{},\"notices\":[],\"error_code\":\"\",\"error_message\":\"\"}"};
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct kafka_record record = {.topic = "unclip.state",
                                      .key = "a",
                                      .key_size = 1,
                                      .value = values[i],
                                      .value_size = strlen(values[i])};
        struct live_job *job = NULL;
        struct err err;
        assert_int_equal(state_decode(&job, HOME, &record, &err), -ERR_INVALID_RECORD);
        assert_null(job);
    }
}

/* Decodes the record of a job with two pictures that runs, with what is given put into it. */
static int decode_odd(const char *key, const char *request, const char *members, const char *images)
{
    char *text =
        xasprintf("{\"version\":1,\"id\":\"a\",\"state\":\"running\",\"updated_at\":"
                  "\"2026-01-31T12:34:56.789Z\",\"request\":{\"version\":1,\"type\":"
                  "\"text-to-image\",\"id\":\"a\",\"prompt\":\"a\",\"n\":2,\"size\":64,"
                  "\"model\":\"emoji\"%s},\"route\":[{\"stage\":\"text-encode\",\"steps\":0,"
                  "\"guidance\":0},{\"stage\":\"prior\",\"steps\":1,\"guidance\":1}],"
                  "\"timings\":{},\"notices\":[],\"error_code\":\"\",\"error_message\":\"\","
                  "%s,\"images\":[%s]}",
                  request, members, images);
    struct kafka_record record = {.topic = "unclip.state",
                                  .key = key,
                                  .key_size = key ? strlen(key) : 0,
                                  .value = text,
                                  .value_size = strlen(text)};
    struct live_job *job = NULL;
    struct err err;
    int rc = state_decode(&job, HOME, &record, &err);
    if (rc < 0)
        print_message("%s\n", err.text);
    assert_true((rc == 0) == (job != NULL));
    live_job_free(job);
    free(text);
    return rc;
}

#define SEED           ",\"seed\":7"
#define AT(time)       "\"created_at\":\"" time "\""
#define GOOD_TIME      "2026-01-31T12:34:56.789Z"
#define IMAGE(i, more) "{\"index\":" #i ",\"seed\":7,\"state\":" more "}"
#define GOOD_IMAGE     IMAGE(0, "\"pending\",\"hop\":1")

/* Valid by the schema, but such that going on with it would be a bug. */
static void test_the_impossible_is_refused(void **state)
{
    static const struct {
        const char *key, *request, *members, *images;
    } cases[] = {
        {"a", "", AT(GOOD_TIME), GOOD_IMAGE},
        {NULL, SEED, AT(GOOD_TIME), GOOD_IMAGE},
        {"a", SEED, AT("1900-01-01T00:00:00.000Z"), GOOD_IMAGE},
        {"a", SEED, AT("2026-99-01T00:00:00.000Z"), GOOD_IMAGE},
        {"a", SEED, AT(GOOD_TIME), IMAGE(0, "\"pending\",\"hop\":2")},
        {"a", SEED, AT(GOOD_TIME), IMAGE(0, "\"failed\",\"hop\":3")},
        {"a", SEED, AT(GOOD_TIME), GOOD_IMAGE "," GOOD_IMAGE},
        {"a", SEED, AT(GOOD_TIME),
         IMAGE(0, "\"pending\",\"hop\":1,\"retry_at\":\"1969-12-31T00:00:00.000Z\"")},
        {"a", SEED, AT(GOOD_TIME),
         IMAGE(0, "\"pending\",\"hop\":1,\"ref\":\"x\",\"retry_at\":\"2026-13-31T00:00:00.000Z\"")},
        {"a", SEED, AT(GOOD_TIME) ",\"admitted\":1",
         GOOD_IMAGE "," IMAGE(1, "\"pending\",\"hop\":1")},
        {"a", SEED, AT(GOOD_TIME) ",\"admitted\":1",
         GOOD_IMAGE "," IMAGE(1, "\"failed\",\"hop\":0")},
        {"a", SEED, AT(GOOD_TIME) ",\"admitted\":1",
         GOOD_IMAGE "," IMAGE(1, "\"pending\",\"hop\":0,\"retry_at\":\"" GOOD_TIME "\"")},
    };
    (void)state;
    assert_int_equal(decode_odd("a", SEED, AT(GOOD_TIME), GOOD_IMAGE), 0);
    assert_int_equal(decode_odd("a", SEED, AT(GOOD_TIME) ",\"admitted\":1",
                                GOOD_IMAGE "," IMAGE(1, "\"pending\",\"hop\":0")),
                     0);
    assert_int_equal(decode_odd("a", SEED, AT(GOOD_TIME), IMAGE(0, "\"failed\",\"hop\":2")), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(
            decode_odd(cases[i].key, cases[i].request, cases[i].members, cases[i].images),
            -ERR_INVALID_RECORD);
}

static void test_pictures_without_a_request_are_refused(void **state)
{
    static const char value[] =
        "{\"version\":1,\"id\":\"a\",\"type\":null,\"state\":\"failed\"," AT(
            GOOD_TIME) ",\"finished_at\":\"" GOOD_TIME
                       "\",\"request\":null,\"route\":[],\"images\":[" IMAGE(
                           0,
                           "\"failed\",\"hop\":0") "],\"timings\":{},\"notices\":[],\"error_code\":"
                                                   "\"timeout\",\"error_message\":\"late\"}";
    struct kafka_record record = {.topic = "unclip.results",
                                  .key = "a",
                                  .key_size = 1,
                                  .value = value,
                                  .value_size = sizeof value - 1};
    struct live_job *job = NULL;
    struct err err;
    (void)state;
    assert_int_equal(schema_validate("result", value, sizeof value - 1, &err), 0);
    assert_int_equal(result_decode(&job, HOME, &record, &err), -ERR_INVALID_RECORD);
    assert_null(job);
}

static void test_digests(void **state)
{
    (void)state;
#define DIGEST(text) body_digest(text, strlen(text))
    assert_true(DIGEST("{\"a\":1,\"b\":2}") == DIGEST(" {\"b\":2, \"a\":1, \"id\":\"x\"} "));
    assert_true(DIGEST("{\"a\":1}") != DIGEST("{\"a\":2}"));
    assert_true(DIGEST("not json") != DIGEST("not json either"));
    assert_true(body_digest(NULL, 0) == DIGEST(""));
    char *text = digest_text(0xabc);
    assert_string_equal(text, "0000000000000abc");
    free(text);
}

/* Each kind, taken over from its state: its tasks are those that it would have had. */
static void test_every_kind_comes_back(void **state)
{
    static const char *const kinds[] = {
        "\"type\":\"variation\",\"image\":\"file:///a/b.png\",\"start\":\"picture\",\"n\":2",
        "\"type\":\"interpolate\",\"inputs\":[{\"image\":\"http://a/"
        "b\"},{\"text\":\"c\"}],\"frames\":3",
        "\"type\":\"edit\",\"image\":\"http://a/b\",\"mask\":\"http://a/"
        "m\",\"mask_mode\":\"white\","
        "\"feather\":3,\"prompt\":\"d\",\"resample\":4",
        "\"type\":\"text-diff\",\"image\":\"http://a/b\",\"from\":\"c\",\"to\":\"d\",\"frames\":4",
        "\"type\":\"upscale\",\"image\":\"http://a/b\",\"from\":64,\"preview\":2",
        "\"type\":\"embed\",\"inputs\":[{\"text\":\"c\"},{\"image\":\"http://a/b\"}]",
        "\"type\":\"score\",\"inputs\":[{\"image\":\"http://a/b\"}],\"prompt\":\"c\"",
        "\"type\":\"text-to-image\",\"prompt\":\"c\",\"stop_at\":64,\"n\":1,\"best_of\":3,"
        "\"prior_candidates\":2,\"overflow\":\"split\",\"output\":{\"format\":\"webp\",\"quality\":"
        "80}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct fixture f;
        struct live_job *back = NULL;
        const struct kafka_output *output = NULL;
        struct err err;
        fixture_init(&f);
        char *text = xasprintf("{\"version\":1,%s}", kinds[i]);
        struct outbox *out = send_job(&f, "job", text);
        handle_settle(&f.handler);
        if (outputs_to(out, topic_name(TOPIC_STATE), &output) != 1)
            fail_msg("%s was not accepted", kinds[i]);
        struct kafka_record record = record_of(output);
        if (state_decode(&back, HOME, &record, &err) != 0)
            fail_msg("%s: %s", kinds[i], err.text);
        const struct job *job = &find(&f, "job")->job;
        for (int image = 0; image < job->n; image++) {
            struct task before, after, read;
            task_from_job(&before, job, image, HOME, NOW, NOW);
            task_from_job(&after, &back->job, image, HOME, NOW, NOW);
            char *wanted = task_to_json(&before), *got = task_to_json(&after);
            assert_string_equal(got, wanted);
            if (task_parse(&read, got, strlen(got), &err) != 0)
                fail_msg("%s: %s", kinds[i], err.text);
            task_release(&before);
            task_release(&after);
            task_release(&read);
            free(wanted);
            free(got);
        }
        live_job_free(back);
        free(text);
        fixture_release(&f);
    }
}

static void test_times(void **state)
{
    char text[CLOCK_ISO_SIZE];
    (void)state;
    clock_iso8601(NOW, text);
    assert_int_equal(iso8601_parse(text), NOW);
    assert_int_equal(iso8601_parse("1970-01-01T00:00:00.001Z"), 1);
    assert_int_equal(iso8601_parse("yesterday"), -1);
    assert_int_equal(iso8601_parse("1969-12-31T23:59:59.999Z"), -1);
    assert_int_equal(iso8601_parse("9999-12-31T23:59:59.999Z"), CLOCK_ISO_END_MS - 1);
    assert_int_equal(iso8601_parse("9999-12-31T23:59:60.000Z"), -1);
    assert_int_equal(iso8601_parse("2026-01-31T12:34:56.7Z"), -1);
    assert_int_equal(iso8601_parse("2026-01-31T12:34:56.-12Z"), -1);
    assert_int_equal(iso8601_parse("2026-01-31T12:34:56.789Z "), -1);
    assert_int_equal(iso8601_parse(NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state_comes_back),
        cmocka_unit_test(test_another_coordinator_goes_on),
        cmocka_unit_test(test_result_comes_back),
        cmocka_unit_test(test_refused_result_comes_back),
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_the_impossible_is_refused),
        cmocka_unit_test(test_pictures_without_a_request_are_refused),
        cmocka_unit_test(test_digests),
        cmocka_unit_test(test_every_kind_comes_back),
        cmocka_unit_test(test_times),
    };
    log_init("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
