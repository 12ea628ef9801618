/* SPDX-License-Identifier: Apache-2.0 */
/* The generator: MT19937's published words, runs of draws, normals against libm, stored states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <string.h>

#include "stages/rng.h"

#define STORED_LEFT       (624 * 4) /* where the fields behind the words lie */
#define STORED_NEXT       (STORED_LEFT + 4)
#define STORED_HAS_NORMAL (STORED_LEFT + 8)
#define STORED_NORMAL     (STORED_LEFT + 12)

static void test_published_words(void **state)
{
    (void)state;
    struct rng rng;
    uint32_t word = 0;
    rng_seed(&rng, 5489); /* std::mt19937's default seed and its 10,000th value */
    assert_int_equal(rng_random(&rng), 3499211612u);
    for (int i = 1; i < 10000; i++)
        word = rng_random(&rng);
    assert_int_equal(word, 4123659995u);
}

static void test_seed_has_32_bits(void **state)
{
    (void)state;
    struct rng a, b;
    rng_seed(&a, 5);
    rng_seed(&b, (UINT64_C(7) << 32) + 5);
    assert_memory_equal(&a, &b, sizeof a);
}

/* Branches differ from each other, from their origin, and with what it would draw next. */
static void test_forks(void **state)
{
    (void)state;
    enum { COUNT = 64 };
    struct rng origin, copy, fork;
    uint32_t first[2 * COUNT];
    rng_seed(&origin, 42);
    for (uint32_t i = 0; i < 2 * COUNT; i++) {
        if (i == COUNT)
            rng_random(&origin);
        copy = origin;
        rng_fork(&origin, i % COUNT + 1, &fork);
        assert_memory_equal(&copy, &origin, sizeof copy);
        first[i] = rng_random(&fork);
        assert_int_not_equal(first[i], rng_random(&copy));
        for (uint32_t k = 0; k < i; k++)
            assert_int_not_equal(first[i], first[k]);
    }
    rng_seed(&origin, 42);
    rng_fork(&origin, 1, &origin); /* in place, and the same again */
    assert_int_equal(rng_random(&origin), first[0]);
}

static void test_uniform_in_runs(void **state)
{
    (void)state;
    static const size_t runs[] = {1, 622, 1, 1, 624, 625, 0, 3, 2000};
    struct rng one, many;
    float out[2000];
    rng_seed(&one, 42);
    rng_seed(&many, 42);
    for (size_t k = 0; k < sizeof runs / sizeof *runs; k++) {
        rng_uniform(&many, out, runs[k]);
        for (size_t i = 0; i < runs[k]; i++) {
            float want = (float)(rng_random(&one) & 0xffffff) / 16777216.0f;
            assert_true(out[i] == want && want >= 0 && want < 1);
        }
    }
    assert_memory_equal(&one, &many, sizeof one);
}

/* The naive twin of a block of 16, in double but for the f32 values that torch rounds to. */
static void normal_block_naive(const float *uniform, double *normal)
{
    for (int i = 0; i < 8; i++) {
        double radius = sqrt(-2 * log((double)(1.0f - uniform[i])));
        double theta = (double)(2.0f * (float)M_PI * uniform[i + 8]);
        normal[i] = radius * cos(theta);
        normal[i + 8] = radius * sin(theta);
    }
}

static void assert_block(const float *got, const float *uniform)
{
    double want[16];
    normal_block_naive(uniform, want);
    for (int i = 0; i < 16; i++)
        if (!(fabs((double)got[i] - want[i]) <= 1e-6))
            fail_msg("normal %d is %.9g instead of %.9g", i, (double)got[i], want[i]);
}

static void test_wide_normals(void **state)
{
    (void)state;
    enum { COUNT = 16 * 4096 };
    static float normal[COUNT], uniform[COUNT];
    struct rng a, b;
    double sum = 0, squares = 0;
    rng_seed(&a, 1);
    rng_seed(&b, 1);
    rng_normal(&a, normal, COUNT);
    rng_uniform(&b, uniform, COUNT);
    for (int i = 0; i < COUNT; i += 16)
        assert_block(normal + i, uniform + i);
    for (int i = 0; i < COUNT; i++) {
        sum += (double)normal[i];
        squares += (double)normal[i] * (double)normal[i];
    }
    assert_true(fabs(sum / COUNT) < 0.02);
    assert_true(fabs(squares / COUNT - 1) < 0.02);
    assert_memory_equal(&a, &b, sizeof a);
}

/* A rest under 16 makes the last 16 numbers anew, from draws of their own. */
static void test_wide_rest(void **state)
{
    (void)state;
    float normal[37], uniform[37], again[16];
    struct rng a, b;
    rng_seed(&a, 3);
    rng_seed(&b, 3);
    rng_normal(&a, normal, 37);
    rng_uniform(&b, uniform, 37);
    rng_uniform(&b, again, 16);
    assert_block(normal, uniform);
    assert_block(normal + 21, again);
    assert_memory_equal(&a, &b, sizeof a);
}

/* The extremes of a uniform draw give finite numbers. */
static void test_wide_extremes(void **state)
{
    (void)state;
    struct rng rng;
    float normal[16];
    uint32_t word = 0;
    for (int i = 0; i < 2; i++, word = ~word) {
        rng_seed(&rng, 0);
        rng.left = 624;
        rng.next = 1;
        for (int k = 0; k < 624; k++)
            rng.state[k] = word; /* tempering keeps 0 and, nearly, all ones */
        rng_normal(&rng, normal, 16);
        for (int k = 0; k < 16; k++)
            assert_true(isfinite(normal[k]));
    }
}

static void test_scalar_pairs(void **state)
{
    (void)state;
    struct rng rng, twin;
    float three[3], first, pair[2];
    rng_seed(&rng, 9);
    rng_seed(&twin, 9);
    rng_normal(&rng, three, 3);
    assert_true(rng.has_normal);
    rng_normal(&twin, &first, 1);
    assert_true(twin.has_normal);
    rng_normal(&twin, pair, 2);
    assert_true(first == three[0] && pair[0] == three[1] && pair[1] == three[2]);
    rng_seed(&rng, 9);
    assert_false(rng.has_normal);
}

static void test_stored_and_parsed(void **state)
{
    (void)state;
    struct rng rng, copy;
    struct err err;
    uint8_t bytes[RNG_BYTES], again[RNG_BYTES];
    float a[700], b[700];
    rng_seed(&rng, 123);
    for (size_t count = 0; count < 700; count += 37) {
        rng_store(&rng, bytes);
        memset(&copy, 0xff, sizeof copy);
        assert_int_equal(rng_parse(&copy, bytes, sizeof bytes, &err), 0);
        rng_store(&copy, again);
        assert_memory_equal(bytes, again, sizeof bytes);
        rng_normal(&rng, a, 3 + count);
        rng_normal(&copy, b, 3 + count);
        assert_memory_equal(a, b, (3 + count) * sizeof *a);
    }
}

static void test_stored_is_little_endian(void **state)
{
    (void)state;
    struct rng rng;
    uint8_t bytes[RNG_BYTES];
    rng_seed(&rng, 0x01020304);
    rng_store(&rng, bytes);
    assert_memory_equal(bytes, "\x04\x03\x02\x01", 4);
    assert_memory_equal(bytes + STORED_LEFT, "\1\0\0\0\0\0\0\0", 8);
}

static void refuse(const uint8_t *valid, size_t at, uint8_t value, const char *word)
{
    uint8_t bytes[RNG_BYTES];
    struct rng rng;
    struct err err;
    memcpy(bytes, valid, sizeof bytes);
    bytes[at] = value;
    assert_int_equal(rng_parse(&rng, bytes, sizeof bytes, &err), -ERR_INVALID_RECORD);
    assert_non_null(strstr(err.text, word));
}

static void test_parse_refuses(void **state)
{
    (void)state;
    struct rng rng;
    struct err err;
    uint8_t bytes[RNG_BYTES];
    rng_seed(&rng, 0);
    rng_random(&rng);
    rng_store(&rng, bytes);
    assert_int_equal(rng_parse(&rng, bytes, RNG_BYTES - 1, &err), -ERR_INVALID_RECORD);
    assert_int_equal(rng_parse(&rng, bytes, 0, &err), -ERR_INVALID_RECORD);
    refuse(bytes, STORED_LEFT, 0, "position");
    refuse(bytes, STORED_LEFT + 3, 0x80, "position");
    refuse(bytes, STORED_NEXT, 7, "position");
    refuse(bytes, STORED_NEXT + 2, 1, "position");
    refuse(bytes, STORED_HAS_NORMAL, 2, "normal");
    refuse(bytes, STORED_NORMAL, 1, "normal"); /* kept, but has_normal is 0 */
    bytes[STORED_HAS_NORMAL] = 1;
    bytes[STORED_NORMAL + 6] = 0xf0; /* an infinity */
    refuse(bytes, STORED_NORMAL + 7, 0x7f, "normal");
}

/* Whatever a hostile record says, what is accepted draws in bounds. */
static void test_parse_mutations(void **state)
{
    (void)state;
    struct rng source, rng;
    struct err err;
    uint8_t bytes[RNG_BYTES];
    float out[40];
    rng_seed(&source, 77);
    for (int i = 0; i < 20000; i++) {
        rng_store(&source, bytes);
        for (uint32_t k = rng_random(&source) % 4; k < 4; k++) {
            uint32_t at = rng_random(&source);
            at = at & 1 ? STORED_LEFT + (at >> 1) % 20 : (at >> 1) % RNG_BYTES;
            bytes[at] = (uint8_t)rng_random(&source);
        }
        if (rng_parse(&rng, bytes, sizeof bytes, &err) == 0)
            rng_normal(&rng, out, 40);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_words),
        cmocka_unit_test(test_seed_has_32_bits),
        cmocka_unit_test(test_forks),
        cmocka_unit_test(test_uniform_in_runs),
        cmocka_unit_test(test_wide_normals),
        cmocka_unit_test(test_wide_rest),
        cmocka_unit_test(test_wide_extremes),
        cmocka_unit_test(test_scalar_pairs),
        cmocka_unit_test(test_stored_and_parsed),
        cmocka_unit_test(test_stored_is_little_endian),
        cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_parse_mutations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
