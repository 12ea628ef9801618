/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-engine: the engine's side of ./bench/engine. Loads one network, then answers each line of
 * stdin with a line of JSON: "go" runs the forward pass, "save PATH" writes its output (f32,
 * torch's layout), "profile" runs it once more and prints the ops' times to stderr. Ends with
 * stdin.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/memory.h"
#include "common/safetensors.h"
#include "stages/networks/clip_text.h"
#include "stages/networks/clip_vision.h"
#include "stages/networks/prior_transformer.h"
#include "stages/networks/unet.h"
#include "stages/nn/nn.h"

#define TIMESTEP 500 /* as engine_bench/karlo.py */

struct bench {
    struct nn *nn;
    struct safetensors *inputs;
    union {
        struct clip_text text;
        struct clip_vision vision;
        struct prior_transformer prior;
        struct unet unet;
    } network;
    char *kept;    /* what prior-step and decoder-step know of the text, or NULL */
    float *output; /* [count] of the last pass */
    int rank;
    int64_t dim[4];
};

static _Noreturn void die(const char *what, const struct err *err)
{
    fprintf(stderr, "bench-engine: %s: %s\n", what, err->text);
    exit(1);
}

static const struct safetensors_entry *entry(const struct bench *bench, const char *name)
{
    const struct safetensors_entry *found = safetensors_find(bench->inputs, name);
    if (!found) {
        fprintf(stderr, "bench-engine: no input '%s'\n", name);
        exit(1);
    }
    return found;
}

static struct tensor input(struct bench *bench, const char *name)
{
    const struct safetensors_entry *found = entry(bench, name);
    return nn_from_f32(bench->nn, found->data, found->rank, found->dim);
}

/* What is added to the scores of the keys that "mask" [n, l] leaves out. */
static struct tensor mask_bias(struct bench *bench)
{
    const struct safetensors_entry *mask = entry(bench, "mask");
    struct tensor bias = nn_new(bench->nn, DTYPE_F32, mask->rank, mask->dim);
    for (int64_t i = 0; i < tensor_count(bias); i++)
        ((float *)bias.data)[i] = ((const float *)mask->data)[i] > 0 ? 0 : NETWORKS_MASKED;
    return bias;
}

static int load_text(struct bench *bench, const char *folder, struct err *err)
{
    return clip_text_load(&bench->network.text, bench->nn, folder, err);
}

static struct tensor run_text(struct bench *bench)
{
    const struct safetensors_entry *ids = entry(bench, "ids");
    return clip_text_forward(bench->nn, &bench->network.text, ids->data, ids->dim[0], ids->dim[1])
        .embed;
}

static int load_image(struct bench *bench, const char *folder, struct err *err)
{
    return clip_vision_load(&bench->network.vision, bench->nn, folder, err);
}

static struct tensor run_image(struct bench *bench)
{
    return clip_vision_forward(bench->nn, &bench->network.vision, input(bench, "pixels"));
}

static int load_prior(struct bench *bench, const char *folder, struct err *err)
{
    return prior_transformer_load(&bench->network.prior, bench->nn, folder, err);
}

static struct tensor run_prior(struct bench *bench)
{
    struct prior_input in = {.latents = input(bench, "latents"),
                             .timestep = TIMESTEP,
                             .text_embed = input(bench, "text_embed"),
                             .text_states = input(bench, "text_states"),
                             .text_bias = mask_bias(bench)};
    return prior_transformer_forward(bench->nn, &bench->network.prior, &in);
}

/* What is kept of each of n texts, `bytes` each: [n], to be freed. *known: they have been read. */
static void **kept_rows(struct bench *bench, int64_t n, size_t bytes, bool *known)
{
    *known = bench->kept != NULL;
    if (!*known)
        bench->kept = xmalloc((size_t)n * bytes);
    void **rows = xmalloc((size_t)n * sizeof *rows);
    for (int64_t i = 0; i < n; i++)
        rows[i] = bench->kept + (size_t)i * bytes;
    return rows;
}

/* A step of sampling after the first: the text has been read, once. */
static struct tensor run_prior_step(struct bench *bench)
{
    struct prior_transformer *prior = &bench->network.prior;
    struct prior_input in = {.latents = input(bench, "latents"),
                             .timestep = TIMESTEP,
                             .text_embed = input(bench, "text_embed"),
                             .text_states = input(bench, "text_states"),
                             .text_bias = mask_bias(bench)};
    bool known;
    void **rows =
        kept_rows(bench, in.latents.dim[0], prior_transformer_kept_bytes(bench->nn, prior), &known);
    if (!known)
        prior_transformer_read_text(bench->nn, prior, &in, rows);
    struct tensor out = prior_transformer_step(bench->nn, prior, &in, rows);
    free(rows);
    return out;
}

static int load_decoder(struct bench *bench, const char *folder, struct err *err)
{
    return unet_load(&bench->network.unet, UNET_2D_CONDITION, bench->nn, folder, err);
}

static struct tensor run_decoder(struct bench *bench)
{
    struct unet_condition condition = {.context = input(bench, "context"),
                                       .context_bias = mask_bias(bench),
                                       .class_embed = input(bench, "class_embed")};
    return unet_forward(bench->nn, &bench->network.unet, input(bench, "sample"), TIMESTEP,
                        &condition);
}

/* A step of sampling after the first: the context has been read, once. */
static struct tensor run_decoder_step(struct bench *bench)
{
    struct unet *unet = &bench->network.unet;
    const struct safetensors_entry *context = entry(bench, "context"); /* [n, l, c] */
    int64_t n = context->dim[0], l = context->dim[1];
    bool known;
    void **rows = kept_rows(bench, n, unet_kept_bytes(bench->nn, unet, l), &known);
    if (!known)
        unet_read_context(bench->nn, unet, input(bench, "context"), rows);
    struct unet_condition condition = {.context_bias = mask_bias(bench),
                                       .class_embed = input(bench, "class_embed"),
                                       .kept = rows,
                                       .kept_length = l};
    struct tensor out = unet_forward(bench->nn, unet, input(bench, "sample"), TIMESTEP, &condition);
    free(rows);
    return out;
}

static int load_upsampler(struct bench *bench, const char *folder, struct err *err)
{
    return unet_load(&bench->network.unet, UNET_2D, bench->nn, folder, err);
}

static struct tensor run_upsampler(struct bench *bench)
{
    return unet_forward(bench->nn, &bench->network.unet, input(bench, "sample"), TIMESTEP,
                        &(struct unet_condition){0});
}

static const struct network {
    const char *name;
    int (*load)(struct bench *bench, const char *folder, struct err *err);
    struct tensor (*run)(struct bench *bench);
} networks[] = {
    {"text", load_text, run_text},
    {"image", load_image, run_image},
    {"prior", load_prior, run_prior},
    {"prior-step", load_prior, run_prior_step},
    {"decoder", load_decoder, run_decoder},
    {"decoder-step", load_decoder, run_decoder_step},
    {"upsampler-1", load_upsampler, run_upsampler},
    {"upsampler-2", load_upsampler, run_upsampler},
};

static const struct network *find_network(const char *name)
{
    for (size_t i = 0; i < sizeof networks / sizeof *networks; i++)
        if (strcmp(networks[i].name, name) == 0)
            return &networks[i];
    fprintf(stderr, "bench-engine: no network '%s'\n", name);
    exit(2);
}

static void note(const char *text)
{
    fprintf(stderr, "bench-engine: %s\n", text);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void go(struct bench *bench, const struct network *network)
{
    struct err err = {0};
    double begin = now();
    size_t scope = nn_enter(bench->nn);
    struct tensor out = network->run(bench);
    size_t count = (size_t)tensor_count(out);
    bench->output = xrealloc(bench->output, (count + 1) * sizeof(float));
    nn_to_f32(bench->nn, out, bench->output);
    bench->rank = out.rank;
    memcpy(bench->dim, out.dim, sizeof bench->dim);
    nn_leave_all(bench->nn, scope);
    if (nn_finish(bench->nn, &err))
        die(network->name, &err);
    printf("{\"seconds\": %.6f}\n", now() - begin);
}

/* A picture is turned to [n, c, h, w]. */
static void write_output(const struct bench *bench, FILE *file)
{
    const int64_t *d = bench->dim;
    int64_t pixels = bench->rank == 4 ? d[1] * d[2] : 1;
    int64_t c = bench->rank == 4 ? d[3] : d[1];
    for (int64_t n = 0; n < d[0]; n++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t i = 0; i < pixels; i++)
                fwrite(&bench->output[(n * pixels + i) * c + k], sizeof(float), 1, file);
}

static void save(const struct bench *bench, const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file || !bench->output) {
        fprintf(stderr, "bench-engine: cannot write '%s'\n", path);
        exit(1);
    }
    write_output(bench, file);
    if (fclose(file)) {
        fprintf(stderr, "bench-engine: cannot write '%s'\n", path);
        exit(1);
    }
    puts("{}");
}

static void profile(struct bench *bench, const struct network *network)
{
    nn_profile_start(bench->nn);
    go(bench, network);
    nn_profile_print(bench->nn, stderr);
}

static void serve(struct bench *bench, const struct network *network)
{
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "go") == 0)
            go(bench, network);
        else if (strncmp(line, "save ", 5) == 0)
            save(bench, line + 5);
        else if (strcmp(line, "profile") == 0)
            profile(bench, network);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    struct err err = {0};
    double begin = now();
    nn_wait_passively(argv, NN_ALONE);
    if (argc != 7) {
        fputs("usage: bench-engine NETWORK FOLDER INPUTS bf16|f32 THREADS PACKED\n", stderr);
        return 2;
    }
    const struct network *network = find_network(argv[1]);
    enum dtype dtype = strcmp(argv[4], "f32") == 0 ? DTYPE_F32 : DTYPE_BF16;
    if (nn_open(&bench.nn, dtype, atoi(argv[5]), &err))
        die("the engine", &err);
    nn_keep_packed(bench.nn, argv[6], note);
    if (safetensors_open(&bench.inputs, argv[3], &err) || network->load(&bench, argv[2], &err))
        die(network->name, &err);
    printf("{\"ready\": %.3f, \"onednn\": \"%s\"}\n", now() - begin, nn_library_version());
    fflush(stdout);
    serve(&bench, network);
    return 0;
}
