/* SPDX-License-Identifier: Apache-2.0 */
/* PNG text chunks: bytes as the specification has them, and reading of all three kinds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "common/png_text.h"
#include "tests/unit/common/png_maker.h"

static void make_png(struct png_file *png)
{
    png_start(png, 1, 1, 8, 2);
    png_finish(png, "\0abc", 4);
}

struct seen {
    char type[5];
    const unsigned char *data;
    size_t size;
};

/* The chunk number `index` of a file, its CRC checked. */
static struct seen chunk_at(const unsigned char *bytes, size_t size, int index)
{
    size_t at = 8;
    struct seen seen = {.size = 0};
    for (int i = 0; i <= index; i++) {
        assert_true(at + 12 <= size);
        seen.size = png_get_u32(bytes + at);
        memcpy(seen.type, bytes + at + 4, 4);
        seen.type[4] = '\0';
        seen.data = bytes + at + 8;
        assert_int_equal(png_get_u32(seen.data + seen.size),
                         png_crc(bytes + at + 4, seen.size + 4));
        at += seen.size + 12;
    }
    return seen;
}

static void assert_chunk(const unsigned char *bytes, size_t size, int index, const char *type,
                         const char *data, size_t data_size)
{
    struct seen seen = chunk_at(bytes, size, index);
    assert_string_equal(seen.type, type);
    assert_int_equal(seen.size, data_size);
    assert_memory_equal(seen.data, data, data_size);
}

static void chunks_byte_by_byte(void **state)
{
    (void)state;
    static const struct image_text texts[] = {
        {"parameters", "café\nline"}, {"parameters", "café 猫"},  {"unclip", ""},
        {"control", "a\tb"},          {PNG_KEYWORD_XMP, "plain"},
    };
    struct png_file png;
    struct err err;
    unsigned char *out;
    size_t size;
    make_png(&png);
    assert_int_equal(png_text_insert(png.bytes, png.size, texts, 5, (void **)&out, &size, &err), 0);
    assert_memory_equal(out, png.bytes, 33);
    assert_string_equal(chunk_at(out, size, 0).type, "IHDR");
    assert_chunk(out, size, 1, "tEXt", "parameters\0caf\xe9\nline", 20);
    assert_chunk(out, size, 2, "iTXt", "parameters\0\0\0\0\0caf\xc3\xa9 \xe7\x8c\xab", 24);
    assert_chunk(out, size, 3, "tEXt", "unclip\0", 7);
    assert_chunk(out, size, 4, "iTXt", "control\0\0\0\0\0a\tb", 15);
    assert_chunk(out, size, 5, "iTXt", "XML:com.adobe.xmp\0\0\0\0\0plain", 27);
    assert_string_equal(chunk_at(out, size, 6).type, "IDAT");
    assert_string_equal(chunk_at(out, size, 7).type, "IEND");
    assert_memory_equal(out + size - (png.size - 33), png.bytes + 33, png.size - 33);
    free(out);
}

static void round_trip(void **state)
{
    (void)state;
    static const char *const values[] = {
        "", "plain", "café", "café 猫 😀", "\xc2\x80 control", "line\nline", "tab\t", "\x7f"};
    struct png_file png;
    struct err err;
    make_png(&png);
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const struct image_text texts[] = {{"other", "x"}, {"key", values[i]}};
        void *out;
        size_t size;
        char *value;
        assert_int_equal(png_text_insert(png.bytes, png.size, texts, 2, &out, &size, &err), 0);
        assert_int_equal(image_png_text(out, size, "key", &value, &err), 0);
        assert_string_equal(value, values[i]);
        free(value);
        assert_int_equal(image_png_text(out, size, "ke", &value, &err), -ERR_NOT_FOUND);
        assert_string_equal(err.text, "the PNG has no text 'ke'");
        free(out);
    }
}

static void assert_insert_refused(const char *key, const char *value)
{
    struct png_file png;
    struct err err;
    void *out;
    size_t size;
    const struct image_text text = {key, value};
    make_png(&png);
    assert_int_equal(png_text_insert(png.bytes, png.size, &text, 1, &out, &size, &err),
                     -ERR_INVALID_ARGUMENT);
}

static void bad_keywords_and_texts(void **state)
{
    (void)state;
    char key[82], *big = malloc(PNG_TEXT_MAX + 2);
    memset(key, 'k', sizeof key);
    key[80] = '\0';
    assert_insert_refused(key, "");
    assert_insert_refused("", "");
    assert_insert_refused(" a", "");
    assert_insert_refused("a ", "");
    assert_insert_refused("a  b", "");
    assert_insert_refused("a\nb", "");
    assert_insert_refused("a\x7f", "");
    assert_insert_refused("a\xa0"
                          "b\x9f",
                          "");
    assert_insert_refused("a", "\xff");
    assert_insert_refused("a", "caf\xe9");
    memset(big, 'x', PNG_TEXT_MAX + 1);
    big[PNG_TEXT_MAX + 1] = '\0';
    assert_insert_refused("a", big);
    free(big);
    struct err err;
    void *out;
    size_t size;
    assert_int_equal(
        png_text_insert("not a PNG, but long enough for its head", 39, NULL, 0, &out, &size, &err),
        -ERR_INVALID_IMAGE);
}

/* Puts one chunk into a PNG and reads the text `key` of it. */
static int read_chunk(const char *type, const char *data, size_t data_size, char **value,
                      struct err *err)
{
    struct png_file png;
    png_start(&png, 1, 1, 8, 2);
    png_put_chunk(&png, type, data, data_size);
    png_finish(&png, "\0abc", 4);
    return image_png_text(png.bytes, png.size, "key", value, err);
}

/* `head` with the deflated `text` after it. */
static size_t deflate_after(char *out, size_t room, const char *head, size_t head_size,
                            const void *text, size_t text_size)
{
    uLongf length = room - head_size;
    memcpy(out, head, head_size);
    assert_int_equal(compress((Bytef *)out + head_size, &length, text, text_size), Z_OK);
    return head_size + length;
}

static void other_writers_chunks(void **state)
{
    (void)state;
    char data[200], *value;
    struct err err;
    assert_int_equal(read_chunk("tEXt", "key\0caf\xe9", 8, &value, &err), 0);
    assert_string_equal(value, "café");
    free(value);
    size_t size = deflate_after(data, sizeof data, "key\0\0", 5, "caf\xe9", 4);
    assert_int_equal(read_chunk("zTXt", data, size, &value, &err), 0);
    assert_string_equal(value, "café");
    free(value);
    size = deflate_after(data, sizeof data, "key\0\1\0en\0Schl\xc3\xbcssel\0", 20, "猫", 3);
    assert_int_equal(read_chunk("iTXt", data, size, &value, &err), 0);
    assert_string_equal(value, "猫");
    free(value);
    assert_int_equal(read_chunk("iTXt", "key\0\0\0en\0x\0text", 15, &value, &err), 0);
    assert_string_equal(value, "text");
    free(value);
}

static void damaged_chunks(void **state)
{
    (void)state;
    static const struct {
        const char *type, *data;
        size_t size;
    } cases[] = {
        {"tEXt", "key\0a\0b", 7},         {"zTXt", "key\0", 4},
        {"zTXt", "key\0\0junk", 9},       {"iTXt", "key\0\0", 5},
        {"iTXt", "key\0\0\0", 6},         {"iTXt", "key\0\0\0en\0x", 10},
        {"iTXt", "key\0\0\0\0\0\xff", 9}, {"iTXt", "key\0\1\0\0\0x", 9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *value;
        struct err err;
        int result = read_chunk(cases[i].type, cases[i].data, cases[i].size, &value, &err);
        assert_true(result == -ERR_INVALID_IMAGE || result == -ERR_TOO_LARGE);
    }
    char *value;
    struct err err;
    assert_int_equal(read_chunk("tEXt", "key", 3, &value, &err), -ERR_NOT_FOUND);
}

static void inflating_has_a_limit(void **state)
{
    (void)state;
    static char zeros[PNG_TEXT_MAX + 1];
    static char data[20000];
    struct err err;
    char *value;
    memset(zeros, 'x', sizeof zeros);
    size_t size = deflate_after(data, sizeof data, "key\0\0", 5, zeros, sizeof zeros);
    assert_int_equal(read_chunk("zTXt", data, size, &value, &err), -ERR_TOO_LARGE);
    size = deflate_after(data, sizeof data, "key\0\0", 5, zeros, PNG_TEXT_MAX);
    assert_int_equal(read_chunk("zTXt", data, size, &value, &err), 0);
    assert_int_equal(strlen(value), PNG_TEXT_MAX);
    free(value);
}

/* Every cut and every flipped bit of a file ends in an error or in what was there. */
static void broken_files(void **state)
{
    (void)state;
    struct png_file png;
    struct err err;
    char *value;
    png_start(&png, 1, 1, 8, 2);
    png_put_chunk(&png, "tEXt", "other\0x", 7);
    png_put_chunk(&png, "iTXt", "key\0\0\0\0\0text", 12);
    png_finish(&png, "\0abc", 4);
    for (size_t size = 0; size < png.size; size++) {
        unsigned char *cut = xmalloc(size);
        memcpy(cut, png.bytes, size);
        int result = image_png_text(cut, size, "none", &value, &err);
        assert_int_equal(result, -ERR_INVALID_IMAGE);
        free(cut);
    }
    for (size_t bit = 0; bit < 8 * png.size; bit++) {
        png.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (image_png_text(png.bytes, png.size, "key", &value, &err) == 0) {
            assert_string_equal(value, "text");
            free(value);
        }
        png.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
}

static void xmp(void **state)
{
    (void)state;
    struct image_metadata metadata = {.tool = "unclip 0.1.0",
                                      .description = "<\"a\" & 猫>\x01\r\n\xef\xbf\xbe",
                                      .parameters = "Steps: 5",
                                      .job = "{}"};
    char *packet = png_text_xmp(&metadata, false);
    assert_non_null(strstr(packet, "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/"
                                   "digitalsourcetype/trainedAlgorithmicMedia<"));
    assert_non_null(strstr(packet, "<xmp:CreatorTool>unclip 0.1.0</xmp:CreatorTool>"));
    assert_non_null(strstr(packet, "<rdf:li xml:lang=\"x-default\">&lt;&quot;a&quot; &amp; 猫&gt; "
                                   "&#13;\n</rdf:li>"));
    assert_null(strstr(packet, "Steps: 5"));
    free(packet);
    packet = png_text_xmp(&metadata, true);
    assert_non_null(strstr(packet, "<unclip:parameters>Steps: 5</unclip:parameters>"));
    assert_non_null(strstr(packet, "<unclip:job>{}</unclip:job>"));
    assert_non_null(strstr(packet, "xmlns:unclip="));
    free(packet);
    packet = png_text_xmp(&(struct image_metadata){0}, true);
    assert_null(strstr(packet, "dc:description"));
    assert_null(strstr(packet, "CreatorTool"));
    assert_non_null(strstr(packet, "trainedAlgorithmicMedia"));
    free(packet);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_byte_by_byte),    cmocka_unit_test(round_trip),
        cmocka_unit_test(bad_keywords_and_texts), cmocka_unit_test(other_writers_chunks),
        cmocka_unit_test(damaged_chunks),         cmocka_unit_test(inflating_has_a_limit),
        cmocka_unit_test(broken_files),           cmocka_unit_test(xmp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
