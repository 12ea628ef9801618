/* SPDX-License-Identifier: Apache-2.0 */
/* Rates: means that follow, and pauses that do not count. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/rates.h"

static struct rates rates; /* large: one for each partition that can be */

static int reset(void **state)
{
    (void)state;
    rates = (struct rates){0};
    return 0;
}

static void test_work_ahead(void **state)
{
    const struct job job = {
        .hops = 3,
        .route = {{STAGE_TEXT_ENCODE, 0, 0}, {STAGE_PRIOR, 10, 0}, {STAGE_DECODER, 20, 0}}};
    const struct hop prior = {STAGE_PRIOR, 5, 0};
    (void)state;
    assert_true(rates_work(&rates, &job, 0) == -1);
    rates_computed(&rates, &job.route[0], 7);
    rates_computed(&rates, &prior, 50); /* fewer steps: ten milliseconds each */
    assert_true(rates_work(&rates, &job, 0) == -1);
    assert_true(rates_work(&rates, &job, 3) == 0);
    rates_computed(&rates, &job.route[2], 400);
    assert_true(rates_work(&rates, &job, 0) == 507);
    assert_true(rates_work(&rates, &job, 2) == 400);
}

static void test_between_ends(void **state)
{
    (void)state;
    assert_true(rates_between_ends(&rates, 3, CLASS_BULK) == -1);
    rates_began(&rates, 3, CLASS_BULK, 1000);
    rates_ended(&rates, 3, CLASS_BULK, 1100);
    rates_ended(&rates, 3, CLASS_BULK, 1100); /* a batch of two */
    assert_true(rates_between_ends(&rates, 3, CLASS_BULK) == 50);
    rates_began(&rates, 3, CLASS_BULK, 900000); /* after a night */
    rates_ended(&rates, 3, CLASS_BULK, 900050);
    assert_true(rates_between_ends(&rates, 3, CLASS_BULK) == 50);
    rates_ended(&rates, 3, CLASS_BULK, 800000); /* the clock was set back */
    assert_true(rates_between_ends(&rates, 3, CLASS_BULK) == 37.5);
    assert_true(rates_between_ends(&rates, 3, CLASS_INTERACTIVE) == -1);
    assert_true(rates_between_ends(&rates, 4, CLASS_BULK) == -1);
    for (int i = 0; i < 400; i++)
        rates_ended(&rates, 3, CLASS_BULK, 800000 + 200 * (i + 1));
    assert_in_range((int)rates_between_ends(&rates, 3, CLASS_BULK), 199, 201);
}

/* Its end is seen here though its beginning was not: a takeover. */
static void test_an_end_without_a_beginning(void **state)
{
    (void)state;
    rates_ended(&rates, 0, CLASS_BULK, 5000);
    assert_true(rates_between_ends(&rates, 0, CLASS_BULK) == -1);
    rates_ended(&rates, 0, CLASS_BULK, 5300);
    assert_true(rates_between_ends(&rates, 0, CLASS_BULK) == 300);
}

static void test_a_partition_that_went(void **state)
{
    (void)state;
    rates_began(&rates, 3, CLASS_BULK, 1000);
    rates_ended(&rates, 3, CLASS_BULK, 1100);
    rates_ended(&rates, 4, CLASS_BULK, 1100);
    rates_ended(&rates, 4, CLASS_BULK, 1200);
    rates_forget(&rates, 3);
    assert_true(rates_between_ends(&rates, 3, CLASS_BULK) == -1);
    assert_true(rates_between_ends(&rates, 4, CLASS_BULK) == 100);
    rates_ended(&rates, 3, CLASS_BULK, 900000); /* its beginning was not seen here */
    assert_true(rates_between_ends(&rates, 3, CLASS_BULK) == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_work_ahead, reset),
        cmocka_unit_test_setup(test_between_ends, reset),
        cmocka_unit_test_setup(test_an_end_without_a_beginning, reset),
        cmocka_unit_test_setup(test_a_partition_that_went, reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
