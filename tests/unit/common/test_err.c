/* SPDX-License-Identifier: Apache-2.0 */
/* Errors: texts that are always printable UTF-8, names, and what is retriable. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "child.h"
#include "common/err.h"
#include "common/utf8.h"

static void set_fills_in(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(err_set(&err, ERR_IO, "cannot read '%s'", "a"), -ERR_IO);
    assert_int_equal(err.code, ERR_IO);
    assert_string_equal(err.text, "cannot read 'a'");
    assert_int_equal(strncmp(err.where, "test_err.c:", 11), 0);
    assert_int_equal(err_set(NULL, ERR_IO, "nobody asks"), -ERR_IO);
}

static void prefix_goes_before(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, ERR_TIMEOUT, "no answer");
    assert_int_equal(err_prefix(&err, "redis %d", 1), -ERR_TIMEOUT);
    assert_string_equal(err.text, "redis 1: no answer");
}

static void own_text_may_be_an_argument(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, ERR_IO, "inner");
    err_set(&err, ERR_KAFKA, "outer (%s)", err.text);
    assert_string_equal(err.text, "outer (inner)");
}

/* Every cut of a text of many-byte characters, with and without a prefix, stays UTF-8. */
static void long_texts_stay_utf8(void **state)
{
    (void)state;
    struct err err;
    char text[1024];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof text; i += 4)
            memcpy(text + i, "😀", 5);
        err_set(&err, ERR_IO, "%s", text);
        assert_int_equal(strlen(err.text), sizeof err.text - 1);
        assert_true(utf8_valid(err.text, strlen(err.text)));
        err_prefix(&err, "%s", "é");
        assert_true(utf8_valid(err.text, strlen(err.text)));
        err_prefix(&err, "%s", text);
        assert_true(utf8_valid(err.text, strlen(err.text)));
    }
}

static void texts_are_printable(void **state)
{
    (void)state;
    struct err err;
    err_set(&err, ERR_IO, "a\nb\x1b[31m\x7f \xff\xc3 é");
    assert_string_equal(err.text, "a b [31m  ?? é");
}

static void names_go_both_ways(void **state)
{
    (void)state;
    for (int code = 0; code < ERR_CODE_COUNT; code++)
        assert_int_equal(err_from_name(err_name((enum err_code)code)), code);
    assert_string_equal(err_name(ERR_OK), "ok");
    assert_int_equal(err_from_name("no such"), ERR_INTERNAL);
    assert_false(err_retriable(ERR_OK));
    assert_false(err_retriable(ERR_INVALID_JOB));
    assert_true(err_retriable(ERR_IO));
}

static void nothing(void)
{
}

static void bug_from_code(void)
{
    BUG_ON(1 + 1 == 2);
}

static void bug_unknown_code(void)
{
    err_name(ERR_CODE_COUNT);
}

static void bugs_abort_and_say_where(void **state)
{
    (void)state;
    char said[1000];
    assert_true(WIFEXITED(in_child(nothing, said, sizeof said)));
    assert_true(WIFSIGNALED(in_child(bug_from_code, said, sizeof said)));
    assert_non_null(strstr(said, "unclip: bug at test_err.c:"));
    assert_non_null(strstr(said, "1 + 1 == 2"));
    assert_true(WIFSIGNALED(in_child(bug_unknown_code, said, sizeof said)));
    assert_non_null(strstr(said, "err.c:"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(set_fills_in),
        cmocka_unit_test(prefix_goes_before),
        cmocka_unit_test(own_text_may_be_an_argument),
        cmocka_unit_test(long_texts_stay_utf8),
        cmocka_unit_test(texts_are_printable),
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(bugs_abort_and_say_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
