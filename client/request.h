/* SPDX-License-Identifier: Apache-2.0 */
/* What `submit` and `generate` have in common: a job from a prompt and options. */
#ifndef UNCLIP_CLIENT_REQUEST_H
#define UNCLIP_CLIENT_REQUEST_H

#include <jansson.h>
#include <stdint.h>

#include "client/options.h"
#include "common/err.h"
#include "common/job.h"

/* The first member of the option structs of both. NULL, 0 and -1 mean: not given. */
struct request {
    const char *negative_prompt;
    int64_t n, size, seed;
    int64_t steps[STAGE_COUNT];
    double guidance[STAGE_COUNT];         /* -1: not given */
    const char *sampler[STAGE_COUNT];     /* NULL: not given */
    double eta[STAGE_COUNT];              /* -1: not given */
    int64_t reuse[STAGE_COUNT];           /* 0: not given */
    const char *id, *task_class, *client; /* submit's only, as is the next */
    int64_t deadline_s;                   /* 0: none */
};

extern const struct option request_options[];  /* of the picture */
extern const struct option sampling_options[]; /* steps and guidance */
extern const struct option faster_options[];   /* samplers and reuse */

void request_init(struct request *request);

/* The job record; `model` NULL leaves it to the cluster. Owned. */
json_t *request_json(const struct request *request, const char *prompt, const char *model);

/*
 * Checks the record as the coordinator will, and gives the job (job_release()). `record` is what
 * request_json() made. Errors: job_parse()'s.
 */
int request_check(const json_t *record, struct job *job, struct err *err);

/* ERR_INVALID_JOB when a size is asked for that the model does not make. */
int request_check_size(const struct job *job, const struct model_card *card, struct err *err);

#define JOB_ID_NEW_SIZE 27
/* A new id: 26 characters, the time first, so that ids sort by age (as ULIDs, in lower case). */
void job_id_new(int64_t now_ms, char id[JOB_ID_NEW_SIZE]);
void job_id_make(int64_t now_ms, const unsigned char random[10], char id[JOB_ID_NEW_SIZE]);

#endif
