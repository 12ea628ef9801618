/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer on a vocabulary made here: framing, special tokens by declaration, what the files
 * may say, hostile texts, and damaged files. Equality with the reference: tests/golden.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "stages/rng.h"
#include "stages/tokenizer.h"

#define LENGTH      8    /* model_max_length of `config` */
#define LONGEST     4096 /* the most that a configuration may ask for */
#define CPU_SECONDS 30   /* far over what linear time needs under a sanitizer */

/* Ids: letters a-d 0-3, with </w> 4-7, then these, and the special tokens. */
enum { AB = 8, AB_END, ABC_END, BC, BC_END, BANG_END, BEGIN, END };

static const char *const vocab =
    "{\"a\": 0, \"b\": 1, \"c\": 2, \"d\": 3, \"a</w>\": 4, \"b</w>\": 5, \"c</w>\": 6, "
    "\"d</w>\": 7, \"ab\": 8, \"ab</w>\": 9, \"abc</w>\": 10, \"bc\": 11, \"bc</w>\": 12, "
    "\"!</w>\": 13, \"<|startoftext|>\": 14, \"<|endoftext|>\": 15}";
static const char *const merges = "#version: 0.2\na b\na b</w>\nb c</w>\nab c</w>\nb c\n";
static const char *const config = "{\"model_max_length\": 8}";

static char folder[] = "/tmp/unclip-tokenizer-XXXXXX";
static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json",
                                    "special_tokens_map.json"};

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static void remove_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path);
}

static int remove_folder(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        remove_file(names[i]);
    return rmdir(folder);
}

static void write_bytes(const char *name, const char *bytes, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

/* The valid files, but for one. */
static void write_all_but(const char *name, const char *text)
{
    write_text("vocab.json", vocab);
    write_text("merges.txt", merges);
    write_text("tokenizer_config.json", config);
    remove_file("special_tokens_map.json");
    if (name)
        write_text(name, text);
}

static struct tokenizer *load(void)
{
    struct tokenizer *tokenizer;
    struct err err;
    if (tokenizer_load(&tokenizer, folder, &err) != 0)
        fail_msg("%s", err.text);
    return tokenizer;
}

static struct tokenizer *load_with(const char *name, const char *text)
{
    write_all_but(name, text);
    return load();
}

/* `want` has the tokens between begin and end; -1 ends it. */
static void assert_tokens(const struct tokenizer *tokenizer, const char *text, const int *want)
{
    int32_t ids[LENGTH];
    uint8_t mask[LENGTH];
    int dropped = -1, count = 0;
    struct err err;
    assert_int_equal(tokenizer_encode(tokenizer, text, strlen(text), 0, ids, mask, &dropped, &err),
                     0);
    while (want[count] >= 0)
        count++;
    int kept = count < LENGTH - 2 ? count : LENGTH - 2;
    bool same = ids[0] == BEGIN && ids[kept + 1] == END && dropped == count - kept;
    for (int i = 0; i < kept; i++)
        same = same && ids[i + 1] == want[i];
    for (int i = 0; i < LENGTH; i++)
        same = same && mask[i] == (i < kept + 2) && (mask[i] || ids[i] == END);
    if (same)
        return;
    for (int i = 0; i < LENGTH; i++)
        print_error("%d%s", ids[i], mask[i] ? " " : "_ ");
    fail_msg("'%s': wrong tokens, %d dropped", text, dropped);
}
#define ASSERT_TOKENS(tokenizer, text, ...)                                                        \
    assert_tokens((tokenizer), (text), (int[]){__VA_ARGS__, -1})

static void test_words(void **state)
{
    (void)state;
    struct tokenizer *t = load_with(NULL, NULL);
    assert_int_equal(tokenizer_max_length(t), LENGTH);
    ASSERT_TOKENS(t, "", -1);
    ASSERT_TOKENS(t, " \t\n", -1);
    ASSERT_TOKENS(t, "a", 4);
    ASSERT_TOKENS(t, "ab", AB_END);
    ASSERT_TOKENS(t, "ABC", ABC_END);
    ASSERT_TOKENS(t, "abab abc", AB, AB_END, ABC_END);
    ASSERT_TOKENS(t, "bcbcd", BC, BC, 7);
    ASSERT_TOKENS(t, "ab!a", AB_END, BANG_END, 4);
    ASSERT_TOKENS(t, "a'd", 4, END, 7); /* "'d": the apostrophe is in no vocabulary */
    ASSERT_TOKENS(t, "é", END, END);    /* a byte that is not known is one unknown token */
    ASSERT_TOKENS(t, "aé", 0, END, END);
    tokenizer_free(t);
}

static void test_truncation(void **state)
{
    (void)state;
    struct tokenizer *t = load_with(NULL, NULL);
    ASSERT_TOKENS(t, "a b c d a b", 4, 5, 6, 7, 4, 5);
    ASSERT_TOKENS(t, "a b c d a b c", 4, 5, 6, 7, 4, 5, 6);
    ASSERT_TOKENS(t, "a b c d a b c !!", 4, 5, 6, 7, 4, 5, 6, END, BANG_END);
    tokenizer_free(t);
}

static void test_special_tokens_by_default(void **state)
{
    (void)state;
    struct tokenizer *t = load_with(NULL, NULL);
    ASSERT_TOKENS(t, "<|endoftext|>", END);
    ASSERT_TOKENS(t, "a<|ENDOFTEXT|>b", 4, END, 5);
    ASSERT_TOKENS(t, "<|startoftext|><|startoftext|>", BEGIN, BEGIN);
    tokenizer_free(t);
}

#define DECLARED(content, more) "{\"content\": \"" content "\"" more "}"
#define UNCHANGED               ", \"normalized\": false"

/* Each way to declare that the end token is looked for in the raw text. */
static void test_special_tokens_in_raw_text(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        {"tokenizer_config.json",
         "{\"model_max_length\": 8, \"eos_token\": " DECLARED("<|endoftext|>", UNCHANGED) "}"},
        {"tokenizer_config.json",
         "{\"model_max_length\": 8, \"eos_token\": \"<|endoftext|>\", \"added_tokens_decoder\": "
         "{\"15\": " DECLARED("<|endoftext|>", ", \"special\": true") "}}"},
        {"special_tokens_map.json", "{\"eos_token\": " DECLARED("<|endoftext|>", UNCHANGED) "}"},
        {"special_tokens_map.json", "{\"eos_token\": " DECLARED("<|endoftext|>", "") "}"},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct tokenizer *t = load_with(files[i][0], files[i][1]);
        ASSERT_TOKENS(t, "a<|endoftext|>", 4, END);
        ASSERT_TOKENS(t, "d<|ENDOFTEXT|>", 7, END, END, END, END, 3, END, END, END, END, END, END,
                      END, END);
        ASSERT_TOKENS(t, "a<|STARTOFTEXT|>", 4, BEGIN);
        tokenizer_free(t);
    }
}

/* Where tokens are declared by id, special_tokens_map.json is not read. */
static void test_declared_tokens_come_first(void **state)
{
    (void)state;
    write_all_but("special_tokens_map.json", "{\"pad_token\": \"a\"}");
    write_text("tokenizer_config.json",
               "{\"model_max_length\": 8, \"added_tokens_decoder\": {\"9\": " DECLARED(
                   "ab</w>", UNCHANGED) ", \"12\": " DECLARED("bc</w>", "") "}}");
    struct tokenizer *t = load();
    ASSERT_TOKENS(t, "c ab</w>bc</w>", 6, AB_END, BC_END);
    ASSERT_TOKENS(t, "BC</W>", BC_END);
    tokenizer_free(t);
}

static void test_padding_of_its_own(void **state)
{
    (void)state;
    struct tokenizer *t = load_with("special_tokens_map.json", "{\"pad_token\": \"d\"}");
    int32_t ids[LENGTH];
    uint8_t mask[LENGTH];
    int dropped;
    struct err err;
    assert_int_equal(tokenizer_encode(t, "ad", 2, 0, ids, mask, &dropped, &err), 0);
    static const int32_t want[LENGTH] = {BEGIN, 4, 3, END, 3, 3, 3, 3};
    assert_memory_equal(ids, want, sizeof want);
    assert_memory_equal(mask, "\1\1\1\1\0\0\0\0", LENGTH);
    tokenizer_free(t);
}

static void test_merges_files(void **state)
{
    (void)state;
    static const char *const same[] = {
        "#version: 0.2\r\na b\r\na b</w>\r\nb c</w>\r\nab c</w>\r\nb c\r\n",
        "\n\n#version: 0.2\na b\na b</w>\nb c</w>\nab c</w>\nb c",
        "#version: 0.2\n  a   b \n\na\tb</w>\nb c</w>\nab c</w>\na b\nb c\n\n\n",
        "anything\na b\na b</w>\nb c</w>\nab c</w>\nb c\nb c\n",
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct tokenizer *t = load_with("merges.txt", same[i]);
        ASSERT_TOKENS(t, "abc bcb ab", ABC_END, BC, 5, AB_END);
        tokenizer_free(t);
    }
    struct tokenizer *none = load_with("merges.txt", "#version: 0.2\n");
    ASSERT_TOKENS(none, "abc", 0, 1, 6);
    tokenizer_free(none);
}

/* As CLIPTokenizer: the lines past 48,894 merges are not even looked at. */
static void test_merges_limit(void **state)
{
    (void)state;
    for (int extra = 0; extra < 2; extra++) {
        size_t lines = 49152 - 256 - 2 - (size_t)extra, at = 2;
        char *text = malloc(4 * lines + 32);
        memcpy(text, "#\n", 2);
        for (size_t i = 0; i < lines; i++, at += 4)
            memcpy(text + at, "a b\n", 4);
        strcpy(text + at, "this is no merge\n");
        write_all_but("merges.txt", text);
        free(text);
        struct tokenizer *t = NULL;
        struct err err;
        assert_int_equal(tokenizer_load(&t, folder, &err), extra ? -ERR_INVALID_MODEL : 0);
        tokenizer_free(t);
    }
}

struct refusal {
    const char *file, *text;
    enum err_code code;
    const char *word;
};

static void test_refusals(void **state)
{
    (void)state;
    static const char *const map = "special_tokens_map.json", *const cfg = "tokenizer_config.json";
    const struct refusal refusals[] = {
        {"vocab.json", "", ERR_INVALID_MODEL, "vocab.json"},
        {"vocab.json", "[]", ERR_INVALID_MODEL, "vocab.json"},
        {"vocab.json", "{\"a\": -1}", ERR_INVALID_MODEL, "'a'"},
        {"vocab.json", "{\"a\": 1000000}", ERR_INVALID_MODEL, "'a'"},
        {"vocab.json", "{\"a\": \"1\"}", ERR_INVALID_MODEL, "'a'"},
        {"vocab.json", "{\"a\": 1}", ERR_INVALID_MODEL, "<|startoftext|>"},
        {"merges.txt", "", ERR_INVALID_MODEL, "empty"},
        {"merges.txt", "#\na\n", ERR_INVALID_MODEL, "line 2"},
        {"merges.txt", "#\na b\na b c\n", ERR_INVALID_MODEL, "line 3"},
        {"merges.txt", "#\na z\n", ERR_INVALID_MODEL, "vocab.json: 'a z'"},
        {"merges.txt", "#\na d\n", ERR_INVALID_MODEL, "line 2"},
        {cfg, "{}", ERR_INVALID_MODEL, "model_max_length"},
        {cfg, "{\"model_max_length\": 2}", ERR_INVALID_MODEL, "model_max_length"},
        {cfg, "{\"model_max_length\": 4097}", ERR_INVALID_MODEL, "model_max_length"},
        {cfg, "{\"model_max_length\": 8, \"bos_token\": 3}", ERR_INVALID_MODEL, "bos_token"},
        {cfg, "{\"model_max_length\": 8, \"bos_token\": \"\"}", ERR_INVALID_MODEL, "empty"},
        {cfg, "{\"model_max_length\": 8, \"bos_token\": \"none\"}", ERR_INVALID_MODEL, "'none'"},
        {cfg, "{\"model_max_length\": 8, \"additional_special_tokens\": [\"a\"]}", ERR_UNSUPPORTED,
         "additional_special_tokens"},
        {cfg, "{\"model_max_length\": 8, \"added_tokens_decoder\": {\"3\": {\"content\": \"a\"}}}",
         ERR_INVALID_MODEL, "'a'"},
        {cfg, "{\"model_max_length\": 8, \"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}",
         ERR_INVALID_MODEL, "'x'"},
        {cfg, "{\"model_max_length\": 8, \"added_tokens_decoder\": []}", ERR_INVALID_MODEL,
         "added_tokens_decoder"},
        {map, "{\"eos_token\": {\"content\": \"a\", \"single_word\": true}}", ERR_UNSUPPORTED,
         "single_word"},
        {map, "{\"eos_token\": {}}", 0, NULL},
        {map, "3", ERR_INVALID_MODEL, "special_tokens_map.json"},
    };
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *r = &refusals[i];
        struct tokenizer *t = NULL;
        struct err err;
        write_all_but(r->file, r->text);
        int result = tokenizer_load(&t, folder, &err);
        if (result != -(int)r->code || (result && !strstr(err.text, r->word)))
            fail_msg("%s: %s gives %d: %s", r->file, r->text, result, result ? err.text : "");
        tokenizer_free(t);
    }
}

static void test_missing_files(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct tokenizer *t;
        struct err err;
        write_all_but(NULL, NULL);
        remove_file(names[i]);
        assert_int_equal(tokenizer_load(&t, folder, &err), -ERR_IO);
        assert_non_null(strstr(err.text, names[i]));
    }
}

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A megabyte of each: a long word, a long run of merges, of marks, of broken bytes, of tokens… */
static void test_hostile_texts(void **state)
{
    (void)state;
    static const char *const repeated[] = {
        "a",
        "ab",
        "abc",
        "dcba",
        "\xff",
        "e\xcc\x81",
        "\xcc\xa3\xcc\x81",
        " ",
        "1",
        "!",
        "'s",
        "<|",
        "a ",
        "<|endoftext|>",
        "\xc4\xb0",
        "\xed\x95\x9c",
        "\xe1\x84\x92\xe1\x85\xa1",
        "\0a",
    };
    enum { SIZE = 1 << 20 };
    struct tokenizer *t = load_with(NULL, NULL);
    char *text = malloc(SIZE);
    int32_t ids[LENGTH];
    uint8_t mask[LENGTH];
    int dropped;
    struct err err;
    for (size_t k = 0; k < sizeof repeated / sizeof *repeated; k++) {
        size_t length = strlen(repeated[k]) + (repeated[k][0] == 0 ? 2 : 0);
        for (size_t i = 0; i < SIZE; i++)
            text[i] = repeated[k][i % length];
        double start = cpu_seconds();
        assert_int_equal(tokenizer_encode(t, text, SIZE, 0, ids, mask, &dropped, &err), 0);
        assert_true(cpu_seconds() - start < CPU_SECONDS);
        assert_true(repeated[k][0] == ' ' ? dropped == 0 : dropped > 1000);
    }
    free(text);
    assert_int_equal(tokenizer_encode(t, "", TOKENIZER_TEXT_MAX + 1, 0, ids, mask, &dropped, &err),
                     -ERR_TOO_LARGE);
    tokenizer_free(t);
}

static void *encode_often(void *context)
{
    const struct tokenizer *t = context;
    for (int i = 0; i < 2000; i++)
        ASSERT_TOKENS(t,
                      "abc b\xc3\xa9"
                      "c ab",
                      ABC_END, 1, END, END, 6, AB_END);
    return NULL;
}

static void test_shared_by_threads(void **state)
{
    (void)state;
    struct tokenizer *t = load_with(NULL, NULL);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, encode_often, t), 0);
    encode_often(t);
    pthread_join(thread, NULL);
    tokenizer_free(t);
}

/* One to four bytes overwritten, cut out or doubled. Returns the new size; text has room. */
static size_t mutate(struct rng *rng, char *text, size_t size)
{
    static const char tempting[] = "{}[]\":, \n\r\t\\0129-<|>/aw\x80\xff";
    for (uint32_t n = 1 + rng_random(rng) % 4; n > 0; n--) {
        size_t at = rng_random(rng) % size, run = 1 + rng_random(rng) % 8;
        run = run < size - at ? run : size - at;
        uint32_t kind = rng_random(rng) % 4;
        if (kind == 0 && size > run) {
            memmove(text + at, text + at + run, size - at - run);
            size -= run;
        } else if (kind == 1) {
            memmove(text + at + run, text + at, size - at);
            size += run;
        } else {
            text[at] = tempting[rng_random(rng) % (sizeof tempting - 1)];
        }
    }
    return size;
}

static const char *const declaring_config =
    "{\"model_max_length\": 8, \"bos_token\": \"<|startoftext|>\", \"added_tokens_decoder\": "
    "{\"14\": {\"content\": \"<|startoftext|>\", \"normalized\": true, \"special\": true}, "
    "\"15\": {\"content\": \"<|endoftext|>\", \"normalized\": false}}}";

static void encode_mixture(const struct tokenizer *tokenizer)
{
    static const char text[] = "abc bcd! \xff<|endoftext|>a<|STARTOFTEXT|>\xc3\xa9'd";
    int32_t ids[LONGEST];
    uint8_t mask[LONGEST];
    int dropped, length = tokenizer_max_length(tokenizer);
    struct err err;
    assert_true(length <= LONGEST);
    assert_int_equal(
        tokenizer_encode(tokenizer, text, sizeof text - 1, 0, ids, mask, &dropped, &err), 0);
    for (int i = 0; i < length; i++)
        assert_in_range(ids[i], 0, TOKENIZER_VOCAB_MAX - 1);
}

/* A damaged file is refused with a reason or loads into something that encodes. */
static void test_damaged_files(void **state)
{
    (void)state;
    const char *const whole[] = {vocab, merges, declaring_config,
                                 "{\"eos_token\": {\"content\": \"<|endoftext|>\"}}"};
    struct rng rng;
    int loaded = 0, refused = 0;
    rng_seed(&rng, 2024);
    for (int i = 0; i < 2000; i++) {
        char text[1024];
        struct tokenizer *t = NULL;
        struct err err = {0};
        int which = i % 4;
        size_t size = strlen(whole[which]);
        memcpy(text, whole[which], size);
        write_all_but(NULL, NULL);
        if (i % 8 >= 4 && which < 2)
            write_text("tokenizer_config.json", declaring_config);
        write_bytes(names[which], text, mutate(&rng, text, size));
        if (tokenizer_load(&t, folder, &err) == 0) {
            encode_mixture(t);
            loaded++;
        } else {
            assert_true(err.text[0] != 0);
            refused++;
        }
        tokenizer_free(t);
    }
    print_message("%d loaded, %d refused\n", loaded, refused);
    assert_true(loaded > 100 && refused > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_special_tokens_by_default),
        cmocka_unit_test(test_special_tokens_in_raw_text),
        cmocka_unit_test(test_declared_tokens_come_first),
        cmocka_unit_test(test_padding_of_its_own),
        cmocka_unit_test(test_merges_files),
        cmocka_unit_test(test_merges_limit),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_hostile_texts),
        cmocka_unit_test(test_shared_by_threads),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
