/* SPDX-License-Identifier: Apache-2.0 */
/* The gathering rule: company, order within partitions, linger, and the two classes' shares. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "workers/batch.h"

#define LINGER_MS 5
#define BULK_MS   200
#define TASKS     64

/* Tasks that differ in steps are not compatible. */
static struct task tasks[TASKS];
static int made;

static struct task *make_task(int steps)
{
    struct task *task = &tasks[made++ % TASKS];
    *task = (struct task){.hops = 1, .model = "emoji"};
    task->route[0] = (struct hop){.stage = STAGE_PRIOR, .steps = steps, .guidance = 2};
    return task;
}

static const char *const topics[] = {"interactive", "bulk"};

static struct task *add(struct batcher *batcher, enum task_class task_class, int partition,
                        int steps, int64_t now)
{
    struct task *task = make_task(steps);
    struct batch_entry entry = {.task = task,
                                .task_class = task_class,
                                .topic = topics[task_class],
                                .partition = partition,
                                .since_ms = now,
                                .payload = task};
    batcher_add(batcher, &entry);
    return task;
}

static void add_unreadable(struct batcher *batcher, int partition, void *payload)
{
    struct batch_entry entry = {.topic = topics[0], .partition = partition, .payload = payload};
    batcher_add(batcher, &entry);
}

static void nothing_waits(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    assert_int_equal(batcher_due(&batcher, 1000), -1);
    assert_int_equal(batcher_take(&batcher, taken), 0);
    assert_int_equal(batcher.taken, 0);
    batcher_release(&batcher);
}

static void linger_counts_from_the_first(void **state)
{
    (void)state;
    struct batcher batcher;
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    add(&batcher, CLASS_INTERACTIVE, 0, 25, 100);
    assert_int_equal(batcher_due(&batcher, 100), 5);
    add(&batcher, CLASS_INTERACTIVE, 0, 25, 103);
    assert_int_equal(batcher_due(&batcher, 103), 2);
    assert_int_equal(batcher_due(&batcher, 105), 0);
    assert_int_equal(batcher_due(&batcher, 200), 0);
    batcher_release(&batcher);
}

/* Company is not worth more than what it can save. */
static void linger_is_short_where_passes_are(void **state)
{
    (void)state;
    struct batcher batcher;
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    add(&batcher, CLASS_INTERACTIVE, 0, 25, 100);
    assert_int_equal(batcher_due(&batcher, 100), LINGER_MS);
    batcher_passed(&batcher, 0);
    assert_int_equal(batcher_due(&batcher, 100), 0);
    batcher_passed(&batcher, 29);
    assert_int_equal(batcher_due(&batcher, 100), 2);
    assert_int_equal(batcher_due(&batcher, 101), 1);
    batcher_passed(&batcher, 1000 * LINGER_MS);
    assert_int_equal(batcher_due(&batcher, 100), LINGER_MS);
    batcher_passed(&batcher, 0);
    add(&batcher, CLASS_INTERACTIVE, 1, 25, 100)->images = 4;
    assert_int_equal(batcher_due(&batcher, 100), LINGER_MS);
    batcher_release(&batcher);
}

/* Neither with others of its kind nor with anyone; the order within its partition stays. */
static void suspects_go_alone(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    struct task *first = add(&batcher, CLASS_INTERACTIVE, 0, 25, 0);
    struct task *suspect = add(&batcher, CLASS_INTERACTIVE, 0, 25, 0);
    struct task *behind = add(&batcher, CLASS_INTERACTIVE, 0, 25, 0);
    struct task *other = add(&batcher, CLASS_INTERACTIVE, 1, 25, 0);
    struct task *second = add(&batcher, CLASS_INTERACTIVE, 2, 25, 0);
    batcher.waiting[1].alone = batcher.waiting[4].alone = true;
    assert_int_equal(batcher_take(&batcher, taken), 2);
    assert_ptr_equal(taken[0], first);
    assert_ptr_equal(taken[1], other);
    assert_int_equal(batcher_take(&batcher, taken), 1);
    assert_ptr_equal(taken[0], suspect);
    assert_int_equal(batcher_take(&batcher, taken), 1);
    assert_ptr_equal(taken[0], behind);
    assert_int_equal(batcher_take(&batcher, taken), 1);
    assert_ptr_equal(taken[0], second);
    batcher_release(&batcher);
}

static void full_batch_waits_for_nothing(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[3];
    batcher_init(&batcher, 3, 1, LINGER_MS, 20, BULK_MS);
    for (int i = 0; i < 3; i++) {
        assert_true(batcher_wants(&batcher, CLASS_INTERACTIVE));
        add(&batcher, CLASS_INTERACTIVE, i, 25, 100);
    }
    assert_false(batcher_wants(&batcher, CLASS_INTERACTIVE));
    assert_int_equal(batcher_due(&batcher, 100), 0);
    assert_int_equal(batcher_take(&batcher, taken), 3);
    assert_int_equal(batcher_due(&batcher, 100), -1);
    batcher_release(&batcher);
}

/* a b a b in one partition: a alone goes first, since taking the third would skip the second. */
static void order_within_a_partition(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    struct task *list[4];
    for (int i = 0; i < 4; i++)
        list[i] = add(&batcher, CLASS_INTERACTIVE, 7, i % 2 ? 30 : 25, 100);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(batcher_take(&batcher, taken), 1);
        assert_ptr_equal(taken[0], list[i]);
    }
    batcher_release(&batcher);
}

static void company_across_partitions(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    struct task *a0 = add(&batcher, CLASS_INTERACTIVE, 0, 25, 100);
    struct task *b0 = add(&batcher, CLASS_INTERACTIVE, 0, 30, 100);
    struct task *a1 = add(&batcher, CLASS_INTERACTIVE, 1, 25, 100);
    add(&batcher, CLASS_INTERACTIVE, 0, 25, 100); /* behind b0 */
    struct task *b1 = add(&batcher, CLASS_INTERACTIVE, 1, 30, 100);
    assert_int_equal(batcher_take(&batcher, taken), 2);
    assert_ptr_equal(taken[0], a0);
    assert_ptr_equal(taken[1], a1);
    assert_int_equal(batcher_take(&batcher, taken), 2);
    assert_ptr_equal(taken[0], b0);
    assert_ptr_equal(taken[1], b1);
    assert_int_equal(batcher_take(&batcher, taken), 1);
    batcher_release(&batcher);
}

/* A task of another steps, model, or guidance never shares a pass. */
static void only_compatible_tasks(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    add(&batcher, CLASS_INTERACTIVE, 0, 25, 100);
    strcpy(add(&batcher, CLASS_INTERACTIVE, 1, 25, 100)->model, "other");
    add(&batcher, CLASS_INTERACTIVE, 2, 25, 100)->route[0].guidance = 3;
    add(&batcher, CLASS_INTERACTIVE, 3, 26, 100);
    for (int i = 0; i < 4; i++)
        assert_int_equal(batcher_take(&batcher, taken), 1);
    assert_int_equal(batcher.count, 0);
    batcher_release(&batcher);
}

static void unreadable_records_join_any_batch(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    int x, y;
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    add_unreadable(&batcher, 0, &x);
    struct task *task = add(&batcher, CLASS_INTERACTIVE, 0, 25, 100);
    add(&batcher, CLASS_INTERACTIVE, 0, 30, 100);
    add_unreadable(&batcher, 0, &y); /* behind one that stays */
    assert_int_equal(batcher_take(&batcher, taken), 2);
    assert_ptr_equal(taken[0], &x);
    assert_ptr_equal(taken[1], task);
    assert_int_equal(batcher_take(&batcher, taken), 2);
    assert_ptr_equal(taken[1], &y);
    add_unreadable(&batcher, 0, &x);
    assert_int_equal(batcher_take(&batcher, taken), 1);
    batcher_release(&batcher);
}

static int bulk_first(int percent, int batches)
{
    struct batcher batcher;
    void *taken[2];
    int count = 0;
    batcher_init(&batcher, 2, 1, LINGER_MS, percent, BULK_MS);
    for (int i = 0; i < batches; i++) {
        count += batcher_prefers(&batcher) == CLASS_BULK;
        struct task *bulk = add(&batcher, CLASS_BULK, 0, 25, 100);
        struct task *interactive = add(&batcher, CLASS_INTERACTIVE, 0, 30, 100);
        bool wants_bulk = batcher_prefers(&batcher) == CLASS_BULK;
        assert_int_equal(batcher_take(&batcher, taken), 1);
        assert_ptr_equal(taken[0], wants_bulk ? bulk : interactive);
        assert_int_equal(batcher_take(&batcher, taken), 1);
        batcher.taken--; /* that one was to clear the table */
    }
    batcher_release(&batcher);
    return count;
}

static void classes_get_their_share(void **state)
{
    (void)state;
    assert_int_equal(bulk_first(20, 100), 20);
    assert_int_equal(bulk_first(1, 100), 1);
    assert_int_equal(bulk_first(33, 300), 99);
    assert_int_equal(bulk_first(60, 100), 60);
    assert_int_equal(bulk_first(100, 10), 10);
}

static void other_class_fills_a_batch(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[4];
    batcher_init(&batcher, 4, 1, LINGER_MS, 20, BULK_MS);
    batcher.bulk_capacity = 2;
    struct task *bulk = add(&batcher, CLASS_BULK, 0, 25, 100);
    struct task *interactive = add(&batcher, CLASS_INTERACTIVE, 0, 25, 101);
    assert_int_equal(batcher_take(&batcher, taken), 2);
    assert_ptr_equal(taken[0], bulk);
    assert_ptr_equal(taken[1], interactive);
    batcher_release(&batcher);
}

static void add_many(struct batcher *batcher, enum task_class task_class, int count)
{
    for (int i = 0; i < count; i++)
        add(batcher, task_class, i, 25, 100);
}

/* A batch with bulk tasks in it is kept small; interactive ones may always come along. */
static void bulk_tasks_keep_to_their_capacity(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    batcher.bulk_capacity = 2;
    add_many(&batcher, CLASS_BULK, 5);
    assert_false(batcher_wants(&batcher, CLASS_BULK));
    assert_true(batcher_wants(&batcher, CLASS_INTERACTIVE));
    assert_int_equal(batcher_due(&batcher, 100), 0); /* as large as it can get */
    assert_int_equal(batcher_take(&batcher, taken), 2);
    add_many(&batcher, CLASS_INTERACTIVE, 1);
    assert_int_equal(batcher_take(&batcher, taken), 2); /* one of each */
    add_many(&batcher, CLASS_INTERACTIVE, 3);
    assert_int_equal(batcher_take(&batcher, taken), 3); /* no bulk task makes them slower */
    batcher.taken = 4;                                  /* the bulk tasks' turn */
    add_many(&batcher, CLASS_INTERACTIVE, 3);
    assert_int_equal(batcher_take(&batcher, taken), 5);
    assert_int_equal(batcher.count, 0);
    batcher_release(&batcher);
}

/* What was pulled before the capacity fell keeps nobody from pulling interactive tasks, and no
 * batch is larger than one may be. */
static void classes_have_their_own_room(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    batcher.bulk_capacity = 8;
    add_many(&batcher, CLASS_BULK, 8);
    assert_false(batcher_wants(&batcher, CLASS_BULK));
    for (int i = 0; i < 8; i++) {
        assert_true(batcher_wants(&batcher, CLASS_INTERACTIVE));
        add(&batcher, CLASS_INTERACTIVE, i % 3, 25, 100);
    }
    assert_false(batcher_wants(&batcher, CLASS_INTERACTIVE));
    batcher_ran(&batcher, 8, 8 * BULK_MS);
    assert_int_equal(batcher.bulk_capacity, 1);
    assert_int_equal(batcher_take(&batcher, taken), 8);
    assert_int_equal(batcher.count, 8);
    assert_int_equal(batcher_take(&batcher, taken), 1);
    assert_false(batcher_wants(&batcher, CLASS_BULK));
    assert_true(batcher_wants(&batcher, CLASS_INTERACTIVE));
    batcher.taken = 4; /* the bulk tasks' turn */
    batcher.bulk_capacity = 8;
    add_many(&batcher, CLASS_INTERACTIVE, 8);
    struct task *last = batcher.waiting[batcher.count - 1].payload;
    assert_int_equal(batcher_take(&batcher, taken), 8); /* 7 bulk tasks and the first other one */
    assert_int_equal(batcher_take(&batcher, taken), 7);
    assert_ptr_equal(taken[6], last);
    batcher_release(&batcher);
}

/* A record that needs no pass takes a place in the batch all the same. */
static void unreadable_records_need_room(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[2];
    int x, y;
    batcher_init(&batcher, 2, 1, LINGER_MS, 20, BULK_MS);
    struct task *bulk = add(&batcher, CLASS_BULK, 0, 25, 100);
    add_unreadable(&batcher, 0, &x);
    add_unreadable(&batcher, 0, &y);
    assert_int_equal(batcher_take(&batcher, taken), 2);
    assert_ptr_equal(taken[0], bulk);
    assert_ptr_equal(taken[1], &x);
    assert_int_equal(batcher_take(&batcher, taken), 1);
    assert_ptr_equal(taken[0], &y);
    batcher_release(&batcher);
}

/* A bulk task that waits, however long, does not take the company from an interactive one. */
static void linger_is_the_leaders(void **state)
{
    (void)state;
    struct batcher batcher;
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    add(&batcher, CLASS_BULK, 0, 25, 50);
    assert_int_equal(batcher_due(&batcher, 50), 0); /* the bulk capacity is one */
    add(&batcher, CLASS_INTERACTIVE, 0, 25, 100);
    assert_int_equal(batcher_due(&batcher, 100), 5);
    assert_int_equal(batcher_due(&batcher, 103), 2);
    assert_int_equal(batcher_due(&batcher, 105), 0);
    batcher.taken = 4; /* the bulk tasks' turn */
    assert_int_equal(batcher_due(&batcher, 100), 0);
    batcher_release(&batcher);
}

/* No rank idles for want of bulk tasks, and none has one more than the others. */
static void every_rank_gets_a_bulk_task(void **state)
{
    (void)state;
    struct batcher batcher;
    batcher_init(&batcher, 8, 3, LINGER_MS, 20, BULK_MS);
    assert_int_equal(batcher.bulk_capacity, 3);
    batcher_ran(&batcher, 3, 10 * BULK_MS);
    assert_int_equal(batcher.bulk_capacity, 3);
    batcher_ran(&batcher, 3, BULK_MS * 3 / 5);
    assert_int_equal(batcher.bulk_capacity, 3);
    batcher_ran(&batcher, 3, BULK_MS / 2);
    assert_int_equal(batcher.bulk_capacity, 6);
    batcher_ran(&batcher, 6, BULK_MS / 2);
    assert_int_equal(batcher.bulk_capacity, 8);
    batcher_ran(&batcher, 8, BULK_MS * 4 / 3);
    assert_int_equal(batcher.bulk_capacity, 6);
    batcher_release(&batcher);
    batcher_init(&batcher, 2, 3, LINGER_MS, 20, BULK_MS);
    assert_int_equal(batcher.bulk_capacity, 2);
    batcher_release(&batcher);
}

/* It follows what the last batches took. */
static void bulk_capacity_is_learnt(void **state)
{
    (void)state;
    static const struct {
        size_t tasks;
        int64_t ms;
        size_t then;
    } steps[] = {
        {1, 0, 2},                              /* at most doubled */
        {1, 1, 2},                              /* was not full: tells nothing */
        {2, 10, 4},   {4, 100, 8}, {8, 160, 8}, /* the whole batch's size */
        {8, 1600, 1}, {1, 900, 1},              /* never less than one */
        {1, 150, 1},  {1, 60, 2},  {2, 130, 3}, /* exactly what fits */
        {3, 201, 2},  {5, 190, 4},              /* with interactive ones in it */
        {4, 200, 4},
    };
    struct batcher batcher;
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    assert_int_equal(batcher.bulk_capacity, 1);
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        batcher_ran(&batcher, steps[i].tasks, steps[i].ms);
        assert_int_equal(batcher.bulk_capacity, steps[i].then);
    }
    batcher_release(&batcher);
}

static bool is_odd(void *context, const void *payload)
{
    (void)context;
    return ((const struct task *)payload)->route[0].steps % 2 == 1;
}

static void revoked_entries_go(void **state)
{
    (void)state;
    struct batcher batcher;
    void *taken[8];
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    struct task *list[5];
    for (int i = 0; i < 5; i++)
        list[i] = add(&batcher, CLASS_INTERACTIVE, i, i, 100);
    assert_int_equal(batcher_remove(&batcher, is_odd, NULL, taken), 2);
    assert_ptr_equal(taken[0], list[1]);
    assert_ptr_equal(taken[1], list[3]);
    assert_int_equal(batcher.count, 3);
    assert_int_equal(batcher_take(&batcher, taken), 1);
    assert_ptr_equal(taken[0], list[0]);
    batcher_release(&batcher);
}

/* Whatever comes: all tasks come out, each batch is compatible, and each partition in order. */
static void random_loads_keep_the_promises(void **state)
{
    (void)state;
    unsigned seed = 12345;
    struct batcher batcher;
    void *taken[8];
    int64_t last[2][3] = {{0}}, now = 0;
    int in = 0, out = 0;
    batcher_init(&batcher, 8, 1, LINGER_MS, 20, BULK_MS);
    while (out < 5000) {
        seed = seed * 1103515245u + 12345u;
        unsigned dice = seed >> 16;
        now++;
        enum task_class task_class = dice / 3 % 2 ? CLASS_BULK : CLASS_INTERACTIVE;
        if (batcher_wants(&batcher, task_class) && dice % 3) {
            struct task *task =
                add(&batcher, task_class, (int)(dice / 6 % 3), 20 + (int)(dice / 18 % 2), now);
            task->task_class = task_class;
            task->image = (int)(dice / 6 % 3);
            task->created_at_ms = ++in;
        }
        if (batcher_due(&batcher, now) != 0)
            continue;
        size_t count = batcher_take(&batcher, taken);
        assert_true(count > 0);
        for (size_t i = 0; i < count; i++) {
            const struct task *task = taken[i];
            assert_true(task_compatible(task, taken[0]));
            assert_true(task->created_at_ms > last[task->task_class][task->image]);
            last[task->task_class][task->image] = task->created_at_ms;
        }
        out += (int)count;
        batcher_ran(&batcher, count, dice / 36 % 1000);
        assert_in_range(batcher.bulk_capacity, 1, 8);
    }
    assert_int_equal(in - out, (int)batcher.count);
    batcher_release(&batcher);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_waits),
        cmocka_unit_test(linger_counts_from_the_first),
        cmocka_unit_test(linger_is_short_where_passes_are),
        cmocka_unit_test(suspects_go_alone),
        cmocka_unit_test(full_batch_waits_for_nothing),
        cmocka_unit_test(order_within_a_partition),
        cmocka_unit_test(company_across_partitions),
        cmocka_unit_test(only_compatible_tasks),
        cmocka_unit_test(unreadable_records_join_any_batch),
        cmocka_unit_test(classes_get_their_share),
        cmocka_unit_test(other_class_fills_a_batch),
        cmocka_unit_test(bulk_tasks_keep_to_their_capacity),
        cmocka_unit_test(classes_have_their_own_room),
        cmocka_unit_test(unreadable_records_need_room),
        cmocka_unit_test(linger_is_the_leaders),
        cmocka_unit_test(every_rank_gets_a_bulk_task),
        cmocka_unit_test(bulk_capacity_is_learnt),
        cmocka_unit_test(revoked_entries_go),
        cmocka_unit_test(random_loads_keep_the_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
