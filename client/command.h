/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The subcommands of unclip: one row of a table each, one file each. What all of them share: the
 * settings, the servers, the exit codes.
 */
#ifndef UNCLIP_CLIENT_COMMAND_H
#define UNCLIP_CLIENT_COMMAND_H

#include <stdbool.h>

#include "client/options.h"
#include "common/config.h"
#include "common/err.h"
#include "common/kafka.h"
#include "common/redis.h"

enum exit_code {
    EXIT_OK = 0,
    EXIT_FAILED = 1, /* could not be done: the job failed, or there is no such job, model or file */
    EXIT_MISUSE = 2, /* flags or arguments that cannot be meant */
    EXIT_UNREACHABLE = 3, /* Kafka or Redis does not answer */
};

#define SETTINGS_MAX 10

/* One invocation. */
struct invocation {
    const struct command *command;
    const struct config *config; /* borrowed */
    void *values;                /* the command's options */
    int count;                   /* of operands */
    char **operands;
};

struct command {
    const char *name;
    const char *operands; /* in usage: "PROMPT" */
    int least, most;      /* operands */
    const char *summary;  /* one line */
    const char *details;  /* more lines, each with its newline; or NULL; as are the next */
    const char *examples;
    enum job_type type; /* that it makes, of those that do */
    const struct option_group *groups;
    size_t values_size;
    void (*defaults)(void *values); /* NULL: all zero */
    const char *settings[SETTINGS_MAX];
    enum exit_code (*run)(const struct invocation *invocation);
};

extern const struct command submit_command, generate_command, variation_command,
    interpolate_command, edit_command, text_diff_command, upscale_command, embed_command,
    score_command, status_command, watch_command, list_command, cancel_command, model_command,
    info_command, topics_command, dlq_command, stages_command;

const struct command *command_find(const char *name); /* NULL: none */
const struct command *command_at(size_t index);       /* in the order of help; NULL at the end */
void command_help(const struct command *command, FILE *out);
/* Parses the command's own arguments (argv[0] is its name) and runs it. */
enum exit_code command_run(const struct command *command, const struct config *config, int argc,
                           char **argv);

/* Says "unclip NAME: text" on stderr. */
void complain(const struct invocation *invocation, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for an error; returns the exit code that it means. */
enum exit_code complain_of(const struct invocation *invocation, const struct err *err);

/* "file", "environment" or "flag" rather than "default". `flag` is a row of CONFIG_TABLE. */
bool setting_given(const struct config *config, const char *flag);

#endif
