/* SPDX-License-Identifier: Apache-2.0 */
/* Clocks and ISO 8601. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include "common/clock.h"

static void system_clock_runs(void **state)
{
    (void)state;
    struct clock *clock = clock_system();
    int64_t wall = clock_wall_ms(clock), seconds = (int64_t)time(NULL);
    assert_true(llabs(wall / 1000 - seconds) <= 2);
    int64_t first = clock_monotonic_ms(clock);
    assert_true(clock_monotonic_ms(clock) >= first);
}

static void fake_clock_stands(void **state)
{
    (void)state;
    struct clock clock;
    clock_fake_init(&clock, 1000);
    assert_int_equal(clock_wall_ms(&clock), 1000);
    clock.now_ms += 500;
    assert_int_equal(clock_wall_ms(&clock), 1500);
    assert_int_equal(clock_monotonic_ms(&clock), 1500);
}

static void iso8601(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {1769862896789, "2026-01-31T12:34:56.789Z"},
        {951782400007, "2000-02-29T00:00:00.007Z"},
        {4102444799999, "2099-12-31T23:59:59.999Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
    };
    setenv("TZ", "Asia/Tokyo", 1);
    tzset();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[CLOCK_ISO_SIZE];
        clock_iso8601(cases[i].ms, text);
        assert_string_equal(text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(system_clock_runs),
        cmocka_unit_test(fake_clock_stands),
        cmocka_unit_test(iso8601),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
