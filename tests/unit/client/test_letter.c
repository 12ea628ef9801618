/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters: places, times, rows, and what sending one again comes to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/letter.h"
#include "common/dead_letter.h"
#include "common/job.h"
#include "common/memory.h"

#define JOB_TEXT "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\""

/* A letter as a coordinator or worker makes it, read back at place 3:17. */
static int read_back(struct letter *letter, const struct kafka_record *refused, const char *job,
                     bool with_value, struct err *err)
{
    const struct err why = {.code = ERR_UNKNOWN_MODEL, .text = "no model 'x'\x1b[31m"};
    struct kafka_output out;
    char *text = dead_letter_make(&(struct dead_letter){.at_ms = 1767225600789,
                                                        .err = &why,
                                                        .record = refused,
                                                        .worker = "coordinator-0",
                                                        .job = job,
                                                        .with_value = with_value},
                                  &out);
    int rc = letter_read(letter,
                         &(struct kafka_record){.topic = "unclip.dead-letter",
                                                .partition = 3,
                                                .offset = 17,
                                                .value = out.value,
                                                .value_size = out.value_size},
                         err);
    free(text);
    return rc;
}

static struct letter letter_of(const char *topic, const char *key, const char *value, size_t size,
                               const char *job)
{
    struct letter letter;
    struct err err;
    const struct kafka_header header = {"trace", "abc", 3};
    const struct kafka_record refused = {.topic = topic,
                                         .partition = 2,
                                         .offset = 5,
                                         .key = key,
                                         .key_size = key ? strlen(key) : 0,
                                         .value = value,
                                         .value_size = size,
                                         .headers = &header,
                                         .header_count = 1};
    assert_int_equal(read_back(&letter, &refused, job, true, &err), 0);
    return letter;
}

static struct letter job_letter(const char *key, const char *value, const char *job)
{
    return letter_of("unclip.jobs", key, value, strlen(value), job);
}

static void test_places(void **state)
{
    struct place place;
    char text[PLACE_SIZE];
    (void)state;
    assert_true(place_parse("3:17", &place));
    assert_int_equal(place.partition, 3);
    assert_int_equal(place.offset, 17);
    assert_string_equal(place_text(place, text), "3:17");
    const char *wrong[] = {"",
                           "3",
                           "3:",
                           ":3",
                           "-1:3",
                           "3:-1",
                           "3:17 ",
                           " 3:1",
                           "3:1:2",
                           "3:17:",
                           "a:b",
                           "9999999999:1",
                           "1:9999999999999999999"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(place_parse(wrong[i], &place));
}

static void test_times(void **state)
{
    int64_t at;
    (void)state;
    assert_true(time_parse("2026-01-01", &at));
    assert_int_equal(at, 1767225600000);
    assert_true(time_parse("2026-01-01T00:00:01Z", &at));
    assert_int_equal(at, 1767225601000);
    assert_false(time_parse("yesterday", &at));
    assert_false(time_parse("2026-01-01T00:00:01", &at));
    assert_false(time_parse("2026-01-01 x", &at));
}

static void test_no_letter(void **state)
{
    struct letter letter;
    struct err err;
    struct kafka_record record = {.partition = 1, .offset = 2, .value = "{}", .value_size = 2};
    (void)state;
    assert_int_equal(letter_read(&letter, &record, &err), -ERR_INVALID_RECORD);
    record.value = NULL;
    assert_int_equal(letter_read(&letter, &record, &err), -ERR_INVALID_RECORD);
    assert_string_equal(err.text, "1:2 is no dead letter: it has no value");
}

static void test_row(void **state)
{
    struct letter letter = job_letter("mine", "{}", "mine");
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    (void)state;
    letter_row(&letter, out);
    fclose(out);
    assert_string_equal(text, "3:17       2026-01-01T00:00:00  unknown_model    "
                              "mine                         -           no model 'x' [31m\n");
    assert_true(letter_matches(&letter, NULL, NULL));
    assert_true(letter_matches(&letter, "mine", "unknown_model"));
    assert_false(letter_matches(&letter, "other", NULL));
    assert_false(letter_matches(&letter, NULL, "timeout"));
    free(text);
    letter_release(&letter);
}

static void test_json(void **state)
{
    struct letter letter = job_letter("mine", "{}", "mine");
    json_t *brief = letter_json(&letter, false), *whole = letter_json(&letter, true);
    (void)state;
    assert_string_equal(json_string_value(json_object_get(brief, "place")), "3:17");
    assert_null(json_object_get(brief, "value"));
    assert_string_equal(json_string_value(json_object_get(whole, "value")), "{}");
    json_decref(brief);
    json_decref(whole);
    letter_release(&letter);
}

/* --- sending again --- */

static struct resend resend_of(struct letter letter)
{
    struct resend resend;
    struct err err;
    int rc = letter_resend(&letter, &resend, &err);
    if (rc)
        print_message("%s\n", err.text);
    assert_int_equal(rc, 0);
    letter_release(&letter);
    return resend;
}

static void refused(struct letter letter, enum err_code code)
{
    struct resend resend;
    struct err err;
    assert_int_equal(letter_resend(&letter, &resend, &err), -(int)code);
    assert_null(resend.topic);
    letter_release(&letter);
}

static void test_job_gets_a_new_id(void **state)
{
    struct resend resend = resend_of(job_letter("mine", JOB_TEXT ",\"id\":\"mine\"}", "mine"));
    struct job job;
    struct err err;
    (void)state;
    assert_string_equal(resend.output.topic, "unclip.jobs");
    assert_int_equal(resend.output.partition, KAFKA_ANY_PARTITION);
    assert_string_equal(resend.id, "mine.retry-3-17");
    assert_memory_equal(resend.output.key, "mine.retry-3-17", resend.output.key_size);
    assert_int_equal(job_parse(&job, resend.output.key, resend.output.key_size, resend.output.value,
                               resend.output.value_size, "t", 0, 0, &err),
                     0);
    assert_string_equal(job.prompt, "a red heart");
    assert_true(job.seed < 0);
    job_release(&job);
    resend_release(&resend);
}

static void test_retry_of_a_retry(void **state)
{
    struct resend resend = resend_of(job_letter("mine.retry-1-2", JOB_TEXT "}", "mine.retry-1-2"));
    (void)state;
    assert_string_equal(resend.id, "mine.retry-3-17");
    resend_release(&resend);
    resend = resend_of(job_letter("mine.retry-it", JOB_TEXT "}", "mine.retry-it"));
    assert_string_equal(resend.id, "mine.retry-it.retry-3-17");
    resend_release(&resend);
}

static void test_what_goes_back_as_it_was(void **state)
{
    static const char cancel[] = "{\"version\":1,\"type\":\"cancel\"}", bytes[] = "\xff\0\xfe";
    struct resend resend = resend_of(job_letter("mine", cancel, "mine"));
    (void)state;
    assert_string_equal(resend.id, "");
    assert_string_equal(resend.output.topic, "unclip.jobs");
    assert_int_equal(resend.output.partition, 2);
    assert_string_equal(resend.output.value, cancel);
    assert_int_equal(resend.output.value_size, strlen(cancel));
    assert_memory_equal(resend.output.key, "mine", resend.output.key_size);
    assert_int_equal(resend.output.header_count, 1);
    assert_string_equal(resend.output.headers[0].name, "trace");
    assert_memory_equal(resend.output.headers[0].value, "abc", 3);
    resend_release(&resend);

    for (size_t size = 1; size <= 3; size++) { /* each length of the last group in base 64 */
        resend = resend_of(letter_of("unclip.events", NULL, bytes, size, NULL));
        assert_null(resend.output.key);
        assert_int_equal(resend.output.value_size, size);
        assert_memory_equal(resend.output.value, bytes, size);
        resend_release(&resend);
    }
}

static void test_what_is_not_sent(void **state)
{
    char *large = xmalloc(DEAD_LETTER_VALUE_MAX + 1), id[JOB_ID_MAX + 1];
    (void)state;
    memset(large, 'x', DEAD_LETTER_VALUE_MAX + 1);
    memset(id, 'x', JOB_ID_MAX);
    id[JOB_ID_MAX] = 0;
    refused(letter_of("unclip.jobs", "mine", large, DEAD_LETTER_VALUE_MAX + 1, "mine"),
            ERR_TOO_LARGE);
    refused(job_letter("mine", "a red heart, please", "mine"), ERR_UNSUPPORTED);
    refused(job_letter(id, JOB_TEXT "}", id), ERR_TOO_LARGE);
    refused(job_letter("\xff", "{}", NULL), ERR_UNSUPPORTED);
    refused(letter_of("unclip.tasks.prior", "mine/0", "junk", 4, NULL), ERR_UNSUPPORTED);
    refused(letter_of("unclip.results", "mine", "{}", 2, "mine"), ERR_UNSUPPORTED);
    free(large);
}

/* The letter of a task that a worker could not do. */
static struct letter letter_of_task(const struct task *task, const char *topic)
{
    struct letter letter;
    struct err err;
    char *json = task_to_json(task);
    const struct kafka_header header = {"task", json, strlen(json)};
    const struct kafka_record record = {
        .topic = topic, .headers = &header, .header_count = 1, .value = "\xff", .value_size = 1};
    assert_int_equal(read_back(&letter, &record, task->job, false, &err), 0);
    free(json);
    return letter;
}

static struct letter task_letter(const char *id, const char *topic, enum task_class task_class)
{
    struct task task = {
        .images = 4,
        .image = 2,
        .model = "emoji",
        .task_class = task_class,
        .prompt = xstrdup("a red heart"),
        .negative_prompt = xstrdup(""),
        .seed = 44,
        .size = 64,
        .route = {{STAGE_TEXT_ENCODE, 0, 0}, {STAGE_PRIOR, 5, 4}, {STAGE_DECODER, 7, 3}},
        .hops = 3,
        .hop = 1,
        .created_at_ms = 1,
        .enqueued_at_ms = 1};
    strcpy(task.job, id);
    struct letter letter = letter_of_task(&task, topic);
    task_release(&task);
    return letter;
}

static void test_task_becomes_a_job_of_its_picture(void **state)
{
    struct resend resend = resend_of(task_letter("mine", "unclip.tasks.prior.bulk", CLASS_BULK));
    struct job job;
    struct err err;
    (void)state;
    assert_string_equal(resend.id, "mine.2.retry-3-17");
    assert_string_equal(resend.output.topic, "unclip.jobs");
    assert_int_equal(job_parse(&job, resend.output.key, resend.output.key_size, resend.output.value,
                               resend.output.value_size, "t", 0, 0, &err),
                     0);
    assert_int_equal(job.n, 1);
    assert_int_equal(job.seed, 44);
    assert_int_equal(job.size, 64);
    assert_int_equal(job.task_class, CLASS_BULK);
    assert_string_equal(job.model, "emoji");
    assert_int_equal(job.route[STAGE_DECODER].steps, 7);
    job_release(&job);
    resend_release(&resend);
    resend = resend_of(task_letter("mine.2.retry-0-1", "unclip.tasks.prior", CLASS_INTERACTIVE));
    assert_string_equal(resend.id, "mine.2.retry-3-17");
    resend_release(&resend);
}

/* The coordinator's letter of a picture whose tries are used up is of the last event, with the
   task's headers: the event would be ignored, for its job has ended. */
static void test_used_up_tries_become_a_job(void **state)
{
    struct resend resend = resend_of(task_letter("mine", "unclip.events", CLASS_INTERACTIVE));
    (void)state;
    assert_string_equal(resend.id, "mine.2.retry-3-17");
    assert_string_equal(resend.output.topic, "unclip.jobs");
    assert_int_equal(resend.output.header_count, 0);
    resend_release(&resend);
}

/* Sources go out as they were; of a data URL a task has the URI under which it was stored. */
static void test_sources_are_sent_again(void **state)
{
    static const char *const addresses[] = {
        "file:///store/mine/image.png",
        "s3://bucket/mine/image.png",
        "https://example.org/a.png",
    };
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        const struct task task = {
            .job = "mine",
            .images = 1,
            .type = JOB_EDIT,
            .model = "emoji",
            .prompt = (char[]){"a hat"},
            .negative_prompt = (char[]){""},
            .seed = 44,
            .size = 64,
            .sources = {.image = (char *)addresses[i], .mask = (char *)addresses[i], .side = 64},
            .route = {{STAGE_TEXT_ENCODE, 0, 0}, {STAGE_PRIOR, 5, 4}, {STAGE_DECODER, 7, 3}},
            .hops = 3,
            .hop = 1,
            .created_at_ms = 1,
            .enqueued_at_ms = 1,
        };
        struct resend resend = resend_of(letter_of_task(&task, "unclip.tasks.decoder"));
        struct job job;
        struct err err;
        assert_int_equal(job_parse(&job, resend.output.key, resend.output.key_size,
                                   resend.output.value, resend.output.value_size, "t", 0, 0, &err),
                         0);
        assert_int_equal(job.type, JOB_EDIT);
        assert_string_equal(job.sources->image, addresses[i]);
        assert_string_equal(job.sources->mask, addresses[i]);
        job_release(&job);
        resend_release(&resend);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_no_letter),
        cmocka_unit_test(test_row),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_job_gets_a_new_id),
        cmocka_unit_test(test_retry_of_a_retry),
        cmocka_unit_test(test_what_goes_back_as_it_was),
        cmocka_unit_test(test_what_is_not_sent),
        cmocka_unit_test(test_task_becomes_a_job_of_its_picture),
        cmocka_unit_test(test_used_up_tries_become_a_job),
        cmocka_unit_test(test_sources_are_sent_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
