/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration: one table gives each setting its flag, its UNCLIP_… variable, its config-file key,
 * default, range, unit and help. A value comes from, in rising order: default, file (`--config
 * FILE` or UNCLIP_CONFIG; `key = value` lines, # comments), environment (an empty variable is
 * none), flag. Unknown keys are errors. Keys that begin with `kafka.` pass through to librdkafka:
 * in the file as they are, in UNCLIP_SET as words KEY=VALUE, as flags `--set
 * kafka.security.protocol=ssl`.
 */
#ifndef UNCLIP_COMMON_CONFIG_H
#define UNCLIP_COMMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

/* Which programs know a setting. */
enum config_program {
    CONFIG_WORKER = 1,
    CONFIG_COORDINATOR = 2,
    CONFIG_CLIENT = 4,
    CONFIG_WEBHOOKS = 8,
    CONFIG_MAKERS = CONFIG_WORKER | CONFIG_COORDINATOR | CONFIG_CLIENT,
    CONFIG_SERVERS = CONFIG_WORKER | CONFIG_COORDINATOR | CONFIG_WEBHOOKS,
    CONFIG_ALL = CONFIG_MAKERS | CONFIG_WEBHOOKS
};

enum config_kind { CONFIG_STRING, CONFIG_INTEGER, CONFIG_FLAG };

/*
 *  X(field, flag and file key, kind, default, minimum, maximum, unit, programs, help)
 *  The variable is UNCLIP_ + the flag in upper case with - as _. Integers are int64_t, strings are
 *  owned by the config, flags are bool. A string whose unit is a list a|b|c must be one of them.
 */
#define CONFIG_TABLE(X)                                                                            \
    X(kafka, "kafka", CONFIG_STRING, "127.0.0.1:9092", 0, 0, "host:port,…", CONFIG_ALL,            \
      "Kafka bootstrap servers")                                                                   \
    X(redis, "redis", CONFIG_STRING, "127.0.0.1:6379", 0, 0, "host:port", CONFIG_MAKERS,           \
      "Redis server for statuses and the embedding cache")                                         \
    X(artifacts, "artifacts", CONFIG_STRING, "artifacts", 0, 0, "folder or s3://bucket/prefix",    \
      CONFIG_MAKERS, "where pictures are stored")                                                  \
    X(models, "models", CONFIG_STRING, "models", 0, 0, "folder", CONFIG_MAKERS,                    \
      "folder of model directories")                                                               \
    X(model, "model", CONFIG_STRING, "emoji", 0, 0, "name", CONFIG_MAKERS,                         \
      "model of jobs that name none")                                                              \
    X(fetch, "fetch", CONFIG_STRING, "public", 0, 0, "off or public,host:port,…",                  \
      CONFIG_WORKER | CONFIG_CLIENT | CONFIG_WEBHOOKS,                                             \
      "servers that may be asked for pictures, or sent webhooks")                                  \
    X(dtype, "dtype", CONFIG_STRING, "auto", 0, 0, "auto|f32|bf16", CONFIG_WORKER | CONFIG_CLIENT, \
      "number format to compute in; auto takes bf16 where the CPU has it")                         \
    X(threads, "threads", CONFIG_INTEGER, "0", 0, 1024, "threads", CONFIG_WORKER | CONFIG_CLIENT,  \
      "compute threads; 0 takes one per available core")                                           \
    X(packed, "packed", CONFIG_STRING, "auto", 0, 0, "folder", CONFIG_WORKER | CONFIG_CLIENT,      \
      "where weights are kept packed for this CPU; auto is under ~/.cache, off is nowhere")        \
    X(slot, "slot", CONFIG_INTEGER, "0", 0, 9999, "ordinal", CONFIG_SERVERS,                       \
      "stable ordinal of this process in its pool; names its transactional id")                    \
    X(batch, "batch", CONFIG_INTEGER, "8", 1, 1024, "tasks", CONFIG_WORKER,                        \
      "most tasks in one forward pass")                                                            \
    X(linger_ms, "linger-ms", CONFIG_INTEGER, "2", 0, 10000, "ms", CONFIG_WORKER,                  \
      "longest wait for a batch to fill; for a single picture, a tenth of the last pass at most")  \
    X(bulk_share, "bulk-share", CONFIG_INTEGER, "20", 1, 100, "percent", CONFIG_WORKER,            \
      "share of batches that take bulk tasks first")                                               \
    X(bulk_batch_ms, "bulk-batch-ms", CONFIG_INTEGER, "250", 1, 3600000, "ms", CONFIG_WORKER,      \
      "what a batch with bulk tasks may take, about: interactive ones wait for it")                \
    X(inflight_interactive, "inflight-interactive", CONFIG_INTEGER, "256", 1, 1000000, "pictures", \
      CONFIG_COORDINATOR, "most interactive pictures between admission and their end")             \
    X(inflight_bulk, "inflight-bulk", CONFIG_INTEGER, "128", 1, 1000000, "pictures",               \
      CONFIG_COORDINATOR, "the same for bulk; each partition has its share of both")               \
    X(waiting_jobs, "waiting-jobs", CONFIG_INTEGER, "50000", 1, 10000000, "jobs",                  \
      CONFIG_COORDINATOR, "most jobs of a class that wait on a partition; more are refused")       \
    X(waiting_per_client, "waiting-per-client", CONFIG_INTEGER, "25000", 1, 10000000, "jobs",      \
      CONFIG_COORDINATOR, "most of those that are one client's")                                   \
    X(waiting_mib, "waiting-mib", CONFIG_INTEGER, "64", 1, 1048576, "MiB", CONFIG_COORDINATOR,     \
      "most memory that jobs of a class that wait on a partition take; a client's may take half")  \
    X(status_ttl_s, "status-ttl", CONFIG_INTEGER, "86400", 60, 31536000, "s", CONFIG_COORDINATOR,  \
      "how long a finished job's status stays in Redis")                                           \
    X(cache_ttl_s, "cache-ttl", CONFIG_INTEGER, "604800", 60, 31536000, "s", CONFIG_WORKER,        \
      "how long an embedding stays in the Redis cache")                                            \
    X(death_limit, "death-limit", CONFIG_INTEGER, "3", 1, 100, "deaths", CONFIG_WORKER,            \
      "a task whose worker died so often while it ran is not run again, and fails")                \
    X(retry_limit, "retry-limit", CONFIG_INTEGER, "5", 0, 100, "tries", CONFIG_COORDINATOR,        \
      "how often a picture is tried again at one stage")                                           \
    X(retry_base_ms, "retry-base-ms", CONFIG_INTEGER, "1000", 1, 3600000, "ms",                    \
      CONFIG_COORDINATOR, "longest wait before the first try again; doubled each time")            \
    X(retry_max_ms, "retry-max-ms", CONFIG_INTEGER, "60000", 1, 86400000, "ms",                    \
      CONFIG_COORDINATOR, "longest wait before any")                                               \
    X(partitions, "partitions", CONFIG_INTEGER, "8", 1, 1000, "partitions", CONFIG_CLIENT,         \
      "partitions of each topic that `unclip topics --create` makes")                              \
    X(replication, "replication", CONFIG_INTEGER, "1", 1, 10, "replicas", CONFIG_CLIENT,           \
      "replication factor of topics that `unclip topics --create` makes")                          \
    X(deny_list, "deny-list", CONFIG_STRING, "none", 0, 0, "file", CONFIG_COORDINATOR,             \
      "words and patterns that texts of jobs may not have, one a line")                            \
    X(deny_action, "deny-action", CONFIG_STRING, "refuse", 0, 0, "refuse|flag",                    \
      CONFIG_COORDINATOR, "what is done with such a job; flag makes it, with a notice")            \
    X(probe, "probe", CONFIG_FLAG, "false", 0, 0, "", CONFIG_COORDINATOR,                          \
      "finished pictures go through image-encode, whose workers hold them against their concepts") \
    X(concepts, "concepts", CONFIG_STRING, "none", 0, 0, "file", CONFIG_WORKER,                    \
      "of image-encode: embeddings and thresholds that finished pictures are held against")        \
    X(concept_action, "concept-action", CONFIG_STRING, "refuse", 0, 0, "refuse|blur|flag",         \
      CONFIG_WORKER, "what is done with a picture that looks like a concept")                      \
    X(webhook_secret, "webhook-secret", CONFIG_STRING, "none", 0, 0, "whsec_… or @file",           \
      CONFIG_WEBHOOKS,                                                                             \
      "what webhooks are signed with; several, with blanks between, to change it")                 \
    X(webhook_tries, "webhook-tries", CONFIG_INTEGER, "10", 1, 100, "tries", CONFIG_WEBHOOKS,      \
      "how often a webhook is sent before it becomes a dead letter")                               \
    X(webhook_base_ms, "webhook-base-ms", CONFIG_INTEGER, "2000", 1, 3600000, "ms",                \
      CONFIG_WEBHOOKS, "longest wait before the second try; doubled each time")                    \
    X(webhook_max_ms, "webhook-max-ms", CONFIG_INTEGER, "300000", 1, 86400000, "ms",               \
      CONFIG_WEBHOOKS, "longest wait before any, also of one that the receiver asks for")          \
    X(webhook_timeout_ms, "webhook-timeout-ms", CONFIG_INTEGER, "10000", 10, 60000, "ms",          \
      CONFIG_WEBHOOKS, "longest wait for a receiver's answer")                                     \
    X(webhook_sends, "webhook-sends", CONFIG_INTEGER, "32", 1, 256, "webhooks", CONFIG_WEBHOOKS,   \
      "most that are sent at the same time")                                                       \
    X(webhook_host_sends, "webhook-host-sends", CONFIG_INTEGER, "4", 1, 256, "webhooks",           \
      CONFIG_WEBHOOKS, "most of them to the same host")                                            \
    X(log_level, "log-level", CONFIG_STRING, "info", 0, 0, "error|warn|info|debug", CONFIG_ALL,    \
      "least severe message to log")

struct config_kafka_setting {
    char *key; /* without the "kafka." prefix */
    char *value;
};

#define CONFIG_TYPE_CONFIG_STRING  char *
#define CONFIG_TYPE_CONFIG_INTEGER int64_t
#define CONFIG_TYPE_CONFIG_FLAG    bool

/* Owned by the caller; config_release() frees what the fields own. */
struct config {
#define X(field, flag, kind, ...) CONFIG_TYPE_##kind field;
    CONFIG_TABLE(X)
#undef X
    struct config_kafka_setting *kafka_settings;
    size_t kafka_setting_count;
    const char **origin; /* per table row: "default", "file:line", "environment", "flag" */
    bool dump;           /* --dump-config was given: the caller prints it and exits 0 */
};

/*
 * Reads default, file and environment, then takes every known flag (`--flag VALUE` or
 * `--flag=VALUE`) out of argv, leaving the others in order for the program's own parser (*argc is
 * lowered). argv strings are borrowed only during the call. A flag of the table that `program` does
 * not know is left in argv.
 */
int config_load(struct config *config, enum config_program program, int *argc, char **argv,
                struct err *err);
void config_release(struct config *config);
/* One `key = value  # origin` line each. */
void config_dump(const struct config *config, enum config_program program, FILE *out);
/* Help lines with units and defaults from the table. */
void config_help(enum config_program program, FILE *out);

#endif
