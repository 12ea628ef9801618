/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokenizer's Unicode: broken UTF-8 as Python replaces it, the normal form as the tokenizers
 * library makes it (0.21.1, from which every expectation here was taken), and long hostile texts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/tokenizer_unicode.h"

#define BAD 0xfffd

static void assert_text(const struct codepoints *got, const int32_t *want, size_t count,
                        const char *what)
{
    bool same = got->count == count;
    for (size_t i = 0; same && i < count; i++)
        same = got->at[i] == want[i];
    if (same)
        return;
    for (size_t i = 0; i < got->count; i++)
        print_error("U+%04X ", (unsigned)got->at[i]);
    fail_msg("%s: wrong text", what);
}

struct decoding {
    const char *bytes;
    int32_t want[6]; /* ends with 0 */
};

static void test_decode(void **state)
{
    (void)state;
    static const struct decoding decodings[] = {
        {"a", {'a'}},
        {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", {0xe9, 0x20ac, 0x1f600}},
        {"\xf4\x8f\xbf\xbf", {0x10ffff}},
        {"\xff", {BAD}},
        {"\x80\xbf", {BAD, BAD}},
        {"\xc3", {BAD}},
        {"\xc3(", {BAD, '('}},
        {"\xc0\x80", {BAD, BAD}},
        {"\xc1\xbf", {BAD, BAD}},
        {"\xe0\x80\x80", {BAD, BAD, BAD}},
        {"\xe0\xa0", {BAD}},
        {"\xe2\x82"
         "a",
         {BAD, 'a'}},
        {"\xe2\x28\xa1", {BAD, '(', BAD}},
        {"\xed\xa0\x80", {BAD, BAD, BAD}},
        {"\xed\x9f\xbf", {0xd7ff}},
        {"\xf0\x9f\x98", {BAD}},
        {"\xf0\x9f\x98\xf0\x9f\x98\x80", {BAD, 0x1f600}},
        {"\xf0\x80\x80\x80", {BAD, BAD, BAD, BAD}},
        {"\xf4\x90\x80\x80", {BAD, BAD, BAD, BAD}},
        {"\xf5\x80\x80\x80", {BAD, BAD, BAD, BAD}},
        {"\xc3\xc3\xa9", {BAD, 0xe9}},
    };
    struct codepoints text = {0};
    struct err err;
    for (size_t i = 0; i < sizeof decodings / sizeof *decodings; i++) {
        const struct decoding *d = &decodings[i];
        size_t count = 0;
        while (count < 6 && d->want[count] != 0)
            count++;
        /* a copy of the exact size, so that a sanitizer sees a read past the end */
        size_t size = strlen(d->bytes);
        char *bytes = malloc(size);
        memcpy(bytes, d->bytes, size);
        assert_int_equal(unicode_decode(&text, bytes, size, &err), 0);
        assert_text(&text, d->want, count, d->bytes);
        free(bytes);
    }
    assert_int_equal(unicode_decode(&text, "a\0b", 3, &err), 0);
    assert_text(&text, (int32_t[]){'a', 0, 'b'}, 3, "NUL");
    assert_int_equal(unicode_decode(&text, "", 0, &err), 0);
    assert_int_equal(text.count, 0);
    codepoints_release(&text);
}

struct normalizing {
    const char *what;
    int32_t text[8], want[8]; /* end with 0 */
};

static const struct normalizing normalizings[] = {
    {"lower case", {'A', 0xc4, 0x416, 0x130a0}, {'a', 0xe4, 0x436, 0x130a0}},
    {"composition", {'e', 0x301}, {0xe9}},
    {"order of marks", {'a', 0x301, 0x323}, {0x1ea1, 0x301}},
    {"equal classes keep their order", {'q', 0x301, 0x300}, {'q', 0x301, 0x300}},
    {"a mark alone", {0x301}, {0x301}},
    {"singleton", {0x212b}, {0xe5}},
    {"exclusion", {0x958}, {0x915, 0x93c}},
    {"Hangul", {0x1112, 0x1161, 0x11ab}, {0xd55c}},
    {"Hangul, one more consonant", {0xd55c, 0x11ab}, {0xd55c, 0x11ab}},
    {"U+11A7 is no consonant", {0xc544, 0x11a7, 0x323}, {0xc544, 0x11a7, 0x323}},
    {"ideograph of compatibility", {0xf900}, {0x8c48}},
    {"no NFKC", {0xfb01, 0x2460}, {0xfb01, 0x2460}},
    {"dotted capital I", {0x130, 'I', 0x307}, {'i', 0x307, 'i', 0x307}},
    {"no final sigma", {0x391, 0x3a3}, {0x3b1, 0x3c3}},
    {"sharp s", {0x1e9e, 0xdf}, {0xdf, 0xdf}},
    {"title case", {0x1c5}, {0x1c6}},
    {"white space", {'a', ' ', '\t', 0x3000, 'b'}, {'a', ' ', 'b'}},
    {"white space at the ends", {'\n', '\r', 'a', 0x85}, {' ', 'a', ' '}},
    {"no white space", {0x1c, 0x180e, 0x200b, 0xfeff}, {0x1c, 0x180e, 0x200b, 0xfeff}},
    /* U+1AC0 and U+8D3 came after Unicode 9: no mark passes them, nothing composes over them */
    {"young mark", {'a', 0x1ac0, 0x323, 0x301}, {'a', 0x1ac0, 0x323, 0x301}},
    {"young mark after marks", {'a', 0x301, 0x8d3, 0x323}, {0xe1, 0x8d3, 0x323}},
    {"young composition", {0x11935, 0x11930}, {0x11935, 0x11930}},
    {"old composition", {0x11131, 0x11127}, {0x1112e}},
    {"letters of Unicode 16", {0x1c89, 0xa7cb, 0xa7dc, 0x10d65}, {0x1c8a, 0x264, 0x19b, 0x10d85}},
};

static size_t length(const int32_t text[8])
{
    size_t count = 0;
    while (count < 8 && text[count] != 0)
        count++;
    return count;
}

static void test_normalize(void **state)
{
    (void)state;
    struct codepoints text = {0};
    struct err err;
    for (size_t i = 0; i < sizeof normalizings / sizeof *normalizings; i++) {
        const struct normalizing *n = &normalizings[i];
        assert_int_equal(unicode_normalize(&text, n->text, length(n->text), &err), 0);
        assert_text(&text, n->want, length(n->want), n->what);
    }
    assert_int_equal(unicode_normalize(&text, NULL, 0, &err), 0);
    assert_int_equal(text.count, 0);
    codepoints_release(&text);
}

/* A normal form is its own normal form, whatever the code point. */
static void test_every_code_point(void **state)
{
    (void)state;
    struct codepoints once = {0}, twice = {0};
    struct err err;
    for (int32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xd800 && c < 0xe000)
            continue;
        assert_int_equal(unicode_normalize(&once, &c, 1, &err), 0);
        assert_true(once.count >= 1 && once.count <= 4);
        assert_int_equal(unicode_normalize(&twice, once.at, once.count, &err), 0);
        assert_text(&twice, once.at, once.count, "again");
    }
    codepoints_release(&once);
    codepoints_release(&twice);
}

/* A million marks in the worst order, which a pairwise sort would take hours over. */
static void test_many_marks(void **state)
{
    (void)state;
    enum { COUNT = 1000000 };
    int32_t *marks = malloc((COUNT + 1) * sizeof *marks);
    struct codepoints text = {0};
    struct err err;
    marks[0] = 'q';
    for (int i = 1; i <= COUNT; i++)
        marks[i] = i <= COUNT / 2 ? 0x301 : 0x323;
    assert_int_equal(unicode_normalize(&text, marks, COUNT + 1, &err), 0);
    assert_int_equal(text.count, COUNT + 1);
    for (int i = 1; i <= COUNT; i++)
        assert_int_equal(text.at[i], i <= COUNT / 2 ? 0x323 : 0x301);
    codepoints_release(&text);
    free(marks);
}

static void test_encode(void **state)
{
    (void)state;
    static const int32_t text[] = {'a', 0, 0xe9, 0x20ac, 0x10ffff};
    char bytes[4 * 5];
    assert_int_equal(unicode_encode(text, 5, bytes), 11);
    assert_memory_equal(bytes, "a\0\xc3\xa9\xe2\x82\xac\xf4\x8f\xbf\xbf", 11);
}

static void test_spaces(void **state)
{
    (void)state;
    int spaces = 0;
    for (int32_t c = 0; c < 0x110000; c++)
        spaces += unicode_is_space(c);
    assert_int_equal(spaces, 25); /* Unicode's White_Space */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decode),           cmocka_unit_test(test_normalize),
        cmocka_unit_test(test_every_code_point), cmocka_unit_test(test_many_marks),
        cmocka_unit_test(test_encode),           cmocka_unit_test(test_spaces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
