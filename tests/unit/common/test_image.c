/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures: floats to bytes, PNG out and in, JPEG in, and what must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"
#include "common/png_text.h"
#include "tests/unit/common/png_maker.h"

static void floats_to_bytes(void **state)
{
    (void)state;
    /* 0 is the one exact tie, 127.5, which goes to the even 128 */
    const float values[12] = {-1,        1,     0,      -2,    2,      INFINITY,
                              -INFINITY, 0.25f, -0.99f, -0.5f, 0.999f, -0.9999f};
    static const uint8_t bytes[12] = {0, 255, 128, 0, 255, 255, 0, 159, 1, 64, 255, 0};
    struct image image;
    struct err err;
    assert_int_equal(image_from_float(&image, values, 2, &err), 0);
    assert_int_equal(image.width, 2);
    assert_int_equal(image.height, 2);
    assert_memory_equal(image.pixels, bytes, sizeof bytes);
    image_release(&image);
    assert_null(image.pixels);
    float broken[3] = {0, NAN, 0};
    assert_int_equal(image_from_float(&image, broken, 1, &err), -ERR_COMPUTE);
    assert_string_equal(err.text, "the picture's value 1 is not a number");
}

static void sizes(void **state)
{
    (void)state;
    struct image image;
    struct err err;
    assert_int_equal(image_alloc(&image, 0, 1, &err), -ERR_INVALID_IMAGE);
    assert_int_equal(image_alloc(&image, 1, IMAGE_SIDE_MAX + 1, &err), -ERR_INVALID_IMAGE);
    assert_string_equal(err.text, "the picture has 1x8193 pixels, at most 8192x8192 are allowed");
    assert_int_equal(image_alloc(&image, 3, 2, &err), 0);
    image_release(&image);
    image_release(&image);
}

static void make_image(struct image *image, int width, int height)
{
    struct err err;
    assert_int_equal(image_alloc(image, width, height, &err), 0);
    for (int i = 0; i < width * height * 3; i++)
        image->pixels[i] = (uint8_t)(i * 31 + i / 100);
}

static const struct image_metadata metadata = {
    .parameters = "café 猫\nNegative prompt: x\nSteps: 25",
    .job = "{\"version\":1}",
    .description = "café 猫 <&>",
    .tool = "unclip 0.1.0",
};

static void png_round_trip(void **state)
{
    (void)state;
    static const int sides[][2] = {{64, 64}, {1, 1}, {7, 300}};
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        struct image image, again;
        struct err err;
        void *png;
        size_t size;
        make_image(&image, sides[i][0], sides[i][1]);
        assert_int_equal(image_encode_png(&image, &metadata, &png, &size, &err), 0);
        assert_int_equal(image_decode(&again, png, size, &err), 0);
        assert_int_equal(again.width, image.width);
        assert_int_equal(again.height, image.height);
        assert_memory_equal(again.pixels, image.pixels,
                            (size_t)image.width * (size_t)image.height * 3);
        image_release(&image);
        image_release(&again);
        free(png);
    }
}

static void assert_text(const void *png, size_t size, const char *key, const char *part)
{
    struct err err;
    char *value;
    assert_int_equal(image_png_text(png, size, key, &value, &err), 0);
    assert_non_null(strstr(value, part));
    free(value);
}

static void png_tells_how_it_was_made(void **state)
{
    (void)state;
    struct image image;
    struct err err;
    void *png;
    size_t size;
    char *value;
    make_image(&image, 8, 8);
    assert_int_equal(image_encode_png(&image, &metadata, &png, &size, &err), 0);
    assert_int_equal(image_png_text(png, size, "parameters", &value, &err), 0);
    assert_string_equal(value, metadata.parameters);
    free(value);
    assert_text(png, size, "unclip", "{\"version\":1}");
    assert_text(png, size, PNG_KEYWORD_XMP, "trainedAlgorithmicMedia");
    assert_text(png, size, PNG_KEYWORD_XMP, ">café 猫 &lt;&amp;&gt;<");
    free(png);
    const struct image_metadata none = {.parameters = NULL};
    assert_int_equal(image_encode_png(&image, &none, &png, &size, &err), 0);
    assert_int_equal(image_png_text(png, size, "parameters", &value, &err), -ERR_NOT_FOUND);
    assert_text(png, size, PNG_KEYWORD_XMP, "trainedAlgorithmicMedia");
    free(png);
    image_release(&image);
}

/* 8-bit RGB, not interlaced, no time and no text but ours. */
static void png_has_the_chunks_that_it_should(void **state)
{
    (void)state;
    struct image image;
    struct err err;
    unsigned char *png;
    size_t size, at = 8;
    char types[200] = "";
    make_image(&image, 5, 9);
    assert_int_equal(image_encode_png(&image, &metadata, (void **)&png, &size, &err), 0);
    static const unsigned char head[] = {0, 0, 0, 5, 0, 0, 0, 9, 8, 2, 0, 0, 0};
    assert_memory_equal(png + 16, head, sizeof head);
    while (at < size) {
        size_t length = png_get_u32(png + at);
        assert_int_equal(png_get_u32(png + at + 8 + length), png_crc(png + at + 4, length + 4));
        strncat(types, (char *)png + at + 4, 4);
        at += length + 12;
    }
    assert_int_equal(at, size);
    assert_int_equal(strncmp(types, "IHDRiTXttEXtiTXt", 16), 0);
    assert_string_equal(types + strlen(types) - 8, "IDATIEND");
    assert_null(strstr(types + 16, "tIME"));
    assert_null(strstr(types + 16, "Xt"));
    free(png);
    image_release(&image);
}

#define ENCODERS 4

static void *encode(void *arg)
{
    struct png_file *out = arg;
    struct image image;
    struct err err;
    void *png;
    make_image(&image, 60, 50);
    if (image_encode_png(&image, &metadata, &png, &out->size, &err) != 0 ||
        out->size > sizeof out->bytes)
        abort();
    memcpy(out->bytes, png, out->size);
    free(png);
    image_release(&image);
    return NULL;
}

static void equal_pictures_have_equal_bytes(void **state)
{
    (void)state;
    static struct png_file files[ENCODERS];
    pthread_t threads[ENCODERS];
    for (int i = 0; i < ENCODERS; i++)
        pthread_create(&threads[i], NULL, encode, &files[i]);
    for (int i = 0; i < ENCODERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 1; i < ENCODERS; i++) {
        assert_int_equal(files[i].size, files[0].size);
        assert_memory_equal(files[i].bytes, files[0].bytes, files[0].size);
    }
}

static void assert_pixels(const void *bytes, size_t size, int width, int height,
                          const uint8_t *pixels, int tolerance)
{
    struct image image;
    struct err err;
    if (image_decode(&image, bytes, size, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    for (int i = 0; i < width * height * 3; i++)
        assert_true(abs(image.pixels[i] - pixels[i]) <= tolerance);
    image_release(&image);
}

static void other_kinds_of_png(void **state)
{
    (void)state;
    struct png_file png;
    png_start(&png, 2, 1, 8, 6); /* red, and a transparent blue */
    png_finish(&png, "\0\xff\0\0\xff\0\0\xff\0", 9);
    assert_pixels(png.bytes, png.size, 2, 1, (const uint8_t *)"\xff\0\0\0\0\xff", 0);
    png_start(&png, 2, 1, 16, 0); /* 16 bits of grey */
    png_finish(&png, "\0\x80\x80\xff\xff", 5);
    assert_pixels(png.bytes, png.size, 2, 1, (const uint8_t *)"\x80\x80\x80\xff\xff\xff", 1);
    png_start(&png, 2, 1, 8, 3); /* a palette */
    png_put_chunk(&png, "PLTE", "\x0a\x14\x1e\x28\x32\x3c", 6);
    png_finish(&png, "\0\1\0", 3);
    assert_pixels(png.bytes, png.size, 2, 1, (const uint8_t *)"\x28\x32\x3c\x0a\x14\x1e", 0);
    png_start(&png, 8, 1, 1, 0); /* one bit a pixel */
    png_finish(&png, "\0\xaa", 2);
    static const uint8_t stripes[24] = {255, 255, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0,
                                        255, 255, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0};
    assert_pixels(png.bytes, png.size, 8, 1, stripes, 0);
}

/* 4x2: the upper row red, the lower blue (vips jpegsave, quality 90). */
static const unsigned char jpeg[] = {
    0xff, 0xd8, 0xff, 0xdb, 0x00, 0x43, 0x00, 0x03, 0x02, 0x02, 0x03, 0x02, 0x02, 0x03, 0x03, 0x03,
    0x03, 0x04, 0x03, 0x03, 0x04, 0x05, 0x08, 0x05, 0x05, 0x04, 0x04, 0x05, 0x0a, 0x07, 0x07, 0x06,
    0x08, 0x0c, 0x0a, 0x0c, 0x0c, 0x0b, 0x0a, 0x0b, 0x0b, 0x0d, 0x0e, 0x12, 0x10, 0x0d, 0x0e, 0x11,
    0x0e, 0x0b, 0x0b, 0x10, 0x16, 0x10, 0x11, 0x13, 0x14, 0x15, 0x15, 0x15, 0x0c, 0x0f, 0x17, 0x18,
    0x16, 0x14, 0x18, 0x12, 0x14, 0x15, 0x14, 0xff, 0xdb, 0x00, 0x43, 0x01, 0x03, 0x04, 0x04, 0x05,
    0x04, 0x05, 0x09, 0x05, 0x05, 0x09, 0x14, 0x0d, 0x0b, 0x0d, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14,
    0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14,
    0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14,
    0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0x14, 0xff, 0xc0, 0x00, 0x11,
    0x08, 0x00, 0x02, 0x00, 0x04, 0x03, 0x01, 0x11, 0x00, 0x02, 0x11, 0x01, 0x03, 0x11, 0x01, 0xff,
    0xc4, 0x00, 0x14, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x08, 0xff, 0xc4, 0x00, 0x1b, 0x10, 0x00, 0x00, 0x07, 0x01, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x04, 0x05, 0x15, 0x55,
    0x93, 0xd1, 0xff, 0xc4, 0x00, 0x15, 0x01, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x09, 0xff, 0xc4, 0x00, 0x1b, 0x11, 0x00, 0x00,
    0x07, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x03,
    0x06, 0x16, 0x55, 0x93, 0xd2, 0x04, 0xff, 0xda, 0x00, 0x0c, 0x03, 0x01, 0x00, 0x02, 0x11, 0x03,
    0x11, 0x00, 0x3f, 0x00, 0x0d, 0xcf, 0xba, 0x59, 0x2b, 0xdc, 0xdd, 0x14, 0x2d, 0x90, 0x95, 0x8a,
    0xe7, 0xa4, 0xbc, 0x80, 0x78, 0xa9, 0x64, 0x8f, 0xb8, 0xcd, 0x0f, 0xff, 0xd9,
};

/* The same, with an EXIF block that says: turn it clockwise by a quarter. */
static size_t turned_jpeg(unsigned char *out)
{
    static const unsigned char exif[] = {
        0xff, 0xe1, 0,    34,   'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8,
        0,    1,    0x01, 0x12, 0,   3,   0,   0,   0, 1, 0,   6,   0, 0,  0, 0, 0, 0};
    memcpy(out, jpeg, 2);
    memcpy(out + 2, exif, sizeof exif);
    memcpy(out + 2 + sizeof exif, jpeg + 2, sizeof jpeg - 2);
    return sizeof jpeg + sizeof exif;
}

static void jpegs(void **state)
{
    (void)state;
    uint8_t upright[24], turned[24];
    for (int i = 0; i < 8; i++) {
        bool red = i < 4, right = i % 2;
        memcpy(upright + 3 * i, red ? "\xfa\x0a\x0a" : "\x0a\x0a\xfa", 3);
        memcpy(turned + 3 * i, right ? "\xfa\x0a\x0a" : "\x0a\x0a\xfa", 3);
    }
    assert_pixels(jpeg, sizeof jpeg, 4, 2, upright, 12);
    unsigned char bytes[sizeof jpeg + 100];
    assert_pixels(bytes, turned_jpeg(bytes), 2, 4, turned, 12);
}

/* --- files of every kind (pictures/make.py) --- */

#define SAMPLE_WIDTH  16
#define SAMPLE_HEIGHT 12

static size_t read_sample(const char *name, void **bytes)
{
    char path[512];
    long size;
    snprintf(path, sizeof path, SOURCE_DIR "/tests/unit/common/pictures/%s", name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 0, SEEK_END), 0);
    size = ftell(file);
    rewind(file);
    *bytes = malloc((size_t)size);
    assert_int_equal(fread(*bytes, 1, (size_t)size, file), size);
    fclose(file);
    return (size_t)size;
}

static struct image decode_sample(const char *name)
{
    struct image image = {0};
    struct err err;
    void *bytes;
    size_t size = read_sample(name, &bytes);
    if (image_decode(&image, bytes, size, &err) != 0)
        fail_msg("%s: %s", name, err.text);
    free(bytes);
    if (image.width != SAMPLE_WIDTH || image.height != SAMPLE_HEIGHT)
        fail_msg("%s has %dx%d pixels", name, image.width, image.height);
    return image;
}

/* The middles of the four quarters. */
static void assert_quarters(const char *name, const struct image *image, const int (*colours)[3],
                            int tolerance)
{
    for (int i = 0; i < 4; i++) {
        int x = SAMPLE_WIDTH * (1 + 2 * (i % 2)) / 4, y = SAMPLE_HEIGHT * (1 + 2 * (i / 2)) / 4;
        const uint8_t *pixel = image->pixels + 3 * (y * SAMPLE_WIDTH + x);
        for (int c = 0; c < 3; c++)
            if (abs(pixel[c] - colours[i][c]) > tolerance)
                fail_msg("%s: quarter %d is %d %d %d", name, i, pixel[0], pixel[1], pixel[2]);
    }
}

static void kinds_of_files(void **state)
{
    static const int colours[4][3] = {{220, 30, 30}, {30, 160, 60}, {30, 60, 200}, {255, 255, 255}};
    static const int grey[4][3] = {{87, 87, 87}, {110, 110, 110}, {67, 67, 67}, {255, 255, 255}};
    static const struct {
        const char *name;
        int tolerance;
        bool alpha;
    } samples[] = {
        {"alpha.png", 0, true},          {"alpha.webp", 0, true},     {"lossy.webp", 24, false},
        {"progressive.jpeg", 12, false}, {"animated.gif", 2, false},  {"animated.webp", 0, false},
        {"turned.webp", 0, false},       {"turned.png", 0, false},    {"still.avif", 24, false},
        {"deep.png", 1, false},          {"deep-alpha.png", 1, true}, {"p3.png", 4, false}};
    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        struct image image = decode_sample(samples[i].name);
        assert_quarters(samples[i].name, &image, colours, samples[i].tolerance);
        if ((image.alpha != NULL) != samples[i].alpha)
            fail_msg("%s has %s alpha", samples[i].name, image.alpha ? "an" : "no");
        image_release(&image);
    }
    struct image image = decode_sample("grey.jpeg");
    assert_quarters("grey.jpeg", &image, grey, 6);
    image_release(&image);
    image = decode_sample("cmyk.jpeg"); /* without a profile its colours are libvips's guess */
    assert_true(image.pixels[0] > image.pixels[1] && image.pixels[0] > image.pixels[2]);
    image_release(&image);
}

static void alpha_has_8_bits(void **state)
{
    (void)state;
    struct image image = decode_sample("alpha.png"), deep = decode_sample("deep-alpha.png");
    assert_memory_equal(image.alpha, deep.alpha, SAMPLE_WIDTH * SAMPLE_HEIGHT);
    assert_true(image.alpha[0] < 40 && image.alpha[SAMPLE_WIDTH * SAMPLE_HEIGHT - 1] > 215);
    image_flatten(&deep);
    assert_null(deep.alpha);
    assert_true(deep.pixels[1] > 200); /* the upper edge is nearly all white */
    image_release(&image);
    image_release(&deep);
}

static void cut_samples(void **state)
{
    static const char *const names[] = {"alpha.webp", "still.avif", "animated.gif", "cmyk.jpeg"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        void *bytes;
        size_t size = read_sample(names[i], &bytes);
        for (size_t cut = 0; cut < size; cut += 5) {
            struct image image = {0};
            struct err err;
            if (image_decode(&image, bytes, cut, &err) == 0 && strcmp(names[i], "animated.gif"))
                fail_msg("%s is read although cut at %zu of %zu", names[i], cut, size);
            image_release(&image);
        }
        free(bytes);
    }
}

static void squares(void **state)
{
    (void)state;
    struct image image = decode_sample("alpha.png"), square;
    struct err err;
    assert_int_equal(image_crop_square(&image, &square, &err), 0);
    assert_int_equal(square.width, SAMPLE_HEIGHT);
    assert_int_equal(square.height, SAMPLE_HEIGHT);
    assert_memory_equal(square.pixels, image.pixels + 3 * 2, 3 * SAMPLE_HEIGHT);
    assert_memory_equal(square.alpha + SAMPLE_HEIGHT, image.alpha + SAMPLE_WIDTH + 2,
                        SAMPLE_HEIGHT);
    image_release(&square);
    image_release(&image);
}

static bool contains(const void *bytes, size_t size, const char *text)
{
    return memmem(bytes, size, text, strlen(text)) != NULL;
}

static void formats(void **state)
{
    (void)state;
    struct image image = decode_sample("deep.png"), again;
    static const int colours[4][3] = {{220, 30, 30}, {30, 160, 60}, {30, 60, 200}, {255, 255, 255}};
    for (int i = 0; i < IMAGE_FORMAT_COUNT; i++) {
        enum image_format format = (enum image_format)i;
        const char *name = image_format_name(format);
        void *bytes, *small;
        size_t size, small_size;
        struct err err;
        assert_int_equal(image_format_from_name(name), format);
        assert_memory_equal(image_format_mime(format), "image/", 6);
        if (image_encode(&image, format, 0, &metadata, &bytes, &size, &err))
            fail_msg("%s: %s", name, err.text);
        assert_int_equal(image_decode(&again, bytes, size, &err), 0);
        assert_quarters(name, &again, colours, 24);
        assert_true(contains(bytes, size, "trainedAlgorithmicMedia"));
        assert_true(contains(bytes, size, metadata.tool));
        assert_true(contains(bytes, size, "café 猫 &lt;&amp;&gt;"));
        assert_int_equal(image_encode(&image, format, 10, &metadata, &small, &small_size, &err), 0);
        assert_true(format == IMAGE_PNG ? small_size == size : small_size < size);
        free(bytes);
        free(small);
        image_release(&again);
    }
    assert_int_equal(image_format_from_name("bmp"), IMAGE_FORMAT_COUNT);
    image_release(&image);
}

static void full_quality_loses_nothing(void **state)
{
    (void)state;
    struct image image, again;
    struct err err;
    assert_int_equal(image_alloc(&image, 32, 32, &err), 0);
    for (int i = 0; i < 32 * 32 * 3; i++)
        image.pixels[i] = (uint8_t)(i * i * 13 + i / 7);
    static const enum image_format formats[] = {IMAGE_PNG, IMAGE_WEBP};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        void *bytes;
        size_t size;
        assert_int_equal(image_encode(&image, formats[i], 100, &metadata, &bytes, &size, &err), 0);
        assert_int_equal(image_decode(&again, bytes, size, &err), 0);
        if (memcmp(again.pixels, image.pixels, 32 * 32 * 3) != 0)
            fail_msg("%s", image_format_name(formats[i]));
        image_release(&again);
        free(bytes);
    }
    image_release(&image);
}

/* Provenance is told however long the prompt is. */
static void long_prompts(void **state)
{
    (void)state;
    struct image image = decode_sample("deep.png");
    char *prompt = malloc(40001);
    memset(prompt, 'x', 40000);
    prompt[40000] = '\0';
    struct image_metadata words = {
        .parameters = prompt, .job = prompt, .description = prompt, .tool = "unclip 0.1.0"};
    for (int i = 0; i < IMAGE_FORMAT_COUNT; i++) {
        void *bytes;
        size_t size;
        struct err err;
        assert_int_equal(image_encode(&image, (enum image_format)i, 0, &words, &bytes, &size, &err),
                         0);
        assert_true(contains(bytes, size, "trainedAlgorithmicMedia"));
        assert_true(contains(bytes, size, "unclip 0.1.0"));
        free(bytes);
    }
    free(prompt);
    image_release(&image);
}

static void assert_refused(const void *bytes, size_t size, enum err_code code, const char *why)
{
    struct image image = {0};
    struct err err;
    assert_int_equal(image_decode(&image, bytes, size, &err), -(int)code);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in: %s", why, err.text);
    assert_null(image.pixels);
}

static void fill(struct image *image, int width, int height, uint8_t value)
{
    struct err err;
    assert_int_equal(image_alloc(image, width, height, &err), 0);
    memset(image->pixels, value, (size_t)width * (size_t)height * 3);
}

static void grids(void **state)
{
    (void)state;
    struct image pictures[3], grid, odd[2];
    struct err err;
    for (int i = 0; i < 3; i++)
        fill(&pictures[i], 2, 1, (uint8_t)(10 * (i + 1)));
    assert_int_equal(image_grid(pictures, 3, 2, 1, &grid, &err), 0);
    static const uint8_t wanted[] = {10,  10,  255, 20, 20,  255, 255, 255,
                                     255, 255, 30,  30, 255, 255, 255};
    assert_int_equal(grid.width, 5);
    assert_int_equal(grid.height, 3);
    for (int i = 0; i < 15 * 3; i++)
        assert_int_equal(grid.pixels[i], wanted[i / 3]);
    image_release(&grid);
    assert_int_equal(image_grid(pictures, 1, 5, 9, &grid, &err),
                     0); /* no more columns than pictures */
    assert_int_equal(grid.width, 2);
    image_release(&grid);
    assert_int_equal(image_grid(pictures, 3, 3, IMAGE_SIDE_MAX / 2, &grid, &err),
                     -ERR_INVALID_IMAGE);
    assert_int_equal(image_grid(pictures, 0, 1, 0, &grid, &err), -ERR_INVALID_ARGUMENT);
    odd[0] = pictures[0];
    fill(&odd[1], 1, 2, 0);
    assert_int_equal(image_grid(odd, 2, 2, 0, &grid, &err), -ERR_INVALID_ARGUMENT);
    assert_string_equal(err.text, "picture 1 has 1x2 pixels, the first 2x1: they cannot be joined");
    image_release(&odd[1]);
    for (int i = 0; i < 3; i++)
        image_release(&pictures[i]);
}

static uint32_t little(const unsigned char *at, int bytes)
{
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint32_t)at[i] << (8 * i);
    return value;
}

/* The frames of a WebP (its container's ANMF chunks) and the time of the first. */
static int frames_of(const unsigned char *bytes, size_t size, uint32_t *ms, bool *xmp)
{
    int frames = 0;
    *xmp = false;
    for (size_t at = 12; at + 8 <= size;
         at += 8 + little(bytes + at + 4, 4) + little(bytes + at + 4, 4) % 2) {
        if (memcmp(bytes + at, "ANMF", 4) == 0 && frames++ == 0)
            *ms = little(bytes + at + 8 + 12, 3);
        *xmp |= memcmp(bytes + at, "XMP ", 4) == 0;
    }
    return frames;
}

static void animations(void **state)
{
    (void)state;
    struct image pictures[3], first;
    struct err err;
    void *bytes;
    size_t size;
    uint32_t ms = 0;
    bool xmp;
    for (int i = 0; i < 3; i++)
        fill(&pictures[i], 16, 16, (uint8_t)(80 * i));
    assert_int_equal(image_animation(pictures, 3, 120, 100, &metadata, &bytes, &size, &err), 0);
    assert_string_equal(image_media_type(bytes, size), "image/webp");
    assert_int_equal(frames_of(bytes, size, &ms, &xmp), 3);
    assert_int_equal(ms, 120);
    assert_true(xmp);
    assert_int_equal(image_decode(&first, bytes, size, &err), 0);
    assert_int_equal(first.height, 16);
    assert_memory_equal(first.pixels, pictures[0].pixels, 16 * 16 * 3);
    image_release(&first);
    free(bytes);
    assert_int_equal(image_animation(pictures, 0, 120, 0, &metadata, &bytes, &size, &err),
                     -ERR_INVALID_ARGUMENT);
    for (int i = 0; i < 3; i++)
        image_release(&pictures[i]);
}

static void media_types(void **state)
{
    (void)state;
    struct image image;
    struct err err;
    make_image(&image, 8, 8);
    for (int format = 0; format < IMAGE_FORMAT_COUNT; format++) {
        void *bytes;
        size_t size;
        assert_int_equal(
            image_encode(&image, (enum image_format)format, 0, &metadata, &bytes, &size, &err), 0);
        assert_string_equal(image_media_type(bytes, size),
                            image_format_mime((enum image_format)format));
        free(bytes);
    }
    image_release(&image);
    assert_string_equal(image_media_type("GIF89a", 6), "image/gif");
    assert_string_equal(image_media_type("\0\0\0\x18"
                                         "ftypheic",
                                         12),
                        "image/heic");
    assert_null(image_media_type("GIF89", 5));
    assert_null(image_media_type("", 0));
}

static void refusals(void **state)
{
    (void)state;
    struct png_file png;
    static const char svg[] =
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"/>";
    static const char *const why = "no PNG, JPEG, WebP, AVIF, HEIC or GIF";
    assert_refused("", 0, ERR_INVALID_IMAGE, why);
    assert_refused(svg, sizeof svg, ERR_INVALID_IMAGE, why);
    assert_refused("BM....", 6, ERR_INVALID_IMAGE, why);
    assert_refused("II*\0\x08\0\0\0", 8, ERR_INVALID_IMAGE, why);
    assert_refused("%PDF-1.4", 8, ERR_INVALID_IMAGE, why);
    assert_refused("GIF89a\1\0\1\0\0\0\0", 13, ERR_INVALID_IMAGE, "cannot decode");
    png_start(&png, IMAGE_SIDE_MAX + 1, 1, 8, 2);
    png_finish(&png, "\0abc", 4);
    assert_refused(png.bytes, png.size, ERR_INVALID_IMAGE, "8193x1 pixels, at most 8192x8192");
    png_start(&png, IMAGE_SIDE_MAX, IMAGE_SIDE_MAX, 8, 2);
    png_finish(&png, "\0abc", 4);
    assert_refused(png.bytes, png.size, ERR_INVALID_IMAGE, "at most 37748736 are allowed in all");
    png_start(&png, 100000, 100000, 8, 2);
    png_finish(&png, "\0abc", 4);
    assert_refused(png.bytes, png.size, ERR_INVALID_IMAGE, "");
    unsigned char *big = calloc(1, IMAGE_FILE_MAX + 1);
    assert_refused(big, IMAGE_FILE_MAX + 1, ERR_TOO_LARGE, "has 67108865 bytes, at most 67108864");
    free(big);
}

/* A chunk that says to be longer than the file is not made room for; texts are not unpacked. */
static void long_chunks(void **state)
{
    static const unsigned char pixels[3] = {1, 2, 3};
    struct png_file png;
    (void)state;
    png_start(&png, 1, 1, 8, 2);
    png_put_u32(&png, 0x7fffff00);
    memcpy(png.bytes + png.size, "iCCPx", 6);
    assert_refused(png.bytes, png.size + 40, ERR_INVALID_IMAGE, "ends within a chunk");
    png_start(&png, 1, 1, 8, 2);
    png_put_chunk(&png, "zTXt", "Comment\0\0no deflate stream", 27);
    png_finish(&png, "\0\1\2\3", 4);
    assert_pixels(png.bytes, png.size, 1, 1, pixels, 0);
    png.bytes[png.size - 20] ^= 1; /* within IDAT */
    assert_refused(png.bytes, png.size, ERR_INVALID_IMAGE, "'IDAT' is damaged");
}

/* A file that is cut anywhere is an error, never a picture with a grey rest. */
static void cut_files(void **state)
{
    (void)state;
    struct image image;
    struct err err;
    unsigned char *png;
    size_t size;
    make_image(&image, 20, 20);
    assert_int_equal(image_encode_png(&image, &metadata, (void **)&png, &size, &err), 0);
    image_release(&image);
    for (size_t cut = 0; cut < size - 12; cut += 7)
        assert_refused(png, cut, ERR_INVALID_IMAGE, "");
    for (size_t cut = 0; cut < sizeof jpeg - 2; cut++)
        assert_refused(jpeg, cut, ERR_INVALID_IMAGE, "");
    free(png);
}

static int set_up(void **state)
{
    (void)state;
    struct err err;
    return image_setup("test_image", &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_to_bytes),
        cmocka_unit_test(sizes),
        cmocka_unit_test(png_round_trip),
        cmocka_unit_test(png_tells_how_it_was_made),
        cmocka_unit_test(png_has_the_chunks_that_it_should),
        cmocka_unit_test(equal_pictures_have_equal_bytes),
        cmocka_unit_test(other_kinds_of_png),
        cmocka_unit_test(jpegs),
        cmocka_unit_test(kinds_of_files),
        cmocka_unit_test(alpha_has_8_bits),
        cmocka_unit_test(cut_samples),
        cmocka_unit_test(squares),
        cmocka_unit_test(formats),
        cmocka_unit_test(full_quality_loses_nothing),
        cmocka_unit_test(long_prompts),
        cmocka_unit_test(grids),
        cmocka_unit_test(animations),
        cmocka_unit_test(media_types),
        cmocka_unit_test(refusals),
        cmocka_unit_test(long_chunks),
        cmocka_unit_test(cut_files),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
