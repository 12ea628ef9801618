/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-inversion: how well a model gives its own pictures back. Makes pictures of 256 pixels from
 * texts, takes their bytes as sources, inverts each by DDIM in decoder and upsampler-1, samples it
 * again with eta 0, and prints the PSNR of both stages; exits 1 when the mean at the end is below
 * --at-least. With --draft the inversion in upsampler-1 is left out.
 */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"
#include "common/memory.h"
#include "stages/source.h"
#include "stages/stage.h"

#define PROMPTS_MAX 16

static const char *const own_prompts[] = {"a red heart", "a smiling face", "a green tree",
                                          "a blue car"};

struct options {
    const char *model;
    int steps, threads;
    double at_least; /* dB */
    bool draft;      /* the decoder alone */
    enum dtype dtype;
};

static void check(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "bench-inversion: %s\n", err->text);
    exit(1);
}

static void run(enum stage stage, const struct options *options, struct nn *nn,
                struct item *const *items, size_t count, const struct stage_settings *settings)
{
    struct stage_model *model;
    struct err err = {0};
    check(stage_open(&model, stage, options->model, nn, &err), &err);
    check(stage_run(model, items, count, settings, NULL, &err), &err);
    for (size_t i = 0; i < count; i++)
        check(items[i]->err.code, &items[i]->err);
    stage_close(model);
}

/* The item's picture as bytes becomes its source. */
static void take_source(struct item *item)
{
    struct image image = {0};
    struct err err = {0};
    size_t bytes = (size_t)item->image_size * (size_t)item->image_size * 3;
    check(image_from_float(&image, item->image, item->image_size, &err), &err);
    item->source_size = item->image_size;
    item->source = xmalloc(bytes);
    memcpy(item->source, image.pixels, bytes);
    image_release(&image);
}

/* dB of the item's picture against its source at that size. */
static double psnr(const struct item *item)
{
    struct source_view view;
    struct err err = {0};
    double error = 0;
    check(source_view_init(&view, item, item->image_size, &err), &err);
    for (size_t i = 0; i < view.pixels * 3; i++) {
        double difference = ((double)item->image[i] - (double)view.picture[i]) / 2;
        error += difference * difference;
    }
    double decibel = 10 * log10((double)(view.pixels * 3) / error);
    source_view_release(&view);
    return decibel;
}

static void make_pictures(const struct options *options, struct nn *nn, struct item *const *items,
                          size_t count)
{
    static const struct stage_settings settings[] = {
        [STAGE_PRIOR] = {.steps = 25, .guidance = 2},
        [STAGE_DECODER] = {.steps = 25, .guidance = 2},
        [STAGE_UPSAMPLER_1] = {.steps = 7},
    };
    static const enum stage stages[] = {STAGE_TEXT_ENCODE, STAGE_PRIOR, STAGE_DECODER,
                                        STAGE_UPSAMPLER_1};
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        struct stage_settings none = {0};
        run(stages[i], options, nn, items, count,
            stages[i] == STAGE_TEXT_ENCODE ? &none : &settings[stages[i]]);
    }
}

static double there_and_back(const struct options *options, struct nn *nn,
                             struct item *const *items, const char *const *prompts, size_t count)
{
    const struct stage_settings settings = {
        .steps = options->steps,
        .guidance = 1,
        .sampler = SAMPLER_DDIM,
        .start = START_INVERSION,
    };
    double small[PROMPTS_MAX], mean = 0;
    run(STAGE_DECODER, options, nn, items, count, &settings);
    for (size_t i = 0; i < count; i++)
        small[i] = psnr(items[i]);
    if (!options->draft)
        run(STAGE_UPSAMPLER_1, options, nn, items, count, &settings);
    for (size_t i = 0; i < count; i++) {
        double whole = psnr(items[i]);
        printf("%-24s decoder %.1f dB, at the end %.1f dB\n", prompts[i], small[i], whole);
        mean += whole / (double)count;
    }
    printf("mean of %zu at %d pixels, %d steps: %.1f dB\n", count, items[0]->image_size,
           options->steps, mean);
    return mean;
}

static _Noreturn void usage(FILE *out, int code)
{
    fputs("usage: bench-inversion [--steps N] [--threads N] [--bf16] [--draft] [--at-least DB] "
          "MODEL [PROMPT]...\n",
          out);
    exit(code);
}

static struct options parse(int argc, char **argv)
{
    static const struct option table[] = {
        {"steps", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {"at-least", required_argument, NULL, 'a'},
        {"bf16", no_argument, NULL, 'b'},
        {"draft", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {0},
    };
    struct options options = {.steps = 50, .threads = 2, .dtype = DTYPE_F32};
    for (int c; (c = getopt_long(argc, argv, "h", table, NULL)) != -1;)
        switch (c) {
        case 's':
            options.steps = atoi(optarg);
            break;
        case 't':
            options.threads = atoi(optarg);
            break;
        case 'a':
            options.at_least = atof(optarg);
            break;
        case 'b':
            options.dtype = DTYPE_BF16;
            break;
        case 'd':
            options.draft = true;
            break;
        case 'h':
            usage(stdout, 0);
        default:
            usage(stderr, 2);
        }
    if (optind == argc || argc - optind - 1 > PROMPTS_MAX)
        usage(stderr, 2);
    options.model = argv[optind];
    return options;
}

int main(int argc, char **argv)
{
    struct options options = parse(argc, argv);
    struct item items[PROMPTS_MAX], *batch[PROMPTS_MAX];
    struct nn *nn;
    struct err err = {0};
    bool own = optind + 1 == argc;
    const char *const *prompts = own ? own_prompts : (const char *const *)argv + optind + 1;
    size_t count = own ? sizeof own_prompts / sizeof *own_prompts : (size_t)(argc - optind - 1);
    check(image_setup("bench-inversion", &err), &err);
    check(nn_open(&nn, options.dtype, options.threads, &err), &err);
    for (size_t i = 0; i < count; i++) {
        item_init(&items[i], prompts[i], "", 1 + i);
        batch[i] = &items[i];
    }
    make_pictures(&options, nn, batch, count);
    for (size_t i = 0; i < count; i++)
        take_source(&items[i]);
    double mean = there_and_back(&options, nn, batch, prompts, count);
    for (size_t i = 0; i < count; i++)
        item_release(&items[i]);
    nn_close(nn);
    return mean >= options.at_least ? 0 : 1;
}
