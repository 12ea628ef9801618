/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unclip generate: all stages in this process, without servers. The pictures are the cluster's,
 * byte for byte: the same job, the same tasks, the same stages, the same encoder.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "client/artifact.h"
#include "client/command.h"
#include "client/local_model.h"
#include "client/progress.h"
#include "client/request.h"
#include "common/clock.h"
#include "common/image.h"
#include "common/memory.h"
#include "common/picture.h"
#include "stages/stage.h"

struct values {
    struct request request; /* first: the shared tables' offsets are into it */
    const char *out;
    bool json, quiet, profile;
};

/* One run. */
struct generation {
    const struct values *values; /* borrowed */
    struct model_card card;
    struct job job;
    struct nn *nn;
    struct task tasks[JOB_IMAGES_MAX];
    struct item items[JOB_IMAGES_MAX];
    int count; /* of tasks and items that are made */
    double load_ms[STAGE_COUNT], compute_ms[STAGE_COUNT];
    struct progress progress;
    struct progress_screen screen;
    int hop;
};

static void defaults(void *values)
{
    request_init(&((struct values *)values)->request);
    ((struct values *)values)->out = "out";
}

static int64_t now_ms(void)
{
    return clock_monotonic_ms(clock_system());
}

/* --- progress --- */

static void show(struct generation *self)
{
    if (!self->values->quiet)
        progress_show(&self->screen, &self->progress, now_ms());
}

static void set_phase(struct generation *self, enum stage_phase phase)
{
    struct stage_progress *stage = &self->progress.stages[self->hop];
    stage->phase = phase;
    if (phase == PHASE_DONE) {
        stage->step = stage->steps;
        stage->ms = self->compute_ms[self->job.route[self->hop].stage];
    }
    show(self);
}

static void on_step(void *context, int step, int steps)
{
    struct generation *self = context;
    struct task place = self->tasks[0];

    (void)steps;
    place.hop = self->hop;
    self->progress.stages[self->hop].step = step;
    self->progress.fraction = task_progress(&place, step);
    show(self);
}

static void progress_begin(struct generation *self)
{
    struct progress *progress = &self->progress;

    progress_open(&self->screen, stderr);
    snprintf(progress->state, sizeof progress->state, "running");
    progress->total = self->job.n;
    progress->count = self->job.hops;
    for (int i = 0; i < self->job.hops; i++)
        progress->stages[i] = (struct stage_progress){
            .name = stage_name(self->job.route[i].stage),
            .steps = self->job.route[i].steps,
            .ms = -1,
        };
}

static void finish(struct generation *self)
{
    struct progress *progress = &self->progress;

    for (int i = 0; i < self->count; i++)
        progress->done += self->items[i].err.code == ERR_OK;
    progress->failed = self->count - progress->done;
    snprintf(progress->state, sizeof progress->state, progress->done ? "succeeded" : "failed");
    show(self);
}

/* --- the stages --- */

static int run_stage(struct generation *self, struct stage_model *model, struct err *err)
{
    struct item *items[JOB_IMAGES_MAX];
    const struct hop *hop = &self->job.route[self->hop];
    const struct stage_settings settings = stage_settings_of(hop);
    const struct stage_watch watch = {on_step, self};
    size_t count = 0;

    for (int i = 0; i < self->count; i++)
        if (self->items[i].err.code == ERR_OK)
            items[count++] = &self->items[i];
    return count ? stage_run(model, items, count, &settings, &watch, err) : 0;
}

static int pass_stage(struct generation *self, struct err *err)
{
    struct stage_model *model = NULL;
    enum stage stage = self->job.route[self->hop].stage;
    int64_t began = now_ms();

    set_phase(self, PHASE_DOING);
    int rc = stage_open(&model, stage, self->card.path, self->nn, err);
    self->load_ms[stage] = (double)(now_ms() - began);
    began = now_ms();
    if (rc == 0)
        rc = run_stage(self, model, err);
    self->compute_ms[stage] = (double)(now_ms() - began);
    stage_close(model);
    if (rc == 0) {
        on_step(self, self->job.route[self->hop].steps, 0);
        set_phase(self, PHASE_DONE);
    }
    return rc;
}

/* --- the pictures --- */

static char *picture_path(const struct generation *self, int index)
{
    return xasprintf("%s/%d.png", self->values->out, index);
}

static int write_picture(struct generation *self, int index, struct err *err)
{
    const struct item *item = &self->items[index];
    void *bytes = NULL;
    size_t size;
    char *path = picture_path(self, index);
    int rc = picture_encode(&self->tasks[index], item->image, item->image_size, &bytes, &size, err);

    if (rc == 0)
        rc = artifact_write(path, bytes, size, err);
    free(bytes);
    free(path);
    return rc;
}

static int write_pictures(struct generation *self, struct err *err)
{
    int rc = 0;
    for (int i = 0; i < self->count && rc == 0; i++)
        if (self->items[i].err.code == ERR_OK)
            rc = write_picture(self, i, err);
    return rc;
}

/* --- the whole --- */

static int plan(struct generation *self, const char *prompt, struct err *err)
{
    json_t *record = request_json(&self->values->request, prompt, NULL);
    int rc = record ? request_check(record, &self->job, err)
                    : err_set(err, ERR_INVALID_JOB, "the prompt is not valid UTF-8");
    json_decref(record);
    if (rc < 0)
        return rc;
    *self->job.id = 0; /* made from a place in a topic, which there is none */
    return job_plan(&self->job, &self->card, err);
}

static void make_items(struct generation *self)
{
    uint32_t seed = 0;

    if (self->job.seed < 0) {
        BUG_ON(getrandom(&seed, sizeof seed, 0) != sizeof seed);
        self->job.seed = seed;
    }
    for (int i = 0; i < self->job.n; i++, self->count++) {
        struct task *task = &self->tasks[i];
        task_from_job(task, &self->job, i, 0, 0, 0);
        item_begin(&self->items[i], task);
    }
}

static int generate(struct generation *self, const struct config *config, const char *prompt,
                    struct err *err)
{
    int rc = image_setup("unclip", err);
    if (rc == 0)
        rc = local_model_open(&self->card, config, err);
    if (rc == 0)
        rc = plan(self, prompt, err);
    if (rc == 0)
        rc = folder_ready(self->values->out, err); /* before all the computing, not after it */
    if (rc == 0)
        rc = local_nn_open(&self->nn, config, err);
    if (rc < 0)
        return rc;
    if (self->values->profile)
        nn_profile_start(self->nn);
    make_items(self);
    progress_begin(self);
    for (self->hop = 0; self->hop < self->job.hops && rc == 0; self->hop++)
        rc = pass_stage(self, err);
    if (rc == 0)
        rc = write_pictures(self, err);
    if (rc == 0)
        finish(self);
    return rc;
}

static void generation_release(struct generation *self)
{
    for (int i = 0; i < self->count; i++) {
        item_release(&self->items[i]);
        task_release(&self->tasks[i]);
    }
    progress_close(&self->screen);
    nn_close(self->nn);
    job_release(&self->job);
    model_card_release(&self->card);
}

/* --- what is said of it --- */

static json_t *times_json(const struct generation *self, const double *ms)
{
    json_t *out = json_object();
    for (int i = 0; i < self->job.hops; i++) {
        enum stage stage = self->job.route[i].stage;
        json_object_set_new(out, stage_name(stage), json_real(ms[stage]));
    }
    return out;
}

static json_t *image_json(const struct generation *self, int index)
{
    const struct item *item = &self->items[index];
    json_t *out =
        json_pack("{s:i, s:I}", "index", index, "seed", (json_int_t)self->tasks[index].seed);
    char *path = picture_path(self, index);

    if (item->err.code == ERR_OK)
        json_object_set_new(out, "path", json_string(path));
    else
        json_object_set_new(out, "error", json_string(item->err.text));
    json_object_set_new(out, "tokens_dropped", json_integer(item->tokens_dropped));
    json_object_set_new(out, "resized", json_boolean(item->resized));
    free(path);
    return out;
}

static void print_json(const struct generation *self)
{
    json_t *images = json_array();
    for (int i = 0; i < self->count; i++)
        json_array_append_new(images, image_json(self, i));
    json_t *out = json_pack("{s:o, s:o, s:o, s:o}", "request", job_to_json(&self->job), "images",
                            images, "load_ms", times_json(self, self->load_ms), "compute_ms",
                            times_json(self, self->compute_ms));
    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    puts("");
    json_decref(out);
}

static void print_paths(const struct generation *self)
{
    for (int i = 0; i < self->count; i++) {
        char *path = picture_path(self, i);
        if (self->items[i].err.code == ERR_OK)
            puts(path);
        free(path);
    }
}

static enum exit_code report(const struct invocation *invocation, const struct generation *self)
{
    enum exit_code code = EXIT_OK;

    if (self->items[0].tokens_dropped > 0)
        fprintf(stderr, "note: the prompt is too long for the model: its last %d tokens were cut\n",
                self->items[0].tokens_dropped);
    if (self->items[0].resized)
        fprintf(stderr,
                "note: the model has no part that makes %d px: the picture was enlarged to "
                "that without one\n",
                self->items[0].image_size);
    for (int i = 0; i < self->count; i++)
        if (self->items[i].err.code != ERR_OK) {
            complain(invocation, "picture %d: %s", i, self->items[i].err.text);
            code = EXIT_FAILED;
        }
    if (self->values->json)
        print_json(self);
    else
        print_paths(self);
    return code;
}

static enum exit_code run(const struct invocation *invocation)
{
    struct generation *self = xcalloc(1, sizeof *self);
    struct err err;
    enum exit_code code;

    self->values = invocation->values;
    if (generate(self, invocation->config, invocation->operands[0], &err) < 0)
        code = complain_of(invocation, &err);
    else
        code = report(invocation, self);
    if (self->nn)
        nn_profile_print(self->nn, stderr);
    generation_release(self);
    free(self);
    return code;
}

#define AT(member) offsetof(struct values, member)

static const struct option output_options[] = {
    {"out", 'o', OPTION_TEXT, "DIR", 0, 0, "out", AT(out), "write the pictures to DIR/0.png, …"},
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(json),
     "print request, pictures and milliseconds of each stage as JSON"},
    {"quiet", 'q', OPTION_FLAG, NULL, 0, 0, NULL, AT(quiet), "show no progress"},
    {"profile", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(profile),
     "print where the time went, by op and shape, on stderr"},
    {0},
};

static const struct option_group groups[] = {
    {"The pictures", request_options},
    {"How they are made", sampling_options},
    {"Faster, but not the same pictures (docs/jobs.md)", faster_options},
    {"Output", output_options},
    {0},
};

const struct command generate_command = {
    .name = "generate",
    .operands = "PROMPT",
    .least = 1,
    .most = 1,
    .summary = "make pictures in this process, without servers",
    .details = "--model takes a name under --models, or the path of a model directory.\n",
    .groups = groups,
    .values_size = sizeof(struct values),
    .defaults = defaults,
    .settings = {"model", "models", "dtype", "threads"},
    .run = run,
};
