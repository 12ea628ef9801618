/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading one partition from its beginning to its present end, with a consumer of its own that
 * joins no group. The end is the high watermark at the start; read_committed stops short of it
 * while a transaction is open, so the reading goes on until the end-of-partition event reaches it.
 */
#include <string.h>

#include "common/kafka_internal.h"

#define POLL_MS 100

struct replay {
    rd_kafka_t *consumer;
    const char *topic;
    int32_t partition;
    int64_t start, end; /* watermarks */
    int64_t deadline;
    int (*each)(void *context, const struct kafka_record *record, struct err *err);
    void *context;
};

static int replay_open(struct kafka *kafka, struct replay *replay, struct err *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_dup(kafka->replay_conf);
    int rc = kafka_handle_new(&replay->consumer, RD_KAFKA_CONSUMER, conf, err);
    if (rc)
        return rc;
    rd_kafka_poll_set_consumer(replay->consumer);
    return 0;
}

static int watermarks(struct replay *replay, struct err *err)
{
    for (;;) {
        int64_t left = replay->deadline - kafka_now_ms();
        rd_kafka_resp_err_t code = rd_kafka_query_watermark_offsets(
            replay->consumer, replay->topic, replay->partition, &replay->start, &replay->end,
            left > 0 ? (int)left : 0);
        if (!code)
            return 0;
        if (left <= 0 || code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART ||
            code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION)
            return err_set(err, ERR_KAFKA, "cannot read '%s' [%d]: %s", replay->topic,
                           (int)replay->partition, rd_kafka_err2str(code));
        rd_kafka_poll(replay->consumer, POLL_MS);
    }
}

static int assign(struct replay *replay, struct err *err)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, replay->topic, replay->partition)->offset =
        replay->start;
    rd_kafka_resp_err_t code = rd_kafka_assign(replay->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (code)
        return err_set(err, ERR_KAFKA, "cannot read '%s' [%d]: %s", replay->topic,
                       (int)replay->partition, rd_kafka_err2str(code));
    return 0;
}

/* Takes the message. *reached: the next offset to read, as far as this message tells. */
static int take(struct replay *replay, rd_kafka_message_t *message, int64_t *reached,
                struct err *err)
{
    if (message->err) {
        if (message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            *reached = message->offset;
        rd_kafka_message_destroy(message);
        return 0;
    }
    struct kafka_record *record = kafka_record_new(message, 0);
    *reached = record->offset + 1;
    int rc = replay->each(replay->context, record, err);
    kafka_record_free(record);
    return rc;
}

static int read_on(struct replay *replay, struct err *err)
{
    int64_t reached = replay->start;
    while (reached < replay->end) {
        rd_kafka_message_t *message = rd_kafka_consumer_poll(replay->consumer, POLL_MS);
        int rc = message ? take(replay, message, &reached, err) : 0;
        if (rc)
            return rc;
        if (!message && kafka_now_ms() >= replay->deadline)
            return err_set(err, ERR_TIMEOUT, "'%s' [%d] could be read only up to %lld of %lld",
                           replay->topic, (int)replay->partition, (long long)reached,
                           (long long)replay->end);
    }
    return 0;
}

int kafka_replay(struct kafka *kafka, const char *topic, int32_t partition, int deadline_ms,
                 int (*each)(void *context, const struct kafka_record *record, struct err *err),
                 void *context, struct err *err)
{
    struct replay replay = {.topic = topic,
                            .partition = partition,
                            .deadline = kafka_now_ms() + deadline_ms,
                            .each = each,
                            .context = context};
    int rc = replay_open(kafka, &replay, err);
    if (rc)
        return rc;
    rc = watermarks(&replay, err);
    if (!rc && replay.start < replay.end) {
        rc = assign(&replay, err);
        if (!rc)
            rc = read_on(&replay, err);
        rd_kafka_assign(replay.consumer, NULL);
    }
    rd_kafka_destroy_flags(replay.consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    return rc;
}
