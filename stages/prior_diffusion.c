/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The diffusion prior's sampling; see prior_diffusion.h. With guidance each draw has two rows in
 * the batch, first all unconditional ones, as in the reference. The network reads the texts in the
 * first step, and keeps of them what all steps need (prior_transformer.h).
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

/* A pass's rows: each latent's once, or, with guidance, all unconditional ones before them. */
struct pass_rows {
    struct diffusion_run *run;
    const struct denoise_pass *pass;
    int64_t n, rows; /* latents, and rows */
};

static struct latent *latent_of(const struct pass_rows *rows, int64_t row)
{
    return rows->pass->latents[row % rows->n];
}

static int text_row(const struct pass_rows *rows, int64_t row)
{
    return row < rows->rows - rows->n ? ITEM_ROW_NEGATIVE
                                      : rows->run->draws[latent_of(rows, row)->index].row;
}

/* What the network makes of the texts, to be kept for each row; `kept` is filled. */
static void read_text(const struct pass_rows *rows, struct prior_input *input, void *const *kept)
{
    struct prior_diffusion *diffusion = rows->run->diffusion;
    struct nn *nn = diffusion->nn;
    const struct prior_config *config = &diffusion->prior.config;
    int64_t d = config->embedding_dim, l = config->num_embeddings;
    size_t scope = nn_enter(nn);
    input->text_embed = NN_NEW(nn, nn_dtype(nn), rows->rows, d);
    input->text_states = NN_NEW(nn, nn_dtype(nn), rows->rows, l, d);
    for (int64_t row = 0; row < rows->rows; row++) {
        const struct item *item = latent_of(rows, row)->item;
        int64_t lw = l * item->text_width, from = text_row(rows, row);
        tensor_put(input->text_embed, row * d, item->text_embed + from * d, d);
        tensor_put(input->text_states, row * lw, item->text_states + from * lw, lw);
    }
    prior_transformer_read_text(nn, &diffusion->prior, input, kept);
    nn_leave_all(nn, scope);
}

/* The inputs that a step needs beside the texts. */
static struct prior_input step_input(const struct pass_rows *rows)
{
    struct prior_diffusion *diffusion = rows->run->diffusion;
    struct nn *nn = diffusion->nn;
    const struct prior_config *config = &diffusion->prior.config;
    int64_t d = config->embedding_dim, l = config->num_embeddings;
    struct prior_input input = {
        .latents = NN_NEW(nn, nn_dtype(nn), rows->rows, d),
        .timestep = (float)diffusion->scheduler.timesteps[rows->pass->i],
        .text_bias = NN_NEW(nn, DTYPE_F32, rows->rows, l),
    };
    float *bias = input.text_bias.data;
    for (int64_t row = 0; row < rows->rows; row++) {
        const struct latent *latent = latent_of(rows, row);
        const uint8_t *mask = latent->item->text_mask + text_row(rows, row) * l;
        tensor_put(input.latents, row * d, latent->x, d);
        for (int64_t i = 0; bias && i < l; i++)
            bias[row * l + i] = mask[i] ? 0 : NETWORKS_MASKED;
    }
    return input;
}

/* One row's part of what its latent keeps, or of memory for this pass alone (which may be NULL). */
static void *kept_of_row(const struct pass_rows *rows, int64_t row, char *spare, size_t bytes)
{
    char *own = latent_of(rows, row)->deep;
    if (own)
        return own + (size_t)(row / rows->n) * bytes;
    return spare ? spare + (size_t)row * bytes : NULL;
}

/* → [rows, d]; empty when the context has failed. */
static struct tensor run_network(const struct pass_rows *rows)
{
    struct prior_diffusion *diffusion = rows->run->diffusion;
    size_t bytes = prior_transformer_kept_bytes(diffusion->nn, &diffusion->prior);
    bool keeps = rows->pass->latents[0]->deep != NULL;
    struct prior_input input = step_input(rows);
    void **kept = xmalloc((size_t)rows->rows * sizeof *kept);
    struct tensor spare = {0};
    if (!keeps)
        spare = NN_NEW(diffusion->nn, nn_dtype(diffusion->nn), rows->rows,
                       (int64_t)(bytes / dtype_size(nn_dtype(diffusion->nn))));
    for (int64_t row = 0; row < rows->rows; row++)
        kept[row] = kept_of_row(rows, row, spare.data, bytes);
    if (rows->pass->i == 0 || !keeps)
        read_text(rows, &input, kept);
    struct tensor out = prior_transformer_step(diffusion->nn, &diffusion->prior, &input, kept);
    free(kept);
    return out;
}

static int predict(void *context, const struct denoise_pass *pass, struct err *err)
{
    struct diffusion_run *run = context;
    struct latent *const *latents = pass->latents;
    struct nn *nn = run->diffusion->nn;
    int64_t n = (int64_t)pass->count, d = run->diffusion->prior.config.embedding_dim;
    struct pass_rows rows = {.run = run, .pass = pass, .n = n, .rows = run->guided ? 2 * n : n};
    size_t scope = nn_enter(nn);
    struct tensor out = run_network(&rows);
    for (int64_t k = 0; k < n; k++) {
        tensor_get(out, (rows.rows - n + k) * d, latents[k]->output, d);
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
    size_t kept_bytes =
        (run.guided ? 2 : 1) * prior_transformer_kept_bytes(diffusion->nn, &diffusion->prior);
    struct denoiser denoiser = {
        .scheduler = &diffusion->scheduler,
        .settings = settings,
        .deep_bytes = denoise_keeps(settings, count, kept_bytes) ? kept_bytes : 0,
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
