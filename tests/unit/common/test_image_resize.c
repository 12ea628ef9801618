/* SPDX-License-Identifier: Apache-2.0 */
/* Lanczos-3: constants stay, gradients stay, known values, sizes and edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"

static float *resize(const float *src, int from, int to) /* owned */
{
    struct err err;
    float *dst = malloc((size_t)to * (size_t)to * 3 * sizeof *dst);
    assert_int_equal(image_resize_lanczos(src, from, dst, to, &err), 0);
    return dst;
}

static float *alloc(int size) /* owned */
{
    return malloc((size_t)size * (size_t)size * 3 * sizeof(float));
}

static void constants_stay(void **state)
{
    (void)state;
    static const int sizes[][2] = {{256, 1024}, {64, 64}, {1, 7}, {7, 1}, {50, 13}, {3, 200}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int from = sizes[i][0], to = sizes[i][1];
        float *src = alloc(from);
        for (int j = 0; j < from * from * 3; j++)
            src[j] = (float)(j % 3) * 0.5f - 0.5f;
        float *dst = resize(src, from, to);
        for (int j = 0; j < to * to * 3; j++)
            assert_true(fabsf(dst[j] - src[j % 3]) < 1e-5f);
        free(src);
        free(dst);
    }
}

/* Away from the edges a slope keeps its height at each place; rows and columns do the same. */
static void gradients_stay(void **state)
{
    (void)state;
    enum { FROM = 32, TO = 128 };
    float *src = alloc(FROM);
    for (int y = 0; y < FROM; y++)
        for (int x = 0; x < FROM; x++) {
            float *pixel = src + (y * FROM + x) * 3;
            pixel[0] = (float)x / FROM;
            pixel[1] = (float)y / FROM;
            pixel[2] = (float)(x + y) / FROM;
        }
    float *dst = resize(src, FROM, TO);
    for (int y = 16; y < TO - 16; y++)
        for (int x = 16; x < TO - 16; x++) {
            const float *pixel = dst + (y * TO + x) * 3;
            float wide = ((float)x + 0.5f) * FROM / TO - 0.5f;
            float high = ((float)y + 0.5f) * FROM / TO - 0.5f;
            assert_true(fabsf(pixel[0] - wide / FROM) < 1e-3f);
            assert_true(fabsf(pixel[1] - high / FROM) < 1e-3f);
            assert_true(fabsf(pixel[2] - pixel[0] - pixel[1]) < 1e-5f);
        }
    free(src);
    free(dst);
}

static void same_size_is_the_same(void **state)
{
    (void)state;
    float *src = alloc(9);
    for (int i = 0; i < 9 * 9 * 3; i++)
        src[i] = sinf((float)(i * i));
    float *dst = resize(src, 9, 9);
    for (int i = 0; i < 9 * 9 * 3; i++)
        assert_true(fabsf(dst[i] - src[i]) < 1e-6f);
    free(src);
    free(dst);
}

/* A single bright column, doubled: the kernel itself, by its formula, with its overshoot. */
static void impulse_shows_the_kernel(void **state)
{
    (void)state;
    enum { FROM = 16, TO = 32 };
    const double pi = acos(-1);
    float *src = alloc(FROM);
    memset(src, 0, FROM * FROM * 3 * sizeof *src);
    for (int y = 0; y < FROM; y++)
        src[(y * FROM + 8) * 3] = 1;
    float *dst = resize(src, FROM, TO);
    for (int x = 0; x < TO; x++) {
        double centre = (x + 0.5) / 2 - 0.5, sum = 0, weight = 0;
        for (int i = -10; i < FROM + 10; i++) {
            double d = i - centre;
            double w = d == 0        ? 1
                       : fabs(d) < 3 ? 3 * sin(pi * d) * sin(pi * d / 3) / (pi * pi * d * d)
                                     : 0;
            sum += w;
            if (i == 8)
                weight = w;
        }
        assert_true(fabs(dst[(5 * TO + x) * 3] - weight / sum) < 1e-6);
        assert_true(dst[(5 * TO + x) * 3 + 1] == 0);
    }
    free(src);
    free(dst);
}

/* Shrinking takes the mean of what a pixel covers: a fine checkerboard becomes grey. */
static void shrinking_does_not_alias(void **state)
{
    (void)state;
    enum { FROM = 64, TO = 16 };
    float *src = alloc(FROM);
    for (int y = 0; y < FROM; y++)
        for (int x = 0; x < FROM; x++)
            for (int c = 0; c < 3; c++)
                src[(y * FROM + x) * 3 + c] = (x + y) % 2 ? 1 : -1;
    float *dst = resize(src, FROM, TO);
    for (int y = 2; y < TO - 2; y++)
        for (int x = 2; x < TO - 2; x++)
            assert_true(fabsf(dst[(y * TO + x) * 3]) < 0.02f);
    free(src);
    free(dst);
}

/* --- bytes --- */

static uint8_t *resize_bytes(const uint8_t *src, int from, int channels, int to,
                             enum image_filter filter) /* owned */
{
    struct err err;
    uint8_t *dst = malloc((size_t)to * (size_t)to * (size_t)channels);
    assert_int_equal(image_resize_bytes(src, from, channels, dst, to, filter, &err), 0);
    return dst;
}

static void bytes_of_the_size_are_copied(void **state)
{
    (void)state;
    uint8_t src[8 * 8 * 3];
    for (size_t i = 0; i < sizeof src; i++)
        src[i] = (uint8_t)(i * 83);
    uint8_t *dst = resize_bytes(src, 8, 3, 8, IMAGE_LANCZOS);
    assert_memory_equal(dst, src, sizeof src);
    free(dst);
}

/* The bytes are the floats, rounded. */
static void bytes_are_as_floats(void **state)
{
    (void)state;
    enum { FROM = 20 };
    static const int sizes[] = {7, 20, 33, 64};
    uint8_t src[FROM * FROM * 3];
    float *floats = alloc(FROM);
    for (int i = 0; i < FROM * FROM * 3; i++) {
        src[i] = (uint8_t)(i * i * 31 + i / 5);
        floats[i] = src[i];
    }
    for (size_t s = 1; s < sizeof sizes / sizeof *sizes; s++) {
        int to = sizes[s];
        float *wanted = resize(floats, FROM, to);
        uint8_t *got = resize_bytes(src, FROM, 3, to, IMAGE_LANCZOS);
        for (int i = 0; i < to * to * 3; i++)
            assert_int_equal(got[i], (int)lrintf(fminf(fmaxf(wanted[i], 0), 255)));
        free(wanted);
        free(got);
    }
    free(floats);
}

static void a_triangle_does_not_overshoot(void **state)
{
    (void)state;
    uint8_t src[10 * 10];
    for (int i = 0; i < 100; i++)
        src[i] = i % 10 < 5 ? 50 : 200;
    uint8_t *large = resize_bytes(src, 10, 1, 73, IMAGE_TRIANGLE);
    for (int i = 0; i < 73 * 73; i++)
        assert_in_range(large[i], 50, 200);
    uint8_t *small = resize_bytes(src, 10, 1, 2, IMAGE_TRIANGLE);
    assert_in_range(small[0], 50, 124);
    assert_in_range(small[1], 126, 200);
    free(large);
    free(small);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constants_stay),           cmocka_unit_test(gradients_stay),
        cmocka_unit_test(same_size_is_the_same),    cmocka_unit_test(impulse_shows_the_kernel),
        cmocka_unit_test(shrinking_does_not_alias), cmocka_unit_test(bytes_of_the_size_are_copied),
        cmocka_unit_test(bytes_are_as_floats),      cmocka_unit_test(a_triangle_does_not_overshoot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
