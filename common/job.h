/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs and tasks as data: a job record from unclip.jobs, checked and completed with the model's
 * defaults, and the tasks (one a picture) that it is split into, with their route through the
 * stages. Pure: no Kafka, no Redis, no clock. JSON forms: schemas/job-*.schema.json and
 * schemas/task.schema.json.
 */
#ifndef UNCLIP_COMMON_JOB_H
#define UNCLIP_COMMON_JOB_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/hop.h"
#include "common/model_card.h"
#include "common/protocol.h"
#include "common/sources.h"

#define JOB_IMAGES_MAX 64
#define JOB_PROMPT_MAX 4000 /* characters; the schema says so too */
#define JOB_STEPS_MAX  1000
#define JOB_SEED_MAX   9007199254740991LL /* 2^53 - 1: exact in every JSON reader */

#define JOB_METADATA_MAX 4096 /* bytes as compact JSON */

#define JOB_ADDRESS_MAX 2048 /* bytes of a picture's address that is no data URL */
#define JOB_THETA       0.5  /* of a text diff that says none; so are these */
#define JOB_STRENGTH    0.7
#define JOB_RESAMPLE    2

/* Whether its results are pictures: not embeddings, nor scores alone, of which each input has one.
 */
bool job_makes_pictures(enum job_type type);

struct job {
    enum job_type type : 8;
    enum task_class task_class : 8;
    enum overflow overflow : 8;
    /* What the record asked for, for all stages that make pictures. */
    enum prior_kind prior : 8;
    enum start start : 8;
    bool frames; /* its pictures are steps from the first input to the last, all with one seed */
    bool score;  /* each picture gets its CLIP score */
    bool probe;  /* finished pictures are looked at: the cluster's setting, not in the record */
    struct output_form output;
    short stop_at; /* text-to-image: the size that it is left at; 0: at `size` */
    short from;    /* upscale: the size that it begins with; 0: the largest below `size` */
    short keep;    /* of best_of: so many of the n pictures, those with the best scores; 0: all */
    short preview; /* steps between previews; 0: none */
    short candidates, resample;
    float strength;
    int n;    /* pictures */
    int size; /* pixels a side: a size that the model's stages make; 0: not given, or no picture */
    int hops;
    int64_t seed; /* picture i uses seed + i; < 0: not given, the coordinator chooses */
    /* The stages that it goes through. Until job_plan() hops is 0, and route[stage] holds what the
       record asked for: steps 0 and guidance < 0 where it did not say. */
    struct hop route[ROUTE_MAX];
    char id[JOB_ID_MAX + 1];
    char model[MODEL_NAME_MAX + 1]; /* "" when not given, until job_plan() */
    char *prompt;                   /* owned UTF-8; "" when not given, as is the next */
    char *negative_prompt;          /* owned */
    struct sources *sources;        /* owned: what its pictures are made from beside; or NULL */
    int64_t deadline_s;             /* after its creation; 0: none */
    json_t *metadata;               /* owned: the client's own object, echoed everywhere; or NULL */
    char *client;                   /* owned; "" when not given */
    char *webhook;                  /* owned: who is told of its end; or NULL */
};

/*
 * Reads a job record, whose key may be NULL. The id is the key, else the field `id`, else made from
 * topic, partition and offset (not for a cancellation, and not when the JSON is broken). job->id is
 * set as soon as it is known, also when an error follows ("" when it cannot be); nothing else is
 * owned after an error. Steps, guidance and size are filled in by job_plan(). An empty key is none.
 * Errors: ERR_TOO_LARGE, ERR_INVALID_JSON, ERR_INVALID_JOB, ERR_UNSUPPORTED (a newer version).
 */
int job_parse(struct job *job, const void *key, size_t key_size, const void *value,
              size_t value_size, const char *topic, int partition, int64_t offset, struct err *err);
/* Completes a job that makes something with the model's name, its defaults and the route. Settings
   for stages that the route does not have, or that have no steps, are dropped. ERR_INVALID_JOB when
   the model does not make that size or lacks a part that the job needs. */
int job_plan(struct job *job, const struct model_card *card, struct err *err);
/* The seed of a planned job's picture. */
int64_t job_seed(const struct job *job, int image);
json_t *job_to_json(const struct job *job); /* complete: parses and plans back to the same job */
/* When a job that was created then expires; 0: never. */
int64_t job_deadline_ms(const struct job *job, int64_t created_at_ms);
void job_release(struct job *job);

#define TASK_HEADER     "task" /* of a task record: its JSON */
#define TASK_REF_HEADER "ref"  /* where its tensors are, if they are not in it */

/* One picture's work. Travels as the JSON in the header `task` of a task record. */
struct task {
    char job[JOB_ID_MAX + 1];
    int image;  /* index in the job */
    int images; /* of the job */
    int home;   /* partition of unclip.events, .state and .results that the job belongs to */
    enum job_type type; /* of the job */
    char model[MODEL_NAME_MAX + 1];
    enum task_class task_class;
    char *prompt;          /* owned */
    char *negative_prompt; /* owned */
    enum overflow overflow;
    int64_t seed; /* of this picture */
    int size;
    struct sources sources; /* owned; the weights and theta are this picture's */
    struct output_form output;
    int preview; /* steps between previews; 0: none */
    struct hop route[ROUTE_MAX];
    int hops;
    int hop;                /* index of the stage that works on it now */
    int attempt;            /* how often the picture has been tried again, at any stage */
    int64_t deadline_ms;    /* of the job; 0: none */
    int64_t created_at_ms;  /* of the job */
    int64_t enqueued_at_ms; /* into the present stage's topic */
};

void task_from_job(struct task *task, const struct job *job, int image, int home,
                   int64_t created_at_ms, int64_t now_ms);
/* Compact JSON, owned by the caller (free()). */
char *task_to_json(const struct task *task);
/* Checks against the schema. Errors: ERR_INVALID_RECORD; ERR_UNSUPPORTED for a newer version. */
int task_parse(struct task *task, const char *json, size_t size, struct err *err);
void task_release(struct task *task);
/* The hop it is at; and whether it is the last. */
const struct hop *task_hop(const struct task *task);
bool task_last_hop(const struct task *task);
/* Tasks with equal keys may share a forward pass: model and the present hop are the same. */
bool task_compatible(const struct task *a, const struct task *b);
/* The share of the whole route that is done, 0..1, when `step` of the present hop are. */
double task_progress(const struct task *task, int step);

/*
 * A1111's infotext, and a job record (JSON) that makes this one picture again. Neither holds an id
 * or a time, so that the same picture has the same bytes. `hide_addresses` is for the picture's
 * metadata: of the pictures that it was made from, those without a URL of the web are "data:,";
 * else the record can be sent. Owned strings.
 */
char *task_infotext(const struct task *task);
char *task_request_json(const struct task *task, bool hide_addresses);

#endif
