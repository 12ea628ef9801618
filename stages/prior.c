/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage prior: a text's embedding and states → a CLIP image embedding, by one of three kinds:
 *
 *   diffusion       prior_diffusion.h
 *   autoregressive  prior_autoregressive.h; loaded when first asked for
 *   none            the text's own embedding, as long as a picture's (the paper's ablation, section
 *                   5.1); no draws, and candidates would all be the same
 *
 * Of several candidates the one with the largest dot product with the text embedding is taken (the
 * paper, section 2.2, takes the better of two). The first draws from the item's own generator, as
 * if it were alone, and the item goes on with that one; candidate c draws from its fork c. The
 * embeddings of several texts (rows after the negative prompt's) are all drawn from copies of one
 * generator, so that they differ by the texts alone.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/prior_autoregressive.h"
#include "stages/prior_diffusion.h"
#include "stages/stage_ops.h"

struct prior_stage {
    struct nn *nn;    /* borrowed */
    char *model_path; /* owned */
    struct prior_diffusion diffusion;
    struct prior_autoregressive autoregressive;
    bool has_autoregressive; /* it is loaded */
};

static void prior_close(void *state)
{
    struct prior_stage *stage = state;
    if (!stage)
        return;
    prior_diffusion_release(&stage->diffusion);
    prior_autoregressive_release(&stage->autoregressive);
    free(stage->model_path);
    free(stage);
}

static int prior_open(void **state, const char *model_path, struct nn *nn, struct err *err)
{
    struct prior_stage *stage = xcalloc(1, sizeof *stage);
    stage->nn = nn;
    stage->model_path = xstrdup(model_path);
    int rc = prior_diffusion_load(&stage->diffusion, model_path, nn, err);
    if (rc)
        prior_close(stage);
    else
        *state = stage;
    return rc;
}

/* Whether the autoregressive prior reads and makes what the others do. */
static int check_autoregressive(const struct prior_stage *stage, struct err *err)
{
    const struct ar_prior_config *config = &stage->autoregressive.prior.config;
    const struct prior_config *prior = &stage->diffusion.prior.config;
    if (config->embedding_dim == prior->embedding_dim && config->text_dim == prior->embedding_dim &&
        config->num_embeddings == prior->num_embeddings)
        return 0;
    return err_set(err, ERR_INVALID_MODEL,
                   "ar_prior/config.json: a text is %lld, %lld x %lld numbers, in prior/ it is "
                   "%lld, %lld x %lld",
                   (long long)config->embedding_dim, (long long)config->num_embeddings,
                   (long long)config->text_dim, (long long)prior->embedding_dim,
                   (long long)prior->num_embeddings, (long long)prior->embedding_dim);
}

static int need_autoregressive(struct prior_stage *stage, struct err *err)
{
    if (stage->has_autoregressive)
        return 0;
    int rc = prior_autoregressive_load(&stage->autoregressive, stage->model_path, stage->nn, err);
    if (rc)
        return rc;
    rc = check_autoregressive(stage, err);
    if (rc)
        prior_autoregressive_release(&stage->autoregressive);
    stage->has_autoregressive = rc == 0;
    return rc;
}

/* ---- draws ---- */

/* An item's embeddings: of its prompt, or of each of its further texts. */
static int first_row(const struct item *item)
{
    return item->text_rows > ITEM_ROWS ? ITEM_ROWS : ITEM_ROW_PROMPT;
}

static int embeddings_of(const struct item *item)
{
    return item->text_rows > ITEM_ROWS ? item->text_rows - ITEM_ROWS : 1;
}

/* All draws of a batch: those of one item stand together, by embedding, then by candidate. */
struct batch {
    struct prior_draw *draws; /* [count], owned */
    size_t count;
    int candidates;
    const struct stage_watch *watch; /* the caller's; may be NULL */
};

static void batch_init(struct batch *batch, struct item *const *items, size_t count, int candidates,
                       const struct stage_watch *watch)
{
    size_t most = 0;
    for (size_t i = 0; i < count; i++)
        if (item_live(items[i]))
            most += (size_t)embeddings_of(items[i]) * (size_t)candidates;
    *batch = (struct batch){.candidates = candidates, .watch = watch};
    batch->draws = xcalloc(most + 1, sizeof *batch->draws);
    for (size_t i = 0; i < count; i++) {
        struct item *item = items[i];
        int draws = item_live(item) ? embeddings_of(item) * candidates : 0;
        for (int k = 0; k < draws; k++) {
            struct prior_draw *draw = &batch->draws[batch->count++];
            *draw = (struct prior_draw){
                .of = item, .row = first_row(item) + k / candidates, .item = *item};
            draw->item.image_embed = NULL;
            if (k % candidates > 0)
                rng_fork(&item->rng, (uint32_t)(k % candidates), &draw->item.rng);
        }
    }
}

static void batch_release(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        free(batch->draws[i].item.image_embed);
    free(batch->draws);
}

/* What the watcher says of an item holds for its draws. */
static void on_step(void *context, int step, int steps)
{
    struct batch *batch = context;
    if (batch->watch && batch->watch->step)
        batch->watch->step(batch->watch->context, step, steps);
    for (size_t i = 0; i < batch->count; i++)
        batch->draws[i].item.stop = batch->draws[i].of->stop;
}

static double fit(const struct prior_draw *draw)
{
    const float *text = draw->of->text_embed + (int64_t)draw->row * draw->of->embed_dim;
    double sum = 0;
    for (int i = 0; i < draw->of->embed_dim; i++)
        sum += (double)text[i] * (double)draw->item.image_embed[i];
    return sum;
}

/* The embedding that fits best of `count` candidates, taken out of its draw; NULL when one of them
   failed, and its item with it. */
static float *take_best(struct prior_draw *candidates, int count)
{
    struct prior_draw *best = NULL;
    double most = 0;
    for (int k = 0; k < count; k++) {
        struct prior_draw *draw = &candidates[k];
        if (!item_live(&draw->item)) {
            draw->of->err = draw->item.err;
            return NULL;
        }
        double fits = count > 1 ? fit(draw) : 0;
        if (!best || fits > most) {
            best = draw;
            most = fits;
        }
    }
    float *embed = best->item.image_embed;
    best->item.image_embed = NULL;
    return embed;
}

/* Makes `embed` [D], which it takes, the item's embedding of a text row. */
static void put_embedding(struct item *item, int row, float *embed)
{
    size_t bytes = (size_t)item->embed_dim * sizeof *embed;
    if (item->text_rows > ITEM_ROWS) {
        memcpy(item->texts_embeds + (size_t)(row - ITEM_ROWS) * (size_t)item->embed_dim, embed,
               bytes);
        free(embed);
        return;
    }
    free(item->image_embed);
    item->image_embed = embed;
}

static void settle(struct batch *batch)
{
    size_t k = (size_t)batch->candidates;
    for (size_t i = 0; i < batch->count; i += k) {
        struct prior_draw *draw = &batch->draws[i];
        struct item *item = draw->of;
        float *embed = item_live(item) ? take_best(draw, batch->candidates) : NULL;
        if (!embed)
            continue;
        put_embedding(item, draw->row, embed);
        item->rng = draw->item.rng;
    }
}

/* ---- the kinds ---- */

/* The usual length of an image embedding: the root of the mean square. */
static double image_norm(const struct prior_transformer *prior)
{
    double sum = 0;
    for (int64_t i = 0; i < prior->config.clip_embed_dim; i++)
        sum += (double)prior->clip_mean[i] * (double)prior->clip_mean[i] +
               (double)prior->clip_std[i] * (double)prior->clip_std[i];
    return sqrt(sum);
}

/* Text embeddings lie in the same space, and are of another length. */
static void scale_text(struct item *item, int row, double norm)
{
    const float *text = item->text_embed + (int64_t)row * item->embed_dim;
    float *embed = xmalloc((size_t)item->embed_dim * sizeof *embed);
    double sum = 0;
    for (int i = 0; i < item->embed_dim; i++)
        sum += (double)text[i] * (double)text[i];
    double scale = sum > 0 ? norm / sqrt(sum) : 0;
    for (int i = 0; i < item->embed_dim; i++)
        embed[i] = (float)(scale * (double)text[i]);
    put_embedding(item, row, embed);
}

static void run_none(const struct prior_stage *stage, struct item *const *items, size_t count)
{
    double norm = image_norm(&stage->diffusion.prior);
    for (size_t i = 0; i < count; i++)
        for (int k = 0; item_live(items[i]) && k < embeddings_of(items[i]); k++)
            scale_text(items[i], first_row(items[i]) + k, norm);
}

static int run_draws(struct prior_stage *stage, struct item *const *items, size_t count,
                     const struct stage_settings *settings, const struct stage_watch *watch,
                     struct err *err)
{
    struct batch batch;
    batch_init(&batch, items, count, settings->candidates > 1 ? settings->candidates : 1, watch);
    const struct stage_watch inner = {.step = on_step, .context = &batch};
    int rc;
    if (settings->prior == PRIOR_AUTOREGRESSIVE)
        rc = prior_autoregressive_run(&stage->autoregressive, batch.draws, batch.count, settings,
                                      &inner, err);
    else
        rc =
            prior_diffusion_run(&stage->diffusion, batch.draws, batch.count, settings, &inner, err);
    if (rc == 0)
        settle(&batch);
    batch_release(&batch);
    return rc;
}

/* Fails the items whose texts do not fit, or whose embeddings cannot be held. */
static void check_items(const struct prior_stage *stage, struct item *const *items, size_t count)
{
    const struct prior_config *config = &stage->diffusion.prior.config;
    for (size_t i = 0; i < count; i++) {
        struct item *item = items[i];
        if (!item_live(item) || !item_check_text(item, config->embedding_dim,
                                                 config->num_embeddings, config->embedding_dim))
            continue;
        if (item->text_rows <= ITEM_ROWS)
            continue;
        free(item->texts_embeds);
        item->texts_embeds =
            calloc((size_t)embeddings_of(item) * (size_t)item->embed_dim, sizeof(float));
        if (!item->texts_embeds)
            err_set(&item->err, ERR_OUT_OF_MEMORY, "cannot hold the embeddings of %d texts",
                    embeddings_of(item));
    }
}

static int prior_run(void *state, struct item *const *items, size_t count,
                     const struct stage_settings *settings, const struct stage_watch *watch,
                     struct err *err)
{
    struct prior_stage *stage = state;
    int rc = 0;
    check_items(stage, items, count);
    if (settings->prior == PRIOR_AUTOREGRESSIVE)
        rc = need_autoregressive(stage, err);
    if (rc)
        return rc;
    if (settings->prior == PRIOR_NONE) {
        run_none(stage, items, count);
        return 0;
    }
    return run_draws(stage, items, count, settings, watch, err);
}

const struct stage_ops prior_ops = {prior_open, prior_close, prior_run};
