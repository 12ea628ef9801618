/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading the goldens of data/ in a cmocka test, and holding results against them: README.md says
 * what the files hold, golden_limits.h how near a result must be. Layouts here are torch's; nchw_to_nhwc()
 * and its inverse turn pictures. Everything fails the test at once where something is missing.
 */
#ifndef GOLDEN_GOLDEN_H
#define GOLDEN_GOLDEN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/memory.h"
#include "common/safetensors.h"
#include "synth.h"

/* Fails the test with the error's text unless the command succeeded. */
#define golden_ok(command, err)                                                                    \
    do {                                                                                           \
        if ((command) != 0)                                                                        \
            fail_msg("%s: %s", (err)->where ? (err)->where : "?", (err)->text);                    \
    } while (0)

struct golden {
    const char *name; /* borrowed: the case */
    struct safetensors *file;
};

/* A tensor in f32; `values` is owned (free()). */
struct golden_tensor {
    int rank;
    int64_t dim[SAFETENSORS_RANK_MAX];
    size_t count;
    float *values;
};

static inline struct golden golden_open(const char *name)
{
    struct golden golden = {.name = name};
    struct err err = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/data/%s.safetensors", GOLDEN_DIR, name);
    golden_ok(safetensors_open(&golden.file, path, &err), &err);
    return golden;
}

static inline void golden_close(struct golden *golden)
{
    safetensors_free(golden->file);
    golden->file = NULL;
}

static inline const char *golden_setting(const struct golden *golden, const char *key)
{
    const char *value = safetensors_metadata(golden->file, key);
    if (!value)
        fail_msg("%s has no setting '%s'", golden->name, key);
    return value;
}

static inline long golden_integer(const struct golden *golden, const char *key)
{
    return strtol(golden_setting(golden, key), NULL, 10);
}

static inline double golden_number(const struct golden *golden, const char *key)
{
    return strtod(golden_setting(golden, key), NULL);
}

static inline bool golden_has(const struct golden *golden, const char *name)
{
    return safetensors_find(golden->file, name) != NULL;
}

static inline const struct safetensors_entry *golden_entry(const struct golden *golden,
                                                           const char *name)
{
    const struct safetensors_entry *entry = safetensors_find(golden->file, name);
    if (!entry)
        fail_msg("%s has no tensor '%s'", golden->name, name);
    return entry;
}

/* The shape of "12x3x4". */
static inline void golden_parse_shape(struct golden_tensor *tensor, const char *text)
{
    tensor->count = 1;
    for (tensor->rank = 0; *text; tensor->rank++) {
        char *end;
        tensor->dim[tensor->rank] = strtol(text, &end, 10);
        tensor->count *= (size_t)tensor->dim[tensor->rank];
        text = *end ? end + 1 : end;
    }
}

/* An input too large to be stored: setting hash.<name> = "STREAM SCALE SHAPE". */
static inline struct golden_tensor golden_hashed(const struct golden *golden, const char *name)
{
    struct golden_tensor tensor;
    char key[128], stream[256], shape[64];
    float scale;
    snprintf(key, sizeof key, "hash.%s", name + strlen("in."));
    const char *text = golden_setting(golden, key);
    assert_int_equal(sscanf(text, "%255s %f %63s", stream, &scale, shape), 3);
    golden_parse_shape(&tensor, shape);
    tensor.values = xmalloc(tensor.count * sizeof(float));
    synth_fill(stream, 0, tensor.count, scale, 0, tensor.values);
    return tensor;
}

static inline float golden_value(const struct safetensors_entry *entry, size_t i)
{
    switch (entry->dtype) {
    case DTYPE_F32:
        return ((const float *)entry->data)[i];
    case DTYPE_U8:
        return ((const uint8_t *)entry->data)[i];
    case DTYPE_I64:
        return (float)((const int64_t *)entry->data)[i];
    default:
        fail_msg("'%s' is stored as %s", entry->name, dtype_name(entry->dtype));
        return 0;
    }
}

static inline struct golden_tensor golden_get(const struct golden *golden, const char *name)
{
    if (!golden_has(golden, name) && strncmp(name, "in.", 3) == 0)
        return golden_hashed(golden, name);
    const struct safetensors_entry *entry = golden_entry(golden, name);
    struct golden_tensor tensor = {.rank = entry->rank, .count = 1};
    for (int i = 0; i < entry->rank; i++) {
        tensor.dim[i] = entry->dim[i];
        tensor.count *= (size_t)entry->dim[i];
    }
    tensor.values = xmalloc(tensor.count * sizeof(float));
    for (size_t i = 0; i < tensor.count; i++)
        tensor.values[i] = golden_value(entry, i);
    return tensor;
}

static inline void golden_nchw_to_nhwc(const float *src, const int64_t dim[4], float *dst)
{
    int64_t n = dim[0], c = dim[1], pixels = dim[2] * dim[3];
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < pixels; p++)
                dst[(i * pixels + p) * c + k] = src[(i * c + k) * pixels + p];
}

/* dim is the result's: [n, c, h, w]. */
static inline void golden_nhwc_to_nchw(const float *src, const int64_t dim[4], float *dst)
{
    int64_t n = dim[0], c = dim[1], pixels = dim[2] * dim[3];
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < c; k++)
            for (int64_t p = 0; p < pixels; p++)
                dst[(i * c + k) * pixels + p] = src[(i * pixels + p) * c + k];
}

/* ---- comparing ---- */

struct golden_limit {
    double nmse; /* sum of squared differences over the sum of the golden's squares */
    double peak; /* greatest difference over the golden's greatest absolute value */
};

struct golden_distance {
    double nmse, peak;
};

static inline struct golden_distance golden_measure(const float *values, const float *golden,
                                                    size_t count, size_t stride)
{
    double error = 0, power = 0, worst = 0, greatest = 0;
    for (size_t i = 0; i < count; i++) {
        double difference = (double)values[i * stride] - (double)golden[i];
        error += difference * difference;
        power += (double)golden[i] * (double)golden[i];
        worst = fmax(worst, isnan(difference) ? INFINITY : fabs(difference));
        greatest = fmax(greatest, fabs((double)golden[i]));
    }
    return (struct golden_distance){error / power, worst / greatest};
}

static inline void golden_hold(const struct golden *golden, const char *name,
                               struct golden_distance distance, struct golden_limit limit)
{
    if (getenv("GOLDEN_VERBOSE"))
        print_message("%s %s: nmse %.2e, peak %.2e\n", golden->name, name, distance.nmse,
                      distance.peak);
    if (!(distance.nmse <= limit.nmse && distance.peak <= limit.peak))
        fail_msg("%s %s: nmse %.3e (limit %.1e), peak %.3e (limit %.1e)", golden->name, name,
                 distance.nmse, limit.nmse, distance.peak, limit.peak);
}

/* The sums of a stored sample's channels: [n, c] over the pixels of values [n, c, pixels]. */
static inline void golden_check_sums(const struct golden *golden, const char *name,
                                     const float *values, size_t count, struct golden_limit limit)
{
    char key[128];
    snprintf(key, sizeof key, "%s.sum", name);
    struct golden_tensor sums = golden_get(golden, key);
    snprintf(key, sizeof key, "%s.sumsq", name);
    struct golden_tensor squares = golden_get(golden, key);
    size_t pixels = count / sums.count;
    for (size_t i = 0; i < sums.count; i++) {
        double sum = 0, square = 0;
        for (size_t p = 0; p < pixels; p++) {
            double value = (double)values[i * pixels + p];
            sum += value;
            square += value * value;
        }
        double want = (double)squares.values[i], scale = sqrt(want * (double)pixels);
        if (!(fabs(sum - (double)sums.values[i]) <= limit.peak * scale) ||
            !(fabs(square - want) <= 2 * limit.peak * want))
            fail_msg("%s %s: channel %zu sums to %g and %g, the golden's to %g and %g",
                     golden->name, name, i, sum, square, (double)sums.values[i], want);
    }
    free(sums.values);
    free(squares.values);
}

/* Holds values [count], in torch's layout, against a golden that is stored whole or as a sample. */
static inline void golden_check(const struct golden *golden, const char *name, const float *values,
                                size_t count, struct golden_limit limit)
{
    char key[128];
    size_t stride = 1;
    snprintf(key, sizeof key, "%s.sample", name);
    bool sampled = golden_has(golden, key);
    struct golden_tensor want = golden_get(golden, sampled ? key : name);
    if (sampled) {
        snprintf(key, sizeof key, "%s.stride", name);
        stride = (size_t)((const int64_t *)golden_entry(golden, key)->data)[0];
        assert_int_equal((count + stride - 1) / stride, want.count);
        golden_check_sums(golden, name, values, count, limit);
    } else {
        assert_int_equal(count, want.count);
    }
    golden_hold(golden, name, golden_measure(values, want.values, want.count, stride), limit);
    free(want.values);
}

/* ---- models in a temporary folder ---- */

static inline int golden_remove_one(const char *path, const struct stat *status, int type,
                                    struct FTW *place)
{
    (void)status;
    (void)type;
    (void)place;
    return remove(path);
}

static inline void golden_remove_folder(const char *path)
{
    nftw(path, golden_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Writes the test model `name` to `folder`/`as`, its weights stored as `dtype` (NULL: f32). */
static inline void golden_write_model(const char *folder, const char *name, const char *as,
                                      const char *dtype)
{
    char from[512], to[512], text[512] = "";
    snprintf(from, sizeof from, "%s/models/%s", GOLDEN_DIR, name);
    snprintf(to, sizeof to, "%s/%s", folder, as);
    if (synth_model_as(from, to, dtype, text, sizeof text) != 0)
        fail_msg("%s", text);
}

#endif
