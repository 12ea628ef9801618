/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings from the table in config.h. Sources are read in rising order (default, file,
 * environment, flags), each by store(), which checks the value and remembers where it came from.
 */
#include "common/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

#define KAFKA_PREFIX   "kafka."
#define LINE_MAX_BYTES 4096

struct row {
    const char *key;
    enum config_kind kind;
    const char *fallback;
    int64_t minimum, maximum;
    const char *unit;
    unsigned programs;
    const char *help;
    size_t offset; /* of the field in struct config */
};

static const struct row rows[] = {
#define X(field, key, kind, fallback, minimum, maximum, unit, programs, help)                      \
    {key, kind, fallback, minimum, maximum, unit, programs, help, offsetof(struct config, field)},
    CONFIG_TABLE(X)
#undef X
};
#define ROW_COUNT (sizeof rows / sizeof *rows)

static const struct row *find_row(const char *key, size_t length)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (strlen(rows[i].key) == length && memcmp(rows[i].key, key, length) == 0)
            return &rows[i];
    return NULL;
}

static void *field(const struct config *config, const struct row *row)
{
    return (char *)(uintptr_t)config + row->offset;
}

/* --- one value --- */

/* A unit such as "auto|f32|bf16" lists all values that there are. */
static bool is_choice(const char *choices, const char *value)
{
    size_t length = strlen(value);
    for (const char *at = choices; length > 0 && (at = strstr(at, value)); at++)
        if ((at == choices || at[-1] == '|') && (at[length] == '\0' || at[length] == '|'))
            return true;
    return false;
}

static int store_integer(int64_t *out, const struct row *row, const char *who, const char *value,
                         struct err *err)
{
    char *end;
    errno = 0;
    long long number = strtoll(value, &end, 10);
    bool digits = *value >= '0' && *value <= '9';
    if (!digits || *end || errno == ERANGE || number < row->minimum || number > row->maximum)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s is '%s', it must be an integer from %lld to %lld (%s)", who, value,
                       (long long)row->minimum, (long long)row->maximum, row->unit);
    *out = number;
    return 0;
}

static int store_flag(bool *out, const char *who, const char *value, struct err *err)
{
    if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s is '%s', it must be true or false", who,
                       value);
    *out = value[0] == 't';
    return 0;
}

static int store_string(char **out, const struct row *row, const char *who, const char *value,
                        struct err *err)
{
    if (strchr(row->unit, '|') && !is_choice(row->unit, value))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s is '%s', it must be %s", who, value,
                       row->unit);
    if (!*value)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s is empty, it must be %s", who, row->unit);
    free(*out);
    *out = xstrdup(value);
    return 0;
}

/* `who` names the source in messages, `origin` in --dump-config. */
static int store(struct config *config, const struct row *row, const char *who, const char *value,
                 const char *origin, struct err *err)
{
    int result;
    if (row->kind == CONFIG_INTEGER)
        result = store_integer(field(config, row), row, who, value, err);
    else if (row->kind == CONFIG_FLAG)
        result = store_flag(field(config, row), who, value, err);
    else
        result = store_string(field(config, row), row, who, value, err);
    if (result != 0)
        return result;
    const char **kept = &config->origin[row - rows];
    free((char *)(uintptr_t)*kept);
    *kept = xstrdup(origin);
    return 0;
}

static struct config_kafka_setting *find_kafka(const struct config *config, const char *key)
{
    for (size_t i = 0; i < config->kafka_setting_count; i++)
        if (strcmp(config->kafka_settings[i].key, key) == 0)
            return &config->kafka_settings[i];
    return NULL;
}

/* `key` comes without its prefix. A later value replaces an earlier one. */
static void store_kafka(struct config *config, const char *key, const char *value)
{
    struct config_kafka_setting *setting = find_kafka(config, key);
    if (!setting) {
        size_t count = ++config->kafka_setting_count;
        config->kafka_settings = xrealloc(config->kafka_settings, count * sizeof *setting);
        setting = &config->kafka_settings[count - 1];
        *setting = (struct config_kafka_setting){.key = xstrdup(key)};
    }
    free(setting->value);
    setting->value = xstrdup(value);
}

/* "kafka.KEY=VALUE", as --set and UNCLIP_SET have it. */
static int store_pair(struct config *config, const char *who, const char *pair, struct err *err)
{
    const size_t prefix = strlen(KAFKA_PREFIX);
    const char *equals = strchr(pair, '=');
    if (strncmp(pair, KAFKA_PREFIX, prefix) != 0 || !equals || equals == pair + prefix)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s is '%s', it must be kafka.KEY=VALUE", who,
                       pair);
    char *key = xasprintf("%.*s", (int)(equals - pair - (ptrdiff_t)prefix), pair + prefix);
    store_kafka(config, key, equals + 1);
    free(key);
    return 0;
}

/* --- defaults and environment --- */

static int take_defaults(struct config *config, struct err *err)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        int result = store(config, &rows[i], rows[i].key, rows[i].fallback, "default", err);
        if (result != 0)
            return result;
    }
    return 0;
}

static char *variable_name(const struct row *row) /* owned */
{
    char *name = xasprintf("UNCLIP_%s", row->key);
    for (char *c = name; *c; c++)
        *c = *c == '-' ? '_' : *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
    return name;
}

static int take_pairs_of_environment(struct config *config, struct err *err)
{
    const char *value = getenv("UNCLIP_SET");
    char *pairs = xstrdup(value ? value : ""), *rest = NULL;
    int result = 0;
    for (char *pair = strtok_r(pairs, " ", &rest); pair && result == 0;
         pair = strtok_r(NULL, " ", &rest))
        result = store_pair(config, "UNCLIP_SET", pair, err);
    free(pairs);
    return result;
}

/* An empty variable is none. */
static int take_environment(struct config *config, struct err *err)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char *name = variable_name(&rows[i]);
        const char *value = getenv(name);
        int result = 0;
        if (value && *value)
            result = store(config, &rows[i], name, value, "environment", err);
        free(name);
        if (result != 0)
            return result;
    }
    return take_pairs_of_environment(config, err);
}

/* --- the file --- */

static char *trim(char *text)
{
    text += strspn(text, " \t\r\n");
    size_t length = strlen(text);
    while (length > 0 && strchr(" \t\r\n", text[length - 1]))
        text[--length] = '\0';
    return text;
}

/* A comment starts a line or follows a blank. */
static void cut_comment(char *line)
{
    for (char *hash = line; (hash = strchr(hash, '#')); hash++)
        if (hash == line || hash[-1] == ' ' || hash[-1] == '\t') {
            *hash = '\0';
            return;
        }
}

/* `place` is "file:line". */
static int take_pair_of_file(struct config *config, const char *place, const char *key,
                             const char *value, struct err *err)
{
    const size_t prefix = strlen(KAFKA_PREFIX);
    if (strncmp(key, KAFKA_PREFIX, prefix) == 0 && key[prefix]) {
        if (find_kafka(config, key + prefix))
            return err_set(err, ERR_INVALID_ARGUMENT, "%s: '%s' is set twice", place, key);
        store_kafka(config, key + prefix, value);
        return 0;
    }
    const struct row *row = find_row(key, strlen(key));
    if (!row)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: unknown key '%s'", place, key);
    if (strcmp(config->origin[row - rows], "default") != 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: '%s' is set twice, before in %s", place, key,
                       config->origin[row - rows]);
    char *who = xasprintf("%s: '%s'", place, key);
    int result = store(config, row, who, value, place, err);
    free(who);
    return result;
}

static int take_line(struct config *config, const char *place, char *line, struct err *err)
{
    cut_comment(line);
    char *key = trim(line);
    if (!*key)
        return 0;
    char *equals = strchr(key, '=');
    if (!equals)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: '%s' is not 'key = value'", place, key);
    *equals = '\0';
    return take_pair_of_file(config, place, trim(key), trim(equals + 1), err);
}

static int take_file(struct config *config, const char *path, struct err *err)
{
    char line[LINE_MAX_BYTES];
    int result = 0;
    FILE *in = fopen(path, "re");
    if (!in)
        return err_set(err, ERR_IO, "cannot open the config file '%s': %s", path, strerror(errno));
    for (int number = 1; result == 0 && fgets(line, sizeof line, in); number++) {
        char *place = xasprintf("%s:%d", path, number);
        if (strlen(line) == sizeof line - 1 && line[sizeof line - 2] != '\n')
            result = err_set(err, ERR_INVALID_ARGUMENT, "%s: the line is longer than %d bytes",
                             place, LINE_MAX_BYTES - 2);
        else
            result = take_line(config, place, line, err);
        free(place);
    }
    if (result == 0 && ferror(in))
        result = err_set(err, ERR_IO, "cannot read the config file '%s'", path);
    fclose(in);
    return result;
}

/* --- flags --- */

/* One `--name VALUE` or `--name=VALUE` at argv[*at]. */
struct flag {
    const char *name; /* without the dashes */
    size_t length;
    const char *value; /* NULL: none after = */
};

static bool parse_flag(struct flag *flag, const char *word)
{
    if (strncmp(word, "--", 2) != 0 || !word[2])
        return false;
    const char *equals = strchr(word, '=');
    flag->name = word + 2;
    flag->length = equals ? (size_t)(equals - flag->name) : strlen(flag->name);
    flag->value = equals ? equals + 1 : NULL;
    return true;
}

static bool is_named(const struct flag *flag, const char *name)
{
    return flag->length == strlen(name) && memcmp(flag->name, name, flag->length) == 0;
}

/* The value after = or the next word, over which *at steps. */
static int take_value(struct flag *flag, const char *unit, int *at, int argc, char **argv,
                      struct err *err)
{
    if (flag->value)
        return 0;
    if (*at + 1 >= argc)
        return err_set(err, ERR_INVALID_ARGUMENT, "--%.*s needs a value: %s", (int)flag->length,
                       flag->name, unit);
    flag->value = argv[++*at];
    return 0;
}

static int take_row_flag(struct config *config, const struct row *row, struct flag *flag, int *at,
                         int argc, char **argv, struct err *err)
{
    if (row->kind == CONFIG_FLAG && !flag->value)
        flag->value = "true";
    int result = take_value(flag, row->unit, at, argc, argv, err);
    if (result != 0)
        return result;
    char *who = xasprintf("--%s", row->key);
    result = store(config, row, who, flag->value, "flag", err);
    free(who);
    return result;
}

/* *known tells whether the word at argv[*at] was ours; *at then stands on its last word. */
static int take_flag(struct config *config, enum config_program program, int *at, int argc,
                     char **argv, bool *known, struct err *err)
{
    struct flag flag;
    *known = false;
    if (!parse_flag(&flag, argv[*at]))
        return 0;
    const struct row *row = find_row(flag.name, flag.length);
    *known = true;
    if (row && (row->programs & (unsigned)program))
        return take_row_flag(config, row, &flag, at, argc, argv, err);
    if (is_named(&flag, "config")) /* read before all others */
        return take_value(&flag, "file", at, argc, argv, err);
    if (is_named(&flag, "set")) {
        int result = take_value(&flag, "kafka.KEY=VALUE", at, argc, argv, err);
        return result == 0 ? store_pair(config, "--set", flag.value, err) : result;
    }
    if (is_named(&flag, "dump-config") && !flag.value) {
        config->dump = true;
        return 0;
    }
    *known = false;
    return 0;
}

static int take_flags(struct config *config, enum config_program program, int *argc, char **argv,
                      struct err *err)
{
    int kept = 1, at = 1;
    for (; at < *argc && strcmp(argv[at], "--") != 0; at++) {
        bool known;
        int word = at, result = take_flag(config, program, &at, *argc, argv, &known, err);
        if (result != 0)
            return result;
        if (!known)
            argv[kept++] = argv[word];
    }
    while (at < *argc)
        argv[kept++] = argv[at++];
    *argc = kept;
    argv[kept] = NULL;
    return 0;
}

/* --config FILE wherever it stands, else UNCLIP_CONFIG; NULL for none. */
static int find_file(const char **path, int argc, char **argv, struct err *err)
{
    *path = getenv("UNCLIP_CONFIG");
    if (*path && !**path)
        *path = NULL;
    for (int at = 1; at < argc && strcmp(argv[at], "--") != 0; at++) {
        struct flag flag;
        if (!parse_flag(&flag, argv[at]) || !is_named(&flag, "config"))
            continue;
        int result = take_value(&flag, "file", &at, argc, argv, err);
        if (result != 0)
            return result;
        *path = flag.value;
    }
    return 0;
}

int config_load(struct config *config, enum config_program program, int *argc, char **argv,
                struct err *err)
{
    *config = (struct config){.origin = xcalloc(ROW_COUNT, sizeof *config->origin)};
    const char *path;
    int result = find_file(&path, *argc, argv, err);
    if (result == 0)
        result = take_defaults(config, err);
    if (result == 0 && path)
        result = take_file(config, path, err);
    if (result == 0)
        result = take_environment(config, err);
    if (result == 0)
        result = take_flags(config, program, argc, argv, err);
    if (result != 0)
        config_release(config);
    return result;
}

void config_release(struct config *config)
{
    for (size_t i = 0; i < ROW_COUNT && config->origin; i++) {
        free((char *)(uintptr_t)config->origin[i]);
        if (rows[i].kind == CONFIG_STRING)
            free(*(char **)field(config, &rows[i]));
    }
    for (size_t i = 0; i < config->kafka_setting_count; i++) {
        free(config->kafka_settings[i].key);
        free(config->kafka_settings[i].value);
    }
    free(config->origin);
    free(config->kafka_settings);
    *config = (struct config){0};
}

/* --- showing --- */

static bool is_secret(const char *kafka_key)
{
    static const char *const parts[] = {"password", "secret", "pem", "oauthbearer.config"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(kafka_key, parts[i]))
            return true;
    return false;
}

/* A setting that holds a secret itself, not where it is. */
static bool is_hidden(const struct row *row, const char *value)
{
    return row->offset == offsetof(struct config, webhook_secret) && value[0] != '@' &&
           strcmp(value, row->fallback) != 0;
}

static void dump_row(const struct config *config, const struct row *row, FILE *out)
{
    const void *value = field(config, row);
    fprintf(out, "%s = ", row->key);
    if (row->kind == CONFIG_INTEGER)
        fprintf(out, "%lld", (long long)*(const int64_t *)value);
    else if (row->kind == CONFIG_FLAG)
        fputs(*(const bool *)value ? "true" : "false", out);
    else if (is_hidden(row, *(char *const *)value))
        fputs("(hidden)", out);
    else
        fputs(*(char *const *)value, out);
    fprintf(out, "  # %s\n", config->origin[row - rows]);
}

void config_dump(const struct config *config, enum config_program program, FILE *out)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (rows[i].programs & (unsigned)program)
            dump_row(config, &rows[i], out);
    for (size_t i = 0; i < config->kafka_setting_count; i++) {
        const struct config_kafka_setting *setting = &config->kafka_settings[i];
        fprintf(out, KAFKA_PREFIX "%s = %s\n", setting->key,
                is_secret(setting->key) ? "(hidden)" : setting->value);
    }
}

#define HELP_COLUMN 30

/* "  --flag unit" padded by characters, not bytes. */
static void help_head(const char *flag, const char *unit, FILE *out)
{
    int width = fprintf(out, "  --%s%s%s", flag, *unit ? " " : "", unit);
    for (const char *c = unit; *c; c++)
        width -= ((unsigned char)*c & 0xc0) == 0x80;
    if (width >= HELP_COLUMN)
        width = fprintf(out, "\n") - 1;
    fprintf(out, "%*s", HELP_COLUMN - width, "");
}

static void help_row(const struct row *row, FILE *out)
{
    help_head(row->key, row->kind == CONFIG_FLAG ? "" : row->unit, out);
    fprintf(out, "%s (%s)\n", row->help, row->fallback);
}

void config_help(enum config_program program, FILE *out)
{
    for (size_t i = 0; i < ROW_COUNT; i++)
        if (rows[i].programs & (unsigned)program)
            help_row(&rows[i], out);
    help_head("set", "kafka.KEY=VALUE", out);
    fputs("a setting of librdkafka; UNCLIP_SET has several\n", out);
    help_head("config", "file", out);
    fputs("lines of 'key = value', keys as the flags (UNCLIP_CONFIG)\n", out);
    help_head("dump-config", "", out);
    fputs("show each setting and where it came from\n", out);
    fputs("  Each flag has a variable: UNCLIP_ and its name in upper case, with _ for -.\n", out);
}
