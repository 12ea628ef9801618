/* SPDX-License-Identifier: Apache-2.0 */
/* stages/rng.c against torch's CPU generator: uniform draws to the bit, normal ones within 1e-6. */
#include "exact.h"

#include "stages/rng.h"

#define NORMAL_LIMIT 1e-6
#define DRAWS_MAX    2048

/* One draw as a golden file names it: "rand:700". */
static void draw(struct rng *rng, const char *kind, size_t count, float *out)
{
    if (strcmp(kind, "rand") == 0)
        rng_uniform(rng, out, count);
    else if (strcmp(kind, "randn") == 0)
        rng_normal(rng, out, count);
    else
        fail_msg("a draw of the unknown kind '%s'", kind);
}

static void compare(const char *kind, const float *got, const float *want, size_t count,
                    const char *what)
{
    if (strcmp(kind, "rand") == 0)
        assert_memory_equal(got, want, count * sizeof *got);
    else
        for (size_t i = 0; i < count; i++)
            if (!(fabs((double)got[i] - (double)want[i]) <= NORMAL_LIMIT))
                fail_msg("%s: value %zu is %.9g instead of %.9g", what, i, (double)got[i],
                         (double)want[i]);
}

/* "out.randn.17": that many numbers of a fresh generator. */
static void check_fresh(const struct safetensors_entry *entry, uint64_t seed)
{
    char kind[8];
    size_t count;
    float got[DRAWS_MAX];
    struct rng rng;
    assert_int_equal(sscanf(entry->name, "out.%7[a-z].%zu", kind, &count), 2);
    assert_int_equal(golden_count(entry), count);
    assert_true(count <= DRAWS_MAX);
    rng_seed(&rng, seed);
    draw(&rng, kind, count, got);
    compare(kind, got, entry->data, count, entry->name);
}

/* "out.mixed.0": the draws that the setting lists, from one generator. */
static void check_mixed(const struct golden *golden, const struct safetensors_entry *entry,
                        uint64_t seed)
{
    const char *specs = golden_setting(golden, entry->name + strlen("out."));
    const float *want = entry->data;
    float got[DRAWS_MAX];
    size_t done = 0;
    struct rng rng;
    rng_seed(&rng, seed);
    for (int used; *specs; specs += used) {
        char kind[8];
        size_t count;
        assert_int_equal(sscanf(specs, "%7[a-z]:%zu%n ", kind, &count, &used), 2);
        used += specs[used] == ' ';
        assert_true(done + count <= golden_count(entry) && count <= DRAWS_MAX);
        draw(&rng, kind, count, got);
        compare(kind, got, want + done, count, entry->name);
        done += count;
    }
    assert_int_equal(done, golden_count(entry));
}

static void check_file(const char *name)
{
    if (strcmp(name, "rng-picture") == 0)
        return; /* test_picture */
    struct golden golden = golden_open(name);
    uint64_t seed = strtoull(golden_setting(&golden, "seed"), NULL, 10);
    for (size_t i = 0; i < safetensors_count(golden.file); i++) {
        const struct safetensors_entry *entry = safetensors_at(golden.file, i);
        if (strncmp(entry->name, "out.mixed.", strlen("out.mixed.")) == 0)
            check_mixed(&golden, entry, seed);
        else
            check_fresh(entry, seed);
    }
    golden_close(&golden);
}

static void test_seeds(void **state)
{
    (void)state;
    golden_each("rng-*.safetensors", 7, check_file);
}

static void test_picture(void **state)
{
    (void)state;
    struct golden golden = golden_open("rng-picture");
    const struct safetensors_entry *entry = golden_typed(&golden, "out.randn", DTYPE_F32);
    size_t count = golden_count(entry);
    float *got = malloc(count * sizeof *got);
    struct rng rng;
    assert_int_equal(count, 3 * 64 * 64);
    rng_seed(&rng, strtoull(golden_setting(&golden, "seed"), NULL, 10));
    rng_normal(&rng, got, count);
    compare("randn", got, entry->data, count, "picture");
    free(got);
    golden_close(&golden);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
