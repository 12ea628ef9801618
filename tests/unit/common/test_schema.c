/* SPDX-License-Identifier: Apache-2.0 */
/* The schemas accept their examples, and each failure is a sentence that helps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

#define JOB(fields) "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a\"" fields "}"

static int check(const char *schema, const char *json, struct err *err)
{
    memset(err, 0, sizeof *err);
    return schema_validate(schema, json, strlen(json), err);
}

static void check_sentences(void **state)
{
    (void)state;
    static const struct {
        const char *schema, *json, *text;
    } cases[] = {
        {"job-text-to-image", JOB(",\"n\":65"), "'/n' is 65, at most 64 is allowed"},
        {"job-text-to-image", JOB(",\"n\":0"), "'/n' is 0, at least 1 is needed"},
        {"job-text-to-image", JOB(",\"n\":\"2\""), "'/n' must be an integer, not a string"},
        {"job-text-to-image", JOB(",\"n\":1.5"), "'/n' must be an integer, not 1.5"},
        {"job-text-to-image", JOB(",\"n\":1.0"), "'/n' must be an integer, not 1.0"},
        {"job-text-to-image", JOB(",\"n\":null"), "'/n' must be an integer, not null"},
        {"job-text-to-image", JOB(",\"n\":true"), "'/n' must be an integer, not a boolean"},
        {"job-text-to-image", JOB(",\"seed\":9007199254740992"),
         "'/seed' is 9007199254740992, at most 9007199254740991 is allowed"},
        {"job-text-to-image", JOB(",\"class\":\"fast\""),
         "'/class' is 'fast', it must be 'interactive' or 'bulk'"},
        {"job-text-to-image", JOB(",\"id\":\"a b\""),
         "'/id' is 'a b', it must be 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"},
        {"job-text-to-image", JOB(",\"steps\":{\"prior\":0}"),
         "'/steps/prior' is 0, at least 1 is needed"},
        {"job-text-to-image", JOB(",\"steps\":{\"upsampler\":7}"),
         "unknown field '/steps/upsampler', known are prior, decoder, upsampler-1, upsampler-2"},
        {"job-text-to-image", JOB(",\"guidance\":{\"decoder\":100.5}"),
         "'/guidance/decoder' is 100.5, at most 100 is allowed"},
        {"job-text-to-image", JOB(",\"guidance\":7"), "'/guidance' must be an object, not 7"},
        {"job-text-to-image", "{\"version\":1,\"type\":\"text-to-image\"}",
         "the field 'prompt' is missing"},
        {"job-text-to-image", "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"\"}",
         "'/prompt' is empty"},
        {"job-text-to-image", "[]", "the record must be an object, not an array"},
        {"job", "{\"version\":2,\"type\":\"text-to-video\"}",
         "the record's version is 2, this unclip reads version 1"},
        {"job", "{\"version\":\"1\",\"type\":\"cancel\"}", "'/version' is '1', it must be 1"},
        {"job", "{\"version\":1,\"type\":\"text-to-video\"}",
         "'/type' is 'text-to-video', it must be 'text-to-image', 'variation', "
         "'interpolate', 'edit', 'text-diff', 'upscale', 'embed', 'score' or 'cancel'"},
        {"job", "{\"version\":1}", "the field 'type' is missing"},
        {"job-cancel", "{\"version\":1,\"type\":\"cancel\",\"a~b/c\":1}",
         "unknown field '/a~0b~1c', known are version, type, id"},
        {"event",
         "{\"version\":1,\"type\":\"picture-failed\",\"job\":\"a\",\"image\":0,\"stage\":\"prior\","
         "\"hop\":1,\"worker\":\"prior-0\",\"at\":\"2026-01-31T12:34:56.789Z\","
         "\"error_code\":\"timeout\"}",
         "the field 'error_message' is missing"},
        {"event",
         "{\"version\":1,\"type\":\"picture-dropped\",\"job\":\"a\",\"image\":0,\"stage\":\"prior\""
         ",\"hop\":1,\"worker\":\"prior-0\",\"at\":\"yesterday\"}",
         "'/at' is 'yesterday', it must be a time in UTC like 2026-01-31T12:34:56.789Z"},
        {"event",
         "{\"version\":1,\"type\":\"picture-dropped\",\"job\":\"a\",\"image\":0,\"stage\":\"prior\""
         ",\"hop\":1,\"worker\":\"prior-0\",\"at\":\"2026-01-31T12:34:56.789Z\","
         "\"compute_ms\":1e300}",
         "'/compute_ms' is 1e300, at most 1000000000000 is allowed"},
        {"model", "{\"steps\":{\"prior\":1001}}",
         "'/steps/prior' is 1001, at most 1000 is allowed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err;
        bool newer = strstr(cases[i].json, "\"version\":2") != NULL;
        assert_int_equal(check(cases[i].schema, cases[i].json, &err),
                         newer ? -ERR_UNSUPPORTED : -ERR_INVALID_JOB);
        assert_string_equal(err.text, cases[i].text);
    }
}

/* Zero has many spellings. */
static void check_zero(void **state)
{
    static const char *const zeros[] = {"0", "0.0", "-0.0", "0e45", "0.000e-400", "0E+308"};
    (void)state;
    for (size_t i = 0; i < sizeof zeros / sizeof *zeros; i++) {
        struct err err;
        char *text = xasprintf(JOB(",\"guidance\":{\"decoder\":%s}"), zeros[i]);
        if (check("job-text-to-image", text, &err) != 0)
            fail_msg("%s: %s", zeros[i], err.text);
        free(text);
    }
}

static void check_not_json(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "hello",
        "{\"version\":1",
        "{\"a\":1,\"a\":2}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":\"\\u0000\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{} {}",
        "5",
        "{\"a\":1e999}",
        "{\"a\":99999999999999999999}",
        "\xef\xbb\xbf{}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct err err;
        assert_int_equal(check("job", texts[i], &err), -ERR_INVALID_JSON);
        assert_true(strlen(err.text) > 0);
    }
}

/* A record with a string of `length` times `unit` between `head` and `tail`. */
static char *with_long_string(const char *head, const char *unit, size_t count, const char *tail)
{
    size_t step = strlen(unit), at = strlen(head);
    char *text = xmalloc(at + count * step + strlen(tail) + 1);
    memcpy(text, head, at);
    for (size_t i = 0; i < count; i++, at += step)
        memcpy(text + at, unit, step);
    strcpy(text + at, tail);
    return text;
}

static void check_prompt_counts_characters(void **state)
{
    (void)state;
    static const char head[] = "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"";
    static const char *const units[] = {"a", "é", "猫", "😀", "\\ud83d\\ude00"};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        struct err err;
        char *fits = with_long_string(head, units[i], 4000, "\"}");
        assert_int_equal(check("job-text-to-image", fits, &err), 0);
        char *over = with_long_string(head, units[i], 4001, "\"}");
        assert_int_equal(check("job-text-to-image", over, &err), -ERR_INVALID_JOB);
        assert_string_equal(err.text, "'/prompt' has 4001 characters, at most 4000 are allowed");
        free(fits);
        free(over);
    }
}

static void check_sizes(void **state)
{
    (void)state;
    struct err err;
    char *megabyte = with_long_string("{\"prompt\":\"", "a", 1 << 20, "\"}");
    assert_int_equal(check("job", megabyte, &err), -ERR_TOO_LARGE);
    assert_string_equal(err.text, "the record has 1048589 bytes, at most 921600 are allowed");
    char *deep = with_long_string("{\"a\":", "[", SCHEMA_DEPTH_MAX, "");
    assert_int_equal(check("job", deep, &err), -ERR_TOO_LARGE);
    assert_string_equal(err.text, "the record is nested more than 32 levels deep");
    char *brackets = with_long_string("{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"\\\"",
                                      "[", 1000, "\"}");
    assert_int_equal(check("job-text-to-image", brackets, &err), 0);
    free(megabyte);
    free(deep);
    free(brackets);
}

/* std::regex recurses for each character that it matches: long strings must not end the process. */
static void check_long_strings_in_patterns(void **state)
{
    (void)state;
    struct err err;
    char *id = with_long_string("{\"version\":1,\"type\":\"cancel\",\"id\":\"", "a", 800000, "\"}");
    assert_int_equal(check("job-cancel", id, &err), -ERR_INVALID_JOB);
    assert_true(strlen(err.text) < 200);
    char *name = with_long_string("{\"version\":1,\"type\":\"cancel\",\"", "é", 400000, "\":1}");
    assert_int_equal(check("job-cancel", name, &err), -ERR_INVALID_JOB);
    assert_true(strlen(err.text) < 200);
    free(id);
    free(name);
}

static json_t *read_schema(const char *path)
{
    json_t *schema;
    struct err err;
    assert_int_equal(jsonx_read_file(&schema, path, 1 << 20, &err), 0);
    return schema;
}

/* Each pattern is bounded and has a description, which the sentence quotes. */
static void check_patterns_below(const json_t *node)
{
    const char *key;
    json_t *value;
    size_t index;
    const char *pattern = json_string_value(json_object_get(node, "pattern"));
    if (pattern) {
        assert_null(strpbrk(pattern, "*+"));
        assert_int_equal(pattern[0], '^');
        assert_non_null(json_string_value(json_object_get(node, "description")));
    }
    if (json_is_object(node))
        json_object_foreach ((json_t *)node, key, value)
            check_patterns_below(value);
    else
        json_array_foreach ((json_t *)node, index, value)
            check_patterns_below(value);
}

static void check_patterns(void **state)
{
    (void)state;
    DIR *folder = opendir(SOURCE_DIR "/schemas");
    assert_non_null(folder);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strstr(entry->d_name, ".schema.json"))
            continue;
        char *path = xasprintf(SOURCE_DIR "/schemas/%s", entry->d_name);
        json_t *schema = read_schema(path);
        check_patterns_below(schema);
        json_decref(schema);
        free(path);
        count++;
    }
    closedir(folder);
    assert_true(count >= 9);
}

/* examples/NAME.json and examples/NAME-VARIANT.json are valid by the longest NAME that is known. */
static const char *schema_of_example(const char *file)
{
    static const char *const names[] = {"job-text-to-image",
                                        "job-variation",
                                        "job-interpolate",
                                        "job-edit",
                                        "job-text-diff",
                                        "job-upscale",
                                        "job-embed",
                                        "job-score",
                                        "job-cancel",
                                        "task",
                                        "event",
                                        "result",
                                        "dead-letter",
                                        "state",
                                        "model"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(file, names[i], strlen(names[i])) == 0)
            return names[i];
    fail_msg("no schema for the example %s", file);
    return NULL;
}

static void check_example(const char *file)
{
    struct err err;
    char *path = xasprintf(SOURCE_DIR "/schemas/examples/%s", file);
    json_t *example = read_schema(path);
    char *text = json_dumps(example, 0);
    const char *schema = schema_of_example(file);
    if (check(schema, text, &err) != 0)
        fail_msg("%s: %s", file, err.text);
    if (strncmp(schema, "job-", 4) == 0)
        assert_int_equal(check("job", text, &err), 0);
    free(text);
    json_decref(example);
    free(path);
}

static void check_examples(void **state)
{
    (void)state;
    DIR *folder = opendir(SOURCE_DIR "/schemas/examples");
    assert_non_null(folder);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (strstr(entry->d_name, ".json")) {
            check_example(entry->d_name);
            count++;
        }
    closedir(folder);
    assert_true(count >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_sentences), cmocka_unit_test(check_zero),
        cmocka_unit_test(check_not_json),  cmocka_unit_test(check_prompt_counts_characters),
        cmocka_unit_test(check_sizes),     cmocka_unit_test(check_long_strings_in_patterns),
        cmocka_unit_test(check_patterns),  cmocka_unit_test(check_examples),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
