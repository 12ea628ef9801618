/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GroupNorm and LayerNorm (layers.h). GroupNorm's statistics: every channel's first and second
 * moments about a pivot (its first pixel), in f32 over 64 pixels, then in f64 over fixed parts of
 * the plane, then over the parts in order. So neither the mean's size nor the plane's costs
 * accuracy, and no sum depends on the number of threads.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/nn/context.h"
#include "stages/nn/kernels.h"
#include "stages/nn/layers.h"
#include "stages/nn/parallel.h"
#include "stages/nn/profile.h"

#define NAME_MAX_BYTES    512
#define STATISTICS_PARTS  64 /* of a plane, at most */
#define STATISTICS_PIXELS 64 /* in a part, at least */

static int load_affine(float **gamma, float **beta, struct weights *weights, const char *name,
                       int64_t channels, struct err *err)
{
    char path[NAME_MAX_BYTES];
    *gamma = xcalloc((size_t)channels, sizeof(float));
    *beta = xcalloc((size_t)channels, sizeof(float));
    BUG_ON(snprintf(path, sizeof(path), "%s.weight", name) >= (int)sizeof(path));
    int rc = weights_take_f32(weights, path, 1, &channels, *gamma, err);
    if (rc)
        return rc;
    BUG_ON(snprintf(path, sizeof(path), "%s.bias", name) >= (int)sizeof(path));
    return weights_take_f32(weights, path, 1, &channels, *beta, err);
}

int group_norm_load(struct group_norm *norm, struct nn *nn, struct weights *weights,
                    const char *name, int64_t channels, int groups, float eps, struct err *err)
{
    (void)nn;
    if (groups < 1 || channels % groups != 0)
        return err_set(err, ERR_INVALID_MODEL, "'%s': %lld channels do not split into %d groups",
                       name, (long long)channels, groups);
    *norm = (struct group_norm){.channels = channels, .groups = groups, .eps = eps};
    int rc = load_affine(&norm->gamma, &norm->beta, weights, name, channels, err);
    if (rc)
        group_norm_release(norm);
    return rc;
}

void group_norm_release(struct group_norm *norm)
{
    free(norm->gamma);
    free(norm->beta);
    *norm = (struct group_norm){0};
}

/* One GroupNorm while it is computed; [n, …] stands for a block for each sample. */
struct group_work {
    const struct group_norm *norm;
    struct tensor x, y;
    int64_t n, pixels, c;
    int64_t parts, rows; /* of a plane: how many, and of how many pixels */
    float *pivot;        /* [n, c] */
    double *moments;     /* [n, parts, 2, c] */
    float *affine;       /* [n, 3, c]: mean, scale, shift */
    enum act act;
};

static const char *row_at(struct tensor x, int64_t row)
{
    return (const char *)x.data + (size_t)(row * x.dim[x.rank - 1]) * dtype_size(x.dtype);
}

static void sum_part(const struct group_work *work, int64_t part)
{
    int64_t n = part / work->parts, index = part % work->parts;
    double *sums = work->moments + part * 2 * work->c;
    memset(sums, 0, (size_t)work->c * 2 * sizeof(*sums));
    kernels()->moments(sums, sums + work->c, row_at(work->x, n * work->pixels + index * work->rows),
                       work->pivot + n * work->c, work->x.dtype,
                       (size_t)part_size(work->pixels, work->rows, index), (size_t)work->c);
}

/* Adds the parts of one channel in their order. */
static void add_parts(const struct group_work *work, int64_t n, int64_t c, double *sum,
                      double *square)
{
    const double *moments = work->moments + n * work->parts * 2 * work->c;
    *sum = *square = 0;
    for (int64_t part = 0; part < work->parts; part++) {
        *sum += moments[(part * 2) * work->c + c];
        *square += moments[(part * 2 + 1) * work->c + c];
    }
}

/* Mean and variance of the channels [from, to) from their moments about their pivots. */
static void group_statistics(const struct group_work *work, int64_t n, int64_t from, int64_t to,
                             double *mean, double *variance)
{
    double pixels = (double)work->pixels, count = pixels * (double)(to - from);
    const float *pivot = work->pivot + n * work->c;
    double total = 0, squares = 0, sum, square;
    for (int64_t c = from; c < to; c++) {
        add_parts(work, n, c, &sum, &square);
        total += sum + pixels * (double)pivot[c];
    }
    *mean = total / count;
    for (int64_t c = from; c < to; c++) {
        add_parts(work, n, c, &sum, &square);
        double distance = *mean - (double)pivot[c];
        squares += square - 2 * distance * sum + pixels * distance * distance;
    }
    *variance = squares > 0 ? squares / count : 0;
}

/* Fills in mean, scale and shift of one group of one sample. */
static void fill_group(const struct group_work *work, const float *scale_shift, int64_t n,
                       int64_t group)
{
    const struct group_norm *norm = work->norm;
    int64_t size = work->c / norm->groups;
    float *affine = work->affine + n * 3 * work->c;
    double mean, variance;
    group_statistics(work, n, group * size, (group + 1) * size, &mean, &variance);
    float factor = (float)(1 / sqrt(variance + (double)norm->eps));
    for (int64_t c = group * size; c < (group + 1) * size; c++) {
        float more = scale_shift ? 1 + scale_shift[n * 2 * work->c + c] : 1;
        float shift = scale_shift ? scale_shift[n * 2 * work->c + work->c + c] : 0;
        affine[c] = (float)mean;
        affine[work->c + c] = factor * norm->gamma[c] * more;
        affine[2 * work->c + c] = norm->beta[c] * more + shift;
    }
}

static void apply_part(const struct group_work *work, int64_t part)
{
    int64_t n = part / work->parts, index = part % work->parts;
    const float *affine = work->affine + n * 3 * work->c;
    struct affine arguments = {affine, affine + work->c, affine + 2 * work->c, work->act};
    int64_t row = n * work->pixels + index * work->rows;
    kernels()->affine((char *)row_at(work->y, row), row_at(work->x, row), &arguments, work->x.dtype,
                      (size_t)part_size(work->pixels, work->rows, index), (size_t)work->c);
}

static void group_norm_run(struct nn *nn, const struct group_work *work, const float *scale_shift)
{
    for (int64_t n = 0; n < work->n; n++)
        convert_to_f32(work->pivot + n * work->c, row_at(work->x, n * work->pixels), work->x.dtype,
                       (size_t)work->c);
    int64_t parts = work->n * work->parts, groups = work->n * work->norm->groups;
#pragma omp parallel num_threads(threads_for_elements(nn, work->n * work->pixels * work->c))
    {
#pragma omp for schedule(static)
        for (int64_t part = 0; part < parts; part++)
            sum_part(work, part);
#pragma omp for schedule(static)
        for (int64_t group = 0; group < groups; group++)
            fill_group(work, scale_shift, group / work->norm->groups, group % work->norm->groups);
#pragma omp for schedule(static)
        for (int64_t part = 0; part < parts; part++)
            apply_part(work, part);
    }
}

/* Cuts a plane into parts, by its shape alone. */
static void cut_plane(struct group_work *work)
{
    work->rows = part_count(work->pixels, STATISTICS_PARTS);
    work->rows = part_count(work->rows, STATISTICS_PIXELS) * STATISTICS_PIXELS;
    work->parts = part_count(work->pixels, work->rows);
}

struct tensor nn_group_norm(struct nn *nn, const struct group_norm *norm, struct tensor x,
                            struct norm_fuse fuse)
{
    int64_t began = profile_begin(nn);
    int64_t shape[] = {-1, -1, x.rank == 3 ? norm->channels : -1, norm->channels};
    if (!nn_expect(nn, "group_norm", x, x.rank == 3 ? 3 : 4, shape))
        return (struct tensor){0};
    bool fused = fuse.scale_shift.data != NULL;
    if (fused && !NN_EXPECT(nn, "group_norm's scale and shift", fuse.scale_shift, x.dim[0],
                            2 * norm->channels))
        return (struct tensor){0};
    struct group_work work = {.norm = norm, .x = x, .n = x.dim[0], .c = norm->channels};
    work.act = fuse.act;
    work.pixels = sample_count(x) / work.c;
    work.y = nn_new(nn, x.dtype, x.rank, x.dim);
    cut_plane(&work);
    size_t channels = (size_t)(work.n * work.c);
    work.moments = nn_scratch(nn, channels * (size_t)work.parts * 2 * sizeof(double));
    work.pivot = nn_scratch(nn, channels * 6 * sizeof(float));
    if (nn_failed(nn))
        return (struct tensor){0};
    work.affine = work.pivot + channels;
    float *scale_shift = work.affine + 3 * channels;
    if (fused)
        convert_to_f32(scale_shift, fuse.scale_shift.data, fuse.scale_shift.dtype, 2 * channels);
    group_norm_run(nn, &work, fused ? scale_shift : NULL);
    pool_drop(&nn->pool, work.pivot);
    pool_drop(&nn->pool, work.moments);
    profile_end_moved(nn, began, "group_norm", x, (struct tensor){0}, work.y);
    return work.y;
}

int layer_norm_load(struct layer_norm *norm, struct nn *nn, struct weights *weights,
                    const char *name, int64_t channels, float eps, struct err *err)
{
    (void)nn;
    *norm = (struct layer_norm){.channels = channels, .eps = eps};
    int rc = load_affine(&norm->gamma, &norm->beta, weights, name, channels, err);
    if (rc)
        layer_norm_release(norm);
    return rc;
}

void layer_norm_release(struct layer_norm *norm)
{
    free(norm->gamma);
    free(norm->beta);
    *norm = (struct layer_norm){0};
}

struct tensor nn_layer_norm(struct nn *nn, const struct layer_norm *norm, struct tensor x)
{
    int64_t began = profile_begin(nn);
    int64_t shape[] = {-1, -1, -1, -1};
    BUG_ON(x.rank > 4);
    if (x.rank > 0)
        shape[x.rank - 1] = norm->channels;
    if (!nn_expect(nn, "layer_norm", x, x.rank, shape))
        return (struct tensor){0};
    struct tensor y = nn_new(nn, x.dtype, x.rank, x.dim);
    if (nn_failed(nn))
        return y;
    int64_t rows = tensor_count(x) / norm->channels;
#pragma omp parallel for schedule(static) num_threads(threads_for_elements(nn, tensor_count(x)))
    for (int64_t row = 0; row < rows; row++)
        kernels()->layer_norm((char *)row_at(y, row), row_at(x, row), norm->gamma, norm->beta,
                              norm->eps, x.dtype, (size_t)norm->channels);
    profile_end_moved(nn, began, "layer_norm", x, (struct tensor){0}, y);
    return y;
}
