/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stages one after the other against UnCLIPPipeline, text to picture with the same seed
 * (pipeline-*), and what the stages promise beyond it: an item's bytes depend on nothing but the
 * item, the settings and the dtype, and an item that fails or is stopped takes no other along.
 */
#include "golden_limits.h"

#include "common/image.h"
#include "common/memory.h"
#include "stages/stage.h"

static char models[] = "/tmp/golden-pipeline-XXXXXX";

static int write_models(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(models));
    golden_write_model(models, "mini", "f32", NULL);
    golden_write_model(models, "mini", "f16", "f16");
    golden_write_model(models, "mini", "bf16", "bf16");
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    golden_remove_folder(models);
    return 0;
}

/* ---- a model with its stages open ---- */

struct scene {
    struct nn *nn;
    struct stage_model *stages[STAGE_COUNT];
    enum stage last;
};

struct route {
    struct stage_settings settings[STAGE_COUNT];
};

static void scene_open(struct scene *scene, const char *path, enum dtype dtype, int threads,
                       enum stage last)
{
    struct err err = {0};
    memset(scene, 0, sizeof *scene);
    scene->last = last;
    golden_ok(nn_open(&scene->nn, dtype, threads, &err), &err);
    for (enum stage stage = 0; stage <= last; stage++)
        golden_ok(stage_open(&scene->stages[stage], stage, path, scene->nn, &err), &err);
}

static void scene_close(struct scene *scene)
{
    for (int i = 0; i < STAGE_COUNT; i++)
        stage_close(scene->stages[i]);
    nn_close(scene->nn);
}

static void scene_run(struct scene *scene, struct item *const *items, size_t count,
                      const struct route *route, const struct stage_watch *watch)
{
    struct err err = {0};
    for (enum stage stage = 0; stage <= scene->last; stage++)
        golden_ok(
            stage_run(scene->stages[stage], items, count, &route->settings[stage], watch, &err),
            &err);
}

/* ---- parity with the reference ---- */

#define IMAGES_MAX 4

static struct route golden_route(const struct golden *golden)
{
    struct route route = {0};
    route.settings[STAGE_PRIOR].steps = (int)golden_integer(golden, "prior_steps");
    route.settings[STAGE_PRIOR].guidance = golden_number(golden, "prior_guidance");
    route.settings[STAGE_DECODER].steps = (int)golden_integer(golden, "decoder_steps");
    route.settings[STAGE_DECODER].guidance = golden_number(golden, "decoder_guidance");
    route.settings[STAGE_UPSAMPLER_1].steps = (int)golden_integer(golden, "super_res_steps");
    return route;
}

/* Row 0 of the golden is the prompt's, row 1 the empty prompt's; unguided ones lack that. */
static void check_text(const struct golden *golden, const struct item *item)
{
    size_t rows = (size_t)golden_entry(golden, "out.text_embeds")->dim[0];
    size_t embed = rows * (size_t)item->embed_dim;
    size_t states = rows * (size_t)item->text_len * (size_t)item->text_width;
    golden_check(golden, "out.text_embeds", item->text_embed, embed, LIMIT_NETWORK_F32);
    golden_check(golden, "out.last_hidden_state", item->text_states, states, LIMIT_NETWORK_F32);
}

/* dB of 8-bit pictures [n, s, s, 3]. */
static double psnr(const struct item *const *items, size_t count, const uint8_t *golden)
{
    double error = 0;
    size_t values = 0;
    for (size_t i = 0; i < count; i++) {
        size_t size = (size_t)items[i]->image_size * (size_t)items[i]->image_size * 3;
        for (size_t k = 0; k < size; k++) {
            float unit = fminf(fmaxf(items[i]->image[k] * 0.5f + 0.5f, 0), 1);
            double difference = rint((double)(unit * 255)) - golden[values + k];
            error += difference * difference;
        }
        values += size;
    }
    return error > 0 ? 10 * log10(255.0 * 255.0 * (double)values / error) : INFINITY;
}

static void check_decoder(const struct golden *golden, struct item *const *items, size_t count,
                          double limit)
{
    struct golden_tensor want = golden_get(golden, "out.decoder");
    const int64_t *dim = want.dim; /* [n, 3, s, s] */
    int64_t one[4] = {1, dim[1], dim[2], dim[3]};
    size_t values = want.count / count;
    float *nchw = xmalloc(want.count * sizeof *nchw);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(items[i]->image_size, dim[2]);
        golden_nhwc_to_nchw(items[i]->image, one, nchw + i * values);
    }
    struct golden_distance distance = golden_measure(nchw, want.values, want.count, 1);
    double decibel = -10 * log10(distance.nmse);
    print_message("%s: decoder %.1f dB\n", golden->name, decibel);
    assert_true(decibel >= limit);
    free(nchw);
    free(want.values);
}

static void check_embeds(const struct golden *golden, struct item *const *items, size_t count)
{
    size_t d = (size_t)items[0]->embed_dim;
    float *embeds = xmalloc(count * d * sizeof *embeds);
    for (size_t i = 0; i < count; i++)
        memcpy(embeds + i * d, items[i]->image_embed, d * sizeof *embeds);
    golden_check(golden, "out.image_embeds", embeds, count * d, LIMIT_NETWORK_F32);
    free(embeds);
}

static void check_route(const struct golden *golden, const char *path, enum dtype dtype)
{
    struct scene scene;
    struct item items[IMAGES_MAX], *batch[IMAGES_MAX];
    struct route route = golden_route(golden);
    struct err err = {0};
    size_t count = (size_t)golden_integer(golden, "images");
    bool exact = dtype == DTYPE_F32;
    double limit = exact ? LIMIT_PIPELINE_PSNR : LIMIT_PIPELINE_PSNR_BF16;
    scene_open(&scene, path, dtype, 2, STAGE_UPSAMPLER_1);
    for (size_t i = 0; i < count; i++) {
        batch[i] = &items[i];
        item_init(&items[i], golden_setting(golden, "prompt"), "",
                  (uint64_t)golden_integer(golden, "seed") + i);
    }
    for (enum stage stage = 0; stage <= STAGE_UPSAMPLER_1; stage++) {
        golden_ok(stage_run(scene.stages[stage], batch, count, &route.settings[stage], NULL, &err),
                  &err);
        for (size_t i = 0; i < count; i++)
            golden_ok(items[i].err.code, &items[i].err);
        if (stage == STAGE_TEXT_ENCODE && exact)
            check_text(golden, &items[0]);
        if (stage == STAGE_PRIOR && exact)
            check_embeds(golden, batch, count);
        if (stage == STAGE_DECODER)
            check_decoder(golden, batch, count, limit);
    }
    double decibel =
        psnr((const struct item *const *)batch, count, golden_entry(golden, "out.image")->data);
    print_message("%s: picture %.1f dB\n", golden->name, decibel);
    assert_true(decibel >= limit);
    for (size_t i = 0; i < count; i++)
        item_release(&items[i]);
    scene_close(&scene);
}

/* The case's name; its setting `dtype` says how the weights are stored. */
static void test_mini(void **state)
{
    struct golden golden = golden_open(*state);
    char path[128];
    snprintf(path, sizeof path, "%s/%s", models, golden_setting(&golden, "dtype"));
    check_route(&golden, path, DTYPE_F32);
    golden_close(&golden);
}

static void test_emoji(void **state)
{
    struct golden golden = golden_open("pipeline-emoji");
    check_route(&golden, MODELS_DIR "/emoji", *(const enum dtype *)*state);
    golden_close(&golden);
}

/* ---- independence ---- */

#define BATCH 3

static const struct route short_route = {
    .settings = {[STAGE_PRIOR] = {3, 4},
                 [STAGE_DECODER] = {3, 8},
                 [STAGE_UPSAMPLER_1] = {2, 0},
                 [STAGE_UPSAMPLER_2] = {2, 0}},
};

/* Every sampler, and deep features used again; the mini model has a network for the last step. */
static const struct route sparing_route = {
    .settings = {[STAGE_PRIOR] = {.steps = 3, .guidance = 4, .sampler = SAMPLER_DPM_SOLVER_PP},
                 [STAGE_DECODER] =
                     {.steps = 4, .guidance = 8, .sampler = SAMPLER_DDIM, .eta = 0.5, .reuse = 2},
                 [STAGE_UPSAMPLER_1] = {.steps = 3, .sampler = SAMPLER_DPM_SOLVER_PP, .reuse = 3},
                 [STAGE_UPSAMPLER_2] = {.steps = 2, .reuse = 2}},
};

struct way {
    enum dtype dtype;
    const struct route *route;
};

static void init_batch(struct item items[BATCH], struct item *batch[BATCH])
{
    static const char *const prompts[BATCH] = {"a red heart", "红色背景上的熊猫", ""};
    static const char *const negatives[BATCH] = {"", "blue", "a long sentence of several words"};
    for (size_t i = 0; i < BATCH; i++) {
        item_init(&items[i], prompts[i], negatives[i], 100 + i);
        batch[i] = &items[i];
    }
}

static void release_batch(struct item items[BATCH])
{
    for (size_t i = 0; i < BATCH; i++)
        item_release(&items[i]);
}

static void assert_same_item(const struct item *a, const struct item *b)
{
    size_t states = 2 * (size_t)a->text_len * (size_t)a->text_width;
    size_t pixels = (size_t)a->image_size * (size_t)a->image_size;
    assert_int_equal(a->image_size, b->image_size);
    assert_memory_equal(a->text_states, b->text_states, states * sizeof(float));
    assert_memory_equal(a->text_embed, b->text_embed, 2 * (size_t)a->embed_dim * sizeof(float));
    assert_memory_equal(a->image_embed, b->image_embed, (size_t)a->embed_dim * sizeof(float));
    assert_memory_equal(a->image, b->image, pixels * 3 * sizeof(float));
}

static void open_mini(struct scene *scene, enum dtype dtype, int threads)
{
    char path[128];
    snprintf(path, sizeof path, "%s/f32", models);
    scene_open(scene, path, dtype, threads, STAGE_UPSAMPLER_2);
}

/* All three alone with one thread: what every other way must give too. */
static void run_alone(enum dtype dtype, const struct route *route, struct item items[BATCH])
{
    struct scene scene;
    struct item *batch[BATCH];
    init_batch(items, batch);
    open_mini(&scene, dtype, 1);
    for (size_t i = 0; i < BATCH; i++) {
        scene_run(&scene, &batch[i], 1, route, NULL);
        assert_int_equal(items[i].err.code, ERR_OK);
    }
    scene_close(&scene);
}

static void test_batch_invariance(void **state)
{
    const struct way *way = *state;
    struct item alone[BATCH], together[BATCH], *batch[BATCH];
    struct scene scene;
    run_alone(way->dtype, way->route, alone);
    for (int threads = 1; threads <= 2; threads++) {
        init_batch(together, batch);
        open_mini(&scene, way->dtype, threads);
        scene_run(&scene, batch, BATCH, way->route, NULL);
        scene_close(&scene);
        for (size_t i = 0; i < BATCH; i++) {
            assert_int_equal(together[i].image_size, 256);
            assert_false(together[i].resized);
            assert_same_item(&together[i], &alone[i]);
        }
        release_batch(together);
    }
    release_batch(alone);
}

/* Linear layers that the profile since its start has seen. */
static int64_t linear_calls(struct nn *nn)
{
    const struct nn_profile_row *rows;
    int64_t calls = 0;
    for (size_t i = nn_profile_rows(nn, &rows); i-- > 0;)
        calls += strcmp(rows[i].op, "linear") == 0 ? rows[i].calls : 0;
    return calls;
}

/* Prior and decoder read the texts in each step where that may not be kept, and make the same. */
static void test_texts_not_kept(void **state)
{
    const struct way *way = *state;
    struct item items[2][BATCH], *batch[BATCH];
    struct scene scene;
    struct err err = {0};
    int64_t calls[2][STAGE_COUNT] = {{0}};
    open_mini(&scene, way->dtype, 2);
    for (int k = 0; k < 2; k++) {
        init_batch(items[k], batch);
        for (enum stage stage = 0; stage <= STAGE_UPSAMPLER_1; stage++) {
            struct stage_settings settings = way->route->settings[stage];
            settings.kept_bytes_max = k == 0 ? 0 : 1;
            nn_profile_start(scene.nn);
            golden_ok(stage_run(scene.stages[stage], batch, BATCH, &settings, NULL, &err), &err);
            calls[k][stage] = linear_calls(scene.nn);
        }
    }
    scene_close(&scene);
    for (enum stage stage = 0; stage <= STAGE_UPSAMPLER_1; stage++)
        if (stage == STAGE_PRIOR || stage == STAGE_DECODER)
            assert_true(calls[1][stage] > calls[0][stage]);
        else
            assert_int_equal(calls[1][stage], calls[0][stage]);
    for (size_t i = 0; i < BATCH; i++) {
        golden_ok(items[0][i].err.code, &items[0][i].err);
        golden_ok(items[1][i].err.code, &items[1][i].err);
        assert_same_item(&items[0][i], &items[1][i]);
    }
    release_batch(items[0]);
    release_batch(items[1]);
}

/* ---- items that leave ---- */

struct stopper {
    struct item *victim;
    int calls;
};

static void stop_at_second(void *context, int step, int steps)
{
    struct stopper *stopper = context;
    assert_in_range(step, 1, steps);
    if (++stopper->calls == 2)
        stopper->victim->stop = true;
}

static void test_stop(void **state)
{
    const struct way *way = *state;
    struct item alone[BATCH], together[BATCH], *batch[BATCH];
    struct scene scene;
    struct stopper stopper = {.victim = &together[1]};
    struct stage_watch watch = {stop_at_second, &stopper};
    run_alone(way->dtype, way->route, alone);
    init_batch(together, batch);
    open_mini(&scene, way->dtype, 2);
    scene_run(&scene, batch, BATCH, way->route, &watch);
    scene_close(&scene);
    int steps = 0;
    for (enum stage stage = 0; stage <= STAGE_UPSAMPLER_2; stage++)
        steps += way->route->settings[stage].steps;
    assert_int_equal(stopper.calls, steps);
    assert_int_equal(together[1].err.code, ERR_CANCELLED);
    assert_null(together[1].image_embed);
    assert_same_item(&together[0], &alone[0]);
    assert_same_item(&together[2], &alone[2]);
    release_batch(together);
    release_batch(alone);
}

static void test_not_finite(void **state)
{
    enum dtype dtype = *(const enum dtype *)*state;
    struct item alone[BATCH], together[BATCH], *batch[BATCH];
    struct scene scene;
    struct err err = {0};
    run_alone(dtype, &short_route, alone);
    init_batch(together, batch);
    open_mini(&scene, dtype, 2);
    for (enum stage stage = 0; stage <= STAGE_UPSAMPLER_2; stage++) {
        if (stage == STAGE_DECODER)
            together[0].image_embed[3] = NAN;
        golden_ok(
            stage_run(scene.stages[stage], batch, BATCH, &short_route.settings[stage], NULL, &err),
            &err);
    }
    scene_close(&scene);
    assert_int_equal(together[0].err.code, ERR_COMPUTE);
    assert_null(together[0].image);
    assert_same_item(&together[1], &alone[1]);
    assert_same_item(&together[2], &alone[2]);
    release_batch(together);
    release_batch(alone);
}

static void test_incomplete_items(void **state)
{
    (void)state;
    struct item items[BATCH], *batch[BATCH];
    struct scene scene;
    struct err err = {0};
    open_mini(&scene, DTYPE_F32, 2);
    for (enum stage stage = STAGE_PRIOR; stage <= STAGE_UPSAMPLER_2; stage++) {
        init_batch(items, batch);
        golden_ok(
            stage_run(scene.stages[stage], batch, BATCH, &short_route.settings[stage], NULL, &err),
            &err);
        for (size_t i = 0; i < BATCH; i++)
            assert_int_equal(items[i].err.code, ERR_INVALID_RECORD);
        release_batch(items);
    }
    init_batch(items, batch);
    scene_run(&scene, batch, BATCH, &short_route, NULL);
    items[0].text_len--; /* as a task of another model would have */
    golden_ok(stage_run(scene.stages[STAGE_PRIOR], batch, 2, &short_route.settings[STAGE_PRIOR],
                        NULL, &err),
              &err);
    assert_int_equal(items[0].err.code, ERR_INVALID_RECORD);
    assert_non_null(strstr(items[0].err.text, "23 x 32"));
    assert_int_equal(items[1].err.code, ERR_OK);
    release_batch(items);
    scene_close(&scene);
}

/* The decoder sets no length of text, and so an odd one must not be the others' fault. */
static void test_texts_of_two_lengths(void **state)
{
    (void)state;
    struct item alone[BATCH], together[BATCH], *batch[BATCH];
    struct scene scene;
    struct err err = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/f32", models);
    scene_open(&scene, path, DTYPE_F32, 2, STAGE_DECODER);
    init_batch(alone, batch);
    scene_run(&scene, batch, BATCH, &short_route, NULL);
    init_batch(together, batch);
    for (enum stage stage = 0; stage <= STAGE_DECODER; stage++) {
        if (stage == STAGE_DECODER)
            together[0].text_len--;
        golden_ok(
            stage_run(scene.stages[stage], batch, BATCH, &short_route.settings[stage], NULL, &err),
            &err);
    }
    for (size_t i = 0; i < BATCH; i++)
        assert_int_equal(together[i].err.code, ERR_OK);
    assert_same_item(&together[1], &alone[1]);
    assert_same_item(&together[2], &alone[2]);
    release_batch(together);
    release_batch(alone);
    scene_close(&scene);
}

static void test_steps_out_of_bounds(void **state)
{
    (void)state;
    struct item items[BATCH], *batch[BATCH];
    struct scene scene;
    struct err err = {0};
    struct stage_settings none = {.steps = 0, .guidance = 1};
    init_batch(items, batch);
    open_mini(&scene, DTYPE_F32, 2);
    scene_run(&scene, batch, BATCH, &short_route, NULL);
    for (enum stage stage = STAGE_PRIOR; stage <= STAGE_UPSAMPLER_2; stage++) {
        err = (struct err){0};
        assert_int_equal(stage_run(scene.stages[stage], batch, BATCH, &none, NULL, &err),
                         -ERR_INVALID_ARGUMENT);
        assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    }
    release_batch(items);
    scene_close(&scene);
}

/* ---- a model without networks for 1024 pixels ---- */

static void test_lanczos(void **state)
{
    (void)state;
    struct nn *nn;
    struct stage_model *stage;
    struct item item, *batch[] = {&item};
    struct stage_settings settings = {.steps = 4};
    struct err err = {0};
    int side = 256;
    golden_ok(image_setup("test_pipeline", &err), &err);
    golden_ok(nn_open(&nn, DTYPE_F32, 1, &err), &err);
    golden_ok(stage_open(&stage, STAGE_UPSAMPLER_2, GOLDEN_DIR "/models/karlo-narrow", nn, &err),
              &err);
    item_init(&item, "", "", 0);
    item.image_size = side;
    item.image = xmalloc((size_t)side * (size_t)side * 3 * sizeof(float));
    for (int i = 0; i < side * side * 3; i++)
        item.image[i] = i / (side * 3) < side / 2 ? 1 : -0.5f; /* an edge, to overshoot at */
    golden_ok(stage_run(stage, batch, 1, &settings, NULL, &err), &err);
    golden_ok(item.err.code, &item.err);
    assert_int_equal(item.image_size, 1024);
    assert_true(item.resized);
    for (int i = 0; i < 1024 * 1024 * 3; i++)
        assert_true(item.image[i] >= -1 && item.image[i] <= 1);
    assert_true(fabsf(item.image[0] - 1) < 1e-3f);
    assert_true(fabsf(item.image[1024 * 1024 * 3 - 1] + 0.5f) < 1e-3f);
    item_release(&item);
    stage_close(stage);
    nn_close(nn);
}

/* clang-format off */
#define PIPELINE(name) {name, test_mini, NULL, NULL, (char[]){name}}
#define IN_DTYPE(test, dtype) {#test " " #dtype, test, NULL, NULL, &dtype}
/* clang-format on */

int main(void)
{
    static enum dtype f32 = DTYPE_F32, bf16 = DTYPE_BF16;
    static struct way short_f32 = {DTYPE_F32, &short_route},
                      short_bf16 = {DTYPE_BF16, &short_route};
    static struct way sparing_f32 = {DTYPE_F32, &sparing_route};
    static struct way sparing_bf16 = {DTYPE_BF16, &sparing_route};
    const struct CMUnitTest tests[] = {
        PIPELINE("pipeline-mini-seed-0"),
        PIPELINE("pipeline-mini-seed-7"),
        PIPELINE("pipeline-mini-half-guided"),
        PIPELINE("pipeline-mini-unguided"),
        PIPELINE("pipeline-mini-f16"),
        PIPELINE("pipeline-mini-bf16"),
        IN_DTYPE(test_emoji, f32),
        IN_DTYPE(test_emoji, bf16),
        IN_DTYPE(test_batch_invariance, short_f32),
        IN_DTYPE(test_batch_invariance, short_bf16),
        IN_DTYPE(test_batch_invariance, sparing_f32),
        IN_DTYPE(test_batch_invariance, sparing_bf16),
        IN_DTYPE(test_texts_not_kept, short_f32),
        IN_DTYPE(test_texts_not_kept, short_bf16),
        IN_DTYPE(test_texts_not_kept, sparing_f32),
        IN_DTYPE(test_texts_not_kept, sparing_bf16),
        IN_DTYPE(test_stop, short_f32),
        IN_DTYPE(test_stop, short_bf16),
        IN_DTYPE(test_stop, sparing_f32),
        IN_DTYPE(test_stop, sparing_bf16),
        IN_DTYPE(test_not_finite, f32),
        IN_DTYPE(test_not_finite, bf16),
        cmocka_unit_test(test_incomplete_items),
        cmocka_unit_test(test_texts_of_two_lengths),
        cmocka_unit_test(test_lanczos),
        cmocka_unit_test(test_steps_out_of_bounds),
    };
    return cmocka_run_group_tests(tests, write_models, remove_models);
}
