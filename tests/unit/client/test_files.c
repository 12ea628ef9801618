/* SPDX-License-Identifier: Apache-2.0 */
/* Artifacts, model directories and their reports. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/artifact.h"
#include "client/local_model.h"
#include "client/model_report.h"
#include "common/memory.h"

static char folder[64];

static int setup(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/unclip-client-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char *command = xasprintf("rm -rf '%s'", folder);
    int rc = system(command);
    free(command);
    return rc;
}

static void test_uris(void **state)
{
    char *path = NULL;
    struct err err;
    (void)state;
    assert_int_equal(artifact_path("file:///a%20b/%c3%A9.png", &path, &err), 0);
    assert_string_equal(path, "/a b/é.png");
    free(path);
    assert_int_equal(artifact_path("s3://bucket/a.png", &path, &err), -ERR_UNSUPPORTED);
    assert_int_equal(artifact_path("file:///a%2", &path, &err), -ERR_UNSUPPORTED);
    assert_int_equal(artifact_path("file:///a%00b", &path, &err), -ERR_UNSUPPORTED);
    assert_int_equal(artifact_path("file://host/a", &path, &err), -ERR_UNSUPPORTED);
}

static void test_files(void **state)
{
    struct err err;
    void *bytes = NULL;
    size_t size = 0;
    (void)state;
    char *below = xasprintf("%s/a/b/c", folder), *path = xasprintf("%s/x.png", below);
    assert_int_equal(folder_make(below, &err), 0);
    assert_int_equal(folder_make(below, &err), 0);
    assert_int_equal(artifact_write(path, "hello", 5, &err), 0);
    assert_int_equal(artifact_read(path, 5, &bytes, &size, &err), 0);
    assert_int_equal(size, 5);
    assert_memory_equal(bytes, "hello", 5);
    free(bytes);
    assert_int_equal(artifact_read(path, 4, &bytes, &size, &err), -ERR_TOO_LARGE);
    assert_int_equal(artifact_read(below, 5, &bytes, &size, &err), -ERR_IO);
    assert_int_equal(folder_make(path, &err), 0); /* it exists; writing into it fails */
    char *in_file = xasprintf("%s/y", path);
    assert_int_equal(artifact_write(in_file, "x", 1, &err), -ERR_IO);
    assert_int_equal(folder_make(in_file, &err), -ERR_IO);
    free(in_file);
    free(path);
    free(below);
}

static void test_folders_that_are_ready(void **state)
{
    struct err err;
    (void)state;
    char *new = xasprintf("%s/ready/or/not", folder), *file = xasprintf("%s/file", new);
    assert_int_equal(folder_ready(new, &err), 0);
    assert_int_equal(rmdir(new), 0); /* nothing stays in it */
    assert_int_equal(folder_ready(new, &err), 0);
    assert_int_equal(artifact_write(file, "x", 1, &err), 0);
    assert_int_equal(folder_ready(file, &err), -ERR_IO);
    assert_non_null(strstr(err.text, "cannot write into the folder"));
    free(file);
    free(new);
}

static void test_model_paths(void **state)
{
    (void)state;
    char *path = local_model_path("models", "emoji");
    assert_string_equal(path, "models/emoji");
    free(path);
    path = local_model_path("models", "./emoji");
    assert_string_equal(path, "./emoji");
    free(path);
}

static void test_the_shipped_model_is_good(void **state)
{
    struct model_report report;
    (void)state;
    model_report_make(&report, SOURCE_DIR "/models/emoji");
    assert_true(model_report_good(&report));
    json_t *json = model_report_json(&report);
    assert_true(json_is_true(json_object_get(json, "serves")));
    assert_int_equal(json_integer_value(json_array_get(json_object_get(json, "sizes"), 2)), 1024);
    json_decref(json);
    for (int i = 0; i < report.count; i++)
        assert_true(report.parts[i].there == (strcmp(report.parts[i].name, "ar_prior") != 0));
    model_report_release(&report);
}

static bool has_problem(const struct model_report *report, const char *words)
{
    for (int i = 0; i < report->problem_count; i++)
        if (strstr(report->problems[i], words))
            return true;
    return false;
}

/* A copy of the shipped model, with one file replaced (NULL: removed). */
static char *spoiled(const char *file, const char *bytes)
{
    struct err err;
    char *copy = xasprintf("%s/model", folder);
    char *command =
        xasprintf("rm -rf '%s' && cp -r '%s' '%s'", copy, SOURCE_DIR "/models/emoji", copy);
    char *path = xasprintf("%s/%s", copy, file);
    assert_int_equal(system(command), 0);
    if (bytes)
        assert_int_equal(artifact_write(path, bytes, strlen(bytes), &err), 0);
    else
        assert_int_equal(unlink(path), 0);
    free(path);
    free(command);
    return copy;
}

static void test_spoiled_models(void **state)
{
    static const struct {
        const char *file, *bytes, *problem;
    } cases[] = {
        {"prior/config.json", NULL, "prior/config.json' is missing"},
        {"prior/config.json", "{", "is not valid JSON"},
        {"decoder/diffusion_pytorch_model.safetensors", NULL, "decoder: no weights"},
        {"decoder/diffusion_pytorch_model.safetensors", "short", "decoder: "},
        {"tokenizer/merges.txt", NULL, "merges.txt' is missing"},
        {"model_index.json", NULL, "model_index.json"},
        {"model_index.json", "{}", "model_index.json does not name it"},
        {"super_res_scheduler/scheduler_config.json", NULL, "scheduler_config.json' is missing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_report report;
        char *path = spoiled(cases[i].file, cases[i].bytes);
        model_report_make(&report, path);
        assert_false(model_report_good(&report));
        assert_true(has_problem(&report, cases[i].problem));
        model_report_release(&report);
        free(path);
    }
}

static void test_no_model(void **state)
{
    struct model_report report;
    (void)state;
    model_report_make(&report, "/nowhere");
    assert_true(has_problem(&report, "there is no directory '/nowhere'"));
    model_report_release(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uris),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_folders_that_are_ready),
        cmocka_unit_test(test_model_paths),
        cmocka_unit_test(test_the_shipped_model_is_good),
        cmocka_unit_test(test_spoiled_models),
        cmocka_unit_test(test_no_model),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
