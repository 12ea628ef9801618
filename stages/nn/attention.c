/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention (layers.h). Work is cut into parts: one head of one sample and a block of its queries,
 * of a size that follows from the number of keys alone. A part runs on one thread, with its
 * scores in cache:
 *
 *     scores [rows, lk] f32 = q kᵀ      oneDNN, q and k read in place by strides
 *     p [rows, lk] = softmax(scores scale + mask)
 *     y [rows, head_dim] = p v          oneDNN, v read and y written in place
 */
#include <omp.h>
#include <string.h>

#include "stages/nn/context.h"
#include "stages/nn/kernels.h"
#include "stages/nn/layers.h"
#include "stages/nn/parallel.h"
#include "stages/nn/product.h"
#include "stages/nn/profile.h"

#define SCORES_IN_CACHE 65536 /* elements of a block */
#define BLOCK_ROWS_MIN  16
#define BLOCK_ROWS_MAX  128

/* The products of blocks of one size; the last block of queries may be smaller. */
struct block_products {
    struct product *scores, *output;
};

struct attention_work {
    const struct attention_args *args;
    struct tensor y;
    int64_t n, lq, lk;
    int64_t rows, blocks;
    struct block_products full, last;
    size_t p_offset, scratch_offset, slot_bytes; /* a thread's scratch: scores, p, oneDNN's */
    char *slots;
};

static bool expect_args(struct nn *nn, const struct attention_args *args)
{
    int64_t n = args->q.dim[0], lk = args->k.dim[1];
    if (!NN_EXPECT(nn, "attention's query", args->q, -1, -1, -1) ||
        !NN_EXPECT(nn, "attention's key", args->k, n, -1, -1) ||
        !NN_EXPECT(nn, "attention's value", args->v, n, lk, -1))
        return false;
    int64_t width = (int64_t)args->heads * args->head_dim;
    bool inside =
        args->heads > 0 && args->head_dim > 0 && args->q_offset >= 0 && args->k_offset >= 0 &&
        args->v_offset >= 0 && args->q_offset + width <= args->q.dim[2] &&
        args->k_offset + width <= args->k.dim[2] && args->v_offset + width <= args->v.dim[2];
    if (!inside) {
        nn_fail(nn, ERR_COMPUTE, "attention's %d heads of %d lie outside of its tensors",
                args->heads, args->head_dim);
        return false;
    }
    if (!args->mask.data)
        return true;
    BUG_ON(args->mask.dtype != DTYPE_F32);
    return NN_EXPECT(nn, "attention's mask", args->mask, args->mask.dim[0] == 1 ? 1 : n,
                     args->mask.dim[1] == 1 ? 1 : args->q.dim[1], lk);
}

static int64_t block_rows(int64_t lk)
{
    int64_t rows = SCORES_IN_CACHE / lk / BLOCK_ROWS_MIN * BLOCK_ROWS_MIN;
    rows = rows < BLOCK_ROWS_MIN ? BLOCK_ROWS_MIN : rows;
    return rows > BLOCK_ROWS_MAX ? BLOCK_ROWS_MAX : rows;
}

static bool find_products(struct nn *nn, const struct attention_work *work, int64_t rows,
                          struct block_products *products)
{
    const struct attention_args *args = work->args;
    struct product_shape scores = {.m = rows,
                                   .n = work->lk,
                                   .k = args->head_dim,
                                   .src_stride = args->q.dim[2],
                                   .weights_stride = args->k.dim[2],
                                   .dst_stride = work->lk,
                                   .transposed = true,
                                   .src_dtype = nn->compute,
                                   .dst_dtype = DTYPE_F32};
    struct product_shape output = {.m = rows,
                                   .n = args->head_dim,
                                   .k = work->lk,
                                   .src_stride = work->lk,
                                   .weights_stride = args->v.dim[2],
                                   .dst_stride = work->y.dim[2],
                                   .src_dtype = nn->compute,
                                   .dst_dtype = nn->compute};
    products->scores = product_get(nn, &scores, nn->threads);
    products->output = products->scores ? product_get(nn, &output, nn->threads) : NULL;
    return products->output != NULL;
}

static size_t round_up(size_t bytes)
{
    return (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

static size_t scratch_needed(const struct block_products *products)
{
    size_t scores = product_scratch_bytes(products->scores);
    size_t output = product_scratch_bytes(products->output);
    return round_up(scores > output ? scores : output);
}

/* Cuts the work, finds the products and takes scratch memory for each thread. */
static bool plan(struct nn *nn, struct attention_work *work)
{
    work->rows = block_rows(work->lk);
    work->rows = work->rows < work->lq ? work->rows : work->lq;
    work->blocks = part_count(work->lq, work->rows);
    int64_t last = part_size(work->lq, work->rows, work->blocks - 1);
    if (!find_products(nn, work, work->rows, &work->full) ||
        !find_products(nn, work, last, &work->last))
        return false;
    size_t scores = (size_t)(work->rows * work->lk);
    size_t full = scratch_needed(&work->full), rest = scratch_needed(&work->last);
    work->p_offset = round_up(scores * sizeof(float));
    work->scratch_offset = work->p_offset + round_up(scores * dtype_size(nn->compute));
    work->slot_bytes = work->scratch_offset + (full > rest ? full : rest);
    work->slots = nn_scratch(nn, work->slot_bytes * (size_t)nn->threads);
    return work->slots != NULL;
}

/* The element at a row of a sample and a channel. */
static char *element_at(struct tensor x, int64_t n, int64_t row, int64_t channel)
{
    return (char *)x.data +
           (size_t)((n * x.dim[1] + row) * x.dim[2] + channel) * dtype_size(x.dtype);
}

static const float *mask_row(const struct tensor *mask, int64_t n, int64_t row)
{
    if (!mask->data)
        return NULL;
    return (const float *)element_at(*mask, mask->dim[0] == 1 ? 0 : n, mask->dim[1] == 1 ? 0 : row,
                                     0);
}

static bool run_part(const struct attention_work *work, int64_t part, int slot)
{
    const struct attention_args *args = work->args;
    int64_t block = part % work->blocks, head = part / work->blocks % args->heads;
    int64_t n = part / work->blocks / args->heads, row = block * work->rows;
    int64_t rows = part_size(work->lq, work->rows, block);
    const struct block_products *products = rows == work->rows ? &work->full : &work->last;
    char *scratch = work->slots + (size_t)slot * work->slot_bytes;
    float *scores = (float *)scratch;
    char *p = scratch + work->p_offset;
    int64_t channel = head * args->head_dim;
    struct product_args first = {
        .src = element_at(args->q, n, row, args->q_offset + channel),
        .weights = element_at(args->k, n, 0, args->k_offset + channel),
        .dst = scores,
        .scratch = scratch + work->scratch_offset,
    };
    if (!product_run(products->scores, slot, &first))
        return false;
    size_t p_row = (size_t)work->lk * dtype_size(work->y.dtype);
    for (int64_t i = 0; i < rows; i++)
        kernels()->softmax(p + (size_t)i * p_row, scores + i * work->lk,
                           mask_row(&args->mask, n, row + i), args->scale, work->y.dtype,
                           (size_t)work->lk);
    struct product_args second = {
        .src = p,
        .weights = element_at(args->v, n, 0, args->v_offset + channel),
        .dst = element_at(work->y, n, row, channel),
        .scratch = scratch + work->scratch_offset,
    };
    return product_run(products->output, slot, &second);
}

static void profile_attention(struct nn *nn, int64_t began, const struct attention_work *work)
{
    const struct attention_args *args = work->args;
    double width = (double)args->heads * args->head_dim, rows = (double)work->lq;
    double read = (double)work->n * width * (rows + 2 * (double)work->lk);
    profile_end(nn, began,
                &(struct profile_op){
                    .name = "attention",
                    .x = work->y,
                    .oc = work->lk,
                    .flop = 4 * (double)work->n * rows * (double)work->lk * width,
                    .bytes = read * (double)dtype_size(nn->compute) + tensor_bytes(work->y),
                });
}

struct tensor nn_attention(struct nn *nn, struct attention_args args)
{
    int64_t began = profile_begin(nn);
    if (nn_failed(nn) || !expect_args(nn, &args))
        return (struct tensor){0};
    struct attention_work work = {
        .args = &args, .n = args.q.dim[0], .lq = args.q.dim[1], .lk = args.k.dim[1]};
    work.y = NN_NEW(nn, nn->compute, work.n, work.lq, (int64_t)args.heads * args.head_dim);
    if (nn_failed(nn) || !plan(nn, &work))
        return (struct tensor){0};
    int64_t parts = work.n * args.heads * work.blocks;
    int64_t products = 2 * parts * work.lq / work.blocks * work.lk * args.head_dim;
    int threads = threads_for_products(nn, products), failures = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : failures)
    for (int64_t part = 0; part < parts; part++)
        failures += !run_part(&work, part, omp_get_thread_num());
    pool_drop(&nn->pool, work.slots);
    profile_attention(nn, began, &work);
    if (failures == 0)
        return work.y;
    nn_fail(nn, ERR_COMPUTE, "oneDNN failed in attention");
    return (struct tensor){0};
}
