/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UnCLIPScheduler. Each scalar is rounded to f32 where torch rounds it, so that a walk of many
 * steps stays with the reference's. The names are the reference's: prev is the timestep that a step
 * goes to (-1: the picture itself), alpha_bar the cumulative product, beta the step's share of
 * noise.
 */
#include "stages/scheduler.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/memory.h"

#define CONFIG_MAX (1u << 20) /* bytes of scheduler_config.json */

static double alpha_bar(double t)
{
    double c = cos((t + 0.008) / 1.008 * M_PI / 2);
    return c * c;
}

/* squaredcos_cap_v2. torch's cumprod on the CPU multiplies in double and rounds what it stores. */
static void make_tables(struct scheduler *scheduler)
{
    int n = scheduler->train_steps;
    double product = 1;
    scheduler->betas = xcalloc((size_t)n, sizeof(float));
    scheduler->alphas_bar = xcalloc((size_t)n, sizeof(float));
    for (int i = 0; i < n; i++) {
        double beta = 1 - alpha_bar((double)(i + 1) / n) / alpha_bar((double)i / n);
        scheduler->betas[i] = (float)fmin(beta, 0.999);
        product *= 1.0f - scheduler->betas[i];
        scheduler->alphas_bar[i] = (float)product;
    }
}

/* Index of `value` among `names`, or ERR_UNSUPPORTED naming key and value. */
static int pick(const char *const *names, int count, const char *value, const char *key,
                const char *path, struct err *err)
{
    for (int i = 0; i < count; i++)
        if (strcmp(names[i], value) == 0)
            return i;
    return err_set(err, ERR_UNSUPPORTED, "%s: '%s' is '%s', known are '%s'%s%s%s", path, key, value,
                   names[0], count > 1 ? " and '" : "", count > 1 ? names[1] : "",
                   count > 1 ? "'" : "");
}

static int read_choice(const json_t *config, const char *key, const char *const *names, int count,
                       const char *path, struct err *err)
{
    const char *value = names[0];
    int result = jsonx_string(config, key, &value, path, err);
    return result < 0 ? result : pick(names, count, value, key, path, err);
}

/* The first name of each list is the class's default. */
static int read_types(struct scheduler *scheduler, const json_t *config, const char *path,
                      struct err *err)
{
    static const char *const classes[] = {"UnCLIPScheduler"};
    static const char *const schedules[] = {"squaredcos_cap_v2"};
    static const char *const predictions[] = {"epsilon", "sample"};
    static const char *const variances[] = {"fixed_small_log", "learned_range"};
    int choice = read_choice(config, "_class_name", classes, 1, path, err);
    if (choice >= 0)
        choice = read_choice(config, "beta_schedule", schedules, 1, path, err);
    if (choice >= 0)
        choice = read_choice(config, "prediction_type", predictions, 2, path, err);
    if (choice < 0)
        return choice;
    scheduler->prediction = (enum prediction_type)choice;
    choice = read_choice(config, "variance_type", variances, 2, path, err);
    if (choice < 0)
        return choice;
    scheduler->variance = (enum variance_type)choice;
    return 0;
}

static int read_config(struct scheduler *scheduler, const json_t *config, const char *path,
                       struct err *err)
{
    int64_t train_steps = 1000;
    double range = 1;
    if (!json_is_object(config))
        return err_set(err, ERR_INVALID_MODEL, "%s is not a JSON object", path);
    int result = read_types(scheduler, config, path, err);
    if (result == 0)
        result = jsonx_int(config, "num_train_timesteps", 1, SCHEDULER_TRAIN_STEPS_MAX,
                           &train_steps, path, err);
    if (result == 0)
        result = jsonx_bool(config, "clip_sample", &scheduler->clip_sample, path, err);
    if (result == 0)
        result = jsonx_double(config, "clip_sample_range", &range, path, err);
    if (result != 0)
        return result;
    scheduler->train_steps = (int)train_steps;
    scheduler->clip_range = (float)range;
    if (!(scheduler->clip_range > 0) || !isfinite(scheduler->clip_range))
        return err_set(err, ERR_INVALID_MODEL, "%s: 'clip_sample_range' is %g, it must be positive",
                       path, range);
    return 0;
}

int scheduler_load(struct scheduler *scheduler, const char *path, struct err *err)
{
    struct scheduler loaded = {.clip_sample = true};
    json_t *config;
    int result = jsonx_read_file(&config, path, CONFIG_MAX, err);
    if (result != 0)
        return result;
    result = read_config(&loaded, config, path, err);
    json_decref(config);
    if (result != 0)
        return result;
    make_tables(&loaded);
    *scheduler = loaded;
    return 0;
}

void scheduler_release(struct scheduler *scheduler)
{
    free(scheduler->betas);
    free(scheduler->alphas_bar);
    free(scheduler->timesteps);
    memset(scheduler, 0, sizeof *scheduler);
}

int scheduler_set_steps(struct scheduler *scheduler, int steps, struct err *err)
{
    if (steps < 1 || steps > scheduler->train_steps)
        return err_set(err, ERR_INVALID_ARGUMENT, "%d steps, they must be from 1 to %d", steps,
                       scheduler->train_steps);
    int last = scheduler->train_steps - 1;
    double ratio = steps > 1 ? (double)last / (steps - 1) : 0;
    scheduler->timesteps = xrealloc(scheduler->timesteps, (size_t)steps * sizeof(int));
    for (int i = 0; i < steps; i++) /* rint: half to even, as numpy's round */
        scheduler->timesteps[i] = steps > 1 ? (int)rint((steps - 1 - i) * ratio) : last;
    scheduler->steps = steps;
    return 0;
}

static int prev_timestep(const struct scheduler *scheduler, int i)
{
    return i + 1 < scheduler->steps ? scheduler->timesteps[i + 1] : -1;
}

bool scheduler_needs_noise(const struct scheduler *scheduler, int i)
{
    BUG_ON(i < 0 || i >= scheduler->steps);
    return prev_timestep(scheduler, i) >= 0;
}

/* What a step needs, all f32 scalars. */
struct coefficients {
    float sqrt_alpha_bar, sqrt_beta_bar; /* of this timestep */
    float original, current;             /* weights of the predicted picture and the sample */
    float deviation;                     /* of the noise, VARIANCE_FIXED_SMALL_LOG */
    float min_log, max_log;              /* variance's bounds, VARIANCE_LEARNED_RANGE */
};

static struct coefficients step_coefficients(const struct scheduler *scheduler, int i)
{
    int t = scheduler->timesteps[i], prev = prev_timestep(scheduler, i);
    float bar = scheduler->alphas_bar[t];
    float bar_prev = prev >= 0 ? scheduler->alphas_bar[prev] : 1.0f;
    float beta_bar = 1.0f - bar, beta_bar_prev = 1.0f - bar_prev;
    float beta = prev == t - 1 ? scheduler->betas[t] : 1.0f - bar / bar_prev;
    float variance = beta_bar_prev / beta_bar * beta;
    return (struct coefficients){
        .sqrt_alpha_bar = sqrtf(bar),
        .sqrt_beta_bar = sqrtf(beta_bar),
        .original = sqrtf(bar_prev) * beta / beta_bar,
        .current = sqrtf(1.0f - beta) * beta_bar_prev / beta_bar,
        .deviation = expf(0.5f * logf(fmaxf(variance, 1e-20f))),
        .min_log = logf(variance),
        .max_log = logf(beta),
    };
}

static float predict(const struct scheduler *scheduler, const struct coefficients *k, float output,
                     float sample)
{
    float picture = output;
    if (scheduler->prediction == PREDICTION_EPSILON)
        picture = (sample - k->sqrt_beta_bar * output) / k->sqrt_alpha_bar;
    if (!scheduler->clip_sample)
        return picture;
    float range = scheduler->clip_range;
    return picture < -range ? -range : picture > range ? range : picture;
}

static float learned_deviation(const struct coefficients *k, float variance)
{
    float share = (variance + 1.0f) / 2.0f;
    return expf(0.5f * (share * k->max_log + (1.0f - share) * k->min_log));
}

void scheduler_step(const struct scheduler *scheduler, int i, const float *model_output,
                    const float *variance, const float *sample, const float *noise, float *prev,
                    float *predicted, size_t count)
{
    BUG_ON(i < 0 || i >= scheduler->steps);
    bool noisy = scheduler_needs_noise(scheduler, i);
    bool learned = scheduler->variance == VARIANCE_LEARNED_RANGE;
    BUG_ON(noisy && !noise);
    BUG_ON(noisy && learned && !variance);
    struct coefficients k = step_coefficients(scheduler, i);
    for (size_t j = 0; j < count; j++) {
        float picture = predict(scheduler, &k, model_output[j], sample[j]);
        float mean = k.original * picture + k.current * sample[j];
        if (predicted)
            predicted[j] = picture;
        if (noisy)
            mean += (learned ? learned_deviation(&k, variance[j]) : k.deviation) * noise[j];
        prev[j] = mean;
    }
}
