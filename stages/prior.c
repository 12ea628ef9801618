/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage prior: a text's embedding and states → a CLIP image embedding. With guidance each item has
 * two rows in the batch, first all unconditional ones, as in the reference.
 */
#include <stdlib.h>

#include "common/memory.h"
#include "stages/denoise.h"
#include "stages/networks/prior_transformer.h"
#include "stages/stage_ops.h"

#define LATENTS_A_PASS 32 /* bounds the memory of one forward pass */

struct prior_stage {
    struct nn *nn; /* borrowed */
    struct prior_transformer prior;
    struct scheduler scheduler;
};

static void prior_close(void *state)
{
    struct prior_stage *stage = state;
    if (!stage)
        return;
    prior_transformer_release(&stage->prior);
    scheduler_release(&stage->scheduler);
    free(stage);
}

static int check_model(const struct prior_stage *stage, struct err *err)
{
    const struct prior_config *config = &stage->prior.config;
    if (config->clip_embed_dim != config->embedding_dim)
        return err_set(err, ERR_UNSUPPORTED,
                       "prior/config.json: clip_embed_dim is %lld, it must equal embedding_dim",
                       (long long)config->clip_embed_dim);
    if (stage->scheduler.variance == VARIANCE_LEARNED_RANGE)
        return err_set(err, ERR_UNSUPPORTED,
                       "prior_scheduler/scheduler_config.json: variance_type "
                       "is learned_range, which a prior does not predict");
    return 0;
}

static int prior_open(void **state, const char *model_path, struct nn *nn, struct err *err)
{
    struct prior_stage *stage = xcalloc(1, sizeof *stage);
    char *network = xasprintf("%s/prior", model_path);
    char *scheduler = xasprintf("%s/prior_scheduler/scheduler_config.json", model_path);
    stage->nn = nn;
    int rc;
    if ((rc = scheduler_load(&stage->scheduler, scheduler, err)) == 0 &&
        (rc = prior_transformer_load(&stage->prior, nn, network, err)) == 0)
        rc = check_model(stage, err);
    free(network);
    free(scheduler);
    if (rc)
        prior_close(stage);
    else
        *state = stage;
    return rc;
}

struct prior_run {
    struct prior_stage *stage;
    bool guided;
    float guidance;
    float *uncond; /* [D]: one row of the unconditional half */
};

/* Row `row` of each input, from an item's text. */
static void put_row(const struct prior_input *input, int64_t row, const struct latent *latent,
                    int text_row)
{
    const struct item *item = latent->item;
    int64_t d = item->embed_dim, l = item->text_len, lw = l * item->text_width;
    tensor_put(input->latents, row * d, latent->x, d);
    tensor_put(input->text_embed, row * d, item->text_embed + text_row * d, d);
    tensor_put(input->text_states, row * lw, item->text_states + text_row * lw, lw);
    float *bias = input->text_bias.data;
    for (int64_t i = 0; bias && i < l; i++)
        bias[row * l + i] = item->text_mask[text_row * l + i] ? 0 : NETWORKS_MASKED;
}

static int predict(void *context, struct latent *const *latents, size_t count, int i,
                   struct err *err)
{
    struct prior_run *run = context;
    struct nn *nn = run->stage->nn;
    const struct prior_config *config = &run->stage->prior.config;
    int64_t n = (int64_t)count, rows = run->guided ? 2 * n : n, d = config->embedding_dim;
    int64_t l = config->num_embeddings;
    size_t scope = nn_enter(nn);
    struct prior_input input = {
        .latents = NN_NEW(nn, nn_dtype(nn), rows, d),
        .timestep = (float)run->stage->scheduler.timesteps[i],
        .text_embed = NN_NEW(nn, nn_dtype(nn), rows, d),
        .text_states = NN_NEW(nn, nn_dtype(nn), rows, l, d),
        .text_bias = NN_NEW(nn, DTYPE_F32, rows, l),
    };
    for (int64_t row = 0; row < rows; row++)
        put_row(&input, row, latents[row % n],
                row < rows - n ? ITEM_ROW_NEGATIVE : ITEM_ROW_PROMPT);
    struct tensor out = prior_transformer_forward(nn, &run->stage->prior, &input); /* [rows, d] */
    for (int64_t k = 0; k < n; k++) {
        tensor_get(out, (rows - n + k) * d, latents[k]->output, d);
        if (!run->guided)
            continue;
        tensor_get(out, k * d, run->uncond, d);
        denoise_guide(latents[k]->output, run->uncond, (size_t)d, run->guidance);
    }
    nn_leave_all(nn, scope);
    return nn_finish(nn, err);
}

static void finish(void *context, struct latent *latent)
{
    struct prior_run *run = context;
    prior_transformer_post_process(&run->stage->prior, latent->x);
    free(latent->item->image_embed);
    latent->item->image_embed = latent->x;
    latent->x = NULL;
}

static int prior_run(void *state, struct item *const *items, size_t count,
                     const struct stage_settings *settings, const struct stage_watch *watch,
                     struct err *err)
{
    struct prior_stage *stage = state;
    const struct prior_config *config = &stage->prior.config;
    for (size_t i = 0; i < count; i++)
        if (item_live(items[i]))
            item_check_text(items[i], config->embedding_dim, config->num_embeddings,
                            config->embedding_dim);
    int rc = denoise_set_sampling(&stage->scheduler, settings, false, err);
    if (rc)
        return rc;
    struct prior_run run = {
        .stage = stage,
        .guided = denoise_guided(settings),
        .guidance = (float)settings->guidance,
        .uncond = xmalloc((size_t)config->embedding_dim * sizeof(float)),
    };
    struct denoiser denoiser = {
        .scheduler = &stage->scheduler,
        .pixels = (size_t)config->embedding_dim,
        .channels = 1,
        .latents_a_pass = LATENTS_A_PASS,
        .predict = predict,
        .finish = finish,
        .context = &run,
    };
    rc = denoise(&denoiser, items, count, watch, err);
    free(run.uncond);
    return rc;
}

const struct stage_ops prior_ops = {prior_open, prior_close, prior_run};
