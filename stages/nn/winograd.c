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
/* The same where U is small enough for a core's cache, which then has V of a block as well. */
#define SMALL_U_BYTES     ((size_t)1 << 20)
#define SMALL_BLOCK_TILES 24
/* Between positions, so that they do not lie at the same place of a cache. */
#define GAP_BYTES ((size_t)64)
/* Channels whose products are summed exactly. Short ones are more exact, long ones need fewer sums.
 */
#define SEGMENT 128
/*
 * Channels of which U of a group of outputs is in memory at a time, to stay near the core. Layers
 * with no more than ONE_SPAN need M of only one block of tiles at a time.
 */
#define SPAN     SEGMENT /* or a multiple: a span begins with a segment */
#define ONE_SPAN 320
_Static_assert(SPAN % SEGMENT == 0 && SEGMENT % (2 * WINOGRAD_LANES) == 0,
               "blocks lie in segments");
/* Below these the transforms cost more than the products they save. */
#define CHANNELS_MIN 32
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
    const struct winograd_kernels *kernels = kernels_for(layer->dtype);
    return kernels && layer->conv && layer->k == 3 && layer->stride == 1 && layer->pad == 1 &&
           layer->ic % (int64_t)kernels->block == 0 && layer->oc % WINOGRAD_LANES == 0 &&
           layer->ic >= CHANNELS_MIN && layer->oc >= CHANNELS_MIN && ih * iw >= PIXELS_MIN;
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

/* What balances each input channel, where the kernels do. */
static void balance(const struct winograd_scaling *scaling, const struct packed_layer *layer,
                    const void *weights)
{
    const struct winograd_kernels *kernels = kernels_for(layer->dtype);
    if (!kernels->squares)
        return;
    memset(scaling->balance, 0, (size_t)layer->ic * sizeof(float));
    for (int64_t output = 0; output < layer->oc; output += WINOGRAD_LANES)
        kernels->squares(scaling->balance, weights_from(layer, weights, output, 0),
                         (size_t)layer->ic);
    balance_from_squares(scaling->balance, layer->ic);
    for (int64_t c = 0; c < layer->ic; c++)
        scaling->unbalance[c] = 1 / scaling->balance[c];
}

static void fill_scaling(const struct winograd_scaling *scaling, const struct packed_layer *layer,
                         const void *weights, int threads)
{
    const struct winograd_kernels *kernels = kernels_for(layer->dtype);
    balance(scaling, layer, weights);
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t output = 0; output < layer->oc; output += WINOGRAD_LANES)
        kernels->scaling(scaling, (size_t)output, (size_t)layer->oc,
                         weights_from(layer, weights, output, 0), (size_t)layer->ic, SEGMENT);
}

struct winograd_scaling *winograd_scaling_new(const struct packed_layer *layer, const void *weights,
                                              int threads)
{
    struct winograd_scaling *scaling = xcalloc(1, sizeof(*scaling));
    size_t ic = (size_t)layer->ic, oc = (size_t)layer->oc;
    scaling->balance = memory_new(ic * sizeof(float));
    scaling->unbalance = memory_new(ic * sizeof(float));
    scaling->inverse = memory_new(oc * sizeof(float));
    scaling->gain = memory_new(WINOGRAD_CLASSES * oc * sizeof(uint32_t));
    scaling->scale = memory_new(WINOGRAD_CLASSES * oc * sizeof(float));
    if (scaling->balance && scaling->unbalance && scaling->inverse && scaling->gain &&
        scaling->scale) {
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
    free(scaling->unbalance);
    free(scaling->inverse);
    free(scaling->gain);
    free(scaling->scale);
    free(scaling);
}

/* --- a call -----------------------------------------------------------------------------------
 */

/* V of a block of tiles, and its scales [WINOGRAD_POSITIONS, block_tiles]. */
struct tiles {
    char *v;
    float *scales;
};

/* The memory of a thread, in bytes: for U, for M, and what kernels need to spare. */
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
    bool small;                          /* each thread has all of U, and V of a block of its own */
    int64_t block_tiles;                 /* of each block but the last */
    int64_t blocks;                      /* of tiles */
    int64_t chunk_blocks;                /* of each chunk but the last; small: threads */
    int64_t span;                        /* channels of each but the last */
    size_t v_stride, u_stride, m_stride; /* elements between positions; of M floats */
    size_t u_bytes, m_bytes;             /* of a group of outputs with a span, or with a block */
    size_t v_bytes, scales_bytes;        /* of a block of tiles */
    struct scratch_plan plan;
    char *v, *v_scales;   /* [chunk_blocks] */
    char *thread_scratch; /* [threads] */
    const char *zeros;    /* a pixel outside the picture */
};

/* Outputs whose products follow one another, at most WINOGRAD_COLUMNS. */
struct group {
    int64_t output, columns;
};

/* Input channels. */
struct span {
    int64_t first, channels;
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

static int64_t tiles_of(const struct run *run, int64_t block)
{
    return part_size(run->tiles, run->block_tiles, block);
}

static int64_t group_count(const struct run *run)
{
    return part_count(run->layer->oc, WINOGRAD_COLUMNS);
}

static struct group group_of(const struct run *run, int64_t i)
{
    return (struct group){.output = i * WINOGRAD_COLUMNS,
                          .columns = part_size(run->layer->oc, WINOGRAD_COLUMNS, i)};
}

static size_t scratch_bytes(const struct run *run)
{
    return run->plan.u + run->plan.m + run->plan.spare;
}

static char *scratch_of_thread(const struct run *run)
{
    return run->thread_scratch + (size_t)omp_get_thread_num() * scratch_bytes(run);
}

static struct tiles tiles_at(const struct run *run, int64_t in_chunk)
{
    return (struct tiles){
        .v = run->v + (size_t)in_chunk * run->v_bytes,
        .scales = (float *)(void *)(run->v_scales + (size_t)in_chunk * run->scales_bytes)};
}

/* The pixels that a tile reads: from the row above its results and the column before them. */
static void find_pixels(const struct run *run, struct place at, const void *d[WINOGRAD_POSITIONS])
{
    int64_t ih = run->call->ih, iw = run->call->iw;
    int64_t pixel_bytes = run->layer->ic * (int64_t)dtype_size(run->layer->dtype);
    const char *tile =
        (const char *)run->call->src + ((at.n * ih + at.y) * iw + at.x) * pixel_bytes;
    for (int64_t i = 0; i < WINOGRAD_IN; i++) {
        bool row_inside = at.y + i >= 1 && at.y + i <= ih;
        for (int64_t j = 0; j < WINOGRAD_IN; j++) {
            bool inside = row_inside && at.x + j >= 1 && at.x + j <= iw;
            d[i * WINOGRAD_IN + j] =
                inside ? tile + ((i - 1) * iw + j - 1) * pixel_bytes : run->zeros;
        }
    }
}

/* V of a tile, as a row of its block. */
static void transform_input(const struct run *run, int64_t tile, struct tiles tiles, int64_t row)
{
    char *spare = scratch_of_thread(run) + run->plan.u + run->plan.m;
    const void *d[WINOGRAD_POSITIONS];
    find_pixels(run, tile_place(run, tile), d);
    run->kernels->input(tiles.v + (size_t)(row * run->layer->ic) * run->kernels->element,
                        run->v_stride, tiles.scales + row, (size_t)run->block_tiles,
                        (float *)(void *)spare, d, run->scaling->balance, (size_t)run->layer->ic,
                        SEGMENT);
}

static void transform_weights(const struct run *run, struct group group, struct span span, char *u)
{
    run->kernels->weights(u, run->u_stride,
                          weights_from(run->layer, run->weights, group.output, span.first),
                          run->scaling, (size_t)group.output, (size_t)run->layer->oc,
                          run->scaling->unbalance + span.first, (size_t)run->layer->ic,
                          (size_t)span.channels, (size_t)group.columns);
}

/* One segment's part of M of a block of tiles, at one position. */
static void multiply_segment(const struct run *run, int64_t rows, struct group group,
                             struct span span, const char *v, const char *u, float *m)
{
    size_t element = run->kernels->element;
    run->kernels->products(m, v + (size_t)span.first * element, u, (size_t)rows,
                           (size_t)run->layer->ic, (size_t)span.channels, (size_t)group.columns,
                           span.first > 0);
}

/* Adds a span's part to M of a block of tiles. */
static void multiply(const struct run *run, int64_t rows, struct group group, struct span span,
                     struct tiles tiles, const char *u, float *m)
{
    size_t element = run->kernels->element;
    for (size_t p = 0; p < WINOGRAD_POSITIONS; p++)
        for (int64_t skip = 0; skip < span.channels; skip += SEGMENT) {
            struct span segment = {.first = span.first + skip,
                                   .channels = part_size(span.channels, SEGMENT, skip / SEGMENT)};
            multiply_segment(run, rows, group, segment, tiles.v + p * run->v_stride * element,
                             u + (p * run->u_stride + (size_t)(skip * group.columns)) * element,
                             m + p * run->m_stride);
        }
}

/* The pixels that a tile makes, from an output on. */
static struct winograd_results find_results(const struct run *run, struct place at, int64_t output)
{
    int64_t ih = run->call->ih, iw = run->call->iw, oc = run->layer->oc;
    int64_t skip = ((at.n * ih + at.y) * iw + at.x) * oc + output;
    return (struct winograd_results){
        .first = (char *)run->call->dst + (size_t)skip * dtype_size(run->layer->dtype),
        .row = (size_t)(iw * oc),
        .pixel = (size_t)oc,
        .rows = (size_t)(ih - at.y < WINOGRAD_OUT ? ih - at.y : WINOGRAD_OUT),
        .columns = (size_t)(iw - at.x < WINOGRAD_OUT ? iw - at.x : WINOGRAD_OUT)};
}

static void transform_output(const struct run *run, int64_t block, struct group group,
                             struct tiles tiles, const float *m)
{
    const struct packed_call *call = run->call;
    for (int64_t row = 0; row < tiles_of(run, block); row++) {
        struct place at = tile_place(run, block * run->block_tiles + row);
        struct winograd_results y = find_results(run, at, group.output);
        struct winograd_sums sums = {.m = m + row * group.columns,
                                     .v_scale = tiles.scales + row,
                                     .u_scale = run->scaling->scale + group.output,
                                     .m_stride = run->m_stride,
                                     .v_stride = (size_t)run->block_tiles,
                                     .oc = (size_t)run->layer->oc};
        const float *bias =
            call->bias ? call->bias + at.n * call->bias_stride + group.output : NULL;
        run->kernels->output(&y, &sums, (size_t)group.columns, bias, call->accumulate);
    }
}

/* --- small layers: a thread takes a block from pixels to results -------------------------------
 */

static void compute_block(const struct run *run, int64_t block)
{
    struct tiles tiles = tiles_at(run, omp_get_thread_num());
    struct span all = {.channels = run->layer->ic};
    char *u = scratch_of_thread(run);
    float *m = (float *)(void *)(u + run->plan.u);
    for (int64_t row = 0; row < tiles_of(run, block); row++)
        transform_input(run, block * run->block_tiles + row, tiles, row);
    for (int64_t i = 0; i < group_count(run); i++) {
        struct group group = group_of(run, i);
        multiply(run, tiles_of(run, block), group, all, tiles, u + (size_t)i * run->u_bytes, m);
        transform_output(run, block, group, tiles, m);
    }
}

static void compute_small(const struct run *run, int threads)
{
    struct span all = {.channels = run->layer->ic};
#pragma omp parallel num_threads(threads)
    {
        for (int64_t i = 0; i < group_count(run); i++)
            transform_weights(run, group_of(run, i), all,
                              scratch_of_thread(run) + (size_t)i * run->u_bytes);
#pragma omp for schedule(static)
        for (int64_t block = 0; block < run->blocks; block++)
            compute_block(run, block);
    }
}

/* --- others: a chunk of V at a time, and of it a group of outputs at a time -------------------
 */

/* Where M of a block of tiles is; of the last one only, when there is but one span. */
static float *m_of(const struct run *run, int64_t i)
{
    char *m = scratch_of_thread(run) + run->plan.u;
    return (float *)(void *)(m + (run->span < run->layer->ic ? (size_t)i * run->m_bytes : 0));
}

/* A group of outputs with the blocks of tiles from `from` to `to` of a chunk. */
static void compute_group(const struct run *run, int64_t chunk, int64_t from, int64_t to,
                          struct group group)
{
    char *u = scratch_of_thread(run);
    struct span span = {0};
    for (; span.first < run->layer->ic; span.first += run->span) {
        span.channels = part_size(run->layer->ic, run->span, span.first / run->span);
        bool last = span.first + span.channels == run->layer->ic;
        transform_weights(run, group, span, u);
        for (int64_t block = from; block < to; block++) {
            float *m = m_of(run, block - from);
            struct tiles tiles = tiles_at(run, block);
            multiply(run, tiles_of(run, chunk + block), group, span, tiles, u, m);
            if (last)
                transform_output(run, chunk + block, group, tiles, m);
        }
    }
}

/* A thread's part of a chunk of one block: some of the outputs. */
static void compute_part_of_block(const struct run *run, int64_t chunk)
{
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    int64_t vectors = run->layer->oc / WINOGRAD_LANES;
    int64_t end = (thread + 1) * vectors / threads * WINOGRAD_LANES;
    struct group group = {.output = thread * vectors / threads * WINOGRAD_LANES};
    for (; group.output < end; group.output += group.columns) {
        int64_t left = end - group.output;
        group.columns = left < WINOGRAD_COLUMNS ? left : WINOGRAD_COLUMNS;
        compute_group(run, chunk, 0, 1, group);
    }
}

/* A thread's part of a chunk of several: of every group of outputs with every block of tiles. */
static void compute_part(const struct run *run, int64_t chunk, int64_t blocks)
{
    int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
    int64_t all = blocks * group_count(run), end = (thread + 1) * all / threads;
    for (int64_t i = thread * all / threads; i < end;) {
        int64_t group = i / blocks, from = i % blocks;
        int64_t to = end - group * blocks < blocks ? end - group * blocks : blocks;
        compute_group(run, chunk, from, to, group_of(run, group));
        i += to - from;
    }
}

static void compute_chunks(const struct run *run, int threads)
{
#pragma omp parallel num_threads(threads)
    for (int64_t chunk = 0; chunk < run->blocks; chunk += run->chunk_blocks) {
        int64_t first = chunk * run->block_tiles;
        int64_t blocks = part_size(run->blocks, run->chunk_blocks, chunk / run->chunk_blocks);
        int64_t tiles =
            part_size(run->tiles, run->chunk_blocks * run->block_tiles, chunk / run->chunk_blocks);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tiles; i++)
            transform_input(run, first + i, tiles_at(run, i / run->block_tiles),
                            i % run->block_tiles);
        if (blocks == 1)
            compute_part_of_block(run, chunk);
        else
            compute_part(run, chunk, blocks);
#pragma omp barrier
    }
}

/* --- planning ----------------------------------------------------------------------------------
 */

static size_t with_gap(size_t bytes)
{
    return (bytes + GAP_BYTES - 1) / GAP_BYTES * GAP_BYTES + GAP_BYTES;
}

static void plan_tiles(struct run *run)
{
    const struct packed_call *call = run->call;
    run->tile_rows = (call->ih + WINOGRAD_OUT - 1) / WINOGRAD_OUT;
    run->tile_columns = (call->iw + WINOGRAD_OUT - 1) / WINOGRAD_OUT;
    run->tiles = call->n * run->tile_rows * run->tile_columns;
}

/* U of a group of outputs with a span. */
static void plan_u(struct run *run, int64_t span)
{
    size_t u = with_gap((size_t)(span * WINOGRAD_COLUMNS) * run->kernels->element);
    run->span = span;
    run->u_stride = u / run->kernels->element;
    run->u_bytes = u * WINOGRAD_POSITIONS;
}

/* Blocks of one size but for the last, of no more than so many tiles, as many for each thread. */
static void plan_blocks(struct run *run, int64_t most, int threads)
{
    int64_t blocks = part_count(part_count(run->tiles, most), threads) * threads;
    run->block_tiles = part_count(run->tiles, blocks);
    run->blocks = part_count(run->tiles, run->block_tiles);
}

static void plan_memory(struct run *run)
{
    size_t ic = (size_t)run->layer->ic, tiles = (size_t)run->block_tiles;
    size_t v = with_gap(tiles * ic * run->kernels->element);
    size_t m = with_gap(tiles * WINOGRAD_COLUMNS * sizeof(float));
    run->v_stride = v / run->kernels->element;
    run->m_stride = m / sizeof(float);
    run->v_bytes = v * WINOGRAD_POSITIONS;
    run->m_bytes = m * WINOGRAD_POSITIONS;
    run->scales_bytes = with_gap(tiles * WINOGRAD_POSITIONS * sizeof(float));
    run->plan.spare = ic * run->kernels->spare * sizeof(float);
}

static void plan_small(struct run *run, int threads)
{
    plan_blocks(run, SMALL_BLOCK_TILES, threads);
    plan_memory(run);
    run->chunk_blocks = threads;
    run->plan.u = run->u_bytes * (size_t)group_count(run);
    run->plan.m = run->m_bytes;
}

static void plan_chunks(struct run *run, int threads)
{
    plan_u(run, run->layer->ic <= ONE_SPAN ? run->layer->ic : SPAN);
    plan_blocks(run, BLOCK_TILES, run->tiles > BLOCK_TILES ? threads : 1);
    plan_memory(run);
    bool one_span = run->span == run->layer->ic;
    size_t largest = run->v_bytes > run->m_bytes || one_span ? run->v_bytes : run->m_bytes;
    int64_t fit = (int64_t)(CHUNK_BYTES / largest);
    run->chunk_blocks = part_count(run->blocks, part_count(run->blocks, fit > 0 ? fit : 1));
    run->plan.u = run->u_bytes;
    run->plan.m = run->m_bytes * (one_span ? 1 : (size_t)run->chunk_blocks);
}

static void plan(struct run *run, int threads)
{
    plan_tiles(run);
    plan_u(run, run->layer->ic);
    run->small = run->u_bytes * (size_t)group_count(run) <= SMALL_U_BYTES &&
                 run->tiles >= threads * SMALL_BLOCK_TILES;
    if (run->small)
        plan_small(run, threads);
    else
        plan_chunks(run, threads);
}

int winograd_run(struct nn *nn, const struct packed_layer *layer, const void *weights,
                 const struct winograd_scaling *scaling, const struct packed_call *call)
{
    struct run run = {.kernels = kernels_for(layer->dtype),
                      .layer = layer,
                      .call = call,
                      .weights = weights,
                      .scaling = scaling};
    int64_t pixels = call->n * call->ih * call->iw;
    int threads = threads_for_products(nn, pixels * WINOGRAD_POSITIONS / WINOGRAD_PIXELS *
                                               layer->ic * layer->oc);
    plan(&run, threads);
    size_t v_bytes = (size_t)run.chunk_blocks * run.v_bytes;
    size_t scales_bytes = (size_t)run.chunk_blocks * run.scales_bytes;
    size_t threads_bytes = (size_t)threads * scratch_bytes(&run);
    size_t zeros = (size_t)layer->ic * dtype_size(layer->dtype);
    char *scratch = nn_scratch(nn, v_bytes + scales_bytes + threads_bytes + zeros);
    if (!scratch)
        return -(int)ERR_OUT_OF_MEMORY;
    run.v = scratch;
    run.v_scales = run.v + v_bytes;
    run.thread_scratch = run.v_scales + scales_bytes;
    run.zeros = memset(run.thread_scratch + threads_bytes, 0, zeros);
    if (run.small)
        compute_small(&run, threads);
    else
        compute_chunks(&run, threads);
    pool_drop(&nn->pool, scratch);
    return 0;
}
