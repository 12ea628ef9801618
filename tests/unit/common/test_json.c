/* SPDX-License-Identifier: Apache-2.0 */
/* JSON from outside: limits, messages, and members by type. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"

static char folder[] = "/tmp/unclip-json-XXXXXX";
static char file[64];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(file, sizeof file, "%s/config.json", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(folder);
}

static void write_file(const char *text)
{
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void files_are_read(void **state)
{
    (void)state;
    struct err err;
    json_t *value;
    write_file("{\"a\": 1}");
    assert_int_equal(jsonx_read_file(&value, file, 8, &err), 0);
    assert_int_equal(json_integer_value(json_object_get(value, "a")), 1);
    json_decref(value);
    assert_int_equal(jsonx_read_file(&value, file, 7, &err), -ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, "has 8 bytes, at most 7 are allowed"));
    write_file("{\"a\": 1");
    assert_int_equal(jsonx_read_file(&value, file, 100, &err), -ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, "config.json' is not valid JSON: line 1, column 7"));
    write_file("");
    assert_int_equal(jsonx_read_file(&value, file, 100, &err), -ERR_INVALID_MODEL);
}

static void missing_files_and_folders(void **state)
{
    (void)state;
    struct err err;
    json_t *value;
    assert_int_equal(jsonx_read_file(&value, "/no/such", 100, &err), -ERR_IO);
    assert_string_equal(err.text, "cannot open '/no/such': No such file or directory");
    assert_int_equal(jsonx_read_file(&value, folder, 100, &err), -ERR_IO);
    assert_non_null(strstr(err.text, "is not a regular file"));
    assert_int_equal(jsonx_read_file(&value, "/dev/zero", 100, &err), -ERR_IO);
}

static void bytes_need_no_nul(void **state)
{
    (void)state;
    struct err err;
    json_t *value;
    assert_int_equal(jsonx_parse(&value, "[1,2]xxx", 5, &err), 0);
    assert_int_equal(json_array_size(value), 2);
    json_decref(value);
    assert_int_equal(jsonx_parse(&value, "{\"a\":1,\n\"a\":2}", 14, &err), -ERR_INVALID_JSON);
    assert_int_equal(strncmp(err.text, "line 2, column 3: duplicate", 27), 0);
    assert_int_equal(jsonx_parse(&value, "[\"\\u0000\"]", 10, &err), -ERR_INVALID_JSON);
    assert_int_equal(jsonx_parse(&value, "[\"a\0b\"]", 7, &err), -ERR_INVALID_JSON);
    assert_int_equal(jsonx_parse(&value, "[1]\0", 4, &err), -ERR_INVALID_JSON);
}

static json_t *parse(const char *text)
{
    struct err err;
    json_t *value;
    assert_int_equal(jsonx_parse(&value, text, strlen(text), &err), 0);
    return value;
}

static void members_by_type(void **state)
{
    (void)state;
    struct err err;
    json_t *object = parse("{\"i\":7,\"d\":1.5,\"b\":true,\"s\":\"x\",\"z\":null}");
    int64_t i = 1;
    double d = 2;
    bool b = false;
    const char *s = "default";
    assert_int_equal(jsonx_int(object, "i", 0, 7, &i, "f", &err), 0);
    assert_int_equal(i, 7);
    assert_int_equal(jsonx_double(object, "d", &d, "f", &err), 0);
    assert_true(d == 1.5);
    assert_int_equal(jsonx_double(object, "i", &d, "f", &err), 0);
    assert_true(d == 7);
    assert_int_equal(jsonx_bool(object, "b", &b, "f", &err), 0);
    assert_true(b);
    assert_int_equal(jsonx_string(object, "s", &s, "f", &err), 0);
    assert_string_equal(s, "x");
    json_decref(object);
}

static void absent_members_keep_the_default(void **state)
{
    (void)state;
    struct err err;
    json_t *object = parse("{\"z\":null}");
    int64_t i = 1;
    double d = 2;
    bool b = true;
    const char *s = "default";
    static const char *const keys[] = {"z", "none"};
    for (int k = 0; k < 2; k++) {
        assert_int_equal(jsonx_int(object, keys[k], 5, 6, &i, "f", &err), 0);
        assert_int_equal(jsonx_double(object, keys[k], &d, "f", &err), 0);
        assert_int_equal(jsonx_bool(object, keys[k], &b, "f", &err), 0);
        assert_int_equal(jsonx_string(object, keys[k], &s, "f", &err), 0);
    }
    assert_true(i == 1 && d == 2 && b);
    assert_string_equal(s, "default");
    json_decref(object);
}

static void wrong_members_are_named(void **state)
{
    (void)state;
    struct err err;
    json_t *object = parse("{\"i\":7,\"r\":7.0,\"s\":\"x\"}");
    int64_t i;
    double d;
    bool b;
    const char *s;
    assert_int_equal(jsonx_int(object, "i", 8, 9, &i, "f.json", &err), -ERR_INVALID_MODEL);
    assert_string_equal(err.text, "f.json: 'i' is 7, it must be from 8 to 9");
    assert_int_equal(jsonx_int(object, "r", 0, 9, &i, "f.json", &err), -ERR_INVALID_MODEL);
    assert_string_equal(err.text, "f.json: 'r' must be an integer");
    assert_int_equal(jsonx_double(object, "s", &d, "f.json", &err), -ERR_INVALID_MODEL);
    assert_int_equal(jsonx_bool(object, "i", &b, "f.json", &err), -ERR_INVALID_MODEL);
    assert_int_equal(jsonx_string(object, "i", &s, "f.json", &err), -ERR_INVALID_MODEL);
    assert_string_equal(err.text, "f.json: 'i' must be a string");
    json_decref(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(missing_files_and_folders),
        cmocka_unit_test(bytes_need_no_nul),
        cmocka_unit_test(members_by_type),
        cmocka_unit_test(absent_members_keep_the_default),
        cmocka_unit_test(wrong_members_are_named),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
