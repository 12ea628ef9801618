/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bicubic resize as torch's with antialias: rows first, then columns. An axis is a table of taps:
 * for each output the first input, their number and their weights, which add up to 1 also at the
 * edges.
 */
#include "stages/resize.h"

#include <math.h>
#include <stdlib.h>

#define CUBIC_A       (-0.5f)
#define CUBIC_SUPPORT 2.0f /* the kernel is 0 from here on */

struct axis {
    int taps;       /* the most of any output */
    int *first;     /* [out] */
    int *count;     /* [out] */
    float *weights; /* [out][taps] */
};

static float cubic(float x)
{
    x = fabsf(x);
    if (x < 1.0f)
        return ((CUBIC_A + 2.0f) * x - (CUBIC_A + 3.0f)) * x * x + 1.0f;
    if (x < CUBIC_SUPPORT)
        return (((x - 5.0f) * x + 8.0f) * x - 4.0f) * CUBIC_A;
    return 0.0f;
}

static void axis_release(struct axis *axis)
{
    free(axis->first);
    free(axis->count);
    free(axis->weights);
}

/*
 * Shrinking stretches the kernel over `scale` inputs; enlarging leaves it as it is. Double and f32
 * alternate as in ATen, which decides the last digits at odd ratios.
 */
static void fill_taps(struct axis *axis, int o, int in, float scale)
{
    float stretch = scale > 1.0f ? scale : 1.0f;
    float inverse = 1.0f / stretch, support = CUBIC_SUPPORT * stretch;
    float center = (float)(scale * (o + 0.5));
    int first = (int)((double)(center - support) + 0.5),
        end = (int)((double)(center + support) + 0.5);
    first = first < 0 ? 0 : first;
    end = end > in ? in : end;
    float *weights = axis->weights + (size_t)o * (size_t)axis->taps, total = 0;
    for (int j = first; j < end; j++) {
        weights[j - first] = cubic((float)(((double)((float)j - center) + 0.5) * inverse));
        total += weights[j - first];
    }
    for (int j = 0; j < end - first; j++)
        weights[j] /= total;
    axis->first[o] = first;
    axis->count[o] = end - first;
}

static int axis_init(struct axis *axis, int in, int out, struct err *err)
{
    float scale = (float)in / (float)out;
    float support = CUBIC_SUPPORT * (scale > 1.0f ? scale : 1.0f);
    axis->taps = 2 * (int)ceilf(support) + 1;
    axis->first = malloc((size_t)out * sizeof(int));
    axis->count = malloc((size_t)out * sizeof(int));
    axis->weights = calloc((size_t)out * (size_t)axis->taps, sizeof(float));
    if (!axis->first || !axis->count || !axis->weights)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory to resize from %d to %d pixels", in, out);
    for (int o = 0; o < out; o++)
        fill_taps(axis, o, in, scale);
    return 0;
}

/*
 * Weighted sums of runs of n floats that lie `stride` apart: the pixels of a row (n = channels), or
 * whole rows (n = row).
 */
static void combine(const float *src, size_t stride, const float *weights, int count, float *dst,
                    size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = src[i] * weights[0];
    for (int j = 1; j < count; j++)
        for (size_t i = 0; i < n; i++)
            dst[i] += src[(size_t)j * stride + i] * weights[j];
}

static void resample(const struct axis *axis, const float *src, float *dst, int out, size_t n)
{
    for (int o = 0; o < out; o++)
        combine(src + (size_t)axis->first[o] * n, n, axis->weights + (size_t)o * (size_t)axis->taps,
                axis->count[o], dst + (size_t)o * n, n);
}

int resize_bicubic(const float *src, int ih, int iw, int c, float *dst, int oh, int ow,
                   struct err *err)
{
    BUG_ON(ih < 1 || iw < 1 || c < 1 || oh < 1 || ow < 1);
    struct axis rows = {0}, columns = {0};
    size_t in_row = (size_t)iw * (size_t)c, out_row = (size_t)ow * (size_t)c;
    float *wide = NULL; /* [ih][ow][c] */
    int result = axis_init(&columns, iw, ow, err);
    if (result == 0)
        result = axis_init(&rows, ih, oh, err);
    if (result == 0 && !(wide = malloc((size_t)ih * out_row * sizeof(float))))
        result = err_set(err, ERR_OUT_OF_MEMORY, "no memory for a picture of %dx%d", ow, ih);
    if (result == 0) {
        for (int y = 0; y < ih; y++)
            resample(&columns, src + (size_t)y * in_row, wide + (size_t)y * out_row, ow, (size_t)c);
        resample(&rows, wide, dst, oh, out_row);
    }
    free(wide);
    axis_release(&columns);
    axis_release(&rows);
    return result;
}
