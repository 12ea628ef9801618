/* SPDX-License-Identifier: Apache-2.0 */
/* stages/resize.c against torch's bicubic resize with antialias, within 1e-6. */
#include "exact.h"

#include "stages/resize.h"

#define LIMIT 1e-6

/* Between torch's [c, h, w] and our [h, w, c]. */
static float *to_nhwc(const float *chw, int c, int h, int w)
{
    float *hwc = malloc((size_t)(c * h * w) * sizeof *hwc);
    for (int k = 0; k < c; k++)
        for (int i = 0; i < h * w; i++)
            hwc[i * c + k] = chw[k * h * w + i];
    return hwc;
}

static float *to_nchw(const float *hwc, int c, int h, int w)
{
    float *chw = malloc((size_t)(c * h * w) * sizeof *chw);
    for (int k = 0; k < c; k++)
        for (int i = 0; i < h * w; i++)
            chw[k * h * w + i] = hwc[i * c + k];
    return chw;
}

/* A large output is given as every stride-th value and the sums of each channel. */
static void assert_sampled(const struct golden *golden, const float *y, int c, int pixels)
{
    const struct safetensors_entry *sample = golden_typed(golden, "out.y.sample", DTYPE_F32);
    const float *want = sample->data, *sums = golden_f32(golden, "out.y.sum");
    size_t stride = (size_t)golden_i64(golden, "out.y.stride")[0];
    for (size_t i = 0; i < golden_count(sample); i++)
        golden_assert_near(&y[i * stride], &want[i], 1, LIMIT, "sample");
    for (int k = 0; k < c; k++) {
        double sum = 0;
        for (int i = 0; i < pixels; i++)
            sum += (double)y[k * pixels + i];
        assert_true(fabs(sum - (double)sums[k]) <= LIMIT * pixels);
    }
}

static void check(const char *name)
{
    struct golden golden = golden_open(name);
    const struct safetensors_entry *in = golden_typed(&golden, "in.x", DTYPE_F32);
    const struct safetensors_entry *out = safetensors_find(golden.file, "out.y");
    int64_t shape[4];
    memcpy(shape, out ? out->dim : golden_i64(&golden, "out.y.shape"), sizeof shape);
    int c = (int)in->dim[1], ih = (int)in->dim[2], iw = (int)in->dim[3];
    int oh = (int)shape[2], ow = (int)shape[3];
    float *src = to_nhwc(in->data, c, ih, iw);
    float *dst = malloc((size_t)(oh * ow * c) * sizeof *dst);
    struct err err;
    assert_int_equal(resize_bicubic(src, ih, iw, c, dst, oh, ow, &err), 0);
    float *y = to_nchw(dst, c, oh, ow);
    if (out)
        golden_assert_near(y, golden_f32(&golden, "out.y"), golden_count(out), LIMIT, name);
    else
        assert_sampled(&golden, y, c, oh * ow);
    free(y);
    free(dst);
    free(src);
    golden_close(&golden);
}

static void test_cases(void **state)
{
    (void)state;
    golden_each("resize-*.safetensors", 5, check);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
