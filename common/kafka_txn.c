/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The transactional producer: one transaction is begin → outputs → offsets → commit, and an attempt
 * at it ends in one of
 *
 *   DONE      it is committed
 *   ABORT     librdkafka wants it aborted: abort, then try again
 *   RECREATE  the producer is beyond repair (fenced, or its state is unknown): a new one, whose
 *             start aborts what the old one left open, then try again
 *   LATE      the deadline has passed, or the consumer is beyond repair
 *   REFUSED   trying again would not help
 *   MOVED     kafka_publish(): partitions came or went since its caller last heard of it
 *
 * A retriable error repeats the same call with the same arguments. The results are kept across
 * attempts; before each new one, units whose partition was revoked are dropped, and the group's
 * committed offsets tell which units an attempt of unknown outcome has committed. A commit that
 * may have happened and cannot be looked up is never repeated.
 */
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "common/kafka_internal.h"
#include "common/log.h"
#include "common/memory.h"

#define INIT_MS    5000  /* one wait for a producer id */
#define ASK_MS     2000  /* one request for metadata or committed offsets */
#define OFFSETS_MS 10000 /* one wait for the group coordinator */
#define REPEAT_MS  20    /* between repetitions of a call */
#define SETTLE_MS  300   /* for a rebalance to arrive after a failed attempt */

enum verdict { DONE, REPEAT, ABORT, RECREATE, LATE, REFUSED, MOVED };

/* One call of kafka_commit() or kafka_publish(). */
struct work {
    struct kafka *kafka;
    struct kafka_unit *units;
    bool *done; /* [count]: committed, though we heard of it only later */
    size_t count;
    const struct kafka_output *outputs; /* of kafka_publish() */
    size_t output_count;
    uint64_t assignments; /* of kafka_publish(): as they were when it was called */
    int64_t deadline;
    bool commit_sent; /* an attempt got as far as asking for the commit */
    rd_kafka_topic_partition_list_t *offsets[KAFKA_LANES_MAX]; /* NULL: unused lane */
    rd_kafka_consumer_group_metadata_t *group[KAFKA_LANES_MAX];
    int lane;        /* whose offsets are added now */
    struct err last; /* why the last attempt failed */
};

/* --- the producer's life --- */

static int topic_look_up(struct kafka *kafka, rd_kafka_topic_t *topic, int64_t deadline,
                         int *partitions, struct err *err)
{
    const struct rd_kafka_metadata *metadata;
    for (;;) {
        rd_kafka_resp_err_t code = rd_kafka_metadata(kafka->producer, 0, topic, &metadata, ASK_MS);
        if (!code) {
            code = metadata->topic_cnt == 1 ? metadata->topics[0].err
                                            : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
            if (!code)
                *partitions = metadata->topics[0].partition_cnt;
            rd_kafka_metadata_destroy(metadata);
        }
        if (!code)
            return 0;
        if (kafka_now_ms() >= deadline || kafka->fatal.code)
            return err_set(err, ERR_KAFKA, "topic '%s': %s", rd_kafka_topic_name(topic),
                           rd_kafka_err2str(code));
        kafka_serve(kafka, REPEAT_MS);
    }
}

static int warm_up(struct kafka *kafka, char *const *names, int64_t deadline, struct err *err)
{
    for (; names && *names; names++) {
        rd_kafka_topic_t *topic = rd_kafka_topic_new(kafka->producer, *names, NULL);
        if (!topic)
            return err_set(err, ERR_KAFKA, "topic '%s': %s", *names,
                           rd_kafka_err2str(rd_kafka_last_error()));
        size_t at = kafka->warm_count++;
        kafka->warm = xrealloc(kafka->warm, (at + 1) * sizeof(*kafka->warm));
        kafka->warm_partitions =
            xrealloc(kafka->warm_partitions, (at + 1) * sizeof(*kafka->warm_partitions));
        kafka->warm[at] = topic;
        int rc = topic_look_up(kafka, topic, deadline, &kafka->warm_partitions[at], err);
        if (rc)
            return rc;
    }
    return 0;
}

int kafka_topic_partitions(const struct kafka *kafka, const char *topic)
{
    for (size_t i = 0; i < kafka->warm_count; i++)
        if (strcmp(rd_kafka_topic_name(kafka->warm[i]), topic) == 0)
            return kafka->warm_partitions[i];
    BUG("a topic that kafka_open() was not given");
}

void kafka_producer_stop(struct kafka *kafka)
{
    for (size_t i = 0; i < kafka->warm_count; i++)
        rd_kafka_topic_destroy(kafka->warm[i]);
    free(kafka->warm);
    free(kafka->warm_partitions);
    kafka->warm = NULL;
    kafka->warm_partitions = NULL;
    kafka->warm_count = 0;
    if (kafka->producer)
        rd_kafka_destroy(kafka->producer);
    kafka->producer = NULL;
}

static int transactions_init(struct kafka *kafka, int64_t deadline, struct err *err)
{
    for (;;) {
        rd_kafka_error_t *error = rd_kafka_init_transactions(kafka->producer, INIT_MS);
        if (!error)
            return 0;
        bool again =
            rd_kafka_error_is_retriable(error) && kafka_now_ms() < deadline && !kafka->fatal.code;
        if (!again)
            err_set(err, ERR_KAFKA, "cannot get a producer id: %s", rd_kafka_error_string(error));
        rd_kafka_error_destroy(error);
        rd_kafka_poll(kafka->producer, 0);
        if (!again)
            return -ERR_KAFKA;
        kafka_serve(kafka, REPEAT_MS);
    }
}

int kafka_producer_start(struct kafka *kafka, int64_t deadline, struct err *err)
{
    if (kafka->producer)
        return 0;
    int rc = kafka_handle_new(&kafka->producer, RD_KAFKA_PRODUCER,
                              rd_kafka_conf_dup(kafka->producer_conf), err);
    if (rc)
        return rc;
    rc = transactions_init(kafka, deadline, err);
    for (int i = 0; !rc && i < KAFKA_LANES_MAX; i++)
        rc = warm_up(kafka, kafka->lane[i].topics, deadline, err);
    if (!rc)
        rc = warm_up(kafka, kafka->output_topics, deadline, err);
    if (rc)
        kafka_producer_stop(kafka);
    return rc;
}

/* --- producing --- */

int kafka_produce(rd_kafka_t *producer, const struct kafka_output *output, void *opaque,
                  rd_kafka_resp_err_t *code)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(output->header_count);
    for (size_t i = 0; i < output->header_count; i++)
        rd_kafka_header_add(headers, output->headers[i].name, -1, output->headers[i].value,
                            (ssize_t)output->headers[i].size);
    *code = rd_kafka_producev(
        producer, RD_KAFKA_V_TOPIC(output->topic), RD_KAFKA_V_PARTITION(output->partition),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_KEY(output->key, output->key_size),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)output->value, output->value_size),
        RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
    if (*code)
        rd_kafka_headers_destroy(headers);
    return *code ? -ERR_KAFKA : 0;
}

static bool late(const struct work *work)
{
    return work->kafka->fatal.code || kafka_now_ms() >= work->deadline;
}

static enum verdict produce_one(struct work *work, const struct kafka_output *output)
{
    rd_kafka_resp_err_t code;
    while (kafka_produce(work->kafka->producer, output, NULL, &code)) {
        err_set(&work->last, ERR_KAFKA, "cannot produce to '%s': %s", output->topic,
                rd_kafka_err2str(code));
        if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
            return REFUSED;
        if (code != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            return ABORT;
        if (late(work))
            return LATE;
        rd_kafka_poll(work->kafka->producer, REPEAT_MS);
    }
    return DONE;
}

static enum verdict produce_list(struct work *work, const struct kafka_output *outputs,
                                 size_t count)
{
    enum verdict verdict = DONE;
    for (size_t i = 0; verdict == DONE && i < count; i++)
        verdict = produce_one(work, &outputs[i]);
    return verdict;
}

static bool open_unit(const struct work *work, size_t i)
{
    return !work->units[i].lost && !work->done[i];
}

static enum verdict produce_all(struct work *work)
{
    enum verdict verdict = produce_list(work, work->outputs, work->output_count);
    for (size_t i = 0; verdict == DONE && i < work->count; i++)
        if (open_unit(work, i))
            verdict = produce_list(work, work->units[i].outputs, work->units[i].output_count);
    return verdict;
}

/* --- the calls of a transaction --- */

typedef rd_kafka_error_t *(*transaction_call)(struct work *work);

static rd_kafka_error_t *call_begin(struct work *work)
{
    return rd_kafka_begin_transaction(work->kafka->producer);
}

static rd_kafka_error_t *call_offsets(struct work *work)
{
    return rd_kafka_send_offsets_to_transaction(work->kafka->producer, work->offsets[work->lane],
                                                work->group[work->lane], OFFSETS_MS);
}

/* -1 is the transaction's own time limit; any other value lets librdkafka 2.0.2 lose its state. */
static rd_kafka_error_t *call_commit(struct work *work)
{
    work->commit_sent = true;
    return rd_kafka_commit_transaction(work->kafka->producer, -1);
}

static rd_kafka_error_t *call_abort(struct work *work)
{
    return rd_kafka_abort_transaction(work->kafka->producer, -1);
}

static enum verdict judge(struct work *work, rd_kafka_error_t *error, const char *what)
{
    if (!error)
        return DONE;
    enum verdict verdict = rd_kafka_error_is_retriable(error)         ? REPEAT
                           : rd_kafka_error_txn_requires_abort(error) ? ABORT
                                                                      : RECREATE;
    err_set(&work->last, ERR_KAFKA, "%s: %s", what, rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return verdict;
}

static enum verdict repeat(struct work *work, transaction_call call, const char *what)
{
    enum verdict verdict;
    while ((verdict = judge(work, call(work), what)) == REPEAT) {
        if (late(work))
            return LATE;
        kafka_serve(work->kafka, REPEAT_MS);
    }
    return verdict;
}

/* --- what to commit --- */

static void offset_raise(rd_kafka_topic_partition_list_t *list, const char *topic, int32_t id,
                         int64_t offset)
{
    rd_kafka_topic_partition_t *entry = rd_kafka_topic_partition_list_find(list, topic, id);
    if (!entry) {
        entry = rd_kafka_topic_partition_list_add(list, topic, id);
        entry->offset = offset;
    }
    if (offset > entry->offset)
        entry->offset = offset;
}

static const struct lane *unit_lane(const struct work *work, size_t i)
{
    const struct kafka_record *record = work->units[i].record;
    return kafka_partition(work->kafka, record->topic, record->partition)->lane;
}

static rd_kafka_topic_partition_list_t *unit_offsets(const struct work *work,
                                                     const struct lane *lane)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    for (size_t i = 0; i < work->count; i++) {
        const struct kafka_record *record = work->units[i].record;
        if (open_unit(work, i) && unit_lane(work, i) == lane)
            offset_raise(list, record->topic, record->partition, record->offset + 1);
    }
    return list;
}

/* Asks until the group coordinator answers for every partition. */
static int committed_ask(struct work *work, const struct lane *lane,
                         rd_kafka_topic_partition_list_t *list)
{
    for (;;) {
        rd_kafka_resp_err_t code = rd_kafka_committed(lane->consumer, list, ASK_MS);
        for (int i = 0; !code && i < list->cnt; i++)
            code = list->elems[i].err;
        if (!code)
            return 0;
        err_set(&work->last, ERR_KAFKA, "cannot read committed offsets: %s",
                rd_kafka_err2str(code));
        if (late(work))
            return -ERR_KAFKA;
        kafka_serve(work->kafka, REPEAT_MS);
    }
}

/* Any offset that is true: sending it has the broker check that we are still in the group. */
static int64_t fence_offset(struct work *work, const struct partition *partition)
{
    if (partition->head < partition->tail)
        return partition->pending[partition->head];
    if (partition->committed >= 0)
        return partition->committed;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, partition->topic, partition->id);
    int64_t offset = committed_ask(work, partition->lane, list) ? 0 : list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    return offset >= 0 ? offset : 0;
}

static rd_kafka_topic_partition_list_t *fence_offsets(struct work *work, const struct lane *lane)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    for (size_t i = 0; i < work->kafka->partition_count && list->cnt == 0; i++) {
        const struct partition *partition = work->kafka->partitions[i];
        if (partition->assigned && partition->lane == lane)
            offset_raise(list, partition->topic, partition->id, fence_offset(work, partition));
    }
    return list;
}

static void drop_revoked(struct work *work)
{
    for (size_t i = 0; i < work->count; i++)
        if (open_unit(work, i) && !kafka_record_current(work->kafka, work->units[i].record))
            work->units[i].lost = true;
}

static void unit_finish(struct work *work, size_t i)
{
    const struct kafka_record *record = work->units[i].record;
    work->done[i] = true;
    if (kafka_record_current(work->kafka, record))
        kafka_partition_pop(kafka_partition(work->kafka, record->topic, record->partition));
}

/* Units below the committed offsets are through: by us, if we asked for a commit, else by others.
 */
static int drop_covered_of(struct work *work, const struct lane *lane)
{
    rd_kafka_topic_partition_list_t *list = unit_offsets(work, lane);
    int rc = list->cnt ? committed_ask(work, lane, list) : 0;
    for (size_t i = 0; !rc && i < work->count; i++) {
        const struct kafka_record *record = work->units[i].record;
        if (!open_unit(work, i) || unit_lane(work, i) != lane)
            continue;
        const rd_kafka_topic_partition_t *entry =
            rd_kafka_topic_partition_list_find(list, record->topic, record->partition);
        if (record->offset >= entry->offset)
            continue;
        unit_finish(work, i);
        work->units[i].lost = !work->commit_sent;
    }
    rd_kafka_topic_partition_list_destroy(list);
    return rc;
}

/* The producer comes first: its start aborts a transaction that the last one left open, and until
   that has ended the group does not tell its offsets. */
static int drop_covered(struct work *work)
{
    while (kafka_producer_start(work->kafka, work->deadline, &work->last)) {
        if (late(work))
            return -ERR_KAFKA;
        kafka_serve(work->kafka, REPEAT_MS);
    }
    int rc = 0;
    for (int i = 0; i < KAFKA_LANES_MAX && !rc; i++)
        if (work->kafka->lane[i].consumer)
            rc = drop_covered_of(work, &work->kafka->lane[i]);
    return rc;
}

/* --- attempts --- */

/* Each lane's group is told of its own partitions. */
static enum verdict add_offsets(struct work *work)
{
    enum verdict verdict = DONE;
    for (int i = 0; verdict == DONE && i < KAFKA_LANES_MAX; i++) {
        work->lane = i;
        if (work->offsets[i] && work->offsets[i]->cnt > 0)
            verdict = repeat(work, call_offsets, "cannot add offsets to a transaction");
    }
    return verdict;
}

static enum verdict transact(struct work *work)
{
    enum verdict verdict = repeat(work, call_begin, "cannot begin a transaction");
    if (verdict == DONE)
        verdict = produce_all(work);
    fault_at(FAULT_AFTER_PRODUCE, NULL, NULL);
    if (verdict == DONE)
        verdict = add_offsets(work);
    fault_at(FAULT_BEFORE_COMMIT, NULL, NULL);
    if (verdict == DONE)
        verdict = repeat(work, call_commit, "cannot commit a transaction");
    return verdict;
}

/* The group's generation is taken before the transaction begins: a rebalance from here on makes the
   broker refuse the offsets. */
static void offsets_take(struct work *work)
{
    for (int i = 0; i < KAFKA_LANES_MAX; i++) {
        const struct lane *lane = &work->kafka->lane[i];
        if (!lane->consumer)
            continue;
        work->offsets[i] = work->count ? unit_offsets(work, lane) : fence_offsets(work, lane);
        work->group[i] = rd_kafka_consumer_group_metadata(lane->consumer);
    }
}

static void offsets_drop(struct work *work)
{
    for (int i = 0; i < KAFKA_LANES_MAX; i++) {
        if (!work->offsets[i])
            continue;
        rd_kafka_consumer_group_metadata_destroy(work->group[i]);
        rd_kafka_topic_partition_list_destroy(work->offsets[i]);
        work->offsets[i] = NULL;
    }
}

/* Waiting for the producer or the offsets serves the consumer, and a generation that was taken
   after a rebalance fences nobody: what is published must be of the assignment that its maker knew.
 */
static bool moved(const struct work *work)
{
    const struct kafka *kafka = work->kafka;
    return work->count == 0 && (kafka->notice_count > 0 || kafka->assignments != work->assignments);
}

static enum verdict attempt(struct work *work)
{
    if (kafka_producer_start(work->kafka, work->deadline, &work->last))
        return late(work) ? LATE : RECREATE;
    offsets_take(work);
    enum verdict verdict = moved(work) ? MOVED : transact(work);
    offsets_drop(work);
    return verdict;
}

/* Brings the producer back to where a transaction can begin. The reason of the failure is kept. */
static enum verdict clean_up(struct work *work, enum verdict verdict)
{
    struct err why = work->last;
    log_warn("kafka: %s; trying again", why.text);
    if (verdict == ABORT || verdict == REFUSED) {
        enum verdict aborted = repeat(work, call_abort, "cannot abort a transaction");
        if (aborted == LATE)
            return LATE;
        if (aborted != DONE)
            kafka_producer_stop(work->kafka);
    } else if (verdict == RECREATE) {
        kafka_producer_stop(work->kafka);
    }
    work->last = why;
    return verdict;
}

static int give_up(const struct work *work, int deadline_ms, struct err *err)
{
    if (work->kafka->fatal.code) {
        if (err)
            *err = work->kafka->fatal;
        return -(int)work->kafka->fatal.code;
    }
    return err_set(err, ERR_TIMEOUT, "no transaction in %d ms: %s", deadline_ms, work->last.text);
}

/* Units must be, for each partition, what was pulled first and is not yet committed. */
static void check_order(const struct work *work)
{
    struct kafka *kafka = work->kafka;
    for (size_t i = 0; i < kafka->partition_count; i++)
        kafka->partitions[i]->cursor = kafka->partitions[i]->head;
    for (size_t i = 0; i < work->count; i++) {
        const struct kafka_record *record = work->units[i].record;
        if (!open_unit(work, i))
            continue;
        struct partition *partition = kafka_partition(kafka, record->topic, record->partition);
        BUG_ON(partition->cursor >= partition->tail);
        BUG_ON(partition->pending[partition->cursor++] != record->offset);
    }
}

static bool any_open(const struct work *work)
{
    for (size_t i = 0; i < work->count; i++)
        if (open_unit(work, i))
            return true;
    return false;
}

static void finish_all(struct work *work)
{
    for (size_t i = 0; i < work->count; i++)
        if (open_unit(work, i))
            unit_finish(work, i);
    kafka_answered(work->kafka);
}

static int commit(struct work *work, int deadline_ms, struct err *err)
{
    for (;;) {
        drop_revoked(work);
        if (!any_open(work))
            return 0;
        enum verdict verdict = attempt(work);
        if (verdict == DONE) {
            finish_all(work);
            return 0;
        }
        verdict = clean_up(work, verdict);
        if (verdict == REFUSED)
            return err_set(err, ERR_TOO_LARGE, "%s", work->last.text);
        if (verdict == LATE || late(work))
            return give_up(work, deadline_ms, err);
        kafka_serve(work->kafka, SETTLE_MS);
        drop_revoked(work);
        if (drop_covered(work))
            return give_up(work, deadline_ms, err);
    }
}

int kafka_commit(struct kafka *kafka, struct kafka_unit *units, size_t count, int deadline_ms,
                 struct err *err)
{
    struct work work = {.kafka = kafka,
                        .units = units,
                        .done = xcalloc(count + 1, sizeof(bool)),
                        .count = count,
                        .deadline = kafka_now_ms() + deadline_ms};
    for (size_t i = 0; i < count; i++)
        units[i].lost = false;
    drop_revoked(&work);
    check_order(&work);
    int rc = commit(&work, deadline_ms, err);
    free(work.done);
    return rc;
}

static int publish(struct work *work, int deadline_ms, struct err *err)
{
    for (;;) {
        enum verdict verdict = attempt(work);
        if (verdict == DONE) {
            kafka_answered(work->kafka);
            return 0;
        }
        bool unknown = verdict == RECREATE && work->commit_sent;
        if (verdict == MOVED)
            return err_set(err, ERR_CONFLICT, "the assignment changed%s%s",
                           *work->last.text ? ": " : "", work->last.text);
        verdict = clean_up(work, verdict);
        if (unknown || verdict == REFUSED)
            return err_set(err, unknown ? ERR_KAFKA : ERR_TOO_LARGE, "%s", work->last.text);
        if (verdict == LATE || late(work))
            return give_up(work, deadline_ms, err);
        kafka_serve(work->kafka, SETTLE_MS);
    }
}

int kafka_publish(struct kafka *kafka, const struct kafka_output *outputs, size_t count,
                  int deadline_ms, struct err *err)
{
    struct work work = {.kafka = kafka,
                        .outputs = outputs,
                        .output_count = count,
                        .assignments = kafka->assignments,
                        .deadline = kafka_now_ms() + deadline_ms};
    return publish(&work, deadline_ms, err);
}
