/* SPDX-License-Identifier: Apache-2.0 */
/* What may be committed, and in which order; what is dropped; what blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "common/memory.h"
#include "webhooks/window.h"

#define TAKEN 8

/* Owned by the window. */
static struct delivery *add(struct window *window, int partition, int64_t offset, size_t size)
{
    struct delivery *delivery = xcalloc(1, sizeof *delivery);
    delivery->record = xcalloc(1, sizeof *delivery->record);
    delivery->record->partition = partition;
    delivery->record->offset = offset;
    delivery->record->value_size = size;
    window_add(window, delivery);
    return delivery;
}

/* Takes all that is settled and holds it against "partition:offset …". */
static void assert_leaves(struct window *window, const char *expected)
{
    struct delivery *taken[TAKEN];
    size_t count = window_settled(window, taken, TAKEN);
    char *text = xstrdup("");
    for (size_t i = 0; i < count; i++) {
        char *longer = xasprintf("%s%d:%lld ", text, (int)taken[i]->record->partition,
                                 (long long)taken[i]->record->offset);
        free(text);
        text = longer;
        delivery_free(taken[i]);
    }
    assert_string_equal(text, expected);
    free(text);
}

static void test_order(void **state)
{
    struct window *window = window_new();
    (void)state;
    struct delivery *first = add(window, 1, 10, 0), *second = add(window, 1, 12, 0);
    struct delivery *third = add(window, 1, 13, 0), *other = add(window, 0, 5, 0);
    assert_false(window_has_settled(window));
    second->state = third->state = DELIVERY_SETTLED;
    assert_false(window_has_settled(window));
    assert_leaves(window, ""); /* the first holds them */
    other->state = DELIVERY_SETTLED;
    assert_true(window_has_settled(window));
    assert_leaves(window, "0:5 ");
    first->state = DELIVERY_SENDING;
    assert_leaves(window, "");
    first->state = DELIVERY_SETTLED;
    assert_leaves(window, "1:10 1:12 1:13 ");
    assert_int_equal(window_count(window), 0);
    add(window, 1, 14, 0)->state = DELIVERY_SETTLED; /* the emptied line goes on */
    assert_leaves(window, "1:14 ");
    window_free(window);
}

static void test_parts(void **state)
{
    struct window *window = window_new();
    (void)state;
    for (int i = 0; i < TAKEN + 2; i++)
        add(window, 0, i, 0)->state = DELIVERY_SETTLED;
    assert_leaves(window, "0:0 0:1 0:2 0:3 0:4 0:5 0:6 0:7 ");
    assert_leaves(window, "0:8 0:9 ");
    window_free(window);
}

static void test_full(void **state)
{
    struct window *window = window_new();
    (void)state;
    struct delivery *head = add(window, 0, 0, WINDOW_BYTES_MAX - 1);
    assert_false(window_full(window));
    struct delivery *last = add(window, 1, 1, 1);
    assert_true(window_full(window));
    last->state = DELIVERY_SETTLED;
    assert_leaves(window, "1:1 ");
    assert_false(window_full(window));
    head->state = DELIVERY_SETTLED;
    assert_leaves(window, "0:0 ");
    for (int i = 0; i < WINDOW_RECORDS_MAX; i++) {
        assert_false(window_full(window));
        add(window, i % 3, i, 0);
    }
    assert_true(window_full(window));
    window_free(window);
}

/* Only what has had its try, at a head, is given up for the others. */
static void test_blocking(void **state)
{
    struct window *window = window_new();
    (void)state;
    struct delivery *head = add(window, 0, 0, 0), *behind = add(window, 0, 1, 0);
    struct delivery *other = add(window, 1, 0, 0);
    behind->tries = 1;
    assert_null(window_blocking(window));
    other->tries = 1;
    other->state = DELIVERY_SENDING;
    assert_null(window_blocking(window));
    other->state = DELIVERY_WAITING;
    assert_ptr_equal(window_blocking(window), other);
    head->tries = 2;
    assert_ptr_equal(window_blocking(window), head);
    head->state = DELIVERY_SETTLED;
    assert_ptr_equal(window_blocking(window), other);
    window_free(window);
}

static bool keeps_partition_1(void *context, const struct kafka_record *record)
{
    (void)context;
    return record->partition == 1;
}

static void test_drop(void **state)
{
    struct window *window = window_new();
    (void)state;
    struct delivery *sent = add(window, 0, 0, 7);
    add(window, 0, 1, 7);
    add(window, 1, 0, 7)->state = DELIVERY_SETTLED;
    sent->state = DELIVERY_SENDING;
    window_drop(window, keeps_partition_1, NULL);
    assert_int_equal(window_count(window), 1);
    assert_true(sent->orphan);
    delivery_free(sent);                            /* it is back */
    add(window, 0, 0, 7)->state = DELIVERY_SETTLED; /* the partition is ours again */
    assert_leaves(window, "0:0 1:0 ");
    window_free(window);
}

static bool count_two(void *context, struct delivery *delivery)
{
    int *count = context;
    (void)delivery;
    return ++*count < 2;
}

static void test_each(void **state)
{
    struct window *window = window_new();
    int count = 0;
    (void)state;
    for (int i = 0; i < 4; i++)
        add(window, i / 2, i, 0);
    window_each(window, count_two, &count);
    assert_int_equal(count, 2);
    window_free(window);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),    cmocka_unit_test(test_parts), cmocka_unit_test(test_full),
        cmocka_unit_test(test_blocking), cmocka_unit_test(test_drop),  cmocka_unit_test(test_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
