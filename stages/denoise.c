/* SPDX-License-Identifier: Apache-2.0 */
/* The denoising loop; see denoise.h. */
#include "stages/denoise.h"

#include <math.h>
#include <stdlib.h>

#include "common/memory.h"
#include "stages/stage_ops.h"

static void latent_release(struct latent *latent)
{
    free(latent->x);
    free(latent->noise);
    free(latent->output);
    free(latent->variance);
    free(latent->predicted);
    free(latent->deep);
}

/* Whether there is a buffer, where there is to be one. */
static bool allocate(void *out, size_t bytes, bool wanted)
{
    void **buffer = out;
    *buffer = wanted ? malloc(bytes) : NULL;
    return *buffer || !wanted;
}

static bool latent_allocate(struct latent *latent, const struct denoiser *denoiser)
{
    size_t bytes = denoiser->pixels * denoiser->channels * sizeof(float);
    const struct scheduler *scheduler = denoiser->scheduler;
    if (allocate(&latent->x, bytes, true) && allocate(&latent->noise, bytes, true) &&
        allocate(&latent->output, bytes, true) &&
        allocate(&latent->variance, bytes, scheduler_needs_variance(scheduler)) &&
        allocate(&latent->predicted, bytes, scheduler_needs_history(scheduler)) &&
        allocate(&latent->deep, denoiser->deep_bytes, denoiser->deep_bytes > 0))
        return true;
    err_set(&latent->item->err, ERR_OUT_OF_MEMORY, "cannot hold a latent of %zu bytes", bytes);
    latent_release(latent);
    return false;
}

/* torch draws [channels, pixels]; a latent is [pixels, channels]. `scratch` takes the draw. */
static void draw(const struct denoiser *denoiser, struct rng *rng, float *scratch, float *out)
{
    size_t pixels = denoiser->pixels, channels = denoiser->channels;
    rng_normal(rng, scratch, pixels * channels);
    for (size_t c = 0; c < channels; c++)
        for (size_t p = 0; p < pixels; p++)
            out[p * channels + c] = scratch[c * pixels + p];
}

static bool all_finite(const float *values, size_t count)
{
    int bad = 0;
    for (size_t i = 0; i < count; i++)
        bad |= !isfinite(values[i]);
    return !bad;
}

static void latent_step(const struct denoiser *denoiser, struct latent *latent, int i,
                        float *scratch)
{
    size_t count = denoiser->pixels * denoiser->channels;
    if (!all_finite(latent->output, count) ||
        (latent->variance && !all_finite(latent->variance, count))) {
        err_set(&latent->item->err, ERR_COMPUTE, "the network's output of step %d is not finite",
                i + 1);
        return;
    }
    bool noisy = scheduler_needs_noise(denoiser->scheduler, i);
    if (noisy)
        draw(denoiser, &latent->item->rng, scratch, latent->noise);
    scheduler_step(denoiser->scheduler, i, latent->output, latent->variance, latent->x,
                   noisy ? latent->noise : NULL, latent->x, latent->predicted, count);
}

/* Fails the items that were told to stop, and collects the others' latents. */
static size_t collect_live(struct latent *latents, size_t count, struct latent **live)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        struct item *item = latents[i].item;
        if (item_live(item) && item->stop)
            err_set(&item->err, ERR_CANCELLED, "the picture was given up between two steps");
        if (item_live(item))
            live[n++] = &latents[i];
    }
    return n;
}

static int predict_all(const struct denoiser *denoiser, struct latent *const *live, size_t n, int i,
                       struct err *err)
{
    int rc = 0;
    for (size_t at = 0; at < n && rc == 0; at += denoiser->latents_a_pass) {
        size_t rest = n - at;
        size_t in_pass = rest < denoiser->latents_a_pass ? rest : denoiser->latents_a_pass;
        rc = denoiser->predict(denoiser->context, live + at, in_pass, i, err);
    }
    return rc;
}

static int run_steps(const struct denoiser *denoiser, struct latent *latents, size_t count,
                     struct latent **live, float *scratch, const struct stage_watch *watch,
                     struct err *err)
{
    int steps = denoiser->scheduler->steps;
    size_t n = collect_live(latents, count, live);
    for (int i = 0; i < steps && n > 0; i++) {
        int rc = predict_all(denoiser, live, n, i, err);
        if (rc)
            return rc;
        for (size_t k = 0; k < n; k++)
            latent_step(denoiser, live[k], i, scratch);
        if (watch && watch->step)
            watch->step(watch->context, i + 1, steps);
        n = collect_live(latents, count, live);
    }
    for (size_t k = 0; k < n; k++)
        denoiser->finish(denoiser->context, live[k]);
    return 0;
}

int denoise(const struct denoiser *denoiser, struct item *const *items, size_t count,
            const struct stage_watch *watch, struct err *err)
{
    struct latent *latents = xcalloc(count + 1, sizeof *latents);
    struct latent **live = xcalloc(count + 1, sizeof(struct latent *));
    float *scratch = malloc(denoiser->pixels * denoiser->channels * sizeof *scratch);
    size_t n = 0;
    int rc = scratch ? 0 : err_set(err, ERR_OUT_OF_MEMORY, "cannot hold a draw of noise");
    for (size_t i = 0; i < count && rc == 0; i++) {
        latents[n] = (struct latent){.item = items[i], .index = i};
        if (!item_live(items[i]) || !latent_allocate(&latents[n], denoiser))
            continue;
        draw(denoiser, &items[i]->rng, scratch, latents[n++].x);
    }
    if (rc == 0)
        rc = run_steps(denoiser, latents, n, live, scratch, watch, err);
    for (size_t i = 0; i < n; i++)
        latent_release(&latents[i]);
    free(scratch);
    free(live);
    free(latents);
    return rc;
}

void denoise_guide(float *cond, const float *uncond, size_t count, float scale)
{
    for (size_t i = 0; i < count; i++)
        cond[i] = uncond[i] + scale * (cond[i] - uncond[i]);
}

int denoise_set_sampling(struct scheduler *scheduler, const struct stage_settings *settings,
                         bool ends_at_zero, struct err *err)
{
    const struct sampling sampling = {
        .sampler = settings->sampler,
        .steps = settings->steps,
        .eta = settings->eta,
        .ends_at_zero = ends_at_zero,
    };
    return scheduler_set_sampling(scheduler, &sampling, err);
}

bool denoise_guided(const struct stage_settings *settings)
{
    return settings->guidance > 1;
}

size_t denoise_latents_a_pass(size_t pixels, bool guided)
{
    size_t n = DENOISE_PIXELS_A_PASS / (pixels * (guided ? 2 : 1));
    return n > 0 ? n : 1;
}
