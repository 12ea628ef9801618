/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names of stages, topics, Redis keys and job states, made from schemas/tables.h. Everything here
 * is pure and thread-safe; strings returned are static unless said otherwise.
 */
#ifndef UNCLIP_COMMON_PROTOCOL_H
#define UNCLIP_COMMON_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>

#include "schemas/tables.h"

#define PROTOCOL_VERSION 1
#define JOB_ID_MAX       128 /* bytes; pattern [A-Za-z0-9][A-Za-z0-9._-]* */

enum stage {
#define X(id, ...) id,
    STAGE_TABLE(X)
#undef X
        STAGE_COUNT
};
const char *stage_name(enum stage stage);
bool stage_parse(const char *name, enum stage *stage);
bool stage_has_steps(enum stage stage);
bool stage_has_guidance(enum stage stage); /* classifier-free guidance: the prior and the decoder */
double stage_weight(enum stage stage);

enum sampler {
#define X(id, ...) id,
    SAMPLER_TABLE(X)
#undef X
        SAMPLER_COUNT
};
const char *sampler_name(enum sampler sampler);  /* "dpm-solver++" */
const char *sampler_title(enum sampler sampler); /* "DPM++ 2M" */
bool sampler_parse(const char *name, enum sampler *sampler);

enum prior_kind {
#define X(id, ...) id,
    PRIOR_TABLE(X)
#undef X
        PRIOR_COUNT
};
const char *prior_kind_name(enum prior_kind value);
bool prior_kind_parse(const char *name, enum prior_kind *value);

enum start {
#define X(id, ...) id,
    START_TABLE(X)
#undef X
        START_COUNT
};
const char *start_name(enum start value);
bool start_parse(const char *name, enum start *value);

enum mask_mode {
#define X(id, ...) id,
    MASK_TABLE(X)
#undef X
        MASK_COUNT
};
const char *mask_mode_name(enum mask_mode value);
bool mask_mode_parse(const char *name, enum mask_mode *value);

enum overflow {
#define X(id, ...) id,
    OVERFLOW_TABLE(X)
#undef X
        OVERFLOW_COUNT
};
const char *overflow_name(enum overflow value);
bool overflow_parse(const char *name, enum overflow *value);

enum format {
#define X(id, ...) id,
    FORMAT_TABLE(X)
#undef X
        FORMAT_COUNT
};
const char *format_name(enum format value);
bool format_parse(const char *name, enum format *value);

enum job_type {
#define X(id, ...) id,
    JOB_TABLE(X)
#undef X
        JOB_TYPE_COUNT
};
const char *job_type_name(enum job_type value);
bool job_type_parse(const char *name, enum job_type *value);
bool format_is_picture(enum format format); /* else it is a file of numbers */
const char *format_media_type(enum format format);

/* Interactive tasks serve a waiting person; bulk tasks (data sets) keep a guaranteed share. */
enum task_class { CLASS_INTERACTIVE, CLASS_BULK, CLASS_COUNT };
const char *task_class_name(enum task_class task_class);
bool task_class_parse(const char *name, enum task_class *task_class);

enum topic {
#define X(id, ...) id,
    TOPIC_TABLE(X)
#undef X
        TOPIC_COUNT
};
const char *topic_name(enum topic topic);
bool topic_compacted(enum topic topic);
const char *topic_tasks(enum stage stage, enum task_class task_class);
/* The consumer group of the stage's workers on that topic: "unclip-decoder.bulk". */
const char *topic_tasks_group(enum stage stage, enum task_class task_class);

enum job_state {
#define X(id, ...) id,
    JOB_STATE_TABLE(X)
#undef X
        JOB_STATE_COUNT
};
const char *job_state_name(enum job_state state);
bool job_state_parse(const char *name, enum job_state *state);
int job_state_rank(enum job_state state);
bool job_state_final(enum job_state state);
bool job_state_legal(enum job_state from, enum job_state to);

enum redis_key {
#define X(id, ...) id,
    REDIS_KEY_TABLE(X)
#undef X
        REDIS_KEY_COUNT
};
#define REDIS_KEY_SIZE 256
/* Writes the key into out; `argument` fills the format's %s (NULL where it has none). Returns out.
 */
const char *redis_key(enum redis_key key, const char *argument, char out[REDIS_KEY_SIZE]);

enum queue_field {
#define X(id, ...) id,
    QUEUE_FIELD_TABLE(X)
#undef X
        QUEUE_FIELD_COUNT
};
#define QUEUE_FIELD_SIZE 64
/* The field of REDIS_KEY_QUEUE, "3:bulk:round", written into out. Returns out. */
const char *queue_field(int partition, enum task_class task_class, enum queue_field field,
                        char out[QUEUE_FIELD_SIZE]);

/* Whether bytes are a valid job id: safe as a file name, a Redis key part and a URL segment. */
bool job_id_valid(const char *id, size_t length);

#endif
