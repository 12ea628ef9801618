/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one option parser: a command's options are rows of tables, from which parsing, checks and
 * help come. Servers, folders and the like are settings of common/config.h, which are taken out of
 * the arguments first; a command only names those that its help is to list.
 */
#ifndef UNCLIP_CLIENT_OPTIONS_H
#define UNCLIP_CLIENT_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/protocol.h"

/* What each kind puts at its offset: bool, const char * (into argv), int64_t, double. */
enum option_kind { OPTION_FLAG = 1, OPTION_TEXT, OPTION_INTEGER, OPTION_NUMBER };

struct option {
    const char *name; /* without the dashes; NULL ends a table */
    char letter;      /* 0: none */
    enum option_kind kind;
    const char *unit;        /* of the value, for help: "N" */
    double minimum, maximum; /* of numbers */
    const char *fallback;    /* the default in words; NULL: nothing to say */
    size_t offset;           /* of the value in the command's struct */
    const char *help;
    unsigned kinds; /* KIND() of the kinds of job that have it; 0: of no matter */
};
#define KIND(type) (1u << (type))

/* A titled group of options in help. A NULL title ends a list. */
struct option_group {
    const char *title;
    const struct option *options;
};

/*
 * Takes the options of `groups` that a job of this type has out of argv (argv[0] is skipped),
 * leaving the operands in order: *argc is lowered to 1 + their number. "--" ends the options.
 * `values` holds the defaults before. *help is set when -h or --help is met. Error:
 * ERR_INVALID_ARGUMENT.
 */
int options_parse(const struct option_group *groups, enum job_type type, void *values, int *argc,
                  char **argv, bool *help, struct err *err);
/* Each group with its title, if such a job has any of it. */
void options_help(const struct option_group *groups, enum job_type type, FILE *out);
/* Settings by their flags, NULL-terminated, with units and defaults. */
void settings_help(const char *const *flags, FILE *out);

#endif
