/* SPDX-License-Identifier: Apache-2.0 */
/* Base 64; see base64.h. */
#include "common/base64.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_encode(const void *bytes, size_t size, size_t *length)
{
    const unsigned char *in = bytes;
    char *out = xmalloc((size + 2) / 3 * 4 + 1);
    size_t used = 0;
    for (size_t i = 0; i < size; i += 3) {
        unsigned long group = (unsigned long)in[i] << 16;
        if (i + 1 < size)
            group |= (unsigned long)in[i + 1] << 8;
        if (i + 2 < size)
            group |= in[i + 2];
        out[used++] = digits[group >> 18];
        out[used++] = digits[group >> 12 & 63];
        out[used++] = i + 1 < size ? digits[group >> 6 & 63] : '=';
        out[used++] = i + 2 < size ? digits[group & 63] : '=';
    }
    out[used] = '\0';
    if (length)
        *length = used;
    return out;
}

/* What each byte is worth; 0xff: it is no digit. */
static void fill_values(unsigned char values[256])
{
    memset(values, 0xff, 256);
    for (unsigned char i = 0; i < 64; i++)
        values[(unsigned char)digits[i]] = i;
}

void *base64_decode(const char *text, size_t length, size_t *size)
{
    unsigned char values[256], *out = xmalloc(length / 4 * 3 + 1);
    size_t used = 0;
    bool good = length % 4 == 0;
    fill_values(values);
    for (size_t i = 0; good && i < length; i += 4) {
        int pads = text[i + 3] == '=' ? 1 + (text[i + 2] == '=') : 0;
        unsigned long group = 0;
        for (int j = 0; j < 4; j++) {
            int value = j >= 4 - pads ? 0 : values[(unsigned char)text[i + (size_t)j]];
            good = good && value < 64 && (pads == 0 || i + 4 == length);
            group = group << 6 | (unsigned long)(value & 63);
        }
        for (int j = 0; j < 3 - pads; j++)
            out[used++] = (unsigned char)(group >> (16 - 8 * j) & 255);
    }
    out[used] = '\0';
    if (good) {
        *size = used;
        return out;
    }
    free(out);
    return NULL;
}
