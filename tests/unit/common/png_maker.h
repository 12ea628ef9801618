/* SPDX-License-Identifier: Apache-2.0 */
/* PNG files made and taken apart by hand, without the code under test. */
#ifndef UNCLIP_TESTS_PNG_MAKER_H
#define UNCLIP_TESTS_PNG_MAKER_H

#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include "common/err.h"

struct png_file {
    unsigned char bytes[20000];
    size_t size;
};

/* CRC-32 bit by bit, as the PNG specification's annex D defines it. */
static inline uint32_t png_crc(const unsigned char *bytes, size_t size)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
    }
    return ~crc;
}

static inline void png_put_u32(struct png_file *png, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        png->bytes[png->size++] = (unsigned char)(value >> shift);
}

static inline uint32_t png_get_u32(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static inline void png_put_chunk(struct png_file *png, const char *type, const void *data,
                                 size_t size)
{
    BUG_ON(png->size + size + 12 > sizeof png->bytes);
    png_put_u32(png, (uint32_t)size);
    const unsigned char *start = png->bytes + png->size;
    memcpy(png->bytes + png->size, type, 4);
    if (size > 0)
        memcpy(png->bytes + png->size + 4, data, size);
    png->size += size + 4;
    png_put_u32(png, png_crc(start, size + 4));
}

static inline void png_start(struct png_file *png, uint32_t width, uint32_t height, int depth,
                             int colour)
{
    struct png_file head = {.size = 0};
    png_put_u32(&head, width);
    png_put_u32(&head, height);
    const unsigned char rest[] = {(unsigned char)depth, (unsigned char)colour, 0, 0, 0};
    memcpy(head.bytes + head.size, rest, sizeof rest);
    memcpy(png->bytes, "\x89PNG\r\n\x1a\n", 8);
    png->size = 8;
    png_put_chunk(png, "IHDR", head.bytes, 13);
}

/* One IDAT with the rows as they are, each with its filter byte; then IEND. */
static inline void png_finish(struct png_file *png, const void *rows, size_t size)
{
    unsigned char packed[2000];
    uLongf length = sizeof packed;
    BUG_ON(compress(packed, &length, rows, size) != Z_OK);
    png_put_chunk(png, "IDAT", packed, length);
    png_put_chunk(png, "IEND", NULL, 0);
}

#endif
