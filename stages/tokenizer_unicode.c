/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Unicode for the tokenizer, with utf8proc's tables. Decomposing and composing are utf8proc's; the
 * canonical order between them is sorted here, because utf8proc's takes quadratic time over a long
 * run of combining marks.
 */
#include "stages/tokenizer_unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define REPLACEMENT    0xfffd
#define FIRST_NOT_NFC  0x300 /* every text of code points below is in NFC */
#define DECOMPOSED_MAX 8     /* code points that one decomposes into: 4 in Unicode 15 */

void codepoints_release(struct codepoints *text)
{
    free(text->at);
    *text = (struct codepoints){0};
}

static int reserve(struct codepoints *text, size_t capacity, struct err *err)
{
    if (capacity <= text->capacity)
        return 0;
    capacity += capacity / 2;
    int32_t *at = realloc(text->at, capacity * sizeof *at);
    if (!at)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a text of %zu characters", capacity);
    text->at = at;
    text->capacity = capacity;
    return 0;
}

bool unicode_is_space(int32_t c)
{
    if (c < 0x80)
        return c == ' ' || (c >= '\t' && c <= '\r');
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

/* Bytes that follow `first`, and the range of the next one, which rules out the bad forms. */
static int followers(uint8_t first, uint8_t *low, uint8_t *high)
{
    *low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    *high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    if (first >= 0xc2 && first <= 0xdf)
        return 1;
    if (first >= 0xe0 && first <= 0xef)
        return 2;
    return first >= 0xf0 && first <= 0xf4 ? 3 : 0;
}

/* One code point, or U+FFFD for the bytes that cannot be one. Returns how many bytes that took. */
static size_t decode_one(const uint8_t *bytes, size_t size, int32_t *c)
{
    *c = bytes[0];
    if (bytes[0] < 0x80)
        return 1;
    uint8_t low, high;
    int count = followers(bytes[0], &low, &high);
    int32_t value = bytes[0] & (0x3f >> count);
    *c = REPLACEMENT;
    if (count == 0)
        return 1;
    for (size_t i = 1; i <= (size_t)count; i++) {
        if (i == size || bytes[i] < low || bytes[i] > high)
            return i;
        value = value << 6 | (bytes[i] & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    *c = value;
    return (size_t)count + 1;
}

int unicode_decode(struct codepoints *out, const char *bytes, size_t size, struct err *err)
{
    out->count = 0;
    int result = reserve(out, size, err);
    if (result != 0)
        return result;
    for (size_t i = 0; i < size;)
        i += decode_one((const uint8_t *)bytes + i, size - i, &out->at[out->count++]);
    return 0;
}

static int decompose(struct codepoints *out, const int32_t *text, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        int result = reserve(out, out->count + DECOMPOSED_MAX, err);
        if (result != 0)
            return result;
        int boundary = 0;
        utf8proc_ssize_t got =
            utf8proc_decompose_char(text[i], out->at + out->count, DECOMPOSED_MAX,
                                    UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        BUG_ON(got < 0 || got > DECOMPOSED_MAX);
        out->count += (size_t)got;
    }
    return 0;
}

static uint8_t combining_class(int32_t c)
{
    return (uint8_t)utf8proc_get_property(c)->combining_class;
}

/* Sorts marks by their combining class, equal ones in the order they stand. */
static int sort_marks(int32_t *marks, size_t count, struct err *err)
{
    size_t start[257] = {0};
    int32_t *sorted = malloc(count * sizeof *sorted);
    if (!sorted)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for %zu combining marks", count);
    for (size_t i = 0; i < count; i++)
        start[combining_class(marks[i]) + 1]++;
    for (size_t k = 1; k < 256; k++)
        start[k] += start[k - 1];
    for (size_t i = 0; i < count; i++)
        sorted[start[combining_class(marks[i])]++] = marks[i];
    memcpy(marks, sorted, count * sizeof *marks);
    free(sorted);
    return 0;
}

/* Brings each run of combining marks into canonical order. */
static int canonical_order(int32_t *text, size_t count, struct err *err)
{
    int result = 0;
    for (size_t i = 0; i < count && result == 0;) {
        size_t end = i;
        uint8_t last = 0, class;
        bool sorted = true;
        while (end < count && (class = combining_class(text[end])) != 0) {
            sorted = sorted && class >= last;
            last = class;
            end++;
        }
        if (!sorted)
            result = sort_marks(text + i, end - i, err);
        i = end + 1;
    }
    return result;
}

/* Appends the NFC of a text without loners. */
static int append_nfc(struct codepoints *out, const int32_t *text, size_t count, struct err *err)
{
    size_t start = out->count;
    int result = decompose(out, text, count, err);
    if (result != 0 || out->count == start)
        return result;
    result = canonical_order(out->at + start, out->count - start, err);
    if (result != 0)
        return result;
    utf8proc_ssize_t got =
        utf8proc_normalize_utf32(out->at + start, (utf8proc_ssize_t)(out->count - start),
                                 UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    BUG_ON(got < 0);
    out->count = start + (size_t)got;
    return 0;
}

/*
 * Code points that nothing joins and nothing passes: combining marks, and one composition, that
 * came after Unicode 9, whose tables the reference normalizes with; and U+11A7, which ends no
 * Hangul syllable, but which utf8proc 2.8 swallows as if it did.
 */
static const struct {
    int32_t first, last;
} loners[] = {
    {0x7fd, 0x7fd},     {0x898, 0x89f},     {0x8ca, 0x8d3},     {0x9fe, 0x9fe},
    {0xc3c, 0xc3c},     {0xd3b, 0xd3c},     {0xeba, 0xeba},     {0x11a7, 0x11a7},
    {0x1715, 0x1715},   {0x1abf, 0x1ace},   {0x1df6, 0x1dfa},   {0xa82c, 0xa82c},
    {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff}, {0x10f46, 0x10f50},
    {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b}, {0x1145e, 0x1145e},
    {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11935, 0x11935}, {0x11938, 0x11938},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e08f, 0x1e08f},
    {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef}, {0x1e4ec, 0x1e4ef},
};

static bool is_loner(int32_t c)
{
    size_t low = 0, high = sizeof loners / sizeof *loners;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c > loners[middle].last)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof loners / sizeof *loners && c >= loners[low].first;
}

static int compose_nfc(struct codepoints *out, const int32_t *text, size_t count, struct err *err)
{
    for (size_t start = 0, end; start < count; start = end + 1) {
        for (end = start; end < count && !is_loner(text[end]);)
            end++;
        int result = append_nfc(out, text + start, end - start, err);
        if (result == 0 && end < count && (result = reserve(out, out->count + 1, err)) == 0)
            out->at[out->count++] = text[end];
        if (result != 0)
            return result;
    }
    return 0;
}

static bool plainly_nfc(const int32_t *text, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (text[i] >= FIRST_NOT_NFC)
            return false;
    return true;
}

/* Letters of Unicode 16: the reference's tables are newer than those of utf8proc 2.8. */
static const struct {
    int32_t first, last, lower;
} newer_letters[] = {
    {0x1c89, 0x1c89, 0x1c8a}, {0xa7cb, 0xa7cb, 0x0264}, {0xa7cc, 0xa7cc, 0xa7cd},
    {0xa7da, 0xa7da, 0xa7db}, {0xa7dc, 0xa7dc, 0x019b}, {0x10d50, 0x10d65, 0x10d70},
};

static int32_t lower(int32_t c)
{
    if (c < 0x80)
        return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
    for (size_t i = 0; i < sizeof newer_letters / sizeof *newer_letters; i++)
        if (c >= newer_letters[i].first && c <= newer_letters[i].last)
            return newer_letters[i].lower + (c - newer_letters[i].first);
    return utf8proc_tolower(c);
}

/* U+0130 is the one character whose lower case is two: i and a dot above. */
static size_t count_dotted(const struct codepoints *text)
{
    size_t dotted = 0;
    for (size_t i = 0; i < text->count; i++)
        dotted += text->at[i] == 0x130;
    return dotted;
}

static int fold(struct codepoints *out, const struct codepoints *text, struct err *err)
{
    int result = reserve(out, text->count + count_dotted(text), err);
    if (result != 0)
        return result;
    bool after_space = false;
    for (size_t i = 0; i < text->count; i++) {
        int32_t c = text->at[i];
        bool space = unicode_is_space(c);
        if (c == 0x130) {
            out->at[out->count++] = 'i';
            out->at[out->count++] = 0x307;
        } else if (!space || !after_space) {
            out->at[out->count++] = space ? ' ' : lower(c);
        }
        after_space = space;
    }
    return 0;
}

int unicode_normalize(struct codepoints *out, const int32_t *text, size_t count, struct err *err)
{
    out->count = 0;
    struct codepoints composed = {0};
    int result = 0;
    if (plainly_nfc(text, count)) {
        result = reserve(&composed, count, err);
        if (result == 0 && count > 0) {
            memcpy(composed.at, text, count * sizeof *text);
            composed.count = count;
        }
    } else {
        result = compose_nfc(&composed, text, count, err);
    }
    if (result == 0)
        result = fold(out, &composed, err);
    codepoints_release(&composed);
    return result;
}

size_t unicode_encode(const int32_t *text, size_t count, char *out)
{
    uint8_t *next = (uint8_t *)out;
    for (size_t i = 0; i < count; i++)
        next += utf8proc_encode_char(text[i], next);
    return (size_t)(next - (uint8_t *)out);
}
