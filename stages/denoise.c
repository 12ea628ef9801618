/* SPDX-License-Identifier: Apache-2.0 */
/* The denoising loop; see denoise.h. */
#include "stages/denoise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    source_view_release(&latent->source);
}

/* Whether there is a buffer, where there is to be one. */
static bool allocate(void *out, size_t bytes, bool wanted)
{
    void **buffer = out;
    *buffer = wanted ? malloc(bytes) : NULL;
    return *buffer || !wanted;
}

static bool latent_allocate(struct latent *latent, const struct denoiser *denoiser, bool previewed)
{
    size_t bytes = denoiser->pixels * denoiser->channels * sizeof(float);
    const struct scheduler *scheduler = denoiser->scheduler;
    if (allocate(&latent->x, bytes, true) && allocate(&latent->noise, bytes, true) &&
        allocate(&latent->output, bytes, true) &&
        allocate(&latent->variance, bytes, scheduler_needs_variance(scheduler)) &&
        allocate(&latent->predicted, bytes, previewed || scheduler_needs_history(scheduler)) &&
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

/* ---- the loop ---- */

/* One call of denoise(). */
struct loop {
    const struct denoiser *denoiser;
    const struct stage_watch *watch; /* or NULL */
    struct latent *latents;
    size_t count;
    struct latent **live; /* [n]: those whose items have not failed */
    size_t n;
    struct latent **some; /* [count]: room for a part of them */
    float *scratch;       /* [pixels * channels] */
    int done, total;      /* rounds: steps, repeated steps, steps of the inversion */
};

static size_t values_of(const struct loop *loop)
{
    return loop->denoiser->pixels * loop->denoiser->channels;
}

/* Fails the items that were told to stop, and collects the others' latents. */
static void collect_live(struct loop *loop)
{
    loop->n = 0;
    for (size_t i = 0; i < loop->count; i++) {
        struct item *item = loop->latents[i].item;
        if (item_live(item) && item->stop)
            err_set(&item->err, ERR_CANCELLED, "the picture was given up between two steps");
        if (item_live(item))
            loop->live[loop->n++] = &loop->latents[i];
    }
}

/* The share of the work is told in units of the scheduler's steps. */
static void end_round(struct loop *loop)
{
    int steps = loop->denoiser->scheduler->steps;
    loop->done++;
    if (loop->watch && loop->watch->step)
        loop->watch->step(loop->watch->context, (int)((int64_t)loop->done * steps / loop->total),
                          steps);
    collect_live(loop);
}

static int predict_all(const struct denoiser *denoiser, struct latent *const *latents, size_t n,
                       int i, bool inverting, struct err *err)
{
    int rc = 0;
    for (size_t at = 0; at < n && rc == 0; at += denoiser->latents_a_pass) {
        size_t rest = n - at;
        const struct denoise_pass pass = {
            .latents = latents + at,
            .count = rest < denoiser->latents_a_pass ? rest : denoiser->latents_a_pass,
            .i = i,
            .inverting = inverting,
        };
        rc = denoiser->predict(denoiser->context, &pass, err);
    }
    return rc;
}

/* Whether the network's output is of use; fails the item. */
static bool check_output(const struct loop *loop, struct latent *latent, int i, bool inverting)
{
    size_t count = values_of(loop);
    const float *variance = inverting ? NULL : latent->variance;
    if (!all_finite(latent->output, count) || (variance && !all_finite(variance, count)))
        err_set(&latent->item->err, ERR_COMPUTE, "the network's output of step %d is not finite",
                i + 1);
    return item_live(latent->item);
}

/* ---- keeping the source ---- */

/* What step i has made of the kept pixels becomes the source, as noisy as the rest. */
static void keep_source(const struct loop *loop, struct latent *latent, int i)
{
    const struct denoiser *denoiser = loop->denoiser;
    const struct scheduler *scheduler = denoiser->scheduler;
    int left = scheduler->steps - 1 - i;
    if (left == 0) {
        source_view_keep(&latent->source, latent->x);
        return;
    }
    draw(denoiser, &latent->item->rng, loop->scratch, latent->noise);
    scheduler_noise(scheduler, i + 1, latent->source.picture, latent->noise, latent->noise,
                    values_of(loop));
    float edge = (float)left / (float)scheduler->steps;
    for (size_t p = 0; p < denoiser->pixels; p++)
        if (latent->source.paint[p] <= edge)
            memcpy(latent->x + p * denoiser->channels, latent->noise + p * denoiser->channels,
                   denoiser->channels * sizeof(float));
}

static void jump_back(const struct loop *loop, struct latent *latent, int i)
{
    draw(loop->denoiser, &latent->item->rng, loop->scratch, latent->noise);
    scheduler_renoise(loop->denoiser->scheduler, i, latent->noise, latent->x, values_of(loop));
}

/* ---- steps ---- */

/* `again`: the step will be taken once more; what it predicted must not count as the last step's.
 */
static void latent_step(const struct loop *loop, struct latent *latent, int i, bool again)
{
    const struct denoiser *denoiser = loop->denoiser;
    const struct scheduler *scheduler = denoiser->scheduler;
    size_t count = values_of(loop);
    if (!check_output(loop, latent, i, false))
        return;
    bool noisy = scheduler_needs_noise(scheduler, i);
    if (noisy)
        draw(denoiser, &latent->item->rng, loop->scratch, latent->noise);
    float *predicted = latent->predicted;
    if (again && predicted) {
        memcpy(loop->scratch, predicted, count * sizeof *predicted);
        predicted = loop->scratch;
    }
    scheduler_step(scheduler, i, latent->output, latent->variance, latent->x,
                   noisy ? latent->noise : NULL, latent->x, predicted, count);
    if (latent->source.paint)
        keep_source(loop, latent, i);
    if (again)
        jump_back(loop, latent, i);
}

static int take_step(const struct loop *loop, struct latent *const *latents, size_t n, int i,
                     bool again, struct err *err)
{
    int rc = predict_all(loop->denoiser, latents, n, i, false, err);
    for (size_t k = 0; k < n && rc == 0; k++)
        latent_step(loop, latents[k], i, again);
    return rc;
}

/* How often step i is taken before it counts, by latents with a mask. */
static int repeats(const struct denoiser *denoiser, int i)
{
    return denoiser->side && i + 1 < denoiser->scheduler->steps ? denoiser->settings->resample : 0;
}

static int resample(struct loop *loop, int i, struct err *err)
{
    int rc = 0;
    for (int k = 0; k < repeats(loop->denoiser, i) && rc == 0; k++) {
        size_t n = 0;
        for (size_t l = 0; l < loop->n; l++)
            if (loop->live[l]->source.paint)
                loop->some[n++] = loop->live[l];
        if (n == 0)
            return 0;
        rc = take_step(loop, loop->some, n, i, true, err);
        if (rc == 0)
            end_round(loop);
    }
    return rc;
}

static bool previewing(const struct loop *loop, const struct item *item)
{
    return loop->denoiser->side && loop->watch && loop->watch->preview && item->preview > 0;
}

static void preview(const struct loop *loop, int i)
{
    const struct denoiser *denoiser = loop->denoiser;
    const struct stage_watch *watch = loop->watch;
    int taken = i + 1 - denoiser->scheduler->first;
    for (size_t k = 0; k < loop->n; k++) {
        const struct latent *latent = loop->live[k];
        size_t place = denoiser->places ? denoiser->places[latent->index] : latent->index;
        if (previewing(loop, latent->item) && item_live(latent->item) &&
            taken % latent->item->preview == 0)
            watch->preview(watch->context, place, latent->predicted, denoiser->side);
    }
}

static int run_steps(struct loop *loop, struct err *err)
{
    const struct scheduler *scheduler = loop->denoiser->scheduler;
    for (int i = scheduler->first; i < scheduler->steps && loop->n > 0; i++) {
        int rc = resample(loop, i, err);
        if (rc == 0)
            rc = take_step(loop, loop->live, loop->n, i, false, err);
        if (rc)
            return rc;
        preview(loop, i);
        end_round(loop);
    }
    return 0;
}

/* ---- where it starts ---- */

/* The way back begins a step with what the last output says of it. latent->noise takes the sample.
 */
static void begin_inverse_step(const struct loop *loop, struct latent *latent, int i)
{
    size_t count = values_of(loop);
    memcpy(latent->noise, latent->x, count * sizeof(float));
    if (i > 0)
        scheduler_inversion_step(loop->denoiser->scheduler, i, latent->output, latent->x, latent->x,
                                 count);
}

/* One pass of those that are not there yet; as many as that are left in loop->some. */
static int refine(struct loop *loop, size_t *n, int i, struct err *err)
{
    const struct scheduler *scheduler = loop->denoiser->scheduler;
    int step = scheduler->steps - 1 - i;
    int rc = predict_all(loop->denoiser, loop->some, *n, step, true, err);
    size_t left = 0;
    for (size_t k = 0; k < *n && rc == 0; k++) {
        struct latent *latent = loop->some[k];
        if (check_output(loop, latent, step, true) &&
            scheduler_inversion_refine(scheduler, i, latent->output, latent->noise, latent->x,
                                       values_of(loop)) > INVERSION_NEAR)
            loop->some[left++] = latent;
    }
    *n = left;
    return rc;
}

/* From x, the source, to the noise that DDIM makes it of. */
static int invert(struct loop *loop, struct err *err)
{
    for (int i = 0; i < loop->denoiser->scheduler->steps && loop->n > 0; i++) {
        size_t n = loop->n;
        for (size_t k = 0; k < n; k++) {
            begin_inverse_step(loop, loop->live[k], i);
            loop->some[k] = loop->live[k];
        }
        for (int pass = 0; pass < INVERSION_PASSES && n > 0; pass++) {
            int rc = refine(loop, &n, i, err);
            if (rc)
                return rc;
        }
        end_round(loop);
    }
    return 0;
}

/* Whether the item's source is looked at; an embedding has none. */
static bool needs_source(const struct denoiser *denoiser, const struct item *item)
{
    return denoiser->side && (item->mask || denoiser->settings->start != START_NOISE);
}

/* Along the circle on which noise of two seeds lies: its variance stays 1. The item's generator is
   as it would be otherwise. */
static void move_noise(const struct loop *loop, struct latent *latent)
{
    struct rng other;
    double angle = latent->item->noise_place * (M_PI / 2);
    float from = (float)cos(angle), to = (float)sin(angle);
    if (latent->item->noise_place >= 1)
        from = 0;
    rng_seed(&other, latent->item->noise_seed);
    draw(loop->denoiser, &other, loop->scratch, latent->noise);
    for (size_t i = 0; i < values_of(loop); i++)
        latent->x[i] = from * latent->x[i] + to * latent->noise[i];
}

static void begin(const struct loop *loop, struct latent *latent)
{
    const struct denoiser *denoiser = loop->denoiser;
    int first = denoiser->scheduler->first;
    if (denoiser->settings->start == START_INVERSION) {
        memcpy(latent->x, latent->source.picture, values_of(loop) * sizeof(float));
        return;
    }
    draw(denoiser, &latent->item->rng, loop->scratch, latent->x);
    if (denoiser->noise_moves && latent->item->noise_place > 0)
        move_noise(loop, latent);
    if (first > 0)
        scheduler_noise(denoiser->scheduler, first, latent->source.picture, latent->x, latent->x,
                        values_of(loop));
}

static bool latent_init(const struct loop *loop, struct latent *latent)
{
    const struct denoiser *denoiser = loop->denoiser;
    struct item *item = latent->item;
    if (!latent_allocate(latent, denoiser, previewing(loop, item)))
        return false;
    if (needs_source(denoiser, item) &&
        source_view_init(&latent->source, item, denoiser->side, &item->err)) {
        latent_release(latent);
        return false;
    }
    begin(loop, latent);
    return true;
}

static void count_rounds(struct loop *loop)
{
    const struct denoiser *denoiser = loop->denoiser;
    int steps = denoiser->scheduler->steps, first = denoiser->scheduler->first;
    bool masked = false;
    for (size_t i = 0; i < loop->count; i++)
        masked |= loop->latents[i].source.paint != NULL;
    loop->total = denoiser->settings->start == START_INVERSION ? 2 * steps : steps - first;
    for (int i = first; masked && i < steps; i++)
        loop->total += repeats(denoiser, i);
}

static int run(struct loop *loop, struct err *err)
{
    int rc = 0;
    count_rounds(loop);
    collect_live(loop);
    if (loop->denoiser->settings->start == START_INVERSION)
        rc = invert(loop, err);
    if (rc == 0)
        rc = run_steps(loop, err);
    for (size_t k = 0; k < loop->n && rc == 0; k++)
        loop->denoiser->finish(loop->denoiser->context, loop->live[k]);
    return rc;
}

int denoise(const struct denoiser *denoiser, struct item *const *items, size_t count,
            const struct stage_watch *watch, struct err *err)
{
    struct loop loop = {
        .denoiser = denoiser,
        .watch = watch,
        .latents = xcalloc(count + 1, sizeof *loop.latents),
        .live = xcalloc(count + 1, sizeof *loop.live),
        .some = xcalloc(count + 1, sizeof *loop.some),
        .scratch = malloc(denoiser->pixels * denoiser->channels * sizeof(float)),
    };
    int rc = loop.scratch ? 0 : err_set(err, ERR_OUT_OF_MEMORY, "cannot hold a draw of noise");
    for (size_t i = 0; i < count && rc == 0; i++) {
        loop.latents[loop.count] = (struct latent){.item = items[i], .index = i};
        if (item_live(items[i]) && latent_init(&loop, &loop.latents[loop.count]))
            loop.count++;
    }
    if (rc == 0)
        rc = run(&loop, err);
    for (size_t i = 0; i < loop.count; i++)
        latent_release(&loop.latents[i]);
    free(loop.scratch);
    free(loop.some);
    free(loop.live);
    free(loop.latents);
    return rc;
}

/* ---- settings ---- */

void denoise_guide(float *cond, const float *uncond, size_t count, float scale)
{
    for (size_t i = 0; i < count; i++)
        cond[i] = uncond[i] + scale * (cond[i] - uncond[i]);
}

int denoise_set_sampling(struct scheduler *scheduler, const struct stage_settings *settings,
                         bool ends_at_zero, struct err *err)
{
    bool from_picture = settings->start == START_PICTURE;
    if (settings->start == START_INVERSION && settings->sampler != SAMPLER_DDIM)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "start is 'inversion' with the sampler '%s', it needs 'ddim'",
                       sampler_name(settings->sampler));
    if (from_picture && !(settings->strength >= 0 && settings->strength <= 1))
        return err_set(err, ERR_INVALID_ARGUMENT, "strength is %g, it must be from 0 to 1",
                       settings->strength);
    int taken = from_picture ? (int)(settings->steps * settings->strength) : settings->steps;
    const struct sampling sampling = {
        .sampler = settings->sampler,
        .steps = settings->steps,
        .eta = settings->eta,
        .ends_at_zero = ends_at_zero,
        .first = settings->steps - taken,
        .threshold = settings->threshold,
    };
    return scheduler_set_sampling(scheduler, &sampling, err);
}

bool denoise_guided(const struct stage_settings *settings)
{
    return settings->guidance > 1;
}

bool denoise_keeps(const struct stage_settings *settings, size_t count, size_t bytes)
{
    size_t most = settings->kept_bytes_max ? settings->kept_bytes_max : DENOISE_KEPT_BYTES_MAX;
    return bytes > 0 && count <= most / bytes;
}

size_t denoise_latents_a_pass(size_t pixels, bool guided)
{
    size_t n = DENOISE_PIXELS_A_PASS / (pixels * (guided ? 2 : 1));
    return n > 0 ? n : 1;
}
