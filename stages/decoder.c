/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage decoder: CLIP image embedding and text states → a small picture. What does not depend on
 * the step is computed once for each item: UnCLIPTextProjModel's output, and what the U-Net's
 * attentions read of it (unet.h). For more items than that may be kept of, they read it in each
 * step.
 */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/denoise.h"
#include "stages/networks/prior_transformer.h"
#include "stages/networks/rows.h"
#include "stages/networks/text_proj.h"
#include "stages/stage_ops.h"
#include "stages/unet_step.h"

#define CHANNELS     3
#define ITEMS_A_PASS 32 /* bounds the memory of the text projection */

struct decoder_stage {
    struct nn *nn; /* borrowed */
    struct text_proj text_proj;
    struct unet unet;
    struct scheduler scheduler;
};

static void decoder_close(void *state)
{
    struct decoder_stage *stage = state;
    if (!stage)
        return;
    text_proj_release(&stage->text_proj);
    unet_release(&stage->unet);
    scheduler_release(&stage->scheduler);
    free(stage);
}

static int check_model(const struct decoder_stage *stage, struct err *err)
{
    const struct unet_config *unet = &stage->unet.config;
    const struct text_proj_config *proj = &stage->text_proj.config;
    bool learned = stage->scheduler.variance == VARIANCE_LEARNED_RANGE;
    int64_t outputs = learned ? 2 * CHANNELS : CHANNELS;
    if (unet->in_channels != CHANNELS || unet->out_channels != outputs)
        return err_set(err, ERR_UNSUPPORTED,
                       "decoder/config.json: %lld channels in and %lld out, "
                       "the decoder and its scheduler need %d and %lld",
                       (long long)unet->in_channels, (long long)unet->out_channels, CHANNELS,
                       (long long)outputs);
    if (!unet_size_fits(&stage->unet, unet->sample_size))
        return err_set(err, ERR_UNSUPPORTED,
                       "decoder/config.json: sample_size %lld cannot be halved at each level",
                       (long long)unet->sample_size);
    if (proj->cross_attention_dim != unet->cross_attention_dim ||
        proj->time_embed_dim != unet->time_embed_dim)
        return err_set(err, ERR_INVALID_MODEL,
                       "text_proj/config.json: cross_attention_dim or time_embed_dim is not the "
                       "decoder's %lld and %lld",
                       (long long)unet->cross_attention_dim, (long long)unet->time_embed_dim);
    return 0;
}

static int decoder_open(void **state, const char *model_path, struct nn *nn, struct err *err)
{
    struct decoder_stage *stage = xcalloc(1, sizeof *stage);
    char *proj = xasprintf("%s/text_proj", model_path);
    char *unet = xasprintf("%s/decoder", model_path);
    char *scheduler = xasprintf("%s/decoder_scheduler/scheduler_config.json", model_path);
    stage->nn = nn;
    int rc;
    if ((rc = scheduler_load(&stage->scheduler, scheduler, err)) == 0 &&
        (rc = text_proj_load(&stage->text_proj, nn, proj, err)) == 0 &&
        (rc = unet_load(&stage->unet, UNET_2D_CONDITION, nn, unet, err)) == 0)
        rc = check_model(stage, err);
    free(proj);
    free(unet);
    free(scheduler);
    if (rc)
        decoder_close(stage);
    else
        *state = stage;
    return rc;
}

/* What the U-Net is told of one item, for each of its rows that are run. */
struct condition {
    char *kept;     /* [rows][kept_bytes]: what the U-Net has read of the context; or NULL */
    float *context; /* [rows][E + L][C]: to be read in each step; else NULL */
    float *time;    /* [rows][T] */
};

struct decoder_run {
    struct decoder_stage *stage;
    const struct stage_settings *settings;
    bool guided;
    int64_t text_len;             /* L */
    size_t kept_bytes;            /* of a row; 0: contexts are read in each step */
    struct condition *conditions; /* by the item's index in the batch */
    struct condition *inverse;    /* the same for an inversion; without buffers: conditions */
    float *row;                   /* [S · S · out_channels]: one row of the U-Net's output */
    float *uncond;                /* [values] */
    size_t values;                /* S · S · 3 */
};

/* ---- the conditions ---- */

static int64_t context_tokens(const struct decoder_run *run)
{
    return run->stage->text_proj.config.clip_extra_context_tokens + run->text_len;
}

static int64_t context_size(const struct decoder_run *run)
{
    return context_tokens(run) * run->stage->text_proj.config.cross_attention_dim;
}

/* Rows of an item: the prompt's, and with guidance the negative prompt's behind it. */
static int64_t rows_of(const struct decoder_run *run, bool inverse)
{
    return run->guided && !inverse ? ITEM_ROWS : 1;
}

static bool condition_allocate(struct condition *condition, const struct decoder_run *run,
                               int64_t rows, struct item *item)
{
    size_t context = (size_t)(rows * context_size(run)) * sizeof(float);
    size_t time = (size_t)(rows * run->stage->text_proj.config.time_embed_dim) * sizeof(float);
    size_t kept = (size_t)rows * run->kept_bytes;
    if (kept)
        condition->kept = malloc(kept);
    else
        condition->context = malloc(context);
    condition->time = malloc(time);
    if (!condition->time || (!condition->kept && !condition->context))
        err_set(&item->err, ERR_OUT_OF_MEMORY, "cannot hold a condition of %zu bytes",
                (kept ? kept : context) + time);
    return item_live(item);
}

/* The inputs of the text projection, one row for each item and row of its text. */
struct proj_input {
    struct tensor image_embed, text_embed, text_states;
};

static void put_proj_row(const struct decoder_run *run, const struct proj_input *input, int64_t row,
                         const struct item *item, bool inverse, int text_row)
{
    int64_t d = item->embed_dim, lw = (int64_t)item->text_len * item->text_width;
    const float *image = run->stage->text_proj.learned_classifier_free_guidance_embeddings;
    if (text_row == ITEM_ROW_PROMPT)
        image = inverse ? item->invert_embed : item->image_embed;
    tensor_put(input->image_embed, row * d, image, d);
    tensor_put(input->text_embed, row * d, item->text_embed + text_row * d, d);
    tensor_put(input->text_states, row * lw, item->text_states + text_row * lw, lw);
}

/* Has the U-Net read the contexts [count · rows, E + L, C] of the items. */
static void read_context(const struct decoder_run *run, struct condition *const *conditions,
                         size_t count, int64_t rows, struct tensor context)
{
    void **kept = xmalloc(count * (size_t)rows * sizeof *kept);
    for (size_t k = 0; k < count * (size_t)rows; k++)
        kept[k] = conditions[k / (size_t)rows]->kept + k % (size_t)rows * run->kept_bytes;
    unet_read_context(run->stage->nn, &run->stage->unet, context, kept);
    free(kept);
}

static int project(struct decoder_run *run, struct item *const *items,
                   struct condition *const *conditions, size_t count, bool inverse, struct err *err)
{
    struct nn *nn = run->stage->nn;
    const struct text_proj_config *config = &run->stage->text_proj.config;
    int64_t each = rows_of(run, inverse), rows = (int64_t)count * each;
    int64_t d = config->clip_embeddings_dim;
    int64_t context = each * context_size(run), time = each * config->time_embed_dim;
    size_t scope = nn_enter(nn);
    struct proj_input input = {
        .image_embed = NN_NEW(nn, nn_dtype(nn), rows, d),
        .text_embed = NN_NEW(nn, nn_dtype(nn), rows, d),
        .text_states = NN_NEW(nn, nn_dtype(nn), rows, run->text_len, d),
    };
    for (int64_t row = 0; row < rows; row++)
        put_proj_row(run, &input, row, items[row / each], inverse, (int)(row % each));
    struct text_proj_output out = text_proj_forward(nn, &run->stage->text_proj, input.image_embed,
                                                    input.text_embed, input.text_states);
    if (run->kept_bytes)
        read_context(run, conditions, count, each, out.context);
    for (int64_t i = 0; i < (int64_t)count; i++) {
        if (!run->kept_bytes)
            tensor_get(out.context, i * context, conditions[i]->context, context);
        tensor_get(out.time, i * time, conditions[i]->time, time);
    }
    nn_leave_all(nn, scope);
    return nn_finish(nn, err);
}

/* Fills run->inverse of the items that have an embedding for it, or run->conditions of all. */
static int project_all(struct decoder_run *run, struct item *const *items, size_t count,
                       bool inverse, struct err *err)
{
    struct item *pass[ITEMS_A_PASS];
    struct condition *conditions[ITEMS_A_PASS];
    int rc = 0;
    for (size_t next = 0; next < count && rc == 0;) {
        size_t n = 0;
        for (; next < count && n < ITEMS_A_PASS; next++) {
            struct condition *condition = &(inverse ? run->inverse : run->conditions)[next];
            if (!item_live(items[next]) || (inverse && !items[next]->invert_embed) ||
                !condition_allocate(condition, run, rows_of(run, inverse), items[next]))
                continue;
            pass[n] = items[next];
            conditions[n++] = condition;
        }
        if (n)
            rc = project(run, pass, conditions, n, inverse, err);
    }
    return rc;
}

static const struct condition *condition_of(const struct decoder_run *run,
                                            const struct latent *latent, bool inverting)
{
    const struct condition *inverse = &run->inverse[latent->index];
    return inverting && inverse->time ? inverse : &run->conditions[latent->index];
}

/* ---- the steps ---- */

/* What the U-Net is given in one pass. */
struct unet_input {
    struct tensor sample; /* [rows, S, S, 3] */
    struct unet_condition condition;
    void **kept; /* [rows], owned: the condition's; or NULL */
};

static struct unet_input input_new(const struct decoder_run *run, int64_t rows)
{
    struct nn *nn = run->stage->nn;
    const struct unet_config *unet = &run->stage->unet.config;
    int64_t s = unet->sample_size, l = context_tokens(run);
    struct unet_input input = {
        .sample = NN_NEW(nn, nn_dtype(nn), rows, s, s, CHANNELS),
        .condition = {.context_bias = NN_NEW(nn, DTYPE_F32, rows, l),
                      .class_embed = NN_NEW(nn, nn_dtype(nn), rows, unet->time_embed_dim),
                      .kept_length = l},
    };
    if (run->kept_bytes)
        input.condition.kept = input.kept = xcalloc((size_t)rows, sizeof *input.kept);
    else
        input.condition.context = NN_NEW(nn, nn_dtype(nn), rows, l, unet->cross_attention_dim);
    return input;
}

/* 0 for the extra tokens and the text's, NETWORKS_MASKED for its padding: [E + L]. */
static void put_bias(float *bias, const struct item *item, int text_row, int64_t extra)
{
    const uint8_t *mask = item->text_mask + (int64_t)text_row * item->text_len;
    for (int64_t i = 0; i < extra; i++)
        bias[i] = 0;
    for (int64_t i = 0; i < item->text_len; i++)
        bias[extra + i] = mask[i] ? 0 : NETWORKS_MASKED;
}

static void put_row(const struct decoder_run *run, const struct unet_input *input, int64_t row,
                    const struct latent *latent, bool inverting, int text_row)
{
    const struct text_proj_config *config = &run->stage->text_proj.config;
    const struct condition *known = condition_of(run, latent, inverting);
    const struct unet_condition *told = &input->condition;
    int64_t values = tensor_count(input->sample) / input->sample.dim[0];
    int64_t context = context_size(run), time = config->time_embed_dim;
    tensor_put(input->sample, row * values, latent->x, values);
    if (input->kept)
        input->kept[row] = known->kept + (size_t)text_row * run->kept_bytes;
    else
        tensor_put(told->context, row * context, known->context + text_row * context, context);
    tensor_put(told->class_embed, row * time, known->time + text_row * time, time);
    put_bias((float *)told->context_bias.data + row * context_tokens(run), latent->item, text_row,
             config->clip_extra_context_tokens);
}

/* Row `row` of the U-Net's output [rows, S, S, out_channels] → output, and variance if not NULL. */
static void get_row(const struct decoder_run *run, struct tensor out, int64_t row, float *output,
                    float *variance)
{
    if (tensor_empty(out))
        return;
    int64_t channels = out.dim[3], pixels = out.dim[1] * out.dim[2];
    tensor_get(out, row * pixels * channels, run->row, pixels * channels);
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = 0; c < CHANNELS; c++) {
            output[p * CHANNELS + c] = run->row[p * channels + c];
            if (variance)
                variance[p * CHANNELS + c] = run->row[p * channels + CHANNELS + c];
        }
}

static int predict(void *context, const struct denoise_pass *pass, struct err *err)
{
    struct decoder_run *run = context;
    struct latent *const *latents = pass->latents;
    bool guided = run->guided && !pass->inverting;
    struct nn *nn = run->stage->nn;
    int64_t n = (int64_t)pass->count, rows = guided ? 2 * n : n;
    size_t scope = nn_enter(nn);
    struct unet_input input = input_new(run, rows);
    for (int64_t row = 0; row < rows && !nn_failed(nn); row++)
        put_row(run, &input, row, latents[row % n], pass->inverting,
                row < rows - n ? ITEM_ROW_NEGATIVE : ITEM_ROW_PROMPT);
    const struct unet_step step = {
        .nn = nn,
        .unet = &run->stage->unet,
        .i = pass->i - run->stage->scheduler.first,
        .reuse = pass->inverting ? 1 : run->settings->reuse,
        .timestep = (float)run->stage->scheduler.timesteps[pass->i],
        .latents = latents,
        .count = pass->count,
    };
    struct tensor out = unet_step_forward(&step, input.sample, &input.condition);
    for (int64_t k = 0; k < n; k++) {
        get_row(run, out, rows - n + k, latents[k]->output,
                pass->inverting ? NULL : latents[k]->variance);
        if (!guided)
            continue;
        get_row(run, out, k, run->uncond, NULL);
        denoise_guide(latents[k]->output, run->uncond, run->values, (float)run->settings->guidance);
    }
    free(input.kept);
    nn_leave_all(nn, scope);
    return nn_finish(nn, err);
}

static void finish(void *context, struct latent *latent)
{
    const struct decoder_run *run = context;
    item_take_image(latent->item, &latent->x, (int)run->stage->unet.config.sample_size);
}

static void check_items(const struct decoder_stage *stage, struct item *const *items, size_t count)
{
    int64_t d = stage->text_proj.config.clip_embeddings_dim;
    for (size_t i = 0; i < count; i++)
        if (item_live(items[i]) && item_check_text(items[i], d, items[i]->text_len, d) &&
            !items[i]->image_embed)
            err_set(&items[i]->err, ERR_INVALID_RECORD, "the task has no image embedding");
}

static void conditions_free(struct condition *conditions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(conditions[i].kept);
        free(conditions[i].context);
        free(conditions[i].time);
    }
    free(conditions);
}

/* Items whose texts have one length, and their places in the stage's batch. */
struct group {
    struct item **items;
    size_t *places;
    size_t count;
};

/* What is read of the contexts is kept for all of the items, or for none. */
static void choose_kept(struct decoder_run *run, size_t count)
{
    size_t bytes = unet_kept_bytes(run->stage->nn, &run->stage->unet, context_tokens(run));
    bool inverts = run->settings->start == START_INVERSION;
    int64_t rows = rows_of(run, false) + (inverts ? rows_of(run, true) : 0);
    run->kept_bytes = denoise_keeps(run->settings, count, (size_t)rows * bytes) ? bytes : 0;
}

static int run_group(struct decoder_stage *stage, const struct group *group,
                     const struct stage_settings *settings, const struct stage_watch *watch,
                     struct err *err)
{
    struct item *const *items = group->items;
    size_t count = group->count;
    const struct unet_config *unet = &stage->unet.config;
    size_t pixels = (size_t)(unet->sample_size * unet->sample_size);
    struct decoder_run run = {
        .stage = stage,
        .guided = denoise_guided(settings),
        .settings = settings,
        .text_len = items[0]->text_len,
        .conditions = xcalloc(count, sizeof *run.conditions),
        .inverse = xcalloc(count, sizeof *run.inverse),
        .row = malloc(pixels * (size_t)unet->out_channels * sizeof(float)),
        .values = pixels * CHANNELS,
    };
    run.uncond = malloc(run.values * sizeof(float));
    choose_kept(&run, count);
    struct denoiser denoiser = {
        .scheduler = &stage->scheduler,
        .settings = settings,
        .side = (int)unet->sample_size,
        .noise_moves = true,
        .pixels = pixels,
        .channels = CHANNELS,
        .places = group->places,
        .latents_a_pass = denoise_latents_a_pass(pixels, run.guided),
        .deep_bytes = unet_step_bytes(stage->nn, &stage->unet, settings->reuse, run.guided ? 2 : 1,
                                      unet->sample_size),
        .predict = predict,
        .finish = finish,
        .context = &run,
    };
    int rc = 0;
    if (!run.row || !run.uncond)
        rc = err_set(err, ERR_OUT_OF_MEMORY, "cannot hold the decoder's output");
    if (rc == 0)
        rc = project_all(&run, items, count, false, err);
    if (rc == 0 && settings->start == START_INVERSION)
        rc = project_all(&run, items, count, true, err);
    if (rc == 0)
        rc = denoise(&denoiser, items, count, watch, err);
    conditions_free(run.conditions, count);
    conditions_free(run.inverse, count);
    free(run.row);
    free(run.uncond);
    return rc;
}

/* Moves the items whose texts are as long as the first one's from `waiting` to `group`. */
static void take_group(struct group *waiting, struct group *group)
{
    size_t kept = 0;
    int length = waiting->items[0]->text_len;
    group->count = 0;
    for (size_t i = 0; i < waiting->count; i++) {
        struct group *to = waiting->items[i]->text_len == length ? group : waiting;
        size_t at = to == group ? group->count++ : kept++;
        to->items[at] = waiting->items[i];
        to->places[at] = waiting->places[i];
    }
    waiting->count = kept;
}

static struct group group_new(size_t capacity)
{
    return (struct group){
        .items = xcalloc(capacity + 1, sizeof(struct item *)),
        .places = xcalloc(capacity + 1, sizeof(size_t)),
    };
}

static void group_release(struct group *group)
{
    free(group->items);
    free(group->places);
}

/* The decoder itself sets no length of text; as a rule all items have the model's. */
static int decoder_run(void *state, struct item *const *items, size_t count,
                       const struct stage_settings *settings, const struct stage_watch *watch,
                       struct err *err)
{
    struct decoder_stage *stage = state;
    int rc = denoise_set_sampling(&stage->scheduler, settings, false, err);
    if (rc)
        return rc;
    check_items(stage, items, count);
    struct group waiting = group_new(count), group = group_new(count);
    for (size_t i = 0; i < count; i++)
        if (item_live(items[i])) {
            waiting.items[waiting.count] = items[i];
            waiting.places[waiting.count++] = i;
        }
    while (waiting.count > 0 && rc == 0) {
        take_group(&waiting, &group);
        rc = run_group(stage, &group, settings, watch, err);
    }
    group_release(&waiting);
    group_release(&group);
    return rc;
}

const struct stage_ops decoder_ops = {decoder_open, decoder_close, decoder_run};
