/* SPDX-License-Identifier: Apache-2.0 */
/* Checking UTF-8, character by character (RFC 3629, section 4's table). */
#include "common/utf8.h"

#include <string.h>

#include "common/memory.h"

static bool in_range(unsigned char byte, unsigned char low, unsigned char high)
{
    return byte >= low && byte <= high;
}

/* Length by the first byte, and the second byte's range, which is what rules out the bad forms. */
static size_t lead(unsigned char first, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (first < 0x80)
        return 1;
    if (in_range(first, 0xc2, 0xdf))
        return 2;
    if (in_range(first, 0xe0, 0xef)) {
        *low = first == 0xe0 ? 0xa0 : 0x80;
        *high = first == 0xed ? 0x9f : 0xbf;
        return 3;
    }
    if (in_range(first, 0xf0, 0xf4)) {
        *low = first == 0xf0 ? 0x90 : 0x80;
        *high = first == 0xf4 ? 0x8f : 0xbf;
        return 4;
    }
    return 0;
}

size_t utf8_step(const char *text, size_t size)
{
    if (size == 0)
        return 0;
    const unsigned char *bytes = (const unsigned char *)text;
    unsigned char low, high;
    size_t length = lead(bytes[0], &low, &high);
    if (length == 0 || length > size)
        return 0;
    if (length > 1 && !in_range(bytes[1], low, high))
        return 0;
    for (size_t i = 2; i < length; i++)
        if (!in_range(bytes[i], 0x80, 0xbf))
            return 0;
    return length;
}

bool utf8_valid(const char *text, size_t size)
{
    for (size_t i = 0, step; i < size; i += step)
        if ((step = utf8_step(text + i, size - i)) == 0)
            return false;
    return true;
}

char *utf8_clean(const void *bytes, size_t size)
{
    const char *text = bytes;
    char *clean = xmalloc(size * 3 + 1), *end = clean;
    for (size_t i = 0; i < size;) {
        size_t step = text[i] ? utf8_step(text + i, size - i) : 0;
        end = mempcpy(end, step ? text + i : "\xef\xbf\xbd", step ? step : 3);
        i += step ? step : 1;
    }
    *end = 0;
    return clean;
}
