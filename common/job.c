/* SPDX-License-Identifier: Apache-2.0 */
/* Job records: read, completed with a model's defaults, and written again. Tasks are in task.c. */
#include "common/job.h"

#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

#define ID_RULE "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"

static const char *const type_names[JOB_TYPE_COUNT] = {
    [JOB_TEXT_TO_IMAGE] = "text-to-image",
    [JOB_CANCEL] = "cancel",
};

const char *job_type_name(enum job_type type)
{
    BUG_ON((int)type < 0 || type >= JOB_TYPE_COUNT);
    return type_names[type];
}

static enum job_type type_parse(const char *name)
{
    for (int i = 0; i < JOB_TYPE_COUNT; i++)
        if (strcmp(type_names[i], name) == 0)
            return (enum job_type)i;
    BUG("a job type that is in the schema only");
}

/* --- reading --- */

static int take_key(struct job *job, const void *key, size_t key_size, struct err *err)
{
    if (!key || key_size == 0)
        return 0;
    if (!job_id_valid(key, key_size))
        return err_set(err, ERR_INVALID_JOB, "the record's key '%.*s' is not a job id: " ID_RULE,
                       key_size > 60 ? 60 : (int)key_size, (const char *)key);
    memcpy(job->id, key, key_size);
    return 0;
}

/* From the field, else made from where the record stands; a cancellation's id is never made. */
static void find_id(struct job *job, const json_t *record, const char *topic, int partition,
                    int64_t offset)
{
    const json_t *field = json_object_get(record, "id");
    const char *type = json_string_value(json_object_get(record, "type"));
    if (job->id[0])
        return;
    if (json_is_string(field)) {
        if (job_id_valid(json_string_value(field), json_string_length(field)))
            strcpy(job->id, json_string_value(field));
    } else if (!field && (!type || strcmp(type, type_names[JOB_CANCEL]) != 0)) {
        char *made = xasprintf("%s-%d-%lld", topic, partition, (long long)offset);
        BUG_ON(!job_id_valid(made, strlen(made)));
        strcpy(job->id, made);
        free(made);
    }
}

static int check_id(const struct job *job, const json_t *record, struct err *err)
{
    const char *field = json_string_value(json_object_get(record, "id"));
    if (field && strcmp(field, job->id) != 0)
        return err_set(err, ERR_INVALID_JOB, "the record's key is '%s', but its field 'id' is '%s'",
                       job->id, field);
    if (!job->id[0])
        return err_set(err, ERR_INVALID_JOB,
                       "a cancellation needs its job's id, as the record's key or in 'id'");
    return 0;
}

static int check_samplers(const struct job *job, struct err *err)
{
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        const struct hop *hop = &job->route[stage];
        const char *name = stage_name((enum stage)stage);
        if (hop->eta > 1) /* by less than the schema can tell */
            return err_set(err, ERR_INVALID_JOB, "'/eta/%s' is above 1", name);
        if (hop->eta > 0 && hop->sampler != SAMPLER_DDIM)
            return err_set(err, ERR_INVALID_JOB,
                           "'/eta/%s' is %.15g, but its sampler is '%s': only 'ddim' takes one",
                           name, hop->eta, sampler_name(hop->sampler));
    }
    return 0;
}

static int check_bounds(const struct job *job, struct err *err)
{
    if (job->seed > JOB_SEED_MAX - job->n)
        return err_set(err, ERR_INVALID_JOB,
                       "'/seed' is %lld, for %d pictures at most %lld is "
                       "allowed",
                       (long long)job->seed, job->n, (long long)(JOB_SEED_MAX - job->n));
    size_t size = job->metadata ? json_dumpb(job->metadata, NULL, 0, JSON_COMPACT) : 0;
    if (size > JOB_METADATA_MAX)
        return err_set(err, ERR_INVALID_JOB,
                       "'/metadata' has %zu bytes as compact JSON, at most %d are allowed", size,
                       JOB_METADATA_MAX);
    return 0;
}

static char *take_text(const json_t *record, const char *key)
{
    const char *text = json_string_value(json_object_get(record, key));
    return xstrdup(text ? text : "");
}

static int take_int(const json_t *record, const char *key, int absent)
{
    const json_t *value = json_object_get(record, key);
    return value ? (int)json_integer_value(value) : absent;
}

static void take_sampling(struct hop *hop, const json_t *sampler)
{
    BUG_ON(sampler && !sampler_parse(json_string_value(sampler), &hop->sampler));
    if (hop->reuse == 1)
        hop->reuse = 0;
}

/* Copies the members; the schema has checked types and bounds. */
static void take_fields(struct job *job, const json_t *record)
{
    job->prompt = take_text(record, "prompt");
    job->negative_prompt = take_text(record, "negative_prompt");
    job->client = take_text(record, "client");
    const char *model = json_string_value(json_object_get(record, "model"));
    strcpy(job->model, model ? model : "");
    const char *task_class = json_string_value(json_object_get(record, "class"));
    BUG_ON(task_class && !task_class_parse(task_class, &job->task_class));
    job->n = take_int(record, "n", 1);
    job->size = take_int(record, "size", 0);
    const json_t *seed = json_object_get(record, "seed");
    job->seed = seed ? json_integer_value(seed) : -1;
    const json_t *steps = json_object_get(record, "steps");
    const json_t *guidance = json_object_get(record, "guidance");
    const json_t *sampler = json_object_get(record, "sampler");
    const json_t *eta = json_object_get(record, "eta");
    const json_t *reuse = json_object_get(record, "reuse");
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        const char *name = stage_name((enum stage)stage);
        const json_t *scale = json_object_get(guidance, name);
        job->route[stage] = (struct hop){.stage = (enum stage)stage,
                                         .steps = take_int(steps, name, 0),
                                         .guidance = scale ? json_number_value(scale) : -1,
                                         .eta = json_number_value(json_object_get(eta, name)),
                                         .reuse = take_int(reuse, name, 0)};
        take_sampling(&job->route[stage], json_object_get(sampler, name));
    }
    job->deadline_s = json_integer_value(json_object_get(record, "deadline_s"));
    job->metadata = json_incref(json_object_get(record, "metadata"));
}

static int take_record(struct job *job, const json_t *record, const char *value, size_t size,
                       struct err *err)
{
    job->type = type_parse(json_string_value(json_object_get(record, "type")));
    char schema[32] = "job-";
    strcat(schema, type_names[job->type]);
    int result = schema_validate(schema, value, size, err);
    if (result == 0)
        result = check_id(job, record, err);
    if (result != 0)
        return result;
    take_fields(job, record);
    result = check_bounds(job, err);
    if (result == 0)
        result = check_samplers(job, err);
    if (result != 0)
        job_release(job);
    return result;
}

int job_parse(struct job *job, const void *key, size_t key_size, const void *value,
              size_t value_size, const char *topic, int partition, int64_t offset, struct err *err)
{
    *job = (struct job){.seed = -1};
    int result = take_key(job, key, key_size, err);
    if (result != 0)
        return result;
    if (!value || value_size == 0)
        return err_set(err, ERR_INVALID_JSON, "the record is empty");
    struct err why;
    int envelope = schema_validate("job", value, value_size, &why);
    if (envelope != 0 && why.code != ERR_INVALID_JOB && why.code != ERR_UNSUPPORTED)
        return err_set_at(err, why.code, why.where, "%s", why.text);
    json_t *record;
    result = jsonx_parse(&record, value, value_size, err);
    BUG_ON(result != 0); /* the schema's check has parsed it in the same way */
    find_id(job, record, topic, partition, offset);
    if (envelope != 0)
        result = err_set_at(err, why.code, why.where, "%s", why.text);
    else
        result = take_record(job, record, value, value_size, err);
    json_decref(record);
    return result;
}

/* --- planning --- */

/* The number of stages that make `size`, or 0. */
static int hops_for(const struct model_card *card, int size)
{
    if (size == card->decoder_size)
        return STAGE_DECODER + 1;
    if (size == card->upsampler_1_size)
        return STAGE_UPSAMPLER_1 + 1;
    if (size == card->upsampler_2_size)
        return STAGE_UPSAMPLER_2 + 1;
    return 0;
}

static void complete_hop(struct hop *hop, const struct model_card *card)
{
    if (hop->steps == 0 || card->steps[hop->stage] == 0)
        hop->steps = card->steps[hop->stage];
    if (hop->steps == 0)
        *hop = (struct hop){.stage = hop->stage};
    if (!stage_has_guidance(hop->stage))
        hop->guidance = 0;
    else if (hop->guidance < 0)
        hop->guidance = card->guidance[hop->stage];
}

int job_plan(struct job *job, const struct model_card *card, struct err *err)
{
    BUG_ON(job->type != JOB_TEXT_TO_IMAGE);
    int size = job->size > 0 ? job->size : card->upsampler_2_size;
    int hops = hops_for(card, size);
    if (hops == 0)
        return err_set(err, ERR_INVALID_JOB, "'/size' is %d, the model '%s' makes %d, %d or %d",
                       size, card->name, card->decoder_size, card->upsampler_1_size,
                       card->upsampler_2_size);
    if (!job->model[0])
        strcpy(job->model, card->name);
    job->size = size;
    job->hops = hops;
    for (int i = 0; i < hops; i++)
        complete_hop(&job->route[i], card);
    return 0;
}

/* --- writing --- */

/* {"prior": 25, …} of the hops that say something; a plan's or what the record asked for. */
static json_t *steps_to_json(const struct job *job)
{
    json_t *steps = json_object();
    for (int i = 0; i < (job->hops ? job->hops : STAGE_COUNT); i++)
        if (job->route[i].steps > 0)
            json_object_set_new(steps, stage_name(job->route[i].stage),
                                json_integer(job->route[i].steps));
    return steps;
}

static json_t *guidance_to_json(const struct job *job)
{
    json_t *guidance = json_object();
    for (int i = 0; i < (job->hops ? job->hops : STAGE_COUNT); i++)
        if (stage_has_guidance(job->route[i].stage) && job->route[i].guidance >= 0)
            json_object_set_new(guidance, stage_name(job->route[i].stage),
                                json_real(job->route[i].guidance));
    return guidance;
}

/* Takes the object. */
static void put_filled(json_t *record, const char *key, json_t *object)
{
    if (json_object_size(object) > 0)
        json_object_set(record, key, object);
    json_decref(object);
}

/* "sampler", "eta" and "reuse", each where a hop has it. */
static void put_sampling(json_t *record, const struct job *job)
{
    json_t *sampler = json_object(), *eta = json_object(), *reuse = json_object();
    for (int i = 0; i < (job->hops ? job->hops : STAGE_COUNT); i++) {
        const struct hop *hop = &job->route[i];
        const char *name = stage_name(hop->stage);
        if (hop->sampler != SAMPLER_DDPM)
            json_object_set_new(sampler, name, json_string(sampler_name(hop->sampler)));
        if (hop->eta > 0)
            json_object_set_new(eta, name, json_real(hop->eta));
        if (hop->reuse > 0)
            json_object_set_new(reuse, name, json_integer(hop->reuse));
    }
    put_filled(record, "sampler", sampler);
    put_filled(record, "eta", eta);
    put_filled(record, "reuse", reuse);
}

json_t *job_to_json(const struct job *job)
{
    json_t *record = json_object();
    json_object_set_new(record, "version", json_integer(PROTOCOL_VERSION));
    json_object_set_new(record, "type", json_string(job_type_name(job->type)));
    if (job->id[0])
        json_object_set_new(record, "id", json_string(job->id));
    if (job->type == JOB_CANCEL)
        return record;
    json_object_set_new(record, "prompt", json_string(job->prompt));
    json_object_set_new(record, "negative_prompt", json_string(job->negative_prompt));
    json_object_set_new(record, "n", json_integer(job->n));
    if (job->size > 0)
        json_object_set_new(record, "size", json_integer(job->size));
    if (job->seed >= 0)
        json_object_set_new(record, "seed", json_integer(job->seed));
    if (job->model[0])
        json_object_set_new(record, "model", json_string(job->model));
    json_object_set_new(record, "class", json_string(task_class_name(job->task_class)));
    json_object_set_new(record, "steps", steps_to_json(job));
    json_object_set_new(record, "guidance", guidance_to_json(job));
    put_sampling(record, job);
    if (job->deadline_s > 0)
        json_object_set_new(record, "deadline_s", json_integer(job->deadline_s));
    json_object_set_new(record, "client", json_string(job->client));
    if (job->metadata)
        json_object_set(record, "metadata", job->metadata);
    return record;
}

int64_t job_deadline_ms(const struct job *job, int64_t created_at_ms)
{
    return job->deadline_s > 0 ? created_at_ms + job->deadline_s * 1000 : 0;
}

void job_release(struct job *job)
{
    free(job->prompt);
    free(job->negative_prompt);
    free(job->client);
    json_decref(job->metadata);
    job->prompt = job->negative_prompt = job->client = NULL;
    job->metadata = NULL;
}
