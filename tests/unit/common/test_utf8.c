/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8: every code point is accepted in its one form, and every other form is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "common/utf8.h"

static size_t encode(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((0xf00 >> length) | c);
    return length;
}

static void all_code_points(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x110000; c++) {
        char text[4];
        size_t length = encode(c, text);
        int valid = (c < 0xd800 || c > 0xdfff) && c <= 0x10ffff;
        assert_int_equal(utf8_step(text, length), valid ? length : 0);
        if (valid)
            assert_int_equal(utf8_step(text, length - 1), 0);
    }
}

static void broken_forms(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xf5\x80\x80\x80",
        "\xff",
        "\xfe",
        "\xc3",
        "\xc3(",
        "\xe2\x82",
        "\xe2(\xa1",
        "\xf0\x9f\x98",
        "\xed\xa0\x80",
        "\xf4\x90\x80\x80",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(utf8_step(texts[i], strlen(texts[i])), 0);
        assert_false(utf8_valid(texts[i], strlen(texts[i])));
    }
    assert_true(utf8_valid("", 0));
    assert_true(utf8_valid("café 猫 😀\0", 16));
    assert_false(utf8_valid("ok\xff", 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_code_points),
        cmocka_unit_test(broken_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
