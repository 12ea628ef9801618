/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding with a heap against its naive twin, on random merges of three letters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stages/rng.h"
#include "stages/tokenizer_bpe.h"

#define TOKENS_MAX 64
#define TEXT_MAX   14 /* bytes of a token */
#define WORD       200
#define UNKNOWN    63

/* Tokens 0-2 are a, b, c, 3-5 the same with </w>; token 6 + k is what merge k makes. */
struct merges {
    char token[TOKENS_MAX][2 * TEXT_MAX];
    int left[TOKENS_MAX], right[TOKENS_MAX];
    int rank[TOKENS_MAX]; /* a random order: a merge may come before those that make its parts */
    int count;
};

static bool known(const struct merges *merges, const char *token)
{
    for (int i = 0; i < 6 + merges->count; i++)
        if (strcmp(merges->token[i], token) == 0)
            return true;
    return false;
}

static void make_merges(struct merges *merges, struct rng *rng, int count)
{
    *merges = (struct merges){.token = {"a", "b", "c", "a</w>", "b</w>", "c</w>"}};
    for (int tries = 0; merges->count < count && tries < 1000; tries++) {
        int left = (int)(rng_random(rng) % (uint32_t)(6 + merges->count));
        int right = (int)(rng_random(rng) % (uint32_t)(6 + merges->count));
        const char *a = merges->token[left], *b = merges->token[right];
        char joined[2 * TEXT_MAX];
        if (strchr(a, '<') || strlen(a) >= TEXT_MAX || strlen(b) >= TEXT_MAX ||
            strlen(a) + strlen(b) > TEXT_MAX)
            continue;
        snprintf(joined, sizeof joined, "%.14s%.13s", a, b);
        if (known(merges, joined))
            continue;
        int k = merges->count++;
        memcpy(merges->token[6 + k], joined, sizeof joined);
        merges->left[k] = left;
        merges->right[k] = right;
    }
    for (int k = 0; k < merges->count; k++) { /* Fisher and Yates, from the inside out */
        int j = (int)(rng_random(rng) % (uint32_t)(k + 1));
        merges->rank[k] = merges->rank[j];
        merges->rank[j] = k;
    }
}

static void write_merges(const struct merges *merges, const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "#version: 0.2\n");
    for (int rank = 0; rank < merges->count; rank++)
        for (int k = 0; k < merges->count; k++)
            if (merges->rank[k] == rank)
                fprintf(file, "%s %s\n", merges->token[merges->left[k]],
                        merges->token[merges->right[k]]);
    fclose(file);
}

static struct bpe *load(const struct merges *merges)
{
    char path[] = "/tmp/unclip-merges-XXXXXX";
    int fd = mkstemp(path);
    struct bpe *bpe;
    struct err err;
    assert_true(fd >= 0);
    close(fd);
    write_merges(merges, path);
    json_t *vocab = json_object();
    for (int i = 0; i < 6 + merges->count; i++)
        json_object_set_new(vocab, merges->token[i], json_integer(i));
    int result = bpe_load(&bpe, vocab, UNKNOWN, path, &err);
    json_decref(vocab);
    unlink(path);
    if (result != 0)
        fail_msg("%s", err.text);
    return bpe;
}

/* The merge of two neighbours, or -1. */
static int merge_of(const struct merges *merges, int left, int right)
{
    for (int k = 0; k < merges->count; k++)
        if (merges->left[k] == left && merges->right[k] == right)
            return k;
    return -1;
}

/* The naive twin: looks for the best pair, merges it, and begins again. */
static size_t encode_naive(const struct merges *merges, const char *word, size_t size, int32_t *ids)
{
    for (size_t i = 0; i < size; i++)
        ids[i] = word[i] < 'd' ? word[i] - 'a' + (i + 1 == size ? 3 : 0) : UNKNOWN;
    for (;;) {
        int best = -1;
        size_t at = 0;
        for (size_t i = 0; i + 1 < size; i++) {
            int k = merge_of(merges, ids[i], ids[i + 1]);
            if (k >= 0 && (best < 0 || merges->rank[k] < merges->rank[best])) {
                best = k;
                at = i;
            }
        }
        if (best < 0)
            return size;
        ids[at] = 6 + best;
        memmove(ids + at + 1, ids + at + 2, (size - at - 2) * sizeof *ids);
        size--;
    }
}

static void check_word(const struct bpe *bpe, const struct merges *merges, struct rng *rng,
                       struct bpe_scratch *scratch)
{
    char word[WORD];
    int32_t want[WORD], got[WORD];
    struct token_sink sink = {.ids = got, .room = WORD};
    struct err err;
    size_t size = 1 + rng_random(rng) % WORD;
    uint32_t letters = rng_random(rng) % 8 == 0 ? 4 : 1 + rng_random(rng) % 3;
    for (size_t i = 0; i < size; i++)
        word[i] = (char)('a' + rng_random(rng) % letters);
    size_t count = encode_naive(merges, word, size, want);
    assert_int_equal(bpe_encode(bpe, word, size, scratch, &sink, &err), 0);
    if (sink.count != count || memcmp(want, got, count * sizeof *want) != 0)
        fail_msg("'%.*s' gives other tokens than its naive twin", (int)size, word);
}

static void test_naive(void **state)
{
    (void)state;
    struct rng rng;
    struct merges merges;
    struct bpe_scratch scratch = {0};
    rng_seed(&rng, 11);
    for (int i = 0; i < 60; i++) {
        make_merges(&merges, &rng, (int)(rng_random(&rng) % 50));
        struct bpe *bpe = load(&merges);
        for (int k = 0; k < 50; k++)
            check_word(bpe, &merges, &rng, &scratch);
        bpe_free(bpe);
    }
    bpe_scratch_release(&scratch);
}

static void test_sink_counts_past_its_room(void **state)
{
    (void)state;
    int32_t ids[3] = {-1, -1, -1};
    struct token_sink sink = {.ids = ids, .room = 2};
    for (int i = 0; i < 5; i++)
        token_sink_put(&sink, i);
    assert_int_equal(sink.count, 5);
    assert_true(ids[0] == 0 && ids[1] == 1 && ids[2] == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naive),
        cmocka_unit_test(test_sink_counts_past_its_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
