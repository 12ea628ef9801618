/* SPDX-License-Identifier: Apache-2.0 */
/* stages/scheduler.c against UnCLIPScheduler: tables, and whole walks within 1e-6. */
#include "exact.h"

#include "schedulers.h"

#define STEP_LIMIT 1e-6

static void load_case(struct scheduler *scheduler, const struct golden *golden)
{
    golden_load_scheduler(scheduler, golden, golden_setting(golden, "variance_type"));
}

static void test_tables(void **state)
{
    (void)state;
    static const int steps[] = {2, 3, 4, 7, 25, 50, 100, 1000};
    struct golden golden = golden_open("scheduler-tables");
    struct scheduler scheduler;
    struct err err;
    char name[64];
    golden_load_scheduler_text(&scheduler, "{}");
    assert_int_equal(scheduler.train_steps, 1000);
    assert_memory_equal(scheduler.betas, golden_f32(&golden, "out.betas"), 1000 * sizeof(float));
    assert_memory_equal(scheduler.alphas_bar, golden_f32(&golden, "out.alphas_cumprod"),
                        1000 * sizeof(float));
    assert_int_equal(safetensors_count(golden.file), 2 + sizeof steps / sizeof *steps);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_int_equal(
            scheduler_set_sampling(&scheduler, &(struct sampling){.steps = steps[i]}, &err), 0);
        snprintf(name, sizeof name, "out.timesteps.%d", steps[i]);
        golden_assert_timesteps(&scheduler, &golden, name);
    }
    scheduler_release(&scheduler);
    golden_close(&golden);
}

/* A walk of n samples, each of `size` values; the model's output holds 1 or 2 times as many. */
struct walk {
    struct scheduler scheduler;
    const float *output, *noise, *prev, *original;
    size_t n, size, output_size;
};

static void walk_step(const struct walk *walk, int i, float *sample, float *original)
{
    bool learned = walk->scheduler.variance == VARIANCE_LEARNED_RANGE;
    bool noisy = scheduler_needs_noise(&walk->scheduler, i);
    assert_int_equal(noisy, i + 1 < walk->scheduler.steps);
    for (size_t k = 0; k < walk->n; k++) {
        const float *output = walk->output + ((size_t)i * walk->n + k) * walk->output_size;
        const float *noise = walk->noise + ((size_t)i * walk->n + k) * walk->size;
        scheduler_step(&walk->scheduler, i, output, learned ? output + walk->size : NULL,
                       sample + k * walk->size, noisy ? noise : NULL, sample + k * walk->size,
                       original + k * walk->size, walk->size);
    }
}

static void run_walk(const struct walk *walk, const float *first)
{
    size_t count = walk->n * walk->size;
    float *sample = malloc(count * sizeof *sample), *original = malloc(count * sizeof *original);
    memcpy(sample, first, count * sizeof *sample);
    for (int i = 0; i < walk->scheduler.steps; i++) {
        walk_step(walk, i, sample, original);
        golden_assert_near(sample, walk->prev + (size_t)i * count, count, STEP_LIMIT, "prev");
        golden_assert_near(original, walk->original + (size_t)i * count, count, STEP_LIMIT,
                           "original");
    }
    free(sample);
    free(original);
}

static void check_walk(const char *name)
{
    if (strcmp(name, "scheduler-tables") == 0)
        return; /* test_tables */
    struct golden golden = golden_open(name);
    const struct safetensors_entry *sample = golden_typed(&golden, "in.sample", DTYPE_F32);
    int steps = atoi(golden_setting(&golden, "steps"));
    struct err err;
    struct walk walk = {
        .output = golden_f32(&golden, "in.model_output"),
        .noise = golden_f32(&golden, "in.noise"),
        .prev = golden_f32(&golden, "out.prev_sample"),
        .original = golden_f32(&golden, "out.pred_original_sample"),
        .n = (size_t)sample->dim[0],
        .size = golden_count(sample) / (size_t)sample->dim[0],
    };
    walk.output_size = golden_count(golden_typed(&golden, "in.model_output", DTYPE_F32)) /
                       ((size_t)steps * walk.n);
    load_case(&walk.scheduler, &golden);
    assert_int_equal(
        scheduler_set_sampling(&walk.scheduler, &(struct sampling){.steps = steps}, &err), 0);
    golden_assert_timesteps(&walk.scheduler, &golden, "out.timesteps");
    run_walk(&walk, sample->data);
    scheduler_release(&walk.scheduler);
    golden_close(&golden);
}

static void test_walks(void **state)
{
    (void)state;
    golden_each("scheduler-*.safetensors", 13, check_walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_walks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
