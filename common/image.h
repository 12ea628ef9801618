/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pictures as files. Pixels are encoded and decoded by libvips (only image.c knows its types); the
 * text chunks of a PNG are read and written by png_text.c, because libvips 8.14 writes them as zTXt
 * with broken UTF-8. All functions may be used by several threads at once.
 */
#ifndef UNCLIP_COMMON_IMAGE_H
#define UNCLIP_COMMON_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define IMAGE_SIDE_MAX   8192        /* pixels */
#define IMAGE_PIXELS_MAX (36u << 20) /* of a picture that is read */
#define IMAGE_FILE_MAX   (64u << 20) /* bytes of an encoded picture that is read */

/* 8-bit sRGB, rows from the top, [height][width][3]. */
struct image {
    int width, height;
    uint8_t *pixels; /* owned; image_release() */
    uint8_t *alpha;  /* [height][width], 255 = opaque; owned; NULL: all of it is opaque */
};

/*  X(identifier, name and file extension, MIME type, default quality; 0: lossless) */
#define IMAGE_FORMAT_TABLE(X)                                                                      \
    X(IMAGE_PNG, "png", "image/png", 0)                                                            \
    X(IMAGE_WEBP, "webp", "image/webp", 90)                                                        \
    X(IMAGE_JPEG, "jpeg", "image/jpeg", 92)                                                        \
    X(IMAGE_AVIF, "avif", "image/avif", 65)
enum image_format {
#define X(id, ...) id,
    IMAGE_FORMAT_TABLE(X)
#undef X
        IMAGE_FORMAT_COUNT
};
const char *image_format_name(enum image_format format);
const char *image_format_mime(enum image_format format);
/* IMAGE_FORMAT_COUNT for none of them. */
enum image_format image_format_from_name(const char *name);

struct image_text {
    const char *key;   /* PNG keyword, Latin-1, 1..79 bytes: "parameters", "unclip", … */
    const char *value; /* UTF-8, any length */
};

/* What is embedded in a finished picture. All strings are borrowed; NULL leaves one out. */
struct image_metadata {
    const char *parameters;  /* A1111's infotext, PNG key `parameters` */
    const char *job;         /* JSON of the whole request, PNG key `unclip` */
    const char *description; /* XMP dc:description: the prompt */
    const char *tool;        /* XMP xmp:CreatorTool: "unclip 0.1.0" */
};

int image_setup(const char *program, struct err *err); /* once per process, before all else here */
int image_alloc(struct image *image, int width, int height, struct err *err);
void image_release(struct image *image);

/*
 * [size][size][3] f32 in [-1, 1] → 8 bit as diffusers does: clamp(x/2 + 0.5, 0, 1), times 255,
 * round half to even (numpy's rule). ERR_COMPUTE where a value is not a number.
 */
int image_from_float(struct image *image, const float *pixels, int size, struct err *err);

/*
 * PNG with the metadata as tEXt (Latin-1) or iTXt (UTF-8) chunks, and XMP with IPTC's
 * DigitalSourceType trainedAlgorithmicMedia always. Equal input gives equal bytes. *bytes is owned.
 */
int image_encode_png(const struct image *image, const struct image_metadata *metadata, void **bytes,
                     size_t *size, struct err *err);
/*
 * The same in any format. `quality` is 1..100, 0 takes the format's own; PNG has none, and 100 is
 * lossless in WebP. What is not
 * PNG has all metadata in its XMP packet, and the parameters in EXIF's UserComment too, where A1111
 * puts them (in ASCII: libvips writes no other); a JPEG leaves out what its XMP cannot hold. Alpha
 * is not written. ERR_UNSUPPORTED where this libvips cannot write the format.
 */
int image_encode(const struct image *image, enum image_format format, int quality,
                 const struct image_metadata *metadata, void **bytes, size_t *size,
                 struct err *err);
/*
 * Decodes a PNG, JPEG, WebP, AVIF, HEIC or GIF held in memory; limits are checked before pixels are
 * allocated. Of an animation the first frame counts. Turned as EXIF says; colours come to sRGB by
 * the picture's ICC profile, grey, CMYK and 16 bits too. Colours under transparent pixels are kept.
 * Errors: ERR_TOO_LARGE, ERR_INVALID_IMAGE, ERR_OUT_OF_MEMORY.
 */
int image_decode(struct image *image, const void *bytes, size_t size, struct err *err);
/* What image_decode() reads, by its first bytes: "image/png"; NULL: nothing that it reads. Static.
 */
const char *image_media_type(const void *bytes, size_t size);
/* Lays it on white, and drops alpha. */
void image_flatten(struct image *image);
/* The largest square in the middle. ERR_OUT_OF_MEMORY. */
int image_crop_square(const struct image *image, struct image *out, struct err *err);
/* Lanczos-3 resize of [-1,1] floats, [from][from][3] → [to][to][3] (caller's buffers); edges are
   continued by their last pixel, and values may overshoot. ERR_OUT_OF_MEMORY. */
int image_resize_lanczos(const float *src, int from, float *dst, int to, struct err *err);

/* The kernel of a resize: the sharp one for pictures, the one that never overshoots for masks. */
enum image_filter { IMAGE_LANCZOS, IMAGE_TRIANGLE };
/*
 * Resize of 8-bit squares, [from][from][channels] → [to][to][channels] (caller's buffers), 1 or 3
 * channels; wider kernels when shrinking, edges as above, values rounded and clamped. Equal sizes
 * copy. ERR_OUT_OF_MEMORY.
 */
int image_resize_bytes(const uint8_t *src, int from, int channels, uint8_t *dst, int to,
                       enum image_filter filter, struct err *err);

/*
 * Pictures of one size beside and below each other, `columns` in a row, with `gap` white pixels
 * between. ERR_INVALID_ARGUMENT where the sizes differ; ERR_INVALID_IMAGE where it gets too large.
 */
int image_grid(const struct image *pictures, int count, int columns, int gap, struct image *out,
               struct err *err);
/* Pictures of one size as a WebP that shows each for frame_ms, again and again; quality as in
   image_encode(). Errors as above. *bytes is owned. */
int image_animation(const struct image *pictures, int count, int frame_ms, int quality,
                    const struct image_metadata *metadata, void **bytes, size_t *size,
                    struct err *err);

/* Reads a PNG's text chunk (tEXt, zTXt or iTXt) as UTF-8. *value is owned. Errors: ERR_NOT_FOUND,
   ERR_INVALID_IMAGE (not a PNG, damaged), ERR_TOO_LARGE. */
int image_png_text(const void *bytes, size_t size, const char *key, char **value, struct err *err);

const char *image_library_version(void);

#endif
