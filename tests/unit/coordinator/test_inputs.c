/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures that jobs bring along: into the store, and out of every record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/inputs.h"
#include "fixture.h"

#define DATA(type) "data:image/" type ";base64,Ynl0ZXM=" /* "bytes" */

static char folder[] = "/tmp/unclip-inputs.XXXXXX";
static struct storage *store;

static int start(void **state)
{
    (void)state;
    struct err err;
    return mkdtemp(folder) ? storage_open(&store, folder, &err) : -1;
}

static int stop(void **state)
{
    (void)state;
    char command[64];
    storage_close(store);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static void parse(struct job *job, const char *text)
{
    struct err err;
    if (job_parse(job, NULL, 0, text, strlen(text), "unclip.jobs", 0, 7, &err))
        fail_msg("%s", err.text);
}

/* The address is the store's, of that name, and leads to the bytes. */
static void assert_stored(const char *address, const char *name)
{
    void *bytes;
    size_t size;
    char *uri;
    assert_int_equal(storage_uri(store, name, &uri, NULL), 0);
    assert_string_equal(address, uri);
    assert_int_equal(storage_read(store, uri, 100, &bytes, &size, NULL), 0);
    assert_int_equal(size, 5);
    assert_memory_equal(bytes, "bytes", 5);
    free(bytes);
    free(uri);
}

static void each_place_has_its_name(void **state)
{
    (void)state;
    struct job job;
    parse(&job, "{\"version\":1,\"type\":\"edit\",\"id\":\"e\",\"prompt\":\"a\",\"image\":\"" DATA(
                    "png") "\",\"mask\":\"" DATA("webp") "\"}");
    assert_int_equal(inputs_store(store, &job, NULL), 0);
    assert_stored(job.sources->image, "e/image.png");
    assert_stored(job.sources->mask, "e/mask.webp");
    job_release(&job);
    parse(&job,
          "{\"version\":1,\"type\":\"interpolate\",\"id\":\"i\",\"inputs\":[{\"text\":\"data:\"}"
          ",{\"image\":\"https://example.org/a.png\"},{\"image\":\"" DATA("jpeg") "\"}]}");
    assert_int_equal(inputs_store(store, &job, NULL), 0);
    assert_string_equal(job.sources->inputs[0].text, "data:");
    assert_string_equal(job.sources->inputs[1].image, "https://example.org/a.png");
    assert_stored(job.sources->inputs[2].image, "i/input-2.jpeg");
    job_release(&job);
}

static void a_job_without_pictures_needs_no_store(void **state)
{
    (void)state;
    struct job job;
    parse(&job, "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a\"}");
    assert_int_equal(inputs_store(NULL, &job, NULL), 0);
    job_release(&job);
}

static void hiding_leaves_other_addresses(void **state)
{
    (void)state;
    struct job job;
    parse(&job, "{\"version\":1,\"type\":\"edit\",\"prompt\":\"a\",\"image\":\"" DATA(
                    "png") "\",\"mask\":\"http://example.org/\"}");
    inputs_hide(&job);
    assert_string_equal(job.sources->image, "data:,");
    assert_string_equal(job.sources->mask, "http://example.org/");
    job_release(&job);
}

/* No record after the job's own has its pictures, and its tasks name what is stored. */
static void records_name_the_stored_picture(void **state)
{
    (void)state;
    struct fixture f;
    struct task task;
    struct err err;
    fixture_init(&f);
    f.handler.storage = store;
    const struct outbox *out = send_job(
        &f, "v",
        "{\"version\":1,\"type\":\"variation\",\"size\":64,\"image\":\"" DATA("png") "\"}");
    const struct kafka_output *record = NULL;
    assert_int_equal(outputs_to(out, "unclip.tasks.text-encode", &record), 1);
    assert_int_equal(task_parse(&task, record->headers[0].value, record->headers[0].size, &err), 0);
    assert_stored(task.sources.image, "v/image.png");
    task_release(&task);
    handle_settle(&f.handler);
    assert_int_equal(outputs_to(out, "unclip.state", &record), 1);
    assert_null(memmem(record->value, record->value_size, "data:", 5));
    assert_non_null(memmem(record->value, record->value_size, "v/image.png", 11));
    fixture_release(&f);
}

static void assert_refused(const char *image, const char *code, const char *words)
{
    struct fixture f;
    const struct kafka_output *record = NULL;
    fixture_init(&f);
    f.handler.storage = store;
    char *job = xasprintf("{\"version\":1,\"type\":\"edit\",\"prompt\":\"a\",\"image\":\"%s\","
                          "\"mask\":\"%s\"}",
                          DATA("png"), image);
    const struct outbox *out = send_job(&f, "refused", job);
    assert_int_equal(outputs_to(out, "unclip.dead-letter", NULL), 1);
    handle_settle(&f.handler);
    assert_int_equal(outputs_to(out, "unclip.tasks.text-encode", NULL), 0);
    assert_int_equal(outputs_to(out, "unclip.results", &record), 1);
    json_t *result = json_loadb(record->value, record->value_size, 0, NULL);
    const char *message = json_string_value(json_object_get(result, "error_message"));
    assert_string_equal(json_string_value(json_object_get(result, "error_code")), code);
    if (!strstr(message, words) || !strstr(message, "/mask"))
        fail_msg("'%s' does not say '%s'", message, words);
    assert_null(memmem(record->value, record->value_size, "Ynl0", 4));
    json_decref(result);
    free(job);
    fixture_release(&f);
}

static void broken_pictures_are_refused_with_a_reason(void **state)
{
    (void)state;
    assert_refused("data:image/png;base64,Ynl0ZXM", "invalid_job", "not base 64");
    assert_refused("data:image/svg+xml;base64,Ynl0", "invalid_job", "'image/svg+xml'");
    assert_refused("data:hello", "invalid_job", "data:image/png;base64");
}

static void a_job_refused_for_another_reason_is_shown_without_its_picture(void **state)
{
    (void)state;
    struct fixture f;
    const struct kafka_output *record = NULL;
    fixture_init(&f);
    f.handler.storage = NULL; /* it is not asked */
    const struct outbox *out = send_job(
        &f, "other",
        "{\"version\":1,\"type\":\"variation\",\"size\":65,\"image\":\"" DATA("png") "\"}");
    handle_settle(&f.handler);
    assert_int_equal(outputs_to(out, "unclip.results", &record), 1);
    assert_null(memmem(record->value, record->value_size, "Ynl0ZXM=", 8));
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_place_has_its_name),
        cmocka_unit_test(a_job_without_pictures_needs_no_store),
        cmocka_unit_test(hiding_leaves_other_addresses),
        cmocka_unit_test(records_name_the_stored_picture),
        cmocka_unit_test(broken_pictures_are_refused_with_a_reason),
        cmocka_unit_test(a_job_refused_for_another_reason_is_shown_without_its_picture),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
