/* SPDX-License-Identifier: Apache-2.0 */
/* The stage image-encode and long texts on the shipped model: what each kind of item gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/mix.h"
#include "stages/stage.h"

#define MODEL SOURCE_DIR "/models/emoji"

static struct nn *nn;
static struct stage_model *texts, *images;

static int open_stages(void **state)
{
    (void)state;
    struct err err;
    return nn_open(&nn, DTYPE_F32, 1, &err) ||
           stage_open(&texts, STAGE_TEXT_ENCODE, MODEL, nn, &err) ||
           stage_open(&images, STAGE_IMAGE_ENCODE, MODEL, nn, &err);
}

static int close_stages(void **state)
{
    (void)state;
    stage_close(texts);
    stage_close(images);
    nn_close(nn);
    return 0;
}

static void run(struct stage_model *model, struct item *item)
{
    struct err err = {0};
    struct stage_settings settings = {0};
    assert_int_equal(stage_run(model, &item, 1, &settings, NULL, &err), 0);
}

/* A disc of that colour on white, 40 x 32. */
static void add_picture(struct item *item, uint8_t r, uint8_t g, uint8_t b)
{
    struct item_input *input = &item->inputs[item->input_count++];
    *input = (struct item_input){.width = 40, .height = 32, .weight = 1};
    input->pixels = xmalloc(40 * 32 * 3);
    for (int p = 0; p < 40 * 32; p++) {
        int x = p % 40 - 20, y = p / 40 - 16;
        const uint8_t colour[] = {r, g, b};
        for (int c = 0; c < 3; c++)
            input->pixels[p * 3 + c] = x * x + y * y < 144 ? colour[c] : 255;
    }
}

static void begin(struct item *item, enum job_type type, const char *prompt)
{
    item_init(item, prompt, "", 1);
    item->type = type;
}

static void two_embeddings_apart(float *red, float *blue, int *d)
{
    struct item item[2];
    for (int i = 0; i < 2; i++) {
        begin(&item[i], JOB_VARIATION, "");
        add_picture(&item[i], i ? 0 : 255, 0, i ? 255 : 0);
        run(images, &item[i]);
        *d = item[i].embed_dim;
        memcpy(i ? blue : red, item[i].image_embed, (size_t)*d * sizeof(float));
        item_release(&item[i]);
    }
    assert_true(mix_cosine(red, blue, *d) < 0.999);
}

static void a_mixture(void **state)
{
    (void)state;
    struct item item;
    float red[1024], blue[1024], want[1024];
    int d;
    two_embeddings_apart(red, blue, &d);
    begin(&item, JOB_INTERPOLATE, "");
    add_picture(&item, 255, 0, 0);
    add_picture(&item, 0, 0, 255);
    item.inputs[0].weight = 3;
    run(images, &item);
    mix_slerp(red, blue, 0.25, d, want);
    for (int i = 0; i < d; i++)
        assert_true(fabsf(item.image_embed[i] - want[i]) < 1e-4f);
    item_release(&item);
}

static void a_text_in_a_mixture_has_the_priors_embedding(void **state)
{
    (void)state;
    struct item item;
    float red[1024], blue[1024], want[1024];
    int d;
    two_embeddings_apart(red, blue, &d);
    begin(&item, JOB_INTERPOLATE, "");
    item.texts[item.text_count++] = "a blue star";
    item.text_rows = 3;
    run(texts, &item);
    item.inputs[item.input_count++] = (struct item_input){.is_text = true, .weight = 1};
    add_picture(&item, 255, 0, 0);
    struct err none = {0};
    run(images, &item);
    assert_int_equal(item.err.code, ERR_INVALID_RECORD); /* the prior has not been there */
    item.err = none;
    item.texts_embeds = xmalloc((size_t)d * sizeof(float));
    memcpy(item.texts_embeds, blue, (size_t)d * sizeof(float));
    run(images, &item);
    assert_int_equal(item.err.code, 0);
    mix_slerp(blue, red, 0.5, d, want);
    for (int i = 0; i < d; i++)
        assert_true(fabsf(item.image_embed[i] - want[i]) < 1e-4f);
    assert_int_equal(item.text_rows, 2); /* what comes next reads two */
    item_release(&item);
}

static void a_turn_keeps_what_it_turned(void **state)
{
    (void)state;
    struct item item;
    begin(&item, JOB_TEXT_DIFF, "");
    item.texts[0] = "a red disc", item.texts[1] = "a blue disc", item.text_count = 2;
    item.text_rows = 4;
    item.theta = 0.3;
    add_picture(&item, 255, 0, 0);
    run(texts, &item);
    float *from = item.text_embed + 2 * item.embed_dim, *to = from + item.embed_dim;
    float want[1024];
    run(images, &item);
    assert_int_equal(item.err.code, 0);
    mix_turn(item.invert_embed, from, to, 0.3, item.embed_dim, want);
    for (int i = 0; i < item.embed_dim; i++)
        assert_true(item.image_embed[i] == want[i]);
    item_release(&item);
}

static void scores(void **state)
{
    (void)state;
    struct item item;
    begin(&item, JOB_TEXT_TO_IMAGE, "a red heart");
    run(texts, &item);
    item.image_size = 64;
    item.image = xcalloc(64 * 64 * 3, sizeof(float));
    run(images, &item);
    assert_true(item.has_score && fabs(item.score) <= 100);
    assert_non_null(item.image);
    assert_non_null(item.inputs[0].embed); /* for who looks at the finished picture */
    double before = item.score;
    item_release(&item);

    begin(&item, JOB_SCORE, "a red heart");
    run(texts, &item);
    struct item_input *input = &item.inputs[item.input_count++];
    *input = (struct item_input){.width = 64, .height = 64, .weight = 1};
    input->pixels = xmalloc(64 * 64 * 3);
    memset(input->pixels, 128, 64 * 64 * 3);
    run(images, &item);
    assert_true(fabs(item.score - before) < 0.5); /* 0 and 128 are the same grey but for rounding */
    item_release(&item);
}

/* It has no prompt to be scored by. */
static void a_finished_upscale_is_embedded(void **state)
{
    (void)state;
    struct item item;
    begin(&item, JOB_UPSCALE, "");
    item.image_size = 64;
    item.image = xcalloc(64 * 64 * 3, sizeof(float));
    run(images, &item);
    assert_int_equal(item.err.code, 0);
    assert_false(item.has_score);
    assert_true(item.inputs[0].embed && item.embed_dim > 0);
    item_release(&item);
}

static void what_is_missing_fails_the_item(void **state)
{
    (void)state;
    static const enum job_type types[] = {JOB_VARIATION, JOB_TEXT_DIFF, JOB_UPSCALE, JOB_EMBED,
                                          JOB_SCORE};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct item item;
        begin(&item, types[i], "");
        run(images, &item);
        assert_int_equal(item.err.code, ERR_INVALID_RECORD);
        item_release(&item);
    }
}

/* A record may say any width: nothing is read beyond it. */
static void texts_of_another_width_fail(void **state)
{
    (void)state;
    static const enum job_type types[] = {JOB_TEXT_DIFF, JOB_SCORE, JOB_INTERPOLATE};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct item item;
        begin(&item, types[i], "");
        item.embed_dim = 1;
        item.text_rows = 4;
        item.text_embed = xcalloc(4, sizeof(float));
        add_picture(&item, 255, 0, 0);
        add_picture(&item, 0, 255, 0);
        run(images, &item);
        assert_int_equal(item.err.code, ERR_INVALID_RECORD);
        item_release(&item);
    }
}

static void an_upscale_begins_with_its_source(void **state)
{
    (void)state;
    struct item item;
    begin(&item, JOB_UPSCALE, "");
    item.source_size = 2;
    item.source = xmalloc(12);
    for (int i = 0; i < 12; i++)
        item.source[i] = (uint8_t)(i * 23);
    run(images, &item);
    assert_int_equal(item.image_size, 2);
    for (int i = 0; i < 12; i++)
        assert_int_equal(lrintf((item.image[i] + 1) * 127.5f), i * 23);
    item_release(&item);
}

/* 200 words, of which CLIP's 77 places hold no half. */
static char *long_text(void)
{
    char *text = xstrdup("a");
    for (int i = 0; i < 200; i++) {
        char *longer = xasprintf("%s red", text);
        free(text);
        text = longer;
    }
    return text;
}

static void a_long_text(void **state)
{
    (void)state;
    struct item cut, refused, split;
    char *text = long_text();
    begin(&cut, JOB_TEXT_TO_IMAGE, text);
    run(texts, &cut);
    assert_int_equal(cut.err.code, 0);
    assert_true(cut.tokens_dropped > 0);

    begin(&refused, JOB_TEXT_TO_IMAGE, text);
    refused.overflow = OVERFLOW_REFUSE;
    run(texts, &refused);
    assert_int_equal(refused.err.code, ERR_INVALID_JOB);

    begin(&split, JOB_TEXT_TO_IMAGE, text);
    split.overflow = OVERFLOW_SPLIT;
    run(texts, &split);
    assert_int_equal(split.err.code, 0);
    double cosine = mix_cosine(cut.text_embed, split.text_embed, cut.embed_dim);
    assert_true(cosine > 0 && cosine < 0.99999);
    /* the negative prompt is short: the same to the bit */
    assert_memory_equal(cut.text_embed + cut.embed_dim, split.text_embed + cut.embed_dim,
                        (size_t)cut.embed_dim * sizeof(float));
    item_release(&cut);
    item_release(&refused);
    item_release(&split);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_mixture),
        cmocka_unit_test(a_text_in_a_mixture_has_the_priors_embedding),
        cmocka_unit_test(a_turn_keeps_what_it_turned),
        cmocka_unit_test(scores),
        cmocka_unit_test(a_finished_upscale_is_embedded),
        cmocka_unit_test(what_is_missing_fails_the_item),
        cmocka_unit_test(texts_of_another_width_fail),
        cmocka_unit_test(an_upscale_begins_with_its_source),
        cmocka_unit_test(a_long_text),
    };
    return cmocka_run_group_tests(tests, open_stages, close_stages);
}
