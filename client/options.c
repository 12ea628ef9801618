/* SPDX-License-Identifier: Apache-2.0 */
/* Options from tables. */
#include "client/options.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"

#define HELP_COLUMN 30

/* What the options are looked up in. */
struct lookup {
    const struct option_group *groups;
    enum job_type type;
};

static bool has(enum job_type type, const struct option *option)
{
    return option->kinds == 0 || option->kinds & KIND(type);
}

/* By its letter, or where that is 0 by its name. */
static bool is_called(const struct option *option, char letter, const char *name, size_t length)
{
    return letter ? option->letter == letter
                  : strlen(option->name) == length && strncmp(option->name, name, length) == 0;
}

/* Kinds may share a name; where the type has none of that name, another kind's is found. */
static const struct option *look_up(const struct lookup *in, char letter, const char *name,
                                    size_t length)
{
    const struct option *other = NULL;
    for (const struct option_group *group = in->groups; group->title; group++)
        for (const struct option *option = group->options; option->name; option++)
            if (is_called(option, letter, name, length)) {
                if (has(in->type, option))
                    return option;
                other = option;
            }
    return other;
}

static int foreign(const struct option *option, enum job_type type, struct err *err)
{
    char kinds[128] = "";
    for (int i = 0; i < JOB_TYPE_COUNT; i++)
        if (option->kinds & KIND(i))
            snprintf(kinds + strlen(kinds), sizeof kinds - strlen(kinds), "%s%s",
                     *kinds ? ", " : "", job_type_name((enum job_type)i));
    return err_set(err, ERR_INVALID_ARGUMENT, "--%s is not for %s, but for %s", option->name,
                   job_type_name(type), kinds);
}

static int out_of_bounds(const struct option *option, const char *text, struct err *err)
{
    if (!isfinite(option->maximum) || option->maximum > 1e12)
        return err_set(err, ERR_INVALID_ARGUMENT, "--%s is '%s', it must be a number from %.0f on",
                       option->name, text, option->minimum);
    return err_set(err, ERR_INVALID_ARGUMENT, "--%s is '%s', it must be from %.15g to %.15g",
                   option->name, text, option->minimum, option->maximum);
}

static int take_integer(const struct option *option, const char *text, int64_t *value,
                        struct err *err)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end || number < (long long)option->minimum ||
        number > (long long)option->maximum)
        return out_of_bounds(option, text, err);
    *value = number;
    return 0;
}

static int take_number(const struct option *option, const char *text, double *value,
                       struct err *err)
{
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !(number >= option->minimum && number <= option->maximum))
        return out_of_bounds(option, text, err);
    *value = number;
    return 0;
}

static int store(const struct option *option, void *values, const char *text, struct err *err)
{
    void *place = (char *)values + option->offset;
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)place = true;
        return 0;
    case OPTION_TEXT:
        *(const char **)place = text;
        return 0;
    case OPTION_INTEGER:
        return take_integer(option, text, place, err);
    case OPTION_NUMBER:
        return take_number(option, text, place, err);
    }
    BUG("an option of no kind");
}

/* A word that begins with a dash; what it names, and the value that is stuck to it (or NULL). */
static const struct option *find(const struct lookup *in, char *word, const char **value)
{
    *value = NULL;
    if (word[1] != '-') {
        *value = word[2] ? word + 2 : NULL;
        return look_up(in, word[1], NULL, 0);
    }
    char *equals = strchr(word, '=');
    if (equals)
        *value = equals + 1;
    return look_up(in, 0, word + 2, equals ? (size_t)(equals - word) - 2 : strlen(word + 2));
}

static bool asks_for_help(const char *word)
{
    return strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0;
}

/* Takes the option at argv[*at], and its value, which may be the next word. */
static int take(const struct lookup *in, void *values, int argc, char **argv, int *at,
                struct err *err)
{
    char *word = argv[*at];
    const char *value;
    const struct option *option = find(in, word, &value);

    if (!option)
        return err_set(err, ERR_INVALID_ARGUMENT, "unknown option '%s'", word);
    if (!has(in->type, option))
        return foreign(option, in->type, err);
    if (option->kind == OPTION_FLAG && value)
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s': --%s takes no value", word, option->name);
    if (option->kind != OPTION_FLAG && !value && *at + 1 == argc)
        return err_set(err, ERR_INVALID_ARGUMENT, "--%s needs a value (%s)", option->name,
                       option->unit);
    if (option->kind != OPTION_FLAG && !value)
        value = argv[++*at];
    return store(option, values, value, err);
}

int options_parse(const struct option_group *groups, enum job_type type, void *values, int *argc,
                  char **argv, bool *help, struct err *err)
{
    const struct lookup in = {groups, type};
    int operands = 1;
    bool options = true;

    for (int i = 1; i < *argc; i++) {
        char *word = argv[i];
        int rc = 0;
        if (options && strcmp(word, "--") == 0)
            options = false;
        else if (options && asks_for_help(word))
            *help = true;
        else if (options && word[0] == '-' && word[1])
            rc = take(&in, values, *argc, argv, &i, err);
        else
            argv[operands++] = word;
        if (rc < 0)
            return rc;
    }
    *argc = operands;
    return 0;
}

/* Characters, so that the columns hold beside words like "host:port,…". */
static int columns_of(const char *text)
{
    int count = 0;
    for (; *text; text++)
        count += ((unsigned char)*text & 0xc0) != 0x80;
    return count;
}

static void help_line(FILE *out, char letter, const char *name, const char *unit, const char *help,
                      const char *fallback)
{
    char left[80], dash[4] = "";
    if (letter)
        snprintf(dash, sizeof dash, "-%c,", letter);
    snprintf(left, sizeof left, "  %3s --%s %s", dash, name, unit ? unit : "");
    int gap = HELP_COLUMN - columns_of(left);
    if (gap > 0)
        fprintf(out, "%s%*s", left, gap, "");
    else
        fprintf(out, "%s\n%*s", left, HELP_COLUMN, "");
    fprintf(out, "%s", help);
    if (fallback && *fallback)
        fprintf(out, " (default %s)", fallback);
    fputc('\n', out);
}

void options_help(const struct option_group *groups, enum job_type type, FILE *out)
{
    for (; groups->title; groups++) {
        bool titled = false;
        for (const struct option *option = groups->options; option->name; option++) {
            if (!has(type, option))
                continue;
            if (!titled)
                fprintf(out, "\n%s:\n", groups->title);
            titled = true;
            help_line(out, option->letter, option->name, option->unit, option->help,
                      option->fallback);
        }
    }
}

struct setting {
    const char *flag, *fallback, *unit, *help;
};

static const struct setting settings[] = {
#define X(field, flag, kind, fallback, minimum, maximum, unit, programs, help)                     \
    {flag, fallback, unit, help},
    CONFIG_TABLE(X)
#undef X
};

static const struct setting *setting_find(const char *flag)
{
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (strcmp(settings[i].flag, flag) == 0)
            return &settings[i];
    BUG("a command's help lists a setting that does not exist");
}

void settings_help(const char *const *flags, FILE *out)
{
    if (!*flags)
        return;
    fprintf(out,
            "\nSettings (also UNCLIP_… variables and --config FILE, see unclip help settings):\n");
    for (; *flags; flags++) {
        const struct setting *setting = setting_find(*flags);
        help_line(out, 0, setting->flag, setting->unit, setting->help, setting->fallback);
    }
}
