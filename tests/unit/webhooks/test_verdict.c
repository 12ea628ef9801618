/* SPDX-License-Identifier: Apache-2.0 */
/* Which answers end a delivery, and how long the next try waits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "webhooks/verdict.h"

static void assert_status(long status, enum verdict expected)
{
    struct err err = {0};
    if (verdict_of(0, status, &err) != expected)
        fail_msg("HTTP %ld is judged otherwise", status);
    assert_int_equal(err.code, expected == VERDICT_DELIVERED ? ERR_OK
                               : expected == VERDICT_AGAIN   ? ERR_FETCH
                                                             : ERR_REFUSED);
}

static void test_statuses(void **state)
{
    static const long delivered[] = {200, 201, 202, 204, 299};
    static const long again[] = {300, 301, 302, 307, 408, 425, 429, 500, 502, 503, 504, 599};
    static const long never[] = {400, 401, 403, 404, 405, 410, 413, 422, 499};
    (void)state;
    for (size_t i = 0; i < sizeof delivered / sizeof *delivered; i++)
        assert_status(delivered[i], VERDICT_DELIVERED);
    for (size_t i = 0; i < sizeof again / sizeof *again; i++)
        assert_status(again[i], VERDICT_AGAIN);
    for (size_t i = 0; i < sizeof never / sizeof *never; i++)
        assert_status(never[i], VERDICT_NEVER);
}

static enum verdict without_answer(enum err_code code, long status)
{
    struct err err = {0};
    int rc = err_set(&err, code, "a reason");
    return verdict_of(rc, status, &err);
}

static void test_no_answer(void **state)
{
    (void)state;
    assert_int_equal(without_answer(ERR_FETCH, 0), VERDICT_AGAIN);
    assert_int_equal(without_answer(ERR_TIMEOUT, 0), VERDICT_AGAIN);
    assert_int_equal(without_answer(ERR_TIMEOUT, 200), VERDICT_AGAIN);
    assert_int_equal(without_answer(ERR_REFUSED, 0), VERDICT_NEVER);
    assert_int_equal(without_answer(ERR_TOO_LARGE, 0), VERDICT_NEVER); /* the URL is */
    assert_int_equal(without_answer(ERR_TOO_LARGE, 200), VERDICT_DELIVERED);
    assert_int_equal(without_answer(ERR_TOO_LARGE, 503), VERDICT_AGAIN);
    assert_int_equal(without_answer(ERR_TOO_LARGE, 410), VERDICT_NEVER);
}

static void test_backoff(void **state)
{
    struct backoff backoff = {.base_ms = 1000, .max_ms = 60000, .state = 7};
    static const int64_t most[] = {1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000};
    int64_t lowest = 60000, highest = 0;
    (void)state;
    for (int round = 0; round < 1000; round++)
        for (int tries = 1; tries <= 8; tries++) {
            int64_t wait = backoff_wait(&backoff, tries, 0);
            assert_in_range(wait, most[tries - 1] / 2, most[tries - 1]);
            if (tries == 8 && wait < lowest)
                lowest = wait;
            if (tries == 8 && wait > highest)
                highest = wait;
        }
    assert_true(lowest < 31000 && highest > 59000); /* spread over all of it */
    assert_in_range(backoff_wait(&backoff, 100, 0), 30000, 60000);
}

static void test_retry_after(void **state)
{
    struct backoff backoff = {.base_ms = 1000, .max_ms = 60000, .state = 7};
    (void)state;
    assert_int_equal(backoff_wait(&backoff, 1, 20), 20000);
    assert_int_equal(backoff_wait(&backoff, 1, 60), 60000);
    assert_int_equal(backoff_wait(&backoff, 1, 999999999), 60000);
    assert_in_range(backoff_wait(&backoff, 7, 1), 30000, 60000); /* ours is longer */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),
        cmocka_unit_test(test_no_answer),
        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_retry_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
