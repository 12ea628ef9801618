/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients need: sending single records, reading and deleting, making topics. No group, no
 * transaction.
 */
#include <stdlib.h>
#include <string.h>

#include "common/kafka_internal.h"
#include "common/memory.h"

#define POLL_MS 100

/* The fate of one record, on its sender's stack until the delivery report. */
struct delivery {
    bool over;
    rd_kafka_resp_err_t code;
};

static void on_delivery(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
    struct delivery *delivery = message->_private;
    (void)handle, (void)opaque;
    delivery->over = true;
    delivery->code = message->err;
}

static void on_error(rd_kafka_t *handle, int code, const char *reason, void *opaque)
{
    struct kafka_client *client = opaque;
    (void)handle;
    if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || !*client->last_error)
        snprintf(client->last_error, sizeof(client->last_error), "%s", reason);
}

int kafka_client_open(struct kafka_client **out, const struct config *config, struct err *err)
{
    struct kafka_client *client = xcalloc(1, sizeof(*client));
    client->brokers = xstrdup(config->kafka);
    rd_kafka_conf_t *conf;
    int rc = kafka_conf_new(&conf, config, KAFKA_CLIENT, err);
    if (!rc) {
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
        rd_kafka_conf_set_error_cb(conf, on_error);
        rd_kafka_conf_set_opaque(conf, client);
        rc = kafka_handle_new(&client->producer, RD_KAFKA_PRODUCER, conf, err);
    }
    if (!rc)
        rc = kafka_conf_new(&client->reader_conf, config, KAFKA_REPLAYER, err);
    if (rc) {
        kafka_client_close(client);
        return rc;
    }
    *out = client;
    return 0;
}

void kafka_client_close(struct kafka_client *client)
{
    if (!client)
        return;
    if (client->producer)
        rd_kafka_destroy(client->producer);
    if (client->reader_conf)
        rd_kafka_conf_destroy(client->reader_conf);
    free(client->brokers);
    free(client);
}

int kafka_client_fail(const struct kafka_client *client, struct err *err, enum err_code code,
                      const char *what, const char *why)
{
    return err_set(err, code, "%s on Kafka at %s: %s%s%s", what, client->brokers, why,
                   *client->last_error ? "; " : "", client->last_error);
}

/* A record that is still on its way must not outlive `delivery`: it is purged and its report read.
 */
static void delivery_cancel(struct kafka_client *client, const struct delivery *delivery)
{
    rd_kafka_purge(client->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (!delivery->over)
        rd_kafka_poll(client->producer, POLL_MS);
}

int kafka_client_send(struct kafka_client *client, const struct kafka_output *output,
                      int timeout_ms, struct err *err)
{
    struct delivery delivery = {0};
    rd_kafka_resp_err_t code;
    int64_t now = kafka_now_ms(), deadline = now + timeout_ms;
    if (kafka_produce(client->producer, output, &delivery, &code))
        return kafka_client_fail(client, err, ERR_KAFKA, "cannot send", rd_kafka_err2str(code));
    for (; !delivery.over && now < deadline; now = kafka_now_ms())
        rd_kafka_poll(client->producer, (int)(deadline - now < POLL_MS ? deadline - now : POLL_MS));
    if (!delivery.over) {
        delivery_cancel(client, &delivery);
        if (delivery.code)
            return kafka_client_fail(client, err, ERR_TIMEOUT, "cannot send", "no answer in time");
    }
    if (delivery.code)
        return kafka_client_fail(client, err, ERR_KAFKA, "cannot send",
                                 rd_kafka_err2str(delivery.code));
    return 0;
}

/* --- reading and deleting --- */

int kafka_client_read(struct kafka_client *client, const char *topic, int32_t partition,
                      int timeout_ms,
                      int (*each)(void *context, const struct kafka_record *record,
                                  struct err *err),
                      void *context, struct err *err)
{
    return kafka_read(client->reader_conf, topic, partition, timeout_ms, each, context, err);
}

int kafka_client_end(struct kafka_client *client, const char *topic, int32_t partition,
                     int timeout_ms, int64_t *end, struct err *err)
{
    int64_t start;
    rd_kafka_resp_err_t code = rd_kafka_query_watermark_offsets(client->producer, topic, partition,
                                                                &start, end, timeout_ms);
    return code ? kafka_client_fail(client, err, ERR_KAFKA, "cannot read offsets",
                                    rd_kafka_err2str(code))
                : 0;
}

/* The admin request's result. NULL after timeout_ms. */
static rd_kafka_event_t *delete_request(struct kafka_client *client, const char *topic,
                                        int32_t partition, int64_t offset, int timeout_ms)
{
    char text[128];
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, partition)->offset = offset;
    rd_kafka_DeleteRecords_t *request = rd_kafka_DeleteRecords_new(list);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client->producer);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(client->producer, RD_KAFKA_ADMIN_OP_DELETERECORDS);
    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof(text));
    rd_kafka_DeleteRecords(client->producer, &request, 1, options, queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_DeleteRecords_destroy(request);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + POLL_MS);
    rd_kafka_queue_destroy(queue);
    return event;
}

/* The error of the one partition that was asked for. */
static const char *delete_error(rd_kafka_event_t *event)
{
    if (rd_kafka_event_error(event))
        return rd_kafka_event_error_string(event);
    const rd_kafka_topic_partition_list_t *list =
        rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event));
    BUG_ON(list->cnt != 1);
    return list->elems[0].err ? rd_kafka_err2str(list->elems[0].err) : NULL;
}

int kafka_client_delete(struct kafka_client *client, const char *topic, int32_t partition,
                        int64_t offset, int timeout_ms, struct err *err)
{
    rd_kafka_event_t *event = delete_request(client, topic, partition, offset, timeout_ms);
    if (!event)
        return kafka_client_fail(client, err, ERR_TIMEOUT, "cannot delete records",
                                 "no answer in time");
    const char *why = delete_error(event);
    int rc = why ? kafka_client_fail(client, err, ERR_KAFKA, "cannot delete records", why) : 0;
    rd_kafka_event_destroy(event);
    return rc;
}

/* --- topics --- */

static rd_kafka_NewTopic_t *new_topic(const struct kafka_topic_spec *spec)
{
    char text[128];
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(spec->name, spec->partitions, spec->replication, text, sizeof(text));
    BUG_ON(!topic);
    if (spec->compacted)
        rd_kafka_NewTopic_set_config(topic, "cleanup.policy", "compact");
    return topic;
}

/* Waits for the admin request's result. NULL after timeout_ms. */
static rd_kafka_event_t *topics_request(struct kafka_client *client,
                                        const struct kafka_topic_spec *specs, size_t count,
                                        int timeout_ms)
{
    rd_kafka_NewTopic_t **topics = xcalloc(count, sizeof(*topics));
    for (size_t i = 0; i < count; i++)
        topics[i] = new_topic(&specs[i]);
    char text[128];
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client->producer);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(client->producer, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof(text));
    rd_kafka_AdminOptions_set_operation_timeout(options, timeout_ms, text, sizeof(text));
    rd_kafka_CreateTopics(client->producer, topics, count, options, queue);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_NewTopic_destroy_array(topics, count);
    free(topics);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + POLL_MS);
    rd_kafka_queue_destroy(queue);
    rd_kafka_poll(client->producer, 0);
    return event;
}

static int partition_count(struct kafka_client *client, const char *name, int timeout_ms,
                           int *partitions, struct err *err)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(client->producer, name, NULL);
    rd_kafka_resp_err_t code = rd_kafka_metadata(client->producer, 0, topic, &metadata, timeout_ms);
    rd_kafka_topic_destroy(topic);
    if (code)
        return kafka_client_fail(client, err, ERR_KAFKA, "cannot read metadata",
                                 rd_kafka_err2str(code));
    *partitions = metadata->topic_cnt == 1 ? metadata->topics[0].partition_cnt : 0;
    rd_kafka_metadata_destroy(metadata);
    return 0;
}

int kafka_client_partitions(struct kafka_client *client, const char *topic, int timeout_ms,
                            int *partitions, struct err *err)
{
    int rc = partition_count(client, topic, timeout_ms, partitions, err);
    if (!rc && *partitions == 0)
        return err_set(err, ERR_NOT_FOUND, "no topic '%s' on Kafka at %s", topic, client->brokers);
    return rc;
}

static int topic_compare(struct kafka_client *client, const struct kafka_topic_spec *spec,
                         int timeout_ms, struct err *err)
{
    int partitions = 0;
    int rc = partition_count(client, spec->name, timeout_ms, &partitions, err);
    if (rc || partitions == spec->partitions)
        return rc;
    return err_set(err, ERR_CONFLICT, "topic '%s' has %d partitions, not %d", spec->name,
                   partitions, spec->partitions);
}

static int topic_judge(struct kafka_client *client, const struct kafka_topic_spec *spec,
                       const rd_kafka_topic_result_t *result, int timeout_ms, struct err *err)
{
    rd_kafka_resp_err_t code = rd_kafka_topic_result_error(result);
    if (code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
        return topic_compare(client, spec, timeout_ms, err);
    if (!code)
        return 0;
    const char *text = rd_kafka_topic_result_error_string(result);
    return err_set(err, ERR_KAFKA, "cannot create topic '%s': %s", spec->name,
                   text ? text : rd_kafka_err2str(code));
}

static const struct kafka_topic_spec *spec_find(const struct kafka_topic_spec *specs, size_t count,
                                                const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(specs[i].name, name) == 0)
            return &specs[i];
    BUG("the broker answers for a topic that was not asked for");
}

int kafka_client_create_topics(struct kafka_client *client, const struct kafka_topic_spec *specs,
                               size_t count, int timeout_ms, struct err *err)
{
    rd_kafka_event_t *event = topics_request(client, specs, count, timeout_ms);
    if (!event)
        return kafka_client_fail(client, err, ERR_TIMEOUT, "cannot create topics",
                                 "no answer in time");
    int rc = 0;
    if (rd_kafka_event_error(event))
        rc = kafka_client_fail(client, err, ERR_KAFKA, "cannot create topics",
                               rd_kafka_event_error_string(event));
    size_t answers = 0;
    const rd_kafka_topic_result_t **results =
        rc ? NULL
           : rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event),
                                                 &answers);
    for (size_t i = 0; !rc && i < answers; i++)
        rc = topic_judge(client, spec_find(specs, count, rd_kafka_topic_result_name(results[i])),
                         results[i], timeout_ms, err);
    rd_kafka_event_destroy(event);
    return rc;
}
