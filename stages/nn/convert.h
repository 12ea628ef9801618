/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bit patterns of floats, one value at a time. bf16 is the upper half of an f32; rounding is to
 * nearest, ties to even, as torch's and oneDNN's. A NaN stays a NaN.
 */
#ifndef UNCLIP_STAGES_NN_CONVERT_H
#define UNCLIP_STAGES_NN_CONVERT_H

#include <stdint.h>
#include <string.h>

static inline __attribute__((always_inline)) uint32_t f32_to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline __attribute__((always_inline)) float bits_to_f32(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline __attribute__((always_inline)) float bf16_to_f32(uint16_t value)
{
    return bits_to_f32((uint32_t)value << 16);
}

static inline __attribute__((always_inline)) uint16_t f32_to_bf16(float value)
{
    uint32_t bits = f32_to_bits(value);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet = bits >> 16 | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

#endif
