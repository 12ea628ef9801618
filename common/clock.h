/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time as an argument: what waits or expires takes a `struct clock *`, so that tests move time by
 * hand and never sleep.
 */
#ifndef UNCLIP_COMMON_CLOCK_H
#define UNCLIP_COMMON_CLOCK_H

#include <stdint.h>

struct clock {
    int64_t (*wall_ms)(struct clock *);      /* milliseconds since 1970, for records */
    int64_t (*monotonic_ms)(struct clock *); /* for intervals; unaffected by clock changes */
    int64_t now_ms;                          /* a fake clock's time; unused by the system's */
};

struct clock *clock_system(void);                          /* borrowed, static */
void clock_fake_init(struct clock *clock, int64_t now_ms); /* both readings answer clock->now_ms */

static inline int64_t clock_wall_ms(struct clock *clock)
{
    return clock->wall_ms(clock);
}
static inline int64_t clock_monotonic_ms(struct clock *clock)
{
    return clock->monotonic_ms(clock);
}

#define CLOCK_ISO_SIZE   25
#define CLOCK_ISO_END_MS 253402300800000 /* the year 10000 */
/* Writes "2026-01-31T12:34:56.789Z". From 0 to below CLOCK_ISO_END_MS; else a BUG. */
void clock_iso8601(int64_t wall_ms, char out[CLOCK_ISO_SIZE]);

#endif
