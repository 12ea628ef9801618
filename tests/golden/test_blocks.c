/* SPDX-License-Identifier: Apache-2.0 */
/* Each building block of the networks against its golden (block-*), in f32 and bf16. */
#include "networks.h"

#include "stages/networks/rows.h"
#include "stages/networks/timestep_embedding.h"
#include "stages/networks/transformer_block.h"
#include "stages/networks/unet_block.h"

/* An open case: context, golden, and the golden's own weights, which blocks load as "w". */
struct bench {
    struct golden golden;
    struct nn *nn;
    struct weights *weights;
    struct golden_limit limit;
    struct err err;
    char path[512];
};

static void bench_open(struct bench *bench, const struct network_case *c)
{
    memset(bench, 0, sizeof *bench);
    bench->golden = golden_open(c->golden);
    bench->nn = network_open_nn(c->dtype);
    bench->limit = limit_block(c->dtype);
    snprintf(bench->path, sizeof bench->path, "%s/data/%s.safetensors", GOLDEN_DIR, c->golden);
    golden_ok(weights_open(&bench->weights, bench->path, &bench->err), &bench->err);
}

static void bench_close(struct bench *bench)
{
    weights_close(bench->weights);
    nn_close(bench->nn);
    golden_close(&bench->golden);
}

static struct tensor input(struct bench *bench, const char *name)
{
    return network_input(bench->nn, &bench->golden, name);
}

static void check(struct bench *bench, const char *name, struct tensor tensor)
{
    network_check(bench->nn, &bench->golden, name, tensor, bench->limit);
}

static int64_t dim(struct bench *bench, const char *name, int i)
{
    return golden_entry(&bench->golden, name)->dim[i];
}

/* ---- the U-Net's blocks ---- */

/* What the goldens of golden_blocks.py share. */
static struct unet_config block_config(struct bench *bench)
{
    const char *norm = safetensors_metadata(bench->golden.file, "time_embedding_norm");
    struct unet_config config = {
        .norm_num_groups = golden_integer(&bench->golden, "groups"),
        .norm_eps = golden_number(&bench->golden, "eps"),
        .act = ACT_SILU,
        .scale_shift = norm && strcmp(norm, "scale_shift") == 0,
    };
    if (golden_has(&bench->golden, "in.temb"))
        config.time_embed_dim = dim(bench, "in.temb", 1);
    if (golden_has(&bench->golden, "in.context"))
        config.cross_attention_dim = dim(bench, "in.context", 2);
    return config;
}

/* Blocks are given the time activated: the U-Net does it once for all of them. */
static struct tensor time_input(struct bench *bench)
{
    return nn_act(bench->nn, input(bench, "in.temb"), ACT_SILU);
}

static void test_resnet(void **state)
{
    const struct network_case *c = *state;
    struct bench bench;
    bench_open(&bench, c);
    struct unet_config config = block_config(&bench);
    size_t length = strlen(c->golden);
    enum resample resample = RESAMPLE_NONE;
    if (strcmp(c->golden + length - 5, "-down") == 0)
        resample = RESAMPLE_DOWN;
    if (strcmp(c->golden + length - 3, "-up") == 0)
        resample = RESAMPLE_UP;
    struct resnet_block block = {0};
    golden_ok(resnet_block_load(&block, bench.nn, bench.weights, "w", &config,
                                dim(&bench, "in.x", 1), dim(&bench, "out.y", 1), resample,
                                &bench.err),
              &bench.err);
    check(&bench, "out.y",
          resnet_block_forward(bench.nn, &block, input(&bench, "in.x"), time_input(&bench)));
    resnet_block_release(&block);
    bench_close(&bench);
}

static void test_attention(void **state)
{
    struct bench bench;
    bench_open(&bench, *state);
    struct unet_config config = block_config(&bench);
    struct added_kv_attention attention = {0};
    golden_ok(added_kv_attention_load(
                  &attention, bench.nn, bench.weights, "w", &config, dim(&bench, "in.x", 1),
                  golden_integer(&bench.golden, "attention_head_dim"), &bench.err),
              &bench.err);
    struct tensor added =
        added_kv_attention_read(bench.nn, &attention, input(&bench, "in.context"));
    check(&bench, "out.y",
          added_kv_attention_forward(bench.nn, &attention, input(&bench, "in.x"), added,
                                     network_bias(bench.nn, &bench.golden)));
    added_kv_attention_release(&attention);
    bench_close(&bench);
}

/* A level or the middle: golden, its layers, and what is with them. */
struct level {
    struct unet_block block;
    struct unet_condition condition;
    struct unet_pass pass;
};

static void level_open(struct level *level, struct bench *bench, struct unet_block_shape *shape)
{
    struct unet_config config = block_config(bench);
    memset(level, 0, sizeof *level);
    if (golden_has(&bench->golden, "in.context")) {
        shape->attention_layers = shape->attention_layers ? shape->attention_layers : shape->layers;
        shape->head_dim = golden_integer(&bench->golden, "attention_head_dim");
        level->condition.context = input(bench, "in.context");
        level->condition.context_bias = network_bias(bench->nn, &bench->golden);
    }
    level->pass = (struct unet_pass){
        .nn = bench->nn, .time = time_input(bench), .condition = &level->condition};
    golden_ok(
        unet_block_load(&level->block, bench->nn, bench->weights, "w", &config, shape, &bench->err),
        &bench->err);
}

static void test_down(void **state)
{
    struct bench bench;
    struct level level;
    bench_open(&bench, *state);
    int64_t ic = dim(&bench, "in.x", 1), oc = dim(&bench, "out.y", 1);
    struct unet_block_shape shape = {.layers = 2,
                                     .ic = {ic, oc},
                                     .oc = oc,
                                     .sampler = "downsamplers",
                                     .resample = RESAMPLE_DOWN};
    level_open(&level, &bench, &shape);
    struct tensor x = input(&bench, "in.x");
    unet_push_skip(&level.pass, x);
    check(&bench, "out.y", unet_down_forward(&level.pass, &level.block, x));
    assert_int_equal(level.pass.skip_count, 4);
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "out.res.%d", i);
        check(&bench, name, level.pass.skips[i + 1]);
    }
    unet_block_release(&level.block);
    bench_close(&bench);
}

static void test_up(void **state)
{
    struct bench bench;
    struct level level;
    bench_open(&bench, *state);
    int64_t oc = dim(&bench, "out.y", 1);
    struct unet_block_shape shape = {
        .layers = 2,
        .ic = {dim(&bench, "in.x", 1) + dim(&bench, "in.res.0", 1),
               oc + dim(&bench, "in.res.1", 1)},
        .oc = oc,
        .sampler = "upsamplers",
        .resample = RESAMPLE_UP,
    };
    level_open(&level, &bench, &shape);
    unet_push_skip(&level.pass, input(&bench, "in.res.1"));
    unet_push_skip(&level.pass, input(&bench, "in.res.0"));
    check(&bench, "out.y", unet_up_forward(&level.pass, &level.block, input(&bench, "in.x")));
    assert_int_equal(level.pass.skip_count, 0);
    unet_block_release(&level.block);
    bench_close(&bench);
}

static void test_mid(void **state)
{
    struct bench bench;
    struct level level;
    bench_open(&bench, *state);
    int64_t channels = dim(&bench, "in.x", 1);
    struct unet_block_shape shape = {
        .layers = 2, .ic = {channels, channels}, .oc = channels, .attention_layers = 0};
    if (golden_has(&bench.golden, "in.context"))
        shape.attention_layers = 1;
    level_open(&level, &bench, &shape);
    struct tensor x = input(&bench, "in.x");
    check(&bench, "out.y", unet_mid_forward(&level.pass, &level.block, x));
    unet_block_release(&level.block);
    bench_close(&bench);
}

/* ---- transformers and time ---- */

/* "in.mask" as it stands, f32; empty without one. */
static struct tensor added_mask(struct bench *bench)
{
    if (!golden_has(&bench->golden, "in.mask"))
        return (struct tensor){0};
    struct golden_tensor golden = golden_get(&bench->golden, "in.mask");
    struct tensor mask = nn_new(bench->nn, DTYPE_F32, golden.rank, golden.dim);
    memcpy(mask.data, golden.values, golden.count * sizeof(float));
    free(golden.values);
    return mask;
}

static struct tensor causal_mask(struct bench *bench, int64_t l)
{
    struct tensor mask = NN_NEW(bench->nn, DTYPE_F32, 1, l, l);
    for (int64_t i = 0; i < l * l; i++)
        ((float *)mask.data)[i] = i % l > i / l ? -INFINITY : 0;
    return mask;
}

static void run_transformer(struct bench *bench, const struct transformer_names *names,
                            struct transformer_shape *shape, const char *hidden, struct tensor mask)
{
    struct transformer_block block = {0};
    shape->width = dim(bench, "in.x", 2);
    shape->hidden = dim(bench, hidden, 0);
    golden_ok(
        transformer_block_load(&block, bench->nn, bench->weights, "w", names, shape, &bench->err),
        &bench->err);
    check(bench, "out.y", transformer_block_forward(bench->nn, &block, input(bench, "in.x"), mask));
    transformer_block_release(&block);
}

static void test_prior_block(void **state)
{
    struct bench bench;
    bench_open(&bench, *state);
    struct transformer_shape shape = {
        .heads = (int)golden_integer(&bench.golden, "num_attention_heads"),
        .head_dim = (int)golden_integer(&bench.golden, "attention_head_dim"),
        .eps = 1e-5f,
        .act = ACT_GELU,
    };
    run_transformer(&bench, &TRANSFORMER_NAMES_DIFFUSERS, &shape, "w.ff.net.0.proj.weight",
                    added_mask(&bench));
    bench_close(&bench);
}

static void test_clip_layer(void **state)
{
    struct bench bench;
    bench_open(&bench, *state);
    int heads = (int)golden_integer(&bench.golden, "num_attention_heads");
    struct transformer_shape shape = {
        .heads = heads,
        .head_dim = (int)dim(&bench, "in.x", 2) / heads,
        .eps = (float)golden_number(&bench.golden, "layer_norm_eps"),
    };
    golden_ok(act_parse(golden_setting(&bench.golden, "hidden_act"), &shape.act, &bench.err),
              &bench.err);
    bool causal = strcmp(golden_setting(&bench.golden, "causal"), "true") == 0;
    run_transformer(&bench, &TRANSFORMER_NAMES_CLIP, &shape, "w.mlp.fc1.weight",
                    causal ? causal_mask(&bench, dim(&bench, "in.x", 1)) : (struct tensor){0});
    bench_close(&bench);
}

static void test_time_embedding(void **state)
{
    struct bench bench;
    bench_open(&bench, *state);
    struct timestep_embedding embedding = {.act = ACT_SILU};
    golden_ok(timestep_embedding_load(&embedding, bench.nn, bench.weights, "w",
                                      dim(&bench, "in.x", 1), dim(&bench, "w.linear_1.weight", 0),
                                      dim(&bench, "out.y", 1), &bench.err),
              &bench.err);
    check(&bench, "out.y", timestep_embedding_mlp(bench.nn, &embedding, input(&bench, "in.x")));
    timestep_embedding_release(&embedding);
    bench_close(&bench);
}

static void test_timestep(void **state)
{
    struct bench bench;
    bench_open(&bench, *state);
    /* an ulp of a frequency is multiplied by up to 999 */
    bench.limit = limit_network(((const struct network_case *)*state)->dtype);
    struct golden_tensor steps = golden_get(&bench.golden, "in.timesteps");
    static const int channels[] = {8, 9, 128};
    for (int i = 0; i < 3 * 4; i++) {
        bool flip = i % 2;
        int shift = i / 2 % 2;
        char name[64];
        snprintf(name, sizeof name, "out.%d.%s.%d", channels[i / 4], flip ? "flip" : "plain",
                 shift);
        check(&bench, name,
              nn_timestep_embedding(bench.nn, steps.values, (int64_t)steps.count, channels[i / 4],
                                    flip, (float)shift));
    }
    free(steps.values);
    bench_close(&bench);
}

/*  X(golden, test) */
#define BLOCKS(X)                                                                                  \
    X("block-resnet-default", test_resnet)                                                         \
    X("block-resnet-default-shortcut", test_resnet)                                                \
    X("block-resnet-default-down", test_resnet)                                                    \
    X("block-resnet-default-up", test_resnet)                                                      \
    X("block-resnet-scale-shift", test_resnet)                                                     \
    X("block-resnet-scale-shift-shortcut", test_resnet)                                            \
    X("block-resnet-scale-shift-down", test_resnet)                                                \
    X("block-resnet-scale-shift-up", test_resnet)                                                  \
    X("block-resnet-downsample-default", test_down)                                                \
    X("block-resnet-downsample-scale-shift", test_down)                                            \
    X("block-resnet-upsample-default", test_up)                                                    \
    X("block-resnet-upsample-scale-shift", test_up)                                                \
    X("block-attn-added-kv", test_attention)                                                       \
    X("block-attn-added-kv-unmasked", test_attention)                                              \
    X("block-simple-cross-attn-down", test_down)                                                   \
    X("block-simple-cross-attn-down-unmasked", test_down)                                          \
    X("block-simple-cross-attn-up", test_up)                                                       \
    X("block-simple-cross-attn-up-unmasked", test_up)                                              \
    X("block-mid", test_mid)                                                                       \
    X("block-mid-simple-cross-attn", test_mid)                                                     \
    X("block-mid-simple-cross-attn-unmasked", test_mid)                                            \
    X("block-prior-transformer", test_prior_block)                                                 \
    X("block-clip-text-layer", test_clip_layer)                                                    \
    X("block-clip-vision-layer", test_clip_layer)                                                  \
    X("block-time-embedding", test_time_embedding)                                                 \
    X("block-timestep", test_timestep)

int main(void)
{
    static struct network_case f32[] = {
#define X(golden, test) {DTYPE_F32, golden},
        BLOCKS(X)
#undef X
    };
    static struct network_case bf16[] = {
#define X(golden, test) {DTYPE_BF16, golden},
        BLOCKS(X)
#undef X
    };
    int i = 0, k = 0;
    const struct CMUnitTest tests[] = {
#define X(golden, test) {golden " f32", test, NULL, NULL, &f32[i++]},
        BLOCKS(X)
#undef X
#define X(golden, test) {golden " bf16", test, NULL, NULL, &bf16[k++]},
            BLOCKS(X)
#undef X
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
