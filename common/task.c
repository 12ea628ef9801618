/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: one picture's work, as JSON in a record header, and as text in the finished picture. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/job.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

void task_from_job(struct task *task, const struct job *job, int image, int home,
                   int64_t created_at_ms, int64_t now_ms)
{
    BUG_ON(job->hops == 0 || job->seed < 0 || image < 0 || image >= job->n);
    *task = (struct task){
        .image = image,
        .images = job->n,
        .home = home,
        .task_class = job->task_class,
        .prompt = xstrdup(job->prompt),
        .negative_prompt = xstrdup(job->negative_prompt),
        .seed = job->seed + image,
        .size = job->size,
        .hops = job->hops,
        .deadline_ms = job_deadline_ms(job, created_at_ms),
        .created_at_ms = created_at_ms,
        .enqueued_at_ms = now_ms,
    };
    strcpy(task->job, job->id);
    strcpy(task->model, job->model);
    memcpy(task->route, job->route, sizeof task->route);
}

json_t *hop_to_json(const struct hop *hop)
{
    json_t *out = json_pack("{s:s, s:i, s:f}", "stage", stage_name(hop->stage), "steps", hop->steps,
                            "guidance", hop->guidance);
    if (hop->sampler != SAMPLER_DDPM)
        json_object_set_new(out, "sampler", json_string(sampler_name(hop->sampler)));
    if (hop->eta > 0)
        json_object_set_new(out, "eta", json_real(hop->eta));
    if (hop->reuse > 0)
        json_object_set_new(out, "reuse", json_integer(hop->reuse));
    return out;
}

static json_t *route_to_json(const struct task *task)
{
    json_t *route = json_array();
    for (int i = 0; i < task->hops; i++)
        json_array_append_new(route, hop_to_json(&task->route[i]));
    return route;
}

char *task_to_json(const struct task *task)
{
    json_t *record = json_pack(
        "{s:i, s:s, s:i, s:i, s:i, s:s, s:s, s:s, s:s, s:I, s:i, s:o, s:i, s:I, s:I}", "version",
        PROTOCOL_VERSION, "job", task->job, "image", task->image, "images", task->images, "home",
        task->home, "model", task->model, "class", task_class_name(task->task_class), "prompt",
        task->prompt, "negative_prompt", task->negative_prompt, "seed", (json_int_t)task->seed,
        "size", task->size, "route", route_to_json(task), "hop", task->hop, "created_at_ms",
        (json_int_t)task->created_at_ms, "enqueued_at_ms", (json_int_t)task->enqueued_at_ms);
    BUG_ON(!record); /* its strings were checked to be UTF-8 when they came in */
    if (task->deadline_ms > 0)
        json_object_set_new(record, "deadline_ms", json_integer(task->deadline_ms));
    if (task->attempt > 0)
        json_object_set_new(record, "attempt", json_integer(task->attempt));
    char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    return text;
}

static int take_int(const json_t *record, const char *key)
{
    return (int)json_integer_value(json_object_get(record, key));
}

static const char *take_text(const json_t *record, const char *key)
{
    return json_string_value(json_object_get(record, key));
}

void hop_read(struct hop *hop, const json_t *json)
{
    const char *sampler = take_text(json, "sampler");
    *hop = (struct hop){
        .steps = take_int(json, "steps"),
        .guidance = json_number_value(json_object_get(json, "guidance")),
        .eta = json_number_value(json_object_get(json, "eta")),
        .reuse = take_int(json, "reuse"),
    };
    BUG_ON(!stage_parse(take_text(json, "stage"), &hop->stage));
    BUG_ON(sampler && !sampler_parse(sampler, &hop->sampler));
    if (hop->reuse == 1)
        hop->reuse = 0;
}

/* The schema has checked types and bounds; here comes what concerns two fields at once. */
static int check_route(const struct task *task, struct err *err)
{
    if (task->image >= task->images)
        return err_set(err, ERR_INVALID_RECORD, "task: '/image' is %d of %d", task->image,
                       task->images);
    if (task->hop >= task->hops)
        return err_set(err, ERR_INVALID_RECORD, "task: '/hop' is %d, the route has %d stages",
                       task->hop, task->hops);
    for (int i = 0; i < task->hops; i++)
        if (task->route[i].eta > 1) /* by less than the schema can tell */
            return err_set(err, ERR_INVALID_RECORD, "task: '/route/%d/eta' is above 1", i);
    for (int i = 1; i < task->hops; i++)
        if (task->route[i].stage <= task->route[i - 1].stage)
            return err_set(err, ERR_INVALID_RECORD, "task: '/route' has '%s' after '%s'",
                           stage_name(task->route[i].stage), stage_name(task->route[i - 1].stage));
    return 0;
}

static void take_fields(struct task *task, const json_t *record)
{
    *task = (struct task){
        .image = take_int(record, "image"),
        .images = take_int(record, "images"),
        .home = take_int(record, "home"),
        .prompt = xstrdup(take_text(record, "prompt")),
        .negative_prompt = xstrdup(take_text(record, "negative_prompt")),
        .seed = json_integer_value(json_object_get(record, "seed")),
        .size = take_int(record, "size"),
        .hop = take_int(record, "hop"),
        .attempt = take_int(record, "attempt"),
        .deadline_ms = json_integer_value(json_object_get(record, "deadline_ms")),
        .created_at_ms = json_integer_value(json_object_get(record, "created_at_ms")),
        .enqueued_at_ms = json_integer_value(json_object_get(record, "enqueued_at_ms")),
    };
    strcpy(task->job, take_text(record, "job"));
    strcpy(task->model, take_text(record, "model"));
    BUG_ON(!task_class_parse(take_text(record, "class"), &task->task_class));
    size_t i;
    json_t *value;
    json_array_foreach (json_object_get(record, "route"), i, value)
        hop_read(&task->route[task->hops++], value);
}

int task_parse(struct task *task, const char *json, size_t size, struct err *err)
{
    *task = (struct task){0};
    struct err why;
    if (schema_validate("task", json, size, &why) != 0)
        return err_set(err, why.code == ERR_UNSUPPORTED ? why.code : ERR_INVALID_RECORD, "task: %s",
                       why.text);
    json_t *record;
    int result = jsonx_parse(&record, json, size, err);
    BUG_ON(result != 0); /* the schema's check has parsed it in the same way */
    take_fields(task, record);
    json_decref(record);
    result = check_route(task, err);
    if (result != 0)
        task_release(task);
    return result;
}

void task_release(struct task *task)
{
    free(task->prompt);
    free(task->negative_prompt);
    task->prompt = task->negative_prompt = NULL;
}

const struct hop *task_hop(const struct task *task)
{
    BUG_ON(task->hop < 0 || task->hop >= task->hops);
    return &task->route[task->hop];
}

bool task_last_hop(const struct task *task)
{
    return task->hop == task->hops - 1;
}

bool task_compatible(const struct task *a, const struct task *b)
{
    const struct hop *x = task_hop(a), *y = task_hop(b);
    return strcmp(a->model, b->model) == 0 && x->stage == y->stage && x->steps == y->steps &&
           x->guidance == y->guidance && x->sampler == y->sampler && x->eta == y->eta &&
           x->reuse == y->reuse;
}

double task_progress(const struct task *task, int step)
{
    double done = 0, total = 0;
    for (int i = 0; i < task->hops; i++) {
        const struct hop *hop = &task->route[i];
        int steps = hop->steps > 0 ? hop->steps : 1;
        int reached = i < task->hop ? steps : i > task->hop ? 0 : step;
        total += steps * stage_weight(hop->stage);
        done += (reached > steps ? steps : reached < 0 ? 0 : reached) * stage_weight(hop->stage);
    }
    return done / total;
}

/* --- what a finished picture says of itself --- */

/* A1111 writes values that would confuse its reader as JSON strings. */
static void write_value(FILE *out, const char *key, const char *value)
{
    if (!strpbrk(value, ",:\n")) {
        fprintf(out, ", %s: %s", key, value);
        return;
    }
    json_t *string = json_string(value);
    char *quoted = json_dumps(string, JSON_ENCODE_ANY);
    fprintf(out, ", %s: %s", key, quoted);
    free(quoted);
    json_decref(string);
}

static const struct hop *find_hop(const struct task *task, enum stage stage)
{
    for (int i = 0; i < task->hops; i++)
        if (task->route[i].stage == stage)
            return &task->route[i];
    return NULL;
}

/* What a stage's sampling has beyond the default; `prefix` is in front of each key. */
static void write_sampling(FILE *out, const char *prefix, const struct hop *hop)
{
    if (hop->eta > 0)
        fprintf(out, ", %sEta: %.15g", prefix, hop->eta);
    if (hop->reuse > 0)
        fprintf(out, ", %sReuse: %d", prefix, hop->reuse);
}

/* The same for stages whose sampler is not in "Sampler". */
static void write_sampler(FILE *out, const char *prefix, const struct hop *hop)
{
    if (hop->sampler != SAMPLER_DDPM)
        fprintf(out, ", %sSampler: %s", prefix, sampler_title(hop->sampler));
    write_sampling(out, prefix, hop);
}

static void write_settings(FILE *out, const struct task *task)
{
    const struct hop *decoder = find_hop(task, STAGE_DECODER), *hop;
    fprintf(out, "Steps: %d, Sampler: %s, CFG scale: %.15g", decoder ? decoder->steps : 0,
            sampler_title(decoder ? decoder->sampler : SAMPLER_DDPM),
            decoder ? decoder->guidance : 0);
    if (decoder)
        write_sampling(out, "", decoder);
    fprintf(out, ", Seed: %lld, Size: %dx%d", (long long)task->seed, task->size, task->size);
    write_value(out, "Model", task->model);
    if ((hop = find_hop(task, STAGE_PRIOR))) {
        fprintf(out, ", Prior steps: %d, Prior CFG scale: %.15g", hop->steps, hop->guidance);
        write_sampler(out, "Prior ", hop);
    }
    if ((hop = find_hop(task, STAGE_UPSAMPLER_1))) {
        fprintf(out, ", SR steps: %d", hop->steps);
        write_sampler(out, "SR ", hop);
    }
    if ((hop = find_hop(task, STAGE_UPSAMPLER_2)) && hop->steps > 0) {
        fprintf(out, ", SR2 steps: %d", hop->steps);
        write_sampler(out, "SR2 ", hop);
    } else if (hop)
        write_value(out, "SR2 upscaler", "Lanczos");
    write_value(out, "Version", "unclip " UNCLIP_VERSION);
}

char *task_infotext(const struct task *task)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    BUG_ON(!out);
    fprintf(out, "%s\n", task->prompt);
    if (task->negative_prompt[0])
        fprintf(out, "Negative prompt: %s\n", task->negative_prompt);
    write_settings(out, task);
    BUG_ON(fclose(out) != 0);
    return text;
}

char *task_request_json(const struct task *task)
{
    struct job job = {
        .type = JOB_TEXT_TO_IMAGE,
        .prompt = task->prompt,
        .negative_prompt = task->negative_prompt,
        .n = 1,
        .size = task->size,
        .seed = task->seed,
        .hops = task->hops,
        .client = (char[]){""},
    };
    strcpy(job.model, task->model);
    memcpy(job.route, task->route, sizeof job.route);
    json_t *record = job_to_json(&job);
    json_object_del(record, "class");
    json_object_del(record, "client");
    if (!task->negative_prompt[0])
        json_object_del(record, "negative_prompt");
    char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    return text;
}
