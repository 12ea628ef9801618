/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler: what a configuration may say, step tables at their ends, and the step's formula.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stages/scheduler.h"

static int load(struct scheduler *scheduler, const char *config, struct err *err)
{
    char path[] = "/tmp/unclip-scheduler-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, config, strlen(config)), strlen(config));
    close(fd);
    int result = scheduler_load(scheduler, path, err);
    unlink(path);
    return result;
}

static void load_valid(struct scheduler *scheduler, const char *config)
{
    struct err err;
    if (load(scheduler, config, &err) != 0)
        fail_msg("%s", err.text);
}

static void set_steps(struct scheduler *scheduler, int steps)
{
    struct err err;
    assert_int_equal(scheduler_set_sampling(scheduler, &(struct sampling){.steps = steps}, &err),
                     0);
    assert_int_equal(scheduler->steps, steps);
}

static int try_steps(struct scheduler *scheduler, int steps, struct err *err)
{
    return scheduler_set_sampling(scheduler, &(struct sampling){.steps = steps}, err);
}

static void test_defaults(void **state)
{
    (void)state;
    struct scheduler scheduler;
    load_valid(&scheduler, "{\"clip_sample_range\": null}");
    assert_int_equal(scheduler.train_steps, 1000);
    assert_int_equal(scheduler.prediction, PREDICTION_EPSILON);
    assert_int_equal(scheduler.variance, VARIANCE_FIXED_SMALL_LOG);
    assert_true(scheduler.clip_sample);
    assert_true(scheduler.clip_range == 1.0f);
    scheduler_release(&scheduler);
    assert_null(scheduler.betas);
}

static void test_tables(void **state)
{
    (void)state;
    struct scheduler scheduler;
    load_valid(&scheduler, "{\"num_train_timesteps\": 50}");
    for (int i = 0; i < 50; i++) {
        assert_true(scheduler.betas[i] > 0 && scheduler.betas[i] <= 0.999f);
        assert_true(scheduler.alphas_bar[i] > 0 && scheduler.alphas_bar[i] < 1);
        assert_true(i == 0 || scheduler.alphas_bar[i] < scheduler.alphas_bar[i - 1]);
    }
    assert_true(scheduler.betas[49] == 0.999f);
    scheduler_release(&scheduler);
}

struct refusal {
    const char *config;
    enum err_code code;
    const char *key, *value;
};

static void test_refusals(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {"{\"prediction_type\": \"v_prediction\"}", ERR_UNSUPPORTED, "prediction_type",
         "v_prediction"},
        {"{\"variance_type\": \"fixed_large\"}", ERR_UNSUPPORTED, "variance_type", "fixed_large"},
        {"{\"beta_schedule\": \"linear\"}", ERR_UNSUPPORTED, "beta_schedule", "linear"},
        {"{\"_class_name\": \"DDPMScheduler\"}", ERR_UNSUPPORTED, "_class_name", "DDPMScheduler"},
        {"{\"prediction_type\": 3}", ERR_INVALID_MODEL, "prediction_type", "string"},
        {"{\"num_train_timesteps\": 0}", ERR_INVALID_MODEL, "num_train_timesteps", "0"},
        {"{\"num_train_timesteps\": 100001}", ERR_INVALID_MODEL, "num_train_timesteps", "100001"},
        {"{\"num_train_timesteps\": 1.5}", ERR_INVALID_MODEL, "num_train_timesteps", "integer"},
        {"{\"clip_sample\": 1}", ERR_INVALID_MODEL, "clip_sample", "true or false"},
        {"{\"clip_sample_range\": 0}", ERR_INVALID_MODEL, "clip_sample_range", "0"},
        {"{\"clip_sample_range\": -1}", ERR_INVALID_MODEL, "clip_sample_range", "-1"},
        {"{\"clip_sample_range\": 1e300}", ERR_INVALID_MODEL, "clip_sample_range", "1e+300"},
        {"[]", ERR_INVALID_MODEL, "object", "object"},
        {"{", ERR_INVALID_MODEL, "JSON", "JSON"},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct scheduler scheduler;
        struct err err;
        int result = load(&scheduler, refusals[i].config, &err);
        if (result != -(int)refusals[i].code || !strstr(err.text, refusals[i].key) ||
            !strstr(err.text, refusals[i].value))
            fail_msg("%s gives %d: %s", refusals[i].config, result, err.text);
    }
}

static void test_missing_file(void **state)
{
    (void)state;
    struct scheduler scheduler;
    struct err err;
    assert_int_equal(scheduler_load(&scheduler, "/nonexistent/scheduler_config.json", &err),
                     -ERR_IO);
}

static void test_step_counts(void **state)
{
    (void)state;
    struct scheduler scheduler;
    struct err err;
    load_valid(&scheduler, "{\"num_train_timesteps\": 10}");
    assert_int_equal(try_steps(&scheduler, 0, &err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(try_steps(&scheduler, -1, &err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(try_steps(&scheduler, 11, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "11"));
    set_steps(&scheduler, 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(scheduler.timesteps[i], 9 - i);
    set_steps(&scheduler, 3); /* 4.5 rounds to the even 4 */
    assert_int_equal(scheduler.timesteps[0], 9);
    assert_int_equal(scheduler.timesteps[1], 4);
    assert_int_equal(scheduler.timesteps[2], 0);
    scheduler_release(&scheduler);
}

/* The last step ends at the predicted picture, also when it is the only one. */
static void test_last_step(void **state)
{
    (void)state;
    static const char *const variances[] = {"fixed_small_log", "learned_range"};
    static const float output[3] = {0.25f, -3, 0.5f}, sample[3] = {1, 2, 3};
    for (int k = 0; k < 4; k++) {
        char config[128];
        struct scheduler scheduler;
        int steps = k < 2 ? 1 : 4;
        float prev[3], predicted[3];
        snprintf(config, sizeof config,
                 "{\"prediction_type\": \"sample\", \"variance_type\": \"%s\"}", variances[k % 2]);
        load_valid(&scheduler, config);
        set_steps(&scheduler, steps);
        assert_int_equal(scheduler.timesteps[0], 999);
        assert_false(scheduler_needs_noise(&scheduler, steps - 1));
        assert_true(steps == 1 || scheduler_needs_noise(&scheduler, steps - 2));
        scheduler_step(&scheduler, steps - 1, output, NULL, sample, NULL, prev, predicted, 3);
        for (int i = 0; i < 3; i++) {
            assert_true(predicted[i] == fmaxf(output[i], -1));
            assert_true(fabsf(prev[i] - predicted[i]) < 2e-3f); /* 1 - alphas_bar[0] */
        }
        scheduler_release(&scheduler);
    }
}

/*
 * One step by the formulas in double, from the f32 tables. The first timesteps, where alpha_bar is
 * all but 0, lose digits in f32; the goldens hold the step itself to 1e-6.
 */
static double step_naive(const struct scheduler *s, int i, double output, double variance,
                         double sample, double noise)
{
    int t = s->timesteps[i], prev = s->timesteps[i + 1];
    double bar = (double)s->alphas_bar[t], bar_prev = (double)s->alphas_bar[prev];
    double beta = 1 - bar / bar_prev;
    double picture = output;
    if (s->prediction == PREDICTION_EPSILON)
        picture = (sample - sqrt(1 - bar) * output) / sqrt(bar);
    if (s->clip_sample)
        picture = fmin(fmax(picture, -(double)s->clip_range), (double)s->clip_range);
    double mean = sqrt(bar_prev) * beta / (1 - bar) * picture +
                  sqrt(1 - beta) * (1 - bar_prev) / (1 - bar) * sample;
    double small = (1 - bar_prev) / (1 - bar) * beta, share = (variance + 1) / 2;
    double log_variance = s->variance == VARIANCE_LEARNED_RANGE
                              ? share * log(beta) + (1 - share) * log(small)
                              : log(small);
    return mean + exp(0.5 * log_variance) * noise;
}

static void check_formula(const char *config)
{
    static const float output[4] = {0.3f, -1.2f, 0.9f, 4}, variance[4] = {-1, 1, 0, 0.5f};
    static const float sample[4] = {0.1f, 1.5f, -0.7f, -2}, noise[4] = {1, -0.5f, 2, 0.1f};
    struct scheduler scheduler;
    float prev[4];
    load_valid(&scheduler, config);
    set_steps(&scheduler, 9);
    for (int i = 0; i + 1 < 9; i++) {
        scheduler_step(&scheduler, i, output, variance, sample, noise, prev, NULL, 4);
        for (int k = 0; k < 4; k++) {
            double want = step_naive(&scheduler, i, (double)output[k], (double)variance[k],
                                     (double)sample[k], (double)noise[k]);
            if (!(fabs((double)prev[k] - want) <= 1e-4 * fmax(1, fabs(want))))
                fail_msg("%s: step %d, value %d is %.9g instead of %.9g", config, i, k,
                         (double)prev[k], want);
        }
    }
    scheduler_release(&scheduler);
}

static void test_formula(void **state)
{
    (void)state;
    check_formula("{\"prediction_type\": \"epsilon\", \"variance_type\": \"fixed_small_log\"}");
    check_formula("{\"prediction_type\": \"epsilon\", \"variance_type\": \"learned_range\"}");
    check_formula("{\"prediction_type\": \"sample\", \"variance_type\": \"fixed_small_log\", "
                  "\"clip_sample_range\": 5}");
    check_formula("{\"prediction_type\": \"sample\", \"variance_type\": \"learned_range\", "
                  "\"clip_sample\": false}");
}

static void test_in_place(void **state)
{
    (void)state;
    static const float output[3] = {0.3f, -1.2f, 0.9f}, noise[3] = {1, -0.5f, 2};
    float sample[3] = {0.1f, 1.5f, -0.7f}, prev[3];
    struct scheduler scheduler;
    load_valid(&scheduler, "{}");
    set_steps(&scheduler, 5);
    scheduler_step(&scheduler, 2, output, NULL, sample, noise, prev, NULL, 3);
    scheduler_step(&scheduler, 2, output, NULL, sample, noise, sample, NULL, 3);
    assert_memory_equal(sample, prev, sizeof prev);
    scheduler_release(&scheduler);
}

/* What a picture is walked back to is walked on to the picture, under the same outputs. */
static void test_inversion(void **state)
{
    (void)state;
    static const char *const configs[] = {
        "{\"prediction_type\": \"sample\"}",
        "{\"prediction_type\": \"epsilon\", \"clip_sample\": false}",
    };
    const float picture[4] = {0.9f, -0.3f, 0, 0.5f}, outputs[4] = {0.2f, -0.7f, 0.4f, 0.1f};
    for (int c = 0; c < 2; c++) {
        struct scheduler scheduler;
        struct err err;
        float x[4];
        load_valid(&scheduler, configs[c]);
        struct sampling sampling = {.sampler = SAMPLER_DDIM, .steps = 7};
        assert_int_equal(scheduler_set_sampling(&scheduler, &sampling, &err), 0);
        assert_int_equal(scheduler_inversion_timestep(&scheduler, 6), 999);
        memcpy(x, picture, sizeof x);
        for (int i = 0; i < 3; i++)
            scheduler_inversion_step(&scheduler, i, outputs, x, x, 4);
        for (int i = 4; i < 6; i++) /* back to timestep 142; the last step would forget the noise */
            scheduler_step(&scheduler, i, outputs, NULL, x, NULL, x, NULL, 4);
        float once[4];
        scheduler_inversion_step(&scheduler, 0, outputs, picture, once, 4);
        for (int j = 0; j < 4; j++)
            assert_true(fabsf(x[j] - once[j]) < 1e-4f);
        scheduler_release(&scheduler);
    }
}

/* A network that predicts most of what it sees, as one does where there is little noise: from what
   is refined, DDIM comes back to the sample. */
static void test_inversion_refined(void **state)
{
    (void)state;
    struct scheduler scheduler;
    struct err err;
    load_valid(&scheduler, "{\"prediction_type\": \"sample\"}");
    struct sampling sampling = {.sampler = SAMPLER_DDIM, .steps = 10};
    assert_int_equal(scheduler_set_sampling(&scheduler, &sampling, &err), 0);
    for (int i = 1; i < 10; i++) {
        const float sample = 0.6f;
        float guess = sample, output = 0;
        for (int k = 0; k < 40; k++) {
            output = 0.9f * guess;
            scheduler_inversion_refine(&scheduler, i, &output, &sample, &guess, 1);
        }
        float back = guess;
        output = 0.9f * guess;
        scheduler_step(&scheduler, 9 - i, &output, NULL, &back, NULL, &back, NULL, 1);
        assert_true(fabsf(back - sample) < 1e-4f);
    }
    scheduler_release(&scheduler);
}

/* A network that always predicts one picture is led to it by every sampler, in any number of steps;
   and the two solvers then go the same way. */
static void test_solvers_end_at_the_picture(void **state)
{
    (void)state;
    struct scheduler scheduler;
    struct err err;
    load_valid(&scheduler, "{\"prediction_type\": \"sample\"}");
    for (int steps = 1; steps <= 30; steps++) {
        float x[2] = {1.5f, 1.5f}, picture = -0.4f, history[2];
        for (int s = 0; s < 2; s++) {
            struct sampling sampling = {.sampler = s ? SAMPLER_DPM_SOLVER_PP : SAMPLER_DDIM,
                                        .steps = steps};
            assert_int_equal(scheduler_set_sampling(&scheduler, &sampling, &err), 0);
            for (int i = 0; i < steps; i++) {
                assert_false(scheduler_needs_noise(&scheduler, i));
                scheduler_step(&scheduler, i, &picture, NULL, &x[s], NULL, &x[s], &history[s], 1);
                assert_true(history[s] == picture);
                assert_true(i == 0 || scheduler.timesteps[i] < scheduler.timesteps[i - 1]);
            }
        }
        assert_true(fabsf(x[0] - picture) < 1e-6f && fabsf(x[1] - picture) < 1e-6f);
    }
    scheduler_release(&scheduler);
}

static void test_noise_and_history(void **state)
{
    (void)state;
    struct scheduler scheduler;
    struct err err;
    load_valid(&scheduler, "{\"variance_type\": \"learned_range\"}");
    static const struct {
        struct sampling sampling;
        bool noise, variance, history;
        int last;
    } rows[] = {
        {{.sampler = SAMPLER_DDPM, .steps = 3}, true, true, false, 0},
        {{.sampler = SAMPLER_DDIM, .steps = 3}, false, false, false, 332},
        {{.sampler = SAMPLER_DDIM, .steps = 3, .eta = 0.1}, true, false, false, 332},
        {{.sampler = SAMPLER_DDIM, .steps = 3, .ends_at_zero = true}, false, false, false, 0},
        {{.sampler = SAMPLER_DPM_SOLVER_PP, .steps = 3}, false, false, true, 332},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(scheduler_set_sampling(&scheduler, &rows[i].sampling, &err), 0);
        assert_int_equal(scheduler_needs_noise(&scheduler, 0), rows[i].noise);
        assert_false(scheduler_needs_noise(&scheduler, 2));
        assert_int_equal(scheduler_needs_variance(&scheduler), rows[i].variance);
        assert_int_equal(scheduler_needs_history(&scheduler), rows[i].history);
        assert_int_equal(scheduler.timesteps[0], 999);
        assert_int_equal(scheduler.timesteps[2], rows[i].last);
    }
    scheduler_release(&scheduler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_missing_file),
        cmocka_unit_test(test_step_counts),
        cmocka_unit_test(test_last_step),
        cmocka_unit_test(test_formula),
        cmocka_unit_test(test_in_place),
        cmocka_unit_test(test_inversion),
        cmocka_unit_test(test_inversion_refined),
        cmocka_unit_test(test_solvers_end_at_the_picture),
        cmocka_unit_test(test_noise_and_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
