/* SPDX-License-Identifier: Apache-2.0 */
/* Model cards: the shipped model, models without 1024 networks, and damaged ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/memory.h"
#include "common/model_card.h"

#define PART(name) "\"" name "\": [\"diffusers\", \"Some\"]"
#define PARTS                                                                                              \
    PART("tokenizer")                                                                                      \
    "," PART("text_encoder") "," PART("text_proj") "," PART("prior") "," PART("prior_scheduler") "," PART( \
        "decoder") "," PART("decoder_scheduler") "," PART("super_res_first") "," PART("super_res_"         \
                                                                                      "last") "," PART("super_res_scheduler")

static char folder[64];

static void write_file(const char *name, const char *text)
{
    char *path = xasprintf("%s/%s", folder, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
    free(path);
}

static void make_folder(const char *name)
{
    char *path = xasprintf("%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0700), 0);
    free(path);
}

/* A model with Karlo's parts, in models/karlo below a fresh folder. */
static int make_model(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/unclip-card-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    make_folder("karlo");
    make_folder("karlo/decoder");
    make_folder("karlo/super_res_first");
    write_file("karlo/model_index.json", "{" PARTS "}");
    write_file("karlo/decoder/config.json", "{\"sample_size\": 64}");
    write_file("karlo/super_res_first/config.json", "{\"sample_size\": 256}");
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    char *command = xasprintf("rm -r '%s'", folder);
    int result = system(command);
    free(command);
    return result;
}

static int load(struct model_card *card, struct err *err)
{
    return model_card_load(card, folder, "karlo", err);
}

/* Some part of the message, since it begins with the folder's name. */
static void assert_fails(enum err_code code, const char *why)
{
    struct model_card card;
    struct err err;
    assert_int_equal(load(&card, &err), -(int)code);
    assert_null(card.path);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in: %s", why, err.text);
}

static void shipped_model(void **state)
{
    (void)state;
    struct model_card card;
    struct err err;
    assert_int_equal(model_card_load(&card, SOURCE_DIR "/models", "emoji", &err), 0);
    assert_string_equal(card.name, "emoji");
    assert_string_equal(card.path, SOURCE_DIR "/models/emoji");
    assert_int_equal(card.decoder_size, 64);
    assert_int_equal(card.upsampler_1_size, 256);
    assert_true(card.has_upsampler_2);
    assert_int_equal(card.upsampler_2_size, 1024);
    static const int steps[STAGE_COUNT] = {0, 25, 25, 7, 4};
    assert_memory_equal(card.steps, steps, sizeof steps);
    assert_true(card.guidance[STAGE_PRIOR] == 2 && card.guidance[STAGE_DECODER] == 2);
    model_card_release(&card);
}

static void karlo_gets_the_defaults(void **state)
{
    (void)state;
    struct model_card card;
    struct err err;
    assert_int_equal(load(&card, &err), 0);
    assert_false(card.has_upsampler_2);
    assert_int_equal(card.upsampler_2_size, 1024);
    static const int steps[STAGE_COUNT] = {0, 25, 25, 7, 0};
    assert_memory_equal(card.steps, steps, sizeof steps);
    assert_true(card.guidance[STAGE_PRIOR] == 4 && card.guidance[STAGE_DECODER] == 8);
    model_card_release(&card);
}

static void own_settings_count(void **state)
{
    (void)state;
    struct model_card card;
    struct err err;
    write_file("karlo/unclip.json", "{\"steps\":{\"decoder\":50,\"upsampler-2\":3},"
                                    "\"guidance\":{\"prior\":1.5}}");
    assert_int_equal(load(&card, &err), 0);
    assert_int_equal(card.steps[STAGE_PRIOR], 25);
    assert_int_equal(card.steps[STAGE_DECODER], 50);
    assert_int_equal(card.steps[STAGE_UPSAMPLER_2], 0); /* Lanczos has no steps */
    assert_true(card.guidance[STAGE_PRIOR] == 1.5 && card.guidance[STAGE_DECODER] == 8);
    model_card_release(&card);
    write_file("karlo/unclip.json", "{\"steps\":{\"decoder\":0}}");
    assert_fails(ERR_INVALID_MODEL,
                 "karlo/unclip.json': '/steps/decoder' is 0, at least 1 is needed");
    write_file("karlo/unclip.json", "{\"step\":{}}");
    assert_fails(ERR_INVALID_MODEL,
                 "karlo/unclip.json': unknown field '/step', known are steps, guidance");
}

static void network_for_1024(void **state)
{
    (void)state;
    struct model_card card;
    struct err err;
    write_file("karlo/model_index.json",
               "{" PARTS "," PART("super_res_1024_first") "," PART("super_res_1024_last") "," PART(
                   "super_res_1024_scheduler") "}");
    assert_fails(ERR_INVALID_MODEL, "karlo/super_res_1024_first/config.json': No such file");
    make_folder("karlo/super_res_1024_first");
    write_file("karlo/super_res_1024_first/config.json", "{\"sample_size\": 512}");
    assert_int_equal(load(&card, &err), 0);
    assert_true(card.has_upsampler_2);
    assert_int_equal(card.upsampler_2_size, 512);
    assert_int_equal(card.steps[STAGE_UPSAMPLER_2], 7);
    model_card_release(&card);
    write_file("karlo/super_res_1024_first/config.json", "{\"sample_size\": 256}");
    assert_fails(ERR_INVALID_MODEL, "the sizes 64, 256 and 256 must rise, to at most 8192");
}

static void damaged_models(void **state)
{
    (void)state;
    write_file("karlo/decoder/config.json", "{}");
    assert_fails(ERR_INVALID_MODEL, "karlo/decoder/config.json' lacks 'sample_size'");
    write_file("karlo/decoder/config.json", "{\"sample_size\": 9000}");
    assert_fails(ERR_INVALID_MODEL,
                 "karlo/decoder/config.json: 'sample_size' is 9000, it must be from 1 to 8192");
    write_file("karlo/decoder/config.json", "[]");
    assert_fails(ERR_INVALID_MODEL, "karlo/decoder/config.json' must be an object");
    write_file("karlo/model_index.json", "{\"tokenizer\": [null, null]}");
    assert_fails(ERR_INVALID_MODEL, "karlo/model_index.json' lacks the part 'tokenizer'");
    write_file("karlo/model_index.json", "{");
    assert_fails(ERR_INVALID_MODEL, "karlo/model_index.json' is not valid JSON: line 1");
}

static void unknown_models(void **state)
{
    (void)state;
    static const char *const names[] = {"none", "../karlo", "",
                                        ".",    "a b",      "karlo/model_index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct model_card card;
        struct err err;
        assert_int_equal(model_card_load(&card, folder, names[i], &err), -ERR_UNKNOWN_MODEL);
    }
}

static void by_path(void **state)
{
    (void)state;
    struct model_card card;
    struct err err;
    char *path = xasprintf("%s/karlo/", folder), *odd = xasprintf("%s/_my model 2", folder);
    assert_int_equal(model_card_load_path(&card, path, &err), 0);
    assert_string_equal(card.name, "karlo");
    assert_string_equal(card.path, path);
    model_card_release(&card);
    path[strlen(path) - 1] = '\0';
    assert_int_equal(rename(path, odd), 0);
    assert_int_equal(model_card_load_path(&card, odd, &err), 0);
    assert_string_equal(card.name, "mmy-model-2");
    model_card_release(&card);
    assert_int_equal(model_card_load_path(&card, path, &err), -ERR_UNKNOWN_MODEL);
    free(path);
    free(odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(shipped_model, make_model, remove_model),
        cmocka_unit_test_setup_teardown(karlo_gets_the_defaults, make_model, remove_model),
        cmocka_unit_test_setup_teardown(own_settings_count, make_model, remove_model),
        cmocka_unit_test_setup_teardown(network_for_1024, make_model, remove_model),
        cmocka_unit_test_setup_teardown(damaged_models, make_model, remove_model),
        cmocka_unit_test_setup_teardown(unknown_models, make_model, remove_model),
        cmocka_unit_test_setup_teardown(by_path, make_model, remove_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
