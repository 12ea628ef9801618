/* SPDX-License-Identifier: Apache-2.0 */
/* The compute context: scopes and the pool, the sticky error, tensors and conversions. */
#include "common/memory.h"
#include "nn_fixture.h"

#include "stages/nn/context.h"

static struct nn *open_f32(void)
{
    struct nn *nn;
    struct err err = {0};
    assert_int_equal(nn_open(&nn, DTYPE_F32, 1, &err), 0);
    return nn;
}

static void test_open(void **state)
{
    (void)state;
    struct nn *nn;
    struct err err = {0};
    assert_int_equal(nn_open(&nn, DTYPE_F16, 1, &err), -(int)ERR_UNSUPPORTED);
    assert_string_equal(err.text, "cannot compute in F16: use f32 or bf16");
    assert_int_equal(nn_open(&nn, DTYPE_F32, 0, &err), 0);
    assert_true(nn_threads(nn) >= 1);
    nn_set_threads(nn, 3);
    assert_int_equal(nn_threads(nn), 3);
    assert_int_equal(nn_dtype(nn), DTYPE_F32);
    nn_close(nn);
    nn_close(NULL);
    if (nn_cpu_has_bf16()) {
        assert_int_equal(nn_open(&nn, DTYPE_BF16, 1, &err), 0);
        assert_int_equal(nn_dtype(nn), DTYPE_BF16);
        nn_close(nn);
    }
    assert_true(strchr(nn_library_version(), '.') != NULL);
}

static void test_scopes(void **state)
{
    (void)state;
    struct nn *nn = open_f32();
    size_t outer = nn_enter(nn);
    struct tensor a = NN_NEW(nn, DTYPE_F32, 10);
    size_t inner = nn_enter(nn);
    struct tensor b = NN_NEW(nn, DTYPE_F32, 20);
    struct tensor c = NN_NEW(nn, DTYPE_F32, 4, 5);
    assert_int_equal(nn->pool.live_count, 3);
    /* what is kept may have another shape by now */
    struct tensor kept = nn_leave(nn, inner, TENSOR_RESHAPE(c, 5, 2, 2));
    assert_ptr_equal(kept.data, c.data);
    assert_int_equal(kept.rank, 3);
    assert_int_equal(nn->pool.live_count, 2);
    /* b's memory is free again */
    struct tensor d = NN_NEW(nn, DTYPE_F32, 20);
    assert_ptr_equal(d.data, b.data);
    /* one of an outer scope may be kept, too */
    inner = nn_enter(nn);
    NN_NEW(nn, DTYPE_F32, 3);
    assert_ptr_equal(nn_leave(nn, inner, a).data, a.data);
    assert_int_equal(nn->pool.live_count, 3);
    nn_drop(nn, &a);
    assert_true(tensor_empty(a));
    nn_drop(nn, &a);
    assert_int_equal(nn->pool.live_count, 2);
    nn_leave_all(nn, outer);
    assert_int_equal(nn->pool.live_count, 0);
    assert_int_equal(nn->pool.used_bytes, 0);
    nn_close(nn);
}

static void one_pass(struct nn *nn)
{
    size_t scope = nn_enter(nn);
    for (int64_t i = 1; i < 60; i++) {
        size_t inner = nn_enter(nn);
        struct tensor a = NN_NEW(nn, DTYPE_F32, i * 37 % 23 + 1, 100);
        NN_NEW(nn, DTYPE_F32, i * 17 % 31 + 1, 100);
        nn_leave(nn, inner, i % 4 == 0 ? a : (struct tensor){0});
    }
    nn_leave_all(nn, scope);
}

/* After a first pass, equal passes take nothing from the system. */
static void test_pool_reuse(void **state)
{
    (void)state;
    struct nn *nn = open_f32();
    one_pass(nn);
    size_t owned = nn->pool.owned_bytes, peak = nn->pool.peak_bytes;
    for (int i = 0; i < 1000; i++)
        one_pass(nn);
    assert_int_equal(nn->pool.owned_bytes, owned);
    assert_int_equal(nn->pool.peak_bytes, peak);
    nn_close(nn);
}

/* What no pass has used for long goes back to the system. */
static void test_pool_trim(void **state)
{
    (void)state;
    struct nn *nn = open_f32();
    size_t scope = nn_enter(nn);
    struct tensor old = NN_NEW(nn, DTYPE_F32, 3);
    NN_NEW(nn, DTYPE_F32, 1 << 20);
    nn_leave(nn, scope, old);
    assert_true(nn->pool.owned_bytes > 4 << 20);
    scope = nn_enter(nn);
    for (int i = 0; i < 40000; i++) {
        NN_NEW(nn, DTYPE_F32, 7);
        nn_leave_all(nn, scope);
    }
    /* it never served for a small tensor, so it went */
    NN_NEW(nn, DTYPE_F32, 7);
    assert_true(nn->pool.owned_bytes < 1 << 20);
    assert_int_equal(nn->pool.live_count, 2);
    nn_close(nn);
}

static void test_alignment(void **state)
{
    (void)state;
    struct nn *nn = open_f32();
    for (int64_t count = 1; count < (int64_t)8 << 20; count = count * 3 + 1)
        assert_int_equal((uintptr_t)NN_NEW(nn, DTYPE_F32, count).data % MEMORY_ALIGNMENT, 0);
    nn_close(nn);
}

static void test_sticky_error(void **state)
{
    (void)state;
    struct nn *nn = open_f32();
    struct err err = {0};
    assert_int_equal(nn_finish(nn, &err), 0);
    assert_int_equal(err.code, ERR_OK);
    assert_int_equal(nn_fail(nn, ERR_COMPUTE, "first %d", 1), -(int)ERR_COMPUTE);
    assert_int_equal(nn_fail(nn, ERR_IO, "second"), -(int)ERR_COMPUTE);
    assert_true(tensor_empty(NN_NEW(nn, DTYPE_F32, 4)));
    assert_true(nn_failed(nn));
    assert_int_equal(nn_finish(nn, &err), -(int)ERR_COMPUTE);
    assert_string_equal(err.text, "first 1");
    assert_false(nn_failed(nn));
    assert_false(tensor_empty(NN_NEW(nn, DTYPE_F32, 4)));
    nn_close(nn);
}

static void test_impossible_tensors(void **state)
{
    (void)state;
    struct nn *nn = open_f32();
    struct err err = {0};
    assert_true(tensor_empty(NN_NEW(nn, DTYPE_F32, 4, 0)));
    assert_int_equal(nn_finish(nn, &err), -(int)ERR_COMPUTE);
    assert_true(tensor_empty(NN_NEW(nn, DTYPE_F32, INT64_MAX, INT64_MAX)));
    assert_int_equal(nn_finish(nn, &err), -(int)ERR_COMPUTE);
    assert_true(tensor_empty(NN_NEW(nn, DTYPE_U8, INT64_MAX)));
    assert_int_equal(nn_finish(nn, &err), -(int)ERR_OUT_OF_MEMORY);
    assert_non_null(strstr(err.text, "no memory for a tensor of"));
    nn_close(nn);
}

static void test_from_and_to_f32(void **state)
{
    (void)state;
    struct fixture f;
    if (!fixture_open(&f, DTYPE_BF16, 1))
        return;
    float in[] = {1, -2.5f, 3.14159265f, 1e-40f, 0}, out[5];
    struct tensor x = nn_from_f32(f.nn, in, 1, (int64_t[]){5});
    assert_int_equal(x.dtype, DTYPE_BF16);
    nn_to_f32(f.nn, x, out);
    assert_true(out[0] == 1 && out[1] == -2.5f && out[2] == 3.140625f && out[4] == 0);
    fixture_close(&f);
}

static void test_reshape(void **state)
{
    (void)state;
    struct nn *nn = open_f32();
    struct tensor x = NN_NEW(nn, DTYPE_F32, 2, 3, 4);
    assert_int_equal(tensor_count(x), 24);
    struct tensor y = TENSOR_RESHAPE(x, 2, 12);
    assert_int_equal(y.rank, 2);
    assert_int_equal(y.dim[1], 12);
    assert_int_equal(y.dim[2], 0);
    assert_true(tensor_empty(TENSOR_RESHAPE(((struct tensor){0}), 5)));
    assert_int_equal(tensor_count((struct tensor){0}), 0);
    nn_close(nn);
}

/* --- conversions --- */

/* f16 by its definition. */
static double half_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double sign = bits >> 15 ? -1 : 1;
    if (exponent == 31)
        return fraction ? NAN : sign * INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static void test_every_f16(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= 0xffff; i++) {
        uint16_t half = (uint16_t)i;
        float value;
        convert_to_f32(&value, &half, DTYPE_F16, 1);
        double expected = half_value(half);
        assert_true(isnan(expected) ? isnan(value) : (double)value == expected);
        assert_int_equal(signbit(value) != 0, i >> 15);
    }
}

static void test_bf16_rounding(void **state)
{
    (void)state;
    static const struct {
        uint32_t f32;
        uint16_t bf16;
    } cases[] = {
        {0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82},
        {0x3f817fff, 0x3f81}, {0x7f7fffff, 0x7f80}, {0x7f800000, 0x7f80}, {0xff800000, 0xff80},
        {0x7f800001, 0x7fc0}, {0xffffffff, 0xffff}, {0x80000000, 0x8000}, {0x00008000, 0x0000},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        float value;
        uint16_t half;
        memcpy(&value, &cases[i].f32, sizeof(value));
        convert_f32_to_bf16(&half, &value, 1);
        assert_int_equal(half, cases[i].bf16);
    }
}

/* Unaligned sources, of counts around the chunks' size. */
static void test_unaligned(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 1023, 1024, 1025, 3000};
    unsigned char *bytes = xmalloc(3000 * 8 + 1);
    float out[3000];
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        for (size_t j = 0; j < counts[i]; j++) {
            double value = (double)j / 4;
            memcpy(bytes + 1 + j * 8, &value, sizeof(value));
        }
        convert_to_f32(out, bytes + 1, DTYPE_F64, counts[i]);
        for (size_t j = 0; j < counts[i]; j++)
            assert_true(out[j] == (float)j / 4);
        convert_to_f32(out, bytes + 1, DTYPE_F32, counts[i]);
        convert_to_f32(out, bytes + 1, DTYPE_BF16, counts[i]);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_pool_reuse),
        cmocka_unit_test(test_pool_trim),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_sticky_error),
        cmocka_unit_test(test_impossible_tensors),
        cmocka_unit_test(test_from_and_to_f32),
        cmocka_unit_test(test_reshape),
        cmocka_unit_test(test_every_f16),
        cmocka_unit_test(test_bf16_rounding),
        cmocka_unit_test(test_unaligned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
