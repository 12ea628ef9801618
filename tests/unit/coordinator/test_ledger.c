/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's invariants, and every pair of states. */
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"
#include "fixture.h"

static struct live_job *add(struct ledger *ledger, int home, const char *id, int n)
{
    struct job job = {.n = n, .hops = 2};
    snprintf(job.id, sizeof job.id, "%s", id);
    job.prompt = xstrdup("a red heart");
    job.negative_prompt = xstrdup("");
    job.client = xstrdup("");
    job.route[0] = (struct hop){.stage = STAGE_TEXT_ENCODE};
    job.route[1] = (struct hop){.stage = STAGE_PRIOR, .steps = 10};
    struct live_job *live = ledger_add(ledger, home, &job, true, 7, NOW);
    live_job_start(live);
    return live;
}

static void show_all(struct ledger *ledger)
{
    while (ledger_next_changed(ledger))
        ;
    while (ledger_first_unshown(ledger))
        ledger_shown(ledger, ledger_first_unshown(ledger));
}

/* Whether the setter takes the step; a BUG aborts, so a child tries. */
static bool setter_allows(enum job_state from, enum job_state to)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        int null = open("/dev/null", O_WRONLY);
        dup2(null, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        struct ledger *ledger = ledger_new();
        ledger_partition_add(ledger, 0);
        struct live_job *job = add(ledger, 0, "a", 1);
        job->state = from;
        job_set_state(ledger, job, to, NOW, "a test");
        _exit(job->state == to ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) ? WEXITSTATUS(status) == 0 : WTERMSIG(status) == SIGABRT);
    return WIFEXITED(status);
}

static void test_every_pair_of_states(void **state)
{
    (void)state;
    for (int from = 0; from < JOB_STATE_COUNT; from++)
        for (int to = 0; to < JOB_STATE_COUNT; to++)
            assert_int_equal(setter_allows((enum job_state)from, (enum job_state)to),
                             job_state_legal((enum job_state)from, (enum job_state)to));
}

static void test_final_leaves_the_live_ones(void **state)
{
    struct ledger *ledger = ledger_new();
    uint64_t digest = 0;
    (void)state;
    ledger_partition_add(ledger, 0);
    struct live_job *job = add(ledger, 0, "a", 1);
    assert_ptr_equal(ledger_find(ledger, 0, "a"), job);
    job_set_state(ledger, job, JOB_QUEUED, NOW, "a test");
    assert_int_equal(ledger_unshown_ended(ledger), 0);
    job_set_state(ledger, job, JOB_CANCELLED, NOW + 1, "a test");
    assert_null(ledger_find(ledger, 0, "a"));
    assert_int_equal(ledger_count(ledger), 0);
    assert_int_equal(job->finished_at_ms, NOW + 1);
    assert_true(ledger_remembers(ledger, 0, "a", &digest));
    assert_int_equal(digest, 7);
    assert_int_equal(ledger_unshown_ended(ledger), 1);
    show_all(ledger);
    assert_int_equal(ledger_unshown_ended(ledger), 0);
    ledger_free(ledger);
}

static void test_partitions_are_apart(void **state)
{
    struct ledger *ledger = ledger_new();
    (void)state;
    ledger_partition_add(ledger, 0);
    ledger_partition_add(ledger, 5);
    struct live_job *here = add(ledger, 0, "a", 1), *there = add(ledger, 5, "a", 1);
    struct live_job *ended = add(ledger, 5, "b", 1);
    job_set_state(ledger, ended, JOB_FAILED, NOW, "a test");
    struct outbox outbox = {0};
    ledger_touch(ledger, there, &outbox, NOW);
    ledger_touch(ledger, ended, &outbox, NOW);
    ledger_touch(ledger, here, &outbox, NOW);
    assert_ptr_equal(ledger_find(ledger, 5, "a"), there);
    ledger_partition_drop(ledger, 5);
    assert_null(ledger_find(ledger, 5, "a"));
    assert_false(ledger_partition_kept(ledger, 5));
    assert_ptr_equal(ledger_next_changed(ledger), here);
    assert_null(ledger_next_changed(ledger));
    assert_ptr_equal(ledger_first_unshown(ledger), here);
    assert_null(here->next_unshown);
    assert_int_equal(ledger_unshown_ended(ledger), 0);
    assert_int_equal(ledger_count(ledger), 1);
    ledger_partition_add(ledger, 5);
    assert_false(ledger_remembers(ledger, 5, "b", NULL));
    show_all(ledger);
    ledger_free(ledger);
}

static void test_unshown_keeps_its_order(void **state)
{
    struct ledger *ledger = ledger_new();
    (void)state;
    ledger_partition_add(ledger, 0);
    struct live_job *a = add(ledger, 0, "a", 1), *b = add(ledger, 0, "b", 1);
    struct live_job *c = add(ledger, 0, "c", 1);
    ledger_mark_unshown(ledger, b);
    ledger_mark_unshown(ledger, a);
    ledger_mark_unshown(ledger, c);
    ledger_mark_unshown(ledger, b); /* it is there */
    ledger_shown(ledger, a);
    assert_ptr_equal(ledger_first_unshown(ledger), b);
    assert_ptr_equal(b->next_unshown, c);
    ledger_shown(ledger, c);
    ledger_mark_unshown(ledger, a);
    assert_ptr_equal(b->next_unshown, a);
    ledger_discard(ledger, b);
    assert_ptr_equal(ledger_first_unshown(ledger), a);
    assert_null(ledger_find(ledger, 0, "b"));
    ledger_free(ledger);
}

static void test_memory_is_bounded(void **state)
{
    struct ledger *ledger = ledger_new();
    char id[32];
    uint64_t digest;
    (void)state;
    ledger_partition_add(ledger, 0);
    ledger_remember(ledger, 0, "first", 1);
    ledger_remember(ledger, 0, "first", 2); /* the first time counts */
    assert_true(ledger_remembers(ledger, 0, "first", &digest));
    assert_int_equal(digest, 1);
    for (int i = 1; i < LEDGER_REMEMBERED_MAX; i++) {
        snprintf(id, sizeof id, "id-%d", i);
        ledger_remember(ledger, 0, id, 0);
    }
    assert_true(ledger_remembers(ledger, 0, "first", NULL));
    ledger_remember(ledger, 0, "one-more", 0);
    assert_false(ledger_remembers(ledger, 0, "first", NULL));
    assert_true(ledger_remembers(ledger, 0, "id-1", NULL));
    ledger_free(ledger);
}

static void test_place_is_the_furthest_behind(void **state)
{
    struct ledger *ledger = ledger_new();
    (void)state;
    ledger_partition_add(ledger, 0);
    struct live_job *job = add(ledger, 0, "a", 2);
    assert_int_equal(live_job_hop(job), 0);
    assert_true(live_job_progress(job) == 0);
    job->pictures[0].hops = 1;
    assert_int_equal(live_job_hop(job), 0);
    job->pictures[1].state = PICTURE_STORED;
    assert_int_equal(live_job_hop(job), 1);
    double progress = live_job_progress(job);
    assert_true(progress > 0.5 && progress < 1);
    job->pictures[0].state = PICTURE_STORED;
    assert_int_equal(live_job_hop(job), 1);
    assert_true(live_job_progress(job) == 1);
    ledger_free(ledger);
}

static void test_notices_are_distinct(void **state)
{
    struct ledger *ledger = ledger_new();
    (void)state;
    ledger_partition_add(ledger, 0);
    struct live_job *job = add(ledger, 0, "a", 1);
    live_job_notice(job, "one");
    live_job_notice(job, "two");
    live_job_notice(job, "one");
    assert_int_equal(json_array_size(job->notices), 2);
    ledger_free(ledger);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_pair_of_states),
        cmocka_unit_test(test_final_leaves_the_live_ones),
        cmocka_unit_test(test_partitions_are_apart),
        cmocka_unit_test(test_unshown_keeps_its_order),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_place_is_the_furthest_behind),
        cmocka_unit_test(test_notices_are_distinct),
    };
    log_init("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
