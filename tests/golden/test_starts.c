/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where pictures begin and what they keep: an inversion gives the picture back, a picture under
 * noise, inpainting, previews; and that an item's bytes depend on nothing but the item, the
 * settings and the dtype in all of these too.
 */
#include "golden_limits.h"

#include "common/image.h"
#include "common/memory.h"
#include "stages/source.h"
#include "stages/stage.h"

#define SIDE     256 /* of sources: what upsampler-2 of mini makes */
#define BATCH    4
#define INVERTED 35.0 /* dB: the least that comes back of the shipped model's own picture */

static char models[] = "/tmp/golden-starts-XXXXXX";

static int write_models(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(models));
    golden_write_model(models, "mini", "f32", NULL);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    golden_remove_folder(models);
    return 0;
}

/* ---- a model's stages, and items that have come to the decoder ---- */

struct scene {
    struct nn *nn;
    struct stage_model *stages[STAGE_COUNT];
};

static void scene_open(struct scene *scene, const char *path, int threads, enum stage last)
{
    static const enum stage stages[] = {STAGE_TEXT_ENCODE, STAGE_PRIOR, STAGE_DECODER,
                                        STAGE_UPSAMPLER_1, STAGE_UPSAMPLER_2};
    struct err err = {0};
    memset(scene, 0, sizeof *scene);
    golden_ok(nn_open(&scene->nn, DTYPE_F32, threads, &err), &err);
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        golden_ok(stage_open(&scene->stages[stages[i]], stages[i], path, scene->nn, &err), &err);
        if (stages[i] == last)
            return;
    }
}

static void open_mini(struct scene *scene, int threads)
{
    char path[128];
    snprintf(path, sizeof path, "%s/f32", models);
    scene_open(scene, path, threads, STAGE_UPSAMPLER_2);
}

static void scene_close(struct scene *scene)
{
    for (int i = 0; i < STAGE_COUNT; i++)
        stage_close(scene->stages[i]);
    nn_close(scene->nn);
}

static void run(struct scene *scene, enum stage stage, struct item *const *items, size_t count,
                const struct stage_settings *settings, const struct stage_watch *watch)
{
    struct err err = {0};
    golden_ok(stage_run(scene->stages[stage], items, count, settings, watch, &err), &err);
}

static void prepare(struct scene *scene, struct item *const *items, size_t count)
{
    const struct stage_settings settings = {.steps = 2, .guidance = 2};
    run(scene, STAGE_TEXT_ENCODE, items, count, &settings, NULL);
    run(scene, STAGE_PRIOR, items, count, &settings, NULL);
}

/* A picture of bands, other in each item. */
static void give_source(struct item *item, int seed)
{
    item->source_size = SIDE;
    item->source = xmalloc(SIDE * SIDE * 3);
    for (int i = 0; i < SIDE * SIDE * 3; i++)
        item->source[i] = (uint8_t)(i / (SIDE * 3) * (seed + 1) + i % 3 * 40 + i / 3 % SIDE / 8);
}

/* A square to be painted, with an edge of `feather` pixels. */
static void give_mask(struct item *item, int feather)
{
    item->mask = xmalloc(SIDE * SIDE);
    for (int p = 0; p < SIDE * SIDE; p++) {
        int x = abs(p % SIDE - SIDE / 2), y = abs(p / SIDE - SIDE / 2);
        int out = (x > y ? x : y) - SIDE / 4; /* < 0: inside */
        int share = feather ? 255 - 255 * out / feather : 0;
        item->mask[p] = (uint8_t)(out < 0 ? 255 : share < 0 ? 0 : share);
    }
}

/* No mask, a hard one, a feathered one, and one that keeps all. */
static void init_batch(struct item items[BATCH], struct item *batch[BATCH])
{
    static const char *const prompts[BATCH] = {"a red heart", "", "a panda", "红色背景上的熊猫"};
    for (int i = 0; i < BATCH; i++) {
        item_init(&items[i], prompts[i], i % 2 ? "blue" : "", (uint64_t)(40 + i));
        give_source(&items[i], i);
        batch[i] = &items[i];
    }
    give_mask(&items[1], 0);
    give_mask(&items[2], 40);
    items[3].mask = xcalloc(SIDE, SIDE);
}

static void release(struct item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        item_release(&items[i]);
}

static void assert_same_image(const struct item *a, const struct item *b)
{
    size_t pixels = (size_t)a->image_size * (size_t)a->image_size;
    assert_int_equal(a->err.code, ERR_OK);
    assert_int_equal(b->err.code, ERR_OK);
    assert_int_equal(a->image_size, b->image_size);
    assert_memory_equal(a->image, b->image, pixels * 3 * sizeof(float));
}

static bool same_image(const struct item *a, const struct item *b)
{
    size_t pixels = (size_t)a->image_size * (size_t)a->image_size;
    return memcmp(a->image, b->image, pixels * 3 * sizeof(float)) == 0;
}

/* dB of the item's picture against its source at that size. */
static double psnr(const struct item *item)
{
    struct source_view view;
    struct err err = {0};
    double error = 0;
    golden_ok(source_view_init(&view, item, item->image_size, &err), &err);
    for (size_t i = 0; i < view.pixels * 3; i++) {
        double difference = ((double)item->image[i] - (double)view.picture[i]) / 2;
        error += difference * difference;
    }
    double values = (double)(view.pixels * 3);
    source_view_release(&view);
    return error > 0 ? 10 * log10(values / error) : INFINITY;
}

/* ---- what is kept ---- */

/* Pixels whose mask is 0 are the source's at the item's size, to the bit; others are not. */
static void assert_kept(const struct item *item)
{
    struct source_view view;
    struct err err = {0};
    size_t changed = 0, painted = 0;
    golden_ok(source_view_init(&view, item, item->image_size, &err), &err);
    for (size_t p = 0; p < view.pixels; p++) {
        bool same = memcmp(item->image + 3 * p, view.picture + 3 * p, 3 * sizeof(float)) == 0;
        if (view.paint[p] <= 0)
            assert_true(same);
        painted += view.paint[p] > 0;
        changed += !same;
    }
    assert_true(painted == 0 || changed > painted / 2);
    source_view_release(&view);
}

static void assert_kept_bytes(const struct item *item)
{
    struct image image = {0};
    struct err err = {0};
    golden_ok(image_from_float(&image, item->image, item->image_size, &err), &err);
    for (size_t p = 0; p < SIDE * SIDE; p++)
        if (item->mask[p] == 0)
            assert_memory_equal(image.pixels + 3 * p, item->source + 3 * p, 3);
    image_release(&image);
}

/* All three networks, and every sampler. */
static void test_inpainting(void **state)
{
    static const struct stage_settings settings = {.steps = 3, .guidance = 3, .resample = 1};
    struct scene scene;
    struct item items[BATCH], *batch[BATCH];
    struct stage_settings own = settings;
    own.sampler = *(const enum sampler *)*state;
    own.eta = own.sampler == SAMPLER_DDIM ? 0.5 : 0;
    open_mini(&scene, 2);
    init_batch(items, batch);
    prepare(&scene, batch, BATCH);
    for (enum stage stage = STAGE_DECODER; stage <= STAGE_UPSAMPLER_2; stage++) {
        run(&scene, stage, batch, BATCH, &own, NULL);
        for (int i = 1; i < BATCH; i++)
            assert_kept(batch[i]);
    }
    assert_int_equal(items[0].image_size, SIDE);
    for (int i = 1; i < BATCH; i++)
        assert_kept_bytes(batch[i]);
    assert_true(isinf(psnr(batch[3]))); /* all of it */
    release(items, BATCH);
    scene_close(&scene);
}

/* A model that ends with a plain resize keeps as much. */
static void test_inpainting_lanczos(void **state)
{
    (void)state;
    struct nn *nn;
    struct stage_model *stage;
    struct item item, *batch[] = {&item};
    const struct stage_settings settings = {.steps = 4};
    struct err err = {0};
    golden_ok(image_setup("test_starts", &err), &err);
    golden_ok(nn_open(&nn, DTYPE_F32, 1, &err), &err);
    golden_ok(stage_open(&stage, STAGE_UPSAMPLER_2, GOLDEN_DIR "/models/karlo-narrow", nn, &err),
              &err);
    item_init(&item, "", "", 0);
    item.source_size = 1024;
    item.source = xmalloc(1024 * 1024 * 3);
    item.mask = xcalloc(1024, 1024);
    for (int i = 0; i < 1024 * 1024 * 3; i++)
        item.source[i] = (uint8_t)(i * 2654435761u >> 24);
    memset(item.mask, 255, 512 * 1024);
    item.image_size = SIDE;
    item.image = xcalloc(SIDE * SIDE * 3, sizeof(float));
    golden_ok(stage_run(stage, batch, 1, &settings, NULL, &err), &err);
    golden_ok(item.err.code, &item.err);
    assert_true(item.resized);
    assert_kept(&item);
    item_release(&item);
    stage_close(stage);
    nn_close(nn);
}

/* Harmonising jumps are taken, by those alone that have a mask. */
static void test_resample(void **state)
{
    (void)state;
    struct scene scene;
    struct item once[BATCH], often[BATCH], *batch[BATCH];
    struct stage_settings settings = {.steps = 3, .guidance = 1};
    open_mini(&scene, 2);
    init_batch(once, batch);
    prepare(&scene, batch, BATCH);
    run(&scene, STAGE_DECODER, batch, BATCH, &settings, NULL);
    settings.resample = 2;
    init_batch(often, batch);
    prepare(&scene, batch, BATCH);
    run(&scene, STAGE_DECODER, batch, BATCH, &settings, NULL);
    assert_same_image(&once[0], &often[0]);
    assert_false(same_image(&once[1], &often[1]));
    release(once, BATCH);
    release(often, BATCH);
    scene_close(&scene);
}

/* ---- where it starts ---- */

static void start_mini(struct scene *scene, const struct stage_settings *settings,
                       struct item *item, const struct stage_watch *watch)
{
    item_init(item, "a red heart", "", 7);
    give_source(item, 2);
    prepare(scene, &item, 1);
    run(scene, STAGE_DECODER, &item, 1, settings, watch);
    run(scene, STAGE_UPSAMPLER_1, &item, 1, settings, watch);
    golden_ok(item->err.code, &item->err);
}

static void count_steps(void *context, int step, int steps)
{
    int *calls = context;
    assert_in_range(step, 1, steps);
    ++*calls;
}

static void test_picture(void **state)
{
    (void)state;
    struct scene scene;
    struct item noise, all, none, some;
    struct stage_settings settings = {
        .steps = 4, .guidance = 2, .sampler = *(enum sampler *)*state};
    int calls = 0;
    const struct stage_watch watch = {.step = count_steps, .context = &calls};
    open_mini(&scene, 2);
    start_mini(&scene, &settings, &noise, NULL);
    settings.start = START_PICTURE;
    settings.strength = 1;
    start_mini(&scene, &settings, &all, NULL);
    assert_same_image(&noise, &all);
    settings.strength = 0.5;
    start_mini(&scene, &settings, &some, &watch);
    assert_int_equal(calls, 4); /* two in each stage */
    settings.strength = 0;
    start_mini(&scene, &settings, &none, NULL);
    assert_true(isinf(psnr(&none)));
    assert_true(psnr(&some) > psnr(&noise));
    release((struct item[]){noise, all, none, some}, 4);
    scene_close(&scene);
}

/* The shipped model's own picture of 64 pixels, as bytes, comes back; and an embedding for the way
   to the noise takes the place of the other. */
static void test_inversion(void **state)
{
    (void)state;
    struct scene scene;
    struct item item, *batch[] = {&item};
    struct image image = {0};
    struct err err = {0};
    const struct stage_settings make = {.steps = 25, .guidance = 2};
    const struct stage_settings invert = {
        .steps = 50, .guidance = 1, .sampler = SAMPLER_DDIM, .start = START_INVERSION};
    scene_open(&scene, MODELS_DIR "/emoji", 2, STAGE_DECODER);
    item_init(&item, "a red heart", "", 1);
    run(&scene, STAGE_TEXT_ENCODE, batch, 1, &make, NULL);
    run(&scene, STAGE_PRIOR, batch, 1, &make, NULL);
    run(&scene, STAGE_DECODER, batch, 1, &make, NULL);
    golden_ok(image_from_float(&image, item.image, item.image_size, &err), &err);
    item.source_size = item.image_size;
    item.source = xmalloc((size_t)item.image_size * (size_t)item.image_size * 3);
    memcpy(item.source, image.pixels, (size_t)item.image_size * (size_t)item.image_size * 3);
    run(&scene, STAGE_DECODER, batch, 1, &invert, NULL);
    golden_ok(item.err.code, &item.err);
    double decibel = psnr(&item);
    print_message("inversion at %d pixels: %.1f dB\n", item.image_size, decibel);
    assert_true(decibel >= INVERTED);
    image_release(&image);
    item_release(&item);
    scene_close(&scene);
}

static void start_inverted(struct scene *scene, double eta, const float *embed, struct item *item)
{
    const struct stage_settings settings = {
        .steps = 3, .guidance = 2, .eta = eta, .sampler = SAMPLER_DDIM, .start = START_INVERSION};
    item_init(item, "a red heart", "", 7);
    give_source(item, 2);
    prepare(scene, &item, 1);
    if (embed) {
        item->invert_embed = xmalloc((size_t)item->embed_dim * sizeof(float));
        memcpy(item->invert_embed, embed, (size_t)item->embed_dim * sizeof(float));
    }
    run(scene, STAGE_DECODER, &item, 1, &settings, NULL);
    golden_ok(item->err.code, &item->err);
}

static void test_embedding_of_an_inversion(void **state)
{
    (void)state;
    struct scene scene;
    struct item plain, same, other, random;
    open_mini(&scene, 2);
    start_inverted(&scene, 0, NULL, &plain);
    start_inverted(&scene, 0, plain.image_embed, &same);
    start_inverted(&scene, 0, plain.text_embed, &other);
    start_inverted(&scene, 1, NULL, &random);
    assert_same_image(&plain, &same);
    assert_false(same_image(&plain, &other));
    assert_false(same_image(&plain, &random));
    release((struct item[]){plain, same, other, random}, 4);
    scene_close(&scene);
}

/* ---- independence ---- */

static void run_route(struct scene *scene, struct item *const *items, size_t count,
                      const struct stage_settings *settings, const struct stage_watch *watch)
{
    prepare(scene, items, count);
    run(scene, STAGE_DECODER, items, count, settings, watch);
    run(scene, STAGE_UPSAMPLER_1, items, count, settings, watch);
}

static void test_batch_invariance(void **state)
{
    const struct stage_settings *settings = *state;
    struct scene scene;
    struct item alone[BATCH], together[BATCH], *batch[BATCH];
    open_mini(&scene, 1);
    init_batch(alone, batch);
    for (size_t i = 0; i < BATCH; i++)
        run_route(&scene, &batch[i], 1, settings, NULL);
    scene_close(&scene);
    open_mini(&scene, 2);
    init_batch(together, batch);
    run_route(&scene, batch, BATCH, settings, NULL);
    for (size_t i = 0; i < BATCH; i++)
        assert_same_image(&alone[i], &together[i]);
    release(alone, BATCH);
    release(together, BATCH);
    scene_close(&scene);
}

/* Items of all kinds of mask, two of which have an embedding of their own for an inversion. */
static void decode(struct scene *scene, struct item items[BATCH],
                   const struct stage_settings *settings)
{
    struct item *batch[BATCH];
    init_batch(items, batch);
    prepare(scene, batch, BATCH);
    for (int i = 0; i < 2; i++) {
        size_t bytes = (size_t)items[i].embed_dim * sizeof(float);
        items[i].invert_embed = xmalloc(bytes);
        memcpy(items[i].invert_embed, items[i].text_embed, bytes);
    }
    run(scene, STAGE_DECODER, batch, BATCH, settings, NULL);
}

static int64_t op_calls(struct nn *nn)
{
    const struct nn_profile_row *rows;
    int64_t calls = 0;
    for (size_t i = nn_profile_rows(nn, &rows); i-- > 0;)
        calls += rows[i].calls;
    return calls;
}

/* What the U-Net reads of the texts is read again in each step where it may not be kept. */
static void test_texts_not_kept(void **state)
{
    struct stage_settings settings = *(const struct stage_settings *)*state;
    struct scene scene;
    struct item kept[BATCH], read[BATCH];
    open_mini(&scene, 2);
    nn_profile_start(scene.nn);
    decode(&scene, kept, &settings);
    int64_t calls = op_calls(scene.nn);
    settings.kept_bytes_max = 1;
    nn_profile_start(scene.nn);
    decode(&scene, read, &settings);
    assert_true(op_calls(scene.nn) > calls);
    for (size_t i = 0; i < BATCH; i++)
        assert_same_image(&kept[i], &read[i]);
    release(kept, BATCH);
    release(read, BATCH);
    scene_close(&scene);
}

/* ---- previews ---- */

struct previews {
    int calls[BATCH];
    float *last[BATCH];
};

static void on_preview(void *context, size_t item, const float *x0, int size)
{
    struct previews *previews = context;
    size_t bytes = (size_t)(size * size * 3) * sizeof(float);
    assert_in_range(item, 0, BATCH - 1);
    assert_true(size == 16 || size == 64);
    previews->calls[item]++;
    previews->last[item] = xrealloc(previews->last[item], bytes);
    memcpy(previews->last[item], x0, bytes);
}

/* They change nothing, name the item, and the last one is the picture. The texts' lengths differ,
   so that the decoder sorts the items. */
/* The noise of a frame: at the ends that of the two seeds, whose pictures come out to the bit. */
static void test_noise_on_the_way(void **state)
{
    (void)state;
    static const double places[] = {0, 0.5, 1};
    struct scene scene;
    struct item items[4], *batch[4];
    const struct stage_settings settings = {.steps = 4, .guidance = 2, .sampler = SAMPLER_DDIM};
    open_mini(&scene, 2);
    for (int i = 0; i < 4; i++) {
        batch[i] = &items[i];
        item_init(batch[i], "a red heart", "", i < 3 ? 7 : 8);
        items[i].noise_seed = 8;
        items[i].noise_place = i < 3 ? places[i] : 0;
    }
    prepare(&scene, batch, 4);
    for (int i = 1; i < 4; i++) /* the prior drew other noise: the decoder alone is looked at */
        memcpy(items[i].image_embed, items[0].image_embed,
               (size_t)items[0].embed_dim * sizeof(float));
    for (int i = 0; i < 4; i++)
        rng_seed(&items[i].rng, i < 3 ? 7 : 8);
    run(&scene, STAGE_DECODER, batch, 4, &settings, NULL);
    assert_same_image(&items[2], &items[3]);
    assert_false(same_image(&items[0], &items[1]));
    assert_false(same_image(&items[1], &items[2]));
    release(items, 4);
    scene_close(&scene);
}

static void test_previews(void **state)
{
    (void)state;
    const struct stage_settings settings = {
        .steps = 4, .guidance = 2, .sampler = SAMPLER_DDIM, .threshold = 0.95};
    struct previews previews = {0};
    const struct stage_watch watch = {.preview = on_preview, .context = &previews};
    struct scene scene;
    struct item quiet[BATCH], loud[BATCH], *batch[BATCH];
    open_mini(&scene, 2);
    for (int watched = 0; watched < 2; watched++) {
        struct item *items = watched ? loud : quiet;
        init_batch(items, batch);
        for (int i = 1; i < BATCH; i++) {
            free(items[i].mask);
            items[i].mask = NULL;
        }
        items[0].preview = 1, items[1].preview = 3, items[2].preview = 4;
        prepare(&scene, batch, BATCH);
        items[1].text_len--, items[3].text_len--;
        run(&scene, STAGE_DECODER, batch, BATCH, &settings, watched ? &watch : NULL);
    }
    static const int calls[BATCH] = {4, 1, 1, 0};
    for (size_t i = 0; i < BATCH; i++) {
        assert_int_equal(previews.calls[i], calls[i]);
        assert_same_image(&quiet[i], &loud[i]);
    }
    for (size_t i = 0; i < BATCH; i += 2)
        assert_memory_equal(previews.last[i], loud[i].image, 16 * 16 * 3 * sizeof(float));
    for (size_t i = 0; i < BATCH; i++)
        free(previews.last[i]);
    release(quiet, BATCH);
    release(loud, BATCH);
    scene_close(&scene);
}

/* ---- what is refused ---- */

static void test_refusals(void **state)
{
    (void)state;
    struct scene scene;
    struct item items[2], *batch[] = {&items[0], &items[1]};
    struct err err = {0};
    struct stage_settings settings = {.steps = 2, .guidance = 1, .start = START_INVERSION};
    open_mini(&scene, 2);
    for (int i = 0; i < 2; i++)
        item_init(&items[i], "a red heart", "", 3);
    give_source(&items[0], 1);
    prepare(&scene, batch, 2);
    assert_int_equal(stage_run(scene.stages[STAGE_DECODER], batch, 2, &settings, NULL, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "ddim"));
    settings.sampler = SAMPLER_DDIM;
    assert_int_equal(stage_run(scene.stages[STAGE_PRIOR], batch, 2, &settings, NULL, &err),
                     -ERR_INVALID_ARGUMENT);
    run(&scene, STAGE_DECODER, batch, 2, &settings, NULL);
    assert_int_equal(items[0].err.code, ERR_OK);
    assert_int_equal(items[1].err.code, ERR_INVALID_RECORD);
    release(items, 2);
    scene_close(&scene);
}

/* clang-format off */
#define WITH(test, name, value) {#test " " name, test, NULL, NULL, value}
/* clang-format on */

int main(void)
{
    static enum sampler ddpm = SAMPLER_DDPM, ddim = SAMPLER_DDIM, dpm = SAMPLER_DPM_SOLVER_PP;
    static struct stage_settings ways[] = {
        {.steps = 3, .guidance = 3, .resample = 2},
        {.steps = 3, .guidance = 3, .resample = 1, .reuse = 2, .sampler = SAMPLER_DPM_SOLVER_PP},
        {.steps = 3, .guidance = 2, .sampler = SAMPLER_DDIM, .eta = 0.5, .start = START_INVERSION},
        {.steps = 4,
         .guidance = 2,
         .sampler = SAMPLER_DPM_SOLVER_PP,
         .start = START_PICTURE,
         .strength = 0.75,
         .threshold = 0.9,
         .reuse = 2,
         .resample = 1},
    };
    const struct CMUnitTest tests[] = {
        WITH(test_inpainting, "ddpm", &ddpm),
        WITH(test_inpainting, "ddim", &ddim),
        WITH(test_inpainting, "dpm", &dpm),
        cmocka_unit_test(test_inpainting_lanczos),
        cmocka_unit_test(test_resample),
        WITH(test_picture, "ddpm", &ddpm),
        WITH(test_picture, "dpm", &dpm),
        cmocka_unit_test(test_inversion),
        cmocka_unit_test(test_embedding_of_an_inversion),
        WITH(test_batch_invariance, "resample", &ways[0]),
        WITH(test_batch_invariance, "resample and reuse", &ways[1]),
        WITH(test_batch_invariance, "inversion", &ways[2]),
        WITH(test_batch_invariance, "picture", &ways[3]),
        WITH(test_texts_not_kept, "resample", &ways[0]),
        WITH(test_texts_not_kept, "resample and reuse", &ways[1]),
        WITH(test_texts_not_kept, "inversion", &ways[2]),
        WITH(test_texts_not_kept, "picture", &ways[3]),
        cmocka_unit_test(test_noise_on_the_way),
        cmocka_unit_test(test_previews),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, write_models, remove_models);
}
