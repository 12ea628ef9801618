/* SPDX-License-Identifier: Apache-2.0 */
/* The heap gives timers in the order in which they are due, whatever happens to them before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "coordinator/timers.h"

#define COUNT 500

static void test_order(void **state)
{
    struct timers timers = {0};
    struct timer all[COUNT] = {{0}};
    int64_t last = 0;
    size_t left = 0;

    (void)state;
    srand(7);
    assert_null(timers_first(&timers));
    for (int round = 0; round < 5 * COUNT; round++)
        timers_set(&timers, &all[rand() % COUNT], rand() % 1000);
    for (size_t i = 0; i < COUNT; i++)
        left += all[i].due_ms > 0;
    assert_true(left > COUNT / 2);
    assert_int_equal(timers.count, left);
    for (struct timer *first; (first = timers_first(&timers)); left--) {
        assert_true(first->due_ms >= last);
        last = first->due_ms;
        timers_set(&timers, first, 0);
        assert_int_equal(first->due_ms, 0);
    }
    assert_int_equal(left, 0);
    timers_release(&timers);
}

static void test_moved(void **state)
{
    struct timers timers = {0};
    struct timer a = {0}, b = {0};

    (void)state;
    timers_set(&timers, &a, 10);
    timers_set(&timers, &b, 20);
    assert_ptr_equal(timers_first(&timers), &a);
    timers_set(&timers, &a, 30);
    assert_ptr_equal(timers_first(&timers), &b);
    timers_set(&timers, &b, 0);
    assert_ptr_equal(timers_first(&timers), &a);
    timers_set(&timers, &b, 0);
    timers_set(&timers, &a, 0);
    assert_null(timers_first(&timers));
    timers_release(&timers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order), cmocka_unit_test(test_moved)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
