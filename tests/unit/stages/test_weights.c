/* SPDX-License-Identifier: Apache-2.0 */
/* Weights files: every tensor used exactly once, with its shape, in any float dtype or in I8. */
#include "nn_fixture.h"

static const float ones[24] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                               1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static struct weights *two_tensors(void)
{
    struct safetensors_entry entries[] = {F32_ENTRY("a.weight", ones, 4, 6),
                                          F32_ENTRY("a.bias", ones, 4)};
    return fixture_weights(entries, 2);
}

static void test_take(void **state)
{
    (void)state;
    struct weights *weights = two_tensors();
    struct err err = {0};
    const struct safetensors_entry *entry;
    float bias[4];
    assert_true(weights_have(weights, "a.bias"));
    assert_false(weights_have(weights, "b.bias"));
    assert_int_equal(weights_take(weights, "a.weight", 2, (int64_t[]){-1, 6}, &entry, &err), 0);
    assert_int_equal(entry->dim[0], 4);
    assert_int_equal(weights_finish(weights, &err), -(int)ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, "tensor 'a.bias' of shape [4] is not used"));
    assert_int_equal(weights_take_f32(weights, "a.bias", 1, (int64_t[]){4}, bias, &err), 0);
    assert_true(bias[3] == 1);
    assert_int_equal(weights_finish(weights, &err), 0);
    weights_close(weights);
    weights_close(NULL);
}

static void expect_refusal(struct weights *weights, const char *name, int rank, const int64_t *dim,
                           const char *message)
{
    struct err err = {0};
    const struct safetensors_entry *entry;
    assert_int_equal(weights_take(weights, name, rank, dim, &entry, &err), -(int)ERR_INVALID_MODEL);
    if (!strstr(err.text, message))
        fail_msg("'%s' is not in '%s'", message, err.text);
    assert_non_null(strstr(err.text, "unclip-test-")); /* the file */
}

static void test_refusals(void **state)
{
    (void)state;
    struct weights *weights = two_tensors();
    expect_refusal(weights, "b", 2, (int64_t[]){-1, 6}, "no tensor 'b' (shape [any, 6] is needed)");
    expect_refusal(weights, "a.weight", 2, (int64_t[]){4, 7},
                   "tensor 'a.weight' has shape [4, 6], not [4, 7]");
    expect_refusal(weights, "a.weight", 1, (int64_t[]){24}, "has shape [4, 6], not [24]");
    expect_refusal(weights, "a.bias", 0, NULL, "has shape [4], not []");
    /* a refused one is not used */
    struct err err = {0};
    const struct safetensors_entry *entry;
    assert_int_equal(weights_take(weights, "a.bias", 1, (int64_t[]){4}, &entry, &err), 0);
    expect_refusal(weights, "a.bias", 1, (int64_t[]){4}, "tensor 'a.bias' is used twice");
    weights_close(weights);
}

static void test_integers(void **state)
{
    (void)state;
    static const int64_t ids[] = {0, 1, 2};
    struct safetensors_entry entries[] = {
        {.name = "x.position_ids", .dtype = DTYPE_I64, .rank = 2, .dim = {1, 3}, .data = ids},
        F32_ENTRY("y.position_ids", ones, 2),
    };
    struct weights *weights = fixture_weights(entries, 2);
    struct err err = {0};
    expect_refusal(weights, "x.position_ids", 2, (int64_t[]){1, 3}, "is I64, not a float");
    weights_ignore_suffix(weights, "position_ids");
    weights_ignore_suffix(weights, "a suffix that is longer than every name in here");
    assert_int_equal(weights_finish(weights, &err), -(int)ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, "'y.position_ids'")); /* a float is no buffer */
    weights_close(weights);
}

static void test_dtypes(void **state)
{
    (void)state;
    static const uint16_t f16[] = {0x3c00, 0xc000, 0x3555}, bf16[] = {0x3f80, 0xc000, 0x3eab};
    static const double f64[] = {1, -2, 0.25};
    struct safetensors_entry entries[] = {
        {.name = "f16", .dtype = DTYPE_F16, .rank = 1, .dim = {3}, .data = f16},
        {.name = "bf16", .dtype = DTYPE_BF16, .rank = 1, .dim = {3}, .data = bf16},
        {.name = "f64", .dtype = DTYPE_F64, .rank = 1, .dim = {3}, .data = f64},
    };
    static const float thirds[] = {0.333251953125f, 0.333984375f, 0.25f};
    struct weights *weights = fixture_weights(entries, 3);
    for (size_t i = 0; i < 3; i++) {
        float out[3];
        struct err err = {0};
        assert_int_equal(weights_take_f32(weights, entries[i].name, 1, (int64_t[]){3}, out, &err),
                         0);
        assert_true(out[0] == 1 && out[1] == -2 && out[2] == thirds[i]);
    }
    weights_close(weights);
}

static const int8_t q[] = {127, -127, 0, 1, 2, -128};
static const float scales[] = {0.5f, 2};

#define I8_ENTRY(label, ...)                                                                       \
    {                                                                                              \
        .name = (label), .dtype = DTYPE_I8, .rank = COUNT_OF(((int64_t[]){__VA_ARGS__})),          \
        .dim = {__VA_ARGS__}, .data = q                                                            \
    }

static void test_int8(void **state)
{
    (void)state;
    struct safetensors_entry entries[] = {I8_ENTRY("w", 2, 3), F32_ENTRY("w.scale", scales, 2),
                                          I8_ENTRY("empty", 2, 0),
                                          F32_ENTRY("empty.scale", scales, 2)};
    static const float expected[] = {63.5f, -63.5f, 0, 2, 4, -256};
    struct weights *weights = fixture_weights(entries, 4);
    struct err err = {0};
    float out[6];
    assert_int_equal(weights_take_f32(weights, "w", 2, (int64_t[]){2, 3}, out, &err), 0);
    assert_memory_equal(out, expected, sizeof(expected));
    const struct safetensors_entry *entry;
    assert_int_equal(weights_take(weights, "empty", 2, (int64_t[]){2, 0}, &entry, &err), 0);
    weights_read(weights, entry, 0, 0, out);
    assert_int_equal(weights_finish(weights, &err), 0); /* the scales are used with them */
    expect_refusal(weights, "w", 2, (int64_t[]){2, 3}, "tensor 'w' is used twice");
    weights_close(weights);
}

/* Any part of a tensor, also one that begins and ends within rows. */
static void test_int8_parts(void **state)
{
    (void)state;
    struct safetensors_entry entries[] = {I8_ENTRY("w", 2, 3), F32_ENTRY("w.scale", scales, 2)};
    struct weights *weights = fixture_weights(entries, 2);
    struct err err = {0};
    const struct safetensors_entry *entry;
    float whole[6], part[6];
    assert_int_equal(weights_take(weights, "w", 2, (int64_t[]){2, 3}, &entry, &err), 0);
    weights_read(weights, entry, 0, 6, whole);
    for (size_t first = 0; first <= 6; first++) {
        for (size_t count = 0; count <= 6 - first; count++) {
            weights_read(weights, entry, first, count, part);
            assert_memory_equal(part, whole + first, count * sizeof(float));
        }
    }
    weights_close(weights);
}

static void test_int8_refusals(void **state)
{
    (void)state;
    struct safetensors_entry half = {
        .name = "half.scale", .dtype = DTYPE_F16, .rank = 1, .dim = {2}, .data = q};
    struct safetensors_entry entries[] = {I8_ENTRY("bare", 2, 3),
                                          I8_ENTRY("short", 2, 3),
                                          F32_ENTRY("short.scale", scales, 1),
                                          I8_ENTRY("square", 2, 1),
                                          F32_ENTRY("square.scale", scales, 2, 1),
                                          I8_ENTRY("half", 2, 3),
                                          half,
                                          {.name = "scalar", .dtype = DTYPE_I8, .data = q}};
    struct weights *weights = fixture_weights(entries, COUNT_OF(entries));
    expect_refusal(weights, "bare", 2, (int64_t[]){2, 3}, "'bare' is I8 and has no 'bare.scale'");
    expect_refusal(weights, "short", 2, (int64_t[]){2, 3},
                   "tensor 'short.scale' has shape [1], not [2]");
    expect_refusal(weights, "square", 2, (int64_t[]){2, 1},
                   "tensor 'square.scale' has shape [2, 1], not [2]");
    expect_refusal(weights, "half", 2, (int64_t[]){2, 3}, "tensor 'half.scale' is F16, not F32");
    expect_refusal(weights, "scalar", 0, NULL, "'scalar' is I8 and has no output to scale");
    weights_close(weights);
}

/* A layer of integers computes as one of the floats that they stand for. */
static void test_int8_layer(void **state)
{
    (void)state;
    static const enum dtype computes[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        if (!fixture_open(&f, computes[i], 1))
            continue;
        struct safetensors_entry entries[] = {I8_ENTRY("a.weight", 2, 3),
                                              F32_ENTRY("a.weight.scale", scales, 2)};
        struct weights *weights = fixture_weights(entries, 2);
        struct linear linear;
        struct err err = {0};
        assert_int_equal(linear_load(&linear, f.nn, weights, "a", 3, 2, false, &err), 0);
        assert_int_equal(weights_finish(weights, &err), 0);
        weights_close(weights);
        float y[2];
        struct tensor x = nn_from_f32(f.nn, ones, 2, (int64_t[]){1, 3});
        nn_to_f32(f.nn, nn_linear(f.nn, &linear, x, (struct linear_fuse){0}), y);
        assert_true(y[0] == 0 && y[1] == -250);
        linear_release(&linear);
        fixture_close(&f);
    }
}

/* A layer that cannot load leaves nothing behind, and names what is missing. */
static void test_layers_that_miss_weights(void **state)
{
    (void)state;
    struct fixture f;
    assert_true(fixture_open(&f, DTYPE_F32, 1));
    struct weights *weights = two_tensors();
    struct err err = {0};
    struct linear linear = {0};
    struct conv2d conv = {0};
    struct group_norm norm = {0};
    assert_int_equal(linear_load(&linear, f.nn, weights, "b", 6, 4, true, &err),
                     -(int)ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, "no tensor 'b.weight'"));
    assert_int_equal(conv2d_load(&conv, f.nn, weights, "a", 6, 4, 1, 1, 0, true, &err),
                     -(int)ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, "has shape [4, 6], not [4, 6, 1, 1]"));
    assert_int_equal(group_norm_load(&norm, f.nn, weights, "a", 7, 2, 1e-5f, &err),
                     -(int)ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, "7 channels do not split into 2 groups"));
    assert_int_equal(group_norm_load(&norm, f.nn, weights, "a", 4, 2, 1e-5f, &err),
                     -(int)ERR_INVALID_MODEL);
    linear_release(&linear);
    conv2d_release(&conv);
    group_norm_release(&norm);
    weights_close(weights);
    fixture_close(&f);
}

/* bf16 layers round f32 weights; f16 weights reach f32 layers exactly. */
static void test_layer_dtypes(void **state)
{
    (void)state;
    static const uint16_t f16[] = {0x3555}; /* 0.333251953125 */
    static const enum dtype computes[] = {DTYPE_F32, DTYPE_BF16};
    static const float expected[] = {0.333251953125f, 0.333984375f};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        if (!fixture_open(&f, computes[i], 1))
            continue;
        struct safetensors_entry entry = {
            .name = "a.weight", .dtype = DTYPE_F16, .rank = 2, .dim = {1, 1}, .data = f16};
        struct weights *weights = fixture_weights(&entry, 1);
        struct linear linear;
        struct err err = {0};
        assert_int_equal(linear_load(&linear, f.nn, weights, "a", 1, 1, false, &err), 0);
        weights_close(weights);
        float y;
        struct tensor x = nn_from_f32(f.nn, ones, 2, (int64_t[]){1, 1});
        nn_to_f32(f.nn, nn_linear(f.nn, &linear, x, (struct linear_fuse){0}), &y);
        assert_true(y == expected[i]);
        linear_release(&linear);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_take),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_int8_parts),
        cmocka_unit_test(test_int8_refusals),
        cmocka_unit_test(test_int8_layer),
        cmocka_unit_test(test_layers_that_miss_weights),
        cmocka_unit_test(test_layer_dtypes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
