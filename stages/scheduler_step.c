/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steps of a scheduler, one function a sampler. Each scalar is rounded to f32 where torch
 * rounds it, so that a walk of many steps stays with the reference's. The names are the
 * reference's: prev is the timestep that a step goes to (-1: the picture itself), alpha_bar the
 * cumulative product, beta the step's share of noise.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

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

/* ---- the predicted picture ---- */

/* How a step reads the network's output. */
struct reading {
    bool epsilon, clip;
    float alpha, sigma;   /* of the sample's picture and noise */
    float limit, divisor; /* the picture is clipped to ±limit, then divided */
};

static float read_raw(const struct reading *reading, float output, float sample)
{
    return reading->epsilon ? (sample - reading->sigma * output) / reading->alpha : output;
}

static float predict(const struct reading *reading, float output, float sample)
{
    float picture = read_raw(reading, output, sample), limit = reading->limit;
    if (!reading->clip)
        return picture;
    return (picture < -limit ? -limit : picture > limit ? limit : picture) / reading->divisor;
}

/* The k-th smallest magnitude of the picture, found a byte at a time: as integers, the bits of
   magnitudes have their order. */
static float magnitude(const struct reading *reading, const float *output, const float *sample,
                       size_t count, size_t k)
{
    uint32_t found = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        size_t counts[256] = {0};
        for (size_t j = 0; j < count; j++) {
            float value = fabsf(read_raw(reading, output[j], sample[j]));
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            if ((uint64_t)bits >> (shift + 8) == found)
                counts[bits >> shift & 255]++;
        }
        uint32_t byte = 0;
        while (k >= counts[byte])
            k -= counts[byte++];
        found = found << 8 | byte;
    }
    float value;
    memcpy(&value, &found, sizeof value);
    return value;
}

/* torch.quantile(): linear between two ranks. */
static float quantile(const struct reading *reading, const float *output, const float *sample,
                      size_t count, float share)
{
    double rank = (double)share * (double)(count - 1);
    size_t k = (size_t)rank;
    float low = magnitude(reading, output, sample, count, k);
    float high = k + 1 < count ? magnitude(reading, output, sample, count, k + 1) : low;
    return low + (float)(rank - (double)k) * (high - low);
}

/* alpha and sigma are the sample's. */
static struct reading read_output(const struct scheduler *scheduler, float alpha, float sigma,
                                  const float *output, const float *sample, size_t count)
{
    bool dynamic = scheduler->threshold > 0;
    struct reading reading = {
        .epsilon = scheduler->prediction == PREDICTION_EPSILON,
        .clip = scheduler->clip_sample || dynamic,
        .alpha = alpha,
        .sigma = sigma,
        .limit = scheduler->clip_range,
        .divisor = 1,
    };
    if (dynamic && count > 0) {
        float s = quantile(&reading, output, sample, count, scheduler->threshold);
        reading.limit = fmaxf(s, scheduler->clip_range);
        reading.divisor = reading.limit / scheduler->clip_range;
    }
    return reading;
}

static struct reading read_step(const struct step *step, float alpha, float sigma)
{
    return read_output(step->scheduler, alpha, sigma, step->model_output, step->sample,
                       step->count);
}

/* ---- between picture and noise ---- */

/* The timestep whose noise step i's sample has; -1: the picture itself. */
static int sample_timestep(const struct scheduler *scheduler, int i)
{
    BUG_ON(i < 0 || i > scheduler->steps);
    return i < scheduler->steps ? scheduler->timesteps[i] : -1;
}

void scheduler_noise(const struct scheduler *scheduler, int i, const float *picture,
                     const float *noise, float *sample, size_t count)
{
    float bar = alpha_bar_at(scheduler, sample_timestep(scheduler, i));
    float alpha = sqrtf(bar), sigma = sqrtf(1.0f - bar);
    for (size_t j = 0; j < count; j++)
        sample[j] = alpha * picture[j] + sigma * noise[j];
}

void scheduler_renoise(const struct scheduler *scheduler, int i, const float *noise, float *x,
                       size_t count)
{
    float ratio = alpha_bar_at(scheduler, sample_timestep(scheduler, i)) /
                  alpha_bar_at(scheduler, sample_timestep(scheduler, i + 1));
    float kept = sqrtf(ratio), added = sqrtf(1.0f - ratio);
    for (size_t j = 0; j < count; j++)
        x[j] = kept * x[j] + added * noise[j];
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
    struct reading reading = read_step(step, k.alpha, k.sigma);
    for (size_t j = 0; j < step->count; j++) {
        float sample = step->sample[j];
        float picture = predict(&reading, step->model_output[j], sample);
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
    struct reading reading = read_step(step, k.alpha, k.sigma);
    for (size_t j = 0; j < step->count; j++) {
        float sample = step->sample[j];
        float picture = predict(&reading, step->model_output[j], sample);
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
    BUG_ON(scheduler->sampler != SAMPLER_DDIM);
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
    struct reading reading = read_output(scheduler, k.alpha, k.sigma, model_output, sample, count);
    for (size_t j = 0; j < count; j++)
        next[j] = ddim_mix(&k, predict(&reading, model_output[j], sample[j]), sample[j]);
}

/*
 * A fixed point that plain repetition runs away from where the network predicts the picture: near
 * the end of the noise it returns about what it is given, and the step weighs that by -slope, which
 * is beyond -1. Moving 1 / (1 + slope) of the way undoes just that. A predicted noise needs none.
 */
float scheduler_inversion_refine(const struct scheduler *scheduler, int i,
                                 const float *model_output, const float *sample, float *guess,
                                 size_t count)
{
    struct ddim_move k = inversion_move(scheduler, i);
    struct reading reading = read_output(scheduler, k.alpha, k.sigma, model_output, sample, count);
    bool picture = scheduler->prediction == PREDICTION_SAMPLE;
    float slope = picture ? fabsf(k.direction / k.sigma * k.alpha - k.alpha_next) : 0;
    float most = 0;
    for (size_t j = 0; j < count; j++) {
        float given = predict(&reading, model_output[j], sample[j]);
        float move = (ddim_mix(&k, given, sample[j]) - guess[j]) / (1.0f + slope);
        guess[j] += move;
        most = fmaxf(most, fabsf(move));
    }
    return most;
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
    bool second = i > scheduler->first && i + 1 < scheduler->steps; /* else of first order */
    struct level from = level_at(scheduler, timesteps[i]);
    struct level to = level_at(scheduler, prev_timestep(scheduler, i));
    struct level before = second ? level_at(scheduler, timesteps[i - 1]) : from;
    float h = to.lambda - from.lambda, r = (from.lambda - before.lambda) / h;
    float current = to.sigma / from.sigma, original = to.alpha * (expf(-h) - 1.0f);
    struct reading reading = read_step(step, from.alpha, from.sigma);
    for (size_t j = 0; j < step->count; j++) {
        float sample = step->sample[j];
        float picture = predict(&reading, step->model_output[j], sample);
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
