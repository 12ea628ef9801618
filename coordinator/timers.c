/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap: heap[i] is never later than heap[2i + 1] and heap[2i + 2]. */
#include "coordinator/timers.h"

#include <stdbool.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/memory.h"

void timers_release(struct timers *timers)
{
    BUG_ON(timers->count > 0);
    free(timers->heap);
    *timers = (struct timers){0};
}

struct timer *timers_first(const struct timers *timers)
{
    return timers->count ? timers->heap[0] : NULL;
}

static void put(struct timers *timers, size_t i, struct timer *timer)
{
    timers->heap[i] = timer;
    timer->place = i + 1;
}

/* Moves the timer from place i towards the first. */
static void rise(struct timers *timers, size_t i)
{
    struct timer *timer = timers->heap[i];
    for (; i > 0 && timers->heap[(i - 1) / 2]->due_ms > timer->due_ms; i = (i - 1) / 2)
        put(timers, i, timers->heap[(i - 1) / 2]);
    put(timers, i, timer);
}

static void sink(struct timers *timers, size_t i)
{
    struct timer *timer = timers->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child + 1 < timers->count &&
            timers->heap[child + 1]->due_ms < timers->heap[child]->due_ms)
            child++;
        if (child >= timers->count || timers->heap[child]->due_ms >= timer->due_ms)
            break;
        put(timers, i, timers->heap[child]);
        i = child;
    }
    put(timers, i, timer);
}

static void take_out(struct timers *timers, struct timer *timer)
{
    size_t i = timer->place - 1;
    struct timer *last = timers->heap[--timers->count];
    timer->place = 0;
    if (last == timer)
        return;
    put(timers, i, last);
    rise(timers, i);
    sink(timers, last->place - 1);
}

static void add(struct timers *timers, struct timer *timer)
{
    if (timers->count == timers->capacity) {
        timers->capacity = timers->capacity ? 2 * timers->capacity : 64;
        timers->heap = xrealloc(timers->heap, timers->capacity * sizeof(*timers->heap));
    }
    put(timers, timers->count++, timer);
    rise(timers, timer->place - 1);
}

void timers_set(struct timers *timers, struct timer *timer, int64_t due_ms)
{
    if (timer->due_ms == due_ms)
        return;
    if (timer->due_ms)
        take_out(timers, timer);
    timer->due_ms = due_ms;
    if (due_ms)
        add(timers, timer);
}
