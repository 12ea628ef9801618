/* SPDX-License-Identifier: Apache-2.0 */
/* unclip-webhooks: its command line. The work is in webhooks.c. */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/fetch.h"
#include "common/http.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/memory.h"
#include "webhooks/webhooks.h"

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
    (void)number;
    stop = 1;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static int help(void)
{
    puts("usage: unclip-webhooks [settings]\n\n"
         "Sends the final record of each job that names a webhook to it, signed as the Standard\n"
         "Webhooks specification says. Runs until SIGTERM or SIGINT. Several share the work; each\n"
         "needs a slot of its own.\n");
    config_help(CONFIG_WEBHOOKS, stdout);
    puts("\nOther:\n"
         "  -h, --help            this text\n"
         "      --version         this program's version and its libraries'\n"
         "      --dump-config     each setting, and where its value comes from");
    return 0;
}

static int version(void)
{
    printf("unclip-webhooks %s (librdkafka %s, libcurl %s, jansson %s)\n", UNCLIP_VERSION,
           kafka_library_version(), http_library_version(), jansson_version_str());
    return 0;
}

static int misuse(const char *reason)
{
    fprintf(stderr, "unclip-webhooks: %s\nsee unclip-webhooks --help\n", reason);
    return 2;
}

/* Every user of the host sees the command lines of its processes. */
static bool shows_secret(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], "whsec_", 6) == 0 || strstr(argv[i], "=whsec_"))
            return true;
    return false;
}

/* Misuse's status, or 0 with the secrets to be released. */
static int prepare(const struct config *config, struct secrets *secrets)
{
    struct err err;
    char who[48];
    enum log_level level;

    if (!log_level_parse(config->log_level, &level))
        return misuse("--log-level must be error, warn, info or debug");
    snprintf(who, sizeof who, "webhooks-%lld", (long long)config->slot);
    log_init(who, level);
    if (fetch_check_allowed(config->fetch, &err) < 0) {
        err_prefix(&err, "--fetch");
        return misuse(err.text);
    }
    if (strcmp(config->webhook_secret, "none") == 0)
        return misuse(
            "what are webhooks signed with? set UNCLIP_WEBHOOK_SECRET, or --webhook-secret "
            "@FILE");
    if (secrets_open(secrets, config->webhook_secret, &err) < 0) {
        err_prefix(&err, "webhook-secret");
        return misuse(err.text);
    }
    return 0;
}

static int run(const struct config *config)
{
    struct err err;
    struct secrets secrets;
    int rc = prepare(config, &secrets);

    if (rc)
        return rc;
    catch_signals();
    rc = http_setup(&err);
    if (!rc)
        rc = webhooks_run(config, &secrets, &stop, &err);
    secrets_release(&secrets);
    if (rc < 0)
        log_error("%s", err.text);
    else
        log_info("stopped");
    return rc < 0;
}

int main(int argc, char **argv)
{
    struct config config;
    struct err err;
    int rc;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-h") == 0 || strcmp(argv[i], "--help") == 0)
            return help();
        if (strcmp(argv[i], "--version") == 0)
            return version();
    }
    if (shows_secret(argc, argv))
        return misuse("a secret on the command line can be read by others: give it in "
                      "UNCLIP_WEBHOOK_SECRET, or as --webhook-secret @FILE");
    if (config_load(&config, CONFIG_WEBHOOKS, &argc, argv, &err) < 0)
        return misuse(err.text);
    if (argc > 1) {
        char *reason = xasprintf("unknown argument '%s'", argv[1]);
        rc = misuse(reason);
        free(reason);
    } else if (config.dump) {
        config_dump(&config, CONFIG_WEBHOOKS, stdout);
        rc = 0;
    } else {
        rc = run(&config);
    }
    config_release(&config);
    return rc;
}
