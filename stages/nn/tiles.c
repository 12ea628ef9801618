/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A layer's matrix product by tiles, where oneDNN has nothing better than its gemm (packed.h). A
 * tile is a block of a sample's rows and a block of outputs, of sizes that follow from the shape,
 * computed on one thread: so neither company nor the number of threads changes a sum.
 */
#include <omp.h>

#include "stages/nn/context.h"
#include "stages/nn/packed.h"
#include "stages/nn/parallel.h"
#include "stages/nn/product.h"

#define TILE_ROWS    128
#define TILE_OUTPUTS 256

/* Products by whether a tile is the last of its rows, and of its outputs: those may be smaller. */
struct tiling {
    const struct packed_layer *layer;
    const struct packed_call *call;
    const char *weights; /* [oc, ic] */
    int64_t row_blocks, output_blocks;
    struct product *product[2][2];
    char *scratch;
    size_t slot_bytes;
};

static bool find_products(struct nn *nn, struct tiling *tiling)
{
    const struct packed_layer *layer = tiling->layer;
    for (int i = 0; i < 4; i++) {
        bool last_rows = i / 2 == 1, last_outputs = i % 2 == 1;
        int64_t row_block = last_rows ? tiling->row_blocks - 1 : 0;
        int64_t output_block = last_outputs ? tiling->output_blocks - 1 : 0;
        struct product_shape shape = {
            .m = part_size(tiling->call->ih, TILE_ROWS, row_block),
            .n = part_size(layer->oc, TILE_OUTPUTS, output_block),
            .k = layer->ic,
            .src_stride = layer->ic,
            .weights_stride = layer->ic,
            .dst_stride = layer->oc,
            .transposed = true,
            .src_dtype = layer->dtype,
            .dst_dtype = layer->dtype,
            .bias = tiling->call->bias != NULL,
            .accumulate = tiling->call->accumulate,
            .act = tiling->call->act,
        };
        struct product *product = product_get(nn, &shape, nn->threads);
        if (!product)
            return false;
        tiling->product[last_rows][last_outputs] = product;
        size_t bytes = product_scratch_bytes(product);
        tiling->slot_bytes = bytes > tiling->slot_bytes ? bytes : tiling->slot_bytes;
    }
    return true;
}

static bool run_tile(const struct tiling *tiling, int64_t tile, int slot)
{
    const struct packed_layer *layer = tiling->layer;
    const struct packed_call *call = tiling->call;
    int64_t output_block = tile % tiling->output_blocks;
    int64_t row_block = tile / tiling->output_blocks % tiling->row_blocks;
    int64_t n = tile / tiling->output_blocks / tiling->row_blocks;
    int64_t row = n * call->ih + row_block * TILE_ROWS, output = output_block * TILE_OUTPUTS;
    size_t element = dtype_size(layer->dtype);
    struct product_args args = {
        .src = (const char *)call->src + (size_t)(row * layer->ic) * element,
        .weights = tiling->weights + (size_t)(output * layer->ic) * element,
        .bias = call->bias ? call->bias + n * call->bias_stride + output : NULL,
        .dst = (char *)call->dst + (size_t)(row * layer->oc + output) * element,
        .scratch = tiling->scratch + (size_t)slot * tiling->slot_bytes,
    };
    struct product *product = tiling->product[row_block == tiling->row_blocks - 1]
                                             [output_block == tiling->output_blocks - 1];
    return product_run(product, slot, &args);
}

int tiles_run(struct nn *nn, const struct packed_layer *layer, const void *weights,
              const struct packed_call *call)
{
    struct tiling tiling = {.layer = layer, .call = call, .weights = weights};
    tiling.row_blocks = part_count(call->ih, TILE_ROWS);
    tiling.output_blocks = part_count(layer->oc, TILE_OUTPUTS);
    if (!find_products(nn, &tiling))
        return -(int)ERR_COMPUTE;
    tiling.slot_bytes += MEMORY_ALIGNMENT - tiling.slot_bytes % MEMORY_ALIGNMENT;
    tiling.scratch = nn_scratch(nn, tiling.slot_bytes * (size_t)nn->threads);
    if (!tiling.scratch)
        return -(int)ERR_OUT_OF_MEMORY;
    int64_t tiles = call->n * tiling.row_blocks * tiling.output_blocks;
    int threads = threads_for_products(nn, call->n * call->ih * layer->ic * layer->oc);
    int failures = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : failures)
    for (int64_t tile = 0; tile < tiles; tile++)
        failures += !run_tile(&tiling, tile, omp_get_thread_num());
    pool_drop(&nn->pool, tiling.scratch);
    return failures ? nn_fail(nn, ERR_COMPUTE, "oneDNN failed in a matrix product") : 0;
}
