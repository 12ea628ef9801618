/* SPDX-License-Identifier: Apache-2.0 */
/* A worker's sign of life on a real Redis; time is moved by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "redis_fixture.h"
#include "workers/presence.h"

#define NOW 1769862896789LL /* 2026-01-31T12:34:56.789Z */

static struct redis_fixture fixture;

static int setup(void **state)
{
    (void)state;
    redis_start(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    redis_stop(&fixture);
    return 0;
}

static const char *of(const char *field)
{
    return redis_ask(&fixture, "HGET", "unclip:worker:prior-3", field);
}

static void test_life(void **state)
{
    struct clock clock;
    struct err err = {0};
    struct presence presence = {.redis = fixture.redis,
                                .clock = &clock,
                                .stage = STAGE_PRIOR,
                                .slot = "prior-3",
                                .model = "emoji",
                                .dtype = "bf16"};
    (void)state;
    clock_fake_init(&clock, NOW);
    presence_end(&presence); /* it never came */
    assert_int_equal(presence_keep(&presence, 4, &err), 0);
    assert_string_equal(of("stage"), "prior");
    assert_string_equal(of("model"), "emoji");
    assert_string_equal(of("dtype"), "bf16");
    assert_string_equal(of("since"), "2026-01-31T12:34:56.789Z");
    assert_string_equal(of("partitions"), "4");
    assert_string_equal(of("tasks_per_s"), "0.000");
    assert_string_equal(redis_ask(&fixture, "SISMEMBER", "unclip:workers", "prior-3"), "1");
    assert_in_range(atoi(redis_ask(&fixture, "PTTL", "unclip:worker:prior-3", NULL)), 1,
                    PRESENCE_TTL_MS);
    presence_count(&presence, 60);
    clock.now_ms += PRESENCE_EVERY_MS - 1;
    assert_int_equal(presence_keep(&presence, 8, &err), 0);
    assert_string_equal(of("partitions"), "4"); /* not due */
    clock.now_ms += 1;
    assert_int_equal(presence_keep(&presence, 8, &err), 0);
    assert_string_equal(of("partitions"), "8");
    assert_string_equal(of("tasks_per_s"), "2.000"); /* 12 a second, for a sixth of the time */
    redis_empty(&fixture);
    clock.now_ms += 60000; /* a long commit */
    assert_int_equal(presence_keep(&presence, 8, &err), 0);
    assert_string_equal(of("tasks_per_s"), "0.000");
    presence_end(&presence);
    assert_string_equal(of("stage"), "");
    assert_string_equal(redis_ask(&fixture, "SISMEMBER", "unclip:workers", "prior-3"), "0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_life)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
