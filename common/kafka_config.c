/* SPDX-License-Identifier: Apache-2.0 */
/*
 * librdkafka's settings: the table says which differ from its defaults and why; `kafka.*` keys of
 * the configuration come on top, but for those that exactly-once delivery rests on.
 */
#include <string.h>

#include "common/kafka_internal.h"
#include "common/log.h"

#define SERVER (KAFKA_CONSUMER | KAFKA_PRODUCER)
#define READER (KAFKA_CONSUMER | KAFKA_REPLAYER)
#define WRITER (KAFKA_PRODUCER | KAFKA_CLIENT)
#define EVERY  (SERVER | KAFKA_CLIENT | KAFKA_REPLAYER)

/*  X(key, value, roles, the user may change it, why) */
#define SETTING_TABLE(X)                                                                           \
    X("client.id", "unclip", EVERY, true, "a name in the broker's logs")                           \
    X("socket.nagle.disable", "true", EVERY, true, "40 ms less on small requests")                 \
    X("reconnect.backoff.max.ms", "1000", EVERY, true, "soon back after a broker's restart")       \
    X("log.connection.close", "false", EVERY, true, "brokers close idle connections")              \
    X("enable.auto.commit", "false", READER, false, "offsets go through the transaction")          \
    X("enable.auto.offset.store", "false", READER, false, "the same")                              \
    X("isolation.level", "read_committed", READER, false, "never sees an aborted output")          \
    X("auto.offset.reset", "earliest", READER, false, "a new group skips nothing")                 \
    X("allow.auto.create.topics", "false", READER, true, "a mistyped topic is an error")           \
    X("session.timeout.ms", "6000", KAFKA_CONSUMER, true, "takeover of a dead worker's tasks")     \
    X("heartbeat.interval.ms", "1000", KAFKA_CONSUMER, true, "hears of rebalances soon")           \
    X("max.poll.interval.ms", "300000", KAFKA_CONSUMER, true, "a stuck member's eviction")         \
    X("queued.min.messages", "10000", KAFKA_CONSUMER, true,                                        \
      "prefetch: a second's work, see below")                                                      \
    X("queued.max.messages.kbytes", "32768", KAFKA_CONSUMER, true, "the same in bytes")            \
    X("fetch.wait.max.ms", "100", KAFKA_CONSUMER, true, "how long a broker holds a fetch")         \
    X("fetch.wait.max.ms", "10", KAFKA_REPLAYER, true, "the end of a log is reached quickly")      \
    X("enable.partition.eof", "true", KAFKA_REPLAYER, false, "tells where the end is")             \
    X("group.id", "unclip-replay", KAFKA_REPLAYER, false, "required, but never joined")            \
    X("enable.idempotence", "true", WRITER, false, "retries make no duplicates")                   \
    X("transaction.timeout.ms", "15000", KAFKA_PRODUCER, true, "a transaction lasts milliseconds") \
    X("linger.ms", "0", WRITER, true, "the commit flushes anyway")                                 \
    X("retry.backoff.ms", "5", KAFKA_PRODUCER, true, "CONCURRENT_TRANSACTIONS costs 100 ms else")  \
    X("partitioner", "murmur2_random", WRITER, true, "as Java's producer does")

/* A lane's partitions share one queue, and librdkafka 2.0.2 counts all of it for each of them.
   While it is fuller than these limits say nothing is fetched, and the thread that fetches looks
   again only after a second: a queue that is empty by then starves the lane. What is prefetched and
   not pulled keeps nobody from anything: when a partition goes, it is dropped. */
static const struct setting {
    const char *key, *value;
    unsigned roles;
    bool open;
} settings[] = {
#define X(key, value, roles, open, why) {key, value, roles, open},
    SETTING_TABLE(X)
#undef X
};
#define SETTING_COUNT (sizeof(settings) / sizeof(*settings))

/* Keys that kafka_open() sets itself. */
static const char *const reserved[] = {
    "bootstrap.servers",   "metadata.broker.list", "group.id",
    "group.instance.id",   "transactional.id",     "partition.assignment.strategy",
    "enable.partition.eof"};

static bool key_guarded(const char *key)
{
    for (size_t i = 0; i < sizeof(reserved) / sizeof(*reserved); i++)
        if (strcmp(reserved[i], key) == 0)
            return true;
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (!settings[i].open && strcmp(settings[i].key, key) == 0)
            return true;
    return false;
}

int kafka_conf_set(rd_kafka_conf_t *conf, const char *key, const char *value, struct err *err)
{
    char text[256];
    if (rd_kafka_conf_set(conf, key, value, text, sizeof(text)) == RD_KAFKA_CONF_OK)
        return 0;
    return err_set(err, ERR_INVALID_ARGUMENT, "kafka.%s = '%s': %s", key, value, text);
}

static int set_table(rd_kafka_conf_t *conf, unsigned role, struct err *err)
{
    for (size_t i = 0; i < SETTING_COUNT; i++)
        if (settings[i].roles & role) {
            int rc = kafka_conf_set(conf, settings[i].key, settings[i].value, err);
            if (rc)
                return rc;
        }
    return 0;
}

static int set_user(rd_kafka_conf_t *conf, const struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->kafka_setting_count; i++) {
        const struct config_kafka_setting *set = &config->kafka_settings[i];
        if (key_guarded(set->key))
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "kafka.%s cannot be changed: delivery depends on it", set->key);
        int rc = kafka_conf_set(conf, set->key, set->value, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* librdkafka's own threads call this. Lost connections are told once, by kafka_error_note();
   warnings about settings of the other role are noise: consumers and producers get the same
   `kafka.*` keys. */
static void on_log(const rd_kafka_t *handle, int level, const char *facility, const char *text)
{
    (void)handle;
    if (strcmp(facility, "CONFWARN") == 0)
        return;
    log_at(level <= 2 ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "kafka: %s: %s", facility, text);
}

int kafka_conf_new(rd_kafka_conf_t **out, const struct config *config, enum kafka_role role,
                   struct err *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, on_log);
    int rc = set_table(conf, role, err);
    if (!rc)
        rc = kafka_conf_set(conf, "bootstrap.servers", config->kafka, err);
    if (!rc)
        rc = set_user(conf, config, err);
    if (rc) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    *out = conf;
    return 0;
}

int kafka_handle_new(rd_kafka_t **out, rd_kafka_type_t type, rd_kafka_conf_t *conf, struct err *err)
{
    char text[256];
    rd_kafka_t *handle = rd_kafka_new(type, conf, text, sizeof(text));
    if (!handle) {
        rd_kafka_conf_destroy(conf);
        return err_set(err, ERR_KAFKA, "cannot set Kafka up: %s", text);
    }
    *out = handle;
    return 0;
}
