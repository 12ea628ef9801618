/* SPDX-License-Identifier: Apache-2.0 */
/* The table of subcommands, their help and their start. */
#include "client/command.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "client/text.h"
#include "common/memory.h"

static const struct command *const commands[] = {
    &submit_command, &generate_command,  &variation_command, &interpolate_command,
    &edit_command,   &text_diff_command, &upscale_command,   &embed_command,
    &score_command,  &status_command,    &watch_command,     &list_command,
    &cancel_command, &info_command,      &model_command,     &topics_command,
    &stages_command, &dlq_command,
};
#define COMMANDS (sizeof commands / sizeof *commands)

const struct command *command_at(size_t index)
{
    return index < COMMANDS ? commands[index] : NULL;
}

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

void command_help(const struct command *command, FILE *out)
{
    fprintf(out, "usage: unclip %s%s%s [options]\n\n%s\n", command->name,
            *command->operands ? " " : "", command->operands, command->summary);
    if (command->details)
        fprintf(out, "%s", command->details);
    options_help(command->groups, command->type, out);
    settings_help(command->settings, out);
    if (command->examples)
        fprintf(out, "\nExamples:\n%s", command->examples);
}

static enum exit_code misuse(const struct command *command, const char *reason)
{
    fprintf(stderr, "unclip %s: %s\nsee unclip %s --help\n", command->name, reason, command->name);
    return EXIT_MISUSE;
}

static enum exit_code operand_misuse(const struct command *command, int count, char **operands)
{
    char *reason = count < command->least
                       ? xasprintf("needs %s", command->operands)
                       : xasprintf("too many arguments: '%s'", operands[command->most]);
    enum exit_code code = misuse(command, reason);
    free(reason);
    return code;
}

enum exit_code command_run(const struct command *command, const struct config *config, int argc,
                           char **argv)
{
    struct err err;
    bool help = false;
    enum exit_code code;
    void *values = xcalloc(1, command->values_size + 1);

    if (command->defaults)
        command->defaults(values);
    if (options_parse(command->groups, command->type, values, &argc, argv, &help, &err) < 0) {
        code = misuse(command, err.text);
    } else if (help) {
        command_help(command, stdout);
        code = EXIT_OK;
    } else if (argc - 1 < command->least || argc - 1 > command->most) {
        code = operand_misuse(command, argc - 1, argv + 1);
    } else {
        code = command->run(&(struct invocation){
            .command = command,
            .config = config,
            .values = values,
            .count = argc - 1,
            .operands = argv + 1,
        });
    }
    free(values);
    return code;
}

void complain(const struct invocation *invocation, const char *format, ...)
{
    va_list args;
    fflush(stdout);
    fprintf(stderr, "unclip %s: ", invocation->command->name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

static enum exit_code exit_code_of(enum err_code code)
{
    switch (code) {
    case ERR_KAFKA:
    case ERR_REDIS:
    case ERR_TIMEOUT:
        return EXIT_UNREACHABLE;
    case ERR_INVALID_JOB:
    case ERR_INVALID_ARGUMENT:
        return EXIT_MISUSE;
    default:
        return EXIT_FAILED;
    }
}

enum exit_code complain_of(const struct invocation *invocation, const struct err *err)
{
    char *text = xstrdup(err->text);
    text_trim_kafka(text);
    complain(invocation, "%s", text);
    free(text);
    return exit_code_of(err->code);
}

bool setting_given(const struct config *config, const char *flag)
{
    static const char *const flags[] = {
#define X(field, flag, ...) flag,
        CONFIG_TABLE(X)
#undef X
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (strcmp(flags[i], flag) == 0)
            return strcmp(config->origin[i], "default") != 0;
    BUG("a setting that does not exist");
}
