/* SPDX-License-Identifier: Apache-2.0 */
/* The profile: what it counts, how it is sorted, and that there is none unless asked for. */
#include "nn_fixture.h"

static struct tensor ones(struct nn *nn, int64_t n, int64_t c)
{
    float values[64];
    for (size_t i = 0; i < COUNT_OF(values); i++)
        values[i] = 1;
    assert_true((size_t)(n * c) <= COUNT_OF(values));
    return nn_from_f32(nn, values, 2, (int64_t[]){n, c});
}

static const struct nn_profile_row *find_row(const struct nn_profile_row *rows, size_t count,
                                             const char *op, const char *shape)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].op, op) == 0 && strcmp(rows[i].shape, shape) == 0)
            return &rows[i];
    }
    fail_msg("no row '%s' '%s'", op, shape);
    return NULL;
}

static void load_linear(struct fixture *f, struct linear *linear)
{
    float *values = fixture_values(f, 3 * 4, 1, 0);
    struct safetensors_entry entry = F32_ENTRY("l.weight", values, 3, 4);
    struct weights *weights = fixture_weights(&entry, 1);
    struct err err = {0};
    assert_int_equal(linear_load(linear, f->nn, weights, "l", 4, 3, false, &err), 0);
    weights_close(weights);
    free(values);
}

static void test_off(void **state)
{
    (void)state;
    struct fixture f;
    const struct nn_profile_row *rows;
    assert_true(fixture_open(&f, DTYPE_F32, 1));
    nn_act(f.nn, ones(f.nn, 2, 4), ACT_RELU);
    assert_int_equal(nn_profile_rows(f.nn, &rows), 0);
    nn_profile_print(f.nn, NULL); /* writes nothing */
    fixture_close(&f);
}

static void test_rows(void **state)
{
    (void)state;
    struct fixture f;
    struct linear linear;
    const struct nn_profile_row *rows;
    assert_true(fixture_open(&f, DTYPE_F32, 1));
    load_linear(&f, &linear);
    nn_profile_start(f.nn);
    for (int i = 0; i < 3; i++)
        nn_act(f.nn, ones(f.nn, 2, 4), ACT_RELU);
    nn_act(f.nn, ones(f.nn, 3, 4), ACT_RELU);
    nn_linear(f.nn, &linear, ones(f.nn, 2, 4), (struct linear_fuse){0});
    size_t count = nn_profile_rows(f.nn, &rows);
    assert_int_equal(count, 3);
    for (size_t i = 1; i < count; i++)
        assert_true(rows[i - 1].seconds >= rows[i].seconds);
    const struct nn_profile_row *act = find_row(rows, count, "act", "2x4 -> 4");
    assert_int_equal(act->calls, 3);
    assert_true(act->seconds > 0 && act->flop == 0);
    assert_true(act->bytes == 3 * 2 * 8 * sizeof(float));
    assert_int_equal(find_row(rows, count, "act", "3x4 -> 4")->calls, 1);
    const struct nn_profile_row *product = find_row(rows, count, "linear", "2x4 -> 3");
    assert_true(product->flop == 2 * 2 * 4 * 3);
    assert_true(product->bytes == (2 * 4 + 2 * 3 + 4 * 3) * sizeof(float));
    nn_profile_start(f.nn);
    assert_int_equal(nn_profile_rows(f.nn, &rows), 0);
    linear_release(&linear);
    fixture_close(&f);
}

static void test_print(void **state)
{
    (void)state;
    struct fixture f;
    char *text = NULL;
    size_t size;
    assert_true(fixture_open(&f, DTYPE_F32, 1));
    nn_profile_start(f.nn);
    nn_act(f.nn, ones(f.nn, 2, 4), ACT_RELU);
    FILE *out = open_memstream(&text, &size);
    nn_profile_print(f.nn, out);
    fclose(out);
    assert_non_null(strstr(text, "act                  2x4 -> 4"));
    assert_non_null(strstr(text, "all ops"));
    assert_non_null(strstr(text, "between ops"));
    free(text);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
