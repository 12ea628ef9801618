/* SPDX-License-Identifier: Apache-2.0 */
/* The deny-list: what it finds however it is written, what it leaves alone, files that are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/memory.h"
#include "coordinator/deny.h"

static char path[] = "/tmp/unclip-deny-XXXXXX";

static int make_file(void **state)
{
    int fd = mkstemp(path);
    (void)state;
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_bytes(const char *bytes, size_t size)
{
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size, out), size);
    assert_int_equal(fclose(out), 0);
}

static struct deny *open_list(const char *text)
{
    struct deny *deny = NULL;
    struct err err = {0};
    write_bytes(text, strlen(text));
    if (deny_open(&deny, path, &err))
        fail_msg("%s", err.text);
    return deny;
}

static void assert_all(const struct deny *deny, enum deny_match expected, const char *const *texts)
{
    for (; *texts; texts++)
        if (deny_check(deny, *texts) != expected)
            fail_msg("'%s' is judged otherwise", *texts);
}

static void test_words(void **state)
{
    static const char *const found[] = {"gun",
                                        "a gun",
                                        "GUN!",
                                        "a \"Gun\" on the table",
                                        "gun-shop",
                                        "gun\nfire",
                                        "ｇｕｎ",
                                        "g\u00ADun",   /* a soft hyphen, which nobody sees */
                                        "g\u200Bun",   /* a space of no width */
                                        "die STRASSE", /* straße folds to strasse */
                                        "cafe\u0301",  /* é in two characters */
                                        "blood   and GORE",
                                        "so much blood, and gore",
                                        "bloody gun",
                                        "blood gun",
                                        NULL};
    static const char *const fine[] = {"",          "gunnera",         "begun", "guns",
                                       "g u n",     "a red heart",     "blood", "gore and blood",
                                       "blood and", "blood and gored", "caf",   "___",
                                       "…",         "blood and gun2",  NULL};
    struct deny *deny =
        open_list("# words\n  gun \r\n\nSTRAßE\nCafé\nblood and gore\nblood and glory\n#gunnera\n");
    (void)state;
    assert_all(deny, DENY_MATCHES, found);
    assert_all(deny, DENY_NOTHING, fine);
    deny_free(deny);
}

static void test_many_words(void **state)
{
    char *text = xstrdup("");
    (void)state;
    for (int i = 0; i < 400; i++) {
        char *longer = xasprintf("%sword%d of many\nword%d\n", text, i * 7 % 400, 1000 + i);
        free(text);
        text = longer;
    }
    struct deny *deny = open_list(text);
    for (int i = 0; i < 400; i++) {
        char *phrase = xasprintf("a word%d of many, perhaps", i), *word = xasprintf("word%d", i);
        char *single = xasprintf("the word%d!", 1000 + i);
        assert_int_equal(deny_check(deny, phrase), DENY_MATCHES);
        assert_int_equal(deny_check(deny, single), DENY_MATCHES);
        assert_int_equal(deny_check(deny, word), DENY_NOTHING);
        free(phrase);
        free(word);
        free(single);
    }
    deny_free(deny);
    free(text);
}

static void test_patterns(void **state)
{
    static const char *const found[] = {"k1ll",      "KILL them", "overkill", "ＫＩＬＬ",
                                        "a 銃 here", "nude 1",    NULL};
    static const char *const fine[] = {"klll", "a nude 1", "nude x", "", NULL};
    struct deny *deny = open_list("/k[i1]ll/\n/銃/\n/^nude \\d$/\n");
    (void)state;
    assert_all(deny, DENY_MATCHES, found);
    assert_all(deny, DENY_NOTHING, fine);
    deny_free(deny);
}

/* A text that makes a pattern run away is not let through unseen, and takes no longer for it. */
static void test_limits(void **state)
{
    char text[2001];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    struct deny *deny = open_list("/(a+)+$x/\n/(a|aa)+\\d/\n");
    (void)state;
    assert_int_equal(deny_check(deny, text), DENY_UNCHECKED);
    assert_int_equal(deny_check(deny, "b"), DENY_NOTHING);
    deny_free(deny);
    deny = open_list("/(a|aa)+\\d/\naaaa\n/b/\n");
    text[100] = 'b'; /* what is found counts more than what is not known */
    assert_int_equal(deny_check(deny, text), DENY_MATCHES);
    assert_int_equal(deny_check(deny, "\xff\xfe"), DENY_UNCHECKED);
    deny_free(deny);
}

static void assert_refused(const char *bytes, size_t size, const char *reason)
{
    struct deny *deny = NULL;
    struct err err = {0};
    write_bytes(bytes, size);
    assert_int_equal(deny_open(&deny, path, &err), -ERR_INVALID_ARGUMENT);
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
    assert_null(deny);
}
#define assert_text_refused(text, reason) assert_refused(text, strlen(text), reason)

/* `copies` of a line. Owned. */
static char *repeat(const char *line, size_t copies)
{
    size_t length = strlen(line);
    char *text = xmalloc(copies * length + 1);
    for (size_t i = 0; i < copies; i++)
        memcpy(text + i * length, line, length);
    text[copies * length] = '\0';
    return text;
}

static void test_files(void **state)
{
    struct deny *deny = NULL;
    struct err err = {0};
    (void)state;
    assert_text_refused("", "no entry");
    assert_text_refused("# nothing\n\n", "no entry");
    assert_text_refused("gun\n...\n", ":2: there is no word");
    assert_text_refused("/gun\n", "like this");
    assert_text_refused("//\n", "like this");
    assert_text_refused("gun\n\n/(gun/\n", ":3: the pattern fails at character 5");
    assert_text_refused("/\\C/\n", "the pattern fails");
    assert_refused("gun\xff\n", 5, "not UTF-8");
    assert_refused("gun\0man\n", 8, "not UTF-8");
    char *text = repeat("gun\n", DENY_WORDS_MAX + 1);
    assert_text_refused(text, "more than 20000 entries of words");
    free(text);
    text = repeat("/gun/\n", DENY_PATTERNS_MAX + 1);
    assert_text_refused(text, "more than 500 patterns");
    free(text);
    text = repeat("# no more than this\n", DENY_FILE_MAX / 20 + 1);
    assert_text_refused(text, "more than 1048576 bytes");
    free(text);
    assert_int_equal(deny_open(&deny, "/nowhere/at/all", &err), -ERR_IO);
    assert_null(deny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),    cmocka_unit_test(test_many_words),
        cmocka_unit_test(test_patterns), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
