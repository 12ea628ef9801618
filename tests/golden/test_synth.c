/* SPDX-License-Identifier: Apache-2.0 */
/* The synthesis of test models: values known from synth.py, every dtype, copies, and its errors. */
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

#include "synth.h"

#define HEADER                                                                                     \
    "{\"__metadata__\":{\"format\":\"pt\"}"                                                        \
    ",\"ids\":{\"dtype\":\"I64\",\"shape\":[1,2],\"data_offsets\":[0,16]}"                         \
    ",\"a.weight\":{\"dtype\":\"F16\",\"shape\":[4],\"data_offsets\":[16,24]}"                     \
    ",\"tiny\":{\"dtype\":\"F16\",\"shape\":[2,2],\"data_offsets\":[24,32]}}"

struct folder {
    char root[64];
};

static void put(const struct folder *folder, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder->root, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

/* Reads a file of the folder into `bytes`; returns its size. */
static size_t get(const struct folder *folder, const char *name, unsigned char *bytes, size_t room)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder->root, name);
    FILE *in = fopen(path, "rb");
    assert_non_null(in);
    size_t size = fread(bytes, 1, room, in);
    fclose(in);
    return size;
}

static int synthesise(const struct folder *folder, const char *dtype, char *errtext, size_t n)
{
    char in[128], out[128];
    snprintf(in, sizeof in, "%s/in", folder->root);
    snprintf(out, sizeof out, "%s/out", folder->root);
    return synth_model_as(in, out, dtype, errtext, n);
}

static void setup_folder(struct folder *folder)
{
    char path[128];
    snprintf(folder->root, sizeof folder->root, "/tmp/synth-XXXXXX");
    assert_non_null(mkdtemp(folder->root));
    static const char *const parts[] = {"in", "in/prior"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", folder->root, parts[i]);
        assert_int_equal(mkdir(path, 0777), 0);
    }
}

static void remove_folder(const struct folder *folder)
{
    static const char *const parts[] = {"in/prior/weights.manifest",
                                        "in/prior/config.json",
                                        "in/prior",
                                        "in",
                                        "out/prior/w.safetensors",
                                        "out/prior/config.json",
                                        "out/prior",
                                        "out",
                                        "."};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", folder->root, parts[i]);
        remove(path);
    }
    rmdir(folder->root);
}

static void fill_gives_known_values(void **state)
{
    (void)state;
    static const float want[] = {-0x1.12bf68p-1f, 0x1.4c59f8p+0f, -0x1.8e7778p-2f, 0x1.78f19ap-2f};
    float values[4];
    synth_fill("prior/a.weight", 0, 4, 3.5f, 0.25f, values);
    assert_memory_equal(values, want, sizeof want);
    synth_fill("prior/a.weight", 2, 2, 3.5f, 0.25f, values);
    assert_memory_equal(values, want + 2, sizeof *want * 2);
}

static void model_is_written(void **state)
{
    (void)state;
    struct folder folder;
    char errtext[256] = "";
    unsigned char bytes[1024];
    setup_folder(&folder);
    put(&folder, "in/prior/config.json", "{}\n");
    put(&folder, "in/prior/weights.manifest",
        "file w.safetensors\ni64 ids 1x2 3 1\nf32 a.weight 4 3.5 0.25\nf32 tiny 2x2 1e-6 0\n");
    assert_int_equal(synthesise(&folder, "f16", errtext, sizeof errtext), 0);
    assert_int_equal(get(&folder, "out/prior/config.json", bytes, sizeof bytes), 3);

    static const uint16_t halves[] = {0xb84b, 0x3d31, 0xb63a, 0x35e4,
                                      0x0002, 0x0000, 0x8003, 0x0002};
    static const int64_t ids[] = {1, 4};
    size_t header = (strlen(HEADER) + 7) / 8 * 8;
    assert_int_equal(get(&folder, "out/prior/w.safetensors", bytes, sizeof bytes), 8 + header + 32);
    assert_int_equal(bytes[0] | bytes[1] << 8, header);
    assert_memory_equal(bytes + 8, HEADER, strlen(HEADER));
    assert_memory_equal(bytes + 8 + header, ids, sizeof ids);
    assert_memory_equal(bytes + 8 + header + sizeof ids, halves, sizeof halves);

    assert_int_equal(synthesise(&folder, "bf16", errtext, sizeof errtext), 0);
    static const uint16_t brains[] = {0xbf09, 0x3fa6, 0xbec7, 0x3ebc};
    get(&folder, "out/prior/w.safetensors", bytes, sizeof bytes);
    size_t start = 8 + (size_t)(bytes[0] | bytes[1] << 8) + sizeof ids;
    assert_memory_equal(bytes + start, brains, sizeof brains);
    remove_folder(&folder);
}

static void errors_name_their_place(void **state)
{
    (void)state;
    struct folder folder;
    char errtext[256] = "";
    setup_folder(&folder);
    assert_int_equal(synthesise(&folder, "f8", errtext, sizeof errtext), -1);
    assert_string_equal(errtext, "unknown dtype 'f8', use f32, f16 or bf16");
    put(&folder, "in/prior/weights.manifest", "f32 a 4 1 0\n");
    assert_int_equal(synthesise(&folder, NULL, errtext, sizeof errtext), -1);
    assert_non_null(strstr(errtext, "weights.manifest: the first line must be 'file NAME'"));
    static const char *const lines[] = {"f32 a 4 1", "f32 a 4 1 0 0", "f64 a 4 1 0", "f32 a 4x 1 0",
                                        "f32 a 0 1 0"};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        char text[64];
        snprintf(text, sizeof text, "file w.safetensors\n%s\n", lines[i]);
        put(&folder, "in/prior/weights.manifest", text);
        assert_int_equal(synthesise(&folder, NULL, errtext, sizeof errtext), -1);
        assert_non_null(strstr(errtext, "manifest:2: not 'dtype name shape scale offset'"));
    }
    remove_folder(&folder);
    assert_int_equal(synthesise(&folder, NULL, errtext, sizeof errtext), -1);
    assert_non_null(strstr(errtext, "cannot open"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fill_gives_known_values),
        cmocka_unit_test(model_is_written),
        cmocka_unit_test(errors_name_their_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
