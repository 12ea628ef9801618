/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The autoregressive prior's sampling; see prior_autoregressive.h. With guidance each draw has two
 * rows in the batch, first all unconditional ones, as in the twin. A pass is a few draws, all of
 * whose codes are made before the next ones'; one that is stopped keeps its rows until then.
 */
#include "stages/prior_autoregressive.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/memory.h"
#include "stages/denoise.h"
#include "stages/stage_ops.h"

#define FOLDER       "ar_prior"
#define DRAWS_A_PASS 32

int prior_autoregressive_load(struct prior_autoregressive *autoregressive, const char *model_path,
                              struct nn *nn, struct err *err)
{
    char *folder = xasprintf("%s/" FOLDER, model_path);
    struct stat status;
    int rc;
    if (stat(folder, &status) != 0)
        rc = err_set(err, ERR_UNSUPPORTED,
                     "the model has no " FOLDER "/, which the autoregressive prior needs; choose "
                     "another prior");
    else
        rc = ar_prior_load(&autoregressive->prior, nn, folder, err);
    autoregressive->nn = nn;
    free(folder);
    return rc;
}

void prior_autoregressive_release(struct prior_autoregressive *autoregressive)
{
    ar_prior_release(&autoregressive->prior);
}

/* The draws of one pass, and what each has drawn. */
struct pass {
    struct prior_autoregressive *autoregressive;
    struct prior_draw **draws; /* [n] */
    int64_t n, rows;           /* rows: 2n when guided, else n */
    float guidance;
    int32_t *dot;           /* [rows] */
    float *dice;            /* [n][dimensions] */
    int32_t *codes;         /* [n][dimensions] */
    int32_t *step;          /* [rows]: the codes made last */
    float *logits, *uncond; /* [buckets] */
    uint8_t *mask;          /* [rows][L] */
};

static void pass_init(struct pass *pass, struct prior_autoregressive *autoregressive,
                      struct prior_draw **draws, size_t n, const struct stage_settings *settings)
{
    const struct ar_prior_config *config = &autoregressive->prior.config;
    size_t rows = denoise_guided(settings) ? 2 * n : n, k = (size_t)config->dimensions;
    *pass = (struct pass){
        .autoregressive = autoregressive,
        .draws = draws,
        .n = (int64_t)n,
        .rows = (int64_t)rows,
        .guidance = (float)settings->guidance,
        .dot = xcalloc(rows, sizeof *pass->dot),
        .dice = xcalloc(n * k, sizeof *pass->dice),
        .codes = xcalloc(n * k, sizeof *pass->codes),
        .step = xcalloc(rows, sizeof *pass->step),
        .logits = xcalloc((size_t)config->buckets, sizeof *pass->logits),
        .uncond = xcalloc((size_t)config->buckets, sizeof *pass->uncond),
        .mask = xcalloc(rows, (size_t)config->num_embeddings),
    };
}

static void pass_release(struct pass *pass)
{
    free(pass->dot);
    free(pass->dice);
    free(pass->codes);
    free(pass->step);
    free(pass->logits);
    free(pass->uncond);
    free(pass->mask);
}

/* All that a draw takes from its generator. */
static void roll(struct pass *pass)
{
    const struct ar_prior_config *config = &pass->autoregressive->prior.config;
    uint32_t buckets = (uint32_t)config->dot_buckets, half = buckets / 2;
    for (int64_t i = 0; i < pass->n; i++) {
        struct rng *rng = &pass->draws[i]->item.rng;
        int32_t dot = (int32_t)(half + rng_random(rng) % (buckets - half));
        rng_uniform(rng, pass->dice + i * config->dimensions, (size_t)config->dimensions);
        for (int64_t row = i; row < pass->rows; row += pass->n)
            pass->dot[row] = dot;
    }
}

static void put_row(struct pass *pass, const struct ar_prior_input *input, int64_t row,
                    const struct prior_draw *draw, int text_row)
{
    const struct item *item = &draw->item;
    int64_t d = item->embed_dim, l = item->text_len, lw = l * item->text_width;
    tensor_put(input->text_embed, row * d, item->text_embed + text_row * d, d);
    tensor_put(input->text_states, row * lw, item->text_states + text_row * lw, lw);
    memcpy(pass->mask + row * l, item->text_mask + text_row * l, (size_t)l);
}

/* → [rows, buckets]: logits of the first code. */
static struct tensor begin(struct pass *pass, struct ar_prior_sequence *sequence)
{
    struct nn *nn = pass->autoregressive->nn;
    struct ar_prior *prior = &pass->autoregressive->prior;
    const struct ar_prior_config *config = &prior->config;
    struct ar_prior_input input = {
        .text_embed = NN_NEW(nn, nn_dtype(nn), pass->rows, config->embedding_dim),
        .text_states =
            NN_NEW(nn, nn_dtype(nn), pass->rows, config->num_embeddings, config->text_dim),
        .text_mask = pass->mask,
        .dot = pass->dot,
    };
    for (int64_t row = 0; row < pass->rows; row++) {
        const struct prior_draw *draw = pass->draws[row % pass->n];
        bool uncond = row < pass->rows - pass->n;
        put_row(pass, &input, row, draw, uncond ? ITEM_ROW_NEGATIVE : draw->row);
    }
    return ar_prior_begin(nn, prior, &input, sequence);
}

/* The bucket in which a number from 0 to 1 falls, of buckets as wide as their softmax; -1 when the
   logits are not finite. */
static int32_t pick(const float *logits, int64_t count, float number)
{
    double top = -INFINITY, total = 0, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(logits[i]))
            return -1;
        top = fmax(top, (double)logits[i]);
    }
    for (int64_t i = 0; i < count; i++)
        total += exp((double)logits[i] - top);
    int32_t code = 0;
    for (; code < count - 1; code++) {
        sum += exp((double)logits[code] - top);
        if (sum >= (double)number * total)
            break;
    }
    return code;
}

/* Code `at` of each draw, from logits [rows, buckets]. */
static void choose(struct pass *pass, struct tensor logits, int64_t at)
{
    const struct ar_prior_config *config = &pass->autoregressive->prior.config;
    int64_t buckets = config->buckets, k = config->dimensions;
    for (int64_t i = 0; i < pass->n; i++) {
        tensor_get(logits, (pass->rows - pass->n + i) * buckets, pass->logits, buckets);
        if (pass->rows > pass->n) {
            tensor_get(logits, i * buckets, pass->uncond, buckets);
            denoise_guide(pass->logits, pass->uncond, (size_t)buckets, pass->guidance);
        }
        int32_t code = pick(pass->logits, buckets, pass->dice[i * k + at]);
        struct item *item = &pass->draws[i]->item;
        if (code < 0 && item_live(item))
            err_set(&item->err, ERR_COMPUTE, "the prior's output for code %lld is not finite",
                    (long long)at + 1);
        pass->codes[i * k + at] = code < 0 ? 0 : code;
        for (int64_t row = i; row < pass->rows; row += pass->n)
            pass->step[row] = pass->codes[i * k + at];
    }
}

/* Fails the draws that were told to stop. Whether any goes on. */
static bool some_live(struct prior_draw *const *draws, int64_t n)
{
    bool live = false;
    for (int64_t i = 0; i < n; i++) {
        struct item *item = &draws[i]->item;
        if (item_live(item) && item->stop)
            err_set(&item->err, ERR_CANCELLED, "the picture was given up between two codes");
        live = live || item_live(item);
    }
    return live;
}

static void finish(struct pass *pass)
{
    const struct ar_prior *prior = &pass->autoregressive->prior;
    for (int64_t i = 0; i < pass->n; i++) {
        struct item *item = &pass->draws[i]->item;
        if (!item_live(item))
            continue;
        item->image_embed = xmalloc((size_t)prior->config.embedding_dim * sizeof(float));
        ar_prior_decode(prior, pass->codes + i * prior->config.dimensions, item->image_embed);
    }
}

/* Steps before this pass, and of all passes. */
struct steps {
    const struct stage_watch *watch;
    int done, all;
};

static int run_codes(struct pass *pass, struct steps *steps, struct err *err)
{
    struct nn *nn = pass->autoregressive->nn;
    struct ar_prior *prior = &pass->autoregressive->prior;
    struct ar_prior_sequence sequence = {0};
    size_t scope = nn_enter(nn);
    struct tensor logits = begin(pass, &sequence);
    int rc = 0;
    for (int64_t at = 0; at < prior->config.dimensions && rc == 0; at++) {
        if (at > 0)
            nn_advance(nn, &logits, ar_prior_next(nn, prior, &sequence, pass->step));
        if ((rc = nn_finish(nn, err)))
            break;
        choose(pass, logits, at);
        if (steps->watch && steps->watch->step)
            steps->watch->step(steps->watch->context, ++steps->done, steps->all);
        if (!some_live(pass->draws, pass->n))
            break;
    }
    ar_prior_end(&sequence);
    nn_leave_all(nn, scope);
    return rc;
}

static int run_pass(struct prior_autoregressive *autoregressive, struct prior_draw **draws,
                    size_t n, const struct stage_settings *settings, struct steps *steps,
                    struct err *err)
{
    struct pass pass;
    pass_init(&pass, autoregressive, draws, n, settings);
    roll(&pass);
    int rc = run_codes(&pass, steps, err);
    if (rc == 0)
        finish(&pass);
    pass_release(&pass);
    return rc;
}

static size_t draws_a_pass(const struct prior_autoregressive *autoregressive,
                           const struct stage_settings *settings)
{
    size_t bytes = ar_prior_row_bytes(autoregressive->nn, &autoregressive->prior);
    size_t n = PRIOR_AUTOREGRESSIVE_BYTES / bytes / (denoise_guided(settings) ? 2 : 1);
    return n < 1 ? 1 : n < DRAWS_A_PASS ? n : DRAWS_A_PASS;
}

int prior_autoregressive_run(struct prior_autoregressive *autoregressive, struct prior_draw *draws,
                             size_t count, const struct stage_settings *settings,
                             const struct stage_watch *watch, struct err *err)
{
    struct prior_draw **live = xcalloc(count + 1, sizeof(struct prior_draw *));
    size_t n = 0, a_pass = draws_a_pass(autoregressive, settings);
    for (size_t i = 0; i < count; i++)
        if (item_live(&draws[i].item))
            live[n++] = &draws[i];
    int dimensions = (int)autoregressive->prior.config.dimensions, rc = 0;
    struct steps steps = {.watch = watch, .all = (int)((n + a_pass - 1) / a_pass) * dimensions};
    for (size_t at = 0; at < n && rc == 0; at += a_pass) {
        size_t in_pass = n - at < a_pass ? n - at : a_pass;
        steps.done = (int)(at / a_pass) * dimensions;
        if (some_live(live + at, (int64_t)in_pass))
            rc = run_pass(autoregressive, live + at, in_pass, settings, &steps, err);
    }
    free(live);
    return rc;
}
