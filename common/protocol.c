/* SPDX-License-Identifier: Apache-2.0 */
/* Names and rules made from schemas/tables.h; docs/protocol.md tells the story. */
#include "common/protocol.h"

#include <stdio.h>
#include <string.h>

#include "common/err.h"

#define CHECK_ENUM(value, count) BUG_ON((int)(value) < 0 || (int)(value) >= (int)(count))

static int find_name(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

/* Name and parser of an enum whose table has the columns identifier, name, … */
#define NAMED(type, TABLE, COUNT)                                                                  \
    static const char *const type##_names[COUNT] = {TABLE(NAME_OF)};                               \
    const char *type##_name(enum type value)                                                       \
    {                                                                                              \
        CHECK_ENUM(value, COUNT);                                                                  \
        return type##_names[value];                                                                \
    }                                                                                              \
    bool type##_parse(const char *name, enum type *value)                                          \
    {                                                                                              \
        int found = find_name(type##_names, COUNT, name);                                          \
        if (found >= 0)                                                                            \
            *value = (enum type)found;                                                             \
        return found >= 0;                                                                         \
    }
#define NAME_OF(id, name, ...) [id] = name,
NAMED(prior_kind, PRIOR_TABLE, PRIOR_COUNT)
NAMED(start, START_TABLE, START_COUNT)
NAMED(mask_mode, MASK_TABLE, MASK_COUNT)
NAMED(overflow, OVERFLOW_TABLE, OVERFLOW_COUNT)
NAMED(format, FORMAT_TABLE, FORMAT_COUNT)
NAMED(job_type, JOB_TABLE, JOB_TYPE_COUNT)
NAMED(stage, STAGE_TABLE, STAGE_COUNT)
NAMED(sampler, SAMPLER_TABLE, SAMPLER_COUNT)

bool format_is_picture(enum format format)
{
    static const bool is_picture[FORMAT_COUNT] = {
#define X(id, name, media, picture) [id] = picture,
        FORMAT_TABLE(X)
#undef X
    };
    CHECK_ENUM(format, FORMAT_COUNT);
    return is_picture[format];
}

const char *format_media_type(enum format format)
{
    static const char *const types[FORMAT_COUNT] = {
#define X(id, name, media, picture) [id] = media,
        FORMAT_TABLE(X)
#undef X
    };
    CHECK_ENUM(format, FORMAT_COUNT);
    return types[format];
}

bool stage_has_steps(enum stage stage)
{
    static const bool has_steps[STAGE_COUNT] = {
#define X(id, name, steps, weight) [id] = steps,
        STAGE_TABLE(X)
#undef X
    };
    CHECK_ENUM(stage, STAGE_COUNT);
    return has_steps[stage];
}

bool stage_has_guidance(enum stage stage)
{
    CHECK_ENUM(stage, STAGE_COUNT);
    return stage == STAGE_PRIOR || stage == STAGE_DECODER;
}

double stage_weight(enum stage stage)
{
    static const double weights[STAGE_COUNT] = {
#define X(id, name, steps, weight) [id] = weight,
        STAGE_TABLE(X)
#undef X
    };
    CHECK_ENUM(stage, STAGE_COUNT);
    return weights[stage];
}

const char *sampler_title(enum sampler sampler)
{
    static const char *const titles[SAMPLER_COUNT] = {
#define X(id, name, title, meaning) [id] = title,
        SAMPLER_TABLE(X)
#undef X
    };
    CHECK_ENUM(sampler, SAMPLER_COUNT);
    return titles[sampler];
}

static const char *const class_names[CLASS_COUNT] = {
    [CLASS_INTERACTIVE] = "interactive",
    [CLASS_BULK] = "bulk",
};

const char *task_class_name(enum task_class task_class)
{
    CHECK_ENUM(task_class, CLASS_COUNT);
    return class_names[task_class];
}

bool task_class_parse(const char *name, enum task_class *task_class)
{
    int found = find_name(class_names, CLASS_COUNT, name);
    if (found >= 0)
        *task_class = (enum task_class)found;
    return found >= 0;
}

static const struct {
    const char *name;
    bool compacted;
} topics[TOPIC_COUNT] = {
#define X(id, name, compacted, meaning) [id] = {name, compacted},
    TOPIC_TABLE(X)
#undef X
};

const char *topic_name(enum topic topic)
{
    CHECK_ENUM(topic, TOPIC_COUNT);
    return topics[topic].name;
}

bool topic_compacted(enum topic topic)
{
    CHECK_ENUM(topic, TOPIC_COUNT);
    return topics[topic].compacted;
}

const char *topic_tasks(enum stage stage, enum task_class task_class)
{
    static const char *const names[STAGE_COUNT][CLASS_COUNT] = {
#define X(id, name, steps, weight)                                                                 \
    [id] = {                                                                                       \
        [CLASS_INTERACTIVE] = TOPIC_TASKS_PREFIX name,                                             \
        [CLASS_BULK] = TOPIC_TASKS_PREFIX name TOPIC_BULK_SUFFIX,                                  \
    },
        STAGE_TABLE(X)
#undef X
    };
    CHECK_ENUM(stage, STAGE_COUNT);
    CHECK_ENUM(task_class, CLASS_COUNT);
    return names[stage][task_class];
}

const char *topic_tasks_group(enum stage stage, enum task_class task_class)
{
    static const char *const names[STAGE_COUNT][CLASS_COUNT] = {
#define X(id, name, steps, weight)                                                                 \
    [id] = {                                                                                       \
        [CLASS_INTERACTIVE] = GROUP_PREFIX name,                                                   \
        [CLASS_BULK] = GROUP_PREFIX name TOPIC_BULK_SUFFIX,                                        \
    },
        STAGE_TABLE(X)
#undef X
    };
    CHECK_ENUM(stage, STAGE_COUNT);
    CHECK_ENUM(task_class, CLASS_COUNT);
    return names[stage][task_class];
}

static const char *const state_names[JOB_STATE_COUNT] = {
#define X(id, name, rank, final) [id] = name,
    JOB_STATE_TABLE(X)
#undef X
};

const char *job_state_name(enum job_state state)
{
    CHECK_ENUM(state, JOB_STATE_COUNT);
    return state_names[state];
}

bool job_state_parse(const char *name, enum job_state *state)
{
    int found = find_name(state_names, JOB_STATE_COUNT, name);
    if (found >= 0)
        *state = (enum job_state)found;
    return found >= 0;
}

int job_state_rank(enum job_state state)
{
    static const int ranks[JOB_STATE_COUNT] = {
#define X(id, name, rank, final) [id] = rank,
        JOB_STATE_TABLE(X)
#undef X
    };
    CHECK_ENUM(state, JOB_STATE_COUNT);
    return ranks[state];
}

bool job_state_final(enum job_state state)
{
    static const bool finals[JOB_STATE_COUNT] = {
#define X(id, name, rank, final) [id] = final,
        JOB_STATE_TABLE(X)
#undef X
    };
    CHECK_ENUM(state, JOB_STATE_COUNT);
    return finals[state];
}

bool job_state_legal(enum job_state from, enum job_state to)
{
    static const bool legal[JOB_STATE_COUNT][JOB_STATE_COUNT] = {
#define X(from, to, when) [from][to] = true,
        JOB_TRANSITION_TABLE(X)
#undef X
    };
    CHECK_ENUM(from, JOB_STATE_COUNT);
    CHECK_ENUM(to, JOB_STATE_COUNT);
    return legal[from][to];
}

const char *redis_key(enum redis_key key, const char *argument, char out[REDIS_KEY_SIZE])
{
    static const char *const formats[REDIS_KEY_COUNT] = {
#define X(id, format, type, meaning) [id] = format,
        REDIS_KEY_TABLE(X)
#undef X
    };
    CHECK_ENUM(key, REDIS_KEY_COUNT);
    const char *format = formats[key];
    const char *hole = strstr(format, "%s");
    BUG_ON(!hole != !argument);
    int before = hole ? (int)(hole - format) : (int)strlen(format);
    int length = snprintf(out, REDIS_KEY_SIZE, "%.*s%s%s", before, format, hole ? argument : "",
                          hole ? hole + 2 : "");
    BUG_ON(length >= REDIS_KEY_SIZE);
    return out;
}

const char *queue_field(int partition, enum task_class task_class, enum queue_field field,
                        char out[QUEUE_FIELD_SIZE])
{
    static const char *const names[QUEUE_FIELD_COUNT] = {
#define X(id, name, meaning) [id] = name,
        QUEUE_FIELD_TABLE(X)
#undef X
    };
    CHECK_ENUM(field, QUEUE_FIELD_COUNT);
    snprintf(out, QUEUE_FIELD_SIZE, "%d:%s:%s", partition, task_class_name(task_class),
             names[field]);
    return out;
}

static bool is_alphanumeric(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

bool job_id_valid(const char *id, size_t length)
{
    if (length == 0 || length > JOB_ID_MAX || !is_alphanumeric(id[0]))
        return false;
    for (size_t i = 1; i < length; i++)
        if (!is_alphanumeric(id[i]) && id[i] != '.' && id[i] != '_' && id[i] != '-')
            return false;
    return true;
}
