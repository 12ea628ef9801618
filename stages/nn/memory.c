/* SPDX-License-Identifier: Apache-2.0 */
/* Aligned memory and the pool of tensors (memory.h). */
#include "stages/nn/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/err.h"
#include "common/memory.h"

#define LARGE_PAGE  ((size_t)2 << 20)
#define SMALL_BLOCK ((size_t)32 << 10) /* not worth saving */
#define STALE_TAKES 16384              /* more than any network's pass */

void *memory_new(size_t bytes)
{
    size_t alignment = bytes >= 2 * LARGE_PAGE ? LARGE_PAGE : MEMORY_ALIGNMENT;
    void *data;
    if (bytes > MEMORY_MAX ||
        posix_memalign(&data, alignment, bytes ? bytes : MEMORY_ALIGNMENT) != 0)
        return NULL;
    if (alignment == LARGE_PAGE)
        madvise(data, bytes, MADV_HUGEPAGE); /* a hint: it may fail */
    return data;
}

/* The index of the first block of at least so many bytes. */
static size_t lower_bound(const struct pool *pool, size_t bytes)
{
    size_t low = 0, high = pool->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pool->blocks[middle].bytes < bytes)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The smallest free block that fits, unless it is so much too large that it is kept for others. */
static struct pool_block *find_free(struct pool *pool, size_t bytes)
{
    for (size_t i = lower_bound(pool, bytes); i < pool->count; i++) {
        if (pool->blocks[i].bytes / 2 > bytes + SMALL_BLOCK)
            return NULL;
        if (!pool->blocks[i].in_use)
            return &pool->blocks[i];
    }
    return NULL;
}

static struct pool_block *find_block(struct pool *pool, const void *data)
{
    for (size_t i = 0; i < pool->count; i++) {
        if (pool->blocks[i].data == data)
            return &pool->blocks[i];
    }
    BUG("a block that is not the pool's");
}

/* Gives blocks back to the system that were last used before `oldest`. */
static void trim(struct pool *pool, uint64_t oldest)
{
    size_t kept = 0;
    for (size_t i = 0; i < pool->count; i++) {
        struct pool_block block = pool->blocks[i];
        if (block.in_use || block.last_use >= oldest) {
            pool->blocks[kept++] = block;
        } else {
            free(block.data);
            pool->owned_bytes -= block.bytes;
        }
    }
    pool->count = kept;
}

static struct pool_block *add_block(struct pool *pool, size_t bytes)
{
    void *data = memory_new(bytes);
    if (!data) {
        trim(pool, pool->takes + 1);
        data = memory_new(bytes);
    }
    if (!data)
        return NULL;
    if (pool->count == pool->capacity) {
        pool->capacity = pool->capacity ? 2 * pool->capacity : 64;
        pool->blocks = xrealloc(pool->blocks, pool->capacity * sizeof(*pool->blocks));
    }
    size_t place = lower_bound(pool, bytes);
    memmove(pool->blocks + place + 1, pool->blocks + place,
            (pool->count - place) * sizeof(*pool->blocks));
    pool->count++;
    pool->blocks[place] = (struct pool_block){.data = data, .bytes = bytes};
    pool->owned_bytes += bytes;
    return &pool->blocks[place];
}

static void push_live(struct pool *pool, void *data)
{
    if (pool->live_count == pool->live_capacity) {
        pool->live_capacity = pool->live_capacity ? 2 * pool->live_capacity : 64;
        pool->live = xrealloc(pool->live, pool->live_capacity * sizeof(*pool->live));
    }
    pool->live[pool->live_count++] = data;
}

void *pool_take(struct pool *pool, size_t bytes)
{
    if (++pool->takes % STALE_TAKES == 0)
        trim(pool, pool->takes - STALE_TAKES);
    struct pool_block *block = find_free(pool, bytes);
    if (!block)
        block = add_block(pool, bytes);
    if (!block)
        return NULL;
    block->in_use = 1;
    block->last_use = pool->takes;
    pool->used_bytes += block->bytes;
    if (pool->used_bytes > pool->peak_bytes)
        pool->peak_bytes = pool->used_bytes;
    push_live(pool, block->data);
    return block->data;
}

static void give_back(struct pool *pool, const void *data)
{
    struct pool_block *block = find_block(pool, data);
    block->in_use = 0;
    pool->used_bytes -= block->bytes;
}

void pool_drop(struct pool *pool, void *data)
{
    if (!data)
        return;
    size_t place = pool->live_count;
    while (place > 0 && pool->live[place - 1] != data)
        place--;
    BUG_ON(place == 0);
    give_back(pool, data);
    memmove(pool->live + place - 1, pool->live + place,
            (pool->live_count - place) * sizeof(*pool->live));
    pool->live_count--;
}

size_t pool_enter(const struct pool *pool)
{
    return pool->live_count;
}

void pool_leave(struct pool *pool, size_t scope, const void *keep)
{
    BUG_ON(scope > pool->live_count);
    size_t kept = scope;
    for (size_t i = scope; i < pool->live_count; i++) {
        if (pool->live[i] == keep)
            pool->live[kept++] = pool->live[i];
        else
            give_back(pool, pool->live[i]);
    }
    pool->live_count = kept;
}

void pool_release(struct pool *pool)
{
    for (size_t i = 0; i < pool->count; i++)
        free(pool->blocks[i].data);
    free(pool->blocks);
    free(pool->live);
    *pool = (struct pool){0};
}
