/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stages/tokenizer.c against CLIPTokenizerFast: every line of data/tokenizer-*.tsv (README.md,
 * "Tokens"). Prints every line that differs before it fails.
 */
#include "golden.h"

#include "stages/tokenizer.h"

#define LINE_MAX_BYTES (1 << 20)
#define LINES          949

/* Hexadecimal to bytes in place of an exact size, so that a sanitizer sees a read past the end. */
static char *parse_hex(const char *hex, size_t *size)
{
    *size = strlen(hex) / 2;
    char *bytes = malloc(*size ? *size : 1);
    for (size_t i = 0; i < *size; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        bytes[i] = (char)byte;
    }
    return bytes;
}

static void append_ids(char *out, const int32_t *ids, const uint8_t *mask, int length)
{
    *out = 0;
    for (int i = 0; i < length && mask[i]; i++)
        out += sprintf(out, i ? " %d" : "%d", ids[i]);
}

/* Padding comes last, and nothing but padding is masked. */
static void assert_padding(const int32_t *ids, const uint8_t *mask, int length, int32_t padding)
{
    for (int i = 1; i < length; i++) {
        assert_true(mask[i] <= mask[i - 1]);
        if (!mask[i])
            assert_int_equal(ids[i], padding);
    }
}

static bool check_line(const struct tokenizer *tokenizer, char *line)
{
    int length = tokenizer_max_length(tokenizer), dropped;
    int32_t ids[128];
    uint8_t mask[128];
    char got[2048];
    struct err err;
    size_t size;
    char *category = strsep(&line, "\t"), *hex = strsep(&line, "\t"), *want = strsep(&line, "\t");
    assert_non_null(want);
    char *text = parse_hex(hex, &size);
    assert_int_equal(tokenizer_encode(tokenizer, text, size, 0, ids, mask, &dropped, &err), 0);
    free(text);
    append_ids(got, ids, mask, length);
    /* the end token is the padding of both vocabularies, and ends every line */
    assert_padding(ids, mask, length, atoi(strrchr(want, ' ') + 1));
    if (strcmp(got, want) == 0)
        return true;
    print_error("%s %s\n  want %s\n  got  %s\n", category, hex, want, got);
    return false;
}

static void check_vocabulary(const char *folder, const char *table)
{
    char path[512], *line = malloc(LINE_MAX_BYTES);
    struct tokenizer *tokenizer;
    struct err err;
    int lines = 0, equal = 0, length = 0;
    if (tokenizer_load(&tokenizer, folder, &err) != 0)
        fail_msg("%s", err.text);
    snprintf(path, sizeof path, "%s/data/%s", GOLDEN_DIR, table);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "# model_max_length %d\n", &length), 1);
    assert_int_equal(length, tokenizer_max_length(tokenizer));
    while (fgets(line, LINE_MAX_BYTES, file)) {
        line[strcspn(line, "\n")] = 0;
        equal += check_line(tokenizer, line);
        lines++;
    }
    print_message("%s: %d of %d equal\n", table, equal, lines);
    assert_int_equal(lines, LINES);
    assert_int_equal(equal, lines);
    fclose(file);
    free(line);
    tokenizer_free(tokenizer);
}

static void test_emoji(void **state)
{
    (void)state;
    check_vocabulary(MODELS_DIR "/emoji/tokenizer", "tokenizer-emoji.tsv");
}

static void test_mini(void **state)
{
    (void)state;
    check_vocabulary(GOLDEN_DIR "/models/mini/tokenizer", "tokenizer-mini.tsv");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_emoji),
        cmocka_unit_test(test_mini),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
