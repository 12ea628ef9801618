/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanczos-3 (and a triangle for masks), separable: rows first, then columns. libvips is not used
 * here, because its resize falls back to bicubic when it enlarges. Sums run in a fixed order, so
 * that equal input gives equal bits.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"

#define LOBES    3
#define CHANNELS 3
#define PI       3.14159265358979323846

/* For each output position its taps: weights that sum to 1, from input position `first` on. */
struct filter {
    int taps;
    int *first;     /* [to], may lie outside; positions are clamped to the edge */
    float *weights; /* [to][taps] */
};

static double sinc(double x)
{
    return x == 0 ? 1 : sin(PI * x) / (PI * x);
}

static double lanczos(double x)
{
    return fabs(x) < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

static double triangle(double x)
{
    return fabs(x) < 1 ? 1 - fabs(x) : 0;
}

static void filter_release(struct filter *filter)
{
    free(filter->first);
    free(filter->weights);
}

static int filter_init(struct filter *filter, enum image_filter kind, int from, int to,
                       struct err *err)
{
    double (*kernel)(double) = kind == IMAGE_LANCZOS ? lanczos : triangle;
    double scale = (double)from / to, width = scale > 1 ? scale : 1; /* wider when shrinking */
    filter->taps = 2 * (int)ceil(LOBES * width) + 1;
    filter->first = malloc((size_t)to * sizeof *filter->first);
    filter->weights = malloc((size_t)to * (size_t)filter->taps * sizeof *filter->weights);
    if (!filter->first || !filter->weights) {
        filter_release(filter);
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a resize from %d to %d", from, to);
    }
    for (int i = 0; i < to; i++) {
        double centre = (i + 0.5) * scale - 0.5, sum = 0;
        float *weights = filter->weights + (size_t)i * (size_t)filter->taps;
        filter->first[i] = (int)floor(centre) - filter->taps / 2;
        for (int tap = 0; tap < filter->taps; tap++)
            sum += kernel((filter->first[i] + tap - centre) / width);
        for (int tap = 0; tap < filter->taps; tap++)
            weights[tap] = (float)(kernel((filter->first[i] + tap - centre) / width) / sum);
    }
    return 0;
}

static int clamp(int position, int size)
{
    return position < 0 ? 0 : position >= size ? size - 1 : position;
}

/*
 * One line of `from` pixels to `to`; pixels of a line are `step` floats apart in src, `out` in dst.
 */
static void resize_line(const struct filter *filter, int channels, const float *src, int from,
                        size_t step, float *dst, int to, size_t out)
{
    for (int i = 0; i < to; i++) {
        const float *weights = filter->weights + (size_t)i * (size_t)filter->taps;
        float sum[CHANNELS] = {0};
        for (int tap = 0; tap < filter->taps; tap++) {
            const float *pixel = src + (size_t)clamp(filter->first[i] + tap, from) * step;
            for (int c = 0; c < channels; c++)
                sum[c] += weights[tap] * pixel[c];
        }
        for (int c = 0; c < channels; c++)
            dst[(size_t)i * out + (size_t)c] = sum[c];
    }
}

int image_resize_lanczos(const float *src, int from, float *dst, int to, struct err *err)
{
    BUG_ON(from < 1 || to < 1 || from > IMAGE_SIDE_MAX || to > IMAGE_SIDE_MAX);
    struct filter filter;
    int result = filter_init(&filter, IMAGE_LANCZOS, from, to, err);
    if (result != 0)
        return result;
    const size_t from_row = (size_t)from * CHANNELS, to_row = (size_t)to * CHANNELS;
    float *wide = malloc((size_t)from * to_row * sizeof *wide); /* [from][to][3] */
    if (!wide) {
        filter_release(&filter);
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a resize from %d to %d", from, to);
    }
    for (int y = 0; y < from; y++)
        resize_line(&filter, CHANNELS, src + (size_t)y * from_row, from, CHANNELS,
                    wide + (size_t)y * to_row, to, CHANNELS);
    for (int x = 0; x < to; x++)
        resize_line(&filter, CHANNELS, wide + (size_t)x * CHANNELS, from, to_row,
                    dst + (size_t)x * CHANNELS, to, to_row);
    free(wide);
    filter_release(&filter);
    return 0;
}

/* --- bytes --- */

static uint8_t to_byte(float value)
{
    return (uint8_t)lrintf(fminf(fmaxf(value, 0), UINT8_MAX));
}

/* A line of floats at a time, so that a large picture is never held as floats. `line` is [longest
   side][channels], `wide` [from][to][channels]. */
static void resize_lines(const struct filter *filter, int channels, const uint8_t *src, int from,
                         uint8_t *dst, int to, float *line, float *wide)
{
    const size_t step = (size_t)channels, from_row = (size_t)from * step,
                 to_row = (size_t)to * step;
    for (int y = 0; y < from; y++) {
        for (size_t i = 0; i < from_row; i++)
            line[i] = src[(size_t)y * from_row + i];
        resize_line(filter, channels, line, from, step, wide + (size_t)y * to_row, to, step);
    }
    for (size_t x = 0; x < (size_t)to; x++) {
        resize_line(filter, channels, wide + x * step, from, to_row, line, to, step);
        for (size_t i = 0; i < to_row; i++)
            dst[i / step * to_row + x * step + i % step] = to_byte(line[i]);
    }
}

int image_resize_bytes(const uint8_t *src, int from, int channels, uint8_t *dst, int to,
                       enum image_filter kind, struct err *err)
{
    BUG_ON(from < 1 || to < 1 || from > IMAGE_SIDE_MAX || to > IMAGE_SIDE_MAX);
    BUG_ON(channels < 1 || channels > CHANNELS);
    struct filter filter;
    if (from == to) {
        memcpy(dst, src, (size_t)from * (size_t)from * (size_t)channels);
        return 0;
    }
    int result = filter_init(&filter, kind, from, to, err);
    if (result != 0)
        return result;
    size_t row = (size_t)(from > to ? from : to) * (size_t)channels;
    float *line = malloc(row * sizeof *line);
    float *wide = malloc((size_t)from * (size_t)to * (size_t)channels * sizeof *wide);
    if (line && wide)
        resize_lines(&filter, channels, src, from, dst, to, line, wide);
    else
        result = err_set(err, ERR_OUT_OF_MEMORY, "no memory for a resize from %d to %d", from, to);
    free(wide);
    free(line);
    filter_release(&filter);
    return result;
}
