/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of a scheduler, one function a sampler. Each scalar is rounded to f32 where torch
 * rounds it, so that a walk of many steps stays with the reference's. The names are the
 * reference's: prev is the timestep that a step goes to (-1: the picture itself), alpha_bar the
 * cumulative product, beta the step's share of noise.
 */
#include <math.h>

#include "stages/scheduler.h"

/* One call of scheduler_step(). */
struct step {
    const struct scheduler *scheduler;
    int i;
    const float *model_output, *variance, *sample, *noise;
    float *prev, *predicted;
    size_t count;
};

static int prev_timestep(const struct scheduler *scheduler, int i)
{
    return i + 1 < scheduler->steps ? scheduler->timesteps[i + 1] : -1;
}

static float alpha_bar_at(const struct scheduler *scheduler, int timestep)
{
    return timestep >= 0 ? scheduler->alphas_bar[timestep] : 1.0f;
}

bool scheduler_needs_noise(const struct scheduler *scheduler, int i)
{
    BUG_ON(i < 0 || i >= scheduler->steps);
    bool random = scheduler->sampler == SAMPLER_DDPM ||
                  (scheduler->sampler == SAMPLER_DDIM && scheduler->eta > 0);
    return random && prev_timestep(scheduler, i) >= 0;
}

bool scheduler_needs_variance(const struct scheduler *scheduler)
{
    return scheduler->sampler == SAMPLER_DDPM && scheduler->variance == VARIANCE_LEARNED_RANGE;
}

bool scheduler_needs_history(const struct scheduler *scheduler)
{
    return scheduler->sampler == SAMPLER_DPM_SOLVER_PP;
}

/* The picture that the network has predicted; alpha and sigma: of the sample's picture and noise.
 */
static float predict(const struct scheduler *scheduler, float alpha, float sigma, float output,
                     float sample)
{
    float picture = output;
    if (scheduler->prediction == PREDICTION_EPSILON)
        picture = (sample - sigma * output) / alpha;
    if (!scheduler->clip_sample)
        return picture;
    float range = scheduler->clip_range;
    return picture < -range ? -range : picture > range ? range : picture;
}

/* ---- ddpm ---- */

/* What a step needs, all f32 scalars. */
struct coefficients {
    float alpha, sigma;      /* of this timestep */
    float original, current; /* weights of the predicted picture and the sample */
    float deviation;         /* of the noise, VARIANCE_FIXED_SMALL_LOG */
    float min_log, max_log;  /* variance's bounds, VARIANCE_LEARNED_RANGE */
};

static struct coefficients ddpm_coefficients(const struct scheduler *scheduler, int i)
{
    int t = scheduler->timesteps[i], prev = prev_timestep(scheduler, i);
    float bar = alpha_bar_at(scheduler, t), bar_prev = alpha_bar_at(scheduler, prev);
    float beta_bar = 1.0f - bar, beta_bar_prev = 1.0f - bar_prev;
    float beta = prev == t - 1 ? scheduler->betas[t] : 1.0f - bar / bar_prev;
    float variance = beta_bar_prev / beta_bar * beta;
    return (struct coefficients){
        .alpha = sqrtf(bar),
        .sigma = sqrtf(beta_bar),
        .original = sqrtf(bar_prev) * beta / beta_bar,
        .current = sqrtf(1.0f - beta) * beta_bar_prev / beta_bar,
        .deviation = expf(0.5f * logf(fmaxf(variance, 1e-20f))),
        .min_log = logf(variance),
        .max_log = logf(beta),
    };
}

static float learned_deviation(const struct coefficients *k, float variance)
{
    float share = (variance + 1.0f) / 2.0f;
    return expf(0.5f * (share * k->max_log + (1.0f - share) * k->min_log));
}

static void step_ddpm(const struct step *step)
{
    bool learned = scheduler_needs_variance(step->scheduler);
    struct coefficients k = ddpm_coefficients(step->scheduler, step->i);
    for (size_t j = 0; j < step->count; j++) {
        float sample = step->sample[j];
        float picture = predict(step->scheduler, k.alpha, k.sigma, step->model_output[j], sample);
        float mean = k.original * picture + k.current * sample;
        if (step->predicted)
            step->predicted[j] = picture;
        if (step->noise)
            mean +=
                (learned ? learned_deviation(&k, step->variance[j]) : k.deviation) * step->noise[j];
        step->prev[j] = mean;
    }
}

/* ---- ddim ---- */

/* From one level of noise to another, either way: picture, noise that it implies, and both mixed.
 */
struct ddim_move {
    float alpha, sigma;          /* of the sample */
    float alpha_next, direction; /* weights of picture and implied noise */
    float deviation;             /* of fresh noise */
};

static float ddim_mix(const struct ddim_move *k, float picture, float sample)
{
    float noise = (sample - k->alpha * picture) / k->sigma;
    return k->alpha_next * picture + k->direction * noise;
}

static void step_ddim(const struct step *step)
{
    const struct scheduler *scheduler = step->scheduler;
    int t = scheduler->timesteps[step->i];
    float bar = alpha_bar_at(scheduler, t);
    float bar_prev = alpha_bar_at(scheduler, prev_timestep(scheduler, step->i));
    float variance = (1.0f - bar_prev) / (1.0f - bar) * (1.0f - bar / bar_prev);
    float deviation = scheduler->eta * sqrtf(variance);
    struct ddim_move k = {
        .alpha = sqrtf(bar),
        .sigma = sqrtf(1.0f - bar),
        .alpha_next = sqrtf(bar_prev),
        .direction = sqrtf(fmaxf(1.0f - bar_prev - deviation * deviation, 0.0f)),
        .deviation = deviation,
    };
    for (size_t j = 0; j < step->count; j++) {
        float sample = step->sample[j];
        float picture = predict(scheduler, k.alpha, k.sigma, step->model_output[j], sample);
        float prev = ddim_mix(&k, picture, sample);
        if (step->predicted)
            step->predicted[j] = picture;
        step->prev[j] = step->noise ? prev + k.deviation * step->noise[j] : prev;
    }
}

int scheduler_inversion_timestep(const struct scheduler *scheduler, int i)
{
    BUG_ON(i < 0 || i >= scheduler->steps);
    return scheduler->timesteps[scheduler->steps - 1 - i];
}

static struct ddim_move inversion_move(const struct scheduler *scheduler, int i)
{
    BUG_ON(scheduler->sampler != SAMPLER_DDIM || scheduler->eta > 0);
    int from = i > 0 ? scheduler_inversion_timestep(scheduler, i - 1) : 0;
    float bar = alpha_bar_at(scheduler, from);
    float bar_next = alpha_bar_at(scheduler, scheduler_inversion_timestep(scheduler, i));
    return (struct ddim_move){
        .alpha = sqrtf(bar),
        .sigma = sqrtf(1.0f - bar),
        .alpha_next = sqrtf(bar_next),
        .direction = sqrtf(1.0f - bar_next),
    };
}

void scheduler_inversion_step(const struct scheduler *scheduler, int i, const float *model_output,
                              const float *sample, float *next, size_t count)
{
    struct ddim_move k = inversion_move(scheduler, i);
    for (size_t j = 0; j < count; j++)
        next[j] = ddim_mix(&k, predict(scheduler, k.alpha, k.sigma, model_output[j], sample[j]),
                           sample[j]);
}

/*
 * A fixed point that plain repetition runs away from where the network predicts the picture: near
 * the end of the noise it returns about what it is given, and the step weighs that by -slope, which
 * is beyond -1. Moving 1 / (1 + slope) of the way undoes just that. A predicted noise needs none.
 */
void scheduler_inversion_refine(const struct scheduler *scheduler, int i, const float *model_output,
                                const float *sample, float *guess, size_t count)
{
    struct ddim_move k = inversion_move(scheduler, i);
    bool picture = scheduler->prediction == PREDICTION_SAMPLE;
    float slope = picture ? fabsf(k.direction / k.sigma * k.alpha - k.alpha_next) : 0;
    for (size_t j = 0; j < count; j++) {
        float given = predict(scheduler, k.alpha, k.sigma, model_output[j], sample[j]);
        guess[j] += (ddim_mix(&k, given, sample[j]) - guess[j]) / (1.0f + slope);
    }
}

/* ---- dpm-solver++ ---- */

/* A level of noise: of the sample, alpha is picture and sigma noise; lambda = log(alpha / sigma).
 */
struct level {
    float alpha, sigma, lambda;
};

static struct level level_at(const struct scheduler *scheduler, int timestep)
{
    float bar = alpha_bar_at(scheduler, timestep);
    float ratio = sqrtf((1.0f - bar) / bar); /* 0 at the picture, whose lambda is infinite */
    struct level level = {.alpha = 1.0f / sqrtf(ratio * ratio + 1.0f)};
    level.sigma = ratio * level.alpha;
    level.lambda = logf(level.alpha) - logf(level.sigma);
    return level;
}

static void step_dpm_solver_pp(const struct step *step)
{
    const struct scheduler *scheduler = step->scheduler;
    int i = step->i, *timesteps = scheduler->timesteps;
    bool second = i > 0 && i + 1 < scheduler->steps; /* else of first order */
    struct level from = level_at(scheduler, timesteps[i]);
    struct level to = level_at(scheduler, prev_timestep(scheduler, i));
    struct level before = second ? level_at(scheduler, timesteps[i - 1]) : from;
    float h = to.lambda - from.lambda, r = (from.lambda - before.lambda) / h;
    float current = to.sigma / from.sigma, original = to.alpha * (expf(-h) - 1.0f);
    for (size_t j = 0; j < step->count; j++) {
        float sample = step->sample[j];
        float picture = predict(scheduler, from.alpha, from.sigma, step->model_output[j], sample);
        float prev = current * sample - original * picture;
        if (second)
            prev -= 0.5f * original * (1.0f / r * (picture - step->predicted[j]));
        step->predicted[j] = picture;
        step->prev[j] = prev;
    }
}

void scheduler_step(const struct scheduler *scheduler, int i, const float *model_output,
                    const float *variance, const float *sample, const float *noise, float *prev,
                    float *predicted, size_t count)
{
    bool noisy = scheduler_needs_noise(scheduler, i);
    struct step step = {
        .scheduler = scheduler,
        .i = i,
        .model_output = model_output,
        .variance = variance,
        .sample = sample,
        .noise = noisy ? noise : NULL,
        .prev = prev,
        .predicted = predicted,
        .count = count,
    };
    BUG_ON(noisy && !noise);
    BUG_ON(noisy && scheduler_needs_variance(scheduler) && !variance);
    BUG_ON(scheduler_needs_history(scheduler) && !predicted);
    switch (scheduler->sampler) {
    case SAMPLER_DDPM:
        step_ddpm(&step);
        return;
    case SAMPLER_DDIM:
        step_ddim(&step);
        return;
    case SAMPLER_DPM_SOLVER_PP:
        step_dpm_solver_pp(&step);
        return;
    case SAMPLER_COUNT:
        break;
    }
    BUG("no such sampler");
}
