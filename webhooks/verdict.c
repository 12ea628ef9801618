/* SPDX-License-Identifier: Apache-2.0 */
/* Answers judged, and back-off; see verdict.h. */
#include "webhooks/verdict.h"

#include <stdbool.h>

static bool is_success(long status)
{
    return status >= 200 && status < 300;
}

/* The receiver says that it will never take this one. */
static bool is_final(long status)
{
    return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
}

enum verdict verdict_of(int rc, long status, struct err *err)
{
    bool answered = !rc || (rc == -ERR_TOO_LARGE && status > 0); /* the body does not matter */
    if (!answered)
        return err_retriable(err->code) ? VERDICT_AGAIN : VERDICT_NEVER;
    if (is_success(status))
        return VERDICT_DELIVERED;
    bool final = is_final(status);
    err_set(err, final ? ERR_REFUSED : ERR_FETCH, "the receiver answers HTTP %ld", status);
    return final ? VERDICT_NEVER : VERDICT_AGAIN;
}

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t backoff_wait(struct backoff *backoff, int tries, int64_t retry_after_s)
{
    int64_t most = backoff->base_ms;
    BUG_ON(tries < 1);
    for (int i = 1; i < tries && most < backoff->max_ms; i++)
        most *= 2;
    if (most > backoff->max_ms)
        most = backoff->max_ms;
    int64_t least = most - most / 2;
    int64_t wait = least + (int64_t)(next(&backoff->state) % (uint64_t)(most - least + 1));
    if (retry_after_s > backoff->max_ms / 1000)
        return backoff->max_ms;
    return retry_after_s * 1000 > wait ? retry_after_s * 1000 : wait;
}
