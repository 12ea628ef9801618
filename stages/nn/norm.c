/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GroupNorm and LayerNorm (layers.h). GroupNorm's statistics: every channel's first and second
 * moments about a pivot (its first pixel), in f32 over 64 pixels, then in f64 over fixed parts of
 * the plane, then over the parts in order. So neither the mean's size nor the plane's costs
 * accuracy, and no sum depends on the number of threads.
 *
 * A thread takes a slice of a sample's channels, some whole groups, through statistics and
 * normalisation, so that it waits for no other and finds the slice in its cache. Where slices are
 * too few for the threads, or too large for the cache, they share the parts of the planes instead,
 * with the same sums.
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
#define STATISTICS_PARTS  32                 /* of a plane, at most */
#define STATISTICS_PIXELS 64                 /* in a part, at least */
#define SLICE_CHANNELS    32                 /* a slice is a multiple: whole lines of the cache */
#define SLICE_BYTES       ((int64_t)1 << 20) /* what a core's cache holds */

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
    int64_t parts, rows;      /* of a plane: how many, and of how many pixels */
    int64_t slice;            /* channels */
    float *pivot;             /* [n, c] */
    double *moments;          /* [n, parts, 2, c] */
    float *affine;            /* [n, 3, c]: mean, scale, shift */
    const float *scale_shift; /* [n, 2, c] or NULL */
    enum act act;
};

/* Some channels of a sample. */
struct channels {
    int64_t n, from, count;
};

static char *element_at(struct tensor x, int64_t row, int64_t channel)
{
    return (char *)x.data + (size_t)(row * x.dim[x.rank - 1] + channel) * dtype_size(x.dtype);
}

static void sum_part(const struct group_work *work, struct channels channels, int64_t part)
{
    double *sums = work->moments + (channels.n * work->parts + part) * 2 * work->c + channels.from;
    double *squares = sums + work->c;
    memset(sums, 0, (size_t)channels.count * sizeof(*sums));
    memset(squares, 0, (size_t)channels.count * sizeof(*squares));
    int64_t row = channels.n * work->pixels + part * work->rows;
    kernels()->moments(sums, squares, element_at(work->x, row, channels.from),
                       work->pivot + channels.n * work->c + channels.from, work->x.dtype,
                       (size_t)part_size(work->pixels, work->rows, part), (size_t)work->c,
                       (size_t)channels.count);
}

/* Adds the other parts to the first, in their order. */
static void add_parts(const struct group_work *work, struct channels channels)
{
    double *first = work->moments + channels.n * work->parts * 2 * work->c + channels.from;
    for (int64_t row = 2; row < work->parts * 2; row++) { /* sums in even rows, squares in odd */
        double *total = first + row % 2 * work->c, *part = first + row * work->c;
        for (int64_t c = 0; c < channels.count; c++)
            total[c] += part[c];
    }
}

/* Mean and variance of all these channels from their moments about their pivots. */
static void group_statistics(const struct group_work *work, struct channels channels, double *mean,
                             double *variance)
{
    double pixels = (double)work->pixels, count = pixels * (double)channels.count;
    const float *pivot = work->pivot + channels.n * work->c + channels.from;
    const double *sum = work->moments + channels.n * work->parts * 2 * work->c + channels.from;
    const double *square = sum + work->c;
    double total = 0, squares = 0;
    for (int64_t c = 0; c < channels.count; c++)
        total += sum[c] + pixels * (double)pivot[c];
    *mean = total / count;
    for (int64_t c = 0; c < channels.count; c++) {
        double distance = *mean - (double)pivot[c];
        squares += square[c] - 2 * distance * sum[c] + pixels * distance * distance;
    }
    *variance = squares > 0 ? squares / count : 0;
}

/* Fills in mean, scale and shift of a group. */
static void fill_group(const struct group_work *work, struct channels group)
{
    const struct group_norm *norm = work->norm;
    float *affine = work->affine + group.n * 3 * work->c;
    const float *scale = work->scale_shift ? work->scale_shift + group.n * 2 * work->c : NULL;
    double mean, variance;
    add_parts(work, group);
    group_statistics(work, group, &mean, &variance);
    float factor = (float)(1 / sqrt(variance + (double)norm->eps));
    for (int64_t c = group.from; c < group.from + group.count; c++) {
        float more = scale ? 1 + scale[c] : 1, shift = scale ? scale[work->c + c] : 0;
        affine[c] = (float)mean;
        affine[work->c + c] = factor * norm->gamma[c] * more;
        affine[2 * work->c + c] = norm->beta[c] * more + shift;
    }
}

static void apply_part(const struct group_work *work, struct channels channels, int64_t part)
{
    const float *affine = work->affine + channels.n * 3 * work->c + channels.from;
    struct affine arguments = {affine, affine + work->c, affine + 2 * work->c, work->act};
    int64_t row = channels.n * work->pixels + part * work->rows;
    kernels()->affine(element_at(work->y, row, channels.from),
                      element_at(work->x, row, channels.from), &arguments, work->x.dtype,
                      (size_t)part_size(work->pixels, work->rows, part), (size_t)work->c,
                      (size_t)channels.count);
}

/* The item-th run of `count` channels, counted through the samples. */
static struct channels channels_at(const struct group_work *work, int64_t count, int64_t item)
{
    int64_t runs = work->c / count;
    return (struct channels){item / runs, item % runs * count, count};
}

static void norm_slice(const struct group_work *work, int64_t item)
{
    struct channels slice = channels_at(work, work->slice, item);
    int64_t size = work->c / work->norm->groups;
    for (int64_t part = 0; part < work->parts; part++)
        sum_part(work, slice, part);
    for (int64_t from = slice.from; from < slice.from + slice.count; from += size)
        fill_group(work, (struct channels){slice.n, from, size});
    for (int64_t part = 0; part < work->parts; part++)
        apply_part(work, slice, part);
}

static void norm_together(const struct group_work *work, int threads)
{
    int64_t parts = work->n * work->parts, groups = work->n * work->norm->groups;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int64_t part = 0; part < parts; part++)
            sum_part(work, channels_at(work, work->c, part / work->parts), part % work->parts);
#pragma omp for schedule(static)
        for (int64_t group = 0; group < groups; group++)
            fill_group(work, channels_at(work, work->c / work->norm->groups, group));
#pragma omp for schedule(static)
        for (int64_t part = 0; part < parts; part++)
            apply_part(work, channels_at(work, work->c, part / work->parts), part % work->parts);
    }
}

static void group_norm_run(struct nn *nn, const struct group_work *work)
{
    for (int64_t n = 0; n < work->n; n++)
        convert_to_f32(work->pivot + n * work->c, element_at(work->x, n * work->pixels, 0),
                       work->x.dtype, (size_t)work->c);
    int threads = threads_for_elements(nn, work->n * work->pixels * work->c);
    int64_t slices = work->n * (work->c / work->slice);
    int64_t slice_bytes = work->pixels * work->slice * (int64_t)dtype_size(work->x.dtype);
    if (slice_bytes > SLICE_BYTES || (slices % threads != 0 && slices < 4 * threads)) {
        norm_together(work, threads);
        return;
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t slice = 0; slice < slices; slice++)
        norm_slice(work, slice);
}

/* The fewest groups whose channels are a multiple of SLICE_CHANNELS; else all. */
static int64_t slice_channels(int64_t c, int64_t group)
{
    int64_t slice = group;
    while (slice < c && (slice % SLICE_CHANNELS != 0 || c % slice != 0))
        slice += group;
    return slice;
}

/* Cuts a plane into parts, and its channels into slices, by its shape alone. */
static void cut_plane(struct group_work *work)
{
    work->rows = part_count(work->pixels, STATISTICS_PARTS);
    work->rows = part_count(work->rows, STATISTICS_PIXELS) * STATISTICS_PIXELS;
    work->parts = part_count(work->pixels, work->rows);
    work->slice = slice_channels(work->c, work->c / work->norm->groups);
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
    work.scale_shift = fused ? scale_shift : NULL;
    group_norm_run(nn, &work);
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
        kernels()->layer_norm(element_at(y, row, 0), element_at(x, row, 0), norm->gamma, norm->beta,
                              norm->eps, x.dtype, (size_t)norm->channels);
    profile_end_moved(nn, began, "layer_norm", x, (struct tensor){0}, y);
    return y;
}
