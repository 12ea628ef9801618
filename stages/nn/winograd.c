/* SPDX-License-Identifier: Apache-2.0 */
/* 3x3 convolutions by Winograd's filtering (winograd.h). */
#include "stages/nn/winograd.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/nn/context.h"
#include "stages/nn/onednn.h"
#include "stages/nn/parallel.h"
#include "stages/nn/winograd_kernels.h"

/* Tiles whose products follow one another: M of a block stays in a core's own cache. */
#define BLOCK_TILES 48
/* V of the blocks that are transformed together: a part of what a processor's cores share. */
#define CHUNK_BYTES ((size_t)8 << 20)
/* Between positions, so that they do not lie at the same place of a cache. */
#define GAP_BYTES ((size_t)64)
/* Channels whose products are summed exactly. Short ones are more exact, long ones need fewer sums.
 */
#define SEGMENT 160
/*
 * Channels of which U of a block of outputs is in memory at a time, to stay near the core. Layers
 * with no more than two segments need M of only one block of tiles at a time.
 */
#define SPAN     SEGMENT
#define ONE_SPAN (2 * SEGMENT)
/* Below these the transforms cost more than the products they save. */
#define CHANNELS_MIN 64
#define PIXELS_MIN   16
/* The least of a layer's balance: so much of an outlier is left to a channel without weights. */
#define BALANCE_MIN 0x1p-20f

static const struct winograd_kernels *kernels_for(enum dtype dtype)
{
    if (dtype == DTYPE_F32)
        return device_has(DEVICE_AVX512) ? winograd_kernels_f32() : NULL;
    return device_has(DEVICE_VNNI) && !device_has(DEVICE_AMX) ? winograd_kernels_fixed() : NULL;
}

bool winograd_fits(const struct packed_layer *layer, int64_t ih, int64_t iw)
{
    return layer->conv && layer->k == 3 && layer->stride == 1 && layer->pad == 1 &&
           layer->ic % WINOGRAD_LANES == 0 && layer->oc % WINOGRAD_LANES == 0 &&
           layer->ic >= CHANNELS_MIN && layer->oc >= CHANNELS_MIN && ih * iw >= PIXELS_MIN &&
           kernels_for(layer->dtype) != NULL;
}

struct layout *winograd_layout(const struct packed_layer *layer)
{
    return layout_new_in_blocks(layer->dtype, (int64_t[]){layer->oc, layer->ic, 3, 3});
}

/* --- scaling ----------------------------------------------------------------------------------
 */

/* The weights from these channels on; output is a multiple of WINOGRAD_LANES. */
static const char *weights_from(const struct packed_layer *layer, const void *weights,
                                int64_t output, int64_t input)
{
    size_t skip = (size_t)((output * layer->ic + input * WINOGRAD_LANES) * WINOGRAD_TAPS);
    return (const char *)weights + skip * dtype_size(layer->dtype);
}

/* Turns the squares of channels' weights into what balances them: their norms beside the largest.
 */
static void balance_from_squares(float *balance, int64_t ic)
{
    float largest = 0;
    for (int64_t c = 0; c < ic; c++)
        largest = isfinite(balance[c]) && balance[c] > largest ? balance[c] : largest;
    for (int64_t c = 0; c < ic; c++) {
        float share = largest > 0 && isfinite(balance[c]) ? sqrtf(balance[c] / largest) : 1;
        balance[c] = share < BALANCE_MIN ? BALANCE_MIN : share;
    }
}

static void fill_scaling(const struct winograd_scaling *scaling, const struct packed_layer *layer,
                         const void *weights, int threads)
{
    const struct winograd_kernels *kernels = kernels_for(layer->dtype);
    memset(scaling->balance, 0, (size_t)layer->ic * sizeof(float));
    for (int64_t output = 0; output < layer->oc; output += WINOGRAD_LANES)
        kernels->squares(scaling->balance, weights_from(layer, weights, output, 0),
                         (size_t)layer->ic);
    balance_from_squares(scaling->balance, layer->ic);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t output = 0; output < layer->oc; output += WINOGRAD_LANES)
        kernels->scaling(scaling, (size_t)output, (size_t)layer->oc,
                         weights_from(layer, weights, output, 0), (size_t)layer->ic, SEGMENT);
}

struct winograd_scaling *winograd_scaling_new(const struct packed_layer *layer, const void *weights,
                                              int threads)
{
    struct winograd_scaling *scaling = xcalloc(1, sizeof(*scaling));
    size_t bytes = (size_t)layer->oc * WINOGRAD_POSITIONS * sizeof(float);
    scaling->balance = memory_new((size_t)layer->ic * sizeof(float));
    scaling->scale = memory_new(bytes);
    scaling->inverse = memory_new(bytes);
    if (scaling->balance && scaling->scale && scaling->inverse) {
        fill_scaling(scaling, layer, weights, threads);
        return scaling;
    }
    winograd_scaling_free(scaling);
    return NULL;
}

void winograd_scaling_free(struct winograd_scaling *scaling)
{
    if (!scaling)
        return;
    free(scaling->balance);
    free(scaling->scale);
    free(scaling->inverse);
    free(scaling);
}

/* --- a call -----------------------------------------------------------------------------------
 */

/* The memory of a thread, in bytes: U of a span, M of a chunk, and what kernels need to spare. */
struct scratch_plan {
    size_t u, m, spare;
};

struct run {
    const struct winograd_kernels *kernels;
    const struct packed_layer *layer;
    const struct packed_call *call;
    const void *weights;
    const struct winograd_scaling *scaling;
    int64_t tile_rows, tile_columns;     /* tiles of a sample */
    int64_t tiles;                       /* of all samples */
    int64_t block_tiles;                 /* of each block but the last */
    int64_t blocks;                      /* of tiles */
    int64_t chunk_blocks;                /* of each chunk but the last */
    int64_t groups;                      /* of WINOGRAD_COLUMNS outputs; the last may be smaller */
    int64_t span;                        /* channels of each but the last */
    size_t v_stride, u_stride, m_stride; /* elements between positions; of M floats */
    size_t v_bytes, m_bytes;             /* of a block of tiles; of M with a group of outputs */
    size_t scale_bytes;                  /* of V of a block: [WINOGRAD_POSITIONS, block_tiles] */
    struct scratch_plan plan;
    char *v, *v_scales;   /* [chunk_blocks] */
    char *thread_scratch; /* [threads] */
    const char *zeros;    /* a pixel outside the picture */
};

/* A tile's sample, and its first pixel there. */
struct place {
    int64_t n, y, x;
};

static struct place tile_place(const struct run *run, int64_t tile)
{
    int64_t in_sample = tile % (run->tile_rows * run->tile_columns);
    return (struct place){.n = tile / (run->tile_rows * run->tile_columns),
                          .y = in_sample / run->tile_columns * WINOGRAD_OUT,
                          .x = in_sample % run->tile_columns * WINOGRAD_OUT};
}

static bool inside(const struct run *run, int64_t y, int64_t x)
{
    return y >= 0 && y < run->call->ih && x >= 0 && x < run->call->iw;
}

static size_t pixel_index(const struct run *run, int64_t n, int64_t y, int64_t x)
{
    return (size_t)((n * run->call->ih + y) * run->call->iw + x);
}

static int64_t tiles_of(const struct run *run, int64_t block)
{
    return part_size(run->tiles, run->block_tiles, block);
}

static size_t columns_of(const struct run *run, int64_t group)
{
    return (size_t)part_size(run->layer->oc, WINOGRAD_COLUMNS, group);
}

static size_t scratch_bytes(const struct run *run)
{
    return run->plan.u + run->plan.m + run->plan.spare;
}

static char *scratch_of_thread(const struct run *run)
{
    return run->thread_scratch + (size_t)omp_get_thread_num() * scratch_bytes(run);
}

static float *scales_of(const struct run *run, int64_t in_chunk)
{
    return (float *)(void *)(run->v_scales + (size_t)in_chunk * run->scale_bytes);
}

/* V of a tile, which is the i-th of the chunk. */
static void transform_input(const struct run *run, int64_t tile, int64_t i)
{
    int64_t block = i / run->block_tiles, row = i % run->block_tiles;
    size_t pixel_bytes = (size_t)run->layer->ic * dtype_size(run->layer->dtype);
    size_t row_bytes = (size_t)run->layer->ic * run->kernels->element;
    char *v = run->v + (size_t)block * run->v_bytes + (size_t)row * row_bytes;
    char *spare = scratch_of_thread(run) + run->plan.u + run->plan.m;
    struct place at = tile_place(run, tile);
    const void *d[WINOGRAD_POSITIONS];
    for (int p = 0; p < WINOGRAD_POSITIONS; p++) {
        int64_t y = at.y + p / WINOGRAD_IN - 1, x = at.x + p % WINOGRAD_IN - 1;
        d[p] = inside(run, y, x)
                   ? (const char *)run->call->src + pixel_index(run, at.n, y, x) * pixel_bytes
                   : run->zeros;
    }
    run->kernels->input(v, run->v_stride, scales_of(run, block) + row, (size_t)run->block_tiles,
                        (float *)(void *)spare, d, run->scaling->balance, (size_t)run->layer->ic,
                        SEGMENT);
}

/* Input channels with a group of outputs. */
struct span {
    int64_t group, first, channels;
};

static void transform_weights(const struct run *run, const struct span *span, char *u)
{
    int64_t output = span->group * WINOGRAD_COLUMNS;
    run->kernels->weights(
        u, run->u_stride, weights_from(run->layer, run->weights, output, span->first),
        run->scaling->balance + span->first, run->scaling->inverse + output, (size_t)run->layer->oc,
        (size_t)run->layer->ic, (size_t)span->channels, columns_of(run, span->group));
}

/* One segment's part of M of a block of tiles, at one position. */
static void multiply_segment(const struct run *run, int64_t block, const struct span *span,
                             int64_t skip, const char *v, const char *u, float *m)
{
    size_t element = run->kernels->element, columns = columns_of(run, span->group);
    int64_t channels = span->channels - skip < SEGMENT ? span->channels - skip : SEGMENT;
    run->kernels->products(m, v + (size_t)(span->first + skip) * element,
                           u + (size_t)skip * columns * element, (size_t)tiles_of(run, block),
                           (size_t)run->layer->ic, (size_t)channels, columns,
                           span->first + skip > 0);
}

/* Adds a span's part to M of a block of tiles. */
static void multiply(const struct run *run, int64_t block, int64_t in_chunk,
                     const struct span *span, const char *u, float *m)
{
    const char *v = run->v + (size_t)in_chunk * run->v_bytes;
    size_t element = run->kernels->element;
    for (size_t p = 0; p < WINOGRAD_POSITIONS; p++)
        for (int64_t skip = 0; skip < span->channels; skip += SEGMENT)
            multiply_segment(run, block, span, skip, v + p * run->v_stride * element,
                             u + p * run->u_stride * element, m + p * run->m_stride);
}

static void transform_output(const struct run *run, int64_t block, int64_t in_chunk, int64_t group,
                             const float *m)
{
    const struct packed_call *call = run->call;
    int64_t oc = run->layer->oc, first = group * WINOGRAD_COLUMNS;
    size_t columns = columns_of(run, group), element = dtype_size(run->layer->dtype);
    for (int64_t i = 0; i < tiles_of(run, block); i++) {
        struct place at = tile_place(run, block * run->block_tiles + i);
        void *y[WINOGRAD_PIXELS];
        for (int p = 0; p < WINOGRAD_PIXELS; p++) {
            int64_t row = at.y + p / WINOGRAD_OUT, column = at.x + p % WINOGRAD_OUT;
            size_t index = pixel_index(run, at.n, row, column) * (size_t)oc + (size_t)first;
            y[p] = inside(run, row, column) ? (char *)call->dst + index * element : NULL;
        }
        struct winograd_sums sums = {.m = m + (size_t)i * columns,
                                     .v_scale = scales_of(run, in_chunk) + i,
                                     .u_scale = run->scaling->scale + first,
                                     .m_stride = run->m_stride,
                                     .v_stride = (size_t)run->block_tiles,
                                     .u_stride = (size_t)oc};
        const float *bias = call->bias ? call->bias + at.n * call->bias_stride + first : NULL;
        run->kernels->output(y, &sums, columns, bias, call->accumulate);
    }
}

/* Where M of a block of tiles is; of the last one only, when there is but one span. */
static float *m_of(const struct run *run, int64_t i)
{
    char *m = scratch_of_thread(run) + run->plan.u;
    return (float *)(void *)(m + (run->span < run->layer->ic ? (size_t)i * run->m_bytes : 0));
}

/* A group of outputs with the blocks of tiles from `from` to `to` of a chunk. */
static void compute_group(const struct run *run, int64_t chunk, int64_t from, int64_t to,
                          int64_t group)
{
    char *u = scratch_of_thread(run);
    struct span span = {.group = group};
    for (; span.first < run->layer->ic; span.first += run->span) {
        span.channels = part_size(run->layer->ic, run->span, span.first / run->span);
        bool last = span.first + span.channels == run->layer->ic;
        transform_weights(run, &span, u);
        for (int64_t block = from; block < to; block++) {
            float *m = m_of(run, block - from);
            multiply(run, chunk + block, block, &span, u, m);
            if (last)
                transform_output(run, chunk + block, block, group, m);
        }
    }
}

/* A thread's part of a chunk: of every group of outputs with every block of tiles. */
static void compute_part(const struct run *run, int64_t chunk, int64_t blocks)
{
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    int64_t all = blocks * run->groups, end = (thread + 1) * all / threads;
    for (int64_t i = thread * all / threads; i < end;) {
        int64_t group = i / blocks, from = i % blocks;
        int64_t to = end - group * blocks < blocks ? end - group * blocks : blocks;
        compute_group(run, chunk, from, to, group);
        i += to - from;
    }
}

static void compute(const struct run *run, int threads)
{
#pragma omp parallel num_threads(threads)
    for (int64_t chunk = 0; chunk < run->blocks; chunk += run->chunk_blocks) {
        int64_t first = chunk * run->block_tiles;
        int64_t blocks = part_size(run->blocks, run->chunk_blocks, chunk / run->chunk_blocks);
        int64_t tiles =
            part_size(run->tiles, run->chunk_blocks * run->block_tiles, chunk / run->chunk_blocks);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiles; i++)
            transform_input(run, first + i, i);
        compute_part(run, chunk, blocks);
#pragma omp barrier
    }
}

static size_t with_gap(size_t bytes)
{
    return (bytes + GAP_BYTES - 1) / GAP_BYTES * GAP_BYTES + GAP_BYTES;
}

static void plan_blocks(struct run *run)
{
    const struct packed_call *call = run->call;
    run->tile_rows = (call->ih + WINOGRAD_OUT - 1) / WINOGRAD_OUT;
    run->tile_columns = (call->iw + WINOGRAD_OUT - 1) / WINOGRAD_OUT;
    run->tiles = call->n * run->tile_rows * run->tile_columns;
    int64_t even = part_count(run->tiles, part_count(run->tiles, BLOCK_TILES));
    run->block_tiles = part_count(even, WINOGRAD_ROWS) * WINOGRAD_ROWS;
    run->blocks = part_count(run->tiles, run->block_tiles);
    run->groups = part_count(run->layer->oc, WINOGRAD_COLUMNS);
    run->span = run->layer->ic <= ONE_SPAN ? run->layer->ic : SPAN;
}

static void plan_memory(struct run *run)
{
    size_t ic = (size_t)run->layer->ic, tiles = (size_t)run->block_tiles;
    size_t element = run->kernels->element;
    size_t v = with_gap(tiles * ic * element);
    size_t u = with_gap((size_t)run->span * WINOGRAD_COLUMNS * element);
    size_t m = with_gap(tiles * WINOGRAD_COLUMNS * sizeof(float));
    bool one_span = run->span == run->layer->ic;
    run->v_stride = v / element;
    run->u_stride = u / element;
    run->m_stride = m / sizeof(float);
    run->v_bytes = v * WINOGRAD_POSITIONS;
    run->m_bytes = m * WINOGRAD_POSITIONS;
    run->scale_bytes = with_gap(tiles * WINOGRAD_POSITIONS * sizeof(float));
    size_t largest = run->v_bytes > run->m_bytes || one_span ? run->v_bytes : run->m_bytes;
    int64_t fit = (int64_t)(CHUNK_BYTES / largest);
    run->chunk_blocks = part_count(run->blocks, part_count(run->blocks, fit > 0 ? fit : 1));
    run->plan =
        (struct scratch_plan){.u = u * WINOGRAD_POSITIONS,
                              .m = run->m_bytes * (one_span ? 1 : (size_t)run->chunk_blocks),
                              .spare = ic * run->kernels->spare * sizeof(float)};
}

int winograd_run(struct nn *nn, const struct packed_layer *layer, const void *weights,
                 const struct winograd_scaling *scaling, const struct packed_call *call)
{
    struct run run = {.kernels = kernels_for(layer->dtype),
                      .layer = layer,
                      .call = call,
                      .weights = weights,
                      .scaling = scaling};
    plan_blocks(&run);
    plan_memory(&run);
    int threads = threads_for_products(nn, run.tiles * WINOGRAD_POSITIONS * layer->ic * layer->oc);
    size_t v_bytes = (size_t)run.chunk_blocks * run.v_bytes;
    size_t scales_bytes = (size_t)run.chunk_blocks * run.scale_bytes;
    size_t threads_bytes = (size_t)threads * scratch_bytes(&run);
    size_t zeros = (size_t)layer->ic * dtype_size(layer->dtype);
    char *scratch = nn_scratch(nn, v_bytes + scales_bytes + threads_bytes + zeros);
    if (!scratch)
        return -(int)ERR_OUT_OF_MEMORY;
    run.v = scratch;
    run.v_scales = run.v + v_bytes;
    run.thread_scratch = run.v_scales + scales_bytes;
    run.zeros = memset(run.thread_scratch + threads_bytes, 0, zeros);
    compute(&run, threads);
    pool_drop(&nn->pool, scratch);
    return 0;
}
