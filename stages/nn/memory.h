/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large aligned allocations, and the pool that tensors come from. The pool keeps every block it has
 * got and gives out the smallest free one that is large enough (and not twice too large), so that
 * passes of equal shapes allocate once. Live tensors form a stack of scopes (nn.h).
 *
 *     free blocks ── pool_take() ──▶ live stack ── pool_leave(), pool_drop() ──▶ free blocks
 *
 * Blocks that long went without use (other shapes came) are given back to the system.
 */
#ifndef UNCLIP_STAGES_NN_MEMORY_H
#define UNCLIP_STAGES_NN_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#define MEMORY_ALIGNMENT 64 /* bytes: a cache line and the widest vector */

#define MEMORY_MAX ((size_t)1 << 40) /* bytes of one allocation */

/* Owned memory (free()), uninitialised, on large pages where that helps. NULL when there is none.
 */
void *memory_new(size_t bytes);

struct pool_block {
    void *data;
    size_t bytes;
    uint64_t last_use; /* pool.takes then */
    int in_use;
};

struct pool {
    struct pool_block *blocks; /* [count], by rising size */
    size_t count, capacity;
    void **live; /* [live_count]: data of blocks in use, oldest first */
    size_t live_count, live_capacity;
    uint64_t takes; /* so far */
    size_t used_bytes, owned_bytes, peak_bytes;
};

void *pool_take(struct pool *pool, size_t bytes); /* NULL: out of memory */
/* A bug when data is not live; NULL is fine. */
void pool_drop(struct pool *pool, void *data);
size_t pool_enter(const struct pool *pool);
/* Drops what was taken since pool_enter(), except `keep` (which may be NULL or older). */
void pool_leave(struct pool *pool, size_t scope, const void *keep);
void pool_release(struct pool *pool);

#endif
