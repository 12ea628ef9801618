/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The solvers against DDIMScheduler, DPMSolverMultistepScheduler and DDIMInverseScheduler: whole
 * walks under given outputs of a network, each within 2e-6.
 */
#include "schedulers.h"

#define STEP_LIMIT 2e-6

struct walk {
    struct scheduler scheduler;
    bool inverse;
    const float *output, *noise, *sample, *picture;
    size_t count;
};

static void set_sampling(struct walk *walk, const struct golden *golden)
{
    struct sampling sampling = {
        .sampler = SAMPLER_DDIM,
        .steps = (int)golden_integer(golden, "steps"),
        .eta = golden_number(golden, "eta"),
        .threshold = golden_number(golden, "threshold"),
        .ends_at_zero = strcmp(golden_setting(golden, "ends_at_zero"), "true") == 0,
    };
    const char *sampler = golden_setting(golden, "sampler");
    struct err err;
    walk->inverse = strcmp(sampler, "inverse") == 0;
    if (!walk->inverse)
        assert_true(sampler_parse(sampler, &sampling.sampler));
    golden_ok(scheduler_set_sampling(&walk->scheduler, &sampling, &err), &err);
}

static void walk_back(const struct walk *walk, float *sample)
{
    for (int i = 0; i < walk->scheduler.steps; i++) {
        size_t at = (size_t)i * walk->count;
        scheduler_inversion_step(&walk->scheduler, i, walk->output + at, sample, sample,
                                 walk->count);
        golden_assert_near(sample, walk->sample + at, walk->count, STEP_LIMIT, "next");
    }
}

static void walk_on(const struct walk *walk, float *sample)
{
    bool random = walk->noise != NULL;
    float *picture = calloc(walk->count, sizeof *picture);
    for (int i = 0; i < walk->scheduler.steps; i++) {
        size_t at = (size_t)i * walk->count;
        bool last = i + 1 == walk->scheduler.steps;
        assert_int_equal(scheduler_needs_noise(&walk->scheduler, i), random && !last);
        scheduler_step(&walk->scheduler, i, walk->output + at, NULL, sample,
                       random && !last ? walk->noise + at : NULL, sample, picture, walk->count);
        golden_assert_near(sample, walk->sample + at, walk->count, STEP_LIMIT, "prev");
        golden_assert_near(picture, walk->picture + at, walk->count, STEP_LIMIT, "picture");
    }
    free(picture);
}

/* The inverse's timesteps rise. */
static void assert_inverse_timesteps(const struct scheduler *scheduler, const struct golden *golden)
{
    const int64_t *want = golden_i64(golden, "out.timesteps");
    assert_int_equal(golden_count(golden_entry(golden, "out.timesteps")), scheduler->steps);
    for (int i = 0; i < scheduler->steps; i++)
        assert_int_equal(scheduler_inversion_timestep(scheduler, i), want[i]);
}

static void check_walk(const char *name)
{
    struct golden golden = golden_open(name);
    const struct safetensors_entry *first = golden_typed(&golden, "in.sample", DTYPE_F32);
    struct walk walk = {
        .output = golden_f32(&golden, "in.model_output"),
        .noise = golden_has(&golden, "in.noise") ? golden_f32(&golden, "in.noise") : NULL,
        .sample = golden_f32(&golden, "out.prev_sample"),
        .picture = golden_f32(&golden, "out.pred_original_sample"),
        .count = golden_count(first),
    };
    golden_load_scheduler(&walk.scheduler, &golden, "learned_range");
    set_sampling(&walk, &golden);
    assert_false(scheduler_needs_variance(&walk.scheduler));
    float *sample = malloc(first->bytes);
    memcpy(sample, first->data, first->bytes);
    if (walk.inverse) {
        assert_inverse_timesteps(&walk.scheduler, &golden);
        walk_back(&walk, sample);
    } else {
        golden_assert_timesteps(&walk.scheduler, &golden, "out.timesteps");
        walk_on(&walk, sample);
    }
    free(sample);
    scheduler_release(&walk.scheduler);
    golden_close(&golden);
}

static void test_walks(void **state)
{
    (void)state;
    golden_each("sampler-*.safetensors", 19, check_walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_walks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
