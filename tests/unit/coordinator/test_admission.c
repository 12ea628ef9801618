/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: order, rounds, bounds. The property test plays random days (jobs come, pictures end,
 * jobs are cancelled) against a naive count, and checks after each step what must hold always.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/memory.h"
#include "coordinator/admission.h"

static struct admission *bounded(int interactive, int bulk)
{
    return admission_new(
        &(struct admission_bounds){{interactive, bulk}, 1 << 30, 1 << 30, SIZE_MAX});
}

static void enter(struct admission *admission, struct ticket *ticket, const char *client, int n)
{
    admission_enter(admission, ticket, CLASS_BULK, client, n, 0);
}

static void end_one(struct admission *admission, struct ticket *ticket)
{
    admission_in_flight(admission, ticket, ticket->in_flight - 1);
}

static void test_in_order_and_bounded(void **state)
{
    struct admission *admission = bounded(1, 2);
    struct ticket first = {0}, second = {0};
    (void)state;
    assert_null(admission_next(admission, CLASS_BULK));
    enter(admission, &first, "me", 1);
    enter(admission, &second, "me", 2);
    assert_ptr_equal(admission_next(admission, CLASS_BULK), &first);
    assert_ptr_equal(admission_next(admission, CLASS_BULK), &second);
    assert_null(admission_next(admission, CLASS_BULK)); /* full, with a job half let in */
    assert_int_equal(second.waiting, 1);
    assert_int_equal(second.in_flight, 1);
    end_one(admission, &first);
    assert_ptr_equal(admission_next(admission, CLASS_BULK), &second);
    assert_int_equal(admission_state(admission, CLASS_BULK).in_flight, 2);
    assert_int_equal(admission_state(admission, CLASS_BULK).waiting_jobs, 0);
    assert_int_equal(admission_state(admission, CLASS_BULK).clients, 0);
    admission_leave(admission, &first);
    admission_leave(admission, &second);
    assert_int_equal(admission_state(admission, CLASS_BULK).in_flight, 0);
    admission_free(admission);
}

static void test_classes_are_apart(void **state)
{
    struct admission *admission = bounded(1, 1);
    struct ticket bulk = {0}, person = {0};
    (void)state;
    enter(admission, &bulk, "me", 2);
    assert_ptr_equal(admission_next(admission, CLASS_BULK), &bulk);
    admission_enter(admission, &person, CLASS_INTERACTIVE, "me", 1, 0);
    assert_null(admission_next(admission, CLASS_BULK));
    assert_ptr_equal(admission_next(admission, CLASS_INTERACTIVE), &person);
    admission_free(admission);
}

/* A thousand jobs of one client, then one job of another: it is let in within one round. */
static void test_nobody_starves(void **state)
{
    enum { MANY = 1000 };
    struct admission *admission = bounded(1, 1);
    struct ticket *many = xcalloc(MANY, sizeof *many), single = {0};
    (void)state;
    for (int i = 0; i < MANY; i++)
        enter(admission, &many[i], "busy", 4);
    struct ticket *running = admission_next(admission, CLASS_BULK);
    enter(admission, &single, "", 1);
    int served = 0;
    do {
        end_one(admission, running);
        running = admission_next(admission, CLASS_BULK);
        served++;
    } while (running != &single);
    assert_in_range(served, 1, 2);
    admission_free(admission);
    free(many);
}

/* A ticket's round tells when it is its turn. */
static void test_rounds(void **state)
{
    struct admission *admission = bounded(1, 1);
    struct ticket a[3] = {0}, b = {0};
    (void)state;
    for (int i = 0; i < 3; i++)
        enter(admission, &a[i], "a", 5);
    assert_int_equal(a[2].round - admission_state(admission, CLASS_BULK).round, 10);
    for (int i = 0; i < 7; i++)
        end_one(admission, admission_next(admission, CLASS_BULK));
    struct admission_state now = admission_state(admission, CLASS_BULK);
    assert_int_equal(a[2].round - now.round, 3);
    enter(admission, &b, "b", 1);
    assert_int_equal(b.round - now.round, 0);
    admission_leave(admission, &a[2]); /* the last: the next one takes its rounds */
    enter(admission, &a[2], "a", 1);
    assert_int_equal(a[2].round - now.round, 3);
    admission_free(admission);
}

/* Restored half let in: the rest goes on. */
static void test_half_admitted(void **state)
{
    struct admission *admission = bounded(1, 3);
    struct ticket half = {0}, whole = {0};
    (void)state;
    admission_enter(admission, &half, CLASS_BULK, "", 1, 2);
    admission_enter(admission, &whole, CLASS_BULK, "", 0, 1);
    assert_int_equal(admission_state(admission, CLASS_BULK).in_flight, 3);
    assert_null(admission_next(admission, CLASS_BULK));
    admission_leave(admission, &whole);
    assert_ptr_equal(admission_next(admission, CLASS_BULK), &half);
    assert_int_equal(half.in_flight, 3);
    admission_free(admission);
}

static void assert_quota(struct admission *admission, const char *client, bool exceeded)
{
    struct err err = {0};
    assert_int_equal(admission_check(admission, CLASS_BULK, client, &err),
                     exceeded ? -ERR_QUOTA_EXCEEDED : 0);
}

static void test_quotas(void **state)
{
    struct admission *admission = admission_new(&(struct admission_bounds){{1, 1}, 4, 2, SIZE_MAX});
    struct ticket tickets[6] = {0};
    (void)state;
    assert_quota(admission, "a", false);
    enter(admission, &tickets[0], "a", 1);
    admission_next(admission, CLASS_BULK);
    for (int i = 1; i <= 2; i++) {
        assert_quota(admission, "a", false);
        enter(admission, &tickets[i], "a", 9);
    }
    assert_quota(admission, "a", true);
    for (int i = 3; i <= 4; i++) {
        assert_quota(admission, i % 2 ? "b" : "", false);
        enter(admission, &tickets[i], i % 2 ? "b" : "", 1);
    }
    assert_quota(admission, "c", true); /* the partition is full, its client is not */
    struct err err = {0};
    assert_int_equal(admission_check(admission, CLASS_INTERACTIVE, "a", &err), 0);
    end_one(admission, &tickets[0]);
    assert_quota(admission, "a", false); /* it would not have to wait */
    assert_ptr_equal(admission_next(admission, CLASS_BULK), &tickets[1]);
    assert_quota(admission, "a", true); /* half admitted: it waits still */
    admission_leave(admission, &tickets[2]);
    admission_leave(admission, &tickets[4]);
    assert_null(admission_next(admission, CLASS_BULK));
    assert_quota(admission, "a", false);
    assert_quota(admission, "c", false);
    admission_free(admission);
}

/* By bytes: few jobs with much text are too many, too. */
static void test_bytes(void **state)
{
    struct admission *admission = admission_new(&(struct admission_bounds){{1, 1}, 99, 99, 1000});
    struct ticket tickets[5] = {{.bytes = 5000}, {.bytes = 500}, {.bytes = 1}, {.bytes = 600}};
    (void)state;
    enter(admission, &tickets[0], "a", 1);
    admission_next(admission, CLASS_BULK);
    assert_quota(admission, "a", false); /* what is let in does not count */
    enter(admission, &tickets[1], "a", 1);
    assert_quota(admission, "a", false);
    enter(admission, &tickets[2], "a", 1);
    assert_quota(admission, "a", true); /* more than half is its own */
    assert_quota(admission, "b", false);
    enter(admission, &tickets[3], "b", 1);
    assert_quota(admission, "c", true);
    assert_int_equal(admission_state(admission, CLASS_BULK).waiting_bytes, 1101);
    struct err err = {0};
    assert_int_equal(admission_check(admission, CLASS_INTERACTIVE, "a", &err), 0);
    admission_leave(admission, &tickets[3]); /* cancelled */
    assert_quota(admission, "c", false);
    end_one(admission, &tickets[0]);
    assert_ptr_equal(admission_next(admission, CLASS_BULK), &tickets[1]);
    assert_quota(admission, "a", false);
    assert_int_equal(admission_state(admission, CLASS_BULK).waiting_bytes, 1);
    admission_free(admission);
}

/* --- random days --- */

#define JOBS    400
#define CLIENTS 7
#define BOUND   5

struct play {
    struct ticket ticket;
    enum task_class task_class;
    int client, pictures, admitted, ended;
    bool left;
};

struct day {
    struct admission *admission;
    struct play plays[JOBS];
    int count;
    int since[CLASS_COUNT][CLIENTS]; /* pictures let in since the client's last */
    unsigned random;
};

static unsigned chance(struct day *day, unsigned bound)
{
    day->random = day->random * 1103515245u + 12345u;
    return (day->random >> 16) % bound;
}

static void day_check(const struct day *day)
{
    for (int c = 0; c < CLASS_COUNT; c++) {
        size_t flight = 0, waiting = 0, jobs = 0;
        for (int i = 0; i < day->count; i++) {
            const struct play *play = &day->plays[i];
            if (play->left || (int)play->task_class != c)
                continue;
            flight += (size_t)(play->admitted - play->ended);
            waiting += (size_t)(play->pictures - play->admitted);
            jobs += play->pictures > play->admitted;
        }
        struct admission_state state = admission_state(day->admission, (enum task_class)c);
        assert_int_equal(state.in_flight, flight);
        assert_int_equal(state.waiting_pictures, waiting);
        assert_int_equal(state.waiting_jobs, jobs);
        assert_true(flight <= BOUND);
        assert_true(waiting == 0 || flight == BOUND); /* nothing waits while there is room */
    }
}

static bool has_waiting(const struct day *day, int task_class, int client)
{
    for (int i = 0; i < day->count; i++)
        if (!day->plays[i].left && (int)day->plays[i].task_class == task_class &&
            day->plays[i].client == client && day->plays[i].admitted < day->plays[i].pictures)
            return true;
    return false;
}

/* An earlier job of the same client and class is let in whole before a later one begins. */
static void check_order(const struct day *day, const struct play *play)
{
    for (const struct play *other = day->plays; other < play; other++)
        if (!other->left && other->client == play->client && other->task_class == play->task_class)
            assert_int_equal(other->admitted, other->pictures);
}

static void admit(struct day *day)
{
    struct ticket *ticket;
    for (int c = 0; c < CLASS_COUNT; c++)
        while ((ticket = admission_next(day->admission, (enum task_class)c))) {
            struct play *play = (struct play *)((char *)ticket - offsetof(struct play, ticket));
            assert_false(play->left);
            assert_int_equal(play->task_class, c);
            check_order(day, play);
            assert_true(play->admitted++ < play->pictures);
            day->since[c][play->client] = 0;
            for (int i = 0; i < CLIENTS; i++)
                if (i != play->client && has_waiting(day, c, i))
                    assert_true(++day->since[c][i] < 2 * CLIENTS);
                else
                    day->since[c][i] = 0;
        }
}

static void come(struct day *day)
{
    char client[8];
    if (day->count == JOBS)
        return;
    struct play *play = &day->plays[day->count++];
    play->client = (int)chance(day, CLIENTS);
    play->pictures = 1 + (int)chance(day, 6);
    play->task_class = (enum task_class)chance(day, CLASS_COUNT);
    snprintf(client, sizeof client, "c%d", play->client);
    admission_enter(day->admission, &play->ticket, play->task_class, client, play->pictures, 0);
}

static void leave(struct day *day, struct play *play)
{
    admission_leave(day->admission, &play->ticket);
    assert_false(play->ticket.entered);
    play->left = true;
}

/* A picture ends, or sometimes a job is cancelled. */
static void go(struct day *day)
{
    struct play *play = day->count ? &day->plays[chance(day, (unsigned)day->count)] : NULL;
    if (!play || play->left)
        return;
    if (chance(day, 20) == 0)
        leave(day, play);
    else if (play->admitted > play->ended)
        admission_in_flight(day->admission, &play->ticket, play->admitted - ++play->ended);
    if (!play->left && play->ended == play->pictures)
        leave(day, play);
}

static void test_random_days(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        struct day *day = xcalloc(1, sizeof *day);
        day->random = seed;
        day->admission = bounded(BOUND, BOUND);
        for (int left = JOBS; left > 0;) {
            if (chance(day, 3) == 0)
                come(day);
            else
                go(day);
            admit(day);
            day_check(day);
            left = JOBS - day->count;
            for (int i = 0; i < day->count; i++)
                left += !day->plays[i].left;
        }
        for (int i = 0; i < JOBS; i++) /* each whole and once, or cancelled */
            assert_true(day->plays[i].left && day->plays[i].admitted <= day->plays[i].pictures);
        admission_free(day->admission);
        free(day);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_order_and_bounded),
        cmocka_unit_test(test_classes_are_apart),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_quotas),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_half_admitted),
        cmocka_unit_test(test_random_days),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
