/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention (layers.h). Work is cut into parts: one head of one sample and a block of its queries,
 * of a size that follows from the number of keys alone. A part runs on one thread, with its
 * scores in cache:
 *
 *     scores [rows, lk] f32 = q kᵀ
 *     p [rows, lk] = exp(scores scale + mask - their maximum), and its sums
 *     y [rows, head_dim] = p v / sums
 *
 * Both products are oneDNN's, which reads q, k and v in place; but in bf16, where the CPU has dot
 * products for it, our own (kernels.h): then k and v are packed once for all blocks of a head,
 * where oneDNN packs them in each call.
 */
#include <omp.h>
#include <string.h>

#include "stages/nn/context.h"
#include "stages/nn/kernels.h"
#include "stages/nn/layers.h"
#include "stages/nn/onednn.h"
#include "stages/nn/parallel.h"
#include "stages/nn/product.h"
#include "stages/nn/profile.h"

#define SCORES_IN_CACHE 65536 /* elements of a block */
#define BLOCK_ROWS_MIN  16
#define BLOCK_ROWS_MAX  128
#define FILLING         16 /* rows are filled up to a multiple (kernels.h) */
#define SCORES_FILLING  32 /* so that rows of bf16 begin at lines of the cache */

/* The products of blocks of one size; the last block of queries may be smaller. */
struct block_products {
    struct product *scores, *output;
};

/* A thread's scratch memory: where its parts begin. */
struct slot_plan {
    size_t p, out, sums, library, bytes; /* scores come first */
};

struct attention_work {
    const struct attention_args *args;
    struct tensor y;
    int64_t n, lq, lk;
    int64_t rows, blocks;
    int64_t scores_width, out_width;    /* rows of scores and p, and of p v, with their filling */
    struct block_products full, last;   /* without dot */
    const struct dot *dot;              /* or NULL */
    uint16_t *panels;                   /* [n, heads]: packed keys, packed values */
    size_t key_elements, head_elements; /* of a head's keys, and of both */
    struct slot_plan slot;
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
                                   .dst_stride = work->scores_width,
                                   .transposed = true,
                                   .src_dtype = nn->compute,
                                   .dst_dtype = DTYPE_F32};
    struct product_shape output = {.m = rows,
                                   .n = args->head_dim,
                                   .k = work->lk,
                                   .src_stride = work->scores_width,
                                   .weights_stride = args->v.dim[2],
                                   .dst_stride = work->out_width,
                                   .src_dtype = nn->compute,
                                   .dst_dtype = DTYPE_F32};
    products->scores = product_get(nn, &scores, nn->threads);
    products->output = products->scores ? product_get(nn, &output, nn->threads) : NULL;
    return products->output != NULL;
}

static size_t round_up(size_t bytes)
{
    return (bytes + MEMORY_ALIGNMENT - 1) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

static size_t library_bytes(const struct block_products *products)
{
    size_t scores = product_scratch_bytes(products->scores);
    size_t output = product_scratch_bytes(products->output);
    return scores > output ? scores : output;
}

/* What the products need: oneDNN's for both sizes of blocks, or room for the packed heads. */
static bool plan_products(struct nn *nn, struct attention_work *work)
{
    const struct attention_args *args = work->args;
    if (nn->compute == DTYPE_BF16 && device_fast_bf16() && !device_has(DEVICE_AMX) &&
        args->head_dim % 2 == 0)
        work->dot = kernels()->dot;
    if (work->dot) {
        work->key_elements = (size_t)(work->scores_width * args->head_dim);
        work->head_elements =
            work->key_elements + (size_t)((work->lk + 1) / 2 * 2 * work->out_width);
        work->panels = nn_scratch(nn, (size_t)(work->n * args->heads) * work->head_elements *
                                          sizeof(*work->panels));
        return work->panels != NULL;
    }
    int64_t last = part_size(work->lq, work->rows, work->blocks - 1);
    if (!find_products(nn, work, work->rows, &work->full) ||
        !find_products(nn, work, last, &work->last))
        return false;
    size_t full = library_bytes(&work->full), rest = library_bytes(&work->last);
    work->slot.bytes = full > rest ? full : rest;
    return true;
}

/* Cuts the work, finds the products and takes scratch memory for each thread. */
static bool plan(struct nn *nn, struct attention_work *work)
{
    struct slot_plan *slot = &work->slot;
    work->rows = block_rows(work->lk);
    work->rows = work->rows < work->lq ? work->rows : work->lq;
    work->blocks = part_count(work->lq, work->rows);
    work->scores_width = part_count(work->lk, SCORES_FILLING) * SCORES_FILLING;
    work->out_width = part_count(work->args->head_dim, FILLING) * FILLING;
    if (!plan_products(nn, work))
        return false;
    size_t rows = (size_t)work->rows, scores = rows * (size_t)work->scores_width;
    slot->p = round_up(scores * sizeof(float));
    slot->out = slot->p + round_up(scores * dtype_size(nn->compute));
    slot->sums = slot->out + round_up(rows * (size_t)work->out_width * sizeof(float));
    slot->library = slot->sums + round_up(rows * sizeof(float));
    slot->bytes = slot->library + round_up(slot->bytes);
    work->slots = nn_scratch(nn, slot->bytes * (size_t)nn->threads);
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

static void pack_head(const struct attention_work *work, int64_t index)
{
    const struct attention_args *args = work->args;
    int64_t n = index / args->heads, channel = index % args->heads * args->head_dim;
    uint16_t *panels = work->panels + (size_t)index * work->head_elements;
    const void *k = element_at(args->k, n, 0, args->k_offset + channel);
    const void *v = element_at(args->v, n, 0, args->v_offset + channel);
    size_t lk = (size_t)work->lk, head_dim = (size_t)args->head_dim;
    work->dot->pack_columns(panels, k, (size_t)args->k.dim[2], head_dim, lk);
    work->dot->pack_rows(panels + work->key_elements, v, (size_t)args->v.dim[2], lk, head_dim);
}

/* A block of one head's queries, and its thread's scratch memory. */
struct block {
    int64_t n, head, row, rows;
    int slot;
    float *scores, *out, *sums;
    void *p, *library;
};

static struct block block_at(const struct attention_work *work, int64_t part, int slot)
{
    char *scratch = work->slots + (size_t)slot * work->slot.bytes;
    int64_t heads = work->args->heads, block = part % work->blocks;
    return (struct block){.n = part / work->blocks / heads,
                          .head = part / work->blocks % heads,
                          .row = block * work->rows,
                          .rows = part_size(work->lq, work->rows, block),
                          .slot = slot,
                          .scores = (float *)scratch,
                          .p = scratch + work->slot.p,
                          .out = (float *)(scratch + work->slot.out),
                          .sums = (float *)(scratch + work->slot.sums),
                          .library = scratch + work->slot.library};
}

static bool compute_scores(const struct attention_work *work, const struct block *block)
{
    const struct attention_args *args = work->args;
    int64_t channel = block->head * args->head_dim;
    const void *q = element_at(args->q, block->n, block->row, args->q_offset + channel);
    if (work->dot) {
        size_t head = (size_t)(block->n * args->heads + block->head);
        work->dot->product(block->scores, (size_t)work->scores_width, q, (size_t)args->q.dim[2],
                           work->panels + head * work->head_elements, (size_t)block->rows,
                           (size_t)args->head_dim, (size_t)work->lk);
        return true;
    }
    struct product_args product = {
        .src = q,
        .weights = element_at(args->k, block->n, 0, args->k_offset + channel),
        .dst = block->scores,
        .scratch = block->library,
    };
    return product_run(block->rows == work->rows ? work->full.scores : work->last.scores,
                       block->slot, &product);
}

static void soften(const struct attention_work *work, const struct block *block)
{
    const struct attention_args *args = work->args;
    kernels()->softmax(block->sums, block->p, block->scores, (size_t)work->scores_width,
                       mask_row(&args->mask, block->n, block->row),
                       args->mask.data && args->mask.dim[1] > 1 ? (size_t)work->lk : 0, args->scale,
                       work->y.dtype, (size_t)block->rows, (size_t)work->lk);
}

static bool compute_output(const struct attention_work *work, const struct block *block)
{
    const struct attention_args *args = work->args;
    if (work->dot) {
        size_t head = (size_t)(block->n * args->heads + block->head);
        work->dot->product(block->out, (size_t)work->out_width, block->p,
                           (size_t)work->scores_width,
                           work->panels + head * work->head_elements + work->key_elements,
                           (size_t)block->rows, (size_t)work->lk, (size_t)args->head_dim);
        return true;
    }
    struct product_args product = {
        .src = block->p,
        .weights = element_at(args->v, block->n, 0, args->v_offset + block->head * args->head_dim),
        .dst = block->out,
        .scratch = block->library,
    };
    return product_run(block->rows == work->rows ? work->full.output : work->last.output,
                       block->slot, &product);
}

static bool run_part(const struct attention_work *work, int64_t part, int slot)
{
    struct block block = block_at(work, part, slot);
    int64_t head_dim = work->args->head_dim;
    if (!compute_scores(work, &block))
        return false;
    soften(work, &block);
    if (!compute_output(work, &block))
        return false;
    const struct kernels *all = kernels();
    for (int64_t i = 0; i < block.rows; i++)
        all->scale(element_at(work->y, block.n, block.row + i, block.head * head_dim),
                   block.out + i * work->out_width, 1 / block.sums[i], work->y.dtype,
                   (size_t)head_dim);
    return true;
}

/* Returns how many parts of a head failed. */
static int run_head(const struct attention_work *work, int64_t head, int slot)
{
    int failures = 0;
    if (work->dot)
        pack_head(work, head);
    for (int64_t block = 0; block < work->blocks; block++)
        failures += !run_part(work, head * work->blocks + block, slot);
    return failures;
}

static int run_heads(const struct attention_work *work, int threads)
{
    int64_t heads = work->n * work->args->heads;
    int failures = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : failures)
    for (int64_t head = 0; head < heads; head++)
        failures += run_head(work, head, omp_get_thread_num());
    return failures;
}

/* Where heads do not share out evenly: threads pack all heads, then share the blocks. */
static int run_blocks(const struct attention_work *work, int threads)
{
    int64_t heads = work->n * work->args->heads, parts = heads * work->blocks;
    int failures = 0;
#pragma omp parallel num_threads(threads) reduction(+ : failures)
    {
        if (work->dot) {
#pragma omp for schedule(static)
            for (int64_t head = 0; head < heads; head++)
                pack_head(work, head);
        }
#pragma omp for schedule(static)
        for (int64_t part = 0; part < parts; part++)
            failures += !run_part(work, part, omp_get_thread_num());
    }
    return failures;
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
    int64_t products = 2 * work.n * args.heads * work.lq * work.lk * args.head_dim;
    int threads = threads_for_products(nn, products);
    bool even = work.n * args.heads % threads == 0;
    int failures = even ? run_heads(&work, threads) : run_blocks(&work, threads);
    pool_drop(&nn->pool, work.slots);
    if (work.dot)
        pool_drop(&nn->pool, work.panels);
    profile_attention(nn, began, &work);
    if (failures == 0)
        return work.y;
    nn_fail(nn, ERR_COMPUTE, "oneDNN failed in attention");
    return (struct tensor){0};
}
