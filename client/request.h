/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of a job, from the command line: the options of all kinds of job in one struct, the
 * tables that fill it, and the job record that it becomes.
 */
#ifndef UNCLIP_CLIENT_REQUEST_H
#define UNCLIP_CLIENT_REQUEST_H

#include <jansson.h>
#include <stdint.h>

#include "client/options.h"
#include "common/err.h"
#include "common/job.h"

/* Strings are borrowed. NULL and 0 mean: not given; of some members -1 does, as request_init()
 * sets. */
struct request {
    enum job_type type;
    const char *prompt, *negative_prompt;
    const char *image, *mask; /* as they were written; their addresses are in sources */
    const char *mask_mode, *noise, *weights, *from, *to;
    const char *overflow, *prior, *start, *format;
    int64_t n, size, seed; /* seed: -1 */
    int64_t frames, from_size, stop_at, best_of, quality, candidates;
    int64_t feather, resample, preview;  /* -1 */
    double theta, strength, noise_place; /* -1 */
    bool score;
    int64_t steps[STAGE_COUNT];
    double guidance[STAGE_COUNT];  /* -1 */
    double threshold[STAGE_COUNT]; /* -1 */
    const char *sampler[STAGE_COUNT];
    double eta[STAGE_COUNT]; /* -1 */
    int64_t reuse[STAGE_COUNT];
    const char *id, *task_class, *client, *webhook; /* of a cluster's jobs only, as is the next */
    int64_t deadline_s;
    struct sources sources; /* owned: inputs, image and mask, as a job holds them */
};

extern const struct option source_options[];   /* what it is made from */
extern const struct option picture_options[];  /* what comes out */
extern const struct option sampling_options[]; /* how */
extern const struct option sampler_options[];  /* samplers and reuse */

void request_init(struct request *request);
void request_release(struct request *request);

/* Gives the inputs the weights of --weight, one each: ERR_INVALID_ARGUMENT. */
int request_weigh(struct request *request, struct err *err);

/* The job record; `model` NULL leaves it to the cluster. *record is owned. ERR_INVALID_ARGUMENT for
   what is not UTF-8. */
int request_json(const struct request *request, const char *model, json_t **record,
                 struct err *err);

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
