/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MT19937 and torch's two ways from its words to normal numbers (rng.h). log, sine and cosine of
 * the 16-wide path are polynomials of ours, in loops that a compiler turns into vector code: the
 * same bits on every machine, where libm chooses its code by the CPU.
 */
#include "stages/rng.h"

#include <math.h>
#include <string.h>

#define WORDS 624
#define SHIFT 397 /* the distance that the recurrence reaches ahead */
#define LANES 8   /* a block of 16: 8 radii and 8 angles */
#define BLOCK (2 * LANES)

void rng_seed(struct rng *rng, uint64_t seed)
{
    memset(rng, 0, sizeof *rng);
    rng->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < WORDS; i++) {
        uint32_t last = rng->state[i - 1];
        rng->state[i] = 1812433253u * (last ^ (last >> 30)) + i;
    }
    rng->left = 1;
}

static uint32_t twist(uint32_t high, uint32_t low)
{
    uint32_t mixed = (high & 0x80000000u) | (low & 0x7fffffffu);
    return (mixed >> 1) ^ (0x9908b0dfu & -(low & 1u));
}

static void refill(struct rng *rng)
{
    uint32_t *state = rng->state;
    for (int i = 0; i < WORDS - SHIFT; i++)
        state[i] = state[i + SHIFT] ^ twist(state[i], state[i + 1]);
    for (int i = WORDS - SHIFT; i < WORDS - 1; i++)
        state[i] = state[i + SHIFT - WORDS] ^ twist(state[i], state[i + 1]);
    state[WORDS - 1] = state[SHIFT - 1] ^ twist(state[WORDS - 1], state[0]);
    rng->left = WORDS;
    rng->next = 0;
}

static uint32_t temper(uint32_t word)
{
    word ^= word >> 11;
    word ^= (word << 7) & 0x9d2c5680u;
    word ^= (word << 15) & 0xefc60000u;
    return word ^ (word >> 18);
}

/* torch counts `left` down before it looks, so that 1 means: none. */
uint32_t rng_random(struct rng *rng)
{
    if (--rng->left == 0)
        refill(rng);
    return temper(rng->state[rng->next++]);
}

void rng_fork(const struct rng *rng, uint32_t branch, struct rng *out)
{
    struct rng ahead = *rng;
    uint32_t seed = rng_random(&ahead) ^ branch * 0x9e3779b9u; /* 2^32 / golden ratio */
    seed = (seed ^ seed >> 16) * 0x85ebca6bu;                  /* MurmurHash3's finaliser */
    seed = (seed ^ seed >> 13) * 0xc2b2ae35u;
    rng_seed(out, seed ^ seed >> 16);
}

static float uniform_float(uint32_t word)
{
    return (float)(int32_t)(word & 0xffffffu) * 0x1p-24f;
}

/* As count calls of rng_random(), in runs up to the next refill. */
void rng_uniform(struct rng *rng, float *out, size_t count)
{
    while (count > 0) {
        if (rng->left == 1) {
            *out++ = uniform_float(rng_random(rng));
            count--;
            continue;
        }
        size_t run = (size_t)rng->left - 1 < count ? (size_t)rng->left - 1 : count;
        const uint32_t *words = rng->state + rng->next;
        for (size_t i = 0; i < run; i++)
            out[i] = uniform_float(temper(words[i]));
        rng->left -= (int)run;
        rng->next += (int)run;
        out += run;
        count -= run;
    }
}

/* 53 bits of two words, the first one on top. */
static double uniform_double(struct rng *rng)
{
    uint64_t high = rng_random(rng);
    uint64_t low = rng_random(rng);
    return (double)((high << 32 | low) & 0x1fffffffffffffu) * 0x1p-53;
}

/* at::normal_distribution<double>: Box-Muller, the sine's half kept for the next call. */
static double normal_scalar(struct rng *rng)
{
    if (rng->has_normal) {
        rng->has_normal = false;
        double kept = rng->normal;
        rng->normal = 0;
        return kept;
    }
    double u1 = uniform_double(rng);
    double u2 = uniform_double(rng);
    double radius = sqrt(-2.0 * log1p(-u2));
    double theta = 2.0 * M_PI * u1;
    rng->normal = radius * sin(theta);
    rng->has_normal = true;
    return radius * cos(theta);
}

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t to_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* log x for normal x > 0: x = 2^e m with m around 1, log m = 2 atanh((m - 1) / (m + 1)). */
static inline float log_positive(float x)
{
    uint32_t bits = to_bits(x);
    const uint32_t root = 0x3f3504f3u; /* sqrt(1/2) */
    int32_t e = (int32_t)(bits - root) >> 23;
    float f = from_bits(bits - ((uint32_t)e << 23)) - 1.0f;
    float s = f / (2.0f + f);
    float z = s * s;
    float p = z * (2.0f / 3 + z * (2.0f / 5 + z * (2.0f / 7 + z * (2.0f / 9))));
    /* f - s f = 2 s without the quotient's rounding error */
    float log_m = f - s * (f - p);
    return (float)e * 0.693359375f + ((float)e * -2.12194440e-4f + log_m);
}

/* sin and cos of x in [0, 2π]: the nearest multiple of π/2 off, then Taylor's polynomials. */
static inline void sin_cos(float x, float *sine, float *cosine)
{
    int32_t quadrant = (int32_t)(x * (float)M_2_PI + 0.5f);
    float q = (float)quadrant;
    /* π/2 in three parts, the first two short enough for exact products */
    float r = ((x - q * 1.5703125f) - q * 4.837512969970703125e-4f) - q * 7.549789948768648e-8f;
    float z = r * r;
    float s = r + r * z * (-1.0f / 6 + z * (1.0f / 120 + z * (-1.0f / 5040 + z * (1.0f / 362880))));
    float c = 1.0f - 0.5f * z +
              z * z * (1.0f / 24 + z * (-1.0f / 720 + z * (1.0f / 40320 - z * (1.0f / 3628800))));
    float sin_part = (quadrant & 1) ? c : s;
    float cos_part = (quadrant & 1) ? s : c;
    *sine = from_bits(to_bits(sin_part) ^ ((uint32_t)(quadrant & 2) << 30));
    *cosine = from_bits(to_bits(cos_part) ^ ((uint32_t)((quadrant + 1) & 2) << 30));
}

/* Uniforms [16] → normals [16] in place: Box-Muller with values j and j + 8. */
static void normal_block(float *data)
{
    float sine[LANES], cosine[LANES], radius[LANES];
    for (int i = 0; i < LANES; i++)
        radius[i] = sqrtf(-2.0f * log_positive(1.0f - data[i]));
    for (int i = 0; i < LANES; i++)
        sin_cos(2.0f * (float)M_PI * data[i + LANES], &sine[i], &cosine[i]);
    for (int i = 0; i < LANES; i++) {
        data[i] = radius[i] * cosine[i];
        data[i + LANES] = radius[i] * sine[i];
    }
}

/* ATen's normal_fill: where 16 does not divide count, the last 16 are drawn a second time. */
static void normal_fill(struct rng *rng, float *out, size_t count)
{
    rng_uniform(rng, out, count);
    for (size_t i = 0; i + BLOCK <= count; i += BLOCK)
        normal_block(out + i);
    if (count % BLOCK != 0) {
        rng_uniform(rng, out + count - BLOCK, BLOCK);
        normal_block(out + count - BLOCK);
    }
}

void rng_normal(struct rng *rng, float *out, size_t count)
{
    if (count >= BLOCK) {
        normal_fill(rng, out, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        out[i] = (float)normal_scalar(rng);
}

static uint8_t *put_u32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        *out++ = (uint8_t)(value >> (8 * i));
    return out;
}

static uint32_t get_u32(const uint8_t *bytes)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++)
        value |= (uint32_t)bytes[i] << (8 * i);
    return value;
}

void rng_store(const struct rng *rng, uint8_t out[RNG_BYTES])
{
    uint64_t normal;
    memcpy(&normal, &rng->normal, sizeof normal);
    for (int i = 0; i < WORDS; i++)
        out = put_u32(out, rng->state[i]);
    out = put_u32(out, (uint32_t)rng->left);
    out = put_u32(out, (uint32_t)rng->next);
    out = put_u32(out, rng->has_normal);
    out = put_u32(out, (uint32_t)normal);
    put_u32(out, (uint32_t)(normal >> 32));
}

/* Fresh from a seed (1, 0), or in the middle of a state, where both add up to 625. */
static bool position_valid(uint32_t left, uint32_t next)
{
    if (left == 1 && next == 0)
        return true;
    return left >= 1 && left <= WORDS && next == WORDS + 1 - left;
}

int rng_parse(struct rng *rng, const void *bytes, size_t size, struct err *err)
{
    if (size != RNG_BYTES)
        return err_set(err, ERR_INVALID_RECORD, "a generator's state has %zu bytes instead of %d",
                       size, (int)RNG_BYTES);
    const uint8_t *tail = (const uint8_t *)bytes + WORDS * 4;
    uint32_t left = get_u32(tail), next = get_u32(tail + 4), has_normal = get_u32(tail + 8);
    if (!position_valid(left, next))
        return err_set(err, ERR_INVALID_RECORD,
                       "a generator's state has its position at %u with %u words left", next, left);
    uint64_t bits = get_u32(tail + 12) | (uint64_t)get_u32(tail + 16) << 32;
    double normal;
    memcpy(&normal, &bits, sizeof normal);
    if (has_normal > 1 || !isfinite(normal) || (!has_normal && bits != 0))
        return err_set(err, ERR_INVALID_RECORD,
                       "a generator's state keeps an invalid normal number");
    for (int i = 0; i < WORDS; i++)
        rng->state[i] = get_u32((const uint8_t *)bytes + 4 * i);
    rng->left = (int)left;
    rng->next = (int)next;
    rng->has_normal = has_normal;
    rng->normal = normal;
    return 0;
}
