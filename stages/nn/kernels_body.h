/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels' code (kernels.h), included once for each instruction set with KERNELS and
 * KERNELS_NAME defined. GCC's vector extensions give 16 lanes on every machine: one register of
 * AVX-512, or several narrower ones. Loops are written for a constant `half` (rows are bf16) and a
 * constant activation, and always inlined, so that the compiler drops the branches.
 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "common/err.h"
#include "stages/nn/kernels.h"

#define INLINE static inline __attribute__((always_inline))
#define LANES  16

typedef float vf __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));

INLINE vf splat(float value)
{
    return (vf){} + value;
}

/* mask ? a : b, lane by lane; masks come from comparisons. */
INLINE vf pick(vu mask, vf a, vf b)
{
    return (vf)((mask & (vu)a) | (~mask & (vu)b));
}

INLINE size_t element(bool half)
{
    return half ? sizeof(uint16_t) : sizeof(float);
}

/* `lanes` elements from index i on; the other lanes are zero. */
INLINE vf load(const void *src, size_t i, size_t lanes, bool half)
{
    const char *place = (const char *)src + i * element(half);
    if (half) {
        vh bits = {0};
        memcpy(&bits, place, lanes * sizeof(uint16_t));
        return (vf)(__builtin_convertvector(bits, vu) << 16);
    }
    vf value = {0};
    memcpy(&value, place, lanes * sizeof(float));
    return value;
}

INLINE void store(void *dst, size_t i, size_t lanes, bool half, vf value)
{
    char *place = (char *)dst + i * element(half);
    if (!half) {
        memcpy(place, &value, lanes * sizeof(float));
        return;
    }
    vu bits = (vu)value;
    vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    vu nan = (vu)((bits & 0x7fffffffu) > 0x7f800000u);
    vu result = (nan & ((bits >> 16) | 0x40u)) | (~nan & rounded);
    vh narrow = __builtin_convertvector(result, vh);
    memcpy(place, &narrow, lanes * sizeof(uint16_t));
}

/* exp to about one unit in the last place; 0 below -87, e⁸⁸ above 88, NaN for NaN. Cephes' expf. */
INLINE vf vexp(vf x)
{
    const float round_bits = 12582912.0f; /* 1.5 · 2²³: adding it rounds to an integer */
    vu low = (vu)(x < -87.0f), nan = (vu)(x != x);
    vf y = pick((vu)(x > 88.0f), splat(88.0f), pick(low, splat(-87.0f), x));
    vf shifted = y * 1.44269504088896341f + round_bits;
    vf n = shifted - round_bits;
    vf r = y - n * 0.693359375f - n * -2.12194440e-4f;
    vf p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    vf power = (vf)((vu)p + (((vu)shifted - (vu)splat(round_bits)) << 23));
    return pick(nan, x, pick(low, splat(0), power));
}

/* x Φ(x); Φ by Abramowitz and Stegun 7.1.26, whose error is below 1e-7. */
INLINE vf gelu(vf x)
{
    vf z = pick((vu)(x < 0.0f), -x, x) * 0.70710678118654752f;
    vf t = 1.0f / (1.0f + 0.3275911f * z);
    vf p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    vf tail = 0.5f * p * t * vexp(-z * z);
    return x * pick((vu)(x < 0.0f), tail, 1.0f - tail);
}

INLINE vf gelu_tanh(vf x)
{
    vf inner = 1.5957691216057308f * (x + 0.044715f * x * x * x); /* 2 √(2/π) */
    return x / (1.0f + vexp(-inner));
}

INLINE vf activate(vf x, enum act act)
{
    switch (act) {
    case ACT_NONE:
        return x;
    case ACT_SILU:
        return x / (1.0f + vexp(-x));
    case ACT_GELU:
        return gelu(x);
    case ACT_GELU_TANH:
        return gelu_tanh(x);
    case ACT_QUICK_GELU:
        return x / (1.0f + vexp(-1.702f * x));
    case ACT_RELU:
        return pick((vu)(x < 0.0f), splat(0), x);
    }
    BUG("no such activation");
}

/* Calls f(…, half, act) with both constant. */
#define WITH_ACT(f, half, act, ...)                                                                \
    switch (act) {                                                                                 \
    case ACT_NONE:                                                                                 \
        f(__VA_ARGS__, half, ACT_NONE);                                                            \
        break;                                                                                     \
    case ACT_SILU:                                                                                 \
        f(__VA_ARGS__, half, ACT_SILU);                                                            \
        break;                                                                                     \
    case ACT_GELU:                                                                                 \
        f(__VA_ARGS__, half, ACT_GELU);                                                            \
        break;                                                                                     \
    case ACT_GELU_TANH:                                                                            \
        f(__VA_ARGS__, half, ACT_GELU_TANH);                                                       \
        break;                                                                                     \
    case ACT_QUICK_GELU:                                                                           \
        f(__VA_ARGS__, half, ACT_QUICK_GELU);                                                      \
        break;                                                                                     \
    case ACT_RELU:                                                                                 \
        f(__VA_ARGS__, half, ACT_RELU);                                                            \
        break;                                                                                     \
    }
#define WITH_HALF(f, dtype, ...)                                                                   \
    do {                                                                                           \
        if ((dtype) == DTYPE_BF16)                                                                 \
            f(__VA_ARGS__, true);                                                                  \
        else                                                                                       \
            f(__VA_ARGS__, false);                                                                 \
    } while (0)
#define WITH_BOTH(f, dtype, act, ...)                                                              \
    do {                                                                                           \
        if ((dtype) == DTYPE_BF16) {                                                               \
            WITH_ACT(f, true, act, __VA_ARGS__)                                                    \
        } else {                                                                                   \
            WITH_ACT(f, false, act, __VA_ARGS__)                                                   \
        }                                                                                          \
    } while (0)
/* The body for full vectors from i = 0 on, then once for what is left over. */
#define FOR_LANES(count, i, lanes, ...)                                                            \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        for (; i + LANES <= (count); i += LANES) {                                                 \
            enum { lanes = LANES };                                                                \
            __VA_ARGS__                                                                            \
        }                                                                                          \
        if (i < (count)) {                                                                         \
            size_t lanes = (count)-i;                                                              \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    } while (0)

INLINE void act_row(void *dst, const void *src, size_t count, bool half, enum act act)
{
    FOR_LANES(count, i, lanes,
              store(dst, i, lanes, half, activate(load(src, i, lanes, half), act)););
}

static void act_kernel(void *dst, const void *src, enum dtype dtype, size_t count, enum act act)
{
    WITH_BOTH(act_row, dtype, act, dst, src, count);
}

INLINE void add_row(void *dst, const void *a, const void *b, size_t count, bool half)
{
    FOR_LANES(count, i, lanes,
              store(dst, i, lanes, half, load(a, i, lanes, half) + load(b, i, lanes, half)););
}

static void add_kernel(void *dst, const void *a, const void *b, enum dtype dtype, size_t count)
{
    WITH_HALF(add_row, dtype, dst, a, b, count);
}

/* Channels [c0, c0 + 16 (vectors - 1) + lanes) of up to CHUNK_PIXELS pixels, in f32. */
#define CHUNK_PIXELS 64
#define STRIP        4 /* vectors */
INLINE void moments_strip(double *sums, double *squares, const void *src, const float *pivot,
                          size_t pixels, size_t c, size_t c0, size_t vectors, size_t lanes,
                          bool half)
{
    vf shift[STRIP], sum[STRIP], square[STRIP];
    for (size_t v = 0; v < vectors; v++) {
        shift[v] = load(pivot, c0 + v * LANES, lanes, false);
        sum[v] = square[v] = splat(0);
    }
    for (size_t pixel = 0; pixel < pixels; pixel++) {
        for (size_t v = 0; v < vectors; v++) {
            vf d = load(src, pixel * c + c0 + v * LANES, lanes, half) - shift[v];
            sum[v] += d;
            square[v] += d * d;
        }
    }
    for (size_t v = 0; v < vectors; v++) {
        for (size_t lane = 0; lane < lanes; lane++) {
            sums[c0 + v * LANES + lane] += (double)sum[v][lane];
            squares[c0 + v * LANES + lane] += (double)square[v][lane];
        }
    }
}

INLINE void moments_chunk(double *sums, double *squares, const void *src, const float *pivot,
                          size_t pixels, size_t c, bool half)
{
    size_t c0 = 0;
    for (; c0 + STRIP * LANES <= c; c0 += STRIP * LANES)
        moments_strip(sums, squares, src, pivot, pixels, c, c0, STRIP, LANES, half);
    for (; c0 + LANES <= c; c0 += LANES)
        moments_strip(sums, squares, src, pivot, pixels, c, c0, 1, LANES, half);
    if (c0 < c)
        moments_strip(sums, squares, src, pivot, pixels, c, c0, 1, c - c0, half);
}

static void moments_kernel(double *sums, double *squares, const void *src, const float *pivot,
                           enum dtype dtype, size_t pixels, size_t c)
{
    for (size_t pixel = 0; pixel < pixels; pixel += CHUNK_PIXELS) {
        size_t now = pixels - pixel < CHUNK_PIXELS ? pixels - pixel : CHUNK_PIXELS;
        const char *place = (const char *)src + pixel * c * dtype_size(dtype);
        WITH_HALF(moments_chunk, dtype, sums, squares, place, pivot, now, c);
    }
}

INLINE void affine_row(void *dst, const void *src, const struct affine *affine, size_t c, bool half,
                       enum act act)
{
    FOR_LANES(c, i, lanes, {
        vf d = load(src, i, lanes, half) - load(affine->mean, i, lanes, false);
        vf y = d * load(affine->scale, i, lanes, false) + load(affine->shift, i, lanes, false);
        store(dst, i, lanes, half, activate(y, act));
    });
}

INLINE void affine_rows(void *dst, const void *src, const struct affine *affine, size_t pixels,
                        size_t c, bool half, enum act act)
{
    size_t row = c * element(half);
    for (size_t pixel = 0; pixel < pixels; pixel++)
        affine_row((char *)dst + pixel * row, (const char *)src + pixel * row, affine, c, half,
                   act);
}

static void affine_kernel(void *dst, const void *src, const struct affine *affine, enum dtype dtype,
                          size_t pixels, size_t c)
{
    WITH_BOTH(affine_rows, dtype, affine->act, dst, src, affine, pixels, c);
}

INLINE float lane_sum(vf value)
{
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++)
        sum += value[lane];
    return sum;
}

INLINE void layer_norm_row(void *dst, const void *src, const float *gamma, const float *beta,
                           float eps, size_t c, bool half)
{
    vf sum = splat(0), square = splat(0);
    FOR_LANES(c, i, lanes, sum += load(src, i, lanes, half););
    float mean = lane_sum(sum) / (float)c;
    size_t full = c / LANES * LANES, rest = c - full;
    for (size_t i = 0; i < full; i += LANES) {
        vf d = load(src, i, LANES, half) - mean;
        square += d * d;
    }
    float squares = lane_sum(square);
    vf tail = load(src, full, rest, half) - mean;
    for (size_t lane = 0; lane < rest; lane++)
        squares += tail[lane] * tail[lane];
    float scale = 1.0f / sqrtf(squares / (float)c + eps);
    FOR_LANES(c, i, lanes, {
        vf y = (load(src, i, lanes, half) - mean) * scale;
        y = y * load(gamma, i, lanes, false) + load(beta, i, lanes, false);
        store(dst, i, lanes, half, y);
    });
}

static void layer_norm_kernel(void *dst, const void *src, const float *gamma, const float *beta,
                              float eps, enum dtype dtype, size_t c)
{
    WITH_HALF(layer_norm_row, dtype, dst, src, gamma, beta, eps, c);
}

/* scores = scores scale + mask; returns the largest. */
INLINE float masked_maximum(float *scores, const float *mask, float scale, size_t count)
{
    vf most = splat(-INFINITY);
    size_t full = count / LANES * LANES;
    for (size_t i = 0; i < full; i += LANES) {
        vf v = load(scores, i, LANES, false) * scale;
        v = mask ? v + load(mask, i, LANES, false) : v;
        store(scores, i, LANES, false, v);
        most = pick((vu)(v > most), v, most);
    }
    float maximum = -INFINITY;
    for (int lane = 0; lane < LANES; lane++)
        maximum = most[lane] > maximum ? most[lane] : maximum;
    for (size_t i = full; i < count; i++) {
        scores[i] = scores[i] * scale + (mask ? mask[i] : 0);
        maximum = scores[i] > maximum ? scores[i] : maximum;
    }
    return maximum;
}

INLINE void softmax_row(void *dst, float *scores, const float *mask, float scale, size_t count,
                        bool half)
{
    float maximum = masked_maximum(scores, mask, scale, count);
    size_t full = count / LANES * LANES, rest = count - full;
    vf sum = splat(0);
    for (size_t i = 0; i < full; i += LANES) {
        vf e = vexp(load(scores, i, LANES, false) - maximum);
        store(scores, i, LANES, false, e);
        sum += e;
    }
    float total = lane_sum(sum);
    vf tail = vexp(load(scores, full, rest, false) - maximum);
    store(scores, full, rest, false, tail);
    for (size_t lane = 0; lane < rest; lane++)
        total += tail[lane];
    float factor = 1.0f / total;
    FOR_LANES(count, i, lanes, store(dst, i, lanes, half, load(scores, i, lanes, false) * factor););
}

static void softmax_kernel(void *dst, float *scores, const float *mask, float scale,
                           enum dtype dtype, size_t count)
{
    WITH_HALF(softmax_row, dtype, dst, scores, mask, scale, count);
}

INLINE void mean_of_4_row(void *dst, const void *a, const void *b, size_t c, bool half)
{
    FOR_LANES(c, i, lanes, {
        vf sum = load(a, i, lanes, half) + load(a, c + i, lanes, half) + load(b, i, lanes, half) +
                 load(b, c + i, lanes, half);
        store(dst, i, lanes, half, sum * 0.25f);
    });
}

static void mean_of_4_kernel(void *dst, const void *a, const void *b, enum dtype dtype, size_t c)
{
    WITH_HALF(mean_of_4_row, dtype, dst, a, b, c);
}

const struct kernels KERNELS = {
    .name = KERNELS_NAME,
    .act = act_kernel,
    .add = add_kernel,
    .moments = moments_kernel,
    .affine = affine_kernel,
    .layer_norm = layer_norm_kernel,
    .softmax = softmax_kernel,
    .mean_of_4 = mean_of_4_kernel,
};
