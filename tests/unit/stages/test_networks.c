/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the networks make of a config.json: the class's defaults for absent keys, and an error that
 * names file, key and value for whatever asks for more than they do. That they compute the right
 * thing is tests/golden's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"
#include "stages/networks/ar_prior.h"
#include "stages/networks/clip_text.h"
#include "stages/networks/clip_vision.h"
#include "stages/networks/prior_transformer.h"
#include "stages/networks/text_proj.h"
#include "stages/networks/unet.h"

/* ---- U-Nets ---- */

#define DECODER_BLOCKS                                                                             \
    "\"block_out_channels\": [32, 64, 64],"                                                        \
    "\"down_block_types\": [\"ResnetDownsampleBlock2D\", \"SimpleCrossAttnDownBlock2D\","          \
    " \"SimpleCrossAttnDownBlock2D\"],"                                                            \
    "\"mid_block_type\": \"UNetMidBlock2DSimpleCrossAttn\","                                       \
    "\"up_block_types\": [\"SimpleCrossAttnUpBlock2D\", \"ResnetUpsampleBlock2D\","                \
    " \"ResnetUpsampleBlock2D\"],"
#define UPSAMPLER_BLOCKS                                                                           \
    "\"block_out_channels\": [32, 64],"                                                            \
    "\"down_block_types\": [\"ResnetDownsampleBlock2D\", \"ResnetDownsampleBlock2D\"],"            \
    "\"up_block_types\": [\"ResnetUpsampleBlock2D\", \"ResnetUpsampleBlock2D\"],"

/* Reads "{" blocks more "\"x\": 0}" and returns the command's code. */
static int read_unet(struct unet_config *config, enum unet_class unet_class, const char *blocks,
                     const char *more, struct err *err)
{
    char *text = xasprintf("{%s %s \"_unclip_test\": 0}", blocks, more);
    struct netconfig file = {.json = json_loads(text, 0, NULL),
                             .what = xstrdup(unet_class == UNET_2D ? "super_res_first/config.json"
                                                                   : "decoder/config.json")};
    if (!file.json)
        fail_msg("not JSON: %s", text);
    int rc = unet_config_read(config, unet_class, &file, err);
    netconfig_close(&file);
    free(text);
    return rc;
}

static void test_decoder_defaults(void **state)
{
    (void)state;
    struct unet_config config;
    struct err err = {0};
    if (read_unet(&config, UNET_2D_CONDITION, DECODER_BLOCKS, "", &err))
        fail_msg("%s", err.text);
    assert_int_equal(config.sample_size, 0);
    assert_int_equal(config.in_channels, 4);
    assert_int_equal(config.out_channels, 4);
    assert_int_equal(config.levels, 3);
    assert_int_equal(config.layers_per_block[2], 2);
    assert_int_equal(config.attention_head_dim[2], 8);
    assert_int_equal(config.cross_attention_dim, 1280);
    assert_int_equal(config.time_embed_dim, 128);
    assert_int_equal(config.norm_num_groups, 32);
    assert_true(config.norm_eps > 0.99e-5 && config.norm_eps < 1.01e-5);
    assert_int_equal(config.act, ACT_SILU);
    assert_false(config.scale_shift);
    assert_true(config.flip_sin_to_cos);
    assert_false(config.class_embedding);
    assert_false(config.down_attention[0]);
    assert_true(config.down_attention[1] && config.down_attention[2] && config.mid_attention);
    assert_true(config.up_attention[0]);
    assert_false(config.up_attention[1] || config.up_attention[2]);
    assert_int_equal(config.mid_resnets, 2);
}

static void test_upsampler_defaults(void **state)
{
    (void)state;
    struct unet_config config;
    struct err err = {0};
    if (read_unet(&config, UNET_2D, UPSAMPLER_BLOCKS,
                  "\"add_attention\": false, \"sample_size\": null, \"act_fn\": \"gelu\",", &err))
        fail_msg("%s", err.text);
    assert_int_equal(config.sample_size, 0);
    assert_int_equal(config.in_channels, 3);
    assert_int_equal(config.out_channels, 3);
    assert_int_equal(config.act, ACT_GELU);
    assert_int_equal(config.act_time, ACT_SILU); /* UNet2DModel hands act_fn to its blocks alone */
    assert_int_equal(config.act_out, ACT_SILU);
    assert_false(config.mid_attention);
    assert_int_equal(config.mid_resnets, 2);
}

static void test_decoder_lists(void **state)
{
    (void)state;
    struct unet_config config;
    struct err err = {0};
    if (read_unet(&config, UNET_2D_CONDITION, DECODER_BLOCKS,
                  "\"layers_per_block\": [1, 2, 3], \"attention_head_dim\": [16, 32, 64],"
                  "\"only_cross_attention\": [false, false, false], \"resnet_out_scale_factor\": 1,"
                  "\"class_embed_type\": \"identity\", \"time_embedding_dim\": 96,"
                  "\"resnet_time_scale_shift\": \"scale_shift\",",
                  &err))
        fail_msg("%s", err.text);
    assert_int_equal(config.layers_per_block[0], 1);
    assert_int_equal(config.layers_per_block[2], 3);
    assert_int_equal(config.attention_head_dim[1], 32);
    assert_int_equal(config.time_embed_dim, 96);
    assert_true(config.class_embedding && config.scale_shift);
}

struct refusal {
    const char *more;
    enum err_code code;
    const char *text; /* part of the message */
};

static void check_refusals(enum unet_class unet_class, const char *blocks,
                           const struct refusal *refusals, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct unet_config config;
        struct err err = {0};
        int rc = read_unet(&config, unet_class, blocks, refusals[i].more, &err);
        if (rc != -(int)refusals[i].code || err.code != refusals[i].code ||
            !strstr(err.text, refusals[i].text))
            fail_msg("%s gives %d: %s", refusals[i].more, rc, err.text);
    }
}

static void test_decoder_refusals(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {"\"_class_name\": \"UNet3DConditionModel\",", ERR_UNSUPPORTED,
         "decoder/config.json: _class_name is 'UNet3DConditionModel', expected "
         "'UNet2DConditionModel'"},
        {"\"addition_embed_type\": \"text\",", ERR_UNSUPPORTED,
         "decoder/config.json: addition_embed_type is \"text\", which is not supported"},
        {"\"num_class_embeds\": 10,", ERR_UNSUPPORTED, "num_class_embeds is 10"},
        {"\"encoder_hid_dim\": 1024,", ERR_UNSUPPORTED, "encoder_hid_dim is 1024"},
        {"\"time_embedding_type\": \"fourier\",", ERR_UNSUPPORTED, "time_embedding_type is"},
        {"\"only_cross_attention\": true,", ERR_UNSUPPORTED, "only_cross_attention is true"},
        {"\"only_cross_attention\": [false, true, false],", ERR_UNSUPPORTED,
         "only_cross_attention is [false,true,false]"},
        {"\"cross_attention_norm\": \"layer_norm\",", ERR_UNSUPPORTED, "cross_attention_norm is"},
        {"\"resnet_out_scale_factor\": 1.5,", ERR_UNSUPPORTED, "resnet_out_scale_factor is 1.5"},
        {"\"class_embeddings_concat\": true,", ERR_UNSUPPORTED, "class_embeddings_concat is true"},
        {"\"class_embed_type\": \"timestep\",", ERR_UNSUPPORTED, "class_embed_type is 'timestep'"},
        {"\"resnet_time_scale_shift\": \"ada_group\",", ERR_UNSUPPORTED, "'ada_group'"},
        {"\"norm_num_groups\": null,", ERR_UNSUPPORTED, "norm_num_groups is null"},
        {"\"act_fn\": \"mish\",", ERR_UNSUPPORTED, "decoder/config.json: act_fn: "},
        {"\"conv_in_kernel\": 4,", ERR_UNSUPPORTED, "conv_in_kernel"},
        {"\"norm_num_groups\": 48,", ERR_INVALID_MODEL, "block_out_channels[0]"},
        {"\"attention_head_dim\": 24,", ERR_INVALID_MODEL, "attention_head_dim 24"},
        {"\"attention_head_dim\": [8, 8],", ERR_INVALID_MODEL, "has 2 entries, expected 3"},
        {"\"layers_per_block\": [1, 1, 17],", ERR_INVALID_MODEL, "layers_per_block[2]"},
        {"\"layers_per_block\": 0,", ERR_INVALID_MODEL, "layers_per_block"},
        {"\"sample_size\": \"64\",", ERR_INVALID_MODEL, "sample_size"},
        {"\"cross_attention_dim\": 99999999,", ERR_INVALID_MODEL, "cross_attention_dim"},
        {"\"in_channels\": -3,", ERR_INVALID_MODEL, "in_channels"},
    };
    check_refusals(UNET_2D_CONDITION, DECODER_BLOCKS, refusals, sizeof refusals / sizeof *refusals);
}

static void test_upsampler_refusals(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {"", ERR_UNSUPPORTED, "super_res_first/config.json: add_attention is absent"},
        {"\"add_attention\": true,", ERR_UNSUPPORTED, "add_attention is true"},
        {"\"add_attention\": false, \"class_embed_type\": \"identity\",", ERR_UNSUPPORTED,
         "class_embed_type is \"identity\""},
        {"\"add_attention\": false, \"mid_block_type\": null,", ERR_UNSUPPORTED,
         "mid_block_type is 'null'"},
    };
    check_refusals(UNET_2D, UPSAMPLER_BLOCKS, refusals, sizeof refusals / sizeof *refusals);
}

#define TYPES(down, mid, up)                                                                       \
    "\"block_out_channels\": [32, 64], \"down_block_types\": [\"ResnetDownsampleBlock2D\"," down   \
    "], \"mid_block_type\": " mid ", \"up_block_types\": [" up ", \"ResnetUpsampleBlock2D\"],"

static void test_unknown_blocks(void **state)
{
    (void)state;
    static const struct refusal refusals[] = {
        {TYPES("\"FooBlock2D\"", "\"UNetMidBlock2D\"", "\"ResnetUpsampleBlock2D\""),
         ERR_UNSUPPORTED,
         "decoder/config.json: down_block_types[1] is 'FooBlock2D', which is not supported"},
        {TYPES("\"SimpleCrossAttnDownBlock2D\"", "\"UNetMidBlock2D\"", "\"CrossAttnUpBlock2D\""),
         ERR_UNSUPPORTED, "up_block_types[0] is 'CrossAttnUpBlock2D'"},
        {TYPES("\"SimpleCrossAttnDownBlock2D\"", "\"UNetMidBlock2DCrossAttn\"",
               "\"ResnetUpsampleBlock2D\""),
         ERR_UNSUPPORTED, "mid_block_type is 'UNetMidBlock2DCrossAttn'"},
        {TYPES("7", "\"UNetMidBlock2D\"", "\"ResnetUpsampleBlock2D\""), ERR_UNSUPPORTED,
         "down_block_types[1] is 'no text'"},
        {"\"block_out_channels\": [32],", ERR_UNSUPPORTED, "down_block_types is not a list"},
        {"\"block_out_channels\": [1,1,1,1,1,1,1,1,1],", ERR_UNSUPPORTED,
         "block_out_channels is not a list of 1 to 8 sizes"},
        {"", ERR_UNSUPPORTED, "block_out_channels is not a list"},
    };
    check_refusals(UNET_2D_CONDITION, "", refusals, sizeof refusals / sizeof *refusals);
    static const struct refusal attention[] = {
        {TYPES("\"SimpleCrossAttnDownBlock2D\"", "\"UNetMidBlock2D\"", "\"ResnetUpsampleBlock2D\""),
         ERR_UNSUPPORTED, "down_block_types[1] is 'SimpleCrossAttnDownBlock2D'"},
    };
    check_refusals(UNET_2D, "\"add_attention\": false,", attention, 1);
}

/* ---- the others, which read a folder ---- */

struct folder {
    char root[64], part[96];
    struct nn *nn;
};

static int open_folder(void **state)
{
    struct folder *folder = xcalloc(1, sizeof *folder);
    snprintf(folder->root, sizeof folder->root, "/tmp/test-networks-XXXXXX");
    assert_non_null(mkdtemp(folder->root));
    snprintf(folder->part, sizeof folder->part, "%s/part", folder->root);
    assert_int_equal(mkdir(folder->part, 0700), 0);
    assert_int_equal(nn_open(&folder->nn, DTYPE_F32, 1, NULL), 0);
    *state = folder;
    return 0;
}

static int close_folder(void **state)
{
    struct folder *folder = *state;
    char path[160];
    snprintf(path, sizeof path, "%s/config.json", folder->part);
    unlink(path);
    rmdir(folder->part);
    rmdir(folder->root);
    nn_close(folder->nn);
    free(folder);
    return 0;
}

static void put_config(const struct folder *folder, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/config.json", folder->part);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

static int load_text(const struct folder *folder, struct err *err)
{
    struct clip_text clip;
    return clip_text_load(&clip, folder->nn, folder->part, err);
}

static int load_vision(const struct folder *folder, struct err *err)
{
    struct clip_vision clip;
    return clip_vision_load(&clip, folder->nn, folder->part, err);
}

static int load_prior(const struct folder *folder, struct err *err)
{
    struct prior_transformer prior;
    return prior_transformer_load(&prior, folder->nn, folder->part, err);
}

static int load_ar_prior(const struct folder *folder, struct err *err)
{
    struct ar_prior prior;
    return ar_prior_load(&prior, folder->nn, folder->part, err);
}

static int load_proj(const struct folder *folder, struct err *err)
{
    struct text_proj proj;
    return text_proj_load(&proj, folder->nn, folder->part, err);
}

static int load_unet(const struct folder *folder, struct err *err)
{
    struct unet unet;
    return unet_load(&unet, UNET_2D, folder->nn, folder->part, err);
}

#define AR_PRIOR(width, more)                                                                      \
    "{\"embedding_dim\": 8, \"text_dim\": 8, \"num_embeddings\": 4, \"width\": " width ","         \
    "\"num_layers\": 1, \"num_attention_heads\": 2, \"dimensions\": 2, \"buckets\": 4" more "}"

static void test_folder_refusals(void **state)
{
    const struct folder *folder = *state;
    static const struct {
        int (*load)(const struct folder *, struct err *);
        const char *config;
        enum err_code code;
        const char *text;
    } rows[] = {
        {load_text, "[]", ERR_INVALID_MODEL, "part/config.json: is not a JSON object"},
        {load_text, "{\"hidden_size\": 100, \"num_attention_heads\": 12}", ERR_INVALID_MODEL,
         "part/config.json: hidden_size is not a multiple of num_attention_heads"},
        {load_text, "{\"hidden_act\": \"elu\"}", ERR_UNSUPPORTED, "hidden_act: "},
        {load_text, "{\"num_hidden_layers\": 100000}", ERR_INVALID_MODEL, "num_hidden_layers"},
        {load_text, "{\"eos_token_id\": \"end\"}", ERR_INVALID_MODEL, "eos_token_id"},
        {load_text, "{}", ERR_IO, "model.safetensors"},
        {load_vision, "{\"patch_size\": 225}", ERR_INVALID_MODEL, "patch_size"},
        {load_vision, "{\"num_channels\": 0}", ERR_INVALID_MODEL, "num_channels"},
        {load_vision, "{}", ERR_IO, "model.safetensors"},
        {load_prior, "{\"_class_name\": \"Transformer2DModel\"}", ERR_UNSUPPORTED,
         "part/config.json: _class_name is 'Transformer2DModel'"},
        {load_prior, "{\"added_emb_type\": \"foo\"}", ERR_UNSUPPORTED, "added_emb_type"},
        {load_prior, "{\"added_emb_type\": null}", ERR_UNSUPPORTED, "additional_embeddings is 4"},
        {load_prior, "{\"added_emb_type\": null, \"additional_embeddings\": 3}", ERR_IO,
         "diffusion_pytorch_model.safetensors"},
        {load_prior, "{\"norm_in_type\": \"layer\"}", ERR_UNSUPPORTED, "norm_in_type is \"layer\""},
        {load_prior, "{\"num_attention_heads\": 1000, \"attention_head_dim\": 1000}", ERR_TOO_LARGE,
         "at most 65536"},
        {load_prior, "{\"time_embed_act_fn\": \"elu\"}", ERR_UNSUPPORTED, "time_embed_act_fn: "},
        {load_ar_prior, "{\"_class_name\": \"PriorTransformer\"}", ERR_UNSUPPORTED,
         "_class_name is 'PriorTransformer', expected 'UnCLIPAutoregressivePrior'"},
        {load_ar_prior, AR_PRIOR("8", ""), ERR_INVALID_MODEL,
         "part/config.json: dot_buckets has no default, set it"},
        {load_ar_prior, AR_PRIOR("9", ", \"dot_buckets\": 2"), ERR_INVALID_MODEL,
         "width is not a multiple of num_attention_heads"},
        {load_ar_prior, AR_PRIOR("99999", ", \"dot_buckets\": 2"), ERR_INVALID_MODEL, "width"},
        {load_ar_prior, AR_PRIOR("8", ", \"dot_buckets\": 1"), ERR_INVALID_MODEL, "dot_buckets"},
        {load_ar_prior, AR_PRIOR("8", ", \"dot_buckets\": 2"), ERR_IO, "model.safetensors"},
        {load_proj, "{}", ERR_INVALID_MODEL, "have no defaults"},
        {load_proj, "{\"time_embed_dim\": 8, \"cross_attention_dim\": 8}", ERR_IO,
         "diffusion_pytorch_model.safetensors"},
        {load_unet, "{" UPSAMPLER_BLOCKS "\"add_attention\": false}", ERR_IO,
         "diffusion_pytorch_model.safetensors"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err err = {0};
        put_config(folder, rows[i].config);
        int rc = rows[i].load(folder, &err);
        if (rc != -(int)rows[i].code || !strstr(err.text, rows[i].text))
            fail_msg("%s gives %d: %s", rows[i].config, rc, err.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoder_defaults),
        cmocka_unit_test(test_upsampler_defaults),
        cmocka_unit_test(test_decoder_lists),
        cmocka_unit_test(test_decoder_refusals),
        cmocka_unit_test(test_upsampler_refusals),
        cmocka_unit_test(test_unknown_blocks),
        cmocka_unit_test_setup_teardown(test_folder_refusals, open_folder, close_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
