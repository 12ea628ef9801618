/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The deny-list; see deny.h. Words are kept as " one two ", in order, and a text is brought into
 * the same form: at each of its words the entries that begin with that word are looked up.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "coordinator/deny.h"

#include <errno.h>
#include <pcre2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "common/memory.h"
#include "common/utf8.h"

#define BLANKS " \t\r"

struct deny {
    char **words; /* owned, each " one two "; sorted */
    size_t word_count;
    pcre2_code **patterns; /* owned */
    size_t pattern_count;
    pcre2_match_context *limits;
};

/* --- texts --- */

/* As entries see it. Owned; NULL: it is not UTF-8, or there is no memory. */
static char *fold(const char *text)
{
    utf8proc_uint8_t *folded;
    const utf8proc_option_t options =
        UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT | UTF8PROC_CASEFOLD | UTF8PROC_IGNORE;
    utf8proc_ssize_t size = utf8proc_map((const utf8proc_uint8_t *)text,
                                         (utf8proc_ssize_t)strlen(text), &folded, options);
    return size < 0 ? NULL : (char *)folded;
}

/* Letters, marks and digits; all else stands between words. */
static bool in_word(utf8proc_int32_t character)
{
    utf8proc_category_t category = utf8proc_category(character);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO;
}

/* " one two " of a folded text; " " where it has no word. Owned. */
static char *words_of(const char *folded)
{
    size_t left = strlen(folded), used = 1;
    char *out = xmalloc(left + 3);
    out[0] = ' ';
    while (left > 0) {
        utf8proc_int32_t character;
        utf8proc_ssize_t step =
            utf8proc_iterate((const utf8proc_uint8_t *)folded, (utf8proc_ssize_t)left, &character);
        BUG_ON(step <= 0); /* fold() has checked it */
        if (in_word(character)) {
            memcpy(out + used, folded, (size_t)step);
            used += (size_t)step;
        } else if (out[used - 1] != ' ') {
            out[used++] = ' ';
        }
        folded += step;
        left -= (size_t)step;
    }
    if (out[used - 1] != ' ')
        out[used++] = ' ';
    out[used] = '\0';
    return out;
}

/* --- reading --- */

static int add_words(struct deny *deny, const char *line, const char *place, struct err *err)
{
    char *folded = fold(line);
    if (!folded)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: it is not UTF-8", place);
    char *words = words_of(folded);
    free(folded);
    if (strcmp(words, " ") == 0) {
        free(words);
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: there is no word in it", place);
    }
    deny->words = xrealloc(deny->words, (deny->word_count + 1) * sizeof *deny->words);
    deny->words[deny->word_count++] = words;
    return 0;
}

/* `line` begins with a slash. */
static int add_pattern(struct deny *deny, const char *line, const char *place, struct err *err)
{
    size_t length = strlen(line);
    int code;
    PCRE2_SIZE at;
    if (length < 3 || line[length - 1] != '/')
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: a pattern is written /like this/", place);
    pcre2_code *pattern = pcre2_compile(
        (PCRE2_SPTR)line + 1, length - 2,
        PCRE2_UTF | PCRE2_UCP | PCRE2_CASELESS | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!pattern) {
        char why[120] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: the pattern fails at character %zu: %s",
                       place, (size_t)at + 1, why);
    }
    deny->patterns = xrealloc(deny->patterns, (deny->pattern_count + 1) * sizeof *deny->patterns);
    deny->patterns[deny->pattern_count++] = pattern;
    return 0;
}

/* A line without its end. */
static int add_line(struct deny *deny, char *line, const char *place, struct err *err)
{
    line += strspn(line, BLANKS);
    size_t length = strlen(line);
    while (length > 0 && strchr(BLANKS, line[length - 1]))
        line[--length] = '\0';
    if (length == 0 || *line == '#')
        return 0;
    bool pattern = *line == '/';
    if (pattern ? deny->pattern_count == DENY_PATTERNS_MAX : deny->word_count == DENY_WORDS_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: there are more than %d %s", place,
                       pattern ? DENY_PATTERNS_MAX : DENY_WORDS_MAX,
                       pattern ? "patterns" : "entries of words");
    return pattern ? add_pattern(deny, line, place, err) : add_words(deny, line, place, err);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int add_lines(struct deny *deny, char *text, const char *path, struct err *err)
{
    int rc = 0, number = 0;
    for (char *line; !rc && (line = strsep(&text, "\n"));) {
        char *place = xasprintf("%s:%d", path, ++number);
        rc = add_line(deny, line, place, err);
        free(place);
    }
    if (!rc && deny->word_count + deny->pattern_count == 0)
        rc = err_set(err, ERR_INVALID_ARGUMENT, "%s: there is no entry in it", path);
    if (deny->word_count > 0)
        qsort(deny->words, deny->word_count, sizeof *deny->words, compare);
    return rc;
}

/* *text is owned. */
static int read_file(char **text, const char *path, struct err *err)
{
    FILE *in = fopen(path, "re");
    if (!in)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    *text = xmalloc(DENY_FILE_MAX + 2);
    size_t size = fread(*text, 1, DENY_FILE_MAX + 1, in);
    int rc = 0;
    if (ferror(in))
        rc = err_set(err, ERR_IO, "cannot read '%s'", path);
    else if (size > DENY_FILE_MAX)
        rc = err_set(err, ERR_INVALID_ARGUMENT, "'%s' has more than %u bytes", path, DENY_FILE_MAX);
    else if (memchr(*text, 0, size) || !utf8_valid(*text, size))
        rc = err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not UTF-8 text", path);
    (*text)[size] = '\0';
    fclose(in);
    return rc;
}

static struct deny *deny_new(void)
{
    struct deny *deny = xcalloc(1, sizeof *deny);
    deny->limits = pcre2_match_context_create(NULL);
    BUG_ON(!deny->limits);
    pcre2_set_match_limit(deny->limits, DENY_MATCH_LIMIT);
    pcre2_set_depth_limit(deny->limits, DENY_DEPTH_LIMIT);
    pcre2_set_heap_limit(deny->limits, DENY_HEAP_KIB);
    return deny;
}

int deny_open(struct deny **out, const char *path, struct err *err)
{
    struct deny *deny = deny_new();
    char *text = NULL;
    int rc = read_file(&text, path, err);
    if (!rc)
        rc = add_lines(deny, text, path, err);
    free(text);
    if (rc)
        deny_free(deny);
    else
        *out = deny;
    return rc;
}

void deny_free(struct deny *deny)
{
    if (!deny)
        return;
    for (size_t i = 0; i < deny->word_count; i++)
        free(deny->words[i]);
    for (size_t i = 0; i < deny->pattern_count; i++)
        pcre2_code_free(deny->patterns[i]);
    free(deny->words);
    free(deny->patterns);
    pcre2_match_context_free(deny->limits);
    free(deny);
}

/* --- checking --- */

/* The first entry that begins with these bytes, " one ", or where it would stand. */
static size_t lower_bound(const struct deny *deny, const char *word, size_t length)
{
    size_t low = 0, high = deny->word_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strncmp(deny->words[middle], word, length) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Whether an entry stands at this place, which is the blank before a word. */
static bool words_at(const struct deny *deny, const char *at)
{
    size_t length = strcspn(at + 1, " ") + 2;
    for (size_t i = lower_bound(deny, at, length); i < deny->word_count; i++) {
        const char *entry = deny->words[i];
        if (strncmp(entry, at, length) != 0)
            return false;
        if (strncmp(entry, at, strlen(entry)) == 0)
            return true;
    }
    return false;
}

static bool any_words(const struct deny *deny, const char *folded)
{
    char *words = words_of(folded);
    bool found = false;
    for (const char *at = words; !found && at[1]; at = strchr(at + 1, ' '))
        found = words_at(deny, at);
    free(words);
    return found;
}

static enum deny_match pattern_check(const struct deny *deny, const pcre2_code *pattern,
                                     const char *folded)
{
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    if (!data)
        return DENY_UNCHECKED;
    int rc = pcre2_match(pattern, (PCRE2_SPTR)folded, strlen(folded), 0, 0, data, deny->limits);
    pcre2_match_data_free(data);
    return rc >= 0 ? DENY_MATCHES : rc == PCRE2_ERROR_NOMATCH ? DENY_NOTHING : DENY_UNCHECKED;
}

enum deny_match deny_check(const struct deny *deny, const char *text)
{
    char *folded = fold(text);
    if (!folded)
        return DENY_UNCHECKED;
    enum deny_match match = any_words(deny, folded) ? DENY_MATCHES : DENY_NOTHING;
    for (size_t i = 0; i < deny->pattern_count && match != DENY_MATCHES; i++) {
        enum deny_match one = pattern_check(deny, deny->patterns[i], folded);
        match = one != DENY_NOTHING ? one : match;
    }
    free(folded);
    return match;
}
