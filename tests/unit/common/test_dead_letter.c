/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters: whatever was refused, they are valid by their schema and fit in a record. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/dead_letter.h"
#include "common/schema.h"

#define HUGE 900000 /* bytes: a record that a producer gets through with the brokers' defaults */
#define MANY 100    /* headers */

/* A refused record with room for the largest parts. */
struct fixture {
    struct kafka_record record;
    struct kafka_header headers[MANY];
    struct kafka_output output;
    char error_fill;
    char bytes[HUGE + 1];
};

static int setup(void **state)
{
    struct fixture *f = test_calloc(1, sizeof(*f));
    f->record = (struct kafka_record){.topic = "unclip.jobs", .partition = 3, .offset = 7};
    f->record.headers = f->headers;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    test_free(*state);
    return 0;
}

/* The letter, valid by its schema and not too large; owned. */
static json_t *letter_of(struct fixture *f)
{
    struct err err = {0}, invalid;
    err_set(&err, ERR_INVALID_JSON, "no JSON");
    if (f->error_fill) {
        memset(err.text, f->error_fill, sizeof(err.text) - 1);
        err.text[sizeof(err.text) - 1] = '\0';
    }
    struct dead_letter letter = {.at_ms = 1769862896789,
                                 .err = &err,
                                 .record = &f->record,
                                 .worker = "coordinator-0",
                                 .with_value = true};
    char *text = dead_letter_make(&letter, &f->output);
    assert_ptr_equal(f->output.value, text);
    assert_int_equal(f->output.value_size, strlen(text));
    assert_true(f->output.value_size + f->output.key_size < KAFKA_RECORD_MAX);
    assert_string_equal(f->output.topic, "unclip.dead-letter");
    assert_int_equal(f->output.header_count, 0);
    if (schema_validate("dead-letter", text, f->output.value_size, &invalid) < 0)
        fail_msg("%s", invalid.text);
    json_t *json = json_loads(text, 0, NULL);
    assert_non_null(json);
    free(text);
    return json;
}

static const char *text(const json_t *json, const char *name)
{
    return json_string_value(json_object_get(json, name));
}

static void assert_truncated(const json_t *json, bool truncated)
{
    assert_int_equal(json_is_true(json_object_get(json, "truncated")), truncated);
}

static void small_ones_are_whole(void **state)
{
    struct fixture *f = *state;
    f->record.key = "a-key", f->record.key_size = 5;
    f->record.value = "hello", f->record.value_size = 5;
    f->headers[0] = (struct kafka_header){"trace", "1234", 4};
    f->headers[1] = (struct kafka_header){"nothing", NULL, 0};
    f->record.header_count = 2;
    json_t *json = letter_of(f);
    assert_truncated(json, false);
    assert_string_equal(text(json, "key"), "a-key");
    assert_string_equal(text(json, "value"), "hello");
    assert_string_equal(text(json_object_get(json, "headers"), "trace"), "1234");
    assert_string_equal(text(json_object_get(json, "headers"), "nothing"), "");
    assert_ptr_equal(f->output.key, f->record.key);
    assert_int_equal(f->output.key_size, 5);
    json_decref(json);
}

static void bare_records(void **state)
{
    struct fixture *f = *state;
    json_t *json = letter_of(f);
    assert_truncated(json, false);
    assert_true(json_is_null(json_object_get(json, "key")));
    assert_true(json_is_null(json_object_get(json, "value")));
    assert_null(f->output.key);
    json_decref(json);
}

static void long_keys_are_cut(void **state)
{
    struct fixture *f = *state;
    memset(f->bytes, 'k', HUGE);
    f->record.key = f->bytes;
    f->record.key_size = DEAD_LETTER_KEY_MAX;
    json_t *json = letter_of(f);
    assert_truncated(json, false);
    assert_int_equal(f->output.key_size, DEAD_LETTER_KEY_MAX);
    json_decref(json);
    static const size_t sizes[] = {DEAD_LETTER_KEY_MAX + 1, HUGE};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        f->record.key_size = sizes[i];
        json = letter_of(f);
        assert_truncated(json, true);
        assert_int_equal(strlen(text(json, "key")), DEAD_LETTER_KEY_MAX);
        assert_null(f->output.key);
        assert_int_equal(f->output.key_size, 0);
        json_decref(json);
    }
}

static void cuts_spare_characters(void **state)
{
    struct fixture *f = *state;
    for (size_t i = 0; i < DEAD_LETTER_KEY_MAX; i++)
        memcpy(f->bytes + 3 * i, "\u2665", 3);
    f->record.key = f->bytes;
    f->record.key_size = 3 * DEAD_LETTER_KEY_MAX;
    json_t *json = letter_of(f);
    assert_int_equal(strlen(text(json, "key")), DEAD_LETTER_KEY_MAX / 3 * 3);
    assert_null(strstr(text(json, "key"), "\ufffd"));
    json_decref(json);
}

static void long_headers_are_cut(void **state)
{
    struct fixture *f = *state;
    memset(f->bytes, 'h', HUGE);
    f->headers[0] = (struct kafka_header){f->bytes, f->bytes, HUGE};
    f->record.header_count = 1;
    json_t *json = letter_of(f), *headers = json_object_get(json, "headers");
    assert_truncated(json, true);
    const char *name = json_object_iter_key(json_object_iter(headers));
    assert_int_equal(strlen(name), DEAD_LETTER_HEADER_NAME_MAX);
    assert_int_equal(strlen(text(headers, name)), DEAD_LETTER_HEADER_MAX);
    json_decref(json);
}

/* 32 headers of 16 KB would be 512 KB: they share 64 KB, and the first ones come first. */
static void headers_share_their_room(void **state)
{
    struct fixture *f = *state;
    char names[MANY][8];
    size_t kept = 0;
    memset(f->bytes, 'h', HUGE);
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "h%d", i);
        f->headers[i] = (struct kafka_header){names[i], f->bytes, DEAD_LETTER_HEADER_MAX};
    }
    f->record.header_count = MANY;
    json_t *json = letter_of(f), *headers = json_object_get(json, "headers"), *value;
    const char *name;
    json_object_foreach (headers, name, value)
        kept += strlen(name) + json_string_length(value);
    assert_truncated(json, true);
    assert_int_equal(kept, DEAD_LETTER_HEADERS_SIZE);
    assert_int_equal(strlen(text(headers, "h0")), DEAD_LETTER_HEADER_MAX);
    assert_null(json_object_get(headers, "h32"));
    json_decref(json);
}

static void too_many_headers(void **state)
{
    struct fixture *f = *state;
    char names[MANY][8];
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof(names[i]), "h%d", i);
        f->headers[i] = (struct kafka_header){names[i], "", 0};
    }
    f->record.header_count = DEAD_LETTER_HEADERS_MAX;
    json_t *json = letter_of(f);
    assert_truncated(json, false);
    json_decref(json);
    f->record.header_count = DEAD_LETTER_HEADERS_MAX + 1;
    json = letter_of(f);
    assert_truncated(json, true);
    assert_int_equal(json_object_size(json_object_get(json, "headers")), DEAD_LETTER_HEADERS_MAX);
    json_decref(json);
}

/* Every part as large as it gets, of each byte there is: as JSON "\u0001" is the longest. */
static void letters_fit_whatever_the_bytes(void **state)
{
    struct fixture *f = *state;
    for (int byte = 0; byte < 256; byte++) {
        memset(f->bytes, byte, HUGE);
        f->error_fill = (char)byte;
        f->record.key = f->record.value = f->bytes;
        f->record.key_size = f->record.value_size = HUGE;
        for (int i = 0; i < MANY; i++) /* names of different lengths are different names */
            f->headers[i] = (struct kafka_header){f->bytes + HUGE - i, f->bytes, HUGE};
        f->record.header_count = MANY;
        json_t *json = letter_of(f);
        assert_truncated(json, true);
        json_decref(json);
    }
}

static void names_that_are_not_text(void **state)
{
    struct fixture *f = *state;
    f->headers[0] = (struct kafka_header){"a\xff", "b\0", 2};
    f->record.header_count = 1;
    json_t *json = letter_of(f);
    assert_string_equal(text(json_object_get(json, "headers"), "a\ufffd"), "b\ufffd");
    json_decref(json);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(small_ones_are_whole),    TEST(bare_records),
        TEST(long_keys_are_cut),       TEST(cuts_spare_characters),
        TEST(long_headers_are_cut),    TEST(headers_share_their_room),
        TEST(too_many_headers),        TEST(letters_fit_whatever_the_bytes),
        TEST(names_that_are_not_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
