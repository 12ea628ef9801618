/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Text chunks of PNG files, byte by byte (PNG specification, 3rd edition, section 11.3.3). Reading
 * is image_png_text() in image.h.
 */
#ifndef UNCLIP_COMMON_PNG_TEXT_H
#define UNCLIP_COMMON_PNG_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/image.h"

#define PNG_TEXT_MAX    (4u << 20) /* bytes of one text, also after inflating */
#define PNG_KEYWORD_MAX 79         /* bytes */

/*
 * Copies a PNG with the texts put in after IHDR, in their order: as tEXt where Latin-1 has all
 * characters, else as iTXt, uncompressed; XMP's keyword always as iTXt. *out is owned (free()).
 * Errors: ERR_INVALID_IMAGE, ERR_INVALID_ARGUMENT (keyword, UTF-8, size), ERR_OUT_OF_MEMORY.
 */
int png_text_insert(const void *png, size_t size, const struct image_text *texts, size_t count,
                    void **out, size_t *out_size, struct err *err);

/*
 * Copies a PNG up to its end without its texts, each of which costs a decoder as much time and
 * memory as it says to unpack to; every chunk that is left is whole. *out is owned (free()).
 * Errors: ERR_INVALID_IMAGE, ERR_OUT_OF_MEMORY.
 */
int png_text_remove(const void *png, size_t size, void **out, size_t *out_size, struct err *err);

#define PNG_KEYWORD_XMP "XML:com.adobe.xmp"

/*
 * An XMP packet that says: made by a trained model (IPTC DigitalSourceType), with the metadata's
 * tool, from its description; NULL leaves one out. With `whole` its parameters and job stand in it
 * too, for formats that have no other place for them. Owned (free()).
 */
char *png_text_xmp(const struct image_metadata *metadata, bool whole);

#endif
