/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes test models from manifests; synth.h has the format and the formula. The directory is
 * walked recursively: manifests become safetensors files, everything else is copied. Header and
 * data are byte for byte those of synth.py, which `make` checks.
 */
#define _POSIX_C_SOURCE 200809L
#include "synth.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MANIFEST     "weights.manifest"
#define GOLDEN_RATIO 0x9E3779B97F4A7C15u
#define MAX_PATH     4096
#define MAX_NAME     256
#define MAX_RANK     8
#define CHUNK        4096 /* values converted and written at a time */

enum kind { F32, F16, BF16, I64 };

static const struct {
    const char *name;   /* in manifests */
    const char *stored; /* in safetensors headers */
    size_t size;
} kinds[] = {
    [F32] = {"f32", "F32", 4},
    [F16] = {"f16", "F16", 2},
    [BF16] = {"bf16", "BF16", 2},
    [I64] = {"i64", "I64", 8},
};

struct tensor {
    enum kind kind;
    char name[MAX_NAME];
    size_t shape[MAX_RANK];
    int rank;
    float scale, offset;
};

struct manifest {
    char file[MAX_NAME];
    struct tensor *tensors; /* owned */
    size_t count;
};

/* Where the walk is: `top` characters of a source path are the manifest directory and its slash. */
struct walk {
    size_t top;
    int kind; /* enum kind for all float tensors, or -1 */
    char *errtext;
    size_t n;
};

static int fail(const struct walk *walk, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(walk->errtext, walk->n, format, args);
    va_end(args);
    return -1;
}

/* ---- values ---- */

static uint64_t fnv1a64(const char *name)
{
    uint64_t value = 0xCBF29CE484222325u;
    for (; *name; name++)
        value = (value ^ (unsigned char)*name) * 0x100000001B3u;
    return value;
}

static uint64_t splitmix64(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void synth_fill(const char *name, size_t first, size_t count, float scale, float offset,
                float *values)
{
    uint64_t key = fnv1a64(name);
    for (size_t i = 0; i < count; i++) {
        uint64_t bits = splitmix64(key + (first + i) * GOLDEN_RATIO) >> 40;
        double u = (double)bits * 0x1p-24 - 0.5;
        values[i] = (float)(u * (double)scale + (double)offset);
    }
}

static uint32_t float_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Finite values only. */
static uint16_t bf16_from_float(float value)
{
    uint32_t bits = float_bits(value);
    return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/* Shifts right, rounding to nearest even; shift in 1..31. */
static uint32_t shift_round(uint32_t value, int shift)
{
    uint32_t half = 1u << (shift - 1);
    uint32_t odd = (value >> shift) & 1u;
    return (value + half - 1u + odd) >> shift;
}

/* Finite values below 65520 only; subnormal halves are kept. */
static uint16_t f16_from_float(float value)
{
    uint32_t bits = float_bits(value);
    uint32_t sign = (bits >> 16) & 0x8000u;
    int exponent = (int)((bits >> 23) & 0xFFu) - 127;
    uint32_t mantissa = (bits & 0x7FFFFFu) | 0x800000u;
    if (exponent < -25)
        return (uint16_t)sign;
    if (exponent < -14)
        return (uint16_t)(sign | shift_round(mantissa, -1 - exponent));
    return (uint16_t)(sign + ((uint32_t)(exponent + 14) << 10) + shift_round(mantissa, 13));
}

/* ---- manifests ---- */

static int kind_find(const char *name)
{
    for (int k = 0; k < (int)(sizeof kinds / sizeof *kinds); k++)
        if (strcmp(kinds[k].name, name) == 0)
            return k;
    return -1;
}

static bool shape_parse(const char *text, struct tensor *tensor)
{
    char *end;
    for (tensor->rank = 0; tensor->rank < MAX_RANK; text = end + 1) {
        size_t extent = strtoull(text, &end, 10);
        if (end == text || extent == 0)
            return false;
        tensor->shape[tensor->rank++] = extent;
        if (*end != 'x')
            return *end == '\0';
    }
    return false;
}

static bool tensor_parse(const char *line, struct tensor *tensor)
{
    char dtype[8], shape[64], scale[32], offset[32], rest;
    if (sscanf(line, "%7s %255s %63s %31s %31s %c", dtype, tensor->name, shape, scale, offset,
               &rest) != 5)
        return false;
    int kind = kind_find(dtype);
    if (kind < 0 || !shape_parse(shape, tensor))
        return false;
    tensor->kind = (enum kind)kind;
    tensor->scale = (float)strtod(scale, NULL);
    tensor->offset = (float)strtod(offset, NULL);
    return true;
}

static size_t tensor_values(const struct tensor *tensor)
{
    size_t count = 1;
    for (int i = 0; i < tensor->rank; i++)
        count *= tensor->shape[i];
    return count;
}

static int manifest_add(struct manifest *manifest, const struct tensor *tensor)
{
    size_t count = manifest->count;
    if ((count & (count - 1)) == 0) { /* full at each power of two */
        size_t room = count ? 2 * count : 1;
        struct tensor *grown = realloc(manifest->tensors, room * sizeof *grown);
        if (!grown)
            return -1;
        manifest->tensors = grown;
    }
    manifest->tensors[manifest->count++] = *tensor;
    return 0;
}

static int manifest_lines(const struct walk *walk, const char *path, FILE *in,
                          struct manifest *manifest)
{
    char line[512];
    if (!fgets(line, sizeof line, in) || sscanf(line, "file %255s", manifest->file) != 1)
        return fail(walk, "%s: the first line must be 'file NAME'", path);
    for (int number = 2; fgets(line, sizeof line, in); number++) {
        struct tensor tensor;
        if (!tensor_parse(line, &tensor))
            return fail(walk, "%s:%d: not 'dtype name shape scale offset'", path, number);
        if (walk->kind >= 0 && tensor.kind != I64)
            tensor.kind = (enum kind)walk->kind;
        if (manifest_add(manifest, &tensor) < 0)
            return fail(walk, "%s: out of memory", path);
    }
    return 0;
}

static int manifest_read(const struct walk *walk, const char *path, struct manifest *manifest)
{
    FILE *in = fopen(path, "r");
    if (!in)
        return fail(walk, "cannot open '%s': %s", path, strerror(errno));
    int rc = manifest_lines(walk, path, in, manifest);
    fclose(in);
    return rc;
}

/* ---- safetensors ---- */

/* Returns the number of bytes; `out` may be NULL to measure. */
static size_t header_write(const struct manifest *manifest, FILE *out)
{
    size_t size = 0, start = 0;
#define PUT(...)                                                                                   \
    (size += (size_t)(out ? fprintf(out, __VA_ARGS__) : snprintf(NULL, 0, __VA_ARGS__)))
    PUT("{\"__metadata__\":{\"format\":\"pt\"}");
    for (const struct tensor *t = manifest->tensors; t < manifest->tensors + manifest->count; t++) {
        PUT(",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, kinds[t->kind].stored);
        for (int i = 0; i < t->rank; i++)
            PUT("%s%zu", i ? "," : "", t->shape[i]);
        size_t end = start + tensor_values(t) * kinds[t->kind].size;
        PUT("],\"data_offsets\":[%zu,%zu]}", start, end);
        start = end;
    }
    PUT("}");
#undef PUT
    return size;
}

static void convert(enum kind kind, const float *values, size_t count, unsigned char *bytes)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = kind == F32   ? float_bits(values[i])
                        : kind == F16 ? f16_from_float(values[i])
                                      : bf16_from_float(values[i]);
        for (size_t b = 0; b < kinds[kind].size; b++)
            *bytes++ = (unsigned char)(bits >> (8 * b));
    }
}

static void count_up(const struct tensor *tensor, size_t first, size_t count, unsigned char *bytes)
{
    for (size_t i = 0; i < count; i++) {
        int64_t value = (int64_t)(first + i) * (int64_t)tensor->scale + (int64_t)tensor->offset;
        for (int b = 0; b < 8; b++)
            *bytes++ = (unsigned char)((uint64_t)value >> (8 * b));
    }
}

static void tensor_write(const struct tensor *tensor, const char *stream, FILE *out)
{
    float values[CHUNK];
    unsigned char bytes[CHUNK * 8];
    size_t total = tensor_values(tensor);
    for (size_t first = 0, count; first < total; first += count) {
        count = total - first < CHUNK ? total - first : CHUNK;
        if (tensor->kind == I64) {
            count_up(tensor, first, count, bytes);
        } else {
            synth_fill(stream, first, count, tensor->scale, tensor->offset, values);
            convert(tensor->kind, values, count, bytes);
        }
        fwrite(bytes, kinds[tensor->kind].size, count, out);
    }
}

static void weights_write(const struct manifest *manifest, const char *component, FILE *out)
{
    size_t size = header_write(manifest, NULL);
    size_t padded = (size + 7) / 8 * 8;
    for (int b = 0; b < 8; b++)
        fputc((int)((uint64_t)padded >> (8 * b) & 0xFF), out);
    header_write(manifest, out);
    fprintf(out, "%*s", (int)(padded - size), "");
    for (size_t i = 0; i < manifest->count; i++) {
        char stream[2 * MAX_NAME];
        snprintf(stream, sizeof stream, "%s/%s", component, manifest->tensors[i].name);
        tensor_write(&manifest->tensors[i], stream, out);
    }
}

/* ---- the walk ---- */

static int join(const struct walk *walk, char path[MAX_PATH], const char *dir, const char *name)
{
    if (snprintf(path, MAX_PATH, "%s/%s", dir, name) >= MAX_PATH)
        return fail(walk, "path too long: '%s/%s'", dir, name);
    return 0;
}

static int close_written(const struct walk *walk, const char *path, FILE *out)
{
    bool broken = ferror(out);
    if (fclose(out) != 0 || broken)
        return fail(walk, "cannot write '%s'", path);
    return 0;
}

/* Makes the weights of the component in folder `source_dir` in folder `out_dir`. */
static int weights_make(const struct walk *walk, const char *source_dir, const char *source,
                        const char *out_dir)
{
    struct manifest manifest = {.tensors = NULL};
    char path[MAX_PATH];
    int rc = manifest_read(walk, source, &manifest);
    if (rc == 0)
        rc = join(walk, path, out_dir, manifest.file);
    if (rc == 0) {
        FILE *out = fopen(path, "wb");
        if (!out) {
            rc = fail(walk, "cannot create '%s': %s", path, strerror(errno));
        } else {
            bool at_top = strlen(source_dir) < walk->top;
            weights_write(&manifest, at_top ? "." : source_dir + walk->top, out);
            rc = close_written(walk, path, out);
        }
    }
    free(manifest.tensors);
    return rc;
}

static int copy(const struct walk *walk, const char *source, const char *target)
{
    FILE *in = fopen(source, "rb");
    if (!in)
        return fail(walk, "cannot open '%s': %s", source, strerror(errno));
    FILE *out = fopen(target, "wb");
    if (!out) {
        fclose(in);
        return fail(walk, "cannot create '%s': %s", target, strerror(errno));
    }
    char buffer[1 << 14];
    for (size_t got; (got = fread(buffer, 1, sizeof buffer, in)) > 0;)
        fwrite(buffer, 1, got, out);
    bool broken = ferror(in);
    fclose(in);
    int rc = close_written(walk, target, out);
    return broken ? fail(walk, "cannot read '%s'", source) : rc;
}

static int tree_make(const struct walk *walk, const char *source_dir, const char *out_dir);

static int entry_make(const struct walk *walk, const char *source_dir, const char *out_dir,
                      const char *name)
{
    char source[MAX_PATH], target[MAX_PATH];
    if (join(walk, source, source_dir, name) < 0 || join(walk, target, out_dir, name) < 0)
        return -1;
    struct stat info;
    if (stat(source, &info) < 0)
        return fail(walk, "cannot read '%s': %s", source, strerror(errno));
    if (S_ISDIR(info.st_mode))
        return tree_make(walk, source, target);
    if (strcmp(name, MANIFEST) == 0)
        return weights_make(walk, source_dir, source, out_dir);
    return copy(walk, source, target);
}

static int tree_make(const struct walk *walk, const char *source_dir, const char *out_dir)
{
    DIR *dir = opendir(source_dir);
    if (!dir)
        return fail(walk, "cannot open '%s': %s", source_dir, strerror(errno));
    int rc = 0;
    if (mkdir(out_dir, 0777) < 0 && errno != EEXIST)
        rc = fail(walk, "cannot create '%s': %s", out_dir, strerror(errno));
    for (struct dirent *entry; rc == 0 && (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            rc = entry_make(walk, source_dir, out_dir, entry->d_name);
    closedir(dir);
    return rc;
}

int synth_model(const char *manifest_dir, const char *out_dir, char *errtext, size_t n)
{
    return synth_model_as(manifest_dir, out_dir, NULL, errtext, n);
}

int synth_model_as(const char *manifest_dir, const char *out_dir, const char *dtype, char *errtext,
                   size_t n)
{
    struct walk walk = {strlen(manifest_dir) + 1, dtype ? kind_find(dtype) : -1, errtext, n};
    if (dtype && (walk.kind < 0 || walk.kind == I64))
        return fail(&walk, "unknown dtype '%s', use f32, f16 or bf16", dtype);
    return tree_make(&walk, manifest_dir, out_dir);
}
