/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a text, or, by the first byte, as one of a tokenizer's files, the others whole. A
 * text must always encode; a folder loads and encodes, or is refused with a reason.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stages/tokenizer.h"

#define WHOLE   SOURCE_DIR "/tests/golden/models/mini/tokenizer"
#define LONGEST 4096 /* tokens that a configuration may ask for */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                    "special_tokens_map.json"};
#define NAMES (sizeof names / sizeof *names)

static char folder[] = "/tmp/unclip-fuzz-XXXXXX";

static void write_file(const char *name, const void *bytes, size_t size)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    BUG_ON(!file || fwrite(bytes, 1, size, file) != size);
    fclose(file);
}

static void copy_file(const char *name)
{
    static char bytes[1 << 20];
    char path[512];
    snprintf(path, sizeof path, WHOLE "/%s", name);
    FILE *file = fopen(path, "r");
    BUG_ON(!file);
    size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    write_file(name, bytes, size);
}

static void encode(const struct tokenizer *tokenizer, const void *text, size_t size)
{
    static int32_t ids[LONGEST];
    static uint8_t mask[LONGEST];
    int dropped, length = tokenizer_max_length(tokenizer);
    struct err err;
    BUG_ON(length > LONGEST);
    BUG_ON(tokenizer_encode(tokenizer, text, size, 0, ids, mask, &dropped, &err) != 0);
    BUG_ON(dropped < 0);
    for (int i = 0; i < length; i++)
        BUG_ON(ids[i] < 0 || ids[i] >= TOKENIZER_VOCAB_MAX || mask[i] > 1);
}

static void remove_folder(void)
{
    for (size_t i = 0; i < NAMES; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
    rmdir(folder);
}

static void make_folder(void)
{
    BUG_ON(!mkdtemp(folder));
    for (size_t i = 0; i < NAMES; i++)
        copy_file(names[i]);
    atexit(remove_folder);
}

static void load_damaged(const char *name, const uint8_t *data, size_t size)
{
    static bool made;
    struct tokenizer *tokenizer;
    struct err err = {0};
    if (!made)
        make_folder();
    made = true;
    write_file(name, data, size);
    if (tokenizer_load(&tokenizer, folder, &err) == 0) {
        encode(tokenizer, data, size);
        tokenizer_free(tokenizer);
    } else {
        BUG_ON(!err.text[0]);
    }
    copy_file(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *tokenizer;
    struct err err;
    if (!tokenizer)
        BUG_ON(tokenizer_load(&tokenizer, WHOLE, &err) != 0);
    if (size == 0)
        return 0;
    if (data[0] < NAMES)
        load_damaged(names[data[0]], data + 1, size - 1);
    else
        encode(tokenizer, data, size);
    return 0;
}
