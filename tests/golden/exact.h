/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For the parts that equal the reference number by number (generator, scheduler, resize,
 * tokenizer): goldens as they are stored, a limit for each value, and every file of a subject.
 */
#ifndef GOLDEN_EXACT_H
#define GOLDEN_EXACT_H

#include "golden.h"

#include <glob.h>

/* A tensor that must be of that dtype. */
static inline const struct safetensors_entry *golden_typed(const struct golden *golden,
                                                           const char *name, enum dtype dtype)
{
    const struct safetensors_entry *entry = golden_entry(golden, name);
    if (entry->dtype != dtype)
        fail_msg("%s: '%s' is %s instead of %s", golden->name, name, dtype_name(entry->dtype),
                 dtype_name(dtype));
    return entry;
}

static inline const float *golden_f32(const struct golden *golden, const char *name)
{
    return golden_typed(golden, name, DTYPE_F32)->data;
}

static inline const int64_t *golden_i64(const struct golden *golden, const char *name)
{
    return golden_typed(golden, name, DTYPE_I64)->data;
}

static inline size_t golden_count(const struct safetensors_entry *entry)
{
    return entry->bytes / dtype_size(entry->dtype);
}

/* Fails unless |got - want| <= limit * max(1, |want|) for every value. */
static inline void golden_assert_near(const float *got, const float *want, size_t count,
                                      double limit, const char *what)
{
    for (size_t i = 0; i < count; i++) {
        double allowed = limit * fmax(1.0, fabs((double)want[i]));
        if (!(fabs((double)got[i] - (double)want[i]) <= allowed))
            fail_msg("%s: value %zu of %zu is %.9g instead of %.9g", what, i, count, (double)got[i],
                     (double)want[i]);
    }
}

/*
 * Calls `check` with the case name of every data file that matches `pattern` ("rng-*.safetensors")
 * and fails unless there are exactly `expected`, so that none is skipped unseen.
 */
static inline void golden_each(const char *pattern, size_t expected,
                               void (*check)(const char *name))
{
    char path[512], name[256];
    glob_t found;
    snprintf(path, sizeof path, "%s/data/%s", GOLDEN_DIR, pattern);
    assert_int_equal(glob(path, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, expected);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        snprintf(name, sizeof name, "%s", strrchr(found.gl_pathv[i], '/') + 1);
        *strrchr(name, '.') = 0;
        print_message("%s\n", name);
        check(name);
    }
    globfree(&found);
}

#endif
