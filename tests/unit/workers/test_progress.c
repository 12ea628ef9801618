/* SPDX-License-Identifier: Apache-2.0 */
/* Progress and counters on a real Redis: monotonic, rarely, and never where there is no such job.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "redis_fixture.h"
#include "worker_fixture.h"
#include "workers/counters.h"
#include "workers/progress.h"

#define KEY "unclip:job:my-heart"

static struct redis_fixture server;
static struct clock fake;

static int start(void **state)
{
    (void)state;
    redis_start(&server);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    redis_stop(&server);
    return 0;
}

/* A running job of two pictures. */
static int job(void **state)
{
    (void)state;
    redis_empty(&server);
    clock_fake_init(&fake, 1000000);
    redis_put(&server, KEY, "state", "running");
    redis_put(&server, KEY, "images_total", "2");
    redis_put(&server, KEY, "progress", "0");
    return 0;
}

static const char *get(const char *field)
{
    return redis_ask(&server, "HGET", KEY, field);
}

static double number(const char *field)
{
    return atof(get(field));
}

/* One batch with picture `image`, at `step` of 25. */
static bool report(enum stage stage, int image, int step)
{
    struct task task = fixture_task(stage);
    const struct task *tasks[] = {&task};
    struct progress progress;
    struct err err = {0};
    task.image = image;
    progress_init(&progress, server.redis, &fake, tasks, 1);
    int rc = progress_step(&progress, step, 25, &err);
    if (rc)
        fail_msg("%s", err.text);
    bool stopped = progress_stopped(&progress, 0);
    progress_release(&progress);
    task_release(&task);
    return stopped;
}

static void place_is_the_last_pictures(void **state)
{
    (void)state;
    report(STAGE_DECODER, 0, 10);
    double first = number("progress:0");
    assert_true(first > 0 && first < 1);
    assert_true(number("progress") > first / 2 - 0.001 && number("progress") < first / 2 + 0.001);
    assert_string_equal(get("stage"), ""); /* picture 1 has not begun */
    report(STAGE_PRIOR, 1, 5);
    assert_string_equal(get("stage"), "prior");
    assert_string_equal(get("step"), "5");
    assert_string_equal(get("steps"), "25");
    report(STAGE_DECODER, 0, 11);
    assert_string_equal(get("stage"), "prior");
    report(STAGE_DECODER, 1, 3);
    assert_string_equal(get("stage"), "decoder");
    assert_string_equal(get("step"), "3");
    assert_string_equal(get("updated_at"), "1970-01-01T00:16:40.000Z");
}

static void progress_never_falls(void **state)
{
    (void)state;
    report(STAGE_DECODER, 0, 10);
    report(STAGE_DECODER, 1, 10);
    double before = number("progress");
    report(STAGE_DECODER, 0, 2); /* computed once more after a crash */
    report(STAGE_PRIOR, 1, 2);
    assert_true(number("progress") == before);
    assert_string_equal(get("stage"), "decoder");
    assert_string_equal(get("step"), "10");
    report(STAGE_DECODER, 0, 20);
    assert_true(number("progress") > before);
}

static void unknown_jobs_stay_unknown(void **state)
{
    (void)state;
    redis_empty(&server);
    assert_false(report(STAGE_DECODER, 0, 10));
    assert_string_equal(redis_ask(&server, "EXISTS", KEY, NULL), "0");
}

static void finished_jobs_are_not_touched(void **state)
{
    (void)state;
    static const struct {
        const char *state;
        bool stops;
    } ends[] = {{"succeeded", false}, {"failed", false}, {"cancelled", true}, {"expired", true}};
    for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++) {
        redis_put(&server, KEY, "state", ends[i].state);
        assert_true(report(STAGE_DECODER, 0, 10) == ends[i].stops);
        assert_string_equal(get("progress"), "0");
        assert_string_equal(get("stage"), "");
        assert_string_equal(get("updated_at"), "");
    }
}

static void hostile_hashes_are_survived(void **state)
{
    (void)state;
    redis_put(&server, KEY, "images_total", "100000000");
    assert_false(report(STAGE_DECODER, 0, 10));
    redis_put(&server, KEY, "images_total", "many");
    assert_false(report(STAGE_DECODER, 0, 10));
    redis_put(&server, KEY, "images_total", "nan");
    assert_false(report(STAGE_DECODER, 0, 10));
    redis_put(&server, KEY, "images_total", "1"); /* the task's picture 1 is not in it */
    assert_false(report(STAGE_DECODER, 1, 10));
    redis_put(&server, KEY, "progress", "nonsense");
    redis_put(&server, KEY, "progress:0", "nonsense");
    report(STAGE_DECODER, 0, 10);
    assert_true(number("progress") > 0);
}

/* Two pictures of one job and one of another: two writes a time, at most ten a second. */
static void writes_are_few(void **state)
{
    (void)state;
    struct task a = fixture_task(STAGE_DECODER), b = a, c = a;
    const struct task *tasks[] = {&a, &b, &c};
    struct progress progress;
    struct err err = {0};
    a.image = 0, b.image = 1;
    strcpy(c.job, "other");
    progress_init(&progress, server.redis, &fake, tasks, 3);
    assert_int_equal(progress.job_count, 2);
    assert_int_equal(progress_step(&progress, 1, 25, &err), 0);
    assert_string_equal(get("step"), "1");
    assert_true(number("progress:1") > 0);
    fake.now_ms += PROGRESS_INTERVAL_MS - 1;
    assert_int_equal(progress_step(&progress, 2, 25, &err), 0);
    assert_string_equal(get("step"), "1");
    fake.now_ms += 1;
    assert_int_equal(progress_step(&progress, 3, 25, &err), 0);
    assert_string_equal(get("step"), "3");
    assert_int_equal(progress_step(&progress, 25, 25, &err), 0); /* the last one always */
    assert_string_equal(get("step"), "25");
    progress_release(&progress);
    task_release(&a);
}

static void cancelling_is_heard(void **state)
{
    (void)state;
    assert_false(report(STAGE_DECODER, 0, 1));
    redis_put(&server, KEY, "state", "cancelled");
    assert_true(report(STAGE_DECODER, 0, 2));
}

/* A batch of three jobs at step 1 of 25; the last one, this file's own, is cancelled. Whether each
 * stopped is noted. */
static int report_three(bool stopped[3], struct err *err)
{
    struct task tasks[3];
    const struct task *pointers[3];
    struct progress progress;
    for (int i = 0; i < 3; i++) {
        tasks[i] = fixture_task(STAGE_DECODER);
        tasks[i].image = 0;
        pointers[i] = &tasks[i];
    }
    strcpy(tasks[0].job, "first");
    strcpy(tasks[1].job, "second");
    redis_put(&server, "unclip:job:second", "state", "running");
    redis_put(&server, "unclip:job:second", "images_total", "1");
    redis_put(&server, KEY, "state", "cancelled");
    progress_init(&progress, server.redis, &fake, pointers, 3);
    int rc = progress_step(&progress, 1, 25, err);
    for (size_t i = 0; i < 3; i++)
        stopped[i] = progress_stopped(&progress, i);
    progress_release(&progress);
    for (int i = 0; i < 3; i++)
        task_release(&tasks[i]);
    assert_true(atof(redis_ask(&server, "HGET", "unclip:job:second", "progress")) > 0);
    return rc;
}

static void cancelling_is_heard_for_the_right_job(void **state)
{
    (void)state;
    bool stopped[3];
    struct err err = {0};
    redis_put(&server, "unclip:job:first", "state", "running");
    assert_int_equal(report_three(stopped, &err), 0);
    assert_false(stopped[0] || stopped[1]);
    assert_true(stopped[2]);
}

/* Each comes before the others of its batch, which go on. */
static void bad_hashes_keep_to_themselves(void **state)
{
    (void)state;
    bool stopped[3];
    struct err err = {0};
    redis_put(&server, "unclip:job:first", "state", "running");
    redis_put(&server, "unclip:job:first", "images_total", "nan");
    assert_int_equal(report_three(stopped, &err), 0);
    assert_false(stopped[0] || stopped[1]);
    assert_true(stopped[2]);
    assert_int_equal(redis_commandf(server.redis, NULL, &err, "SET %s %s", "unclip:job:first", "x"),
                     0);
    assert_int_equal(report_three(stopped, &err), -ERR_REDIS);
    assert_non_null(strstr(err.text, "unclip:job:first: "));
    assert_non_null(strstr(err.text, "WRONGTYPE"));
    assert_false(stopped[0] || stopped[1]);
    assert_true(stopped[2]);
}

static void counters_add_up(void **state)
{
    (void)state;
    struct counters counters = {.tasks = 3,
                                .batches = 1,
                                .failures = 1,
                                .cache_hits = 1,
                                .computed = 2,
                                .wasted = 1,
                                .compute_ms = 40};
    struct err err = {0};
    for (int i = 0; i < 2; i++)
        assert_int_equal(counters_add(&counters, server.redis, STAGE_PRIOR, &err), 0);
    assert_string_equal(redis_ask(&server, "HGET", "unclip:stage:prior", "tasks"), "6");
    assert_string_equal(redis_ask(&server, "HGET", "unclip:stage:prior", "cache_hits"), "2");
    assert_string_equal(redis_ask(&server, "HGET", "unclip:stage:prior", "computed"), "4");
    assert_string_equal(redis_ask(&server, "HGET", "unclip:stage:prior", "wasted"), "2");
    assert_string_equal(redis_ask(&server, "HGET", "unclip:stage:prior", "compute_ms"), "80");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(place_is_the_last_pictures, job),
        cmocka_unit_test_setup(progress_never_falls, job),
        cmocka_unit_test_setup(unknown_jobs_stay_unknown, job),
        cmocka_unit_test_setup(finished_jobs_are_not_touched, job),
        cmocka_unit_test_setup(hostile_hashes_are_survived, job),
        cmocka_unit_test_setup(writes_are_few, job),
        cmocka_unit_test_setup(cancelling_is_heard, job),
        cmocka_unit_test_setup(cancelling_is_heard_for_the_right_job, job),
        cmocka_unit_test_setup(bad_hashes_keep_to_themselves, job),
        cmocka_unit_test_setup(counters_add_up, job),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
