/* SPDX-License-Identifier: Apache-2.0 */
/* Allocations that die loudly, and never give NULL. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "child.h"
#include "common/memory.h"

static void texts(void **state)
{
    (void)state;
    char *text = xasprintf("%d-%s", 7, "x"), *copy = xstrdup(text);
    assert_string_equal(copy, "7-x");
    copy = xrealloc(copy, 100);
    assert_string_equal(copy, "7-x");
    free(text);
    free(copy);
}

static void nothing_is_something(void **state)
{
    (void)state;
    void *memory[] = {xcalloc(0, 8), xcalloc(8, 0), xmalloc(0), xrealloc(NULL, 0)};
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        assert_non_null(memory[i]);
        free(memory[i]);
    }
}

static void zeros(void **state)
{
    (void)state;
    unsigned char *memory = xcalloc(3, 5);
    for (int i = 0; i < 15; i++)
        assert_int_equal(memory[i], 0);
    free(memory);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* which say it their way */
static void ask_for_too_much(void)
{
    volatile size_t size = LONG_MAX;
    free(xmalloc(size));
}

static void count_too_much(void)
{
    volatile size_t size = LONG_MAX;
    free(xcalloc(size, size));
}

static void shortage(void **state)
{
    (void)state;
    char said[1000];
    assert_true(WIFSIGNALED(in_child(ask_for_too_much, said, sizeof said)));
    assert_non_null(strstr(said, "out of memory asking for 9223372036854775807 bytes"));
    assert_true(WIFSIGNALED(in_child(count_too_much, said, sizeof said)));
    assert_non_null(strstr(said, "out of memory"));
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts),
        cmocka_unit_test(nothing_is_something),
        cmocka_unit_test(zeros),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        cmocka_unit_test(shortage),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
