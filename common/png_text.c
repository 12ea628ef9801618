/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PNG text chunks: tEXt (Latin-1), zTXt (the same, deflated), iTXt (UTF-8). A chunk is its length,
 * type, data and CRC-32 over type and data, numbers big-endian.
 */
#include "common/png_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/memory.h"
#include "common/utf8.h"

#define SIGNATURE      "\x89PNG\r\n\x1a\n"
#define SIGNATURE_SIZE 8
#define CHUNK_FRAME    12 /* length, type, CRC */
#define IHDR_SIZE      13

/* --- characters --- */

/* The code point of a character of valid UTF-8; *text steps over it. */
static uint32_t next_character(const char **text)
{
    const unsigned char *bytes = (const unsigned char *)*text;
    size_t length = utf8_step(*text, strlen(*text));
    uint32_t c = length == 1 ? bytes[0] : bytes[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++)
        c = c << 6 | (bytes[i] & 0x3f);
    *text += length;
    return c;
}

/* Latin-1's printable characters and the line feed: all that tEXt should have. */
static bool is_text_character(uint32_t c)
{
    return c == '\n' || (c >= 0x20 && c <= 0x7e) || (c >= 0xa0 && c <= 0xff);
}

static bool fits_latin1(const char *text)
{
    while (*text)
        if (!is_text_character(next_character(&text)))
            return false;
    return true;
}

/* Printable Latin-1, no blank at an end, no two in a row. */
static bool keyword_valid(const char *key)
{
    size_t length = strlen(key);
    if (length == 0 || length > PNG_KEYWORD_MAX || key[0] == ' ' || key[length - 1] == ' ')
        return false;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)key[i];
        if (c == '\n' || !is_text_character(c) || (c == ' ' && key[i + 1] == ' '))
            return false;
    }
    return true;
}

/* --- writing --- */

static unsigned char *put_u32(unsigned char *out, uint32_t value)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        *out++ = (unsigned char)(value >> shift);
    return out;
}

static unsigned char *put_bytes(unsigned char *out, const void *bytes, size_t size)
{
    memcpy(out, bytes, size);
    return out + size;
}

static unsigned char *put_latin1(unsigned char *out, const char *text)
{
    while (*text)
        *out++ = (unsigned char)next_character(&text);
    return out;
}

/* Writes a whole chunk; `out` has room for its frame, the keyword and the text. */
static unsigned char *put_text(unsigned char *out, const struct image_text *text)
{
    static const char no_compression_no_language[] = {0, 0, 0, 0, 0};
    bool plain = strcmp(text->key, PNG_KEYWORD_XMP) != 0 && fits_latin1(text->value);
    unsigned char *type = out + 4, *at = put_bytes(type, plain ? "tEXt" : "iTXt", 4);
    at = put_bytes(at, text->key, strlen(text->key));
    if (plain) {
        *at++ = '\0';
        at = put_latin1(at, text->value);
    } else {
        at = put_bytes(at, no_compression_no_language, sizeof no_compression_no_language);
        at = put_bytes(at, text->value, strlen(text->value));
    }
    put_u32(out, (uint32_t)(at - type - 4));
    return put_u32(at, (uint32_t)crc32(0, type, (uInt)(at - type)));
}

static int check_text(const struct image_text *text, struct err *err)
{
    size_t size = strlen(text->value);
    if (!keyword_valid(text->key))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not a PNG keyword", text->key);
    if (size > PNG_TEXT_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the PNG text '%s' has %zu bytes, at most %u are allowed", text->key, size,
                       PNG_TEXT_MAX);
    if (!utf8_valid(text->value, size))
        return err_set(err, ERR_INVALID_ARGUMENT, "the PNG text '%s' is not UTF-8", text->key);
    return 0;
}

int png_text_insert(const void *png, size_t size, const struct image_text *texts, size_t count,
                    void **out, size_t *out_size, struct err *err)
{
    const size_t head = SIGNATURE_SIZE + CHUNK_FRAME + IHDR_SIZE;
    if (size < head || memcmp(png, SIGNATURE "\0\0\0\x0dIHDR", SIGNATURE_SIZE + 8) != 0)
        return err_set(err, ERR_INVALID_IMAGE, "the picture is not a PNG");
    size_t room = size;
    for (size_t i = 0; i < count; i++) {
        int result = check_text(&texts[i], err);
        if (result != 0)
            return result;
        room += CHUNK_FRAME + strlen(texts[i].key) + 5 + strlen(texts[i].value);
    }
    unsigned char *copy = malloc(room);
    if (!copy)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a PNG of %zu bytes", room);
    unsigned char *at = put_bytes(copy, png, head);
    for (size_t i = 0; i < count; i++)
        at = put_text(at, &texts[i]);
    at = put_bytes(at, (const char *)png + head, size - head);
    *out = copy;
    *out_size = (size_t)(at - copy);
    return 0;
}

/* --- XMP --- */

/* As XML text; what XML 1.0 cannot have becomes a blank. */
static void write_xml(FILE *out, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '&')
            fputs("&amp;", out);
        else if (c == '<')
            fputs("&lt;", out);
        else if (c == '>')
            fputs("&gt;", out);
        else if (c == '"')
            fputs("&quot;", out);
        else if (c == '\r')
            fputs("&#13;", out);
        else if (strncmp(text, "\xef\xbf", 2) == 0 && (text[2] & 0x7e) == 0x3e)
            text += 2; /* U+FFFE and U+FFFF */
        else
            fputc(c < 0x20 && c != '\n' && c != '\t' ? ' ' : c, out);
    }
}

/* <name>value</name>, unless it is NULL. */
static void write_element(FILE *out, const char *name, const char *value)
{
    if (!value)
        return;
    fprintf(out, "<%s>", name);
    write_xml(out, value);
    fprintf(out, "</%s>\n", name);
}

char *png_text_xmp(const struct image_metadata *metadata, bool whole)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    BUG_ON(!out);
    fputs("<?xpacket begin=\"\xef\xbb\xbf\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\n"
          "<x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\n"
          "<rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">\n"
          "<rdf:Description rdf:about=\"\"\n"
          " xmlns:dc=\"http://purl.org/dc/elements/1.1/\"\n"
          " xmlns:xmp=\"http://ns.adobe.com/xap/1.0/\"\n",
          out);
    if (whole)
        fputs(" xmlns:unclip=\"urn:unclip:1\"\n", out);
    fputs(" xmlns:Iptc4xmpExt=\"http://iptc.org/std/Iptc4xmpExt/2008-02-29/\">\n"
          "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/"
          "trainedAlgorithmicMedia</Iptc4xmpExt:DigitalSourceType>\n",
          out);
    write_element(out, "xmp:CreatorTool", metadata->tool);
    if (metadata->description) {
        fputs("<dc:description><rdf:Alt><rdf:li xml:lang=\"x-default\">", out);
        write_xml(out, metadata->description);
        fputs("</rdf:li></rdf:Alt></dc:description>\n", out);
    }
    if (whole) {
        write_element(out, "unclip:parameters", metadata->parameters);
        write_element(out, "unclip:job", metadata->job);
    }
    fputs("</rdf:Description>\n</rdf:RDF>\n</x:xmpmeta>\n<?xpacket end=\"r\"?>", out);
    BUG_ON(fclose(out) != 0);
    return text;
}

/* --- reading --- */

struct chunk {
    char type[5];
    const unsigned char *data;
    size_t size;
};

static uint32_t get_u32(const unsigned char *in)
{
    return (uint32_t)in[0] << 24 | (uint32_t)in[1] << 16 | (uint32_t)in[2] << 8 | in[3];
}

/* The chunk at *at, over which it steps. */
static int next_chunk(struct chunk *chunk, const unsigned char **at, const unsigned char *end,
                      struct err *err)
{
    size_t left = (size_t)(end - *at);
    size_t size = left >= CHUNK_FRAME ? get_u32(*at) : 0;
    if (left < CHUNK_FRAME || size > left - CHUNK_FRAME)
        return err_set(err, ERR_INVALID_IMAGE, "the PNG ends within a chunk");
    const unsigned char *type = *at + 4;
    memcpy(chunk->type, type, 4);
    chunk->type[4] = '\0';
    chunk->data = type + 4;
    chunk->size = size;
    if (crc32(0, type, (uInt)size + 4) != get_u32(chunk->data + size))
        return err_set(err, ERR_INVALID_IMAGE, "the PNG's chunk '%s' is damaged", chunk->type);
    *at += CHUNK_FRAME + size;
    return 0;
}

/* Steps over a NUL-terminated field at the start of what is left; false when it has no end. */
static bool skip_field(struct chunk *left)
{
    const unsigned char *nul = memchr(left->data, '\0', left->size);
    if (!nul)
        return false;
    left->size -= (size_t)(nul + 1 - left->data);
    left->data = nul + 1;
    return true;
}

/* Inflates into *out (owned). */
static int inflate_text(const struct chunk *in, unsigned char **out, size_t *size, struct err *err)
{
    unsigned char *text = malloc(PNG_TEXT_MAX);
    if (!text)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a PNG's text");
    uLongf length = PNG_TEXT_MAX;
    int result = uncompress(text, &length, in->data, (uLong)in->size);
    if (result == Z_OK) {
        *out = text;
        *size = length;
        return 0;
    }
    free(text);
    if (result == Z_BUF_ERROR)
        return err_set(err, ERR_TOO_LARGE, "a PNG's text is cut, or longer than %u bytes",
                       PNG_TEXT_MAX);
    return err_set(err, ERR_INVALID_IMAGE, "a PNG's compressed text is damaged");
}

static char *utf8_of_latin1(const unsigned char *bytes, size_t size) /* owned */
{
    char *text = xmalloc(2 * size + 1), *at = text;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] >= 0x80)
            *at++ = (char)(0xc0 | bytes[i] >> 6);
        *at++ = (char)(bytes[i] >= 0x80 ? 0x80 | (bytes[i] & 0x3f) : bytes[i]);
    }
    *at = '\0';
    return text;
}

static int to_utf8(const unsigned char *bytes, size_t size, bool latin1, char **value,
                   struct err *err)
{
    if (size > PNG_TEXT_MAX)
        return err_set(err, ERR_TOO_LARGE, "a PNG's text is longer than %u bytes", PNG_TEXT_MAX);
    if (memchr(bytes, '\0', size) || (!latin1 && !utf8_valid((const char *)bytes, size)))
        return err_set(err, ERR_INVALID_IMAGE, "a PNG's text is not text");
    *value =
        latin1 ? utf8_of_latin1(bytes, size) : xasprintf("%.*s", (int)size, (const char *)bytes);
    return 0;
}

/* `left` is a text chunk after its keyword: for iTXt two flags and two names, for zTXt one flag. */
static int read_text(struct chunk *left, char **value, struct err *err)
{
    bool latin1 = left->type[0] != 'i', packed = left->type[0] == 'z';
    size_t flags = latin1 ? (packed ? 1 : 0) : 2;
    if (left->size < flags)
        return err_set(err, ERR_INVALID_IMAGE, "the PNG's text chunk is too short");
    if (!latin1)
        packed = left->data[0] == 1;
    left->data += flags;
    left->size -= flags;
    if (!latin1 && (!skip_field(left) || !skip_field(left)))
        return err_set(err, ERR_INVALID_IMAGE, "the PNG's text chunk is too short");
    if (!packed)
        return to_utf8(left->data, left->size, latin1, value, err);
    unsigned char *text = NULL;
    size_t size = 0;
    int result = inflate_text(left, &text, &size, err);
    if (result != 0)
        return result;
    result = to_utf8(text, size, latin1, value, err);
    free(text);
    return result;
}

static bool is_text_chunk(const struct chunk *chunk)
{
    return strcmp(chunk->type, "tEXt") == 0 || strcmp(chunk->type, "zTXt") == 0 ||
           strcmp(chunk->type, "iTXt") == 0;
}

int png_text_remove(const void *png, size_t size, void **out, size_t *out_size, struct err *err)
{
    const unsigned char *at = (const unsigned char *)png + SIGNATURE_SIZE;
    const unsigned char *end = (const unsigned char *)png + size;
    struct chunk chunk = {.type = ""};
    if (size < SIGNATURE_SIZE || memcmp(png, SIGNATURE, SIGNATURE_SIZE) != 0)
        return err_set(err, ERR_INVALID_IMAGE, "the picture is not a PNG");
    unsigned char *copy = malloc(size);
    if (!copy)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a PNG of %zu bytes", size);
    unsigned char *to = put_bytes(copy, png, SIGNATURE_SIZE);
    while (strcmp(chunk.type, "IEND") != 0) {
        const unsigned char *begin = at;
        int result = next_chunk(&chunk, &at, end, err);
        if (result != 0) {
            free(copy);
            return result;
        }
        if (!is_text_chunk(&chunk))
            to = put_bytes(to, begin, (size_t)(at - begin));
    }
    *out = copy;
    *out_size = (size_t)(to - copy);
    return 0;
}

int image_png_text(const void *bytes, size_t size, const char *key, char **value, struct err *err)
{
    if (size < SIGNATURE_SIZE || memcmp(bytes, SIGNATURE, SIGNATURE_SIZE) != 0)
        return err_set(err, ERR_INVALID_IMAGE, "the picture is not a PNG");
    const unsigned char *at = (const unsigned char *)bytes + SIGNATURE_SIZE;
    const unsigned char *end = (const unsigned char *)bytes + size;
    for (;;) {
        struct chunk chunk;
        int result = next_chunk(&chunk, &at, end, err);
        if (result != 0)
            return result;
        if (strcmp(chunk.type, "IEND") == 0)
            return err_set(err, ERR_NOT_FOUND, "the PNG has no text '%s'", key);
        struct chunk left = chunk;
        if (is_text_chunk(&chunk) && skip_field(&left) &&
            strcmp((const char *)chunk.data, key) == 0)
            return read_text(&left, value, err);
    }
}
