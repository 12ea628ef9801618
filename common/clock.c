/* SPDX-License-Identifier: Apache-2.0 */
/* The system's clock, the fake one, and ISO 8601. */
#include "common/clock.h"

#include <stdio.h>
#include <time.h>

#include "common/err.h"

static int64_t read_ms(clockid_t id)
{
    struct timespec now;
    BUG_ON(clock_gettime(id, &now) != 0);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int64_t system_wall_ms(struct clock *clock)
{
    (void)clock;
    return read_ms(CLOCK_REALTIME);
}

static int64_t system_monotonic_ms(struct clock *clock)
{
    (void)clock;
    return read_ms(CLOCK_MONOTONIC);
}

static int64_t fake_ms(struct clock *clock)
{
    return clock->now_ms;
}

struct clock *clock_system(void)
{
    static struct clock system = {system_wall_ms, system_monotonic_ms, 0};
    return &system;
}

void clock_fake_init(struct clock *clock, int64_t now_ms)
{
    *clock = (struct clock){fake_ms, fake_ms, now_ms};
}

void clock_iso8601(int64_t wall_ms, char out[CLOCK_ISO_SIZE])
{
    BUG_ON(wall_ms < 0 || wall_ms >= CLOCK_ISO_END_MS);
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm parts;
    BUG_ON(!gmtime_r(&seconds, &parts));
    size_t length = strftime(out, CLOCK_ISO_SIZE, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(out + length, CLOCK_ISO_SIZE - length, ".%03dZ", (int)(wall_ms % 1000));
}
