/* SPDX-License-Identifier: Apache-2.0 */
/* The resize against its naive twin, and what holds of every resize. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "stages/resize.h"
#include "stages/rng.h"

struct shape {
    int ih, iw, c, oh, ow;
};

static const struct shape shapes[] = {
    {8, 8, 3, 32, 32}, {5, 7, 2, 12, 9}, {24, 20, 3, 10, 7}, {1, 1, 3, 4, 4},
    {3, 1, 1, 6, 5},   {1, 9, 1, 1, 2},  {13, 17, 4, 1, 1},  {16, 16, 1, 13, 31},
};
#define SHAPES (sizeof shapes / sizeof *shapes)

static size_t in_count(const struct shape *s)
{
    return (size_t)(s->ih * s->iw * s->c);
}

static size_t out_count(const struct shape *s)
{
    return (size_t)(s->oh * s->ow * s->c);
}

static float *random_picture(const struct shape *s)
{
    struct rng rng;
    float *src = malloc(in_count(s) * sizeof *src);
    rng_seed(&rng, (uint64_t)(s->ih * 100 + s->iw));
    rng_normal(&rng, src, in_count(s));
    return src;
}

static float *resize(const struct shape *s, const float *src)
{
    struct err err;
    float *dst = malloc(out_count(s) * sizeof *dst);
    assert_int_equal(resize_bicubic(src, s->ih, s->iw, s->c, dst, s->oh, s->ow, &err), 0);
    return dst;
}

static double cubic(double x)
{
    x = fabs(x);
    if (x < 1)
        return 1.5 * x * x * x - 2.5 * x * x + 1;
    return x < 2 ? -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2 : 0;
}

/* The weight of input j for output o along an axis, not yet divided by their sum. */
static double weight(int o, int j, int in, int out)
{
    double scale = (double)in / out, stretch = fmax(scale, 1);
    return cubic((j + 0.5 - scale * (o + 0.5)) / stretch);
}

static double pixel_naive(const struct shape *s, const float *src, int y, int x, int k)
{
    double sum = 0, total = 0;
    for (int i = 0; i < s->ih; i++)
        for (int j = 0; j < s->iw; j++) {
            double w = weight(y, i, s->ih, s->oh) * weight(x, j, s->iw, s->ow);
            sum += w * (double)src[(i * s->iw + j) * s->c + k];
            total += w;
        }
    return sum / total;
}

static void test_naive(void **state)
{
    (void)state;
    for (size_t n = 0; n < SHAPES; n++) {
        const struct shape *s = &shapes[n];
        float *src = random_picture(s), *dst = resize(s, src);
        for (int i = 0; i < (int)out_count(s); i++) {
            double want = pixel_naive(s, src, i / s->c / s->ow, i / s->c % s->ow, i % s->c);
            if (!(fabs((double)dst[i] - want) <= 5e-6))
                fail_msg("shape %zu, value %d is %.9g instead of %.9g", n, i, (double)dst[i], want);
        }
        free(src);
        free(dst);
    }
}

static void test_same_size(void **state)
{
    (void)state;
    const struct shape s = {7, 5, 3, 7, 5};
    float *src = random_picture(&s), *dst = resize(&s, src);
    assert_memory_equal(src, dst, in_count(&s) * sizeof *src);
    free(src);
    free(dst);
}

static void test_constant(void **state)
{
    (void)state;
    for (size_t n = 0; n < SHAPES; n++) {
        float *src = malloc(in_count(&shapes[n]) * sizeof *src);
        for (size_t i = 0; i < in_count(&shapes[n]); i++)
            src[i] = 0.75f;
        float *dst = resize(&shapes[n], src);
        for (size_t i = 0; i < out_count(&shapes[n]); i++)
            assert_true(fabsf(dst[i] - 0.75f) <= 5e-7f);
        free(src);
        free(dst);
    }
}

/* Channels do not touch each other: three at once are each as alone. */
static void test_channels(void **state)
{
    (void)state;
    const struct shape three = {6, 5, 3, 24, 20}, one = {6, 5, 1, 24, 20};
    float *src = random_picture(&three), *dst = resize(&three, src);
    for (int k = 0; k < 3; k++) {
        float channel[30];
        for (int i = 0; i < 30; i++)
            channel[i] = src[i * 3 + k];
        float *alone = resize(&one, channel);
        for (size_t i = 0; i < out_count(&one); i++)
            assert_true(alone[i] == dst[i * 3 + (size_t)k]);
        free(alone);
    }
    free(src);
    free(dst);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naive),
        cmocka_unit_test(test_same_size),
        cmocka_unit_test(test_constant),
        cmocka_unit_test(test_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
