/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors and bugs. A text in a `struct err` is always valid UTF-8 without control characters,
 * whatever the detector quoted, because it goes on into JSON records.
 */
#include "common/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

static const struct {
    const char *name;
    bool retriable;
} codes[ERR_CODE_COUNT] = {[ERR_OK] = {"ok", false},
#define X(id, name, retriable, meaning) [id] = {name, retriable},
                           ERR_TABLE(X)
#undef X
};

static const char *base_name(const char *where)
{
    const char *slash = strrchr(where, '/');
    return slash ? slash + 1 : where;
}

/* Replaces what is not UTF-8, also a last character that was cut, and control characters. */
static void sanitize(char *text)
{
    size_t size = strlen(text);
    for (size_t i = 0; i < size;) {
        size_t step = utf8_step(text + i, size - i);
        if (step == 0 || (unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
            text[i] = step == 0 ? '?' : ' ';
            step = 1;
        }
        i += step;
    }
}

int err_set_at(struct err *err, enum err_code code, const char *where, const char *format, ...)
{
    if (!err)
        return -(int)code;
    char text[sizeof err->text]; /* the arguments may point into err->text */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sanitize(text);
    err->code = code;
    err->where = base_name(where);
    memcpy(err->text, text, sizeof text);
    return -(int)code;
}

int err_prefix(struct err *err, const char *format, ...)
{
    if (!err)
        return -(int)ERR_INTERNAL;
    char joined[2 * sizeof err->text];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(joined, sizeof err->text, format, args);
    va_end(args);
    if (length > (int)sizeof err->text - 1)
        length = (int)sizeof err->text - 1;
    if (length >= 0)
        snprintf(joined + length, sizeof joined - (size_t)length, ": %s", err->text);
    joined[sizeof err->text - 1] = '\0';
    sanitize(joined);
    memcpy(err->text, joined, sizeof err->text);
    return -(int)err->code;
}

const char *err_name(enum err_code code)
{
    BUG_ON((int)code < 0 || code >= ERR_CODE_COUNT);
    return codes[code].name;
}

enum err_code err_from_name(const char *name)
{
    for (int code = 0; code < ERR_CODE_COUNT; code++)
        if (strcmp(codes[code].name, name) == 0)
            return (enum err_code)code;
    return ERR_INTERNAL;
}

bool err_retriable(enum err_code code)
{
    BUG_ON((int)code < 0 || code >= ERR_CODE_COUNT);
    return codes[code].retriable;
}

void err_bug(const char *where, const char *expression)
{
    fprintf(stderr, "unclip: bug at %s: %s\n", base_name(where), expression);
    abort();
}
