/* SPDX-License-Identifier: Apache-2.0 */
/* The gathering rule of batch.h. A batch is at most some hundred tasks: plain loops are enough. */
#include "workers/batch.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

void batcher_init(struct batcher *batcher, int capacity, int64_t linger_ms, int bulk_percent,
                  int64_t bulk_ms)
{
    BUG_ON(capacity < 1 || bulk_percent < 1 || bulk_percent > 100 || bulk_ms < 1);
    *batcher = (struct batcher){.capacity = (size_t)capacity,
                                .linger_ms = linger_ms,
                                .bulk_ms = bulk_ms,
                                .bulk_capacity = 1,
                                .bulk_percent = (unsigned)bulk_percent};
    batcher->waiting = xcalloc(batcher->capacity, sizeof(*batcher->waiting));
}

void batcher_release(struct batcher *batcher)
{
    free(batcher->waiting);
    batcher->waiting = NULL;
    batcher->count = 0;
}

enum task_class batcher_prefers(const struct batcher *batcher)
{
    uint64_t before = batcher->taken * batcher->bulk_percent / 100;
    uint64_t after = (batcher->taken + 1) * batcher->bulk_percent / 100;
    return after > before ? CLASS_BULK : CLASS_INTERACTIVE;
}

static size_t count_class(const struct batcher *batcher, enum task_class task_class)
{
    size_t count = 0;
    for (size_t i = 0; i < batcher->count; i++)
        count += batcher->waiting[i].task_class == task_class;
    return count;
}

static bool full(const struct batcher *batcher)
{
    return batcher->count == batcher->capacity;
}

static bool bulk_full(const struct batcher *batcher)
{
    return count_class(batcher, CLASS_BULK) >= batcher->bulk_capacity;
}

bool batcher_wants(const struct batcher *batcher, enum task_class task_class)
{
    return !full(batcher) && (task_class != CLASS_BULK || !bulk_full(batcher));
}

void batcher_add(struct batcher *batcher, const struct batch_entry *entry)
{
    BUG_ON(full(batcher));
    batcher->waiting[batcher->count++] = *entry;
}

/* The task that decides what the batch is: the oldest of the preferred class, else the oldest. */
static const struct batch_entry *leader(const struct batcher *batcher)
{
    enum task_class preferred = batcher_prefers(batcher);
    const struct batch_entry *found = NULL;
    for (size_t i = 0; i < batcher->count; i++) {
        const struct batch_entry *entry = &batcher->waiting[i];
        if (entry->task && entry->task_class == preferred)
            return entry;
        if (entry->task && !found)
            found = entry;
    }
    return found;
}

static bool same_partition(const struct batch_entry *a, const struct batch_entry *b)
{
    return a->partition == b->partition && strcmp(a->topic, b->topic) == 0;
}

/* Whether an older task of its partition stays behind. */
static bool blocked(const struct batcher *batcher, const bool *chosen, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (!chosen[j] && same_partition(&batcher->waiting[j], &batcher->waiting[i]))
            return true;
    return false;
}

/* The leader may itself wait behind an older task of its partition: then that one leads. */
static const struct batch_entry *true_leader(const struct batcher *batcher)
{
    const struct batch_entry *lead = leader(batcher);
    for (size_t i = 0; lead && i < batcher->count; i++) {
        const struct batch_entry *entry = &batcher->waiting[i];
        if (entry->task && same_partition(entry, lead))
            return entry;
    }
    return lead;
}

/* Marks what of a class joins `lead`, in a batch that has `size` tasks. Returns how many it has
 * then. */
static size_t choose_class(const struct batcher *batcher, enum task_class task_class,
                           const struct batch_entry *lead, size_t size, bool *chosen)
{
    for (size_t i = 0; i < batcher->count; i++) {
        const struct batch_entry *entry = &batcher->waiting[i];
        if (entry->task_class != task_class)
            continue;
        bool room = task_class != CLASS_BULK || size < batcher->bulk_capacity;
        bool fits =
            !entry->task || entry == lead ||
            (room && !entry->alone && !lead->alone && task_compatible(entry->task, lead->task));
        chosen[i] = fits && !blocked(batcher, chosen, i);
        size += chosen[i] && entry->task;
    }
    return size;
}

/* Marks what the next batch takes. */
static void choose(const struct batcher *batcher, bool *chosen)
{
    const struct batch_entry *lead = true_leader(batcher);
    enum task_class first = lead ? lead->task_class : CLASS_INTERACTIVE;
    size_t size = choose_class(batcher, first, lead, 0, chosen);
    choose_class(batcher, first == CLASS_BULK ? CLASS_INTERACTIVE : CLASS_BULK, lead, size, chosen);
}

int64_t batcher_due(const struct batcher *batcher, int64_t now_ms)
{
    if (batcher->count == 0)
        return -1;
    if (full(batcher) || bulk_full(batcher))
        return 0;
    int64_t left = batcher->waiting[0].since_ms + batcher->linger_ms - now_ms;
    return left > 0 ? left : 0;
}

/* Moves the marked entries' payloads out and closes the gaps. */
static size_t extract(struct batcher *batcher, const bool *chosen, void **payloads)
{
    size_t taken = 0, kept = 0;
    for (size_t i = 0; i < batcher->count; i++)
        if (chosen[i])
            payloads[taken++] = batcher->waiting[i].payload;
        else
            batcher->waiting[kept++] = batcher->waiting[i];
    batcher->count = kept;
    return taken;
}

size_t batcher_take(struct batcher *batcher, void **payloads)
{
    bool *chosen = xcalloc(batcher->capacity, sizeof(*chosen));
    choose(batcher, chosen);
    size_t taken = extract(batcher, chosen, payloads);
    batcher->taken += taken > 0;
    free(chosen);
    return taken;
}

void batcher_ran(struct batcher *batcher, size_t tasks, int64_t ms)
{
    size_t fit = ms > 0 ? tasks * (size_t)batcher->bulk_ms / (size_t)ms : batcher->capacity;
    if (ms > batcher->bulk_ms && fit < batcher->bulk_capacity)
        batcher->bulk_capacity = fit > 1 ? fit : 1;
    if (tasks < batcher->bulk_capacity || fit <= batcher->bulk_capacity)
        return;
    batcher->bulk_capacity *= 2;
    if (batcher->bulk_capacity > fit)
        batcher->bulk_capacity = fit;
    if (batcher->bulk_capacity > batcher->capacity)
        batcher->bulk_capacity = batcher->capacity;
}

size_t batcher_remove(struct batcher *batcher, bool (*gone)(void *context, const void *payload),
                      void *context, void **payloads)
{
    bool *chosen = xcalloc(batcher->capacity, sizeof(*chosen));
    for (size_t i = 0; i < batcher->count; i++)
        chosen[i] = gone(context, batcher->waiting[i].payload);
    size_t taken = extract(batcher, chosen, payloads);
    free(chosen);
    return taken;
}
