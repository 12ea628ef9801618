/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading one partition from its beginning to its present end, with a consumer of its own that
 * joins no group. The end is the high watermark at the start; read_committed stops short of it
 * while a transaction is open, so the reading goes on until the end-of-partition event reaches it.
 *
 * The high watermark alone is not enough: the owner before us may have had its offsets accepted by
 * the group while its records were still on their way, and commit both. So before it is asked for,
 * the group has to say offsets for the partition, which it does not while some are pending; from
 * then on it refuses those of earlier generations. tests/model has the counterexample.
 */
#include <string.h>

#include "common/kafka_internal.h"

#define POLL_MS 100
#define ASK_MS  2000 /* one request for committed offsets */

struct replay {
    rd_kafka_t *consumer;
    const char *topic;
    int32_t partition;
    int64_t start, end; /* watermarks */
    int64_t deadline;
    int (*each)(void *context, const struct kafka_record *record, struct err *err);
    void *context;
};

static int replay_open(const rd_kafka_conf_t *template, struct replay *replay, struct err *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_dup(template);
    int rc = kafka_handle_new(&replay->consumer, RD_KAFKA_CONSUMER, conf, err);
    if (rc)
        return rc;
    rd_kafka_poll_set_consumer(replay->consumer);
    return 0;
}

/* What the lane consumes of the partitions of that number. */
static rd_kafka_topic_partition_list_t *inputs_of(const struct kafka *kafka,
                                                  const struct lane *lane, int32_t partition)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(2);
    for (size_t i = 0; i < kafka->partition_count; i++) {
        const struct partition *input = kafka->partitions[i];
        if (input->assigned && input->lane == lane && input->id == partition)
            rd_kafka_topic_partition_list_add(list, input->topic, input->id);
    }
    return list;
}

/* Waits until no offsets of these partitions are pending in a transaction. */
static int settled(const struct replay *replay, const struct lane *lane,
                   rd_kafka_topic_partition_list_t *inputs, struct err *err)
{
    for (;;) {
        rd_kafka_resp_err_t code = rd_kafka_committed(lane->consumer, inputs, ASK_MS);
        for (int i = 0; !code && i < inputs->cnt; i++)
            code = inputs->elems[i].err;
        if (!code)
            return 0;
        if (kafka_now_ms() >= replay->deadline)
            return err_set(err, ERR_TIMEOUT,
                           "'%s' [%d]: the offsets of its group are not settled: %s", replay->topic,
                           (int)replay->partition, rd_kafka_err2str(code));
        rd_kafka_poll(replay->consumer, POLL_MS);
    }
}

static int settled_all(struct kafka *kafka, const struct replay *replay, struct err *err)
{
    int rc = 0;
    for (int i = 0; i < KAFKA_LANES_MAX && !rc; i++) {
        const struct lane *lane = &kafka->lane[i];
        rd_kafka_topic_partition_list_t *inputs = inputs_of(kafka, lane, replay->partition);
        if (inputs->cnt > 0)
            rc = settled(replay, lane, inputs, err);
        rd_kafka_topic_partition_list_destroy(inputs);
    }
    return rc;
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

static int read_all(struct replay *replay, struct err *err)
{
    int rc = watermarks(replay, err);
    if (!rc && replay->start < replay->end) {
        rc = assign(replay, err);
        if (!rc)
            rc = read_on(replay, err);
        rd_kafka_assign(replay->consumer, NULL);
    }
    return rc;
}

static void replay_close(struct replay *replay)
{
    rd_kafka_destroy_flags(replay->consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

/* `settles`: whose group's offsets are waited for first; NULL: nobody's. */
static int replay_run(const rd_kafka_conf_t *template, struct kafka *settles, struct replay *replay,
                      struct err *err)
{
    int rc = replay_open(template, replay, err);
    if (rc)
        return rc;
    if (settles)
        rc = settled_all(settles, replay, err);
    if (!rc)
        rc = read_all(replay, err);
    replay_close(replay);
    return rc;
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
    return replay_run(kafka->replay_conf, kafka, &replay, err);
}

int kafka_read(const rd_kafka_conf_t *template, const char *topic, int32_t partition,
               int deadline_ms,
               int (*each)(void *context, const struct kafka_record *record, struct err *err),
               void *context, struct err *err)
{
    struct replay replay = {.topic = topic,
                            .partition = partition,
                            .deadline = kafka_now_ms() + deadline_ms,
                            .each = each,
                            .context = context};
    return replay_run(template, NULL, &replay, err);
}
