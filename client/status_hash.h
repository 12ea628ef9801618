/* SPDX-License-Identifier: Apache-2.0 */
/* A job's status hash, read and typed (docs/protocol.md, "Status"). */
#ifndef UNCLIP_CLIENT_STATUS_HASH_H
#define UNCLIP_CLIENT_STATUS_HASH_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/job.h"
#include "common/protocol.h"
#include "common/redis.h"

/*
 * The hash of the job as an object: `id` first, then the documented fields that are there, numbers
 * as numbers and JSON as JSON; then its place in the queue (queue_place.h). *out is owned. Errors:
 * ERR_NOT_FOUND when there is no such hash, ERR_REDIS.
 */
int status_fetch(struct redis *redis, const char *id, json_t **out, struct err *err);
/* The same from a reply of HGETALL. */
json_t *status_from_reply(const char *id, const struct redis_reply *reply);

const char *status_text(const json_t *status, const char *field); /* "" when it is not there */
int64_t status_int(const json_t *status, const char *field);      /* 0 when it is not there */
double status_number(const json_t *status, const char *field);
enum job_state status_state(const json_t *status); /* JOB_ACCEPTED when it is none that we know */

/*
 * Which of `results` the person asked for, as indices: all that are stored; of a job with best_of,
 * where `best` names fewer, those, the best first. Returns how many.
 */
int status_wanted(const json_t *status, int indices[JOB_IMAGES_MAX]);

/* Prints it for people, several lines. */
void status_print(const json_t *status, FILE *out);

#endif
