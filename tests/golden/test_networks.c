/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each network of the test models against diffusers and transformers (net-*), with and without its
 * attention mask, in f32 and bf16. Weights stored as f16 and bf16: test_pipeline.c.
 */
#include "common/memory.h"
#include "networks.h"

#include "stages/networks/ar_prior.h"
#include "stages/networks/clip_text.h"
#include "stages/networks/clip_vision.h"
#include "stages/networks/prior_transformer.h"
#include "stages/networks/text_proj.h"
#include "stages/networks/unet.h"

static char models[] = "/tmp/golden-networks-XXXXXX";

static int write_models(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(models));
    golden_write_model(models, "mini", "mini", NULL);
    golden_write_model(models, "karlo-narrow", "karlo-narrow", NULL);
    golden_write_model(models, "karlo-narrow-variations", "karlo-narrow", NULL);
    return 0;
}

static int remove_models(void **state)
{
    (void)state;
    golden_remove_folder(models);
    return 0;
}

struct bench {
    struct golden golden;
    struct nn *nn;
    struct golden_limit limit;
    struct err err;
    char folder[256]; /* the network's */
};

static void bench_open(struct bench *bench, const struct network_case *c)
{
    memset(bench, 0, sizeof *bench);
    bench->golden = golden_open(c->golden);
    bench->nn = network_open_nn(c->dtype);
    bench->limit = limit_network(c->dtype);
    snprintf(bench->folder, sizeof bench->folder, "%s/%s/%s", models, c->model, c->network);
}

static void bench_close(struct bench *bench)
{
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

static void test_text_encoder(void **state)
{
    struct bench bench;
    struct clip_text clip;
    bench_open(&bench, *state);
    golden_ok(clip_text_load(&clip, bench.nn, bench.folder, &bench.err), &bench.err);
    struct golden_tensor wide = golden_get(&bench.golden, "in.ids");
    int32_t *ids = xmalloc(wide.count * sizeof *ids);
    for (size_t i = 0; i < wide.count; i++)
        ids[i] = (int32_t)wide.values[i];
    struct clip_text_output out = clip_text_forward(bench.nn, &clip, ids, wide.dim[0], wide.dim[1]);
    check(&bench, "out.last_hidden_state", out.states);
    check(&bench, "out.text_embeds", out.embed);
    free(ids);
    free(wide.values);
    clip_text_release(&clip);
    bench_close(&bench);
}

static void test_image_encoder(void **state)
{
    struct bench bench;
    struct clip_vision clip;
    bench_open(&bench, *state);
    golden_ok(clip_vision_load(&clip, bench.nn, bench.folder, &bench.err), &bench.err);
    check(&bench, "out.image_embeds",
          clip_vision_forward(bench.nn, &clip, input(&bench, "in.pixel_values")));
    clip_vision_release(&clip);
    bench_close(&bench);
}

static void check_post_process(struct bench *bench, const struct prior_transformer *prior,
                               struct tensor predicted)
{
    size_t count = (size_t)tensor_count(predicted);
    float *values = xmalloc(count * sizeof *values);
    nn_to_f32(bench->nn, predicted, values);
    for (int64_t i = 0; i < predicted.dim[0]; i++)
        prior_transformer_post_process(prior, values + i * predicted.dim[1]);
    golden_check(&bench->golden, "out.post_process_latents", values, count, bench->limit);
    free(values);
}

/* A step's prediction from what reading the text has kept, twice, as for two steps. */
static void check_prior_step(struct bench *bench, struct prior_transformer *prior,
                             const struct prior_input *in)
{
    int64_t n = in->latents.dim[0];
    size_t bytes = prior_transformer_kept_bytes(bench->nn, prior);
    void **kept = xmalloc((size_t)n * sizeof *kept);
    for (int64_t i = 0; i < n; i++)
        kept[i] = xmalloc(bytes);
    prior_transformer_read_text(bench->nn, prior, in, kept);
    struct prior_input step = *in;
    step.text_embed = step.text_states = (struct tensor){0};
    for (int i = 0; i < 2; i++)
        check(bench, "out.predicted_image_embedding",
              prior_transformer_step(bench->nn, prior, &step, kept));
    for (int64_t i = 0; i < n; i++)
        free(kept[i]);
    free(kept);
}

static void test_prior(void **state)
{
    struct bench bench;
    struct prior_transformer prior;
    bench_open(&bench, *state);
    golden_ok(prior_transformer_load(&prior, bench.nn, bench.folder, &bench.err), &bench.err);
    struct prior_input in = {
        .latents = input(&bench, "in.hidden_states"),
        .timestep = (float)golden_integer(&bench.golden, "timestep"),
        .text_embed = input(&bench, "in.proj_embedding"),
        .text_states = input(&bench, "in.encoder_hidden_states"),
        .text_bias = network_bias(bench.nn, &bench.golden),
    };
    struct tensor predicted = prior_transformer_forward(bench.nn, &prior, &in);
    check(&bench, "out.predicted_image_embedding", predicted);
    check_post_process(&bench, &prior, predicted);
    if (!tensor_empty(in.text_bias))
        check_prior_step(&bench, &prior, &in);
    prior_transformer_release(&prior);
    bench_close(&bench);
}

static int32_t *integers(struct bench *bench, const char *name)
{
    struct golden_tensor given = golden_get(&bench->golden, name);
    int32_t *out = xmalloc(given.count * sizeof *out);
    for (size_t i = 0; i < given.count; i++)
        out[i] = (int32_t)given.values[i];
    free(given.values);
    return out;
}

/* One code of each row after the other, as when they are sampled: logits [n, dimensions, buckets].
 */
static void teach(struct bench *bench, struct ar_prior *prior, const struct ar_prior_input *in,
                  const int32_t *codes, float *out)
{
    int64_t n = in->text_embed.dim[0], k = prior->config.dimensions, b = prior->config.buckets;
    int32_t *step = xmalloc((size_t)n * sizeof *step);
    struct ar_prior_sequence sequence;
    struct tensor logits = ar_prior_begin(bench->nn, prior, in, &sequence);
    for (int64_t at = 0; at < k; at++) {
        for (int64_t i = 0; i < n && at > 0; i++)
            step[i] = codes[i * k + at - 1];
        if (at > 0)
            logits = ar_prior_next(bench->nn, prior, &sequence, step);
        for (int64_t i = 0; i < n; i++)
            tensor_get(logits, i * b, out + (i * k + at) * b, b);
    }
    ar_prior_end(&sequence);
    free(step);
}

static void test_ar_prior(void **state)
{
    struct bench bench;
    struct ar_prior prior;
    bench_open(&bench, *state);
    golden_ok(ar_prior_load(&prior, bench.nn, bench.folder, &bench.err), &bench.err);
    int32_t *codes = integers(&bench, "in.codes"), *dot = integers(&bench, "in.dot");
    int32_t *wide = integers(&bench, "in.mask");
    uint8_t mask[3 * 24];
    for (size_t i = 0; i < sizeof mask; i++)
        mask[i] = (uint8_t)wide[i];
    struct ar_prior_input in = {
        .text_embed = input(&bench, "in.text_embed"),
        .text_states = input(&bench, "in.text_states"),
        .text_mask = mask,
        .dot = dot,
    };
    size_t n = (size_t)in.text_embed.dim[0], d = (size_t)prior.config.embedding_dim;
    size_t k = (size_t)prior.config.dimensions, count = n * k * (size_t)prior.config.buckets;
    float *logits = xmalloc(count * sizeof *logits), *embeddings = xmalloc(n * d * sizeof(float));
    teach(&bench, &prior, &in, codes, logits);
    golden_ok(nn_finish(bench.nn, &bench.err), &bench.err);
    golden_check(&bench.golden, "out.logits", logits, count, bench.limit);
    for (size_t i = 0; i < n; i++)
        ar_prior_decode(&prior, codes + i * k, embeddings + i * d);
    golden_check(&bench.golden, "out.embeddings", embeddings, n * d, LIMIT_BLOCK_F32);
    free(logits);
    free(embeddings);
    free(codes);
    free(wide);
    free(dot);
    ar_prior_release(&prior);
    bench_close(&bench);
}

/* The image embeddings of the golden, behind as many learned ones where it is guided: [rows, d]. */
static struct tensor image_rows(struct bench *bench, const struct text_proj *proj, int64_t rows)
{
    struct golden_tensor given = golden_get(&bench->golden, "in.image_embeddings");
    int64_t n = given.dim[0], d = given.dim[1];
    struct tensor out = NN_NEW(bench->nn, nn_dtype(bench->nn), rows, d);
    for (int64_t i = 0; i < rows; i++)
        tensor_put(out, i * d,
                   i < rows - n ? proj->learned_classifier_free_guidance_embeddings
                                : given.values + (i - (rows - n)) * d,
                   d);
    free(given.values);
    return out;
}

static void test_text_proj(void **state)
{
    struct bench bench;
    struct text_proj proj;
    bench_open(&bench, *state);
    golden_ok(text_proj_load(&proj, bench.nn, bench.folder, &bench.err), &bench.err);
    struct tensor text = input(&bench, "in.prompt_embeds");
    struct text_proj_output out =
        text_proj_forward(bench.nn, &proj, image_rows(&bench, &proj, text.dim[0]), text,
                          input(&bench, "in.text_encoder_hidden_states"));
    check(&bench, "out.encoder_hidden_states", out.context);
    check(&bench, "out.class_labels", out.time);
    text_proj_release(&proj);
    bench_close(&bench);
}

/* The output, computed at once, by way of the deep features, and with them given. */
static void check_unet(struct bench *bench, struct unet *unet,
                       const struct unet_condition *condition)
{
    struct tensor sample = input(bench, "in.sample");
    float timestep = (float)golden_integer(&bench->golden, "timestep");
    struct unet_deep deep = {unet_deep_new(bench->nn, unet, sample.dim[0], sample.dim[1]), false};
    struct tensor whole = unet_forward(bench->nn, unet, sample, timestep, condition);
    check(bench, "out.sample", whole);
    for (int pass = 0; pass < 2; pass++, deep.known = true) {
        struct tensor out = unet_forward_deep(bench->nn, unet, sample, timestep, condition, &deep);
        golden_ok(nn_finish(bench->nn, &bench->err), &bench->err);
        assert_memory_equal(out.data, whole.data,
                            (size_t)tensor_count(whole) * dtype_size(whole.dtype));
    }
    /* what is given is what is used */
    memset(deep.h.data, 0, unet_deep_bytes(bench->nn, unet, sample.dim[1]));
    struct tensor other = unet_forward_deep(bench->nn, unet, sample, timestep, condition, &deep);
    golden_ok(nn_finish(bench->nn, &bench->err), &bench->err);
    assert_memory_not_equal(other.data, whole.data, dtype_size(whole.dtype) * 16);
}

/* The same to the bit, twice, from what reading the context has kept; and that is what is used. */
static void check_unet_kept(struct bench *bench, struct unet *unet,
                            const struct unet_condition *condition)
{
    struct tensor sample = input(bench, "in.sample");
    float timestep = (float)golden_integer(&bench->golden, "timestep");
    int64_t n = condition->context.dim[0], l = condition->context.dim[1];
    size_t bytes = unet_kept_bytes(bench->nn, unet, l);
    void **kept = xmalloc((size_t)n * sizeof *kept);
    for (int64_t i = 0; i < n; i++)
        kept[i] = xmalloc(bytes);
    unet_read_context(bench->nn, unet, condition->context, kept);
    struct unet_condition step = *condition;
    step.context = (struct tensor){0};
    step.kept = kept;
    step.kept_length = l;
    struct tensor whole = unet_forward(bench->nn, unet, sample, timestep, condition);
    for (int pass = 0; pass < 3; pass++) {
        if (pass == 2)
            memset(kept[0], 0, bytes);
        struct tensor out = unet_forward(bench->nn, unet, sample, timestep, &step);
        golden_ok(nn_finish(bench->nn, &bench->err), &bench->err);
        bool same = memcmp(out.data, whole.data,
                           (size_t)tensor_count(whole) * dtype_size(whole.dtype)) == 0;
        assert_int_equal(same, pass < 2);
    }
    for (int64_t i = 0; i < n; i++)
        free(kept[i]);
    free(kept);
}

static void test_decoder(void **state)
{
    struct bench bench;
    struct unet unet;
    bench_open(&bench, *state);
    golden_ok(unet_load(&unet, UNET_2D_CONDITION, bench.nn, bench.folder, &bench.err), &bench.err);
    struct unet_condition condition = {
        .context = input(&bench, "in.encoder_hidden_states"),
        .context_bias = network_bias(bench.nn, &bench.golden),
        .class_embed = input(&bench, "in.class_labels"),
    };
    check_unet(&bench, &unet, &condition);
    check_unet_kept(&bench, &unet, &condition);
    unet_release(&unet);
    bench_close(&bench);
}

static void test_super_res(void **state)
{
    struct bench bench;
    struct unet unet;
    bench_open(&bench, *state);
    golden_ok(unet_load(&unet, UNET_2D, bench.nn, bench.folder, &bench.err), &bench.err);
    check_unet(&bench, &unet, &(struct unet_condition){0});
    unet_release(&unet);
    bench_close(&bench);
}

/*  X(model, network, what follows in the golden's name, test) */
#define NETWORKS(X)                                                                                \
    X("mini", "text_encoder", "", test_text_encoder)                                               \
    X("mini", "image_encoder", "", test_image_encoder)                                             \
    X("mini", "prior", "", test_prior)                                                             \
    X("mini", "prior", "-unmasked", test_prior)                                                    \
    X("mini", "ar_prior", "", test_ar_prior)                                                       \
    X("mini", "text_proj", "", test_text_proj)                                                     \
    X("mini", "text_proj", "-unguided", test_text_proj)                                            \
    X("mini", "decoder", "", test_decoder)                                                         \
    X("mini", "decoder", "-unmasked", test_decoder)                                                \
    X("mini", "super_res_first", "", test_super_res)                                               \
    X("mini", "super_res_last", "", test_super_res)                                                \
    X("mini", "super_res_1024_first", "", test_super_res)                                          \
    X("mini", "super_res_1024_last", "", test_super_res)                                           \
    X("karlo-narrow", "text_encoder", "", test_text_encoder)                                       \
    X("karlo-narrow", "image_encoder", "", test_image_encoder)                                     \
    X("karlo-narrow", "prior", "", test_prior)                                                     \
    X("karlo-narrow", "prior", "-unmasked", test_prior)                                            \
    X("karlo-narrow", "text_proj", "", test_text_proj)                                             \
    X("karlo-narrow", "text_proj", "-unguided", test_text_proj)                                    \
    X("karlo-narrow", "decoder", "", test_decoder)                                                 \
    X("karlo-narrow", "decoder", "-unmasked", test_decoder)                                        \
    X("karlo-narrow", "super_res_first", "", test_super_res)                                       \
    X("karlo-narrow", "super_res_last", "", test_super_res)

#define GOLDEN(model, network, suffix) "net-" model "-" network suffix

int main(void)
{
    static struct network_case f32[] = {
#define X(model, network, suffix, test) {DTYPE_F32, GOLDEN(model, network, suffix), model, network},
        NETWORKS(X)
#undef X
    };
    static struct network_case bf16[] = {
#define X(model, network, suffix, test)                                                            \
    {DTYPE_BF16, GOLDEN(model, network, suffix), model, network},
        NETWORKS(X)
#undef X
    };
    int i = 0, k = 0;
    const struct CMUnitTest tests[] = {
#define X(model, network, suffix, test)                                                            \
    {GOLDEN(model, network, suffix) " f32", test, NULL, NULL, &f32[i++]},
        NETWORKS(X)
#undef X
#define X(model, network, suffix, test)                                                            \
    {GOLDEN(model, network, suffix) " bf16", test, NULL, NULL, &bf16[k++]},
            NETWORKS(X)
#undef X
    };
    return cmocka_run_group_tests(tests, write_models, remove_models);
}
