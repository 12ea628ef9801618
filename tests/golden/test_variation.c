/* SPDX-License-Identifier: Apache-2.0 */
/* A picture's embedding, decoded again, against UnCLIPImageVariationPipeline with the same seed. */
#include "exact.h"
#include "golden_limits.h"

#include "stages/stage.h"

#define IMAGES_MAX 4

static char models[] = "/tmp/golden-variation-XXXXXX";

static int write_models(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(models));
    golden_write_model(models, "mini", "mini", NULL);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    golden_remove_folder(models);
    return 0;
}

static void begin(const struct golden *golden, struct item *item, size_t i)
{
    const struct safetensors_entry *image = golden_typed(golden, "in.image", DTYPE_U8);
    item_init(item, "", "", (uint64_t)golden_integer(golden, "seed") + i);
    item->type = JOB_VARIATION;
    item->input_count = 1;
    item->inputs[0] = (struct item_input){.pixels = xmalloc(image->bytes),
                                          .height = (int)image->dim[0],
                                          .width = (int)image->dim[1],
                                          .weight = 1};
    memcpy(item->inputs[0].pixels, image->data, image->bytes);
}

static void run_stage(enum stage stage, const char *path, struct nn *nn, struct item *const *items,
                      size_t count, const struct stage_settings *settings)
{
    struct stage_model *model;
    struct err err = {0};
    golden_ok(stage_open(&model, stage, path, nn, &err), &err);
    golden_ok(stage_run(model, items, count, settings, NULL, &err), &err);
    for (size_t i = 0; i < count; i++)
        golden_ok(items[i]->err.code, &items[i]->err);
    stage_close(model);
}

/* dB of the finished 8-bit pictures, and of the decoder's floats. */
static void check_picture(const struct golden *golden, struct item *const *items, size_t count)
{
    const struct safetensors_entry *want = golden_typed(golden, "out.image", DTYPE_U8);
    size_t values = want->bytes / count;
    double error = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < values; k++) {
            float unit = fminf(fmaxf(items[i]->image[k] * 0.5f + 0.5f, 0), 1);
            double d = rint((double)(unit * 255)) - ((const uint8_t *)want->data)[i * values + k];
            error += d * d;
        }
    double decibel = error > 0 ? 10 * log10(255.0 * 255.0 * (double)want->bytes / error) : INFINITY;
    print_message("%s: picture %.1f dB\n", golden->name, decibel);
    assert_true(decibel >= LIMIT_PIPELINE_PSNR);
}

static void test_variation(void **state)
{
    struct golden golden = golden_open(*state);
    struct item items[IMAGES_MAX], *batch[IMAGES_MAX];
    struct err err = {0};
    struct nn *nn;
    char *path = xasprintf("%s/mini", models);
    size_t count = (size_t)golden_integer(&golden, "images");
    struct stage_settings decoder = {.steps = (int)golden_integer(&golden, "decoder_steps"),
                                     .guidance = golden_number(&golden, "decoder_guidance")};
    struct stage_settings upsampler = {.steps = (int)golden_integer(&golden, "super_res_steps")};
    golden_ok(nn_open(&nn, DTYPE_F32, 2, &err), &err);
    for (size_t i = 0; i < count; i++) {
        batch[i] = &items[i];
        begin(&golden, batch[i], i);
    }
    run_stage(STAGE_TEXT_ENCODE, path, nn, batch, count, &decoder);
    run_stage(STAGE_IMAGE_ENCODE, path, nn, batch, count, &decoder);
    golden_check(&golden, "out.image_embeds", items[0].image_embed, (size_t)items[0].embed_dim,
                 LIMIT_NETWORK_F32);
    run_stage(STAGE_DECODER, path, nn, batch, count, &decoder);
    run_stage(STAGE_UPSAMPLER_1, path, nn, batch, count, &upsampler);
    check_picture(&golden, batch, count);
    for (size_t i = 0; i < count; i++)
        item_release(batch[i]);
    nn_close(nn);
    free(path);
    golden_close(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"variation-wide", test_variation, NULL, NULL, (char[]){"variation-wide"}},
        {"variation-unguided", test_variation, NULL, NULL, (char[]){"variation-unguided"}},
    };
    return cmocka_run_group_tests(tests, write_models, remove_models);
}
