/* SPDX-License-Identifier: Apache-2.0 */
/* unclip: the command line. Each subcommand is a file of its own; the table is in command.c. */
#include <jansson.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "common/image.h"
#include "common/log.h"
#include "stages/nn/nn.h"

static void help(FILE *out)
{
    const struct command *command;

    fputs("usage: unclip COMMAND [arguments]\n\n"
          "Pictures from texts and pictures: as jobs of a cluster, or in this process.\n\nCommands:\n",
          out);
    for (size_t i = 0; (command = command_at(i)); i++)
        fprintf(out, "  %-12s %s\n", command->name, command->summary);
    fputs("  help         this text; of a command: unclip help COMMAND; of all settings: unclip help "
          "settings\n"
          "  version      this program's version and its libraries'\n\n"
          "`unclip --dump-config` shows each setting and where its value comes from.\n"
          "Exit status: 0 done, 1 could not be done (the job failed; no such job, model or file), "
          "2 misuse\nof flags or arguments, 3 servers do not answer.\n",
          out);
}

static int version(void)
{
    printf("unclip %s (oneDNN %s, libvips %s, librdkafka %s, hiredis %s, jansson %s)\n",
           UNCLIP_VERSION, nn_library_version(), image_library_version(), kafka_library_version(),
           redis_library_version(), jansson_version_str());
    return EXIT_OK;
}

static int misuse(const char *what, const char *word)
{
    fprintf(stderr, "unclip: %s%s%s%s\nsee unclip --help\n", what, word ? " '" : "",
            word ? word : "", word ? "'" : "");
    return EXIT_MISUSE;
}

static int help_about(const char *topic)
{
    const struct command *command = topic ? command_find(topic) : NULL;

    if (command)
        command_help(command, stdout);
    else if (!topic)
        help(stdout);
    else if (strcmp(topic, "settings") == 0)
        config_help(CONFIG_CLIENT, stdout);
    else
        return misuse("no command", topic);
    return EXIT_OK;
}

static bool is(const char *word, const char *a, const char *b)
{
    return strcmp(word, a) == 0 || strcmp(word, b) == 0;
}

static int dispatch(const struct config *config, int argc, char **argv)
{
    enum log_level level;

    if (!log_level_parse(config->log_level, &level))
        return misuse("--log-level must be error, warn, info or debug, not", config->log_level);
    if (!setting_given(config, "log-level"))
        level = LOG_LEVEL_WARN;
    log_init("unclip", level);
    if (config->dump) {
        config_dump(config, CONFIG_CLIENT, stdout);
        return EXIT_OK;
    }
    if (argc < 2)
        return misuse("needs a command", NULL);
    const char *name = argv[1];
    if (is(name, "-h", "--help") || strcmp(name, "help") == 0)
        return help_about(argc > 2 ? argv[2] : NULL);
    if (is(name, "version", "--version"))
        return version();
    const struct command *command = command_find(name);
    if (!command)
        return misuse(name[0] == '-' ? "unknown option" : "no command", name);
    return (int)command_run(command, config, argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    struct config config;
    struct err err;

    nn_wait_passively(argv, NN_ALONE);
    setlocale(LC_CTYPE, "");
    if (config_load(&config, CONFIG_CLIENT, &argc, argv, &err) < 0)
        return misuse(err.text, NULL);
    int code = dispatch(&config, argc, argv);
    config_release(&config);
    if (fflush(stdout) != 0 && code == EXIT_OK)
        code = EXIT_FAILED;
    return code;
}
