/* SPDX-License-Identifier: Apache-2.0 */
/* The picture that an item starts from or keeps; see source.h. */
#include "stages/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stages/resize.h"
#include "stages/stage_ops.h"

#define CHANNELS 3

void source_view_release(struct source_view *view)
{
    free(view->picture);
    free(view->paint);
    memset(view, 0, sizeof *view);
}

/* The pixels of the source, of `from` pixels a side, that pixel o of `to` lies in or is made of. */
struct span {
    int first, end;
};

static struct span span_of(int o, int from, int to)
{
    int64_t first = (int64_t)o * from, end = first + from;
    return (struct span){(int)(first / to), (int)((end + to - 1) / to)};
}

static unsigned kept_share(const struct item *item, size_t pixel)
{
    return item->mask ? 255u - item->mask[pixel] : 255u;
}

/* Sums over a cell, each pixel weighed by its share that is kept; without any, all alike. */
struct cell {
    uint64_t pixels, kept, sum[CHANNELS], kept_sum[CHANNELS];
};

static struct cell cell_of(const struct item *item, struct span rows, struct span columns)
{
    struct cell cell = {0};
    for (int y = rows.first; y < rows.end; y++)
        for (int x = columns.first; x < columns.end; x++) {
            size_t pixel = (size_t)y * (size_t)item->source_size + (size_t)x;
            unsigned share = kept_share(item, pixel);
            cell.pixels++;
            cell.kept += share;
            for (size_t c = 0; c < CHANNELS; c++) {
                unsigned value = item->source[pixel * CHANNELS + c];
                cell.sum[c] += value;
                cell.kept_sum[c] += (uint64_t)share * value;
            }
        }
    return cell;
}

static float byte_to_float(double byte)
{
    return (float)(byte / 127.5 - 1.0);
}

static void shrink(const struct item *item, int size, struct source_view *view)
{
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            struct cell cell = cell_of(item, span_of(y, item->source_size, size),
                                       span_of(x, item->source_size, size));
            float *pixel = view->picture + ((size_t)y * (size_t)size + (size_t)x) * CHANNELS;
            for (size_t c = 0; c < CHANNELS; c++)
                pixel[c] = byte_to_float(cell.kept ? (double)cell.kept_sum[c] / (double)cell.kept
                                                   : (double)cell.sum[c] / (double)cell.pixels);
        }
}

static int enlarge(const struct item *item, int size, struct source_view *view, struct err *err)
{
    size_t from = (size_t)item->source_size * (size_t)item->source_size * CHANNELS;
    size_t to = view->pixels * CHANNELS;
    float *pixels = malloc(from * sizeof *pixels);
    if (!pixels)
        return err_set(err, ERR_OUT_OF_MEMORY, "cannot hold a picture of %d pixels a side",
                       item->source_size);
    for (size_t i = 0; i < from; i++)
        pixels[i] = byte_to_float(item->source[i]);
    int rc = resize_bicubic(pixels, item->source_size, item->source_size, CHANNELS, view->picture,
                            size, size, err);
    for (size_t i = 0; rc == 0 && i < to; i++)
        view->picture[i] = fminf(fmaxf(view->picture[i], -1), 1);
    free(pixels);
    return rc;
}

static void put_paint(const struct item *item, int size, float *paint)
{
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            struct cell cell = cell_of(item, span_of(y, item->source_size, size),
                                       span_of(x, item->source_size, size));
            double whole = 255.0 * (double)cell.pixels;
            *paint++ = (float)((whole - (double)cell.kept) / whole);
        }
}

int source_view_init(struct source_view *view, const struct item *item, int size, struct err *err)
{
    if (!item->source || item->source_size < 1)
        return err_set(err, ERR_INVALID_RECORD, "the task has no picture to start from or to keep");
    size_t pixels = (size_t)size * (size_t)size;
    *view = (struct source_view){
        .pixels = pixels,
        .picture = malloc(pixels * CHANNELS * sizeof(float)),
        .paint = item->mask ? malloc(pixels * sizeof(float)) : NULL,
    };
    int rc = 0;
    if (!view->picture || (item->mask && !view->paint))
        rc = err_set(err, ERR_OUT_OF_MEMORY, "cannot hold a picture of %d pixels a side", size);
    else if (size > item->source_size)
        rc = enlarge(item, size, view, err);
    else
        shrink(item, size, view);
    if (rc == 0 && view->paint)
        put_paint(item, size, view->paint);
    if (rc)
        source_view_release(view);
    return rc;
}

void source_view_keep(const struct source_view *view, float *image)
{
    for (size_t p = 0; view->paint && p < view->pixels; p++) {
        float share = view->paint[p];
        for (size_t c = 0; c < CHANNELS; c++) {
            float *value = image + p * CHANNELS + c, source = view->picture[p * CHANNELS + c];
            if (share <= 0)
                *value = source;
            else if (share < 1)
                *value = share * *value + (1 - share) * source;
        }
    }
}

void item_keep_source(struct item *item)
{
    struct source_view view = {0};
    if (!item->mask || source_view_init(&view, item, item->image_size, &item->err))
        return;
    source_view_keep(&view, item->image);
    source_view_release(&view);
}
