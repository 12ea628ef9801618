/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The diffusion prior's sampling; see prior_diffusion.h. With guidance each draw has two rows in
 * the batch, first all unconditional ones, as in the reference.
 */
#include "stages/prior_diffusion.h"

#include <stdlib.h>

#include "common/memory.h"
#include "stages/denoise.h"
#include "stages/stage_ops.h"

#define LATENTS_A_PASS 32 /* bounds the memory of one forward pass */

void prior_diffusion_release(struct prior_diffusion *diffusion)
{
    prior_transformer_release(&diffusion->prior);
    scheduler_release(&diffusion->scheduler);
}

static int check_model(const struct prior_diffusion *diffusion, struct err *err)
{
    const struct prior_config *config = &diffusion->prior.config;
    if (config->clip_embed_dim != config->embedding_dim)
        return err_set(err, ERR_UNSUPPORTED,
                       "prior/config.json: clip_embed_dim is %lld, it must equal embedding_dim",
                       (long long)config->clip_embed_dim);
    if (diffusion->scheduler.variance == VARIANCE_LEARNED_RANGE)
        return err_set(err, ERR_UNSUPPORTED,
                       "prior_scheduler/scheduler_config.json: variance_type "
                       "is learned_range, which a prior does not predict");
    return 0;
}

int prior_diffusion_load(struct prior_diffusion *diffusion, const char *model_path, struct nn *nn,
                         struct err *err)
{
    char *network = xasprintf("%s/prior", model_path);
    char *scheduler = xasprintf("%s/prior_scheduler/scheduler_config.json", model_path);
    int rc;
    diffusion->nn = nn;
    if ((rc = scheduler_load(&diffusion->scheduler, scheduler, err)) == 0 &&
        (rc = prior_transformer_load(&diffusion->prior, nn, network, err)) == 0)
        rc = check_model(diffusion, err);
    free(network);
    free(scheduler);
    return rc;
}

struct diffusion_run {
    struct prior_diffusion *diffusion;
    const struct prior_draw *draws; /* [latent->index] */
    bool guided;
    float guidance;
    float *uncond; /* [D]: one row of the unconditional half */
};

/* Row `row` of each input, from a text row of the latent's item. */
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

static int predict(void *context, const struct denoise_pass *pass, struct err *err)
{
    struct diffusion_run *run = context;
    struct latent *const *latents = pass->latents;
    struct nn *nn = run->diffusion->nn;
    const struct prior_config *config = &run->diffusion->prior.config;
    int64_t n = (int64_t)pass->count, rows = run->guided ? 2 * n : n, d = config->embedding_dim;
    int64_t l = config->num_embeddings;
    size_t scope = nn_enter(nn);
    struct prior_input input = {
        .latents = NN_NEW(nn, nn_dtype(nn), rows, d),
        .timestep = (float)run->diffusion->scheduler.timesteps[pass->i],
        .text_embed = NN_NEW(nn, nn_dtype(nn), rows, d),
        .text_states = NN_NEW(nn, nn_dtype(nn), rows, l, d),
        .text_bias = NN_NEW(nn, DTYPE_F32, rows, l),
    };
    for (int64_t row = 0; row < rows; row++)
        put_row(&input, row, latents[row % n],
                row < rows - n ? ITEM_ROW_NEGATIVE : run->draws[latents[row % n]->index].row);
    struct tensor out =
        prior_transformer_forward(nn, &run->diffusion->prior, &input); /* [rows, d] */
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
    struct diffusion_run *run = context;
    prior_transformer_post_process(&run->diffusion->prior, latent->x);
    latent->item->image_embed = latent->x;
    latent->x = NULL;
}

int prior_diffusion_run(struct prior_diffusion *diffusion, struct prior_draw *draws, size_t count,
                        const struct stage_settings *settings, const struct stage_watch *watch,
                        struct err *err)
{
    const struct prior_config *config = &diffusion->prior.config;
    int rc = settings->start == START_NOISE
                 ? denoise_set_sampling(&diffusion->scheduler, settings, false, err)
                 : err_set(err, ERR_INVALID_ARGUMENT, "the prior starts from noise alone");
    if (rc)
        return rc;
    struct item **items = xcalloc(count + 1, sizeof(struct item *));
    for (size_t i = 0; i < count; i++)
        items[i] = &draws[i].item;
    struct diffusion_run run = {
        .diffusion = diffusion,
        .draws = draws,
        .guided = denoise_guided(settings),
        .guidance = (float)settings->guidance,
        .uncond = xmalloc((size_t)config->embedding_dim * sizeof(float)),
    };
    struct denoiser denoiser = {
        .scheduler = &diffusion->scheduler,
        .settings = settings,
        .pixels = (size_t)config->embedding_dim,
        .channels = 1,
        .latents_a_pass = LATENTS_A_PASS,
        .predict = predict,
        .finish = finish,
        .context = &run,
    };
    rc = denoise(&denoiser, items, count, watch, err);
    free(run.uncond);
    free(items);
    return rc;
}
