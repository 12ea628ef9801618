/* SPDX-License-Identifier: Apache-2.0 */
/* Items of the same text share what was computed for one of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/memory.h"
#include "stages/stage.h"

static struct item with_texts(const char *prompt, const char *negative, const char *one,
                              const char *other)
{
    struct item item;
    item_init(&item, prompt, negative, 1);
    item.texts[0] = one;
    item.texts[1] = other;
    item.text_count = 2;
    item.text_rows += 2;
    return item;
}

static void test_same_text(void **state)
{
    (void)state;
    struct item item = with_texts("a", "b", "c", "d");
    struct item others[] = {
        with_texts("x", "b", "c", "d"), with_texts("a", "x", "c", "d"),
        with_texts("a", "b", "x", "d"), with_texts("a", "b", "c", "x"),
        with_texts("a", "b", "c", "d"), with_texts("a", "b", "c", "d"),
    };
    others[4].overflow = OVERFLOW_SPLIT;
    others[5].text_rows = 3;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(item_same_text(&item, &others[i]));
    struct item same = with_texts("a", "b", "c", "d");
    rng_seed(&same.rng, 2); /* of another picture */
    assert_true(item_same_text(&item, &same));
    item.text_rows = same.text_rows = 2; /* the texts have been taken in */
    same.texts[1] = "x";
    assert_true(item_same_text(&item, &same));
}

static void test_copy_text(void **state)
{
    (void)state;
    enum { D = 3, L = 2, W = 5, R = 4 };
    struct item from = with_texts("a", "b", "c", "d"), to = with_texts("a", "b", "c", "d");
    struct err err = {0};
    from.embed_dim = D;
    from.text_len = L;
    from.text_width = W;
    from.tokens_dropped = 7;
    from.text_embed = xcalloc(R, D * sizeof(float));
    from.text_states = xcalloc(R, L * W * sizeof(float));
    from.text_mask = xcalloc(R, L);
    from.text_embed[R * D - 1] = 1;
    from.text_states[R * L * W - 1] = 2;
    from.text_mask[R * L - 1] = 1;
    assert_int_equal(item_copy_text(&to, &from, &err), 0);
    assert_int_equal(to.tokens_dropped, 7);
    assert_int_equal(to.embed_dim, D);
    assert_int_equal(to.text_len, L);
    assert_int_equal(to.text_width, W);
    assert_memory_equal(to.text_embed, from.text_embed, R * D * sizeof(float));
    assert_memory_equal(to.text_states, from.text_states, R * L * W * sizeof(float));
    assert_memory_equal(to.text_mask, from.text_mask, R * L);
    item_release(&from);
    item_release(&to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_text),
        cmocka_unit_test(test_copy_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
