/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in, changes out. The states and who makes each transition: ledger.c's opening comment.
 *
 * Every record of unclip.jobs ends in exactly one of: accepted (its tasks come when it is
 * admitted), refused (dead letter, and a result unless the id belongs to another job), ignored (a
 * repetition), a cancellation, or a dead letter. Every event either changes its picture or is
 * ignored as late or repeated: an event counts once, because it names the attempt and the hop that
 * it finished, the attempts of a picture only rise, and so do the hops of an attempt.
 */
#include "coordinator/handle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/dead_letter.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/safetensors.h"
#include "common/utf8.h"
#include "coordinator/inputs.h"
#include "coordinator/records.h"

#define CREATED_PAST_MS (7 * 86400000LL) /* older producers' clocks are not believed */

/* One record being handled. */
struct turn {
    struct handler *handler;
    struct ledger *ledger;
    const struct kafka_record *record; /* NULL where a timer is served */
    int home;
    int64_t now_ms;
    struct outbox *outbox;
    bool relaxed; /* so far it is news of a picture under way, and no more */
};

static void refuse(struct turn *turn, const struct kafka_record *record, const char *job,
                   const char *stage, const struct err *err)
{
    struct dead_letter letter = {
        .at_ms = turn->now_ms,
        .err = err,
        .record = record,
        .worker = turn->handler->name,
        .job = job && *job ? job : NULL,
        .stage = stage,
        .with_value = true,
    };
    struct kafka_output out;
    char *text = dead_letter_make(&letter, &out);
    log_warn("refused %s/%d@%lld: %s: %s", record->topic, record->partition,
             (long long)record->offset, err_name(err->code), err->text);
    outbox_add(turn->outbox, out.topic, out.partition, out.key, out.key_size, text, out.value_size,
               NULL, NULL);
}

static void dead_letter(struct turn *turn, const char *job, const struct err *err)
{
    refuse(turn, turn->record, job, NULL, err);
}

/* When the job's record was produced, unless that clock is plainly wrong. */
static int64_t created_at(const struct turn *turn)
{
    int64_t at = turn->record->timestamp_ms;
    return at > turn->now_ms - CREATED_PAST_MS && at <= turn->now_ms ? at : turn->now_ms;
}

static bool id_taken(const struct turn *turn, const char *id, uint64_t *digest)
{
    const struct live_job *live = ledger_find(turn->ledger, turn->home, id);
    if (live)
        *digest = live->digest;
    return live || ledger_remembers(turn->ledger, turn->home, id, digest);
}

/* --- jobs --- */

/* The picture's task as it stands: JSON, owned. */
static char *task_text(const struct turn *turn, const struct live_job *live, int image)
{
    struct task task;
    task_from_job(&task, &live->job, image, live->home, live->created_at_ms, turn->now_ms);
    task.hop = live->pictures[image].hops;
    task.attempt = live->pictures[image].attempt;
    char *text = task_to_json(&task);
    task_release(&task);
    return text;
}

/* At the first stage, or at the one where its tensors are kept for it. */
static void add_task(struct turn *turn, const struct live_job *live, int image)
{
    struct err err;
    void *value = NULL;
    size_t size = 0;
    char key[JOB_ID_MAX + 16];
    const struct job *job = &live->job;
    const struct picture *picture = &live->pictures[image];

    BUG_ON(picture->hops > 0 && !picture->ref);
    if (picture->ref)
        value = xstrdup("");
    else if (safetensors_encode(NULL, 0, NULL, 0, &value, &size, &err) < 0)
        BUG("no memory for an empty record");
    snprintf(key, sizeof key, "%s/%d", job->id, image);
    outbox_add(turn->outbox, topic_tasks(job->route[picture->hops].stage, job->task_class),
               KAFKA_ANY_PARTITION, key, strlen(key), value, size, TASK_HEADER,
               task_text(turn, live, image));
    if (picture->ref)
        outbox_add_header(turn->outbox, TASK_REF_HEADER, xstrdup(picture->ref));
}

/* `notice`: said in its status; NULL: nothing. */
static void job_accept(struct turn *turn, struct job *job, uint64_t digest, const char *notice)
{
    struct live_job *live =
        ledger_add(turn->ledger, turn->home, job, true, digest, created_at(turn));

    live->offset = turn->record->offset;
    if (notice)
        live_job_notice(live, notice);
    ledger_wait(turn->ledger, live);
    ledger_touch(turn->ledger, live, turn->outbox, turn->now_ms);
}

/* `readable`: the job could be parsed and is shown whole. Its id, if any, is free. */
static void job_refuse(struct turn *turn, struct job *job, bool readable, uint64_t digest,
                       const struct err *err)
{
    dead_letter(turn, job->id, err);
    if (!*job->id)
        return;
    if (readable)
        inputs_hide(job);
    struct live_job *live =
        ledger_add(turn->ledger, turn->home, job, readable, digest, created_at(turn));
    char *message = utf8_clean(err->text, strlen(err->text));
    live_job_error(live, err_name(err->code), message);
    free(message);
    job_set_state(turn->ledger, live, JOB_FAILED, turn->now_ms, "it is refused");
    ledger_touch(turn->ledger, live, turn->outbox, turn->now_ms);
}

/* Its id is taken: by the same job, which is ignored, or by another one, which stays as it is. */
static void job_again(struct turn *turn, const struct job *job, bool same)
{
    struct err err;

    if (same) {
        log_info("job %s: sent again, ignored", job->id);
        return;
    }
    err_set(&err, ERR_CONFLICT, "the id '%s' is taken by a job with another body", job->id);
    dead_letter(turn, job->id, &err);
}

/* Tensors that are kept for another try are in the store, which we do not reach: their tasks are
   written all the same. A worker finds the job ended, drops them, and removes the tensors. */
static void retries_release(struct turn *turn, const struct live_job *job)
{
    for (int i = 0; job->pictures && i < job->job.n; i++) {
        const struct picture *picture = &job->pictures[i];
        if (picture->state == PICTURE_PENDING && picture->retry_at_ms > 0 && picture->ref)
            add_task(turn, job, i);
    }
}

static void job_cancel(struct turn *turn, const char *id)
{
    struct live_job *live = ledger_find(turn->ledger, turn->home, id);
    struct err err;

    if (!live && ledger_remembers(turn->ledger, turn->home, id, NULL)) {
        log_info("job %s: has ended, not cancelled", id);
        return;
    }
    if (!live) {
        err_set(&err, ERR_NOT_FOUND, "no job '%s' to cancel on this partition", id);
        dead_letter(turn, id, &err);
        return;
    }
    retries_release(turn, live);
    live_job_drop(live);
    live_job_error(live, err_name(ERR_CANCELLED), "the job was cancelled");
    job_set_state(turn->ledger, live, JOB_CANCELLED, turn->now_ms, "a cancellation came");
    ledger_touch(turn->ledger, live, turn->outbox, turn->now_ms);
}

/* By the coordinator's clock, or by that of a worker that has dropped a picture for it. */
static void job_expire(struct turn *turn, struct live_job *job)
{
    char message[80];
    snprintf(message, sizeof message, "the job's deadline of %lld s has passed",
             (long long)job->job.deadline_s);
    retries_release(turn, job);
    live_job_drop(job);
    live_job_error(job, err_name(ERR_EXPIRED), message);
    job_set_state(turn->ledger, job, JOB_EXPIRED, turn->now_ms, "its deadline has passed");
}

static void new_job(struct turn *turn, struct job *job, uint64_t digest)
{
    const struct policy *policy = turn->handler->policy;
    struct err err, why;
    bool denied = policy && policy_check(policy, job, &why) < 0;

    if (denied && !policy->flags)
        job_refuse(turn, job, true, digest, &why);
    else if (planner_complete(turn->handler->planner, job, &err) < 0 ||
             ledger_check(turn->ledger, turn->home, job->task_class, job->client, &err) < 0 ||
             inputs_store(turn->handler->storage, job, &err) < 0)
        job_refuse(turn, job, true, digest, &err);
    else
        job_accept(turn, job, digest, denied ? why.text : NULL);
}

static void handle_job(struct turn *turn)
{
    const struct kafka_record *record = turn->record;
    uint64_t digest = body_digest(record->value, record->value_size), known;
    struct job job = {0};
    struct err err;
    int rc = job_parse(&job, record->key, record->key_size, record->value, record->value_size,
                       record->topic, record->partition, record->offset, &err);
    bool taken = *job.id && id_taken(turn, job.id, &known);

    if (rc < 0 && taken)
        dead_letter(turn, job.id, &err);
    else if (rc < 0)
        job_refuse(turn, &job, false, digest, &err);
    else if (job.type == JOB_CANCEL)
        job_cancel(turn, job.id);
    else if (taken)
        job_again(turn, &job, known == digest);
    else
        new_job(turn, &job, digest);
    job_release(&job);
}

/* --- events --- */

static void job_close_if_over(struct turn *turn, struct live_job *job)
{
    if (job_state_final(job->state) || live_job_count(job, PICTURE_PENDING) > 0)
        return;
    if (live_job_count(job, PICTURE_STORED) > 0)
        job_set_state(turn->ledger, job, JOB_SUCCEEDED, turn->now_ms,
                      "every picture is stored or failed");
    else
        job_set_state(turn->ledger, job, JOB_FAILED, turn->now_ms, "every picture failed");
}

static void picture_store(struct picture *picture, const struct event *event)
{
    picture->state = PICTURE_STORED;
    picture->uri = xstrdup(event->uri);
    picture->sha256 = xstrdup(event->sha256);
    picture->width = event->width;
    picture->height = event->height;
    picture->has_score = event->has_score;
    picture->score = event->score;
}

static void picture_fail(struct live_job *job, struct picture *picture, enum picture_state state,
                         const char *code, const char *message)
{
    picture->state = state;
    picture->error_code = xstrdup(code);
    picture->error_message = xstrdup(message);
    if (!job->error_code)
        live_job_error(job, code, message);
}

/* The event as a dead letter that has the task's headers, so that the task can be sent again. */
static void task_letter(struct turn *turn, const struct live_job *job, const struct event *event,
                        const struct err *err)
{
    char *task = task_text(turn, job, event->image);
    struct kafka_header headers[2] = {{TASK_HEADER, task, strlen(task)}};
    struct kafka_record record = *turn->record;
    size_t count = 1;

    if (event->ref)
        headers[count++] = (struct kafka_header){TASK_REF_HEADER, event->ref, strlen(event->ref)};
    record.headers = headers;
    record.header_count = count;
    refuse(turn, &record, job->job.id, stage_name(event->stage), err);
    free(task);
}

/* A failure that another try may mend: it waits, or has been tried often enough. */
static void picture_retry(struct turn *turn, struct live_job *job, const struct event *event)
{
    struct handler *handler = turn->handler;
    struct err err;

    if (retry_note(handler->retry, job, event, turn->now_ms))
        return;
    err_set(&err, err_from_name(event->error_code), "%s", event->error_message);
    if (handler->retry->limit > 0)
        err_prefix(&err, "tried %d times", handler->retry->limit + 1);
    task_letter(turn, job, event, &err);
    picture_fail(job, &job->pictures[event->image], PICTURE_FAILED, event->error_code, err.text);
}

static void picture_drop(struct turn *turn, struct live_job *job, const struct event *event)
{
    const char *expired = err_name(ERR_EXPIRED);
    bool late =
        job->job.deadline_s > 0 && event->error_code && strcmp(event->error_code, expired) == 0;

    picture_fail(job, &job->pictures[event->image], PICTURE_DROPPED,
                 late ? expired : err_name(ERR_CANCELLED), "a worker dropped the picture");
    if (late)
        job_expire(turn, job);
}

static void notices_add(struct live_job *job, const json_t *notices)
{
    size_t i;
    const json_t *notice;
    json_array_foreach (notices, i, notice)
        live_job_notice(job, json_string_value(notice));
}

static void event_apply(struct turn *turn, struct live_job *job, const struct event *event)
{
    struct picture *picture = &job->pictures[event->image];

    if (job->state == JOB_QUEUED)
        job_set_state(turn->ledger, job, JOB_RUNNING, turn->now_ms, event->worker);
    notices_add(job, event->notices);
    live_job_spent(job, event->stage, event->compute_ms);
    if (event->type == EVENT_STAGE_FINISHED || event->type == EVENT_PICTURE_FINISHED)
        rates_computed(turn->handler->rates, &job->job.route[event->hop], event->compute_ms);
    switch (event->type) {
    case EVENT_STAGE_FINISHED:
        picture->hops = event->hop + 1;
        turn->relaxed = true;
        break;
    case EVENT_PICTURE_FINISHED:
        picture->hops = event->hop + 1;
        picture_store(picture, event);
        break;
    case EVENT_PICTURE_RETRY:
        picture_retry(turn, job, event);
        break;
    case EVENT_COUNT:
        BUG("no such event");
    case EVENT_PICTURE_FAILED:
        picture_fail(job, picture, PICTURE_FAILED, event->error_code, event->error_message);
        break;
    case EVENT_PICTURE_DROPPED:
        picture_drop(turn, job, event);
        break;
    }
    if (picture->state != PICTURE_PENDING)
        rates_ended(turn->handler->rates, turn->home, job->job.task_class, turn->now_ms);
    job_close_if_over(turn, job);
    ledger_touch(turn->ledger, job, turn->outbox, turn->now_ms);
}

/* An event that does not fit the job it names was made by something that is not ours. */
static int event_check(const struct live_job *job, const struct event *event, struct err *err)
{
    if (event->image >= job->job.n)
        return err_set(err, ERR_INVALID_RECORD, "job '%s' has no picture %d", event->job,
                       event->image);
    if (event->image >= job->admitted)
        return err_set(err, ERR_INVALID_RECORD, "picture %d of job '%s' has not been admitted",
                       event->image, event->job);
    if (event->hop >= job->job.hops || job->job.route[event->hop].stage != event->stage)
        return err_set(err, ERR_INVALID_RECORD, "hop %d of job '%s' is not %s", event->hop,
                       event->job, stage_name(event->stage));
    if (event->attempt > job->pictures[event->image].attempt)
        return err_set(err, ERR_INVALID_RECORD, "picture %d of job '%s' has no attempt %d yet",
                       event->image, event->job, event->attempt);
    bool last = event->hop == job->job.hops - 1;
    if (last ? event->type == EVENT_STAGE_FINISHED : event->type == EVENT_PICTURE_FINISHED)
        return err_set(err, ERR_INVALID_RECORD, "hop %d of job '%s' is%s the last of its route",
                       event->hop, event->job, last ? "" : " not");
    return 0;
}

/* What it tells is known, or is of an attempt that has been given up. */
static bool event_is_late(const struct live_job *job, const struct event *event)
{
    const struct picture *picture = &job->pictures[event->image];
    return picture->state != PICTURE_PENDING || event->attempt < picture->attempt ||
           picture->retry_at_ms > 0 || event->hop < picture->hops;
}

static void handle_event(struct turn *turn)
{
    struct event event;
    struct err err;

    if (event_parse(&event, turn->record->value, turn->record->value_size, &err) < 0) {
        dead_letter(turn, NULL, &err);
        return;
    }
    struct live_job *job = ledger_find(turn->ledger, turn->home, event.job);
    if (!job)
        log_debug("job %s: an event of %s is late, ignored", event.job, event.worker);
    else if (event_check(job, &event, &err) < 0)
        dead_letter(turn, event.job, &err);
    else if (event_is_late(job, &event))
        log_info("job %s: an event of %s is repeated, ignored", event.job, event.worker);
    else
        event_apply(turn, job, &event);
    event_release(&event);
}

/* --- admission --- */

/* Every picture for which there is room gets its task: in the record's own transaction, like the
   mark of it in the job's state. */
static void admit(struct turn *turn)
{
    struct live_job *live;

    for (enum task_class c = 0; c < CLASS_COUNT; c++) {
        bool idle = ledger_admission(turn->ledger, turn->home, c).in_flight == 0;
        for (; (live = ledger_admit(turn->ledger, turn->home, c)); idle = false) {
            add_task(turn, live, live->admitted - 1);
            if (live->state == JOB_ACCEPTED)
                job_set_state(turn->ledger, live, JOB_QUEUED, turn->now_ms, "it is admitted");
            if (idle)
                rates_began(turn->handler->rates, turn->home, c, turn->now_ms);
            ledger_touch(turn->ledger, live, turn->outbox, turn->now_ms);
        }
    }
}

void handle_admission(struct handler *handler, int64_t now_ms, struct outbox *outbox)
{
    struct turn turn = {
        .handler = handler, .ledger = handler->ledger, .now_ms = now_ms, .outbox = outbox};
    for (; turn.home < LEDGER_PARTITIONS_MAX; turn.home++)
        if (ledger_partition_kept(handler->ledger, turn.home))
            admit(&turn);
}

/* --- timers --- */

static void retries_begin(struct turn *turn, struct live_job *job)
{
    for (int i = 0; job->pictures && i < job->job.n; i++) {
        struct picture *picture = &job->pictures[i];
        if (picture->retry_at_ms <= 0 || picture->retry_at_ms > turn->now_ms)
            continue;
        add_task(turn, job, i);
        retry_begun(picture);
    }
}

size_t handle_due(struct handler *handler, int64_t now_ms, struct outbox *outbox)
{
    struct turn turn = {
        .handler = handler, .ledger = handler->ledger, .now_ms = now_ms, .outbox = outbox};
    struct live_job *job;
    size_t count = 0;

    for (; count < HANDLE_DUE_MAX && (job = ledger_first_due(handler->ledger)) &&
           job->timer.due_ms <= now_ms;
         count++) {
        turn.home = job->home;
        int64_t deadline = job_deadline_ms(&job->job, job->created_at_ms);
        if (deadline > 0 && deadline <= now_ms)
            job_expire(&turn, job);
        else
            retries_begin(&turn, job);
        ledger_touch(handler->ledger, job, outbox, now_ms);
    }
    if (count > 0) /* in the end, lest a job be let in that is to expire here too */
        handle_admission(handler, now_ms, outbox);
    return count;
}

/* --- records --- */

bool handle_record(struct handler *handler, const struct kafka_record *record, int64_t now_ms,
                   struct outbox *outbox)
{
    struct turn turn = {
        .handler = handler,
        .ledger = handler->ledger,
        .record = record,
        .home = record->partition,
        .now_ms = now_ms,
        .outbox = outbox,
    };
    if (strcmp(record->topic, topic_name(TOPIC_JOBS)) == 0)
        handle_job(&turn);
    else
        handle_event(&turn);
    admit(&turn);
    return !turn.relaxed || outbox->count > 0;
}

/* `text` is taken; NULL is a tombstone. */
static void add_record(const struct live_job *job, const char *topic, char *text)
{
    outbox_add(job->outbox, topic, job->home, job->job.id, strlen(job->job.id), text,
               text ? strlen(text) : 0, RECORD_DIGEST_HEADER, digest_text(job->digest));
}

void handle_settle(struct handler *handler)
{
    struct live_job *job;

    while ((job = ledger_next_changed(handler->ledger))) {
        if (job_state_final(job->state)) {
            add_record(job, topic_name(TOPIC_RESULTS), result_encode(job));
            add_record(job, topic_name(TOPIC_STATE), NULL);
        } else {
            add_record(job, topic_name(TOPIC_STATE), state_encode(job));
        }
        job->outbox = NULL;
    }
}
