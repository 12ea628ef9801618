/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The consumer: group membership, lanes, records, idle commits. Its invariants:
 *
 *  - Every partition's queue is forwarded to its lane's queue, so that polling the consumer serves
 *    rebalances only and records are pulled on demand. Nothing is ever paused: resuming costs a
 *    second in librdkafka 2.0.2.
 *  - partition->pending lists what was pulled and not yet committed; committing goes from its head.
 *  - A revocation raises the partition's epoch and empties the list: what is still computed for it
 *    is void, even when the partition comes back.
 *  - librdkafka writes to wake_fd when a queue becomes non-empty, so an idle thread sleeps in
 * poll(2).
 *
 * The producer's half is kafka_txn.c.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/kafka_internal.h"
#include "common/log.h"
#include "common/memory.h"

#define CONTACT_MS 10000 /* for the first answer of a broker */
#define SLICE_MS   250   /* longest sleep between two looks at the consumer */

int64_t kafka_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

const char *kafka_library_version(void)
{
    return rd_kafka_version_str();
}

/* --- records --- */

struct kafka_record *kafka_record_new(rd_kafka_message_t *message, uint32_t epoch)
{
    rd_kafka_headers_t *headers = NULL;
    rd_kafka_message_headers(message, &headers);
    size_t count = headers ? rd_kafka_header_cnt(headers) : 0;
    struct kafka_record *record = xcalloc(1, sizeof(*record) + count * sizeof(struct kafka_header));
    struct kafka_header *list = (struct kafka_header *)(record + 1);
    for (size_t i = 0; i < count; i++)
        rd_kafka_header_get_all(headers, i, &list[i].name, &list[i].value, &list[i].size);
    *record = (struct kafka_record){.topic = rd_kafka_topic_name(message->rkt),
                                    .partition = message->partition,
                                    .offset = message->offset,
                                    .epoch = epoch,
                                    .timestamp_ms = rd_kafka_message_timestamp(message, NULL),
                                    .key = message->key,
                                    .key_size = message->key_len,
                                    .value = message->payload,
                                    .value_size = message->len,
                                    .headers = list,
                                    .header_count = count,
                                    .message = message};
    return record;
}

void kafka_record_free(struct kafka_record *record)
{
    if (!record)
        return;
    if (record->message) /* tests make records of their own */
        rd_kafka_message_destroy(record->message);
    free(record);
}

const struct kafka_header *kafka_record_header(const struct kafka_record *record, const char *name)
{
    for (size_t i = record->header_count; i > 0; i--)
        if (strcmp(record->headers[i - 1].name, name) == 0)
            return &record->headers[i - 1];
    return NULL;
}

/* --- partitions --- */

struct partition *kafka_partition(const struct kafka *kafka, const char *topic, int32_t id)
{
    for (size_t i = 0; i < kafka->partition_count; i++) {
        struct partition *partition = kafka->partitions[i];
        if (partition->id == id && strcmp(partition->topic, topic) == 0)
            return partition;
    }
    return NULL;
}

static size_t partition_get(struct lane *lane, const char *topic, int32_t id)
{
    struct kafka *kafka = lane->kafka;
    for (size_t i = 0; i < kafka->partition_count; i++)
        if (kafka->partitions[i]->id == id && strcmp(kafka->partitions[i]->topic, topic) == 0)
            return i;
    struct partition *partition = xcalloc(1, sizeof(*partition));
    partition->topic = xstrdup(topic);
    partition->id = id;
    partition->lane = lane;
    kafka->partitions =
        xrealloc(kafka->partitions, (kafka->partition_count + 1) * sizeof(*kafka->partitions));
    kafka->partitions[kafka->partition_count] = partition;
    return kafka->partition_count++;
}

static void partition_push(struct partition *partition, int64_t offset)
{
    if (partition->head == partition->tail)
        partition->head = partition->tail = 0;
    if (partition->tail == partition->capacity) {
        partition->capacity = partition->capacity ? 2 * partition->capacity : 64;
        partition->pending =
            xrealloc(partition->pending, partition->capacity * sizeof(*partition->pending));
    }
    partition->pending[partition->tail++] = offset;
    partition->next = offset + 1;
}

void kafka_partition_pop(struct partition *partition)
{
    BUG_ON(partition->head == partition->tail);
    partition->committed = partition->pending[partition->head++] + 1;
}

static void partition_free(struct partition *partition)
{
    free(partition->topic);
    free(partition->pending);
    free(partition);
}

/* --- rebalances --- */

static void notice_add(struct kafka *kafka, size_t partition, bool assigned)
{
    kafka->notices = xrealloc(kafka->notices, (kafka->notice_count + 1) * sizeof(*kafka->notices));
    kafka->notices[kafka->notice_count++] = (struct notice){partition, assigned};
}

static void forward(const struct partition *partition)
{
    const struct lane *lane = partition->lane;
    if (!lane->records) /* closing */
        return;
    rd_kafka_queue_t *queue =
        rd_kafka_queue_get_partition(lane->consumer, partition->topic, partition->id);
    if (!queue)
        return;
    rd_kafka_queue_forward(queue, lane->records);
    rd_kafka_queue_destroy(queue);
}

static void partitions_assigned(struct lane *lane, const rd_kafka_topic_partition_list_t *list)
{
    for (int i = 0; i < list->cnt; i++) {
        size_t index = partition_get(lane, list->elems[i].topic, list->elems[i].partition);
        struct partition *partition = lane->kafka->partitions[index];
        forward(partition);
        partition->assigned = true;
        partition->next = partition->committed = -1;
        notice_add(lane->kafka, index, true);
    }
}

static bool message_of(const rd_kafka_message_t *message, const struct partition *partition)
{
    return message->partition == partition->id &&
           strcmp(rd_kafka_topic_name(message->rkt), partition->topic) == 0;
}

static void strays_drop(const struct partition *partition)
{
    rd_kafka_message_t **stray = partition->lane->stray;
    size_t kept = 0;
    for (size_t i = 0; i < partition->lane->stray_count; i++)
        if (message_of(stray[i], partition))
            rd_kafka_message_destroy(stray[i]);
        else
            stray[kept++] = stray[i];
    partition->lane->stray_count = kept;
}

static void partition_revoked(struct kafka *kafka, size_t index)
{
    struct partition *partition = kafka->partitions[index];
    if (!partition->assigned)
        return;
    partition->assigned = false;
    partition->epoch++;
    partition->head = partition->tail = 0;
    strays_drop(partition);
    notice_add(kafka, index, false);
}

/* NULL: all of the lane's. */
static void partitions_revoked(struct lane *lane, const rd_kafka_topic_partition_list_t *list)
{
    struct kafka *kafka = lane->kafka;
    for (int i = 0; list && i < list->cnt; i++)
        partition_revoked(kafka,
                          partition_get(lane, list->elems[i].topic, list->elems[i].partition));
    for (size_t i = 0; !list && i < kafka->partition_count; i++)
        if (kafka->partitions[i]->lane == lane)
            partition_revoked(kafka, i);
}

static void fail(struct kafka *kafka, const char *what, const char *why)
{
    if (!kafka->fatal.code)
        err_set(&kafka->fatal, ERR_KAFKA, "%s: %s", what, why);
}

static void check_step(struct kafka *kafka, rd_kafka_error_t *error, const char *what)
{
    if (error && rd_kafka_error_is_fatal(error))
        fail(kafka, what, rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
}

static void assignment_change(const struct lane *lane, rd_kafka_topic_partition_list_t *list,
                              bool assign)
{
    struct kafka *kafka = lane->kafka;
    rd_kafka_t *consumer = lane->consumer;
    if (lane->eager) {
        rd_kafka_resp_err_t code = rd_kafka_assign(consumer, assign ? list : NULL);
        if (code == RD_KAFKA_RESP_ERR__FATAL)
            fail(kafka, "cannot change the assignment", rd_kafka_err2str(code));
    } else {
        check_step(kafka,
                   assign ? rd_kafka_incremental_assign(consumer, list)
                          : rd_kafka_incremental_unassign(consumer, list),
                   "cannot change the assignment");
    }
}

static void on_rebalance(rd_kafka_t *consumer, rd_kafka_resp_err_t code,
                         rd_kafka_topic_partition_list_t *list, void *opaque)
{
    struct lane *lane = opaque;
    bool assign = code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    const char *protocol = rd_kafka_rebalance_protocol(consumer);
    lane->eager = protocol && strcmp(protocol, "EAGER") == 0;
    lane->kafka->assignments++;
    if (code != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS &&
        code != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) { /* give up whatever we hold */
        rd_kafka_assign(consumer, NULL);
        partitions_revoked(lane, NULL);
        return;
    }
    if (!assign)
        partitions_revoked(lane, list);
    assignment_change(lane, list, assign);
    if (assign) {
        partitions_assigned(lane, list);
        lane->settled = true;
        kafka_answered(lane->kafka);
    }
}

/* The callbacks may take their time and may read other topics: they run outside librdkafka's. */
static void notices_deliver(struct kafka *kafka)
{
    for (size_t i = 0; i < kafka->notice_count; i++) {
        struct notice notice = kafka->notices[i];
        struct partition *partition = kafka->partitions[notice.partition];
        if (notice.assigned && kafka->assigned)
            kafka->assigned(kafka->context, partition->topic, partition->id);
        if (!notice.assigned && kafka->revoked)
            kafka->revoked(kafka->context, partition->topic, partition->id);
    }
    kafka->notice_count = 0;
}

/* --- polling --- */

void kafka_error_note(rd_kafka_t *handle, int code, const char *reason, void *opaque)
{
    struct kafka *kafka = opaque;
    (void)handle;
    if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || !*kafka->last_error)
        snprintf(kafka->last_error, sizeof(kafka->last_error), "%s", reason);
    if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || kafka->down || !kafka_assigned(kafka))
        return;
    kafka->down = true;
    log_warn("kafka: no broker answers (%s); waiting for it", kafka->last_error);
}

static void on_lane_error(rd_kafka_t *handle, int code, const char *reason, void *opaque)
{
    struct lane *lane = opaque;
    kafka_error_note(handle, code, reason, lane->kafka);
}

void kafka_answered(struct kafka *kafka)
{
    if (kafka->down)
        log_info("kafka: back");
    kafka->down = false;
    kafka->active_ms = kafka_now_ms();
}

static void stray_add(struct lane *lane, rd_kafka_message_t *message)
{
    lane->stray = xrealloc(lane->stray, (lane->stray_count + 1) * sizeof(*lane->stray));
    lane->stray[lane->stray_count++] = message;
}

static void lane_error(struct lane *lane, const rd_kafka_message_t *message)
{
    char text[256];
    rd_kafka_resp_err_t fatal = rd_kafka_fatal_error(lane->consumer, text, sizeof(text));
    if (fatal == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID)
        fail(lane->kafka, "another process has taken this slot", lane->kafka->slot);
    else if (fatal)
        fail(lane->kafka, "the consumer failed", text);
    else
        log_debug("kafka: %s", rd_kafka_message_errstr(message));
}

static void lane_drain(struct lane *lane)
{
    rd_kafka_message_t *message;
    while (lane->consumer && (message = rd_kafka_consumer_poll(lane->consumer, 0))) {
        if (!message->err) {
            stray_add(lane, message);
            continue;
        }
        lane_error(lane, message);
        rd_kafka_message_destroy(message);
    }
}

static void lanes_drain(struct kafka *kafka)
{
    for (int i = 0; i < KAFKA_LANES_MAX; i++)
        lane_drain(&kafka->lane[i]);
}

static void wake_wait(struct kafka *kafka, int64_t timeout_ms)
{
    struct pollfd wait = {.fd = kafka->wake_fd, .events = POLLIN};
    uint64_t count;
    if (poll(&wait, 1, (int)(timeout_ms < SLICE_MS ? timeout_ms : SLICE_MS)) > 0)
        while (read(kafka->wake_fd, &count, sizeof(count)) > 0)
            ;
}

void kafka_wake(struct kafka *kafka)
{
    uint64_t one = 1;
    while (write(kafka->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
        ;
}

void kafka_serve(struct kafka *kafka, int timeout_ms)
{
    int64_t now = kafka_now_ms(), end = now + timeout_ms;
    lanes_drain(kafka);
    for (; now < end; now = kafka_now_ms()) {
        wake_wait(kafka, end - now);
        lanes_drain(kafka);
    }
}

/* Takes the message. NULL when its partition is no longer ours. */
static struct kafka_record *take_in(struct kafka *kafka, rd_kafka_message_t *message)
{
    struct partition *partition =
        kafka_partition(kafka, rd_kafka_topic_name(message->rkt), message->partition);
    if (!partition || !partition->assigned || message->offset < partition->next) {
        rd_kafka_message_destroy(message);
        return NULL;
    }
    partition_push(partition, message->offset);
    kafka->active_ms = kafka_now_ms();
    return kafka_record_new(message, partition->epoch);
}

static rd_kafka_message_t *lane_next(struct lane *lane)
{
    if (lane->stray_count == 0)
        return rd_kafka_consume_queue(lane->records, 0);
    rd_kafka_message_t *message = lane->stray[0];
    lane->stray_count--;
    memmove(lane->stray, lane->stray + 1, lane->stray_count * sizeof(message));
    return message;
}

static struct kafka_record *lane_pull(struct lane *lane)
{
    rd_kafka_message_t *message;
    while (lane->records && (message = lane_next(lane))) {
        if (message->err) {
            lane_error(lane, message);
            rd_kafka_message_destroy(message);
            continue;
        }
        struct kafka_record *record = take_in(lane->kafka, message);
        if (record)
            return record;
    }
    return NULL;
}

static int look(struct kafka *kafka, int lane, struct kafka_record **record, struct err *err)
{
    lanes_drain(kafka);
    if (kafka->producer)
        rd_kafka_poll(kafka->producer, 0);
    notices_deliver(kafka);
    if (kafka->fatal.code) {
        if (err)
            *err = kafka->fatal;
        return -(int)kafka->fatal.code;
    }
    struct kafka_record *pulled = lane < 0 ? NULL : lane_pull(&kafka->lane[lane]);
    BUG_ON(pulled && !record);
    if (record)
        *record = pulled;
    return 0;
}

int kafka_poll(struct kafka *kafka, int lane, int timeout_ms, struct kafka_record **record,
               struct err *err)
{
    int rc = look(kafka, lane, record, err);
    if (rc || timeout_ms <= 0 || (record && *record))
        return rc;
    wake_wait(kafka, timeout_ms);
    return look(kafka, lane, record, err);
}

bool kafka_assigned(const struct kafka *kafka)
{
    for (int i = 0; i < KAFKA_LANES_MAX; i++)
        if (kafka->lane[i].consumer && !kafka->lane[i].settled)
            return false;
    return true;
}

size_t kafka_partitions(const struct kafka *kafka)
{
    size_t count = 0;
    for (size_t i = 0; i < kafka->partition_count; i++)
        count += kafka->partitions[i]->assigned;
    return count;
}

bool kafka_record_current(const struct kafka *kafka, const struct kafka_record *record)
{
    const struct partition *partition = kafka_partition(kafka, record->topic, record->partition);
    return partition && partition->assigned && partition->epoch == record->epoch;
}

/* --- idle commits --- */

/* Nothing of it is in our hands: neither pulled nor a stray, which librdkafka counts as read too.
 */
static bool partition_idle(const struct partition *partition)
{
    const struct lane *lane = partition->lane;
    if (!partition->assigned || partition->head != partition->tail)
        return false;
    for (size_t i = 0; i < lane->stray_count; i++)
        if (message_of(lane->stray[i], partition))
            return false;
    return true;
}

static rd_kafka_topic_partition_list_t *idle_positions(const struct lane *lane)
{
    const struct kafka *kafka = lane->kafka;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (size_t i = 0; i < kafka->partition_count; i++) {
        const struct partition *partition = kafka->partitions[i];
        if (partition->lane == lane && partition_idle(partition))
            rd_kafka_topic_partition_list_add(list, partition->topic, partition->id);
    }
    rd_kafka_position(lane->consumer, list);
    for (int i = list->cnt - 1; i >= 0; i--) {
        const rd_kafka_topic_partition_t *entry = &list->elems[i];
        const struct partition *partition = kafka_partition(kafka, entry->topic, entry->partition);
        if (entry->offset < 0 || entry->offset <= partition->committed)
            rd_kafka_topic_partition_list_del_by_idx(list, i);
    }
    return list;
}

/* Synchronous, so that it can never overtake a transaction's offsets. A failure is tried again. */
static void lane_commit_idle(const struct lane *lane)
{
    rd_kafka_topic_partition_list_t *list = idle_positions(lane);
    if (list->cnt > 0 && !rd_kafka_commit(lane->consumer, list, 0))
        for (int i = 0; i < list->cnt; i++) {
            struct partition *partition =
                kafka_partition(lane->kafka, list->elems[i].topic, list->elems[i].partition);
            if (!list->elems[i].err)
                partition->committed = list->elems[i].offset;
        }
    rd_kafka_topic_partition_list_destroy(list);
}

void kafka_commit_idle(struct kafka *kafka, int quiet_ms)
{
    if (kafka_now_ms() - kafka->active_ms < quiet_ms)
        return;
    for (int i = 0; i < KAFKA_LANES_MAX; i++)
        if (kafka->lane[i].consumer)
            lane_commit_idle(&kafka->lane[i]);
}

/* --- opening and closing --- */

static char **strings_copy(const char *const *list)
{
    size_t count = 0;
    while (list && list[count])
        count++;
    char **copy = xcalloc(count + 1, sizeof(*copy));
    for (size_t i = 0; i < count; i++)
        copy[i] = xstrdup(list[i]);
    return copy;
}

static void strings_free(char **list)
{
    for (char **text = list; text && *text; text++)
        free(*text);
    free(list);
}

static int lane_conf(rd_kafka_conf_t **out, struct lane *lane, const char *group,
                     const struct kafka_options *options, struct err *err)
{
    int rc = kafka_conf_new(out, options->config, KAFKA_CONSUMER, err);
    if (rc)
        return rc;
    rd_kafka_conf_t *conf = *out;
    if ((rc = kafka_conf_set(conf, "group.id", group, err)) ||
        (rc = kafka_conf_set(conf, "group.instance.id", options->slot, err)) ||
        (rc = kafka_conf_set(conf, "partition.assignment.strategy",
                             options->copartition ? "range" : "cooperative-sticky", err))) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_conf_set_error_cb(conf, on_lane_error);
    rd_kafka_conf_set_opaque(conf, lane);
    return 0;
}

static int lane_open(struct lane *lane, const char *const *topics, const char *group,
                     const struct kafka_options *options, struct err *err)
{
    rd_kafka_conf_t *conf;
    int rc = lane_conf(&conf, lane, group, options, err);
    if (!rc)
        rc = kafka_handle_new(&lane->consumer, RD_KAFKA_CONSUMER, conf, err);
    if (rc)
        return rc;
    const uint64_t one = 1;
    lane->topics = strings_copy(topics);
    rd_kafka_poll_set_consumer(lane->consumer);
    lane->main = rd_kafka_queue_get_consumer(lane->consumer);
    lane->records = rd_kafka_queue_new(lane->consumer);
    rd_kafka_queue_io_event_enable(lane->main, lane->kafka->wake_fd, &one, sizeof(one));
    rd_kafka_queue_io_event_enable(lane->records, lane->kafka->wake_fd, &one, sizeof(one));
    return 0;
}

static int lanes_open(struct kafka *kafka, const struct kafka_options *options, struct err *err)
{
    int rc = 0;
    for (int i = 0; i < KAFKA_LANES_MAX && !rc; i++) {
        kafka->lane[i].kafka = kafka;
        if (options->lane_topics[i])
            rc = lane_open(&kafka->lane[i], options->lane_topics[i], options->lane_group[i],
                           options, err);
    }
    return rc;
}

/* Only that there is one matters: with delivery reports to serve, the flush in a commit ends with
   the last of them; without any, librdkafka 2.0.2 looks every 10 ms. */
static void on_delivery(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque)
{
    (void)handle, (void)message, (void)opaque;
}

static int producer_conf(struct kafka *kafka, const struct kafka_options *options, struct err *err)
{
    int rc = kafka_conf_new(&kafka->producer_conf, options->config, KAFKA_PRODUCER, err);
    if (rc)
        return rc;
    char *id = xasprintf("unclip-%s", options->slot);
    rc = kafka_conf_set(kafka->producer_conf, "transactional.id", id, err);
    free(id);
    rd_kafka_conf_set_dr_msg_cb(kafka->producer_conf, on_delivery);
    rd_kafka_conf_set_error_cb(kafka->producer_conf, kafka_error_note);
    rd_kafka_conf_set_opaque(kafka->producer_conf, kafka);
    return rc;
}

static int subscribe(const struct lane *lane, struct err *err)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(4);
    for (char **topic = lane->topics; *topic; topic++)
        rd_kafka_topic_partition_list_add(list, *topic, RD_KAFKA_PARTITION_UA);
    rd_kafka_resp_err_t code = rd_kafka_subscribe(lane->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (code)
        return err_set(err, ERR_KAFKA, "cannot subscribe: %s", rd_kafka_err2str(code));
    return 0;
}

static int subscribe_all(const struct kafka *kafka, struct err *err)
{
    int rc = 0;
    for (int i = 0; i < KAFKA_LANES_MAX && !rc; i++)
        if (kafka->lane[i].consumer)
            rc = subscribe(&kafka->lane[i], err);
    return rc;
}

static int first_contact(struct kafka *kafka, struct err *err)
{
    struct err cause = {0};
    if (!kafka_producer_start(kafka, kafka_now_ms() + CONTACT_MS, &cause))
        return 0;
    return err_set(err, ERR_KAFKA, "cannot start on Kafka at %s: %s%s%s", kafka->brokers,
                   cause.text, *kafka->last_error ? "; " : "", kafka->last_error);
}

int kafka_open(struct kafka **out, const struct kafka_options *options, struct err *err)
{
    struct kafka *kafka = xcalloc(1, sizeof(*kafka));
    kafka->slot = xstrdup(options->slot);
    kafka->brokers = xstrdup(options->config->kafka);
    kafka->output_topics = strings_copy(options->output_topics);
    kafka->assigned = options->assigned;
    kafka->revoked = options->revoked;
    kafka->context = options->context;
    int rc = 0;
    kafka->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (kafka->wake_fd < 0)
        rc = err_set(err, ERR_IO, "cannot make an event descriptor: %s", strerror(errno));
    if (rc || (rc = lanes_open(kafka, options, err)) || (rc = producer_conf(kafka, options, err)) ||
        (rc = kafka_conf_new(&kafka->replay_conf, options->config, KAFKA_REPLAYER, err)) ||
        (rc = first_contact(kafka, err)) || (rc = subscribe_all(kafka, err))) {
        kafka_close(kafka);
        return rc;
    }
    *out = kafka;
    return 0;
}

/* Records that are left in the lane would keep its consumer alive. */
static void lane_empty(struct lane *lane)
{
    for (size_t i = 0; i < lane->stray_count; i++)
        rd_kafka_message_destroy(lane->stray[i]);
    free(lane->stray);
    lane->stray = NULL;
    lane->stray_count = 0;
    if (!lane->records)
        return;
    rd_kafka_queue_io_event_enable(lane->records, -1, NULL, 0);
    rd_kafka_queue_destroy(lane->records);
    lane->records = NULL;
}

static void lane_close(struct lane *lane)
{
    if (!lane->consumer)
        return;
    rd_kafka_queue_io_event_enable(lane->main, -1, NULL, 0);
    rd_kafka_queue_destroy(lane->main);
    lane_empty(lane);
    rd_kafka_consumer_close(lane->consumer);
    lane_empty(lane);
    rd_kafka_destroy(lane->consumer);
    strings_free(lane->topics);
}

void kafka_close(struct kafka *kafka)
{
    if (!kafka)
        return;
    kafka_producer_stop(kafka);
    if (kafka->producer_conf)
        rd_kafka_conf_destroy(kafka->producer_conf);
    if (kafka->replay_conf)
        rd_kafka_conf_destroy(kafka->replay_conf);
    for (int i = 0; i < KAFKA_LANES_MAX; i++)
        lane_close(&kafka->lane[i]);
    for (size_t i = 0; i < kafka->partition_count; i++)
        partition_free(kafka->partitions[i]);
    free(kafka->partitions);
    free(kafka->notices);
    strings_free(kafka->output_topics);
    if (kafka->wake_fd >= 0)
        close(kafka->wake_fd);
    free(kafka->slot);
    free(kafka->brokers);
    free(kafka);
}
