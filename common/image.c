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
#define LOSSLESS        100   /* WebP's quality that is */
#define JPEG_XMP_MAX    60000 /* bytes */
#define PNG_COMPRESSION 3     /* of 9: a quarter of 6's time for a tenth more bytes */

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
    *image = (struct image){.width = width, .height = height, .pixels = pixels};
    return 0;
}

void image_release(struct image *image)
{
    free(image->pixels);
    free(image->alpha);
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

/* --- formats --- */

static const struct {
    const char *name, *mime;
    int quality;
} formats[] = {
#define X(id, name, mime, quality) {name, mime, quality},
    IMAGE_FORMAT_TABLE(X)
#undef X
};

const char *image_format_name(enum image_format format)
{
    return formats[format].name;
}

const char *image_format_mime(enum image_format format)
{
    return formats[format].mime;
}

enum image_format image_format_from_name(const char *name)
{
    int format = 0;
    while (format < IMAGE_FORMAT_COUNT && strcmp(formats[format].name, name) != 0)
        format++;
    return (enum image_format)format;
}

/* --- encoding --- */

/* Its pixels as libvips sees them, borrowed: NULL when there is no memory. */
static VipsImage *wrap(const struct image *image)
{
    VipsImage *raw = vips_image_new_from_memory(
        image->pixels, (size_t)image->width * (size_t)image->height * CHANNELS, image->width,
        image->height, CHANNELS, VIPS_FORMAT_UCHAR);
    VipsImage *rgb = NULL;
    if (raw && vips_copy(raw, &rgb, "interpretation", VIPS_INTERPRETATION_sRGB, NULL))
        rgb = NULL;
    g_clear_object(&raw);
    return rgb;
}

static int save(VipsImage *rgb, enum image_format format, int quality, void **bytes, size_t *size)
{
    switch (format) {
    case IMAGE_PNG:
        return vips_pngsave_buffer(rgb, bytes, size, "compression", PNG_COMPRESSION, "filter",
                                   VIPS_FOREIGN_PNG_FILTER_ALL, NULL);
    case IMAGE_WEBP:
        return vips_webpsave_buffer(rgb, bytes, size, "Q", quality, "lossless", quality == LOSSLESS,
                                    NULL);
    case IMAGE_JPEG:
        return vips_jpegsave_buffer(rgb, bytes, size, "Q", quality, "optimize_coding", TRUE, NULL);
    case IMAGE_AVIF:
        return vips_heifsave_buffer(rgb, bytes, size, "Q", quality, "compression",
                                    VIPS_FOREIGN_HEIF_COMPRESSION_AV1, NULL);
    case IMAGE_FORMAT_COUNT:
        break;
    }
    BUG("no such format");
}

static int encode_plain_png(const struct image *image, void **bytes, size_t *size, struct err *err)
{
    VipsImage *rgb = wrap(image);
    int failed = !rgb || save(rgb, IMAGE_PNG, 0, bytes, size);
    g_clear_object(&rgb);
    return failed ? vips_failure(ERR_OUT_OF_MEMORY, "cannot encode a PNG", err) : 0;
}

int image_encode_png(const struct image *image, const struct image_metadata *metadata, void **bytes,
                     size_t *size, struct err *err)
{
    void *plain;
    size_t plain_size, count = 0;
    int result = encode_plain_png(image, &plain, &plain_size, err);
    if (result != 0)
        return result;
    struct image_text texts[3];
    char *xmp = png_text_xmp(metadata, false);
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

/* libvips leaves out an XMP packet that one segment of a JPEG cannot hold: then it says less. */
static char *fitting_xmp(enum image_format format, const struct image_metadata *metadata)
{
    struct image_metadata less = *metadata;
    char *xmp = png_text_xmp(&less, true);
    for (int cut = 0; format == IMAGE_JPEG && strlen(xmp) > JPEG_XMP_MAX && cut < 3; cut++) {
        const char **fields[] = {&less.job, &less.parameters, &less.description};
        *fields[cut] = NULL;
        free(xmp);
        xmp = png_text_xmp(&less, true);
    }
    return xmp;
}

int image_encode(const struct image *image, enum image_format format, int quality,
                 const struct image_metadata *metadata, void **bytes, size_t *size, struct err *err)
{
    if (format == IMAGE_PNG)
        return image_encode_png(image, metadata, bytes, size, err);
    VipsImage *rgb = wrap(image);
    if (!rgb)
        return vips_failure(ERR_OUT_OF_MEMORY, "cannot encode a picture", err);
    char *xmp = fitting_xmp(format, metadata);
    vips_image_set_blob_copy(rgb, VIPS_META_XMP_NAME, xmp, strlen(xmp));
    if (metadata->parameters)
        vips_image_set_string(rgb, "exif-ifd2-UserComment", metadata->parameters);
    int failed = save(rgb, format, quality > 0 ? quality : formats[format].quality, bytes, size);
    free(xmp);
    g_object_unref(rgb);
    return failed ? vips_failure(ERR_UNSUPPORTED, "cannot encode the picture", err) : 0;
}

/* --- decoding --- */

/* How a file begins, and what reads it. */
enum kind { KIND_PNG, KIND_JPEG, KIND_WEBP, KIND_HEIF, KIND_GIF, KIND_NONE };

static bool begins(const char *bytes, size_t size, size_t at, const char *magic)
{
    size_t length = strlen(magic);
    return size >= at + length && memcmp(bytes + at, magic, length) == 0;
}

static enum kind sniff(const char *bytes, size_t size)
{
    static const char *const brands[] = {"avif", "avis", "heic", "heix", "mif1", "msf1"};
    if (begins(bytes, size, 0, "\x89PNG\r\n\x1a\n"))
        return KIND_PNG;
    if (begins(bytes, size, 0, "\xff\xd8\xff"))
        return KIND_JPEG;
    if (begins(bytes, size, 0, "RIFF") && begins(bytes, size, 8, "WEBP"))
        return KIND_WEBP;
    if (begins(bytes, size, 0, "GIF87a") || begins(bytes, size, 0, "GIF89a"))
        return KIND_GIF;
    for (size_t i = 0; i < sizeof brands / sizeof *brands; i++)
        if (begins(bytes, size, 4, "ftyp") && begins(bytes, size, 8, brands[i]))
            return KIND_HEIF;
    return KIND_NONE;
}

const char *image_media_type(const void *bytes, size_t size)
{
    static const char *const types[] = {
        [KIND_PNG] = "image/png",   [KIND_JPEG] = "image/jpeg", [KIND_WEBP] = "image/webp",
        [KIND_HEIF] = "image/heic", [KIND_GIF] = "image/gif",   [KIND_NONE] = NULL,
    };
    enum kind kind = sniff(bytes, size);
    bool avif = kind == KIND_HEIF && begins(bytes, size, 8, "avi");
    return avif ? "image/avif" : types[kind];
}

/* Reads the header only; pixels come when they are asked for. */
static int open_picture(enum kind kind, const void *bytes, size_t size, VipsImage **out,
                        struct err *err)
{
    static int (*const loaders[])(void *, size_t, VipsImage **, ...) = {
        [KIND_PNG] = vips_pngload_buffer,   [KIND_JPEG] = vips_jpegload_buffer,
        [KIND_WEBP] = vips_webpload_buffer, [KIND_HEIF] = vips_heifload_buffer,
        [KIND_GIF] = vips_gifload_buffer,
    };
    if (kind == KIND_NONE)
        return err_set(err, ERR_INVALID_IMAGE,
                       "the picture is no PNG, JPEG, WebP, AVIF, HEIC or GIF");
    int failed =
        loaders[kind]((void *)(uintptr_t)bytes, size, out, "fail_on", VIPS_FAIL_ON_ERROR, NULL);
    return failed ? vips_failure(ERR_INVALID_IMAGE, "cannot decode the picture", err) : 0;
}

/* Takes *image and puts what comes of it there; NULL when it fails. */
static void replace(VipsImage **image, VipsImage *by)
{
    g_object_unref(*image);
    *image = by;
}

/* Colours by the picture's profile where it has a usable one, else by its interpretation. */
static VipsImage *to_srgb(VipsImage *in)
{
    VipsImage *out = NULL;
    bool profile = vips_image_get_typeof(in, VIPS_META_ICC_NAME) != 0;
    if (profile && vips_icc_transform(in, &out, "srgb", "embedded", TRUE, "depth", 8, NULL) == 0)
        return out;
    vips_error_clear();
    out = NULL;
    return vips_colourspace(in, &out, VIPS_INTERPRETATION_sRGB, NULL) ? NULL : out;
}

/* To upright 8-bit sRGB with three bands, or four with alpha. Takes `in`. */
static VipsImage *normalise(VipsImage *in)
{
    VipsImage *at = in, *next = NULL;
    bool deep = vips_image_get_format(in) == VIPS_FORMAT_USHORT;
    bool alpha = vips_image_hasalpha(in) != 0;
    replace(&at, vips_autorot(at, &next, NULL) ? NULL : next);
    if (at && alpha && deep) { /* colour conversions leave alpha's scale alone */
        VipsImage *bytes = NULL;
        replace(&at, vips_msb(at, &bytes, NULL) ? NULL : bytes);
        VipsImage *named = NULL;
        bool grey = at && vips_image_get_bands(at) < CHANNELS;
        if (at)
            replace(&at, vips_copy(at, &named, "interpretation",
                                   grey ? VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB, NULL)
                             ? NULL
                             : named);
    }
    if (at)
        replace(&at, to_srgb(at));
    VipsImage *bytes = NULL, *bands = NULL;
    if (at)
        replace(&at, vips_cast(at, &bytes, VIPS_FORMAT_UCHAR, NULL) ? NULL : bytes);
    int wanted = CHANNELS + alpha;
    if (at && vips_image_get_bands(at) < wanted) {
        vips_error("unclip", "%d bands instead of %d", vips_image_get_bands(at), wanted);
        replace(&at, NULL);
    }
    if (at)
        replace(&at, vips_extract_band(at, &bands, 0, "n", wanted, NULL) ? NULL : bands);
    return at;
}

/* [count][4] → [count][3] and [count]. */
static int split_alpha(struct image *image, uint8_t *rgba, struct err *err)
{
    size_t count = (size_t)image->width * (size_t)image->height;
    bool opaque = true;
    image->alpha = malloc(count);
    if (!image->alpha)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a picture's transparency");
    for (size_t i = 0; i < count; i++) {
        image->alpha[i] = rgba[4 * i + CHANNELS];
        opaque &= image->alpha[i] == UINT8_MAX;
        memmove(rgba + CHANNELS * i, rgba + 4 * i, CHANNELS);
    }
    image->pixels = rgba;
    if (opaque) {
        free(image->alpha);
        image->alpha = NULL;
    }
    return 0;
}

static int check_pixels(const VipsImage *in, struct err *err)
{
    int width = vips_image_get_width(in), height = vips_image_get_height(in);
    int result = check_sides(width, height, err);
    if (result == 0 && (uint64_t)width * (uint64_t)height > IMAGE_PIXELS_MAX)
        result = err_set(err, ERR_INVALID_IMAGE,
                         "the picture has %dx%d pixels, at most %u are allowed in all", width,
                         height, IMAGE_PIXELS_MAX);
    return result;
}

static int decode(struct image *image, enum kind kind, const void *bytes, size_t size,
                  struct err *err)
{
    VipsImage *in = NULL;
    int result = open_picture(kind, bytes, size, &in, err);
    if (result == 0 && (result = check_pixels(in, err)) != 0)
        g_object_unref(in);
    if (result != 0)
        return result;
    VipsImage *rgb = normalise(in);
    size_t written;
    void *pixels = rgb ? vips_image_write_to_memory(rgb, &written) : NULL;
    struct image out = {0};
    if (!pixels) {
        result = vips_failure(ERR_INVALID_IMAGE, "cannot decode the picture", err);
    } else { /* GLib's memory is malloc's */
        out = (struct image){vips_image_get_width(rgb), vips_image_get_height(rgb), pixels, NULL};
        if (vips_image_get_bands(rgb) > CHANNELS)
            result = split_alpha(&out, pixels, err);
    }
    g_clear_object(&rgb);
    if (result != 0)
        image_release(&out);
    else
        *image = out;
    return result;
}

int image_decode(struct image *image, const void *bytes, size_t size, struct err *err)
{
    void *copy = NULL;
    size_t copy_size;
    if (size > IMAGE_FILE_MAX)
        return err_set(err, ERR_TOO_LARGE, "the picture has %zu bytes, at most %u are allowed",
                       size, IMAGE_FILE_MAX);
    enum kind kind = sniff(bytes, size);
    if (kind != KIND_PNG)
        return decode(image, kind, bytes, size, err);
    /* libpng asks for as much memory as a chunk says to have, and unpacks every text */
    int result = png_text_remove(bytes, size, &copy, &copy_size, err);
    if (result == 0)
        result = decode(image, kind, copy, copy_size, err);
    free(copy);
    return result;
}

/* --- what is done to pixels --- */

void image_flatten(struct image *image)
{
    size_t count = image->alpha ? (size_t)image->width * (size_t)image->height : 0;
    for (size_t i = 0; i < count; i++)
        for (int c = 0; c < CHANNELS; c++) {
            uint8_t *value = &image->pixels[CHANNELS * i + (size_t)c];
            int alpha = image->alpha[i];
            *value =
                (uint8_t)((*value * alpha + UINT8_MAX * (UINT8_MAX - alpha) + 127) / UINT8_MAX);
        }
    free(image->alpha);
    image->alpha = NULL;
}

int image_crop_square(const struct image *image, struct image *out, struct err *err)
{
    int side = image->width < image->height ? image->width : image->height;
    size_t left = (size_t)(image->width - side) / 2, top = (size_t)(image->height - side) / 2;
    size_t n = (size_t)side, width = (size_t)image->width;
    struct image square;
    int result = image_alloc(&square, side, side, err);
    if (result == 0 && image->alpha && !(square.alpha = malloc(n * n))) {
        image_release(&square);
        result = err_set(err, ERR_OUT_OF_MEMORY, "no memory for a picture's transparency");
    }
    if (result != 0)
        return result;
    for (size_t y = 0; y < n; y++) {
        size_t from = (top + y) * width + left;
        memcpy(square.pixels + y * n * CHANNELS, image->pixels + from * CHANNELS, n * CHANNELS);
        if (image->alpha)
            memcpy(square.alpha + y * n, image->alpha + from, n);
    }
    *out = square;
    return 0;
}

/* --- several pictures in one --- */

/* Joined, `columns` in a row; NULL when libvips cannot. */
static VipsImage *join(const struct image *pictures, int count, int columns, int gap)
{
    static const double colour[CHANNELS] = {255, 255, 255};
    VipsArrayDouble *white = vips_array_double_new(colour, CHANNELS);
    VipsImage **parts = g_new0(VipsImage *, count), *out = NULL;
    bool failed = false;
    for (int i = 0; i < count && !failed; i++)
        failed = !(parts[i] = wrap(&pictures[i]));
    if (failed || vips_arrayjoin(parts, &out, count, "across", columns, "shim", gap, "background",
                                 white, NULL))
        out = NULL;
    vips_area_unref(VIPS_AREA(white));
    for (int i = 0; i < count; i++)
        g_clear_object(&parts[i]);
    g_free(parts);
    return out;
}

static int check_alike(const struct image *pictures, int count, struct err *err)
{
    if (count < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "there are no pictures to join");
    for (int i = 1; i < count; i++)
        if (pictures[i].width != pictures[0].width || pictures[i].height != pictures[0].height)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "picture %d has %dx%d pixels, the first %dx%d: they cannot be joined", i,
                           pictures[i].width, pictures[i].height, pictures[0].width,
                           pictures[0].height);
    return 0;
}

int image_grid(const struct image *pictures, int count, int columns, int gap, struct image *out,
               struct err *err)
{
    int result = check_alike(pictures, count, err);
    if (result != 0)
        return result;
    columns = columns > count ? count : columns;
    int rows = (count + columns - 1) / columns;
    int width = columns * (pictures[0].width + gap) - gap;
    int height = rows * (pictures[0].height + gap) - gap;
    if ((result = check_sides(width, height, err)) != 0)
        return result;
    size_t size;
    VipsImage *joined = join(pictures, count, columns, gap);
    void *pixels = joined ? vips_image_write_to_memory(joined, &size) : NULL;
    if (pixels)
        *out = (struct image){.width = vips_image_get_width(joined),
                              .height = vips_image_get_height(joined),
                              .pixels = pixels};
    else
        result = vips_failure(ERR_OUT_OF_MEMORY, "cannot join the pictures", err);
    g_clear_object(&joined);
    return result;
}

/* The strip cut into frames, which libvips's writers then take for an animation. */
static VipsImage *film_of(VipsImage *strip, int count, int height, int frame_ms)
{
    VipsImage *film = NULL;
    int *delays = g_new(int, count);
    for (int i = 0; i < count; i++)
        delays[i] = frame_ms;
    if (vips_copy(strip, &film, NULL) == 0) {
        vips_image_set_int(film, VIPS_META_PAGE_HEIGHT, height);
        vips_image_set_int(film, "loop", 0);
        vips_image_set_array_int(film, "delay", delays, count);
    }
    g_free(delays);
    return film;
}

int image_animation(const struct image *pictures, int count, int frame_ms, int quality,
                    const struct image_metadata *metadata, void **bytes, size_t *size,
                    struct err *err)
{
    int result = check_alike(pictures, count, err);
    if (result != 0)
        return result;
    VipsImage *strip = join(pictures, count, 1, 0);
    VipsImage *film = strip ? film_of(strip, count, pictures[0].height, frame_ms) : NULL;
    char *xmp = fitting_xmp(IMAGE_WEBP, metadata);
    if (film)
        vips_image_set_blob_copy(film, VIPS_META_XMP_NAME, xmp, strlen(xmp));
    if (!film || vips_webpsave_buffer(film, bytes, size, "Q",
                                      quality > 0 ? quality : formats[IMAGE_WEBP].quality,
                                      "lossless", quality == 100, NULL))
        result = vips_failure(ERR_UNSUPPORTED, "cannot encode the animation", err);
    free(xmp);
    g_clear_object(&film);
    g_clear_object(&strip);
    return result;
}
