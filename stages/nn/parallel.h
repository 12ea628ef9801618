/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How our own ops use threads: over fixed parts of the work, whose size follows from shapes and
 * never from the number of threads; each part writes its own output, or its own partial sums.
 */
#ifndef UNCLIP_STAGES_NN_PARALLEL_H
#define UNCLIP_STAGES_NN_PARALLEL_H

#include <stdint.h>

#include "stages/nn/context.h"

#define PART_ELEMENTS 16384 /* about what fits a core's first cache */

/*
 * Waking a thread and waiting for it costs microseconds, and a whole time slice where other
 * processes want the cores. So an op wakes one more thread only for this many multiply-adds: some
 * 20 µs.
 */
#define GRAIN_PRODUCTS      2000000
#define PRODUCTS_OF_ELEMENT 32 /* what an element of a norm or an activation counts for */

/* Threads for an op of so many multiply-adds. */
static inline int threads_for_products(const struct nn *nn, int64_t products)
{
    int64_t threads = products / GRAIN_PRODUCTS;
    return threads < 1 ? 1 : threads < nn->threads ? (int)threads : nn->threads;
}

/* Threads for an op on so many elements. */
static inline int threads_for_elements(const struct nn *nn, int64_t elements)
{
    return threads_for_products(nn, elements * PRODUCTS_OF_ELEMENT);
}

/* Parts that `rows` rows of `row` elements are cut into, and the rows of one part. */
static inline int64_t part_rows(int64_t row)
{
    int64_t rows = PART_ELEMENTS / (row > 0 ? row : 1);
    return rows > 0 ? rows : 1;
}

static inline int64_t part_count(int64_t rows, int64_t rows_of_part)
{
    return (rows + rows_of_part - 1) / rows_of_part;
}

static inline int64_t part_size(int64_t rows, int64_t rows_of_part, int64_t part)
{
    int64_t left = rows - part * rows_of_part;
    return left < rows_of_part ? left : rows_of_part;
}

#endif
