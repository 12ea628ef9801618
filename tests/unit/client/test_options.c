/* SPDX-License-Identifier: Apache-2.0 */
/* The option parser: what it takes, what it leaves, what it says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/command.h"
#include "client/options.h"

struct values {
    bool flag;
    const char *text;
    int64_t integer;
    double number;
};

static const struct option first[] = {
    {"flag", 'f', OPTION_FLAG, NULL, 0, 0, NULL, offsetof(struct values, flag), "a flag"},
    {"text", 't', OPTION_TEXT, "TEXT", 0, 0, "nothing", offsetof(struct values, text), "a text"},
    {0},
};
static const struct option second[] = {
    {"integer", 0, OPTION_INTEGER, "N", -5, 9007199254740991.0, NULL,
     offsetof(struct values, integer), "an integer"},
    {"number", 'x', OPTION_NUMBER, "X", 0, 100, "1.5", offsetof(struct values, number), "a number"},
    {0},
};
static const struct option_group groups[] = {{"First", first}, {"Second", second}, {0}};

struct outcome {
    struct values values;
    int rc, argc;
    bool help;
    char *argv[12];
    char memory[256];
    struct err err;
};

/* Parses words that are parted by '|'. */
static void parse(struct outcome *outcome, const char *words)
{
    *outcome = (struct outcome){.argc = 1, .argv = {(char[]){"command"}}};
    strcpy(outcome->memory, words);
    char *rest = outcome->memory, *word;
    while (*words && (word = strsep(&rest, "|")))
        outcome->argv[outcome->argc++] = word;
    outcome->rc = options_parse(groups, JOB_TEXT_TO_IMAGE, &outcome->values, &outcome->argc,
                                outcome->argv, &outcome->help, &outcome->err);
}

static void test_all_kinds(void **state)
{
    struct outcome o;
    (void)state;
    parse(&o, "one|-f|--text=a=b|two|--integer|-5|-x2.5|--|--flag");
    assert_int_equal(o.rc, 0);
    assert_true(o.values.flag);
    assert_string_equal(o.values.text, "a=b");
    assert_int_equal(o.values.integer, -5);
    assert_true(o.values.number == 2.5);
    assert_int_equal(o.argc, 4);
    assert_string_equal(o.argv[1], "one");
    assert_string_equal(o.argv[2], "two");
    assert_string_equal(o.argv[3], "--flag");
    assert_false(o.help);
}

/* Kinds of job share a name; those that have none of it are told who does. */
static void test_options_of_kinds(void **state)
{
    static const struct option own[] = {
        {"from", 0, OPTION_TEXT, "TEXT", 0, 0, NULL, offsetof(struct values, text), "a caption",
         KIND(JOB_TEXT_DIFF)},
        {"from", 0, OPTION_INTEGER, "N", 0, 9, NULL, offsetof(struct values, integer), "a size",
         KIND(JOB_UPSCALE) | KIND(JOB_SCORE)},
        {0},
    };
    static const struct option_group kinds[] = {{"Own", own}, {"First", first}, {0}};
    (void)state;
    for (enum job_type type = 0; type < JOB_CANCEL; type++) {
        struct values values = {0};
        struct err err = {0};
        bool help = false;
        char *argv[] = {(char[]){"x"}, (char[]){"--from"}, (char[]){"7"}, NULL};
        int argc = 3, rc = options_parse(kinds, type, &values, &argc, argv, &help, &err);
        bool text = type == JOB_TEXT_DIFF, size = type == JOB_UPSCALE || type == JOB_SCORE;
        assert_int_equal(rc, text || size ? 0 : -ERR_INVALID_ARGUMENT);
        assert_true((values.text != NULL) == text);
        assert_int_equal(values.integer, size ? 7 : 0);
        if (type == JOB_EDIT)
            assert_string_equal(err.text, "--from is not for edit, but for upscale, score");
    }
    char *words = NULL;
    size_t size;
    FILE *out = open_memstream(&words, &size);
    options_help(kinds, JOB_EDIT, out);
    fclose(out);
    assert_null(strstr(words, "Own"));
    assert_non_null(strstr(words, "--flag"));
    free(words);
}

static void test_nothing(void **state)
{
    struct outcome o;
    (void)state;
    parse(&o, "");
    assert_int_equal(o.rc, 0);
    assert_int_equal(o.argc, 1);
    parse(&o, "-");
    assert_int_equal(o.rc, 0);
    assert_int_equal(o.argc, 2); /* a dash alone is an operand */
    parse(&o, "--integer|9007199254740991");
    assert_int_equal(o.values.integer, 9007199254740991);
}

static void test_misuse(void **state)
{
    static const struct {
        const char *words, *message;
    } cases[] = {
        {"--surprise", "unknown option '--surprise'"},
        {"-y", "unknown option '-y'"},
        {"--fla", "unknown option '--fla'"},
        {"--flag=1", "'--flag=1': --flag takes no value"},
        {"-t", "--text needs a value (TEXT)"},
        {"--number|101", "--number is '101', it must be from 0 to 100"},
        {"--number|nan", "--number is 'nan', it must be from 0 to 100"},
        {"--number|", "--number is '', it must be from 0 to 100"},
        {"--integer|1.5", "--integer is '1.5', it must be a number from -5 on"},
        {"--integer|99999999999999999999",
         "--integer is '99999999999999999999', it must be a number from -5 on"},
        {"--integer|-6", "--integer is '-6', it must be a number from -5 on"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct outcome o;
        parse(&o, cases[i].words);
        assert_int_equal(o.rc, -ERR_INVALID_ARGUMENT);
        assert_string_equal(o.err.text, cases[i].message);
    }
}

static void test_help_is_asked_for(void **state)
{
    struct outcome o;
    (void)state;
    parse(&o, "-h");
    assert_true(o.help);
    parse(&o, "one|--help");
    assert_true(o.help);
    parse(&o, "--text|--help");
    assert_false(o.help);
    assert_string_equal(o.values.text, "--help");
}

static char *help_of(const struct command *command)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    command_help(command, out);
    fclose(out);
    return text;
}

/* Every command's help names all of its options, and no line is wider than a terminal. */
static void test_help_of_every_command(void **state)
{
    const struct command *command;
    (void)state;
    for (size_t i = 0; (command = command_at(i)); i++) {
        char *help = help_of(command), *rest = help, *line;
        for (const struct option_group *group = command->groups; group->title; group++)
            for (const struct option *option = group->options; option->name; option++) {
                char name[64];
                snprintf(name, sizeof name, "--%s", option->name);
                assert_non_null(option->help);
                if (!option->kinds || option->kinds & KIND(command->type))
                    assert_non_null(strstr(help, name));
            }
        while ((line = strsep(&rest, "\n")))
            if (strlen(line) > 110)
                fail_msg("a line of %s --help is too wide: %s", command->name, line);
        assert_ptr_equal(command_find(command->name), command);
        free(help);
    }
    assert_null(command_find("surprise"));
}

static bool clash(const struct option *a, const struct option *b)
{
    bool meet = !a->kinds || !b->kinds || a->kinds & b->kinds;
    return a != b && meet &&
           (strcmp(a->name, b->name) == 0 || (a->letter && a->letter == b->letter));
}

/* Names, letters and settings of a command must not clash. */
static void test_options_are_distinct(void **state)
{
    const struct command *command;
    (void)state;
    for (size_t i = 0; (command = command_at(i)); i++)
        for (const struct option_group *g = command->groups; g->title; g++)
            for (const struct option *a = g->options; a->name; a++) {
                assert_true(a->letter != 'h');
                for (const struct option_group *h = command->groups; h->title; h++)
                    for (const struct option *b = h->options; b->name; b++)
                        assert_false(clash(a, b));
#define X(field, flag, ...) assert_string_not_equal(a->name, flag);
                CONFIG_TABLE(X)
#undef X
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_kinds),
        cmocka_unit_test(test_options_of_kinds),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_help_is_asked_for),
        cmocka_unit_test(test_help_of_every_command),
        cmocka_unit_test(test_options_are_distinct),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
