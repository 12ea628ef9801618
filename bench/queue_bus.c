/* SPDX-License-Identifier: Apache-2.0 */
/* librdkafka behind queue_bus.h. */
#include "bench/queue_bus.h"

#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/memory.h"

#define ASK_MS   10000
#define FLUSH_MS 60000

struct bus_producer {
    rd_kafka_t *handle;
};

struct bus_tail {
    rd_kafka_t *handle;
    char *topic;
    int partitions;
    int64_t *from; /* [partitions] */
};

double bus_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

_Noreturn static void die(const char *what, const char *why)
{
    fprintf(stderr, "unclip-bench-queue: %s: %s\n", what, why);
    exit(1);
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value)
{
    char text[256];
    if (rd_kafka_conf_set(conf, key, value, text, sizeof(text)) != RD_KAFKA_CONF_OK)
        die(key, text);
}

static rd_kafka_t *handle_open(rd_kafka_type_t type, rd_kafka_conf_t *conf, const char *brokers)
{
    char text[256];
    set(conf, "bootstrap.servers", brokers);
    set(conf, "socket.nagle.disable", "true");
    rd_kafka_t *handle = rd_kafka_new(type, conf, text, sizeof(text));
    if (!handle)
        die("cannot set Kafka up", text);
    return handle;
}

/* --- producing --- */

static void on_delivery(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
    (void)handle, (void)opaque;
    if (message->err)
        die("a record was not taken", rd_kafka_err2str(message->err));
}

struct bus_producer *bus_producer_open(const char *brokers, int linger_ms)
{
    struct bus_producer *producer = xcalloc(1, sizeof(*producer));
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char linger[16];
    snprintf(linger, sizeof(linger), "%d", linger_ms);
    set(conf, "enable.idempotence", "true");
    set(conf, "linger.ms", linger);
    set(conf, "partitioner", "murmur2_random");
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    producer->handle = handle_open(RD_KAFKA_PRODUCER, conf, brokers);
    return producer;
}

void bus_producer_close(struct bus_producer *producer)
{
    rd_kafka_destroy(producer->handle);
    free(producer);
}

static rd_kafka_resp_err_t produce(rd_kafka_t *handle, const char *topic, const char *key,
                                   const void *value, size_t size, const char *header)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(1);
    if (header)
        rd_kafka_header_add(headers, "task", -1, header, -1);
    rd_kafka_resp_err_t code = rd_kafka_producev(
        handle, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(key, strlen(key)),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)value, size), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
    if (code)
        rd_kafka_headers_destroy(headers);
    return code;
}

void bus_send(struct bus_producer *producer, const char *topic, const char *key, const void *value,
              size_t size, const char *header)
{
    rd_kafka_resp_err_t code;
    while ((code = produce(producer->handle, topic, key, value, size, header)) ==
           RD_KAFKA_RESP_ERR__QUEUE_FULL)
        rd_kafka_poll(producer->handle, 10);
    if (code)
        die("cannot produce", rd_kafka_err2str(code));
    rd_kafka_poll(producer->handle, 0);
}

void bus_flush(struct bus_producer *producer)
{
    rd_kafka_resp_err_t code = rd_kafka_flush(producer->handle, FLUSH_MS);
    if (code)
        die("cannot flush", rd_kafka_err2str(code));
}

/* --- reading --- */

static int count_partitions(rd_kafka_t *handle, const char *name)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(handle, name, NULL);
    rd_kafka_resp_err_t code = rd_kafka_metadata(handle, 0, topic, &metadata, ASK_MS);
    if (code)
        die(name, rd_kafka_err2str(code));
    int count = metadata->topic_cnt == 1 ? metadata->topics[0].partition_cnt : 0;
    if (count < 1)
        die(name, "no such topic");
    rd_kafka_metadata_destroy(metadata);
    rd_kafka_topic_destroy(topic);
    return count;
}

void bus_tail_skip(struct bus_tail *tail)
{
    for (int i = 0; i < tail->partitions; i++) {
        int64_t low;
        rd_kafka_resp_err_t code = rd_kafka_query_watermark_offsets(tail->handle, tail->topic, i,
                                                                    &low, &tail->from[i], ASK_MS);
        if (code)
            die(tail->topic, rd_kafka_err2str(code));
    }
}

static void assign(struct bus_tail *tail)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(tail->partitions);
    for (int i = 0; i < tail->partitions; i++)
        rd_kafka_topic_partition_list_add(list, tail->topic, i)->offset = tail->from[i];
    rd_kafka_resp_err_t code = rd_kafka_assign(tail->handle, list);
    if (code)
        die(tail->topic, rd_kafka_err2str(code));
    rd_kafka_topic_partition_list_destroy(list);
}

struct bus_tail *bus_tail_open(const char *brokers, const char *topic)
{
    struct bus_tail *tail = xcalloc(1, sizeof(*tail));
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", "unclip-bench");
    set(conf, "enable.auto.commit", "false");
    set(conf, "isolation.level", "read_committed");
    tail->handle = handle_open(RD_KAFKA_CONSUMER, conf, brokers);
    rd_kafka_poll_set_consumer(tail->handle);
    tail->topic = xstrdup(topic);
    tail->partitions = count_partitions(tail->handle, topic);
    tail->from = xcalloc((size_t)tail->partitions, sizeof(*tail->from));
    bus_tail_skip(tail);
    assign(tail);
    return tail;
}

void bus_tail_close(struct bus_tail *tail)
{
    rd_kafka_consumer_close(tail->handle);
    rd_kafka_destroy(tail->handle);
    free(tail->topic);
    free(tail->from);
    free(tail);
}

static bool take(const struct bus_tail *tail, const rd_kafka_message_t *message,
                 struct bus_record *record)
{
    if (message->err || message->offset < tail->from[message->partition])
        return false;
    size_t length = message->key_len < BUS_KEY_SIZE ? message->key_len : BUS_KEY_SIZE - 1;
    *record = (struct bus_record){.partition = message->partition,
                                  .offset = message->offset,
                                  .empty = message->payload == NULL};
    if (message->key)
        memcpy(record->key, message->key, length);
    return true;
}

bool bus_tail_next(struct bus_tail *tail, int timeout_ms, struct bus_record *record)
{
    rd_kafka_message_t *message = rd_kafka_consumer_poll(tail->handle, timeout_ms);
    bool got = message && take(tail, message, record);
    if (message)
        rd_kafka_message_destroy(message);
    return got;
}
