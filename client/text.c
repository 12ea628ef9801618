/* SPDX-License-Identifier: Apache-2.0 */
/* Cleaning and quoting of text from outside, for terminals and shells. */
#include "client/text.h"

#include <string.h>

#include "common/utf8.h"

size_t text_step(const char *text, size_t size, bool *harmless)
{
    const unsigned char *bytes = (const unsigned char *)text;
    size_t step = utf8_step(text, size);
    bool c0 = *bytes < ' ' || *bytes == 0x7f;

    *harmless = step > 0 && !c0 && !(step == 2 && bytes[0] == 0xc2 && bytes[1] < 0xa0);
    return step ? step : 1;
}

void text_print(const char *text, bool lines, FILE *out)
{
    size_t left = strlen(text), step;

    for (; left > 0; text += step, left -= step) {
        bool harmless;
        step = text_step(text, left, &harmless);
        if (harmless || (lines && *text == '\n'))
            fwrite(text, 1, step, out);
        else
            fputc(' ', out);
    }
}

void text_column(const char *text, int least, int most, FILE *out)
{
    size_t left = strlen(text);
    int columns = 0;
    for (; left > 0 && (most == 0 || columns < most); columns++) {
        bool harmless;
        size_t step = text_step(text, left, &harmless);
        if (harmless)
            fwrite(text, 1, step, out);
        else
            fputc(' ', out);
        text += step;
        left -= step;
    }
    fprintf(out, "%s%*s", left ? "…" : "", columns < least ? least - columns : 0, "");
}

/* --- for a shell --- */

static bool all_harmless(const char *text)
{
    bool harmless = true;
    for (size_t left = strlen(text), step; harmless && left > 0; text += step, left -= step)
        step = text_step(text, left, &harmless);
    return harmless;
}

static void put_escaped(const char *bytes, size_t count, FILE *out)
{
    for (size_t i = 0; i < count; i++)
        fprintf(out, "\\%03o", (unsigned)(unsigned char)bytes[i]);
}

/* As $'…': three octal digits are the one form that every shell reads alike. */
static void quote_escaped(const char *text, FILE *out)
{
    fputs("$'", out);
    for (size_t left = strlen(text), step; left > 0; text += step, left -= step) {
        bool harmless;
        step = text_step(text, left, &harmless);
        if (*text == '\n')
            fputs("\\n", out);
        else if (!harmless)
            put_escaped(text, step, out);
        else if (*text == '\'' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else
            fwrite(text, 1, step, out);
    }
    fputc('\'', out);
}

static void quote_plain(const char *text, FILE *out)
{
    fputc('\'', out);
    for (; *text; text++)
        if (*text == '\'')
            fputs("'\\''", out);
        else
            fputc(*text, out);
    fputc('\'', out);
}

void text_quote(const char *text, FILE *out)
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:=@%+,";

    if (*text && text[strspn(text, plain)] == 0)
        fputs(text, out);
    else if (all_harmless(text))
        quote_plain(text, out);
    else
        quote_escaped(text, out);
}

/* --- from librdkafka --- */

/* The end of the parenthesis that begins at `text`; NULL where it is not closed. */
static char *closed(char *text)
{
    int depth = 0;
    for (; *text; text++) {
        depth += (*text == '(') - (*text == ')');
        if (depth == 0)
            return text + 1;
    }
    return NULL;
}

void text_trim_kafka(char *text)
{
    while ((text = strstr(text, " (after "))) {
        char *state = strstr(text, "ms in state "), *end = closed(text + 1);
        if (state && end && state < end)
            memmove(text, end, strlen(end) + 1);
        else
            text++;
    }
}
