/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pictures through libvips, which only this file knows. Its thread pool and operation cache are
 * off: a picture is small work, and its bytes must not depend on what ran before.
 */
#include "common/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <vips/vips.h>

#include "common/png_text.h"

#define CHANNELS        3
#define PNG_COMPRESSION 3 /* of 9: a quarter of 6's time for a tenth more bytes */

/* Takes libvips's own words, whose lines become one. */
static int vips_failure(enum err_code code, const char *what, struct err *err)
{
    char *words = vips_error_buffer_copy();
    int result = err_set(err, code, "%s: %s", what, g_strstrip(words));
    g_free(words);
    return result;
}

/* What libvips would print; errors come back through its error buffer. */
static void stay_silent(const gchar *domain, GLogLevelFlags level, const gchar *message,
                        gpointer data)
{
    (void)domain;
    (void)level;
    (void)message;
    (void)data;
}

int image_setup(const char *program, struct err *err)
{
    if (vips_init(program) != 0)
        return vips_failure(ERR_UNSUPPORTED, "cannot start libvips", err);
    g_log_set_handler("VIPS", G_LOG_LEVEL_MASK & ~G_LOG_LEVEL_ERROR, stay_silent, NULL);
    vips_concurrency_set(1);
    vips_cache_set_max(0);
    vips_block_untrusted_set(TRUE);
    return 0;
}

const char *image_library_version(void)
{
    return vips_version_string();
}

static int check_sides(int width, int height, struct err *err)
{
    if (width < 1 || height < 1 || width > IMAGE_SIDE_MAX || height > IMAGE_SIDE_MAX)
        return err_set(err, ERR_INVALID_IMAGE,
                       "the picture has %dx%d pixels, at most %dx%d are allowed", width, height,
                       IMAGE_SIDE_MAX, IMAGE_SIDE_MAX);
    return 0;
}

int image_alloc(struct image *image, int width, int height, struct err *err)
{
    int result = check_sides(width, height, err);
    if (result != 0)
        return result;
    uint8_t *pixels = malloc((size_t)width * (size_t)height * CHANNELS);
    if (!pixels)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a picture of %dx%d pixels", width,
                       height);
    *image = (struct image){width, height, pixels};
    return 0;
}

void image_release(struct image *image)
{
    free(image->pixels);
    *image = (struct image){0};
}

int image_from_float(struct image *image, const float *pixels, int size, struct err *err)
{
    int result = image_alloc(image, size, size, err);
    if (result != 0)
        return result;
    const size_t count = (size_t)size * (size_t)size * CHANNELS;
    for (size_t i = 0; i < count; i++) {
        float value = pixels[i] / 2 + 0.5f;
        if (isnan(value)) {
            image_release(image);
            return err_set(err, ERR_COMPUTE, "the picture's value %zu is not a number", i);
        }
        value = value < 0 ? 0 : value > 1 ? 1 : value;
        image->pixels[i] = (uint8_t)rintf(value * 255);
    }
    return 0;
}

/* --- encoding --- */

static int encode_pixels(const struct image *image, void **bytes, size_t *size, struct err *err)
{
    VipsImage *raw = vips_image_new_from_memory(
        image->pixels, (size_t)image->width * (size_t)image->height * CHANNELS, image->width,
        image->height, CHANNELS, VIPS_FORMAT_UCHAR);
    VipsImage *rgb = NULL;
    int failed = !raw || vips_copy(raw, &rgb, "interpretation", VIPS_INTERPRETATION_sRGB, NULL) ||
                 vips_pngsave_buffer(rgb, bytes, size, "compression", PNG_COMPRESSION, "filter",
                                     VIPS_FOREIGN_PNG_FILTER_ALL, NULL);
    g_clear_object(&rgb);
    g_clear_object(&raw);
    return failed ? vips_failure(ERR_OUT_OF_MEMORY, "cannot encode a PNG", err) : 0;
}

int image_encode_png(const struct image *image, const struct image_metadata *metadata, void **bytes,
                     size_t *size, struct err *err)
{
    void *plain;
    size_t plain_size, count = 0;
    int result = encode_pixels(image, &plain, &plain_size, err);
    if (result != 0)
        return result;
    struct image_text texts[3];
    char *xmp = png_text_xmp(metadata->tool, metadata->description);
    if (metadata->parameters)
        texts[count++] = (struct image_text){"parameters", metadata->parameters};
    if (metadata->job)
        texts[count++] = (struct image_text){"unclip", metadata->job};
    texts[count++] = (struct image_text){PNG_KEYWORD_XMP, xmp};
    result = png_text_insert(plain, plain_size, texts, count, bytes, size, err);
    free(xmp);
    g_free(plain);
    return result;
}

/* --- decoding --- */

static const char png_signature[] = "\x89PNG\r\n\x1a\n", jpeg_signature[] = "\xff\xd8\xff";

static bool begins_with(const char *signature, const void *bytes, size_t size)
{
    size_t length = strlen(signature);
    return size >= length && memcmp(bytes, signature, length) == 0;
}

/* Reads the header only; pixels come when they are asked for. */
static int open_picture(const void *bytes, size_t size, VipsImage **out, struct err *err)
{
    void *data = (void *)(uintptr_t)bytes;
    int failed = begins_with(png_signature, bytes, size)
                     ? vips_pngload_buffer(data, size, out, "fail_on", VIPS_FAIL_ON_ERROR, NULL)
                     : vips_jpegload_buffer(data, size, out, "fail_on", VIPS_FAIL_ON_ERROR,
                                            "autorotate", TRUE, NULL);
    return failed ? vips_failure(ERR_INVALID_IMAGE, "cannot decode the picture", err) : 0;
}

/* To 8-bit sRGB with three bands; what is transparent becomes white. Takes `in`. */
static int to_rgb(VipsImage *in, VipsImage **out)
{
    VipsArrayDouble *white = vips_array_double_newv(1, 255.0);
    VipsImage *colours = NULL, *opaque = NULL, *bytes = NULL;
    int failed =
        vips_colourspace(in, &colours, VIPS_INTERPRETATION_sRGB, NULL) ||
        (vips_image_hasalpha(colours) ? vips_flatten(colours, &opaque, "background", white, NULL)
                                      : vips_copy(colours, &opaque, NULL)) ||
        vips_cast(opaque, &bytes, VIPS_FORMAT_UCHAR, NULL) ||
        vips_extract_band(bytes, out, 0, "n", CHANNELS, NULL);
    g_clear_object(&bytes);
    g_clear_object(&opaque);
    g_clear_object(&colours);
    vips_area_unref(VIPS_AREA(white));
    g_object_unref(in);
    return failed;
}

static int decode(struct image *image, const void *bytes, size_t size, struct err *err)
{
    VipsImage *in = NULL, *rgb = NULL;
    int result = open_picture(bytes, size, &in, err);
    if (result != 0)
        return result;
    int width = vips_image_get_width(in), height = vips_image_get_height(in);
    result = check_sides(width, height, err);
    if (result != 0) {
        g_object_unref(in);
        return result;
    }
    size_t written;
    void *pixels = to_rgb(in, &rgb) == 0 ? vips_image_write_to_memory(rgb, &written) : NULL;
    g_clear_object(&rgb);
    if (!pixels)
        return vips_failure(ERR_INVALID_IMAGE, "cannot decode the picture", err);
    *image = (struct image){width, height, pixels}; /* GLib's memory is malloc's */
    return 0;
}

int image_decode(struct image *image, const void *bytes, size_t size, struct err *err)
{
    void *copy = NULL;
    size_t copy_size;
    if (size > IMAGE_FILE_MAX)
        return err_set(err, ERR_TOO_LARGE, "the picture has %zu bytes, at most %u are allowed",
                       size, IMAGE_FILE_MAX);
    if (begins_with(jpeg_signature, bytes, size))
        return decode(image, bytes, size, err);
    if (!begins_with(png_signature, bytes, size))
        return err_set(err, ERR_INVALID_IMAGE, "the picture is neither PNG nor JPEG");
    /* libpng asks for as much memory as a chunk says to have, and unpacks every text */
    int result = png_text_remove(bytes, size, &copy, &copy_size, err);
    if (result == 0)
        result = decode(image, copy, copy_size, err);
    free(copy);
    return result;
}
