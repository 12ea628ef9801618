/* SPDX-License-Identifier: Apache-2.0 */
/* Exponential back-off with jitter, and what a picture remembers of its tries. */
#include "coordinator/retry.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/memory.h"

/* SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t next(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t retry_delay(struct retry *retry, int tries)
{
    int64_t most = retry->base_ms;
    BUG_ON(tries < 1);
    for (int i = 1; i < tries && most < retry->max_ms; i++)
        most *= 2;
    if (most > retry->max_ms)
        most = retry->max_ms;
    int64_t least = most / 4;
    return least + (int64_t)(next(&retry->state) % (uint64_t)(most - least + 1));
}

static void say(struct live_job *job, const struct event *event)
{
    char *text = xasprintf("a try of %s failed (%s) and was repeated", stage_name(event->stage),
                           event->error_code);
    live_job_notice(job, text);
    free(text);
}

bool retry_note(struct retry *retry, struct live_job *job, const struct event *event,
                int64_t now_ms)
{
    struct picture *picture = &job->pictures[event->image];
    int tries = picture->tries[event->hop] + 1;

    if (tries > retry->limit)
        return false;
    picture->tries[event->hop] = (unsigned char)tries;
    picture->attempt++;
    picture->retry_at_ms = now_ms + retry_delay(retry, tries);
    free(picture->ref);
    picture->ref = event->ref ? xstrdup(event->ref) : NULL;
    picture->hops = event->ref ? event->hop : 0;
    say(job, event);
    log_info("job %s: picture %d is tried again at %s in %lld ms (%d of %d): %s", job->job.id,
             event->image, stage_name(job->job.route[picture->hops].stage),
             (long long)(picture->retry_at_ms - now_ms), tries, retry->limit, event->error_message);
    return true;
}

void retry_begun(struct picture *picture)
{
    picture->retry_at_ms = 0;
    free(picture->ref);
    picture->ref = NULL;
}
