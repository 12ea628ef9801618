/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage prior on the test model mini: embeddings of the autoregressive prior against its twin
 * (ar-prior-sample), and what all three kinds promise: which embedding is taken of several
 * candidates, with which generator the item goes on, that an item's bytes depend on nothing but
 * the item and the settings, and that one that fails or is stopped takes no other along. The
 * diffusion prior is held against diffusers in test_pipeline.c.
 */
#include "golden_limits.h"

#include "common/memory.h"
#include "stages/stage.h"

#define D        32 /* mini's sizes */
#define L        24
#define ROWS_MAX 5

static char models[] = "/tmp/golden-prior-XXXXXX";

/* bare/ has no autoregressive prior, mixed/ one of another model's sizes. */
static int write_models(void **state)
{
    (void)state;
    char from[128], to[128];
    assert_non_null(mkdtemp(models));
    golden_write_model(models, "mini", "mini", NULL);
    golden_write_model(models, "mini", "bare", NULL);
    golden_write_model(models, "karlo-narrow", "mixed", NULL);
    snprintf(from, sizeof from, "%s/bare/ar_prior", models);
    snprintf(to, sizeof to, "%s/mixed/ar_prior", models);
    assert_int_equal(rename(from, to), 0);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    golden_remove_folder(models);
    return 0;
}

struct scene {
    struct nn *nn;
    struct stage_model *stage;
};

static void scene_open(struct scene *scene, const char *model, enum dtype dtype, int threads)
{
    struct err err = {0};
    char path[128];
    snprintf(path, sizeof path, "%s/%s", models, model);
    golden_ok(nn_open(&scene->nn, dtype, threads, &err), &err);
    golden_ok(stage_open(&scene->stage, STAGE_PRIOR, path, scene->nn, &err), &err);
}

static void scene_close(struct scene *scene)
{
    stage_close(scene->stage);
    nn_close(scene->nn);
}

static void scene_run(struct scene *scene, struct item *const *items, size_t count,
                      const struct stage_settings *settings, const struct stage_watch *watch)
{
    struct err err = {0};
    golden_ok(stage_run(scene->stage, items, count, settings, watch, &err), &err);
}

/* Text row `row` of an item from the synthetic text `text`: of 1 to L tokens. */
static void put_text(struct item *item, int row, int text)
{
    char name[64];
    snprintf(name, sizeof name, "embed/%d", text);
    synth_fill(name, 0, D, 3.5f, 0, item->text_embed + row * D);
    snprintf(name, sizeof name, "states/%d", text);
    synth_fill(name, 0, L * D, 3.5f, 0, item->text_states + row * L * D);
    for (int i = 0; i < L; i++)
        item->text_mask[row * L + i] = i <= text * 5 % L;
}

static void item_make(struct item *item, int rows, uint64_t seed)
{
    item_init(item, "", "", seed);
    item->embed_dim = item->text_width = D;
    item->text_len = L;
    item->text_rows = rows;
    item->text_embed = xcalloc((size_t)rows, D * sizeof(float));
    item->text_states = xcalloc((size_t)rows, L * D * sizeof(float));
    item->text_mask = xcalloc((size_t)rows, L);
}

/* Item i: a prompt of its own, and one of two negative prompts. */
static void item_fill(struct item *item, int i)
{
    item_make(item, 2, 100 + (uint64_t)i);
    put_text(item, 0, 10 + i);
    put_text(item, 1, i % 2);
}

/* Runs item i alone, on one thread. */
static void run_alone(struct scene *scene, int i, const struct stage_settings *settings,
                      struct item *item)
{
    item_fill(item, i);
    scene_run(scene, &item, 1, settings, NULL);
    golden_ok(item->err.code, &item->err);
}

static void assert_same(const struct item *a, const struct item *b)
{
    uint8_t state[2][RNG_BYTES];
    rng_store(&a->rng, state[0]);
    rng_store(&b->rng, state[1]);
    assert_memory_equal(a->image_embed, b->image_embed, D * sizeof(float));
    assert_memory_equal(state[0], state[1], RNG_BYTES);
}

/* ---- against the twin ---- */

/* Rows of the golden: the negative prompts' texts, then the prompts'. */
static void take_text(const struct golden *golden, struct item *item, size_t i, size_t count)
{
    struct golden_tensor embed = golden_get(golden, "in.text_embed");
    struct golden_tensor states = golden_get(golden, "in.text_states");
    struct golden_tensor mask = golden_get(golden, "in.mask");
    assert_int_equal(embed.dim[1], D);
    assert_int_equal(states.dim[1], L);
    for (size_t row = 0; row < 2; row++) {
        size_t from = row == 0 ? count + i : i;
        memcpy(item->text_embed + row * D, embed.values + from * D, D * sizeof(float));
        memcpy(item->text_states + row * L * D, states.values + from * L * D,
               L * D * sizeof(float));
        for (size_t k = 0; k < L; k++)
            item->text_mask[row * L + k] = mask.values[from * L + k] > 0;
    }
    free(embed.values);
    free(states.values);
    free(mask.values);
}

static void test_sampled(void **state)
{
    (void)state;
    struct golden golden = golden_open("ar-prior-sample");
    size_t count = (size_t)golden_entry(&golden, "out.embeddings")->dim[0];
    struct golden_tensor after = golden_get(&golden, "out.rand_after"); /* [count, 2] */
    struct item items[ROWS_MAX], *batch[ROWS_MAX];
    float embeds[ROWS_MAX * D], next[2];
    struct stage_settings settings = {.guidance = golden_number(&golden, "guidance"),
                                      .prior = PRIOR_AUTOREGRESSIVE};
    struct scene scene;
    scene_open(&scene, "mini", DTYPE_F32, 2);
    assert_in_range(count, 1, ROWS_MAX);
    for (size_t i = 0; i < count; i++) {
        item_make(&items[i], 2, (uint64_t)golden_integer(&golden, "seed") + i);
        take_text(&golden, &items[i], i, count);
        batch[i] = &items[i];
    }
    scene_run(&scene, batch, count, &settings, NULL);
    for (size_t i = 0; i < count; i++) {
        golden_ok(items[i].err.code, &items[i].err);
        memcpy(embeds + i * D, items[i].image_embed, D * sizeof(float));
        rng_uniform(&items[i].rng, next, 2);
        assert_memory_equal(next, after.values + 2 * i, sizeof next);
        item_release(&items[i]);
    }
    golden_check(&golden, "out.embeddings", embeds, count * D, LIMIT_BLOCK_F32);
    free(after.values);
    scene_close(&scene);
    golden_close(&golden);
}

/* ---- kinds ---- */

#define DIFFUSION                                                                                  \
    {                                                                                              \
        .steps = 3, .guidance = 4, .prior = PRIOR_DIFFUSION                                        \
    }
#define AUTOREGRESSIVE                                                                             \
    {                                                                                              \
        .guidance = 2, .prior = PRIOR_AUTOREGRESSIVE                                               \
    }
#define UNGUIDED                                                                                   \
    {                                                                                              \
        .guidance = 1, .prior = PRIOR_AUTOREGRESSIVE                                               \
    }

struct way {
    enum dtype dtype;
    struct stage_settings settings;
};

static void never(void *context, int step, int steps)
{
    fail_msg("%p: step %d of %d", context, step, steps);
}

/* What prior/'s own statistics say of an image embedding's length. */
static double image_norm(void)
{
    float mean[D], std[D];
    double sum = 0;
    synth_fill("prior/clip_mean", 0, D, 1, 0, mean);
    synth_fill("prior/clip_std", 0, D, 0.5f, 1, std);
    for (int i = 0; i < D; i++)
        sum += (double)(mean[i] * mean[i] + std[i] * std[i]);
    return sqrt(sum);
}

static void test_none(void **state)
{
    (void)state;
    struct item item, *batch[] = {&item}, fresh;
    struct stage_watch watch = {.step = never};
    struct scene scene;
    scene_open(&scene, "bare", DTYPE_F32, 1);
    item_fill(&item, 0);
    item_fill(&fresh, 0);
    scene_run(&scene, batch, 1, &(struct stage_settings){.prior = PRIOR_NONE, .candidates = 4},
              &watch);
    double square = 0, dot = 0, text = 0;
    for (int i = 0; i < D; i++) {
        square += (double)(item.image_embed[i] * item.image_embed[i]);
        dot += (double)(item.image_embed[i] * item.text_embed[i]);
        text += (double)(item.text_embed[i] * item.text_embed[i]);
    }
    assert_true(fabs(sqrt(square) / image_norm() - 1) < 1e-5);
    assert_true(fabs(dot / sqrt(square * text) - 1) < 1e-5);
    fresh.image_embed = item.image_embed; /* no draws */
    assert_same(&fresh, &item);
    fresh.image_embed = NULL;
    item_release(&item);
    item_release(&fresh);
    scene_close(&scene);
}

static void check_refusal(const char *model, enum err_code code, const char *text)
{
    struct stage_settings ar = AUTOREGRESSIVE, diffusion = DIFFUSION;
    struct scene scene;
    struct item item, *batch[] = {&item};
    scene_open(&scene, model, DTYPE_F32, 1);
    item_fill(&item, 0);
    for (int i = 0; i < 2; i++) { /* it is not taken for loaded after the first try */
        struct err err = {0};
        assert_int_equal(stage_run(scene.stage, batch, 1, &ar, NULL, &err), -(int)code);
        if (!strstr(err.text, text))
            fail_msg("%s", err.text);
    }
    item.err = (struct err){0};
    scene_run(&scene, batch, 1, &diffusion, NULL);
    item_release(&item);
    scene_close(&scene);
}

static void test_missing(void **state)
{
    (void)state;
    check_refusal("bare", ERR_UNSUPPORTED, "the model has no ar_prior/");
    check_refusal("mixed", ERR_INVALID_MODEL,
                  "a text is 32, 24 x 32 numbers, in prior/ it is 48, 77 x 48");
}

/* ---- candidates ---- */

static double fit(const struct item *item)
{
    double sum = 0;
    for (int i = 0; i < D; i++)
        sum += (double)item->text_embed[i] * (double)item->image_embed[i];
    return sum;
}

/* Candidate c of item i, made as the only one of an item with the generator's fork. */
static void run_candidate(struct scene *scene, int i, int c, struct stage_settings settings,
                          struct item *item)
{
    settings.candidates = 1;
    item_fill(item, i);
    if (c > 0)
        rng_fork(&item->rng, (uint32_t)c, &item->rng);
    scene_run(scene, &item, 1, &settings, NULL);
    golden_ok(item->err.code, &item->err);
}

static void test_candidates(void **state)
{
    const struct way *way = *state;
    struct stage_settings settings = way->settings;
    struct scene scene;
    int others = 0;
    scene_open(&scene, "mini", way->dtype, 2);
    settings.candidates = 3;
    for (int i = 0; i < 4; i++) {
        struct item best, one[3];
        int chosen = 0;
        run_alone(&scene, i, &settings, &best);
        for (int c = 0; c < 3; c++) {
            run_candidate(&scene, i, c, settings, &one[c]);
            chosen = fit(&one[c]) > fit(&one[chosen]) ? c : chosen;
        }
        assert_memory_not_equal(one[0].image_embed, one[1].image_embed, D * sizeof(float));
        assert_memory_not_equal(one[1].image_embed, one[2].image_embed, D * sizeof(float));
        one[chosen].rng = one[0].rng; /* the item goes on as with one candidate */
        assert_same(&best, &one[chosen]);
        others += chosen > 0;
        for (int c = 0; c < 3; c++)
            item_release(&one[c]);
        item_release(&best);
    }
    assert_true(others > 0);
    scene_close(&scene);
}

/* ---- independence ---- */

#define MANY 20 /* with two candidates each: more than a pass takes */

static void test_company(void **state)
{
    const struct way *way = *state;
    struct stage_settings settings = way->settings;
    struct item together[MANY], *batch[MANY];
    struct scene scene;
    settings.candidates = 2;
    scene_open(&scene, "mini", way->dtype, 2);
    for (int i = 0; i < MANY; i++) {
        item_fill(&together[i], i);
        batch[i] = &together[i];
    }
    scene_run(&scene, batch, MANY, &settings, NULL);
    nn_set_threads(scene.nn, 1);
    for (int i = 0; i < MANY; i++) {
        struct item alone;
        run_alone(&scene, i, &settings, &alone);
        assert_same(&together[i], &alone);
        item_release(&alone);
        item_release(&together[i]);
    }
    scene_close(&scene);
}

/* The embeddings of several texts are those of as many items with one text and the same seed. */
static void test_texts(void **state)
{
    const struct way *way = *state;
    struct item item, *batch[] = {&item};
    struct scene scene;
    struct stage_settings settings = way->settings;
    settings.candidates = 2;
    scene_open(&scene, "mini", way->dtype, 2);
    item_make(&item, ROWS_MAX, 100);
    put_text(&item, 0, 99);
    put_text(&item, 1, 0);
    for (int row = 2; row < ROWS_MAX; row++)
        put_text(&item, row, 10 + row);
    scene_run(&scene, batch, 1, &settings, NULL);
    golden_ok(item.err.code, &item.err);
    assert_null(item.image_embed);
    item.image_embed = xmalloc(D * sizeof(float));
    for (int row = 2; row < ROWS_MAX; row++) {
        struct item one, *only[] = {&one};
        item_make(&one, 2, 100);
        put_text(&one, 0, 10 + row);
        put_text(&one, 1, 0);
        scene_run(&scene, only, 1, &settings, NULL);
        memcpy(item.image_embed, item.texts_embeds + (row - 2) * D, D * sizeof(float));
        assert_same(&item, &one);
        item_release(&one);
    }
    item_release(&item);
    scene_close(&scene);
}

/* ---- items that leave ---- */

struct stopper {
    struct item *victims[2];
    int calls;
};

static void stop_at_second(void *context, int step, int steps)
{
    struct stopper *stopper = context;
    assert_in_range(step, 1, steps);
    if (++stopper->calls == 2)
        for (int i = 0; i < 2; i++)
            stopper->victims[i]->stop = true;
}

static void test_stop(void **state)
{
    const struct way *way = *state;
    struct stage_settings settings = way->settings;
    struct item items[3], alone, *batch[] = {&items[0], &items[1], &items[2]};
    struct stopper stopper = {.victims = {&items[0], &items[2]}};
    struct stage_watch watch = {stop_at_second, &stopper};
    struct scene scene;
    settings.candidates = 2;
    scene_open(&scene, "mini", way->dtype, 2);
    for (int i = 0; i < 3; i++)
        item_fill(&items[i], i);
    scene_run(&scene, batch, 3, &settings, &watch);
    run_alone(&scene, 1, &settings, &alone);
    assert_same(&items[1], &alone);
    for (int i = 0; i < 3; i += 2) {
        assert_int_equal(items[i].err.code, ERR_CANCELLED);
        assert_null(items[i].image_embed);
        item_release(&items[i]);
        item_fill(&items[i], i);
    }
    struct item *both[] = {&items[0], &items[2]};
    stopper.calls = 0;
    scene_run(&scene, both, 2, &settings, &watch);
    assert_int_equal(stopper.calls, 2); /* nobody is left */
    for (int i = 0; i < 3; i++)
        item_release(&items[i]);
    item_release(&alone);
    scene_close(&scene);
}

static void test_not_finite(void **state)
{
    const struct way *way = *state;
    struct stage_settings settings = way->settings;
    struct item items[2], alone, *batch[] = {&items[0], &items[1]};
    struct scene scene;
    settings.candidates = 2;
    scene_open(&scene, "mini", way->dtype, 2);
    item_fill(&items[0], 0);
    item_fill(&items[1], 1);
    items[0].text_embed[3] = NAN;
    scene_run(&scene, batch, 2, &settings, NULL);
    run_alone(&scene, 1, &settings, &alone);
    assert_int_equal(items[0].err.code, ERR_COMPUTE);
    assert_null(items[0].image_embed);
    assert_same(&items[1], &alone);
    item_release(&items[0]);
    item_release(&items[1]);
    item_release(&alone);
    scene_close(&scene);
}

/* clang-format off */
#define OF(test, way) {#test " " #way, test, NULL, NULL, &way}
#define ALL(test) OF(test, diffusion_f32), OF(test, diffusion_bf16), OF(test, autoregressive_f32), \
                  OF(test, autoregressive_bf16), OF(test, unguided_f32)
/* clang-format on */

int main(void)
{
    static struct way diffusion_f32 = {DTYPE_F32, DIFFUSION};
    static struct way diffusion_bf16 = {DTYPE_BF16, DIFFUSION};
    static struct way autoregressive_f32 = {DTYPE_F32, AUTOREGRESSIVE};
    static struct way autoregressive_bf16 = {DTYPE_BF16, AUTOREGRESSIVE};
    static struct way unguided_f32 = {DTYPE_F32, UNGUIDED};
    static struct way none_f32 = {DTYPE_F32, {.prior = PRIOR_NONE}};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sampled), cmocka_unit_test(test_none), cmocka_unit_test(test_missing),
        ALL(test_candidates),           ALL(test_company),           ALL(test_texts),
        OF(test_texts, none_f32),       OF(test_company, none_f32),  ALL(test_stop),
        ALL(test_not_finite),
    };
    return cmocka_run_group_tests(tests, write_models, remove_models);
}
