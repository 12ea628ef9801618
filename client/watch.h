/* SPDX-License-Identifier: Apache-2.0 */
/* Following a job until it ends, for `watch` and `submit --wait`. */
#ifndef UNCLIP_CLIENT_WATCH_H
#define UNCLIP_CLIENT_WATCH_H

#include <jansson.h>
#include <stdio.h>

#include "common/err.h"
#include "common/redis.h"

/*
 * Shows the job's progress on `out` until it ends; *status is its last one (owned). `patience_ms`
 * is how long it may be unknown at first (< 0: for ever). Errors: ERR_NOT_FOUND when it stays
 * unknown, ERR_REDIS when Redis does not answer at first; later silences are waited out.
 */
int watch_job(struct redis *redis, const char *id, FILE *out, int patience_ms, json_t **status,
              struct err *err);

#endif
