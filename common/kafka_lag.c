/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a consumer group is behind on a topic: the end of each partition less what the group has
 * committed there, or less the partition's beginning where it has not committed yet.
 */
#include <stdlib.h>

#include "common/kafka_internal.h"

#define WAIT_MS 100

/* Waits for the admin request's result. NULL after timeout_ms. Owned. */
static rd_kafka_event_t *request(struct kafka_client *client, const char *group,
                                 const rd_kafka_topic_partition_list_t *list, int timeout_ms)
{
    char text[128];
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client->producer);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(client->producer, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS);
    rd_kafka_ListConsumerGroupOffsets_t *asked = rd_kafka_ListConsumerGroupOffsets_new(group, list);
    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, text, sizeof(text));
    rd_kafka_ListConsumerGroupOffsets(client->producer, &asked, 1, options, queue);
    rd_kafka_ListConsumerGroupOffsets_destroy(asked);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + WAIT_MS);
    rd_kafka_queue_destroy(queue);
    return event;
}

/* Fills in the offsets of the list's partitions; RD_KAFKA_OFFSET_INVALID: none is committed. */
static int committed(struct kafka_client *client, const char *group,
                     rd_kafka_topic_partition_list_t *list, int timeout_ms, struct err *err)
{
    rd_kafka_event_t *event = request(client, group, list, timeout_ms);
    size_t count = 0;
    int rc = 0;

    if (!event)
        return kafka_client_fail(client, err, ERR_TIMEOUT, "cannot read a group's offsets",
                                 "no answer in time");
    const rd_kafka_group_result_t **results =
        rd_kafka_event_error(event)
            ? NULL
            : rd_kafka_ListConsumerGroupOffsets_result_groups(
                  rd_kafka_event_ListConsumerGroupOffsets_result(event), &count);
    const rd_kafka_error_t *why = count ? rd_kafka_group_result_error(results[0]) : NULL;
    if (count == 0 || why)
        rc = kafka_client_fail(client, err, ERR_KAFKA, "cannot read a group's offsets",
                               why ? rd_kafka_error_string(why)
                                   : rd_kafka_event_error_string(event));
    const rd_kafka_topic_partition_list_t *found =
        rc == 0 ? rd_kafka_group_result_partitions(results[0]) : NULL;
    for (int i = 0; found && i < found->cnt; i++)
        rd_kafka_topic_partition_list_set_offset(list, found->elems[i].topic,
                                                 found->elems[i].partition, found->elems[i].offset);
    rd_kafka_event_destroy(event);
    return rc;
}

static int add_lag(struct kafka_client *client, const rd_kafka_topic_partition_t *partition,
                   int timeout_ms, int64_t *lag, struct err *err)
{
    int64_t low = 0, high = 0;
    rd_kafka_resp_err_t code = rd_kafka_query_watermark_offsets(
        client->producer, partition->topic, partition->partition, &low, &high, timeout_ms);
    if (code)
        return kafka_client_fail(client, err, ERR_KAFKA, "cannot read where a partition ends",
                                 rd_kafka_err2str(code));
    int64_t from = partition->offset > low ? partition->offset : low;
    *lag += high > from ? high - from : 0;
    return 0;
}

int kafka_client_lag(struct kafka_client *client, const char *group, const char *topic,
                     int timeout_ms, int64_t *lag, struct err *err)
{
    int partitions = 0;
    int rc = kafka_client_partitions(client, topic, timeout_ms, &partitions, err);
    if (rc)
        return rc;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
    for (int i = 0; i < partitions; i++)
        rd_kafka_topic_partition_list_add(list, topic, i)->offset = RD_KAFKA_OFFSET_INVALID;
    *lag = 0;
    rc = committed(client, group, list, timeout_ms, err);
    for (int i = 0; !rc && i < list->cnt; i++)
        rc = add_lag(client, &list->elems[i], timeout_ms, lag, err);
    rd_kafka_topic_partition_list_destroy(list);
    return rc;
}
