/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress in the job's status hash, while its pictures are computed: docs/protocol.md, "Status". A
 * script never lets progress fall, never touches a finished job and never makes a hash appear.
 * Writes of one job are at most some ten a second, however many of its pictures are in the batch.
 * The same answer says whether the job was cancelled.
 */
#ifndef UNCLIP_WORKERS_PROGRESS_H
#define UNCLIP_WORKERS_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/clock.h"
#include "common/job.h"
#include "common/redis.h"

#define PROGRESS_INTERVAL_MS 100 /* between two writes of a job */

struct progress_job; /* private */

/* One batch's progress. */
struct progress {
    struct redis *redis;       /* borrowed */
    struct clock *clock;       /* borrowed */
    const struct task **tasks; /* owned array of borrowed tasks */
    size_t count;
    struct progress_job *jobs; /* owned: the distinct jobs of the tasks */
    size_t job_count;
};

void progress_init(struct progress *progress, struct redis *redis, struct clock *clock,
                   const struct task *const *tasks, size_t count);
void progress_release(struct progress *progress);

/*
 * Notes that every task of the batch has `step` of `steps` behind it. Jobs written to less than
 * PROGRESS_INTERVAL_MS ago are left out, unless it is the first or the last step. One call of Redis
 * for all of them. Error: ERR_REDIS; when only some jobs' hashes failed, the others' are written
 * and their states known.
 */
int progress_step(struct progress *progress, int step, int steps, struct err *err);
/* Whether the job of tasks[index] is known to be cancelled or expired. */
bool progress_stopped(const struct progress *progress, size_t index);

#endif
