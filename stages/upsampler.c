/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages upsampler-1 and upsampler-2: a picture → the same, four times as wide. A diffusion model
 * again, whose input is the noisy picture with the bicubic enlargement beside it; one network for
 * all steps but the last, another for that. The second stage enlarges by a Lanczos filter where the
 * model has no networks for it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"
#include "common/memory.h"
#include "common/model_card.h"
#include "stages/denoise.h"
#include "stages/networks/rows.h"
#include "stages/resize.h"
#include "stages/stage_ops.h"
#include "stages/unet_step.h"

#define CHANNELS      3
#define COMPARE_BLOCK 65536 /* bytes */

struct upsampler {
    struct nn *nn;            /* borrowed */
    struct unet first;        /* all steps but the last */
    struct unet last;         /* the last step; zeroed where it is the same network */
    struct unet *last_in_use; /* &last or &first */
    struct scheduler scheduler;
    int64_t size;     /* S: pixels a side of what it makes */
    bool has_network; /* else a Lanczos resize */
};

static void upsampler_close(void *state)
{
    struct upsampler *stage = state;
    if (!stage)
        return;
    unet_release(&stage->first);
    unet_release(&stage->last);
    scheduler_release(&stage->scheduler);
    free(stage);
}

/* ---- opening ---- */

/* Whether both files can be read and hold the same bytes. */
static bool same_bytes(const char *a, const char *b)
{
    FILE *files[2] = {fopen(a, "rb"), fopen(b, "rb")};
    char *blocks = xmalloc(2 * COMPARE_BLOCK);
    bool same = files[0] && files[1];
    for (size_t got = COMPARE_BLOCK; same && got == COMPARE_BLOCK;) {
        got = fread(blocks, 1, COMPARE_BLOCK, files[0]);
        same = fread(blocks + COMPARE_BLOCK, 1, COMPARE_BLOCK, files[1]) == got &&
               memcmp(blocks, blocks + COMPARE_BLOCK, got) == 0 && !ferror(files[0]) &&
               !ferror(files[1]);
    }
    free(blocks);
    for (int i = 0; i < 2; i++)
        if (files[i])
            fclose(files[i]);
    return same;
}

/* Whether two config.json files describe one network, whatever size of picture they name. */
static bool same_config(const char *a, const char *b)
{
    struct netconfig files[2] = {{0}, {0}};
    bool same = netconfig_open(&files[0], a, NULL) == 0 && netconfig_open(&files[1], b, NULL) == 0;
    for (int i = 0; same && i < 2; i++) {
        json_object_del(files[i].json, "sample_size");
        json_object_del(files[i].json, "_name_or_path");
    }
    same = same && json_equal(files[0].json, files[1].json);
    netconfig_close(&files[0]);
    netconfig_close(&files[1]);
    return same;
}

/* Loads the last step's network, or finds that it is the first's. */
static int open_last(struct upsampler *stage, const char *first, const char *last, struct err *err)
{
    char *weights_first = xasprintf("%s/" NETCONFIG_DIFFUSERS_WEIGHTS, first);
    char *weights_last = xasprintf("%s/" NETCONFIG_DIFFUSERS_WEIGHTS, last);
    bool same = same_config(first, last) && same_bytes(weights_first, weights_last);
    free(weights_first);
    free(weights_last);
    stage->last_in_use = same ? &stage->first : &stage->last;
    return same ? 0 : unet_load(&stage->last, UNET_2D, stage->nn, last, err);
}

static int check_unet(const struct upsampler *stage, const struct unet *unet, const char *name,
                      struct err *err)
{
    if (unet->config.in_channels != 2 * CHANNELS || unet->config.out_channels != CHANNELS)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s/config.json: %lld channels in and %lld out, an upsampler needs %d and "
                       "%d",
                       name, (long long)unet->config.in_channels,
                       (long long)unet->config.out_channels, 2 * CHANNELS, CHANNELS);
    if (!unet_size_fits(unet, stage->size))
        return err_set(err, ERR_UNSUPPORTED,
                       "%s/config.json: sample_size %lld cannot be halved at each level", name,
                       (long long)stage->size);
    return 0;
}

static int open_networks(struct upsampler *stage, const char *model_path, const char *prefix,
                         struct err *err)
{
    char *first = xasprintf("%s/%s_first", model_path, prefix);
    char *last = xasprintf("%s/%s_last", model_path, prefix);
    char *scheduler = xasprintf("%s/%s_scheduler/scheduler_config.json", model_path, prefix);
    int rc;
    if ((rc = scheduler_load(&stage->scheduler, scheduler, err)) == 0 &&
        (rc = unet_load(&stage->first, UNET_2D, stage->nn, first, err)) == 0 &&
        (rc = open_last(stage, first, last, err)) == 0) {
        stage->has_network = true;
        stage->size = stage->first.config.sample_size;
        rc = check_unet(stage, &stage->first, strrchr(first, '/') + 1, err);
        if (rc == 0)
            rc = check_unet(stage, stage->last_in_use, strrchr(last, '/') + 1, err);
    }
    if (rc == 0 && stage->scheduler.variance == VARIANCE_LEARNED_RANGE)
        rc = err_set(err, ERR_UNSUPPORTED,
                     "%s_scheduler/scheduler_config.json: variance_type is learned_range, which "
                     "an upsampler does not predict",
                     prefix);
    free(first);
    free(last);
    free(scheduler);
    return rc;
}

static int upsampler_1_open(void **state, const char *model_path, struct nn *nn, struct err *err)
{
    struct upsampler *stage = xcalloc(1, sizeof *stage);
    stage->nn = nn;
    int rc = open_networks(stage, model_path, "super_res", err);
    if (rc)
        upsampler_close(stage);
    else
        *state = stage;
    return rc;
}

static int upsampler_2_open(void **state, const char *model_path, struct nn *nn, struct err *err)
{
    struct model_card card = {0};
    int rc = model_card_load_path(&card, model_path, err);
    if (rc)
        return rc;
    struct upsampler *stage = xcalloc(1, sizeof *stage);
    stage->nn = nn;
    stage->size = card.upsampler_2_size;
    if (card.has_upsampler_2)
        rc = open_networks(stage, model_path, "super_res_1024", err);
    model_card_release(&card);
    if (rc)
        upsampler_close(stage);
    else
        *state = stage;
    return rc;
}

/* ---- running ---- */

/* Whether the last step has a network of its own, which knows nothing of what the other one's deep
   part has made. */
static bool has_own_last(const struct upsampler *stage)
{
    return stage->last_in_use != &stage->first;
}

struct upsampler_run {
    struct upsampler *stage;
    int reuse;
    float **upscaled; /* by the item's index in the batch: [S, S, 3] */
    float **inverse;  /* the same of its source, for an inversion; else of NULL */
    float *input;     /* [S · S · 6]: one sample */
};

/* The noisy picture and the enlarged one side by side in each pixel. */
static void join(const struct upsampler_run *run, const struct latent *latent, bool inverting,
                 int64_t pixels)
{
    const float *upscaled = (inverting ? run->inverse : run->upscaled)[latent->index];
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = 0; c < CHANNELS; c++) {
            run->input[p * 2 * CHANNELS + c] = latent->x[p * CHANNELS + c];
            run->input[p * 2 * CHANNELS + CHANNELS + c] = upscaled[p * CHANNELS + c];
        }
}

static int predict(void *context, const struct denoise_pass *pass, struct err *err)
{
    struct upsampler_run *run = context;
    struct latent *const *latents = pass->latents;
    struct upsampler *stage = run->stage;
    bool is_last = pass->i == stage->scheduler.steps - 1;
    bool alone = pass->inverting || (is_last && has_own_last(stage));
    int64_t n = (int64_t)pass->count, s = stage->size, pixels = s * s;
    size_t scope = nn_enter(stage->nn);
    struct tensor sample = NN_NEW(stage->nn, nn_dtype(stage->nn), n, s, s, 2 * CHANNELS);
    for (int64_t k = 0; k < n; k++) {
        join(run, latents[k], pass->inverting, pixels);
        tensor_put(sample, k * pixels * 2 * CHANNELS, run->input, pixels * 2 * CHANNELS);
    }
    const struct unet_step step = {
        .nn = stage->nn,
        .unet = is_last ? stage->last_in_use : &stage->first,
        .i = pass->i - stage->scheduler.first,
        .reuse = alone ? 1 : run->reuse,
        .timestep = (float)stage->scheduler.timesteps[pass->i],
        .latents = latents,
        .count = pass->count,
    };
    struct tensor out =
        unet_step_forward(&step, sample, &(struct unet_condition){0}); /* [n, s, s, 3] */
    for (int64_t k = 0; k < n; k++)
        tensor_get(out, k * pixels * CHANNELS, latents[k]->output, pixels * CHANNELS);
    nn_leave_all(stage->nn, scope);
    return nn_finish(stage->nn, err);
}

static void finish(void *context, struct latent *latent)
{
    const struct upsampler_run *run = context;
    item_take_image(latent->item, &latent->x, (int)run->stage->size);
}

/* The bicubic enlargement, as the network is given it; NULL when the item has failed. */
static float *enlarge(const struct upsampler_run *run, struct item *item, const float *image)
{
    int s = (int)run->stage->size;
    float *upscaled = malloc((size_t)s * (size_t)s * CHANNELS * sizeof *upscaled);
    if (!upscaled)
        err_set(&item->err, ERR_OUT_OF_MEMORY, "cannot hold a picture of %d pixels a side", s);
    else
        resize_bicubic(image, item->image_size, item->image_size, CHANNELS, upscaled, s, s,
                       &item->err);
    return upscaled;
}

/* What the network is given beside the noisy picture. An inversion sees the source's own small
   picture: the one that the stage before has made may be changed already. */
static void prepare(const struct upsampler_run *run, struct item *item, size_t index, bool inverts)
{
    struct source_view small = {0};
    run->upscaled[index] = enlarge(run, item, item->image);
    if (!inverts || !item_live(item) ||
        source_view_init(&small, item, item->image_size, &item->err))
        return;
    run->inverse[index] = enlarge(run, item, small.picture);
    source_view_release(&small);
}

static void free_all(float **buffers, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(buffers[i]);
    free(buffers);
}

static int run_network(struct upsampler *stage, struct item *const *items, size_t count,
                       const struct stage_settings *settings, const struct stage_watch *watch,
                       struct err *err)
{
    size_t pixels = (size_t)(stage->size * stage->size);
    struct upsampler_run run = {
        .stage = stage,
        .reuse = settings->reuse,
        .upscaled = xcalloc(count + 1, sizeof *run.upscaled),
        .inverse = xcalloc(count + 1, sizeof *run.inverse),
        .input = malloc(pixels * 2 * CHANNELS * sizeof(float)),
    };
    struct denoiser denoiser = {
        .scheduler = &stage->scheduler,
        .settings = settings,
        .side = (int)stage->size,
        .pixels = pixels,
        .channels = CHANNELS,
        .latents_a_pass = denoise_latents_a_pass(pixels, false),
        .deep_bytes = unet_step_bytes(stage->nn, &stage->first, settings->reuse, 1, stage->size),
        .predict = predict,
        .finish = finish,
        .context = &run,
    };
    /* Every sampler ends at timestep 0: a network for the last step knows no other, and without it
       a solver leaves grain. */
    int rc = run.input ? denoise_set_sampling(&stage->scheduler, settings, true, err)
                       : err_set(err, ERR_OUT_OF_MEMORY, "cannot hold the upsampler's input");
    for (size_t i = 0; i < count && rc == 0; i++)
        if (item_live(items[i]))
            prepare(&run, items[i], i, settings->start == START_INVERSION);
    if (rc == 0)
        rc = denoise(&denoiser, items, count, watch, err);
    free_all(run.upscaled, count);
    free_all(run.inverse, count);
    free(run.input);
    return rc;
}

static void resize_lanczos(const struct upsampler *stage, struct item *item)
{
    size_t s = (size_t)stage->size;
    float *image = malloc(s * s * CHANNELS * sizeof *image);
    if (!image)
        err_set(&item->err, ERR_OUT_OF_MEMORY, "cannot hold a picture of %zu pixels a side", s);
    else if (image_resize_lanczos(item->image, item->image_size, image, (int)s, &item->err) == 0)
        item_take_image(item, &image, (int)s);
    free(image);
    if (item_live(item))
        item_keep_source(item);
    item->resized = item_live(item);
}

static int upsampler_run(void *state, struct item *const *items, size_t count,
                         const struct stage_settings *settings, const struct stage_watch *watch,
                         struct err *err)
{
    struct upsampler *stage = state;
    for (size_t i = 0; i < count; i++)
        if (item_live(items[i]) && (!items[i]->image || items[i]->image_size < 1))
            err_set(&items[i]->err, ERR_INVALID_RECORD, "the task has no picture");
    if (stage->has_network)
        return run_network(stage, items, count, settings, watch, err);
    for (size_t i = 0; i < count; i++)
        if (item_live(items[i]))
            resize_lanczos(stage, items[i]);
    return 0;
}

const struct stage_ops upsampler_1_ops = {upsampler_1_open, upsampler_close, upsampler_run};
const struct stage_ops upsampler_2_ops = {upsampler_2_open, upsampler_close, upsampler_run};
