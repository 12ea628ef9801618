/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: one picture's work, as JSON in a record header, and as text in the finished picture. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/job.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

/* What picture `image` of the job is made from: its own input, or its place between two. */
static void take_sources(struct task *task, const struct job *job, int image)
{
    struct sources *own = &task->sources;
    double place = job->frames ? image / (double)(job->n - 1) : 1;
    struct sources one = {0};
    if (!job->sources)
        return;
    one = *job->sources;
    if (!job_makes_pictures(job->type)) {
        one.inputs += image;
        one.count = 1;
    }
    sources_copy(own, &one);
    own->theta = job->sources->theta * place;
    if (own->noise_moves)
        own->noise_place = place;
    own->noise_moves = false;
    own->side = job->type == JOB_UPSCALE ? job->from : job->size;
    if (job->type == JOB_INTERPOLATE && job->frames) {
        own->inputs[0].weight = 1 - place;
        own->inputs[1].weight = place;
    }
}

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
        .type = job->type,
        .overflow = job->overflow,
        .output = job->output,
        .preview = job->preview,
        .seed = job_seed(job, image),
        .size = job->size,
        .hops = job->hops,
        .deadline_ms = job_deadline_ms(job, created_at_ms),
        .created_at_ms = created_at_ms,
        .enqueued_at_ms = now_ms,
    };
    strcpy(task->job, job->id);
    strcpy(task->model, job->model);
    memcpy(task->route, job->route, sizeof task->route);
    take_sources(task, job, image);
}

static json_t *route_to_json(const struct task *task)
{
    json_t *route = json_array();
    for (int i = 0; i < task->hops; i++)
        json_array_append_new(route, hop_to_json(&task->route[i]));
    return route;
}

static json_t *source_to_json(const struct sources *sources)
{
    json_t *out = json_pack("{s:s, s:i}", "image", sources->image, "side", sources->side);
    if (sources->mask)
        json_object_set_new(out, "mask", json_string(sources->mask));
    if (sources->mask_mode != 0)
        json_object_set_new(out, "mask_mode", json_string(mask_mode_name(sources->mask_mode)));
    if (sources->feather > 0)
        json_object_set_new(out, "feather", json_integer(sources->feather));
    return out;
}

/* What only some kinds of job have. */
static void put_kind(json_t *record, const struct task *task)
{
    const struct sources *sources = &task->sources;
    json_t *output = output_form_to_json(&task->output);
    if (task->type != JOB_TEXT_TO_IMAGE)
        json_object_set_new(record, "type", json_string(job_type_name(task->type)));
    if (task->overflow != 0)
        json_object_set_new(record, "overflow", json_string(overflow_name(task->overflow)));
    if (sources->count > 0)
        json_object_set_new(record, "inputs", inputs_to_json(sources));
    if (sources->image)
        json_object_set_new(record, "source", source_to_json(sources));
    if (sources->noise_place > 0)
        json_object_set_new(record, "noise_place", json_real(sources->noise_place));
    if (sources->theta > 0)
        json_object_set_new(record, "theta", json_real(sources->theta));
    if (output)
        json_object_set_new(record, "output", output);
    if (task->preview > 0)
        json_object_set_new(record, "preview", json_integer(task->preview));
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
    put_kind(record, task);
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

/* The stages stand in their order; image-encode may come once in between, and once at the end. */
static int check_order(const struct task *task, struct err *err)
{
    int encodes = 0;
    enum stage before = STAGE_TEXT_ENCODE;
    for (int i = 0; i < task->hops; i++) {
        enum stage stage = task->route[i].stage;
        bool fits = i == 0 || stage > before;
        if (stage == STAGE_IMAGE_ENCODE)
            fits = ++encodes < 2 || i == task->hops - 1;
        else
            before = stage;
        if (!fits)
            return err_set(err, ERR_INVALID_RECORD, "task: '/route' has '%s' after '%s'",
                           stage_name(stage), stage_name(task->route[i - 1].stage));
    }
    return 0;
}

/* Each kind has what its stages rely on. */
static int check_kind(const struct task *task, struct err *err)
{
    const struct sources *sources = &task->sources;
    bool image = task->type == JOB_VARIATION || task->type == JOB_EDIT ||
                 task->type == JOB_TEXT_DIFF || task->type == JOB_UPSCALE;
    int inputs = task->type == JOB_TEXT_DIFF || task->type == JOB_INTERPOLATE ? 2
                 : !job_makes_pictures(task->type)                            ? 1
                                                                              : 0;
    if (task->type == JOB_CANCEL)
        return err_set(err, ERR_INVALID_RECORD, "task: '/type' is 'cancel'");
    if (image && !sources->image)
        return err_set(err, ERR_INVALID_RECORD, "task: a %s without '/source'",
                       job_type_name(task->type));
    if (sources->count < inputs)
        return err_set(err, ERR_INVALID_RECORD, "task: a %s with %d inputs",
                       job_type_name(task->type), sources->count);
    if (sources->count != 1 && !job_makes_pictures(task->type))
        return err_set(err, ERR_INVALID_RECORD, "task: a %s with %d inputs, it has one",
                       job_type_name(task->type), sources->count);
    if (task->type == JOB_TEXT_DIFF && sources_texts(sources) != 2)
        return err_set(err, ERR_INVALID_RECORD, "task: '/inputs' are not the two captions");
    return 0;
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
    return check_order(task, err);
}

static void take_source(struct sources *sources, const json_t *source)
{
    const char *mask = take_text(source, "mask"), *mode = take_text(source, "mask_mode");
    if (!source)
        return;
    sources->image = xstrdup(take_text(source, "image"));
    sources->side = take_int(source, "side");
    sources->mask = mask ? xstrdup(mask) : NULL;
    BUG_ON(mode && !mask_mode_parse(mode, &sources->mask_mode));
    sources->feather = take_int(source, "feather");
}

static void take_kind(struct task *task, const json_t *record)
{
    const char *type = take_text(record, "type"), *overflow = take_text(record, "overflow");
    BUG_ON(type && !job_type_parse(type, &task->type));
    BUG_ON(overflow && !overflow_parse(overflow, &task->overflow));
    inputs_read(&task->sources, json_object_get(record, "inputs"));
    take_source(&task->sources, json_object_get(record, "source"));
    task->sources.noise_place = json_number_value(json_object_get(record, "noise_place"));
    task->sources.theta = json_number_value(json_object_get(record, "theta"));
    output_form_read(&task->output, json_object_get(record, "output"));
    task->preview = take_int(record, "preview");
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
    take_kind(task, record);
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
    if ((result = check_route(task, err)) == 0)
        result = check_kind(task, err);
    if (result != 0)
        task_release(task);
    return result;
}

void task_release(struct task *task)
{
    free(task->prompt);
    free(task->negative_prompt);
    sources_release(&task->sources);
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
    return strcmp(a->model, b->model) == 0 && hop_equal(task_hop(a), task_hop(b));
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
        fprintf(out, ", %sEta: %.15g", prefix, hop_number(hop->eta));
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
            decoder ? hop_number(decoder->guidance) : 0.0);
    if (decoder)
        write_sampling(out, "", decoder);
    fprintf(out, ", Seed: %lld, Size: %dx%d", (long long)task->seed, task->size, task->size);
    write_value(out, "Model", task->model);
    if ((hop = find_hop(task, STAGE_PRIOR))) {
        fprintf(out, ", Prior steps: %d, Prior CFG scale: %.15g", hop->steps,
                hop_number(hop->guidance));
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

/* Stored pictures have names with ids in them, and those in data URLs are large: of both it says
   only that there was one. */
static void hide_address(char **address)
{
    if (!*address || strncmp(*address, "http", 4) == 0)
        return;
    free(*address);
    *address = xstrdup("data:,");
}

static void hide_sources(struct sources *sources)
{
    hide_address(&sources->image);
    hide_address(&sources->mask);
    for (int i = 0; i < sources->count; i++)
        hide_address(&sources->inputs[i].image);
}

/* The job that makes this picture alone: of frames, a mixture or a turn of its own. */
char *task_request_json(const struct task *task, bool hide_addresses)
{
    const struct hop *prior = find_hop(task, STAGE_PRIOR), *decoder = find_hop(task, STAGE_DECODER);
    struct sources sources;
    sources_copy(&sources, &task->sources);
    if (hide_addresses)
        hide_sources(&sources);
    struct job job = {
        .type = task->type,
        .prompt = task->prompt,
        .negative_prompt = task->negative_prompt,
        .overflow = task->overflow,
        .sources = &sources,
        .output = task->output,
        .n = 1,
        .size = task->size,
        .seed = task->seed,
        .prior = prior ? prior->prior : PRIOR_DIFFUSION,
        .candidates = prior && prior->candidates > 1 ? (short)prior->candidates : 1,
        .start = decoder ? decoder->start : START_NOISE,
        .strength = decoder ? decoder->strength : 0,
        .resample = decoder ? (short)decoder->resample : 0,
        .from = task->type == JOB_UPSCALE ? (short)task->sources.side : 0,
        .hops = task->hops,
    };
    strcpy(job.model, task->model);
    memcpy(job.route, task->route, sizeof job.route);
    json_t *record = job_to_json(&job);
    json_object_del(record, "class");
    char *text = json_dumps(record, JSON_COMPACT);
    json_decref(record);
    sources_release(&sources);
    return text;
}
