/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop. What it keeps true:
 *
 *  - A record's offset is committed only when its webhook was taken by the receiver, was given up
 *    and is a dead letter in the same transaction, or was not asked for; and so all before it.
 *    Whoever dies, what was not settled is pulled again: each is delivered at least once.
 *  - No receiver holds another up: sending is on threads, so many at a time and fewer to one host,
 *    and what waits for another try waits in the window. When the window is full, that is given up
 *    early which keeps it full.
 *  - Nothing is sent for a partition once it is known to be another's, but what is under way.
 */
#include "webhooks/webhooks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/dead_letter.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/protocol.h"
#include "webhooks/result.h"
#include "webhooks/sender.h"
#include "webhooks/verdict.h"
#include "webhooks/window.h"

#define GROUP     "unclip-webhooks"
#define BATCH_MAX 64  /* records in one transaction */
#define POLL_MS   100 /* longest sleep: a signal is looked at in between */
#define SENDS_MAX 256 /* the setting's bound */

struct webhooks {
    const struct config *config; /* borrowed */
    struct clock *clock;
    char name[32]; /* "webhooks-0" */
    struct kafka *kafka;
    struct window *window;
    struct sender *sender;
    struct backoff backoff;
    struct delivery *sending[SENDS_MAX]; /* borrowed */
    size_t sending_count;
    int64_t look_ms;  /* when one that waits may be sent, at the earliest */
    size_t settled;   /* since the last commit */
    bool moved;       /* partitions came or went */
    bool ready, full; /* said so */
};

/* --- one delivery's end --- */

static void settle(struct webhooks *self, struct delivery *delivery, bool dead)
{
    delivery->state = DELIVERY_SETTLED;
    delivery->dead = dead;
    self->settled++;
}

static void give_up(struct webhooks *self, struct delivery *delivery)
{
    log_warn("job %s: the webhook to %s is a dead letter: %s: %s", delivery->job, delivery->host,
             err_name(delivery->why->code), delivery->why->text);
    settle(self, delivery, true);
}

static void keep_reason(struct delivery *delivery, const struct err *why)
{
    if (!delivery->why)
        delivery->why = xmalloc(sizeof *delivery->why);
    *delivery->why = *why;
}

/* It failed, in a way that another try may mend. */
static void try_again(struct webhooks *self, struct delivery *delivery, int64_t retry_after_s)
{
    if (delivery->tries >= self->config->webhook_tries) {
        err_prefix(delivery->why, "given up after %d tries", delivery->tries);
        give_up(self, delivery);
        return;
    }
    int64_t wait_ms = backoff_wait(&self->backoff, delivery->tries, retry_after_s);
    delivery->state = DELIVERY_WAITING;
    delivery->due_ms = clock_monotonic_ms(self->clock) + wait_ms;
    log_info("job %s: try %d of the webhook to %s failed, the next is in %lld ms: %s",
             delivery->job, delivery->tries, delivery->host, (long long)wait_ms,
             delivery->why->text);
}

static void judge(struct webhooks *self, struct sent *sent)
{
    struct delivery *delivery = sent->delivery;
    enum verdict verdict = verdict_of(sent->rc, sent->status, &sent->err);
    delivery->tries++;
    if (verdict == VERDICT_DELIVERED) {
        log_info("job %s: the webhook to %s is delivered (try %d)", delivery->job, delivery->host,
                 delivery->tries);
        settle(self, delivery, false);
        return;
    }
    keep_reason(delivery, &sent->err);
    if (verdict == VERDICT_AGAIN)
        try_again(self, delivery, sent->retry_after_s);
    else
        give_up(self, delivery);
}

/* --- sending --- */

static void forget_sending(struct webhooks *self, const struct delivery *delivery)
{
    for (size_t i = 0; i < self->sending_count; i++)
        if (self->sending[i] == delivery) {
            self->sending[i] = self->sending[--self->sending_count];
            return;
        }
    BUG("a delivery that was not sent came back");
}

static void take_back(struct webhooks *self)
{
    struct sent sent;
    while (sender_take(self->sender, &sent)) {
        forget_sending(self, sent.delivery);
        self->look_ms = 0; /* there is room for another one */
        if (sent.delivery->orphan)
            delivery_free(sent.delivery);
        else
            judge(self, &sent);
    }
}

static bool host_free(const struct webhooks *self, const char *host)
{
    int64_t count = 0;
    for (size_t i = 0; i < self->sending_count; i++)
        count += strcmp(self->sending[i]->host, host) == 0;
    return count < self->config->webhook_host_sends;
}

/* Sends it if it is due and there is room; false when there is none for any. */
static bool send_if_due(void *context, struct delivery *delivery)
{
    struct webhooks *self = context;
    if (delivery->state != DELIVERY_WAITING)
        return true;
    if ((int64_t)self->sending_count >= self->config->webhook_sends)
        return false;
    if (delivery->due_ms > clock_monotonic_ms(self->clock)) {
        if (delivery->due_ms < self->look_ms)
            self->look_ms = delivery->due_ms;
    } else if (host_free(self, delivery->host)) {
        delivery->state = DELIVERY_SENDING;
        self->sending[self->sending_count++] = delivery;
        sender_give(self->sender, delivery);
    }
    return true;
}

static void send_due(struct webhooks *self)
{
    if (self->look_ms > clock_monotonic_ms(self->clock))
        return;
    self->look_ms = INT64_MAX; /* what finds no room is looked at again when one is back */
    window_each(self->window, send_if_due, self);
}

/* --- committing --- */

static char *letter_of(const struct webhooks *self, const struct delivery *delivery,
                       struct kafka_output *out)
{
    const struct dead_letter letter = {
        .at_ms = clock_wall_ms(self->clock),
        .err = delivery->why,
        .record = delivery->record,
        .worker = self->name,
        .job = delivery->job,
        .with_value = true,
    };
    return dead_letter_make(&letter, out);
}

static int commit_batch(struct webhooks *self, struct delivery **batch, size_t count,
                        struct err *err)
{
    struct kafka_unit units[BATCH_MAX];
    struct kafka_output outputs[BATCH_MAX];
    char *letters[BATCH_MAX] = {NULL};

    for (size_t i = 0; i < count; i++) {
        if (batch[i]->dead)
            letters[i] = letter_of(self, batch[i], &outputs[i]);
        units[i] = (struct kafka_unit){.record = batch[i]->record,
                                       .outputs = letters[i] ? &outputs[i] : NULL,
                                       .output_count = letters[i] ? 1 : 0};
    }
    int rc = kafka_commit(self->kafka, units, count, KAFKA_PATIENCE_MS, err);
    for (size_t i = 0; i < count; i++) {
        self->moved |= units[i].lost;
        free(letters[i]);
        delivery_free(batch[i]);
    }
    return rc;
}

static bool is_current(void *context, const struct kafka_record *record)
{
    const struct webhooks *self = context;
    return kafka_record_current(self->kafka, record);
}

/* Lets go what belongs to another member now. */
static void drop_moved(struct webhooks *self)
{
    if (!self->moved)
        return;
    self->moved = false;
    window_drop(self->window, is_current, self);
}

/* Commits all that is settled, up to the first of each partition that is not. */
static int flush(struct webhooks *self, struct err *err)
{
    struct delivery *batch[BATCH_MAX];
    size_t count;
    int rc = 0;
    while (!rc && (count = window_settled(self->window, batch, BATCH_MAX)) > 0) {
        rc = commit_batch(self, batch, count, err);
        drop_moved(self);
    }
    self->settled = 0;
    return rc;
}

/* The window is full, though all that was settled has left. */
static void make_room(struct webhooks *self)
{
    struct delivery *blocking = window_blocking(self->window);
    if (!self->full)
        log_warn("%zu results wait behind webhooks that are not settled",
                 window_count(self->window));
    self->full = true;
    if (!blocking)
        return;
    err_prefix(blocking->why, "given up after %d tries, since %zu results wait behind it",
               blocking->tries, window_count(self->window));
    give_up(self, blocking);
}

/* --- the loop --- */

static void take(struct webhooks *self, struct kafka_record *record)
{
    struct err why;
    if (!kafka_record_current(self->kafka, record)) {
        kafka_record_free(record);
        return;
    }
    struct delivery *delivery = xcalloc(1, sizeof *delivery);
    delivery->record = record;
    if (result_read(delivery, &why) < 0) {
        log_warn("%s/%d@%lld cannot be read: %s", record->topic, record->partition,
                 (long long)record->offset, why.text);
        keep_reason(delivery, &why);
        settle(self, delivery, true);
    } else if (delivery->state == DELIVERY_SETTLED) {
        self->settled++;
    } else {
        self->look_ms = 0;
    }
    window_add(self->window, delivery);
}

/* Until something is due, at most POLL_MS. */
static int poll_timeout(const struct webhooks *self)
{
    int64_t left = self->look_ms - clock_monotonic_ms(self->clock);
    if (window_has_settled(self->window) || left <= 0)
        return 0;
    return left < POLL_MS ? (int)left : POLL_MS;
}

static void rest(struct webhooks *self)
{
    if (window_count(self->window) == 0)
        kafka_commit_idle(self->kafka, KAFKA_QUIET_MS);
    if (self->ready || !kafka_assigned(self->kafka))
        return;
    self->ready = true;
    log_info("ready");
}

static int turn(struct webhooks *self, struct err *err)
{
    struct kafka_record *record = NULL;
    bool full = window_full(self->window);
    int rc = kafka_poll(self->kafka, full ? -1 : 0, poll_timeout(self), &record, err);

    drop_moved(self);
    if (!rc && record)
        take(self, record);
    take_back(self);
    send_due(self);
    if (!rc && (!record || self->settled >= BATCH_MAX))
        rc = flush(self, err);
    self->full = self->full && window_full(self->window);
    if (!rc && window_full(self->window))
        make_room(self);
    if (!rc && !record)
        rest(self);
    return rc;
}

/* --- opening and closing --- */

static void on_moved(void *context, const char *topic, int32_t partition)
{
    struct webhooks *self = context;
    (void)topic;
    (void)partition;
    self->moved = true;
}

static void wake(void *context)
{
    struct webhooks *self = context;
    kafka_wake(self->kafka);
}

static int open_kafka(struct webhooks *self, struct err *err)
{
    const char *inputs[] = {topic_name(TOPIC_RESULTS), NULL};
    const char *outputs[] = {topic_name(TOPIC_DEAD_LETTER), NULL};
    const struct kafka_options options = {
        .config = self->config,
        .slot = self->name,
        .lane_topics = {inputs},
        .lane_group = {GROUP},
        .output_topics = outputs,
        .assigned = on_moved,
        .revoked = on_moved,
        .context = self,
    };
    return kafka_open(&self->kafka, &options, err);
}

static int open_sender(struct webhooks *self, const struct secrets *secrets, struct err *err)
{
    const struct sender_options options = {
        .secrets = secrets,
        .allowed = self->config->fetch,
        .timeout_ms = (long)self->config->webhook_timeout_ms,
        .threads = (int)self->config->webhook_sends,
        .clock = self->clock,
        .wake = wake,
        .context = self,
    };
    return sender_open(&self->sender, &options, err);
}

/* Waits for what is under way; what waits for another try is for the next start. */
static void close_all(struct webhooks *self)
{
    window_free(self->window);
    sender_free(self->sender);
    kafka_close(self->kafka);
}

int webhooks_run(const struct config *config, const struct secrets *secrets,
                 const volatile sig_atomic_t *stop, struct err *err)
{
    struct webhooks self = {.config = config, .clock = clock_system(), .look_ms = INT64_MAX};
    self.backoff = (struct backoff){.base_ms = config->webhook_base_ms,
                                    .max_ms = config->webhook_max_ms,
                                    .state = (uint64_t)clock_wall_ms(self.clock)};
    snprintf(self.name, sizeof self.name, "webhooks-%lld", (long long)config->slot);
    self.window = window_new();
    int rc = open_kafka(&self, err);
    if (!rc)
        rc = open_sender(&self, secrets, err);
    while (!rc && !*stop)
        rc = turn(&self, err);
    if (self.sender) {
        sender_stop(self.sender);
        take_back(&self);
        rc = rc ? rc : flush(&self, err);
    }
    close_all(&self);
    return rc;
}
