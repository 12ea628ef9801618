/* SPDX-License-Identifier: Apache-2.0 */
/* unclip-worker STAGE: reads the command line, then worker.c. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/fault.h"
#include "common/fetch.h"
#include "common/http.h"
#include "common/image.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/redis.h"
#include "stages/nn/nn.h"
#include "workers/worker.h"

static void help(void)
{
    printf(
        "usage: unclip-worker STAGE [OPTION…]\n"
        "Works on one stage's tasks: takes them from Kafka, computes in batches, hands them on.\n"
        "Under mpirun its ranks share each batch.\n"
        "\n"
        "Stages:");
    for (int s = 0; s < STAGE_COUNT; s++)
        printf(" %s", stage_name((enum stage)s));
    printf("\n\nOptions:\n");
    config_help(CONFIG_WORKER, stdout);
    printf(
        "\n"
        "  --version       print the versions of the program and its libraries\n"
        "  -h, --help      this text\n"
        "\n"
        "SIGTERM: finish and hand on the batch in hand, then leave. A second one: leave at once;\n"
        "another worker takes the batch over.\n");
}

static void version(void)
{
    printf("unclip-worker " UNCLIP_VERSION "\n"
           "librdkafka %s\nhiredis %s\nlibvips %s\noneDNN %s\n%s\n",
           kafka_library_version(), redis_library_version(), image_library_version(),
           nn_library_version(), shard_library_version());
}

static int misuse(const char *text)
{
    fprintf(stderr, "unclip-worker: %s\nsee unclip-worker --help\n", text);
    return 2;
}

static bool asks_for(int argc, char **argv, const char *flag)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], flag) == 0)
            return true;
    return false;
}

/* What config_load() left: the stage. Fills text on misuse. */
static bool read_stage(int argc, char **argv, enum stage *stage, char *text, size_t size)
{
    for (int i = 1; i < argc; i++)
        if (argv[i][0] == '-' || i > 1) {
            snprintf(text, size, "'%s' is not known here", argv[i]);
            return false;
        }
    if (argc == 2 && stage_parse(argv[1], stage))
        return true;
    snprintf(text, size, argc == 2 ? "'%s' is no stage" : "which stage?%s",
             argc == 2 ? argv[1] : "");
    return false;
}

static int run(const struct config *config, enum stage stage, struct shard *shard)
{
    struct err err = {0};
    enum log_level level;
    char who[96];
    if (!log_level_parse(config->log_level, &level))
        return misuse("--log-level is none of error, warn, info, debug");
    snprintf(who, sizeof(who), shard_rank(shard) ? "worker %s-%lld rank %d" : "worker %s-%lld",
             stage_name(stage), (long long)config->slot, shard_rank(shard));
    log_init(who, level);
    if (fetch_check_allowed(config->fetch, &err)) {
        err_prefix(&err, "--fetch");
        return misuse(err.text);
    }
    if (fault_open(FAULT_WORKER, &err))
        return misuse(err.text);
    if (image_setup("unclip-worker", &err) || http_setup(&err) ||
        worker_run(config, stage, shard, &err)) {
        log_error("%s", err.text);
        return 1;
    }
    return 0;
}

static int start(struct config *config, int argc, char **argv, struct shard *shard)
{
    struct err err = {0};
    char text[256];
    enum stage stage;
    if (config_load(config, CONFIG_WORKER, &argc, argv, &err))
        return misuse(err.text);
    if (config->dump) {
        config_dump(config, CONFIG_WORKER, stdout);
        return 0;
    }
    if (!read_stage(argc, argv, &stage, text, sizeof(text)))
        return misuse(text);
    return run(config, stage, shard);
}

int main(int argc, char **argv)
{
    struct config config = {0};
    struct shard *shard;
    struct err err = {0};
    nn_wait_passively(argv, NN_AMONG_OTHERS);
    if (asks_for(argc, argv, "-h") || asks_for(argc, argv, "--help")) {
        help();
        return 0;
    }
    if (asks_for(argc, argv, "--version")) {
        version();
        return 0;
    }
    if (shard_open(&shard, &argc, &argv, &err)) {
        fprintf(stderr, "unclip-worker: %s\n", err.text);
        return 1;
    }
    int status = start(&config, argc, argv, shard);
    if (status) { /* threads may still run; mpirun ends the other ranks */
        fflush(NULL);
        _exit(status);
    }
    shard_close(shard);
    config_release(&config);
    return 0;
}
