/* SPDX-License-Identifier: Apache-2.0 */
/* stages/image_processor.c against CLIPImageProcessor: the resized bytes are equal, the rest is
 * f32. */
#include "exact.h"

#include "stages/image_processor.h"

#define LIMIT 1e-6

static char *make_model(void)
{
    static char folder[64];
    strcpy(folder, "/tmp/unclip-processor-XXXXXX");
    assert_non_null(mkdtemp(folder));
    return folder;
}

static void write_config(const char *folder, const char *json)
{
    char path[128];
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(json, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void remove_model(const char *folder)
{
    char path[128];
    snprintf(path, sizeof path, "%s/preprocessor_config.json", folder);
    unlink(path);
    rmdir(folder);
}

/* As golden_models.py writes it for the model `mini`. */
static const char mini[] =
    "{\"crop_size\": {\"height\": 32, \"width\": 32}, \"do_center_crop\": true,"
    " \"image_mean\": [0.48145466, 0.4578275, 0.40821073],"
    " \"image_std\": [0.26862954, 0.26130258, 0.27577711], \"resample\": 3,"
    " \"rescale_factor\": 0.00392156862745098, \"size\": {\"shortest_edge\": 32}}";
static struct image_processor processor;

static void check(const char *name)
{
    struct golden golden = golden_open(name);
    const struct safetensors_entry *in = golden_typed(&golden, "in.image", DTYPE_U8);
    const struct safetensors_entry *want = golden_typed(&golden, "out.pixel_values", DTYPE_F32);
    int64_t n = processor.crop, dim[] = {1, 3, n, n};
    assert_int_equal(golden_count(want), 3 * n * n);
    float *values = xmalloc((size_t)(3 * n * n) * sizeof *values);
    float *planes = xmalloc((size_t)(3 * n * n) * sizeof *planes);
    struct err err;
    golden_ok(
        image_processor_run(&processor, in->data, (int)in->dim[1], (int)in->dim[0], values, &err),
        &err);
    golden_nhwc_to_nchw(values, dim, planes);
    golden_assert_near(planes, want->data, golden_count(want), LIMIT, name);
    free(planes);
    free(values);
    golden_close(&golden);
}

static void test_cases(void **state)
{
    struct err err;
    (void)state;
    char *folder = make_model();
    write_config(folder, mini);
    golden_ok(image_processor_load(&processor, folder, &err), &err);
    remove_model(folder);
    golden_each("processor-*.safetensors", 3, check);
}

static void refused(const char *json, enum err_code code, const char *why)
{
    struct image_processor other;
    struct err err = {0};
    char *folder = make_model();
    write_config(folder, json);
    assert_int_equal(image_processor_load(&other, folder, &err), -(int)code);
    remove_model(folder);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in: %s", why, err.text);
}

#define REST "\"image_mean\": [0, 0, 0], \"image_std\": [1, 1, 1]"
static void test_configs(void **state)
{
    struct image_processor other;
    struct err err;
    (void)state;
    char *folder = make_model();
    write_config(folder, "{\"size\": 224, \"crop_size\": 224, " REST "}"); /* an old file */
    golden_ok(image_processor_load(&other, folder, &err), &err);
    remove_model(folder);
    assert_int_equal(other.edge, 224);
    assert_int_equal(other.crop, 224);
    refused("{\"size\": 0, \"crop_size\": 2, " REST "}", ERR_INVALID_MODEL, "size");
    refused("{\"size\": {}, \"crop_size\": 2, " REST "}", ERR_INVALID_MODEL, "size");
    refused("{\"size\": 4, \"crop_size\": {\"height\": 4, \"width\": 5}, " REST "}",
            ERR_INVALID_MODEL, "crop_size");
    refused("{\"size\": 4, \"crop_size\": 5, " REST "}", ERR_UNSUPPORTED, "larger");
    refused("{\"size\": 4, \"crop_size\": 4, \"resample\": 2, " REST "}", ERR_UNSUPPORTED,
            "bicubic");
    refused("{\"size\": 4, \"crop_size\": 4, \"do_rescale\": false, " REST "}", ERR_UNSUPPORTED,
            "do_rescale");
    refused("{\"size\": 4, \"crop_size\": 4, \"image_mean\": [0, 0], \"image_std\": [1, 1, 1]}",
            ERR_INVALID_MODEL, "image_mean");
    refused("{\"size\": 4, \"crop_size\": 4, \"image_mean\": [0, 0, 0], \"image_std\": [1, 0, 1]}",
            ERR_INVALID_MODEL, "image_std");
}

static void test_narrow(void **state)
{
    static uint8_t line[3 * 8000];
    float *out = xmalloc(3 * 32 * 32 * sizeof *out);
    struct err err;
    (void)state;
    assert_int_equal(image_processor_run(&processor, line, 8000, 1, out, &err), -ERR_INVALID_IMAGE);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_configs),
                                       cmocka_unit_test(test_narrow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
