/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs as records again: what is the default is left out, but for what every reader wants. */
#include "common/job.h"

static int hop_count(const struct job *job)
{
    return job->hops ? job->hops : STAGE_COUNT;
}

/* {"prior": 25, …} of the hops that say something; a plan's or what the record asked for. */
static json_t *steps_to_json(const struct job *job)
{
    json_t *steps = json_object();
    for (int i = 0; i < hop_count(job); i++)
        if (job->route[i].steps > 0)
            json_object_set_new(steps, stage_name(job->route[i].stage),
                                json_integer(job->route[i].steps));
    return steps;
}

static json_t *guidance_to_json(const struct job *job)
{
    json_t *guidance = json_object();
    for (int i = 0; i < hop_count(job); i++)
        if (stage_has_guidance(job->route[i].stage) && job->route[i].guidance >= 0)
            json_object_set_new(guidance, stage_name(job->route[i].stage),
                                json_real(hop_number(job->route[i].guidance)));
    return guidance;
}

/* Takes the object. */
static void put_filled(json_t *record, const char *key, json_t *object)
{
    if (json_object_size(object) > 0)
        json_object_set(record, key, object);
    json_decref(object);
}

/* "sampler", "eta", "reuse" and "threshold", each where a hop has it. */
static void put_sampling(json_t *record, const struct job *job)
{
    json_t *sampler = json_object(), *eta = json_object(), *reuse = json_object();
    json_t *threshold = json_object();
    for (int i = 0; i < hop_count(job); i++) {
        const struct hop *hop = &job->route[i];
        const char *name = stage_name(hop->stage);
        if (hop->sampler != SAMPLER_DDPM)
            json_object_set_new(sampler, name, json_string(sampler_name(hop->sampler)));
        if (hop->eta > 0)
            json_object_set_new(eta, name, json_real(hop_number(hop->eta)));
        if (hop->reuse > 0)
            json_object_set_new(reuse, name, json_integer(hop->reuse));
        if (hop->threshold > 0)
            json_object_set_new(threshold, name, json_real(hop_number(hop->threshold)));
    }
    put_filled(record, "sampler", sampler);
    put_filled(record, "eta", eta);
    put_filled(record, "reuse", reuse);
    put_filled(record, "threshold", threshold);
}

static void put_text(json_t *record, const char *key, const char *text)
{
    if (text && *text)
        json_object_set_new(record, key, json_string(text));
}

static void put_int(json_t *record, const char *key, int64_t value, int64_t unsaid)
{
    if (value != unsaid)
        json_object_set_new(record, key, json_integer(value));
}

static void put_sources(json_t *record, const struct job *job)
{
    const struct sources *sources = job->sources;
    if (!sources)
        return;
    put_text(record, "image", sources->image);
    put_text(record, "mask", sources->mask);
    if (sources->mask_mode != 0)
        put_text(record, "mask_mode", mask_mode_name(sources->mask_mode));
    put_int(record, "feather", sources->feather, 0);
    if (sources->noise_moves)
        put_text(record, "noise", "interpolated");
    if (sources->noise_place > 0)
        json_object_set_new(record, "noise_place", json_real(sources->noise_place));
    if (job->type == JOB_TEXT_DIFF) {
        put_text(record, "from", sources->inputs[0].text);
        put_text(record, "to", sources->inputs[1].text);
        json_object_set_new(record, "theta", json_real(sources->theta));
    } else if (sources->count > 0) {
        json_object_set_new(record, "inputs", inputs_to_json(sources));
    }
}

static void put_start(json_t *record, const struct job *job)
{
    enum start unsaid = job->type == JOB_TEXT_DIFF ? START_INVERSION : START_NOISE;
    if (job->start != unsaid)
        put_text(record, "start", start_name(job->start));
    if (job->start == START_PICTURE)
        json_object_set_new(record, "strength", json_real(hop_number(job->strength)));
    if (job->type == JOB_EDIT)
        put_int(record, "resample", job->resample, JOB_RESAMPLE);
}

static void put_making(json_t *record, const struct job *job)
{
    if (job->overflow != 0)
        put_text(record, "overflow", overflow_name(job->overflow));
    if (job->prior != 0)
        put_text(record, "prior", prior_kind_name(job->prior));
    put_int(record, "prior_candidates", job->candidates, 1);
    put_int(record, "stop_at", job->stop_at, 0);
    put_int(record, "from", job->from, 0);
    put_int(record, "preview", job->preview, 0);
    if (job->score && job->keep == 0)
        json_object_set_new(record, "score", json_true());
    json_t *output = output_form_to_json(&job->output);
    if (output)
        json_object_set_new(record, "output", output);
}

/* frames, best_of and n, or none where the inputs say it. */
static void put_count(json_t *record, const struct job *job)
{
    if (!job_makes_pictures(job->type))
        return;
    put_int(record, job->frames ? "frames" : "n", job->keep > 0 ? job->keep : job->n, -1);
    if (job->keep > 0)
        put_int(record, "best_of", job->n, -1);
}

static void put_picture_fields(json_t *record, const struct job *job)
{
    put_int(record, "size", job->size, 0);
    put_int(record, "seed", job->seed, -1);
    json_object_set_new(record, "steps", steps_to_json(job));
    if (job->type != JOB_UPSCALE)
        json_object_set_new(record, "guidance", guidance_to_json(job));
    put_sampling(record, job);
    put_start(record, job);
}

json_t *job_to_json(const struct job *job)
{
    json_t *record = json_object();
    json_object_set_new(record, "version", json_integer(PROTOCOL_VERSION));
    put_text(record, "type", job_type_name(job->type));
    put_text(record, "id", job->id);
    if (job->type == JOB_CANCEL)
        return record;
    put_text(record, "prompt", job->prompt);
    put_text(record, "negative_prompt", job->negative_prompt);
    put_sources(record, job);
    put_count(record, job);
    put_text(record, "model", job->model);
    json_object_set_new(record, "class", json_string(task_class_name(job->task_class)));
    if (job_makes_pictures(job->type))
        put_picture_fields(record, job);
    put_making(record, job);
    put_int(record, "deadline_s", job->deadline_s, 0);
    put_text(record, "client", job->client);
    put_text(record, "webhook", job->webhook);
    if (job->metadata)
        json_object_set(record, "metadata", job->metadata);
    return record;
}
