/* SPDX-License-Identifier: Apache-2.0 */
/* Ops that move or average data: concatenation, nearest upsampling, average pooling (layers.h). */
#include <string.h>

#include "stages/nn/context.h"
#include "stages/nn/kernels.h"
#include "stages/nn/layers.h"
#include "stages/nn/parallel.h"
#include "stages/nn/profile.h"

/* dst's rows are a's row, then b's; rows are given in bytes. */
static void join_rows(struct nn *nn, char *dst, const char *a, size_t a_bytes, const char *b,
                      size_t b_bytes, int64_t rows)
{
    int64_t rows_of_part = part_rows((int64_t)(a_bytes + b_bytes));
    int64_t parts = part_count(rows, rows_of_part);
    int threads = threads_for_elements(nn, rows * (int64_t)(a_bytes + b_bytes) / 8);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t part = 0; part < parts; part++) {
        size_t row = (size_t)(part * rows_of_part);
        size_t end = row + (size_t)part_size(rows, rows_of_part, part);
        for (; row < end; row++) {
            memcpy(dst + row * (a_bytes + b_bytes), a + row * a_bytes, a_bytes);
            memcpy(dst + row * (a_bytes + b_bytes) + a_bytes, b + row * b_bytes, b_bytes);
        }
    }
}

struct tensor nn_concat_channels(struct nn *nn, struct tensor a, struct tensor b)
{
    int64_t began = profile_begin(nn);
    if (!NN_EXPECT(nn, "concat_channels", a, -1, -1, -1, -1) ||
        !NN_EXPECT(nn, "concat_channels", b, a.dim[0], a.dim[1], a.dim[2], -1))
        return (struct tensor){0};
    BUG_ON(a.dtype != b.dtype);
    struct tensor y = NN_NEW(nn, a.dtype, a.dim[0], a.dim[1], a.dim[2], a.dim[3] + b.dim[3]);
    if (nn_failed(nn))
        return y;
    size_t element = dtype_size(a.dtype);
    join_rows(nn, y.data, a.data, (size_t)a.dim[3] * element, b.data, (size_t)b.dim[3] * element,
              a.dim[0] * a.dim[1] * a.dim[2]);
    profile_end_moved(nn, began, "concat_channels", a, b, y);
    return y;
}

struct tensor nn_concat_rows(struct nn *nn, struct tensor a, struct tensor b)
{
    int64_t began = profile_begin(nn);
    if (!NN_EXPECT(nn, "concat_rows", a, -1, -1, -1) ||
        !NN_EXPECT(nn, "concat_rows", b, a.dim[0], -1, a.dim[2]))
        return (struct tensor){0};
    BUG_ON(a.dtype != b.dtype);
    struct tensor y = NN_NEW(nn, a.dtype, a.dim[0], a.dim[1] + b.dim[1], a.dim[2]);
    if (nn_failed(nn))
        return y;
    join_rows(nn, y.data, a.data, sample_bytes(a), b.data, sample_bytes(b), a.dim[0]);
    profile_end_moved(nn, began, "concat_rows", a, b, y);
    return y;
}

/* One row of pixels, each twice. */
static void double_row(char *dst, const char *src, int64_t pixels, size_t pixel_bytes)
{
    for (int64_t i = 0; i < pixels; i++) {
        memcpy(dst, src, pixel_bytes);
        memcpy(dst + pixel_bytes, src, pixel_bytes);
        dst += 2 * pixel_bytes;
        src += pixel_bytes;
    }
}

struct tensor nn_upsample_nearest_2x(struct nn *nn, struct tensor x)
{
    int64_t began = profile_begin(nn);
    if (!NN_EXPECT(nn, "upsample_nearest_2x", x, -1, -1, -1, -1))
        return (struct tensor){0};
    struct tensor y = NN_NEW(nn, x.dtype, x.dim[0], 2 * x.dim[1], 2 * x.dim[2], x.dim[3]);
    if (nn_failed(nn))
        return y;
    size_t pixel = (size_t)x.dim[3] * dtype_size(x.dtype), row = pixel * (size_t)x.dim[2];
    int64_t rows = x.dim[0] * x.dim[1];
#pragma omp parallel for schedule(static) num_threads(threads_for_elements(nn, tensor_count(y)))
    for (int64_t i = 0; i < rows; i++) {
        char *dst = (char *)y.data + (size_t)i * 4 * row;
        double_row(dst, (const char *)x.data + (size_t)i * row, x.dim[2], pixel);
        memcpy(dst + 2 * row, dst, 2 * row);
    }
    profile_end_moved(nn, began, "upsample_nearest_2x", x, (struct tensor){0}, y);
    return y;
}

/* One row of the result: the means of two rows of x. */
static void pool_row(struct tensor x, struct tensor y, int64_t row)
{
    size_t pixel = (size_t)x.dim[3] * dtype_size(x.dtype), x_row = pixel * (size_t)x.dim[2];
    int64_t n = row / y.dim[1], oh = row % y.dim[1];
    const char *top = (const char *)x.data + (size_t)(n * x.dim[1] + 2 * oh) * x_row;
    char *dst = (char *)y.data + (size_t)(row * y.dim[2]) * pixel;
    for (size_t ow = 0; ow < (size_t)y.dim[2]; ow++)
        kernels()->mean_of_4(dst + ow * pixel, top + 2 * ow * pixel, top + x_row + 2 * ow * pixel,
                             x.dtype, (size_t)x.dim[3]);
}

struct tensor nn_avg_pool_2x(struct nn *nn, struct tensor x)
{
    int64_t began = profile_begin(nn);
    if (!NN_EXPECT(nn, "avg_pool_2x", x, -1, -1, -1, -1))
        return (struct tensor){0};
    struct tensor y = NN_NEW(nn, x.dtype, x.dim[0], x.dim[1] / 2, x.dim[2] / 2, x.dim[3]);
    if (nn_failed(nn))
        return y;
    int64_t rows = y.dim[0] * y.dim[1];
#pragma omp parallel for schedule(static) num_threads(threads_for_elements(nn, tensor_count(y)))
    for (int64_t row = 0; row < rows; row++)
        pool_row(x, y, row);
    profile_end_moved(nn, began, "avg_pool_2x", x, (struct tensor){0}, y);
    return y;
}
