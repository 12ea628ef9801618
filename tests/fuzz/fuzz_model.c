/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model directory with one damaged file: the first byte says which of the table, what follows is
 * the file. The others are whole; there are no weights. Loading refuses it with a reason, or what
 * it says is within bounds.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "client/model_report.h"
#include "common/job.h"
#include "stages/networks/ar_prior.h"
#include "stages/networks/clip_text.h"
#include "stages/networks/clip_vision.h"
#include "stages/networks/prior_transformer.h"
#include "stages/networks/text_proj.h"
#include "stages/networks/unet_config.h"
#include "stages/scheduler.h"
#include "tests/fuzz/fuzz.h"

#define WHOLE  SOURCE_DIR "/tests/golden/models/mini"
#define CONFIG "config.json"

enum kind {
    INDEX,
    RECOMMENDED,
    DECODER,
    UPSAMPLER,
    PRIOR,
    TEXT,
    VISION,
    PROJ,
    SCHEDULER,
    AR_PRIOR,
    KINDS
};

static const struct {
    const char *part; /* "" for the directory itself */
    const char *file;
} files[KINDS] = {
    [INDEX] = {"", "model_index.json"},
    [RECOMMENDED] = {"", "unclip.json"},
    [DECODER] = {"decoder", CONFIG},
    [UPSAMPLER] = {"super_res_first", CONFIG},
    [PRIOR] = {"prior", CONFIG},
    [TEXT] = {"text_encoder", CONFIG},
    [VISION] = {"image_encoder", CONFIG},
    [PROJ] = {"text_proj", CONFIG},
    [SCHEDULER] = {"decoder_scheduler", "scheduler_config.json"},
    [AR_PRIOR] = {"ar_prior", CONFIG},
};

static char folder[] = "/tmp/unclip-fuzz-XXXXXX";
static struct nn *nn;
static FILE *nowhere;

/* --- the directory --- */

static void path_of(enum kind kind, char out[256])
{
    const char *part = files[kind].part;
    snprintf(out, 256, "%s/%s%s%s", folder, part, *part ? "/" : "", files[kind].file);
}

static void write_file(enum kind kind, const void *bytes, size_t size)
{
    char path[256];
    path_of(kind, path);
    FILE *file = fopen(path, "w");
    BUG_ON(!file || fwrite(bytes, 1, size, file) != size);
    fclose(file);
}

/* As it is in the whole directory; one that is not there is taken away. */
static void restore(enum kind kind)
{
    static char bytes[1 << 16];
    char path[512];
    const char *part = files[kind].part;
    snprintf(path, sizeof path, WHOLE "/%s%s%s", part, *part ? "/" : "", files[kind].file);
    FILE *file = fopen(path, "r");
    if (!file) {
        path_of(kind, path);
        unlink(path);
        return;
    }
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    write_file(kind, bytes, size);
}

static void remove_folder(void)
{
    char path[256];
    nn_close(nn);
    for (enum kind kind = 0; kind < KINDS; kind++) {
        path_of(kind, path);
        unlink(path);
        snprintf(path, sizeof path, "%s/%s", folder, files[kind].part);
        rmdir(path);
    }
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    char path[256];
    struct err err;
    (void)argc, (void)argv;
    nowhere = fopen("/dev/null", "w");
    BUG_ON(!nowhere || !mkdtemp(folder) || nn_open(&nn, DTYPE_F32, 1, &err) != 0);
    for (enum kind kind = 0; kind < KINDS; kind++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[kind].part);
        mkdir(path, 0700);
        restore(kind);
    }
    atexit(remove_folder);
    return 0;
}

/* --- loading --- */

static void check_card(void)
{
    struct model_card card;
    struct err err = {0};
    int rc = model_card_load_path(&card, folder, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    BUG_ON(card.decoder_size < 1 || card.upsampler_1_size < 1 || card.upsampler_2_size < 1);
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        BUG_ON(card.steps[stage] < 0 || card.steps[stage] > JOB_STEPS_MAX);
        BUG_ON(!(card.guidance[stage] >= 0 && card.guidance[stage] <= 1e6));
    }
    model_card_release(&card);
}

static void check_report(void)
{
    struct model_report report;
    model_report_make(&report, folder);
    model_report_print(&report, nowhere);
    json_t *json = model_report_json(&report);
    BUG_ON(!json);
    json_decref(json);
    model_report_release(&report);
}

static int load_unet(const char *path, enum unet_class unet_class, struct err *err)
{
    struct netconfig file = {0};
    struct unet_config config;
    int rc = netconfig_open(&file, path, err);
    if (rc == 0)
        rc = unet_config_read(&config, unet_class, &file, err);
    netconfig_close(&file);
    if (rc < 0)
        return rc;
    BUG_ON(config.levels < 1 || config.levels > UNET_LEVELS_MAX);
    for (int i = 0; i < config.levels; i++)
        BUG_ON(config.block_out_channels[i] < 1 || config.layers_per_block[i] < 1);
    return 0;
}

static void check_steps(const struct scheduler *scheduler)
{
    float out[2] = {0.5f, -0.5f}, sample[2] = {1, 2}, noise[2] = {0.1f, 0.2f}, prev[2];
    float predicted[2] = {0, 0};
    for (int i = 0; i < scheduler->steps; i++) {
        BUG_ON(scheduler->timesteps[i] < 0 || scheduler->timesteps[i] >= scheduler->train_steps);
        scheduler_step(scheduler, i, out, scheduler_needs_variance(scheduler) ? out : NULL, sample,
                       scheduler_needs_noise(scheduler, i) ? noise : NULL, prev, predicted, 2);
    }
}

static int load_scheduler(struct err *err)
{
    static const struct sampling sampling = {.steps = 3};
    char path[256];
    struct scheduler scheduler;
    path_of(SCHEDULER, path);
    int rc = scheduler_load(&scheduler, path, err);
    if (rc < 0)
        return rc;
    BUG_ON(scheduler.train_steps < 1 || scheduler.train_steps > SCHEDULER_TRAIN_STEPS_MAX);
    rc = scheduler_set_sampling(&scheduler, &sampling, err);
    if (rc == 0)
        check_steps(&scheduler);
    scheduler_release(&scheduler);
    return rc;
}

/* The weights are missing, so those that read them fail after their config at the latest. */
static int load(enum kind kind, struct err *err)
{
    char path[256];
    struct prior_transformer prior;
    struct ar_prior ar_prior;
    struct clip_text text;
    struct clip_vision vision;
    struct text_proj proj;
    snprintf(path, sizeof path, "%s/%s", folder, files[kind].part);
    switch (kind) {
    case DECODER:
        return load_unet(path, UNET_2D_CONDITION, err);
    case UPSAMPLER:
        return load_unet(path, UNET_2D, err);
    case PRIOR:
        return prior_transformer_load(&prior, nn, path, err);
    case AR_PRIOR:
        return ar_prior_load(&ar_prior, nn, path, err);
    case TEXT:
        return clip_text_load(&text, nn, path, err);
    case VISION:
        return clip_vision_load(&vision, nn, path, err);
    case PROJ:
        return text_proj_load(&proj, nn, path, err);
    default:
        return load_scheduler(err);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    enum kind kind = (enum kind)(take_byte(&input) % KINDS);
    struct err err = {0};
    write_file(kind, input.data, input.size);
    if (kind == INDEX || kind == RECOMMENDED || kind == DECODER || kind == UPSAMPLER)
        check_card();
    if (kind == INDEX || kind == RECOMMENDED) {
        check_report();
    } else {
        int rc = load(kind, &err);
        if (rc < 0)
            check_refusal(rc, &err);
    }
    restore(kind);
    return 0;
}
