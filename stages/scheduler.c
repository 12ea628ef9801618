/* SPDX-License-Identifier: Apache-2.0 */
/* A scheduler's configuration, tables and timesteps; the steps are in scheduler_step.c. */
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

/* Of step i of `steps`, as UnCLIPScheduler: from the last timestep of training to 0. */
static int spaced_to_zero(int i, int steps, int train_steps)
{
    int last = train_steps - 1;
    return steps > 1 ? (int)rint((steps - 1 - i) * ((double)last / (steps - 1))) : last;
}

/* "trailing": the last step begins where one step's share of the way is left. */
static int spaced_trailing(int i, int steps, int train_steps)
{
    return (int)rint(train_steps - i * ((double)train_steps / steps)) - 1;
}

int scheduler_set_sampling(struct scheduler *scheduler, const struct sampling *sampling,
                           struct err *err)
{
    int steps = sampling->steps, train_steps = scheduler->train_steps;
    BUG_ON(!(sampling->eta >= 0 && sampling->eta <= 1));
    BUG_ON(!(sampling->threshold >= 0 && sampling->threshold <= 1));
    if (steps < 1 || steps > train_steps)
        return err_set(err, ERR_INVALID_ARGUMENT, "%d steps, they must be from 1 to %d", steps,
                       train_steps);
    BUG_ON(sampling->first < 0 || sampling->first > steps);
    bool to_zero = sampling->sampler == SAMPLER_DDPM || sampling->ends_at_zero;
    scheduler->timesteps = xrealloc(scheduler->timesteps, (size_t)steps * sizeof(int));
    for (int i = 0; i < steps; i++) /* rint: half to even, as numpy's round */
        scheduler->timesteps[i] = to_zero ? spaced_to_zero(i, steps, train_steps)
                                          : spaced_trailing(i, steps, train_steps);
    scheduler->steps = steps;
    scheduler->first = sampling->first;
    scheduler->sampler = sampling->sampler;
    scheduler->eta = (float)sampling->eta;
    scheduler->threshold = (float)sampling->threshold;
    return 0;
}
