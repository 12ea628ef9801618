/* SPDX-License-Identifier: Apache-2.0 */
/* unclip-coordinator: its command line. The work is in coordinator.c. */
#include <jansson.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config.h"
#include "common/fault.h"
#include "common/http.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/redis.h"
#include "coordinator/coordinator.h"

#define LARGE_BYTES (64 << 10)

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
    puts("usage: unclip-coordinator [settings]\n\n"
         "Takes jobs from Kafka, plans and tracks them, and shows their status in Redis.\n"
         "Runs until SIGTERM or SIGINT. Any number of coordinators share the work; each needs\n"
         "a slot of its own.\n");
    config_help(CONFIG_COORDINATOR, stdout);
    puts("\nOther:\n"
         "  -h, --help            this text\n"
         "      --version         this program's version and its libraries'\n"
         "      --dump-config     each setting, and where its value comes from");
    return 0;
}

static int version(void)
{
    printf("unclip-coordinator %s (librdkafka %s, hiredis %s, jansson %s)\n", UNCLIP_VERSION,
           kafka_library_version(), redis_library_version(), jansson_version_str());
    return 0;
}

static int misuse(const char *reason)
{
    fprintf(stderr, "unclip-coordinator: %s\nsee unclip-coordinator --help\n", reason);
    return 2;
}

/* What librdkafka's threads take for a while is not to stay beside the jobs that wait: small pieces
   are of one arena, and become jobs; large ones go back to the system. */
static void keep_memory_small(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_THRESHOLD, LARGE_BYTES);
}

static int run(const struct config *config)
{
    struct err err;
    char who[48];
    enum log_level level;

    if (!log_level_parse(config->log_level, &level))
        return misuse("--log-level must be error, warn, info or debug");
    snprintf(who, sizeof who, "coordinator-%lld", (long long)config->slot);
    log_init(who, level);
    if (fault_open(FAULT_COORDINATOR, &err) < 0)
        return misuse(err.text);
    keep_memory_small();
    catch_signals();
    if (http_setup(&err) < 0 || coordinator_run(config, &stop, &err) < 0) {
        log_error("%s", err.text);
        return 1;
    }
    log_info("stopped");
    return 0;
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
    if (config_load(&config, CONFIG_COORDINATOR, &argc, argv, &err) < 0)
        return misuse(err.text);
    if (argc > 1) {
        char *reason = xasprintf("unknown argument '%s'", argv[1]);
        rc = misuse(reason);
        free(reason);
    } else if (config.dump) {
        config_dump(&config, CONFIG_COORDINATOR, stdout);
        rc = 0;
    } else {
        rc = run(&config);
    }
    config_release(&config);
    return rc;
}
