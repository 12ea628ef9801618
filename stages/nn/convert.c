/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions between float formats (weights.h, convert.h). Written on bit patterns, without
 * branches, so that the compiler vectorises them on every machine.
 */
#include "stages/nn/convert.h"

#include <string.h>

#include "stages/nn/weights.h"

static void f16_to_f32(float *dst, const uint16_t *src, size_t count)
{
    const float scale = 0x1p112f; /* moves the exponent's bias from 15 to 127 */
    for (size_t i = 0; i < count; i++) {
        uint32_t half = src[i];
        float magnitude = bits_to_f32((half & 0x7fffu) << 13) * scale;
        uint32_t bits = f32_to_bits(magnitude) | (half & 0x8000u) << 16;
        bits |= (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0; /* infinity and NaN */
        dst[i] = bits_to_f32(bits);
    }
}

static void bf16_array_to_f32(float *dst, const uint16_t *src, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = bf16_to_f32(src[i]);
}

static void f64_to_f32(float *dst, const double *src, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = (float)src[i];
}

/* Sources come from files and may be unaligned: they pass through a small buffer. */
#define CHUNK 1024
static void convert_chunk(float *dst, const void *src, enum dtype dtype, size_t count)
{
    union {
        uint16_t halves[CHUNK];
        double doubles[CHUNK];
    } buffer;
    memcpy(&buffer, src, count * dtype_size(dtype));
    switch (dtype) {
    case DTYPE_F16:
        f16_to_f32(dst, buffer.halves, count);
        break;
    case DTYPE_BF16:
        bf16_array_to_f32(dst, buffer.halves, count);
        break;
    case DTYPE_F64:
        f64_to_f32(dst, buffer.doubles, count);
        break;
    default:
        BUG("not a float dtype");
    }
}

void convert_to_f32(float *dst, const void *src, enum dtype dtype, size_t count)
{
    if (dtype == DTYPE_F32) {
        if (count)
            memcpy(dst, src, count * sizeof(float));
        return;
    }
    const char *place = src;
    for (size_t i = 0; i < count; i += CHUNK) {
        size_t now = count - i < CHUNK ? count - i : CHUNK;
        convert_chunk(dst + i, place, dtype, now);
        place += now * dtype_size(dtype);
    }
}

void convert_f32_to_bf16(uint16_t *dst, const float *src, size_t count)
{
    for (size_t i = 0; i < count; i++)
        dst[i] = f32_to_bf16(src[i]);
}
