/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inpainting's arithmetic against RePaintScheduler: a step of ddim, the source at the next level of
 * noise where it is kept, and the jump back; each within 2e-6.
 */
#include "common/memory.h"
#include "schedulers.h"

#define LIMIT 2e-6

struct walk {
    struct golden golden;
    struct scheduler scheduler;
    const float *noise, *made, *undone; /* of the next step or jump */
    const float *picture, *kept;
    float *x;
    size_t count, pixels;
};

static void take_step(struct walk *walk, int i, const float *output)
{
    bool last = i + 1 == walk->scheduler.steps;
    float *known = xmalloc(walk->count * sizeof *known);
    const float *noise = scheduler_needs_noise(&walk->scheduler, i) ? walk->noise : NULL;
    scheduler_step(&walk->scheduler, i, output, NULL, walk->x, noise, walk->x, NULL, walk->count);
    scheduler_noise(&walk->scheduler, i + 1, walk->picture, walk->noise, known, walk->count);
    for (size_t k = 0; k < walk->count; k++)
        if (walk->kept[k % walk->pixels] > 0)
            walk->x[k] = known[k];
    golden_assert_near(walk->x, walk->made, walk->count, LIMIT, last ? "last" : "prev");
    walk->made += walk->count;
    walk->noise += walk->count;
    free(known);
}

static void jump_back(struct walk *walk, int i)
{
    scheduler_renoise(&walk->scheduler, i, walk->noise, walk->x, walk->count);
    golden_assert_near(walk->x, walk->undone, walk->count, LIMIT, "undone");
    walk->undone += walk->count;
    walk->noise += walk->count;
}

static void check_walk(const char *name)
{
    struct walk walk = {.golden = golden_open(name)};
    const struct golden *golden = &walk.golden;
    const struct safetensors_entry *first = golden_typed(golden, "in.sample", DTYPE_F32);
    const struct sampling sampling = {.sampler = SAMPLER_DDIM,
                                      .steps = (int)golden_integer(golden, "steps"),
                                      .eta = golden_number(golden, "eta")};
    struct err err;
    golden_load_scheduler(&walk.scheduler, golden, "fixed_small_log");
    golden_ok(scheduler_set_sampling(&walk.scheduler, &sampling, &err), &err);
    walk.noise = golden_f32(golden, "in.noise");
    walk.made = golden_f32(golden, "out.prev_sample");
    walk.undone = golden_f32(golden, "out.undone");
    walk.picture = golden_f32(golden, "in.picture");
    walk.kept = golden_f32(golden, "in.kept");
    walk.pixels = golden_count(golden_entry(golden, "in.kept"));
    walk.count = golden_count(first);
    walk.x = xmalloc(first->bytes);
    memcpy(walk.x, first->data, first->bytes);
    const float *outputs = golden_f32(golden, "in.model_output");
    for (int i = 0; i < walk.scheduler.steps; i++) {
        take_step(&walk, i, outputs + (size_t)(2 * i) * walk.count);
        if (i + 1 == walk.scheduler.steps)
            break;
        jump_back(&walk, i);
        take_step(&walk, i, outputs + (size_t)(2 * i + 1) * walk.count);
    }
    free(walk.x);
    scheduler_release(&walk.scheduler);
    golden_close(&walk.golden);
}

static void test_walks(void **state)
{
    (void)state;
    golden_each("repaint-*.safetensors", 3, check_walk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_walks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
