/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pictures from outside: decoded to pixels or refused; and a PNG's text, which is found again when
 * it was put in.
 */
#include "common/image.h"
#include "common/png_text.h"
#include "tests/fuzz/fuzz.h"

#define SIDE_MAX 512 /* larger ones are left out: they cost time and show nothing else */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct err err;
    (void)argc;
    BUG_ON(image_setup((*argv)[0], &err) != 0);
    return 0;
}

static uint32_t big_endian(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool is_large_side(uint32_t side)
{
    return side > SIDE_MAX && side <= IMAGE_SIDE_MAX;
}

/* What IHDR says, or any of a JPEG's frame headers (SOF0 to SOF15). */
static bool is_large(const uint8_t *data, size_t size)
{
    if (size >= 24 && data[0] == 0x89)
        return is_large_side(big_endian(data + 16)) || is_large_side(big_endian(data + 20));
    for (size_t i = 0; i + 8 < size; i++) {
        uint32_t sides = big_endian(data + i + 5);
        if (data[i] == 0xff && (data[i + 1] & 0xf0) == 0xc0 &&
            (is_large_side(sides >> 16) || is_large_side(sides & 0xffff)))
            return true;
    }
    return false;
}

static void decode(const uint8_t *data, size_t size)
{
    struct image image;
    struct err err = {0};
    if (is_large(data, size))
        return;
    int rc = image_decode(&image, data, size, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    BUG_ON(image.width < 1 || image.height < 1);
    BUG_ON(image.width > IMAGE_SIDE_MAX || image.height > IMAGE_SIDE_MAX);
    volatile uint8_t last = image.pixels[3 * (size_t)image.width * (size_t)image.height - 1];
    (void)last;
    image_release(&image);
}

static void read_text(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {"parameters", "unclip", PNG_KEYWORD_XMP, "Comment"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        struct err err = {0};
        char *value = NULL;
        int rc = image_png_text(data, size, keys[i], &value, &err);
        if (rc < 0)
            check_refusal(rc, &err);
        free(value);
    }
}

static void put_text(const uint8_t *data, size_t size)
{
    const struct image_text texts[] = {{"fuzzed", "a heart, é"},
                                       {PNG_KEYWORD_XMP, "ünicode \xe2\x9d\xa4"}};
    struct err err = {0};
    void *out = NULL;
    size_t out_size;
    char *none = NULL;
    /* it is a PNG up to its end, so far as its chunks go */
    bool whole = image_png_text(data, size, "none", &none, &err) == -ERR_NOT_FOUND;
    free(none);
    int rc = png_text_insert(data, size, texts, 2, &out, &out_size, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    for (size_t i = 0; whole && i < 2; i++) {
        char *value = NULL;
        BUG_ON(image_png_text(out, out_size, texts[i].key, &value, &err) != 0);
        BUG_ON(strcmp(value, texts[i].value) != 0);
        free(value);
    }
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decode(data, size);
    read_text(data, size);
    put_text(data, size);
    return 0;
}
