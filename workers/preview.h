/* SPDX-License-Identifier: Apache-2.0 */
/* What a running picture looks like so far, in Redis under unclip:preview:JOB/IMAGE. */
#ifndef UNCLIP_WORKERS_PREVIEW_H
#define UNCLIP_WORKERS_PREVIEW_H

#include "common/job.h"
#include "common/redis.h"

#define PREVIEW_SIDE  128 /* pixels a side, at most */
#define PREVIEW_TTL_S 600

/* x0 [size][size][3] in [-1, 1] as WebP, for PREVIEW_TTL_S. Errors: ERR_REDIS, and the encoder's.
 */
int preview_show(struct redis *redis, const struct task *task, const float *x0, int size,
                 struct err *err);

#endif
