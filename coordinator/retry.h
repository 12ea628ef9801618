/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trying again: how often, and when. A stage's failure that another try may mend comes as the event
 * picture-retry; the picture then waits in the coordinator, which keeps its due time in
 * unclip.state, and no partition is held up. Pure but for its generator, which is the caller's.
 */
#ifndef UNCLIP_COORDINATOR_RETRY_H
#define UNCLIP_COORDINATOR_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "coordinator/ledger.h"
#include "coordinator/records.h"

struct retry {
    int limit;       /* tries again of one picture at one stage */
    int64_t base_ms; /* longest wait before the first; doubled each time */
    int64_t max_ms;
    uint64_t state; /* of the generator: any seed */
};

/* Before the `tries`-th try again, from 1: evenly between a quarter and the whole of the back-off,
   so that pictures that failed together do not come back together. */
int64_t retry_delay(struct retry *retry, int tries);

/*
 * Notes the event (picture-retry, of the picture's present attempt) in the picture. True: it waits,
 * until picture->retry_at_ms; false: its tries at this stage are used up. With the event's tensors
 * it goes on at the same stage, without them from the first one.
 */
bool retry_note(struct retry *retry, struct live_job *job, const struct event *event,
                int64_t now_ms);
/* The picture's task is written: it waits no longer. */
void retry_begun(struct picture *picture);

#endif
