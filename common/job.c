/* SPDX-License-Identifier: Apache-2.0 */
/* Job records, read and checked. Planning is in job_plan.c, writing in job_write.c. */
#include "common/job.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

#define ID_RULE "1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"

bool job_makes_pictures(enum job_type type)
{
    return type != JOB_EMBED && type != JOB_SCORE;
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
    } else if (!field && (!type || strcmp(type, job_type_name(JOB_CANCEL)) != 0)) {
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

/* --- what concerns several fields of one kind --- */

static int check_interpolate(const struct job *job, const json_t *record, struct err *err)
{
    double sum = 0;
    for (int i = 0; i < job->sources->count; i++)
        sum += job->sources->inputs[i].weight;
    if (job->frames && job->sources->count != 2)
        return err_set(err, ERR_INVALID_JOB, "'/frames' goes with two inputs, not %d",
                       job->sources->count);
    if (job->frames && json_object_get(record, "n"))
        return err_set(err, ERR_INVALID_JOB, "'/frames' and '/n' exclude each other");
    if (job->sources->noise_moves && !job->frames)
        return err_set(err, ERR_INVALID_JOB,
                       "'/noise' is 'interpolated', which goes with '/frames'");
    if (!(sum > 0))
        return err_set(err, ERR_INVALID_JOB, "'/inputs': no weight is above 0");
    if (job->start != START_NOISE && !job->sources->image)
        return err_set(err, ERR_INVALID_JOB, "'/start' is '%s', which needs '/image'",
                       start_name(job->start));
    return 0;
}

static int check_score(const struct job *job, struct err *err)
{
    for (int i = 0; i < job->sources->count; i++)
        if (!job->sources->inputs[i].image)
            return err_set(err, ERR_INVALID_JOB, "'/inputs/%d' is a text, not a picture", i);
    return 0;
}

/* Only what is the picture itself may be long: the others travel in every task of the job. */
static int check_address(const char *address, const char *field, int index, struct err *err)
{
    if (!address || strncasecmp(address, "data:", 5) == 0 || strlen(address) <= JOB_ADDRESS_MAX)
        return 0;
    char *place = index < 0 ? xstrdup(field) : xasprintf("inputs/%d/%s", index, field);
    int rc = err_set(err, ERR_INVALID_JOB,
                     "'/%s' has %zu bytes, an address that is no data URL at most %d", place,
                     strlen(address), JOB_ADDRESS_MAX);
    free(place);
    return rc;
}

static int check_addresses(const struct sources *sources, struct err *err)
{
    int rc = check_address(sources->image, "image", -1, err);
    if (rc == 0)
        rc = check_address(sources->mask, "mask", -1, err);
    for (int i = 0; i < sources->count && rc == 0; i++)
        rc = check_address(sources->inputs[i].image, "image", i, err);
    return rc;
}

static int check_kind(const struct job *job, const json_t *record, struct err *err)
{
    int rc = check_addresses(job->sources, err);
    if (rc != 0)
        return rc;
    if (job->keep > job->n)
        return err_set(err, ERR_INVALID_JOB, "'/best_of' is %d, less than the %d pictures of '/n'",
                       job->n, job->keep);
    if (job->type != JOB_EMBED && job->type != JOB_CANCEL && !format_is_picture(job->output.format))
        return err_set(err, ERR_INVALID_JOB, "'/output/format' is '%s', which holds no picture",
                       format_name(job->output.format));
    if (job->type == JOB_EMBED && format_is_picture(job->output.format))
        return err_set(err, ERR_INVALID_JOB, "'/output/format' is '%s', which holds no embedding",
                       format_name(job->output.format));
    if (job->type == JOB_TEXT_DIFF && job->frames && json_object_get(record, "n"))
        return err_set(err, ERR_INVALID_JOB, "'/frames' and '/n' exclude each other");
    if (job->type == JOB_INTERPOLATE)
        return check_interpolate(job, record, err);
    return job->type == JOB_SCORE ? check_score(job, err) : 0;
}

/* --- the fields --- */

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

static double take_real(const json_t *record, const char *key, double absent)
{
    const json_t *value = json_object_get(record, key);
    return value ? json_number_value(value) : absent;
}

/* What the record asks of one stage: {"steps": {"prior": 25}} and its like. */
static struct hop take_hop(const json_t *record, enum stage stage)
{
    const char *name = stage_name(stage);
    const json_t *sampler = json_object_get(json_object_get(record, "sampler"), name);
    enum sampler walk = SAMPLER_DDPM;
    BUG_ON(sampler && !sampler_parse(json_string_value(sampler), &walk));
    int reuse = take_int(json_object_get(record, "reuse"), name, 0);
    return (struct hop){
        .stage = stage,
        .sampler = walk,
        .steps = (short)take_int(json_object_get(record, "steps"), name, 0),
        .guidance = (float)take_real(json_object_get(record, "guidance"), name, -1),
        .eta = (float)take_real(json_object_get(record, "eta"), name, 0),
        .reuse = reuse > 1 ? (unsigned)reuse : 0,
        .threshold = (float)take_real(json_object_get(record, "threshold"), name, 0),
    };
}

static void take_input_text(struct job_input *input, const json_t *record, const char *key)
{
    *input = (struct job_input){.text = take_text(record, key), .weight = 1};
}

static void take_sources(struct job *job, const json_t *record)
{
    struct sources *sources = xcalloc(1, sizeof *sources);
    job->sources = sources;
    const char *image = json_string_value(json_object_get(record, "image"));
    const char *mask = json_string_value(json_object_get(record, "mask"));
    const char *mode = json_string_value(json_object_get(record, "mask_mode"));
    inputs_read(sources, json_object_get(record, "inputs"));
    sources->image = image ? xstrdup(image) : NULL;
    sources->mask = mask ? xstrdup(mask) : NULL;
    BUG_ON(mode && !mask_mode_parse(mode, &sources->mask_mode));
    sources->feather = take_int(record, "feather", 0);
    const char *noise = json_string_value(json_object_get(record, "noise"));
    sources->noise_moves = noise && strcmp(noise, "interpolated") == 0;
    sources->noise_place = take_real(record, "noise_place", 0);
    sources->theta = take_real(record, "theta", job->type == JOB_TEXT_DIFF ? JOB_THETA : 0);
    if (job->type != JOB_TEXT_DIFF)
        return;
    sources->inputs = xcalloc(2, sizeof *sources->inputs);
    sources->count = 2;
    take_input_text(&sources->inputs[0], record, "from");
    take_input_text(&sources->inputs[1], record, "to");
}

/* How its pictures are to be made, over all stages. */
static void take_making(struct job *job, const json_t *record)
{
    const char *overflow = json_string_value(json_object_get(record, "overflow"));
    const char *prior = json_string_value(json_object_get(record, "prior"));
    const char *start = json_string_value(json_object_get(record, "start"));
    enum overflow cut = OVERFLOW_TRUNCATE;
    enum prior_kind kind = PRIOR_DIFFUSION;
    enum start from = job->type == JOB_TEXT_DIFF ? START_INVERSION : START_NOISE;
    BUG_ON(overflow && !overflow_parse(overflow, &cut));
    BUG_ON(prior && !prior_kind_parse(prior, &kind));
    BUG_ON(start && !start_parse(start, &from));
    job->overflow = cut;
    job->prior = kind;
    job->start = from;
    job->candidates = (short)take_int(record, "prior_candidates", 1);
    job->strength = (float)take_real(record, "strength", JOB_STRENGTH);
    job->resample = (short)take_int(record, "resample", job->type == JOB_EDIT ? JOB_RESAMPLE : 0);
    job->score = json_is_true(json_object_get(record, "score"));
    job->preview = (short)take_int(record, "preview", 0);
    job->stop_at = (short)take_int(record, "stop_at", 0);
    if (job->type == JOB_UPSCALE)
        job->from = (short)take_int(record, "from", 0);
    const json_t *output = json_object_get(record, "output");
    output_form_read(&job->output, output);
    if (job->type == JOB_EMBED && !json_object_get(output, "format"))
        job->output.format = FORMAT_SAFETENSORS;
    for (int stage = 0; stage < STAGE_COUNT; stage++)
        job->route[stage] = take_hop(record, (enum stage)stage);
}

/* How many pictures: frames, inputs, candidates of best_of, or n. */
static void take_count(struct job *job, const json_t *record)
{
    int frames = take_int(record, "frames", 0), best_of = take_int(record, "best_of", 0);
    job->n = take_int(record, "n", 1);
    job->frames = frames > 0;
    if (job->frames)
        job->n = frames;
    if (!job_makes_pictures(job->type))
        job->n = job->sources->count;
    if (best_of > 0) {
        job->keep = (short)job->n;
        job->n = best_of;
        job->score = true;
    }
}

/* Copies the members; the schema has checked types and bounds. */
static void take_fields(struct job *job, const json_t *record)
{
    job->prompt = take_text(record, "prompt");
    job->negative_prompt = take_text(record, "negative_prompt");
    job->client = take_text(record, "client");
    const char *webhook = json_string_value(json_object_get(record, "webhook"));
    job->webhook = webhook ? xstrdup(webhook) : NULL;
    const char *model = json_string_value(json_object_get(record, "model"));
    strcpy(job->model, model ? model : "");
    const char *task_class = json_string_value(json_object_get(record, "class"));
    enum task_class waits = CLASS_INTERACTIVE;
    BUG_ON(task_class && !task_class_parse(task_class, &waits));
    job->task_class = waits;
    job->size = take_int(record, "size", 0);
    const json_t *seed = json_object_get(record, "seed");
    job->seed = seed ? json_integer_value(seed) : -1;
    take_sources(job, record);
    take_making(job, record);
    take_count(job, record);
    if (!job_makes_pictures(job->type))
        job->seed = 0; /* nothing is drawn */
    job->deadline_s = json_integer_value(json_object_get(record, "deadline_s"));
    job->metadata = json_incref(json_object_get(record, "metadata"));
}

static int take_record(struct job *job, const json_t *record, const char *value, size_t size,
                       struct err *err)
{
    enum job_type type;
    BUG_ON(!job_type_parse(json_string_value(json_object_get(record, "type")), &type));
    job->type = type;
    char schema[32] = "job-";
    strcat(schema, job_type_name(job->type));
    int result = schema_validate(schema, value, size, err);
    if (result == 0)
        result = check_id(job, record, err);
    if (result != 0)
        return result;
    take_fields(job, record);
    if ((result = check_bounds(job, err)) == 0 && (result = check_samplers(job, err)) == 0)
        result = check_kind(job, record, err);
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

int64_t job_deadline_ms(const struct job *job, int64_t created_at_ms)
{
    return job->deadline_s > 0 ? created_at_ms + job->deadline_s * 1000 : 0;
}

void job_release(struct job *job)
{
    free(job->prompt);
    free(job->negative_prompt);
    free(job->client);
    free(job->webhook);
    sources_free(job->sources);
    job->sources = NULL;
    json_decref(job->metadata);
    job->prompt = job->negative_prompt = job->client = job->webhook = NULL;
    job->metadata = NULL;
}
