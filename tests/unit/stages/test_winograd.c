/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 3x3 convolutions of the shapes that stages/nn/winograd.h takes, where its fixed-point numbers
 * could go wrong: ends of pictures and of segments, sums as large as they can get, values of very
 * different sizes, and values that are none. (Elsewhere than on AVX-512 these are direct.)
 */
#include "nn_fixture.h"

struct shape {
    int64_t n, h, w, ic, oc;
};

static int64_t in_count(const struct shape *s)
{
    return s->n * s->h * s->w * s->ic;
}

static int64_t out_count(const struct shape *s)
{
    return s->n * s->h * s->w * s->oc;
}

static void load(struct fixture *f, struct conv2d *conv, const struct shape *s, const float *w)
{
    struct safetensors_entry entries[] = {F32_ENTRY("c.weight", w, s->oc, s->ic, 3, 3)};
    struct weights *weights = fixture_weights(entries, 1);
    struct err err = {0};
    assert_int_equal(conv2d_load(conv, f->nn, weights, "c", s->ic, s->oc, 3, 1, 1, false, &err), 0);
    weights_close(weights);
}

static struct tensor run(struct fixture *f, struct conv2d *conv, const struct shape *s,
                         const float *x)
{
    struct tensor in = nn_from_f32(f->nn, x, 4, (int64_t[]){s->n, s->h, s->w, s->ic});
    return nn_conv2d(f->nn, conv, in, (struct conv_fuse){0});
}

/* Holds the convolution of x with w, which it frees, against the naive twin's. */
static void check(struct fixture *f, enum limit limit, const struct shape *s, float *x, float *w,
                  const char *what)
{
    char text[128];
    snprintf(text, sizeof(text), "%s %lldx%lldx%lld %lld->%lld", what, (long long)s->n,
             (long long)s->h, (long long)s->w, (long long)s->ic, (long long)s->oc);
    float *expected = xmalloc((unsigned long)out_count(s) * sizeof(float));
    struct ref_conv ref = {s->n, s->h, s->w, s->ic, s->oc, 3, 1, 1, x, w};
    ref_conv2d(expected, &ref);
    struct conv2d conv;
    load(f, &conv, s, w);
    size_t scope = nn_enter(f->nn);
    fixture_check(f, limit, run(f, &conv, s, x), expected, text);
    nn_leave_all(f->nn, scope);
    conv2d_release(&conv);
    free(x);
    free(w);
    free(expected);
}

static float *random_in(struct fixture *f, const struct shape *s)
{
    return fixture_values(f, in_count(s), 1, 0);
}

static float *random_weights(struct fixture *f, const struct shape *s)
{
    return fixture_values(f, s->oc * s->ic * 9, 0.3f, 0);
}

/* Pictures that end within a tile, groups of 1 to 4 vectors of outputs, one segment and several. */
static void shapes_body(struct fixture *f)
{
    static const struct shape shapes[] = {
        {1, 8, 8, 64, 64},     {2, 17, 23, 96, 80},  {1, 9, 11, 352, 96},  {3, 16, 16, 64, 112},
        {1, 8, 9, 320, 64},    {1, 10, 7, 640, 112}, {1, 1, 64, 64, 64},   {1, 64, 1, 64, 64},
        {5, 8, 8, 160, 1280},  {1, 61, 67, 64, 64},  {2, 32, 32, 352, 64}, /* several blocks of
                                                                              tiles and several
                                                                              spans */
        {1, 36, 36, 1280, 64},                                             /* several chunks */
        {1, 8, 8, 32, 32},     {1, 41, 40, 32, 256}, {1, 64, 1, 32, 48},
    };
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
        check(f, LIMIT_WINOGRAD, &shapes[i], random_in(f, &shapes[i]),
              random_weights(f, &shapes[i]), "shape");
}

static void test_shapes(void **state)
{
    (void)state;
    fixture_each_dtype(shapes_body);
}

/* Weights that change little from one tap to the next: a blur, and a slope. */
static void smooth_body(struct fixture *f)
{
    static const struct shape s = {1, 12, 12, 320, 64};
    static const float lines[][3] = {{1, 2, 1}, {1, 2, 4}, {1, 1, 1}};
    for (size_t i = 0; i < COUNT_OF(lines); i++) {
        float *w = random_weights(f, &s);
        for (int64_t kernel = 0; kernel < s.oc * s.ic; kernel++)
            for (int64_t tap = 8; tap >= 0; tap--)
                w[kernel * 9 + tap] =
                    fixture_exact(f, w[kernel * 9] * lines[i][tap / 3] * lines[i][tap % 3]);
        check(f, LIMIT_CONV2D_SUMS, &s, random_in(f, &s), w, "smooth");
    }
}

static void test_smooth(void **state)
{
    (void)state;
    fixture_each_dtype(smooth_body);
}

/* One pixel alone, the same in all channels: with weights that are all alike its products have the
 * largest sums that the norms of V and U allow. */
static float *one_pixel(struct fixture *f, const struct shape *s)
{
    float *x = fixture_values(f, in_count(s), 0, 0);
    for (int64_t c = 0; c < s->ic; c++)
        x[c] = fixture_exact(f, 3);
    return x;
}

static void largest_sums_body(struct fixture *f)
{
    static const struct shape shapes[] = {
        {1, 12, 12, 64, 64}, {1, 12, 12, 320, 64}, {1, 12, 12, 960, 64}};
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
        for (int sign = -1; sign <= 1; sign += 2) {
            float weight = 0.7f * (float)sign;
            int64_t weights = shapes[i].oc * shapes[i].ic * 9;
            check(f, LIMIT_CONV2D_SUMS, &shapes[i], fixture_values(f, in_count(&shapes[i]), 0, 3),
                  fixture_values(f, weights, 0, weight), "all alike");
            check(f, LIMIT_CONV2D_SUMS, &shapes[i], one_pixel(f, &shapes[i]),
                  fixture_values(f, weights, 0, weight), "one pixel");
        }
}

static void test_largest_sums(void **state)
{
    (void)state;
    fixture_each_dtype(largest_sums_body);
}

/* Channel 5 of all pixels. */
static void enlarge_channel(struct fixture *f, const struct shape *s, float *x, float factor)
{
    for (int64_t i = 5; i < in_count(s); i += s->ic)
        x[i] = fixture_exact(f, x[i] * factor);
}

/* Very small and very large values, and one channel that outweighs the others. */
static void sizes_body(struct fixture *f)
{
    static const struct shape s = {1, 12, 12, 64, 64};
    static const float scales[] = {1e-15f, 1e-6f, 1e6f, 1e15f};
    for (size_t i = 0; i < COUNT_OF(scales); i++)
        check(f, LIMIT_WINOGRAD, &s, fixture_values(f, in_count(&s), scales[i], 0),
              random_weights(f, &s), "size");
    for (size_t i = 0; i < COUNT_OF(scales); i++)
        check(f, LIMIT_WINOGRAD, &s, random_in(f, &s),
              fixture_values(f, s.oc * s.ic * 9, scales[i], 0), "size of weights");
    float *x = random_in(f, &s), *w = random_weights(f, &s);
    enlarge_channel(f, &s, x, 1000);
    check(f, LIMIT_WINOGRAD, &s, x, w, "a large channel");
    for (int share = 0; share <= 1; share++) { /* a large channel that adds little, or nothing */
        x = random_in(f, &s);
        w = random_weights(f, &s);
        enlarge_channel(f, &s, x, 10000);
        for (int64_t i = 5 * 9; i < s.oc * s.ic * 9; i += s.ic * 9)
            for (int64_t tap = 0; tap < 9; tap++)
                w[i + tap] = fixture_exact(f, w[i + tap] * (float)share / 10000);
        check(f, LIMIT_WINOGRAD, &s, x, w, "a large channel of small weights");
    }
}

/*
 * One channel, of the first of several segments, far larger than the others, and one weight. A sum
 * of few terms has no others that their errors could cancel with.
 */
static void outliers_body(struct fixture *f)
{
    static const struct shape s = {1, 12, 12, 320, 64}, few = {1, 12, 12, 64, 64};
    float *x = random_in(f, &s), *w = random_weights(f, &s);
    enlarge_channel(f, &s, x, 1000);
    check(f, LIMIT_CONV2D_SUMS, &s, x, w, "a large channel of several segments");
    w = random_weights(f, &s);
    for (int64_t tap = 0; tap < 9; tap++) /* of one output */
        w[(3 * s.ic + 5) * 9 + tap] = fixture_exact(f, w[(3 * s.ic + 5) * 9 + tap] * 1000);
    check(f, LIMIT_CONV2D_SUMS, &s, random_in(f, &s), w, "large weights of several segments");
    w = random_weights(f, &few);
    for (int64_t output = 0; output < few.oc; output++)
        w[(output * few.ic + output) * 9 + 4] = fixture_exact(f, 30);
    check(f, LIMIT_WINOGRAD, &few, random_in(f, &few), w, "a large weight");
}

static void test_outliers(void **state)
{
    (void)state;
    fixture_each_dtype(outliers_body);
}

/* Values whose squares f32 cannot hold: their norms are only bounded then. */
static void squares_body(struct fixture *f)
{
    static const struct shape s = {1, 12, 12, 64, 64};
    static const float scales[] = {1e-25f, 1e-23f, 1e17f, 1e19f};
    for (size_t i = 0; i < COUNT_OF(scales); i++) {
        check(f, LIMIT_CONV2D_SUMS, &s, fixture_values(f, in_count(&s), scales[i], 0),
              random_weights(f, &s), "squares");
        check(f, LIMIT_CONV2D_SUMS, &s, random_in(f, &s),
              fixture_values(f, s.oc * s.ic * 9, scales[i], 0), "squares of weights");
    }
}

static void test_squares(void **state)
{
    (void)state;
    fixture_each_dtype(squares_body);
}

static void test_sizes(void **state)
{
    (void)state;
    fixture_each_dtype(sizes_body);
}

static float *results(struct fixture *f, const struct shape *s, const float *x, const float *w)
{
    float *values = xmalloc((unsigned long)out_count(s) * sizeof(float));
    struct conv2d conv;
    load(f, &conv, s, w);
    size_t scope = nn_enter(f->nn);
    nn_to_f32(f->nn, run(f, &conv, s, x), values);
    nn_leave_all(f->nn, scope);
    conv2d_release(&conv);
    return values;
}

/* Zeros give zeros: of the picture, of the weights, of both. */
static void zeros_body(struct fixture *f)
{
    static const struct shape s = {1, 12, 12, 64, 64};
    for (int i = 0; i < 3; i++) {
        float *x = fixture_values(f, in_count(&s), i == 1, 0);
        float *w = fixture_values(f, s.oc * s.ic * 9, i == 0, 0);
        float *y = results(f, &s, x, w);
        for (int64_t k = 0; k < out_count(&s); k++)
            assert_true(y[k] == 0);
        free(x);
        free(w);
        free(y);
    }
}

static void test_zeros(void **state)
{
    (void)state;
    fixture_each_dtype(zeros_body);
}

/* What is not finite stays so where it counts, and leaves what is far from it alone. */
static void not_finite_body(struct fixture *f)
{
    static const struct shape s = {1, 16, 16, 160, 64}; /* two segments */
    static const struct {
        float value;
        int64_t channel;
    } cases[] = {{NAN, 7},   {INFINITY, 7},   {-INFINITY, 7},
                 {NAN, 150}, {INFINITY, 150}, {-INFINITY, 150}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        float *x = random_in(f, &s), *w = random_weights(f, &s);
        x[((2 * s.w) + 2) * s.ic + cases[i].channel] = cases[i].value;
        float *y = results(f, &s, x, w);
        for (int64_t pixel = 0; pixel < s.h * s.w; pixel++) {
            int64_t row = pixel / s.w, column = pixel % s.w;
            for (int64_t c = 0; c < s.oc; c++) {
                if (row >= 1 && row <= 3 && column >= 1 && column <= 3)
                    assert_false(isfinite(y[pixel * s.oc + c]));
                if (row >= 8 || column >= 8)
                    assert_true(isfinite(y[pixel * s.oc + c]));
            }
        }
        free(x);
        free(y);
        x = random_in(f, &s);
        w[(3 * s.ic + cases[i].channel) * 9 + 4] = cases[i].value;
        y = results(f, &s, x, w);
        for (int64_t pixel = 0; pixel < s.h * s.w; pixel++)
            for (int64_t c = 0; c < s.oc; c++)
                assert_int_equal(isfinite(y[pixel * s.oc + c]) != 0, c != 3);
        free(x);
        free(w);
        free(y);
    }
}

static void test_not_finite(void **state)
{
    (void)state;
    fixture_each_dtype(not_finite_body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),     cmocka_unit_test(test_largest_sums),
        cmocka_unit_test(test_sizes),      cmocka_unit_test(test_zeros),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_squares),
        cmocka_unit_test(test_smooth),     cmocka_unit_test(test_outliers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
