/* SPDX-License-Identifier: Apache-2.0 */
/* Exponentially weighted means, which begin as plain ones. */
#include "coordinator/rates.h"

#include <string.h>

static void rate_add(struct rate *rate, double ms)
{
    if (rate->count < RATES_MEMORY)
        rate->count++;
    rate->mean_ms += (ms - rate->mean_ms) / rate->count;
}

static int steps_of(const struct hop *hop)
{
    return hop->steps > 0 ? hop->steps : 1;
}

void rates_computed(struct rates *rates, const struct hop *hop, double compute_ms)
{
    rate_add(&rates->steps[hop->stage], compute_ms / steps_of(hop));
}

void rates_began(struct rates *rates, int partition, enum task_class task_class, int64_t now_ms)
{
    rates->paces[partition][task_class].since_ms = now_ms;
}

/* A clock that was set back counts as no time. */
void rates_ended(struct rates *rates, int partition, enum task_class task_class, int64_t now_ms)
{
    struct rates_pace *pace = &rates->paces[partition][task_class];
    int64_t ms = now_ms - pace->since_ms;
    if (pace->since_ms > 0)
        rate_add(&pace->between_ends, ms > 0 ? (double)ms : 0);
    pace->since_ms = now_ms;
}

void rates_forget(struct rates *rates, int partition)
{
    memset(rates->paces[partition], 0, sizeof rates->paces[partition]);
}

double rates_between_ends(const struct rates *rates, int partition, enum task_class task_class)
{
    const struct rate *rate = &rates->paces[partition][task_class].between_ends;
    return rate->count ? rate->mean_ms : -1;
}

double rates_work(const struct rates *rates, const struct job *job, int from)
{
    double ms = 0;
    for (int i = from; i < job->hops; i++) {
        const struct hop *hop = &job->route[i];
        if (rates->steps[hop->stage].count == 0)
            return -1;
        ms += rates->steps[hop->stage].mean_ms * steps_of(hop);
    }
    return ms;
}
