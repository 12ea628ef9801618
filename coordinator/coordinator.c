/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop. What it keeps true:
 *
 *  - The ledger of a partition is read back from unclip.state and unclip.results before a record of
 *    that partition is handled, and dropped when the partition goes.
 *  - Between two commits the ledger may be ahead of Kafka, by the batch at hand. When the batch
 * cannot be committed whole, the partitions of what was lost are dropped, and read back if still
 * ours.
 *  - Redis is written between commits only, so it never shows what Kafka does not have.
 *  - A batch is committed when there is no more to read. Only where all of it is news of pictures
 *    under way does it wait for a little while: a transaction for each of them would take the
 *    processor from the workers whose hops it tells of.
 *
 * Rebalances arrive inside kafka_poll(); the callbacks only note them, and settle() acts on them at
 * a point where no half-handled record stands in the way.
 */
#include "coordinator/coordinator.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/fault.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/redis.h"
#include "common/storage.h"
#include "coordinator/handle.h"
#include "coordinator/records.h"
#include "coordinator/view.h"

#define GROUP           "unclip-coordinator"
#define BATCH_MAX       512       /* records in one transaction */
#define BATCH_BYTES_MAX (8 << 20) /* of outputs in one transaction, about */
#define POLL_MS         100       /* longest sleep: Redis is looked at in between */
#define GATHER_MS       50        /* longest that news of pictures under way waits for more */
#define REPLAY_MS       60000

enum duty { DUTY_NONE, DUTY_READ, DUTY_DROP };

struct work {
    struct kafka_record *record; /* owned */
    struct outbox outbox;
};

struct coordinator {
    const struct config *config; /* borrowed */
    struct clock *clock;
    char name[32]; /* "coordinator-0" */
    struct kafka *kafka;
    struct redis *redis;
    struct storage *storage;
    struct ledger *ledger;
    struct planner planner;
    struct policy policy;
    struct retry retry;
    struct handler handler;
    struct rates rates;
    struct view *view;
    enum duty duties[LEDGER_PARTITIONS_MAX]; /* what rebalances ask for */
    bool has_duty;
    struct work batch[BATCH_MAX];
    size_t count, bytes;
    bool urgent;      /* the batch is not to wait: somebody else does, or statuses do */
    int64_t since_ms; /* monotonic: when its first record came */
    bool ready;       /* said so */
    bool arrived;     /* a partition was read back, and nothing has been let in since */
    json_t *newer; /* while a partition is read: id → why its last state cannot be read by us */
};

/* --- rebalances --- */

static void note_duty(struct coordinator *self, const char *topic, int32_t partition,
                      enum duty duty)
{
    if (strcmp(topic, topic_name(TOPIC_JOBS)) != 0)
        return;
    BUG_ON(partition < 0 || partition >= LEDGER_PARTITIONS_MAX);
    self->duties[partition] = duty;
    self->has_duty = true;
}

static void on_assigned(void *context, const char *topic, int32_t partition)
{
    note_duty(context, topic, partition, DUTY_READ);
}

static void on_revoked(void *context, const char *topic, int32_t partition)
{
    note_duty(context, topic, partition, DUTY_DROP);
}

static int read_state(void *context, const struct kafka_record *record, struct err *err)
{
    struct coordinator *self = context;
    struct live_job *job = NULL;
    struct err why;
    char id[JOB_ID_MAX + 1] = "";

    (void)err;
    if (record->key && record->key_size <= JOB_ID_MAX)
        memcpy(id, record->key, record->key_size);
    json_object_del(self->newer, id);
    struct live_job *old = ledger_find(self->ledger, record->partition, id);
    if (old)
        ledger_discard(self->ledger, old);
    if (!record->value)
        return 0;
    int rc = state_decode(&job, record->partition, record, &why);
    if (rc == -ERR_UNSUPPORTED)
        json_object_set_new(self->newer, id, json_string(why.text));
    else if (rc < 0)
        log_error("%s/%d@%lld is lost: %s", record->topic, record->partition,
                  (long long)record->offset, why.text);
    else
        ledger_restore(self->ledger, job);
    return 0;
}

static int read_result(void *context, const struct kafka_record *record, struct err *err)
{
    struct coordinator *self = context;
    char id[JOB_ID_MAX + 1];

    (void)err;
    if (!record->value || !record->key || !job_id_valid(record->key, record->key_size))
        return 0;
    memcpy(id, record->key, record->key_size);
    id[record->key_size] = 0;
    ledger_remember(self->ledger, record->partition, id, record_digest(record));
    return 0;
}

/* A live job that we would lose: let a newer coordinator have the partition. */
static int refuse_newer(const struct coordinator *self, struct err *err)
{
    void *first = json_object_iter(self->newer);
    if (!first)
        return 0;
    return err_set(err, ERR_UNSUPPORTED, "job '%s' is a newer unclip's, start that one: %s",
                   json_object_iter_key(first), json_string_value(json_object_iter_value(first)));
}

static int partition_read(struct coordinator *self, int partition, struct err *err)
{
    size_t before = ledger_count(self->ledger);

    ledger_partition_add(self->ledger, partition);
    int rc = kafka_replay(self->kafka, topic_name(TOPIC_RESULTS), partition, REPLAY_MS, read_result,
                          self, err);
    if (rc == 0)
        rc = kafka_replay(self->kafka, topic_name(TOPIC_STATE), partition, REPLAY_MS, read_state,
                          self, err);
    if (rc == 0)
        rc = refuse_newer(self, err);
    json_object_clear(self->newer);
    if (rc < 0)
        return err_prefix(err, "cannot read partition %d back", partition);
    fault_at(FAULT_IN_REPLAY, NULL, NULL);
    ledger_partition_ready(self->ledger, partition);
    self->arrived = true;
    view_partition_add(self->view, partition);
    log_info("partition %d: assigned, %zu live jobs", partition,
             ledger_count(self->ledger) - before);
    return 0;
}

static void partition_drop(struct coordinator *self, int partition)
{
    if (!ledger_partition_kept(self->ledger, partition))
        return;
    view_partition_drop(self->view, partition);
    ledger_partition_drop(self->ledger, partition);
    rates_forget(&self->rates, partition);
    log_info("partition %d: given up", partition);
}

/* --- the batch --- */

static void work_release(struct work *work)
{
    outbox_release(&work->outbox);
    kafka_record_free(work->record);
    *work = (struct work){0};
}

/* Does what rebalances asked for. The batch is empty. */
static int settle(struct coordinator *self, struct err *err)
{
    BUG_ON(self->count > 0);
    for (int i = 0; self->has_duty && i < LEDGER_PARTITIONS_MAX; i++) {
        enum duty duty = self->duties[i];
        self->duties[i] = DUTY_NONE;
        if (duty == DUTY_NONE)
            continue;
        partition_drop(self, i);
        int rc = duty == DUTY_READ ? partition_read(self, i, err) : 0;
        if (rc < 0)
            return rc;
    }
    self->has_duty = false;
    return 0;
}

/* Its partition was revoked, or another coordinator has done it: what we know of it is void. */
static void note_lost(struct coordinator *self, const struct kafka_record *record)
{
    log_info("%s/%d@%lld: lost to a rebalance", record->topic, record->partition,
             (long long)record->offset);
    if (self->duties[record->partition] == DUTY_NONE)
        note_duty(self, topic_name(TOPIC_JOBS), record->partition, DUTY_READ);
}

/* Commits the batch and empties it. */
static int flush(struct coordinator *self, struct err *err)
{
    struct kafka_unit units[BATCH_MAX];

    if (self->count == 0)
        return 0;
    handle_settle(&self->handler);
    for (size_t i = 0; i < self->count; i++)
        units[i] = (struct kafka_unit){
            .record = self->batch[i].record,
            .outputs = self->batch[i].outbox.outputs,
            .output_count = self->batch[i].outbox.count,
        };
    fault_at(FAULT_BEFORE_BEGIN, NULL, NULL);
    int rc = kafka_commit(self->kafka, units, self->count, KAFKA_PATIENCE_MS, err);
    fault_at(FAULT_AFTER_COMMIT, NULL, NULL);
    for (size_t i = 0; i < self->count; i++) {
        if (rc == 0 && units[i].lost)
            note_lost(self, units[i].record);
        work_release(&self->batch[i]);
    }
    self->count = 0;
    self->bytes = 0;
    self->urgent = false;
    return rc;
}

/* Takes the record and handles it. */
static int take(struct coordinator *self, struct kafka_record *record, struct err *err)
{
    if (!kafka_record_current(self->kafka, record)) {
        kafka_record_free(record);
        return 0;
    }
    if (!ledger_partition_kept(self->ledger, record->partition)) {
        int partition = record->partition;
        kafka_record_free(record);
        return err_set(err, ERR_CONFLICT,
                       "partition %d has records but is not assigned: do '%s' and '%s' have the "
                       "same number of partitions?",
                       partition, topic_name(TOPIC_JOBS), topic_name(TOPIC_EVENTS));
    }
    if (self->count == 0) {
        self->since_ms = clock_monotonic_ms(self->clock);
        self->urgent = view_pending(self->view);
    }
    struct work *work = &self->batch[self->count++];
    *work = (struct work){.record = record};
    self->urgent |=
        handle_record(&self->handler, record, clock_wall_ms(self->clock), &work->outbox);
    self->bytes += outbox_bytes(&work->outbox);
    return self->count == BATCH_MAX || self->bytes > BATCH_BYTES_MAX ? flush(self, err) : 0;
}

/* --- timers --- */

/* The ledger is ahead of Kafka, where a rebalance came first: those partitions are read back. */
static void due_lost(struct coordinator *self, const struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->count; i++) {
        int32_t partition = outbox->outputs[i].partition;
        if (partition >= 0 && self->duties[partition] == DUTY_NONE)
            note_duty(self, topic_name(TOPIC_JOBS), partition, DUTY_READ);
    }
}

/* What is due, and what may be let in where a partition was read back. */
static size_t due_make(struct coordinator *self, struct outbox *outbox)
{
    int64_t now_ms = clock_wall_ms(self->clock);
    size_t count = handle_due(&self->handler, now_ms, outbox);
    if (self->arrived)
        handle_admission(&self->handler, now_ms, outbox);
    self->arrived = false;
    return count + outbox->count;
}

/* That, in a transaction of its own. The batch is empty. */
static int serve_due(struct coordinator *self, struct err *err)
{
    struct outbox outbox = {0};
    struct err why;
    int rc = 0;

    if (due_make(self, &outbox) == 0)
        return 0;
    handle_settle(&self->handler);
    fault_at(FAULT_BEFORE_BEGIN, NULL, NULL);
    if (outbox.count > 0)
        rc = kafka_publish(self->kafka, outbox.outputs, outbox.count, KAFKA_PATIENCE_MS, &why);
    fault_at(FAULT_AFTER_COMMIT, NULL, NULL);
    if (rc == -ERR_CONFLICT) {
        log_info("what was due waits: %s", why.text);
        due_lost(self, &outbox);
        rc = 0;
    } else if (rc < 0) {
        *err = why;
    }
    outbox_release(&outbox);
    return rc;
}

/* --- the loop --- */

/* How long the batch may still wait for company. */
static int patience(const struct coordinator *self)
{
    int64_t left = self->since_ms + GATHER_MS - clock_monotonic_ms(self->clock);
    if (self->count == 0 || self->urgent)
        return 0;
    return left > 0 ? (int)left : 0;
}

/* Until the first timer, at most POLL_MS. */
static int poll_timeout(const struct coordinator *self)
{
    const struct live_job *due = ledger_first_due(self->ledger);
    if (self->count > 0)
        return patience(self);
    if (view_pending(self->view))
        return 0;
    int64_t left = due ? due->timer.due_ms - clock_wall_ms(self->clock) : POLL_MS;
    return left < 0 ? 0 : left < POLL_MS ? (int)left : POLL_MS;
}

/* One look at Kafka. Handled records pile up as long as there are more at once. */
static int turn(struct coordinator *self, struct err *err)
{
    struct kafka_record *record = NULL;
    int rc = kafka_poll(self->kafka, 0, poll_timeout(self), &record, err);

    if (rc == 0 && (self->has_duty || (!record && patience(self) == 0)))
        rc = flush(self, err);
    if (rc == 0 && self->has_duty)
        rc = settle(self, err);
    if (rc == 0 && record) {
        rc = take(self, record, err);
        record = NULL;
    }
    kafka_record_free(record);
    return rc;
}

static void rest(struct coordinator *self)
{
    view_serve(self->view);
    if (!view_pending(self->view))
        kafka_commit_idle(self->kafka, KAFKA_QUIET_MS);
    if (self->ready || !kafka_assigned(self->kafka))
        return;
    self->ready = true;
    log_info("ready");
}

static int loop(struct coordinator *self, const volatile sig_atomic_t *stop, struct err *err)
{
    int rc = 0;
    while (rc == 0 && !*stop) {
        rc = turn(self, err);
        if (rc == 0 && self->count == 0 && !self->has_duty)
            rc = serve_due(self, err);
        if (rc == 0 && self->count == 0 && !self->has_duty)
            rest(self);
    }
    return rc == 0 ? flush(self, err) : rc;
}

/* --- opening and closing --- */

static int replay_results(void *context, int partition, view_each_fn *each, void *each_context,
                          struct err *err)
{
    struct coordinator *self = context;
    return kafka_replay(self->kafka, topic_name(TOPIC_RESULTS), partition, REPLAY_MS, each,
                        each_context, err);
}

static int open_kafka(struct coordinator *self, struct err *err)
{
    const char *inputs[] = {topic_name(TOPIC_JOBS), topic_name(TOPIC_EVENTS), NULL};
    const char *outputs[3 + STAGE_COUNT * CLASS_COUNT + 1] = {
        topic_name(TOPIC_STATE), topic_name(TOPIC_RESULTS), topic_name(TOPIC_DEAD_LETTER)};
    for (int i = 0; i < STAGE_COUNT * CLASS_COUNT; i++)
        outputs[3 + i] =
            topic_tasks((enum stage)(i / CLASS_COUNT), (enum task_class)(i % CLASS_COUNT));
    const struct kafka_options options = {
        .config = self->config,
        .lane_group = {GROUP},
        .slot = self->name,
        .lane_topics = {inputs},
        .output_topics = outputs,
        .copartition = true,
        .assigned = on_assigned,
        .revoked = on_revoked,
        .context = self,
    };
    return kafka_open(&self->kafka, &options, err);
}

/* What the whole cluster may have, as this partition's share of it. */
static int share_of(int64_t all, int partitions)
{
    return (int)((all + partitions - 1) / partitions);
}

static void bound(struct coordinator *self)
{
    const struct config *config = self->config;
    int partitions = kafka_topic_partitions(self->kafka, topic_name(TOPIC_JOBS));
    const struct admission_bounds bounds = {
        .in_flight[CLASS_INTERACTIVE] = share_of(config->inflight_interactive, partitions),
        .in_flight[CLASS_BULK] = share_of(config->inflight_bulk, partitions),
        .waiting = (int)config->waiting_jobs,
        .client_waiting = (int)config->waiting_per_client,
        .waiting_bytes = (size_t)config->waiting_mib << 20,
    };
    ledger_bound(self->ledger, &bounds);
}

static int coordinator_open(struct coordinator *self, const struct config *config, struct err *err)
{
    *self = (struct coordinator){.config = config, .clock = clock_system()};
    snprintf(self->name, sizeof self->name, "coordinator-%lld", (long long)config->slot);
    planner_init(&self->planner, config->models, config->model);
    self->planner.probe = config->probe;
    self->ledger = ledger_new();
    self->newer = json_object();
    self->retry = (struct retry){
        .limit = (int)config->retry_limit,
        .base_ms = config->retry_base_ms,
        .max_ms = config->retry_max_ms,
        .state = (uint64_t)planner_seed(),
    };
    int rc = policy_open(&self->policy, config, err);
    if (rc == 0)
        rc = storage_open(&self->storage, config->artifacts, err);
    if (rc == 0)
        rc = redis_open(&self->redis, config->redis, self->clock, err);
    if (rc < 0)
        return rc;
    self->handler = (struct handler){self->ledger, &self->planner, self->name,   &self->retry,
                                     &self->rates, self->storage,  &self->policy};
    self->view = view_new(&(struct view_options){
        .redis = self->redis,
        .ledger = self->ledger,
        .rates = &self->rates,
        .clock = self->clock,
        .ttl_ms = config->status_ttl_s * 1000,
        .replay = replay_results,
        .context = self,
    });
    rc = open_kafka(self, err);
    if (rc == 0)
        bound(self);
    return rc;
}

static void coordinator_close(struct coordinator *self)
{
    for (size_t i = 0; i < self->count; i++)
        work_release(&self->batch[i]);
    kafka_close(self->kafka);
    view_free(self->view);
    ledger_free(self->ledger);
    json_decref(self->newer);
    redis_close(self->redis);
    storage_close(self->storage);
    planner_release(&self->planner);
    policy_release(&self->policy);
}

int coordinator_run(const struct config *config, const volatile sig_atomic_t *stop, struct err *err)
{
    struct coordinator *self = xmalloc(sizeof *self);
    int rc = coordinator_open(self, config, err);

    if (rc == 0)
        rc = loop(self, stop, err);
    coordinator_close(self);
    free(self);
    return rc;
}
