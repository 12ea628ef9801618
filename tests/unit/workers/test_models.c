/* SPDX-License-Identifier: Apache-2.0 */
/* A model's fingerprint follows from every part that makes embeddings, and from no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "workers/models.h"

static char root[] = "/tmp/test-models-XXXXXX";
static const char *const parts[] = {"tokenizer", "text_encoder",  "prior",   "prior_scheduler",
                                    "ar_prior",  "image_encoder", "decoder", "feature_extractor"};
#define PARTS (sizeof parts / sizeof *parts)

static void put_config(const char *part, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/model/%s", root, part);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/model/%s/config.json", root, part);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static int start(void **state)
{
    (void)state;
    char path[128];
    assert_non_null(mkdtemp(root));
    snprintf(path, sizeof path, "%s/model", root);
    return mkdir(path, 0700);
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

static int stop(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* As a worker that starts now would say it. */
static void fingerprint(enum stage stage, char *out, size_t size)
{
    struct nn *nn;
    struct models *models;
    const char *text;
    struct err err = {0};
    assert_int_equal(nn_open(&nn, DTYPE_F32, 1, &err), 0);
    models_open(&models, root, stage, nn);
    if (models_fingerprint(models, "model", &text, &err))
        fail_msg("%s", err.text);
    snprintf(out, size, "%s", text);
    models_close(models);
    nn_close(nn);
}

/* Whether the fingerprint at a stage follows from that part. */
static bool counts(enum stage stage, const char *part)
{
    bool picture = strcmp(part, "image_encoder") == 0 || strcmp(part, "feature_extractor") == 0;
    return stage == STAGE_IMAGE_ENCODE ? picture : !picture && strcmp(part, "decoder") != 0;
}

static void check_parts(enum stage stage)
{
    char before[128], after[128];
    fingerprint(stage, before, sizeof before);
    for (size_t i = 0; i < PARTS; i++) {
        for (const char *text = "{}"; *text; text = *text == '{' ? " " : "") {
            put_config(parts[i], text);
            fingerprint(stage, after, sizeof after);
            if ((strcmp(before, after) != 0) != counts(stage, parts[i]))
                fail_msg("%s: %s after %s", parts[i], after, before);
            memcpy(before, after, sizeof before);
        }
    }
}

static void follows_from_its_parts(void **state)
{
    (void)state;
    check_parts(STAGE_PRIOR);
    check_parts(STAGE_IMAGE_ENCODE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(follows_from_its_parts)};
    return cmocka_run_group_tests(tests, start, stop);
}
