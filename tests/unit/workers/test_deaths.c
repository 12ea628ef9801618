/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of started tasks in a real Redis: who is a suspect, who is not computed any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "redis_fixture.h"
#include "worker_fixture.h"
#include "workers/deaths.h"

#define KEY "unclip:started:my-heart/1.prior"

static struct redis_fixture server;
static struct deaths deaths = {.limit = 3};

static int start(void **state)
{
    (void)state;
    redis_start(&server);
    deaths.redis = server.redis;
    return 0;
}

static int stop(void **state)
{
    (void)state;
    redis_stop(&server);
    return 0;
}

static int clean(void **state)
{
    (void)state;
    redis_empty(&server);
    return 0;
}

/* parcel_free() would release an item that was never made. */
static void done(struct parcel *parcel)
{
    task_release(&parcel->task);
    free(parcel);
}

static struct parcel *make(int image)
{
    struct parcel *parcel = xcalloc(1, sizeof(*parcel));
    parcel->has_task = true;
    parcel->task = fixture_task(STAGE_PRIOR);
    parcel->task.image = image;
    return parcel;
}

static void test_counted_and_cleared(void **state)
{
    (void)state;
    struct parcel *both[] = {make(0), make(1)};
    deaths_look(&deaths, both, 2);
    assert_int_equal(both[1]->deaths, 0);
    deaths_count(&deaths, both, 2);
    assert_string_equal(redis_ask(&server, "GET", KEY, NULL), "1");
    int ttl = atoi(redis_ask(&server, "TTL", KEY, NULL));
    assert_in_range(ttl, DEATHS_TTL_S - 10, DEATHS_TTL_S);
    deaths_clear(&deaths, both, 2);
    assert_string_equal(redis_ask(&server, "GET", KEY, NULL), "");
    deaths_clear(&deaths, both, 2);
    for (int i = 0; i < 2; i++)
        done(both[i]);
}

/* Each worker dies with it; the fourth does not try. */
static void test_deaths(void **state)
{
    (void)state;
    for (int died = 0; died < 3; died++) {
        struct parcel *parcel = make(1);
        deaths_look(&deaths, &parcel, 1);
        assert_int_equal(parcel->deaths, died);
        assert_int_equal(parcel->outcome, OUTCOME_OPEN);
        deaths_count(&deaths, &parcel, 1);
        done(parcel);
    }
    struct parcel *both[] = {make(0), make(1)};
    deaths_look(&deaths, both, 2);
    assert_int_equal(both[0]->outcome, OUTCOME_OPEN);
    assert_int_equal(both[1]->outcome, OUTCOME_FAILED);
    assert_int_equal(both[1]->err.code, ERR_WORKER_DIED);
    assert_string_equal(both[1]->err.text, "worker died 3 times");
    deaths_count(&deaths, both, 2);
    assert_false(both[1]->counted);
    assert_string_equal(redis_ask(&server, "GET", KEY, NULL), "3");
    deaths_clear(&deaths, both, 2);
    assert_string_equal(redis_ask(&server, "GET", KEY, NULL), "");
    for (int i = 0; i < 2; i++)
        done(both[i]);
}

static void test_taken_back_once(void **state)
{
    (void)state;
    struct parcel *ours = make(1), *theirs = make(1);
    deaths_count(&deaths, &ours, 1);
    deaths_count(&deaths, &theirs, 1);
    deaths_take_back(&deaths, &ours, 1);
    deaths_take_back(&deaths, &ours, 1);
    assert_string_equal(redis_ask(&server, "GET", KEY, NULL), "1");
    deaths_clear(&deaths, &ours, 1); /* was ours, but not any more */
    assert_string_equal(redis_ask(&server, "GET", KEY, NULL), "1");
    deaths_take_back(&deaths, &theirs, 1);
    assert_string_equal(redis_ask(&server, "GET", KEY, NULL), "");
    done(ours);
    done(theirs);
}

/* Given up, but lost before the commit: its next worker is to find the count. */
static void test_given_up_and_lost(void **state)
{
    (void)state;
    struct parcel *parcel = make(1);
    redis_ask(&server, "SET", KEY, "3");
    deaths_look(&deaths, &parcel, 1);
    assert_int_equal(parcel->err.code, ERR_WORKER_DIED);
    deaths_take_back(&deaths, &parcel, 1);
    deaths_clear(&deaths, &parcel, 1);
    assert_string_equal(redis_ask(&server, "GET", KEY, NULL), "3");
    done(parcel);
}

/* A route may have a stage twice: each has its own count. */
static void test_a_stage_that_stands_twice(void **state)
{
    (void)state;
    struct parcel *parcels[2];
    for (int i = 0; i < 2; i++) {
        parcels[i] = xcalloc(1, sizeof(*parcels[i]));
        parcels[i]->has_task = true;
        parcels[i]->task = fixture_scored_task(2 * i);
    }
    deaths_count(&deaths, parcels, 1);
    deaths_look(&deaths, parcels + 1, 1);
    assert_int_equal(parcels[1]->deaths, 0);
    deaths_count(&deaths, parcels + 1, 1);
    deaths_clear(&deaths, parcels, 1);
    assert_string_equal(redis_ask(&server, "GET", "unclip:started:my-heart/1.image-encode", NULL),
                        "");
    assert_string_equal(redis_ask(&server, "GET", "unclip:started:my-heart/1.image-encode.2", NULL),
                        "1");
    for (int i = 0; i < 2; i++)
        done(parcels[i]);
}

static void test_unreadable_records_are_left_out(void **state)
{
    (void)state;
    struct parcel *parcel = xcalloc(1, sizeof(*parcel));
    deaths_look(&deaths, &parcel, 1);
    deaths_count(&deaths, &parcel, 1);
    assert_false(parcel->counted);
    done(parcel);
}

static void test_redis_away(void **state)
{
    (void)state;
    struct deaths alone = deaths;
    struct err err = {0};
    struct parcel *parcel = make(1);
    assert_int_equal(redis_open(&alone.redis, "127.0.0.1:1", clock_system(), &err), 0);
    deaths_look(&alone, &parcel, 1);
    assert_true(alone.away);
    deaths_count(&alone, &parcel, 1);
    deaths_clear(&alone, &parcel, 1);
    assert_int_equal(parcel->outcome, OUTCOME_OPEN);
    redis_close(alone.redis);
    done(parcel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_counted_and_cleared, clean),
        cmocka_unit_test_setup(test_deaths, clean),
        cmocka_unit_test_setup(test_taken_back_once, clean),
        cmocka_unit_test_setup(test_given_up_and_lost, clean),
        cmocka_unit_test_setup(test_a_stage_that_stands_twice, clean),
        cmocka_unit_test(test_unreadable_records_are_left_out),
        cmocka_unit_test(test_redis_away),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
