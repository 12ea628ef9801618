/* SPDX-License-Identifier: Apache-2.0 */
/* What is due next: a binary heap of timers that are embedded in what waits. Pure memory. */
#ifndef UNCLIP_COORDINATOR_TIMERS_H
#define UNCLIP_COORDINATOR_TIMERS_H

#include <stddef.h>
#include <stdint.h>

/* All zero before it is first set, and whenever it is off. */
struct timer {
    int64_t due_ms; /* wall clock; 0: off */
    size_t place;   /* private: 1 + index in the heap */
};

/* All zero is an empty one. */
struct timers {
    struct timer **heap; /* owned; the timers are not */
    size_t count, capacity;
};

void timers_release(struct timers *timers); /* every timer must be off */
/* Sets the timer anew; 0 switches it off. */
void timers_set(struct timers *timers, struct timer *timer, int64_t due_ms);
struct timer *timers_first(const struct timers *timers); /* the earliest, or NULL */

#endif
