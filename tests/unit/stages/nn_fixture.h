/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of stages/nn share: a context in one dtype, random values that are exact in it,
 * weights that come through a real safetensors file, and the comparison with op_limits.h.
 */
#ifndef UNCLIP_TESTS_UNIT_STAGES_NN_FIXTURE_H
#define UNCLIP_TESTS_UNIT_STAGES_NN_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/err.h"
#include "common/memory.h"
#include "common/safetensors.h"
#include "op_limits.h"
#include "stages/nn/layers.h"
#include "stages/nn/nn.h"
#include "stages/nn/ref/ref.h"
#include "stages/nn/weights.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

struct fixture {
    struct nn *nn;
    enum dtype dtype;
    uint64_t seed;
};

/* False where the CPU has no bf16 at all, which nn_cpu_has_bf16() must know. */
static inline bool fixture_open(struct fixture *f, enum dtype dtype, int threads)
{
    struct err err = {0};
    *f = (struct fixture){.dtype = dtype, .seed = 1};
    int rc = nn_open(&f->nn, dtype, threads, &err);
    if (rc == -(int)ERR_UNSUPPORTED && dtype == DTYPE_BF16) {
        assert_false(nn_cpu_has_bf16());
        return false;
    }
    assert_int_equal(rc, 0);
    return true;
}

static inline void fixture_close(struct fixture *f)
{
    struct err err = {0};
    if (nn_finish(f->nn, &err))
        fail_msg("the context failed: %s", err.text);
    nn_close(f->nn);
}

/* As f's dtype can hold it. */
static inline float fixture_exact(const struct fixture *f, float value)
{
    uint16_t half;
    if (f->dtype != DTYPE_BF16)
        return value;
    convert_f32_to_bf16(&half, &value, 1);
    convert_to_f32(&value, &half, DTYPE_BF16, 1);
    return value;
}

/* Uniform in [-scale, scale) + offset; owned. */
static inline float *fixture_values(struct fixture *f, int64_t count, float scale, float offset)
{
    float *values = xmalloc((unsigned long)count * sizeof(float) + 1);
    for (int64_t i = 0; i < count; i++) {
        f->seed = f->seed * 6364136223846793005u + 1442695040888963407u;
        float unit = (float)(int32_t)(f->seed >> 32) / 2147483648.0f;
        values[i] = fixture_exact(f, unit * scale + offset);
    }
    return values;
}

/* Opens weights that hold these tensors, in f32. */
static inline struct weights *fixture_weights(const struct safetensors_entry *entries, size_t count)
{
    char path[] = "/tmp/unclip-test-XXXXXX";
    void *bytes;
    size_t size;
    struct weights *weights;
    struct err err = {0};
    assert_int_equal(safetensors_encode(entries, count, NULL, 0, &bytes, &size, &err), 0);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
    free(bytes);
    int rc = weights_open(&weights, path, &err);
    unlink(path);
    if (rc)
        fail_msg("cannot open weights: %s", err.text);
    return weights;
}

#define F32_ENTRY(label, values, ...)                                                              \
    {                                                                                              \
        .name = (label), .dtype = DTYPE_F32, .rank = COUNT_OF(((int64_t[]){__VA_ARGS__})),         \
        .dim = {__VA_ARGS__}, .data = (values)                                                     \
    }

/* Compares a result with its twin's; frees nothing. */
static inline void fixture_check(struct fixture *f, enum limit limit, struct tensor result,
                                 const float *expected, const char *what)
{
    struct err err = {0};
    if (nn_failed(f->nn)) {
        nn_finish(f->nn, &err);
        fail_msg("%s %s: %s", limits[limit].name, what, err.text);
    }
    int64_t count = tensor_count(result);
    float *values = xmalloc((unsigned long)count * sizeof(float));
    nn_to_f32(f->nn, result, values);
    struct ref_distance distance = ref_compare(values, expected, count);
    free(values);
    int column = f->dtype == DTYPE_BF16;
    if (getenv("NN_VERBOSE"))
        print_message("%s %s %s: NMSE %.2g, maximum %.2g\n", limits[limit].name,
                      dtype_name(f->dtype), what, distance.nmse, distance.maximum);
    if (!(distance.nmse <= limits[limit].nmse[column]) ||
        !(distance.maximum <= limits[limit].maximum[column]))
        fail_msg("%s %s %s: NMSE %g, maximum %g", limits[limit].name, dtype_name(f->dtype), what,
                 distance.nmse, distance.maximum);
}

/* Runs `body` in f32 and bf16, with an empty pool at both ends. */
static inline void fixture_each_dtype(void (*body)(struct fixture *))
{
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_BF16};
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
        struct fixture f;
        if (!fixture_open(&f, dtypes[i], 2))
            continue;
        body(&f);
        fixture_close(&f);
    }
}

#endif
