/* SPDX-License-Identifier: Apache-2.0 */
/* The gathering rule of batch.h. A batch is at most some hundred tasks: plain loops are enough. */
#include "workers/batch.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

#define LINGER_SHARE 10 /* of a pass: one part of so many may be spent on waiting */

void batcher_init(struct batcher *batcher, int capacity, int ranks, int64_t linger_ms,
                  int bulk_percent, int64_t bulk_ms)
{
    BUG_ON(capacity < 1 || ranks < 1 || bulk_percent < 1 || bulk_percent > 100 || bulk_ms < 1);
    size_t least = (size_t)(ranks < capacity ? ranks : capacity);
    *batcher = (struct batcher){.capacity = (size_t)capacity,
                                .ranks = least,
                                .linger_ms = linger_ms,
                                .pass_ms = -1,
                                .bulk_ms = bulk_ms,
                                .bulk_capacity = least,
                                .bulk_percent = (unsigned)bulk_percent};
    batcher->waiting = xcalloc(CLASS_COUNT * batcher->capacity, sizeof(*batcher->waiting));
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

bool batcher_wants(const struct batcher *batcher, enum task_class task_class)
{
    size_t most = task_class == CLASS_BULK ? batcher->bulk_capacity : batcher->capacity;
    return count_class(batcher, task_class) < most;
}

void batcher_add(struct batcher *batcher, const struct batch_entry *entry)
{
    BUG_ON(count_class(batcher, entry->task_class) == batcher->capacity);
    batcher->waiting[batcher->count++] = *entry;
}

/* The task that decides what the batch is: the oldest of the preferred class, else the oldest. A
 * partition is of one class, so no older task of its own keeps it back. */
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

/* What is marked so far. */
struct choice {
    bool *chosen;
    size_t count;
    size_t tasks; /* of these, those that need the pass */
};

/* Marks what of a class joins `lead`, as far as there is room. */
static void choose_class(const struct batcher *batcher, enum task_class task_class,
                         const struct batch_entry *lead, struct choice *choice)
{
    size_t most = task_class == CLASS_BULK ? batcher->bulk_capacity : batcher->capacity;
    for (size_t i = 0; i < batcher->count && choice->count < batcher->capacity; i++) {
        const struct batch_entry *entry = &batcher->waiting[i];
        if (entry->task_class != task_class)
            continue;
        bool fits = !entry->task || entry == lead ||
                    (choice->tasks < most && !entry->alone && !lead->alone &&
                     task_compatible(entry->task, lead->task));
        choice->chosen[i] = fits && !blocked(batcher, choice->chosen, i);
        choice->count += choice->chosen[i];
        choice->tasks += choice->chosen[i] && entry->task;
    }
}

/* Marks what the next batch takes. The leader's class comes first: of that it is the oldest task,
 * so there is always room for it. */
static void choose(const struct batcher *batcher, bool *chosen)
{
    const struct batch_entry *lead = leader(batcher);
    enum task_class first = lead ? lead->task_class : CLASS_INTERACTIVE;
    struct choice choice = {.chosen = chosen};
    choose_class(batcher, first, lead, &choice);
    choose_class(batcher, first == CLASS_BULK ? CLASS_INTERACTIVE : CLASS_BULK, lead, &choice);
}

/* A job's pictures come within a moment of each other, and what is torn apart here stays so at all
   later stages. */
static bool siblings_come(const struct batcher *batcher)
{
    for (size_t i = 0; i < batcher->count; i++)
        if (batcher->waiting[i].task && batcher->waiting[i].task->images > 1)
            return true;
    return false;
}

static int64_t linger(const struct batcher *batcher)
{
    if (siblings_come(batcher))
        return batcher->linger_ms;
    int64_t most = batcher->pass_ms < 0 ? batcher->linger_ms : batcher->pass_ms / LINGER_SHARE;
    return most < batcher->linger_ms ? most : batcher->linger_ms;
}

int64_t batcher_due(const struct batcher *batcher, int64_t now_ms)
{
    if (batcher->count == 0)
        return -1;
    const struct batch_entry *lead = leader(batcher);
    if (!lead)
        lead = &batcher->waiting[0];
    if (!batcher_wants(batcher, lead->task_class))
        return 0;
    int64_t left = lead->since_ms + linger(batcher) - now_ms;
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
    bool *chosen = xcalloc(batcher->count, sizeof(*chosen));
    choose(batcher, chosen);
    size_t taken = extract(batcher, chosen, payloads);
    batcher->taken += taken > 0;
    free(chosen);
    return taken;
}

void batcher_passed(struct batcher *batcher, int64_t ms)
{
    batcher->pass_ms = ms;
}

void batcher_ran(struct batcher *batcher, size_t tasks, int64_t ms)
{
    size_t least = batcher->ranks, rounds = (tasks + least - 1) / least;
    size_t fit =
        ms > 0 ? rounds * (size_t)batcher->bulk_ms / (size_t)ms * least : batcher->capacity;
    if (ms > batcher->bulk_ms && fit < batcher->bulk_capacity)
        batcher->bulk_capacity = fit > least ? fit : least;
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
    bool *chosen = xcalloc(batcher->count, sizeof(*chosen));
    for (size_t i = 0; i < batcher->count; i++)
        chosen[i] = gone(context, batcher->waiting[i].payload);
    size_t taken = extract(batcher, chosen, payloads);
    free(chosen);
    return taken;
}
