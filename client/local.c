/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All stages of a job in this process, without servers: `unclip generate`, and the others with
 * --local. The results are the cluster's, byte for byte: the same job, the same tasks, the same
 * stages, the same encoder.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "client/artifact.h"
#include "client/local_model.h"
#include "client/making.h"
#include "client/progress.h"
#include "common/clock.h"
#include "common/embedding.h"
#include "common/fetch.h"
#include "common/http.h"
#include "common/image.h"
#include "common/memory.h"
#include "common/picture.h"
#include "stages/intake.h"
#include "stages/stage.h"

#define FOLDER "out" /* without -o */

/* One run. */
struct generation {
    const struct making *making; /* borrowed */
    struct fetch fetch;
    struct sheet sheet;
    const char *out; /* borrowed */
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

static int64_t now_ms(void)
{
    return clock_monotonic_ms(clock_system());
}

/* --- progress --- */

static void show(struct generation *self)
{
    if (!self->making->quiet)
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

    (void)steps;
    self->progress.stages[self->hop].step = step;
    self->progress.fraction = task_progress(&self->tasks[0], step);
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

/* --- pictures in --- */

static int read_address(void *context, const char *address, void **bytes, size_t *size,
                        struct err *err)
{
    const struct generation *self = context;
    char *path = NULL;
    if (strncmp(address, "file://", 7) != 0)
        return fetch_address(&self->fetch, address, bytes, size, err);
    int rc = artifact_path(address, &path, err); /* this process may read what its user may */
    if (rc == 0)
        rc = artifact_read(path, FETCH_BYTES_MAX, bytes, size, err);
    free(path);
    return rc;
}

static void take_in(struct generation *self)
{
    struct err err;
    for (int i = 0; i < self->count; i++)
        if (self->items[i].err.code == ERR_OK && intake_needed(&self->tasks[i]) &&
            intake_fill(&self->items[i], &self->tasks[i], read_address, self, &err) < 0)
            self->items[i].err = err;
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

/* A stage may come twice in a route: its times add up. */
static int pass_stage(struct generation *self, struct err *err)
{
    struct stage_model *model = NULL;
    enum stage stage = self->job.route[self->hop].stage;
    int64_t began = now_ms();

    set_phase(self, PHASE_DOING);
    for (int i = 0; i < self->count; i++)
        self->tasks[i].hop = self->hop;
    take_in(self);
    int rc = stage_open(&model, stage, self->card.path, self->nn, err);
    self->load_ms[stage] += (double)(now_ms() - began);
    began = now_ms();
    if (rc == 0)
        rc = run_stage(self, model, err);
    self->compute_ms[stage] += (double)(now_ms() - began);
    stage_close(model);
    if (rc == 0) {
        on_step(self, self->job.route[self->hop].steps, 0);
        set_phase(self, PHASE_DONE);
    }
    return rc;
}

/* --- the results --- */

static bool makes_files(const struct generation *self)
{
    return self->job.type != JOB_SCORE;
}

/* How many of the pictures have a better score. */
static int rank_of(const struct generation *self, int index)
{
    const struct item *items = self->items;
    int better = 0;
    for (int i = 0; i < self->count; i++)
        better +=
            items[i].err.code == ERR_OK && (items[i].score > items[index].score ||
                                            (items[i].score == items[index].score && i < index));
    return better;
}

/* The results: all that were made; of best_of's pictures the best, the best first, as
   status_wanted() has them. */
static int list_kept(const struct generation *self, int indices[JOB_IMAGES_MAX])
{
    int made = 0;
    for (int i = 0; i < self->count; i++)
        if (self->items[i].err.code == ERR_OK)
            indices[made++] = i;
    if (self->job.keep == 0 || self->job.keep >= made)
        return made;
    for (int i = 0; i < self->count; i++)
        if (self->items[i].err.code == ERR_OK && rank_of(self, i) < self->job.keep)
            indices[rank_of(self, i)] = i;
    return self->job.keep;
}

static bool is_kept(const struct generation *self, int index)
{
    int indices[JOB_IMAGES_MAX], count = list_kept(self, indices);
    for (int i = 0; i < count; i++)
        if (indices[i] == index)
            return true;
    return false;
}

static char *result_path(const struct generation *self, int index)
{
    return xasprintf("%s/%d.%s", self->out, index, format_name(self->job.output.format));
}

static int encode_result(const struct generation *self, int index, void **bytes, size_t *size,
                         struct err *err)
{
    const struct task *task = &self->tasks[index];
    const struct item *item = &self->items[index];
    if (self->job.type != JOB_EMBED)
        return picture_encode(task, item->image, item->image_size, bytes, size, err);
    const float *embed = item_embedding(item);
    BUG_ON(!embed); /* or the item has failed */
    return embedding_encode(task, embed, item->embed_dim, bytes, size, err);
}

static int write_result(struct generation *self, int index, struct err *err)
{
    const struct item *item = &self->items[index];
    void *bytes = NULL;
    size_t size;
    char *path = result_path(self, index);
    int rc = encode_result(self, index, &bytes, &size, err);

    if (rc == 0)
        rc = artifact_write(path, bytes, size, err);
    if (rc == 0 && item->image && (self->making->sheet.grid || self->making->sheet.animation))
        rc = sheet_add_floats(&self->sheet, item->image, item->image_size, err);
    free(bytes);
    free(path);
    return rc;
}

static int write_results(struct generation *self, struct err *err)
{
    int indices[JOB_IMAGES_MAX], count = makes_files(self) ? list_kept(self, indices) : 0, rc = 0;
    for (int i = 0; i < count && rc == 0; i++)
        rc = write_result(self, indices[i], err);
    return rc == 0 ? sheet_write(&self->sheet, &self->making->sheet, err) : rc;
}

/* --- the whole --- */

static int plan(struct generation *self, struct err *err)
{
    json_t *record = NULL;
    int rc = request_json(&self->making->request, NULL, &record, err);
    if (rc == 0)
        rc = request_check(record, &self->job, err);
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

static int generate(struct generation *self, const struct config *config, struct err *err)
{
    int rc = image_setup("unclip", err);
    if (rc == 0)
        rc = http_setup(err);
    if (rc == 0)
        rc = local_model_open(&self->card, config, err);
    if (rc == 0)
        rc = plan(self, err);
    if (rc == 0 && makes_files(self))
        rc = folder_ready(self->out, err); /* before all the computing, not after it */
    if (rc == 0)
        rc = local_nn_open(&self->nn, config, err);
    if (rc < 0)
        return rc;
    if (self->making->profile)
        nn_profile_start(self->nn);
    make_items(self);
    progress_begin(self);
    for (self->hop = 0; self->hop < self->job.hops && rc == 0; self->hop++)
        rc = pass_stage(self, err);
    if (rc == 0)
        rc = write_results(self, err);
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
    sheet_release(&self->sheet);
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
    char *path = result_path(self, index);

    if (item->err.code != ERR_OK)
        json_object_set_new(out, "error", json_string(item->err.text));
    else if (makes_files(self) && is_kept(self, index))
        json_object_set_new(out, "path", json_string(path));
    if (item->has_score)
        json_object_set_new(out, "score", json_real(item->score));
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
    int indices[JOB_IMAGES_MAX], count = list_kept(self, indices);
    for (int i = 0; i < count; i++) {
        char *path = result_path(self, indices[i]);
        puts(path);
        free(path);
    }
}

static json_t *scores_json(const struct generation *self)
{
    json_t *scores = json_array();
    for (int i = 0; i < self->count; i++)
        json_array_append_new(scores, self->items[i].has_score ? json_real(self->items[i].score)
                                                               : json_null());
    return scores;
}

static void print_ranking(const struct invocation *invocation, const struct generation *self)
{
    json_t *scores = scores_json(self);
    making_print_ranking(invocation, scores);
    json_decref(scores);
}

static enum exit_code report(const struct invocation *invocation, const struct generation *self)
{
    enum exit_code code = EXIT_OK;

    if (self->items[0].tokens_dropped > 0)
        fprintf(stderr, "note: the prompt is too long for the model: its last %d tokens were %s\n",
                self->items[0].tokens_dropped,
                self->items[0].overflow == OVERFLOW_SPLIT ? "read apart" : "cut");
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
    if (self->making->json)
        print_json(self);
    else if (makes_files(self))
        print_paths(self);
    else
        print_ranking(invocation, self);
    return code;
}

enum exit_code local_run(const struct invocation *invocation, struct making *making)
{
    struct generation *self = xcalloc(1, sizeof *self);
    struct err err;
    enum exit_code code;

    self->making = making;
    self->out = making->out ? making->out : FOLDER;
    self->fetch.allowed = invocation->config->fetch;
    if (generate(self, invocation->config, &err) < 0)
        code = complain_of(invocation, &err);
    else
        code = report(invocation, self);
    if (self->nn)
        nn_profile_print(self->nn, stderr);
    generation_release(self);
    free(self);
    return code;
}
