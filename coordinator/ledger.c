/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger of live jobs. Invariants, which hold whenever no function of this file runs:
 *
 *  (1) The ledger holds exactly the jobs of the partitions that this coordinator was assigned. It
 * is a copy: unclip.state and unclip.results are the truth, and dropping a partition loses nothing.
 *  (2) A job is among its partition's live jobs if and only if its state is not final.
 *  (3) A job's rank never falls, and it becomes final once. From then on nothing in it changes.
 *  (4) A job is in state accepted if and only if it is live and none of its pictures is admitted;
 *      it then waits in its partition's admission. Its pictures are admitted in their order, each
 *      in the transaction that writes its task, which also writes `admitted` into unclip.state.
 *  (5) Each job that differs from what is committed in unclip.state is in the list of changed ones,
 *      with the outbox that will carry it; the list is empty after every commit.
 *  (6) Each job that differs from what Redis shows is in the list of unshown ones. An ended job
 *      exists only as long as it is changed or unshown; after that only its id is remembered.
 *  (7) An id is never both live and remembered.
 *  (8) Each live job's ticket counts its pictures that wait and those in flight, once
 *      ledger_partition_ready() has run. After each record, and after a partition was read back,
 *      nothing waits for which there is room; so whatever waits waits for pictures in flight, whose
 *      events let it in.
 *  (9) The timer of a live job that is not changed is on exactly when the job has a deadline or one
 *      of its pictures waits to be tried again, and is due with the first of these.
 *
 *                    ┌────────────────────▶ failed ◀──────┐
 *                    │ job_refuse           ▲             │
 *      ledger_add    │                      │ picture_    │
 *     ───────────▶ accepted ──▶ queued ──▶ running        │
 *                    │      admit  │ event_   │ close_if_over
 *                    │             │ apply    ├─────────▶ succeeded
 *                    ▼             ▼          ▼
 *                    └────────▶ cancelled ◀───┘  (job_cancel)
 *
 *  accepted → queued      its first task is in the same transaction       admit
 *  accepted → failed      it is not valid, or there are too many          job_refuse
 *  queued → running       the first event of one of its pictures          event_apply
 *  running → succeeded    the last picture is done, one is stored         job_close_if_over
 *  running → failed       the last picture is done, none is stored        job_close_if_over
 *  accepted → cancelled   a cancellation, while it waits                  job_cancel
 *  queued → cancelled     a cancellation                                  job_cancel
 *  running → cancelled    the same                                        job_cancel
 *
 *  accepted, queued, running → expired                                    job_expire
 *                         its deadline has passed, by the timer here or as a worker saw it
 *
 * (All of these are in handle.c.)
 *
 * Repetitions. A job that is sent again with the same id and body is ignored as long as the id is
 * live or remembered: for the life of the job, and then for the next LEDGER_REMEMBERED_MAX jobs
 * that end on its partition, across restarts and moves to another coordinator. After that the id is
 * free.
 */
#include "coordinator/ledger.h"

#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/memory.h"

struct remembered {
    char *id;
    uint64_t digest;
};

struct partition {
    void *live; /* tsearch() tree of struct live_job by id */
    struct live_job *first;
    struct admission *admission;
    void *remembered; /* tsearch() tree of struct remembered by id */
    struct remembered *ring[LEDGER_REMEMBERED_MAX];
    size_t at; /* in the ring: the oldest, or an empty place */
};

struct ledger {
    struct partition *partitions[LEDGER_PARTITIONS_MAX];
    struct live_job *changed;
    struct live_job *unshown, **unshown_end; /* in the order in which they changed */
    size_t count, unshown_ended;
    struct admission_bounds bounds;
    struct timers timers; /* of the live jobs */
};

static const char *const picture_names[] = {"pending", "stored", "failed", "dropped"};

const char *picture_state_name(enum picture_state state)
{
    return picture_names[state];
}

bool picture_state_parse(const char *name, enum picture_state *state)
{
    for (int i = PICTURE_PENDING; i <= PICTURE_DROPPED; i++)
        if (strcmp(picture_names[i], name) == 0) {
            *state = (enum picture_state)i;
            return true;
        }
    return false;
}

static int compare_live(const void *a, const void *b)
{
    return strcmp(((const struct live_job *)a)->job.id, ((const struct live_job *)b)->job.id);
}

static int compare_remembered(const void *a, const void *b)
{
    return strcmp(((const struct remembered *)a)->id, ((const struct remembered *)b)->id);
}

static void keep_in_tree(void *node)
{
    (void)node;
}

static void remembered_free(void *node)
{
    struct remembered *remembered = node;
    if (remembered)
        free(remembered->id);
    free(remembered);
}

struct ledger *ledger_new(void)
{
    struct ledger *ledger = xcalloc(1, sizeof *ledger);
    ledger->unshown_end = &ledger->unshown;
    for (int i = 0; i < CLASS_COUNT; i++)
        ledger->bounds.in_flight[i] = INT_MAX;
    ledger->bounds.waiting = ledger->bounds.client_waiting = INT_MAX;
    ledger->bounds.waiting_bytes = SIZE_MAX;
    return ledger;
}

void ledger_bound(struct ledger *ledger, const struct admission_bounds *bounds)
{
    ledger->bounds = *bounds;
}

void ledger_free(struct ledger *ledger)
{
    if (!ledger)
        return;
    for (int i = 0; i < LEDGER_PARTITIONS_MAX; i++)
        if (ledger->partitions[i])
            ledger_partition_drop(ledger, i);
    timers_release(&ledger->timers);
    free(ledger);
}

bool ledger_partition_kept(const struct ledger *ledger, int partition)
{
    return partition >= 0 && partition < LEDGER_PARTITIONS_MAX && ledger->partitions[partition];
}

void ledger_partition_add(struct ledger *ledger, int partition)
{
    BUG_ON(partition < 0 || partition >= LEDGER_PARTITIONS_MAX);
    BUG_ON(ledger->partitions[partition]);
    ledger->partitions[partition] = xcalloc(1, sizeof *ledger->partitions[partition]);
    ledger->partitions[partition]->admission = admission_new(&ledger->bounds);
}

static struct partition *partition_of(const struct ledger *ledger, int partition)
{
    BUG_ON(!ledger_partition_kept(ledger, partition));
    return ledger->partitions[partition];
}

static void unlink_live(struct ledger *ledger, struct live_job *job)
{
    if (!job->link)
        return;
    *job->link = job->next;
    if (job->next)
        job->next->link = job->link;
    job->link = NULL;
    job->next = NULL;
    admission_leave(partition_of(ledger, job->home)->admission, &job->ticket);
    timers_set(&ledger->timers, &job->timer, 0);
    tdelete(job, &partition_of(ledger, job->home)->live, compare_live);
    ledger->count--;
}

static void unlink_changed(struct live_job *job)
{
    if (!job->link_changed)
        return;
    *job->link_changed = job->next_changed;
    if (job->next_changed)
        job->next_changed->link_changed = job->link_changed;
    job->link_changed = NULL;
    job->next_changed = NULL;
}

static void unlink_unshown(struct ledger *ledger, struct live_job *job)
{
    if (!job->unshown)
        return;
    *job->link_unshown = job->next_unshown;
    if (job->next_unshown)
        job->next_unshown->link_unshown = job->link_unshown;
    else
        ledger->unshown_end = job->link_unshown;
    job->unshown = false;
    if (job_state_final(job->state))
        ledger->unshown_ended--;
}

void ledger_discard(struct ledger *ledger, struct live_job *job)
{
    unlink_live(ledger, job);
    unlink_changed(job);
    unlink_unshown(ledger, job);
    live_job_free(job);
}

/* Ended jobs are in no list of the partition, so they are looked for among the unshown. */
static void drop_ended(struct ledger *ledger, int partition)
{
    for (struct live_job *job = ledger->unshown, *next; job; job = next) {
        next = job->next_unshown;
        if (job->home == partition)
            ledger_discard(ledger, job);
    }
}

void ledger_partition_drop(struct ledger *ledger, int partition)
{
    struct partition *kept = partition_of(ledger, partition);
    while (kept->first)
        ledger_discard(ledger, kept->first);
    drop_ended(ledger, partition);
    tdestroy(kept->live, keep_in_tree);
    tdestroy(kept->remembered, remembered_free);
    admission_free(kept->admission);
    free(kept);
    ledger->partitions[partition] = NULL;
}

struct live_job *live_job_new(struct job *job, bool readable, int home)
{
    struct live_job *live = xcalloc(1, sizeof *live);
    live->job = *job;
    memset(job, 0, sizeof *job);
    live->readable = readable;
    live->home = home;
    return live;
}

void live_job_start(struct live_job *job)
{
    BUG_ON(!job->readable);
    if (!job->pictures)
        job->pictures = xcalloc((size_t)job->job.n, sizeof *job->pictures);
}

void live_job_drop(struct live_job *job)
{
    live_job_start(job);
    for (int i = 0; i < job->job.n; i++)
        if (job->pictures[i].state == PICTURE_PENDING)
            job->pictures[i].state = PICTURE_DROPPED;
}

void live_job_free(struct live_job *job)
{
    if (!job)
        return;
    BUG_ON(job->link || job->link_changed || job->unshown);
    for (int i = 0; job->pictures && i < job->job.n; i++) {
        free(job->pictures[i].ref);
        free(job->pictures[i].uri);
        free(job->pictures[i].sha256);
        free(job->pictures[i].error_code);
        free(job->pictures[i].error_message);
    }
    free(job->pictures);
    free(job->stage_ms);
    free(job->error_code);
    free(job->error_message);
    json_decref(job->notices);
    job_release(&job->job);
    free(job);
}

double live_job_stage_ms(const struct live_job *job, enum stage stage)
{
    return job->stage_ms ? job->stage_ms[stage] : 0;
}

void live_job_spent(struct live_job *job, enum stage stage, double ms)
{
    if (!job->stage_ms)
        job->stage_ms = xcalloc(STAGE_COUNT, sizeof *job->stage_ms);
    job->stage_ms[stage] += ms;
}

static void link_live(struct ledger *ledger, struct live_job *job)
{
    struct partition *partition = partition_of(ledger, job->home);
    struct live_job **place = tsearch(job, &partition->live, compare_live);
    BUG_ON(!place || *place != job);
    job->next = partition->first;
    if (job->next)
        job->next->link = &job->next;
    partition->first = job;
    job->link = &partition->first;
    ledger->count++;
}

struct live_job *ledger_add(struct ledger *ledger, int home, struct job *job, bool readable,
                            uint64_t digest, int64_t created_at_ms)
{
    BUG_ON(ledger_remembers(ledger, home, job->id, NULL));
    struct live_job *live = live_job_new(job, readable, home);
    live->state = JOB_ACCEPTED;
    live->digest = digest;
    live->created_at_ms = live->updated_at_ms = created_at_ms;
    link_live(ledger, live);
    return live;
}

/* --- admission --- */

static int live_job_in_flight(const struct live_job *job)
{
    int count = 0;
    for (int i = 0; i < job->admitted; i++)
        count += job->pictures[i].state == PICTURE_PENDING;
    return count;
}

int ledger_check(const struct ledger *ledger, int partition, enum task_class task_class,
                 const char *client, struct err *err)
{
    return admission_check(partition_of(ledger, partition)->admission, task_class, client, err);
}

/* About what malloc() and jansson take for it. */
static size_t json_bytes(const json_t *json)
{
    size_t bytes = 48 + json_string_length(json), i;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)json, key, value)
        bytes += 80 + strlen(key) + json_bytes(value);
    json_array_foreach (json, i, value)
        bytes += 16 + json_bytes(value);
    return bytes;
}

static size_t text_bytes(const char *text)
{
    return text ? strlen(text) : 0;
}

static size_t sources_bytes(const struct sources *sources)
{
    if (!sources)
        return 0;
    size_t bytes = sizeof *sources + (size_t)sources->count * sizeof *sources->inputs +
                   text_bytes(sources->image) + text_bytes(sources->mask);
    for (int i = 0; i < sources->count; i++)
        bytes += text_bytes(sources->inputs[i].image) + text_bytes(sources->inputs[i].text);
    return bytes;
}

/* While some of it waits: with the pictures, which it has once the first one is let in. */
static size_t live_job_bytes(const struct live_job *job)
{
    const struct job *own = &job->job;
    return sizeof *job + (size_t)own->n * sizeof *job->pictures + strlen(own->prompt) +
           strlen(own->negative_prompt) + strlen(own->client) + text_bytes(own->webhook) +
           sources_bytes(own->sources) + (own->metadata ? json_bytes(own->metadata) : 0);
}

void ledger_wait(struct ledger *ledger, struct live_job *job)
{
    job->ticket.bytes = (uint32_t)live_job_bytes(job);
    admission_enter(partition_of(ledger, job->home)->admission, &job->ticket, job->job.task_class,
                    job->job.client, job->job.n - job->admitted, live_job_in_flight(job));
}

static struct live_job *job_of(struct ticket *ticket)
{
    return (struct live_job *)((char *)ticket - offsetof(struct live_job, ticket));
}

struct live_job *ledger_admit(struct ledger *ledger, int partition, enum task_class task_class)
{
    struct ticket *ticket = admission_next(partition_of(ledger, partition)->admission, task_class);
    if (!ticket)
        return NULL;
    struct live_job *job = job_of(ticket);
    live_job_start(job);
    job->admitted++;
    return job;
}

struct admission_state ledger_admission(const struct ledger *ledger, int partition,
                                        enum task_class task_class)
{
    return admission_state(partition_of(ledger, partition)->admission, task_class);
}

static int compare_offsets(const void *a, const void *b)
{
    const struct live_job *x = *(struct live_job *const *)a, *y = *(struct live_job *const *)b;
    return x->offset != y->offset ? (x->offset < y->offset ? -1 : 1) : compare_live(x, y);
}

void ledger_partition_ready(struct ledger *ledger, int partition)
{
    struct live_job **jobs = xmalloc((ledger->count + 1) * sizeof *jobs);
    size_t count = 0;
    for (struct live_job *job = ledger_first(ledger, partition); job; job = job->next)
        jobs[count++] = job;
    qsort(jobs, count, sizeof *jobs, compare_offsets);
    for (size_t i = 0; i < count; i++)
        ledger_wait(ledger, jobs[i]);
    free(jobs);
}

/* When something is to be done for the job; 0: never. */
static int64_t due_ms(const struct live_job *job)
{
    int64_t due = job_deadline_ms(&job->job, job->created_at_ms);
    for (int i = 0; job->pictures && i < job->job.n; i++) {
        int64_t at = job->pictures[i].retry_at_ms;
        if (at > 0 && (due == 0 || at < due))
            due = at;
    }
    return due;
}

static void timer_set(struct ledger *ledger, struct live_job *job)
{
    timers_set(&ledger->timers, &job->timer, job_state_final(job->state) ? 0 : due_ms(job));
}

struct live_job *ledger_first_due(const struct ledger *ledger)
{
    struct timer *timer = timers_first(&ledger->timers);
    return timer ? (struct live_job *)(void *)((char *)timer - offsetof(struct live_job, timer))
                 : NULL;
}

void ledger_restore(struct ledger *ledger, struct live_job *job)
{
    if (!job_state_final(job->state))
        link_live(ledger, job);
    timer_set(ledger, job);
    ledger_mark_unshown(ledger, job);
}

struct live_job *ledger_find(const struct ledger *ledger, int home, const char *id)
{
    struct live_job probe;
    if (!ledger_partition_kept(ledger, home) || strlen(id) > JOB_ID_MAX)
        return NULL;
    strcpy(probe.job.id, id);
    struct live_job **place = tfind(&probe, &ledger->partitions[home]->live, compare_live);
    return place ? *place : NULL;
}

struct live_job *ledger_first(const struct ledger *ledger, int partition)
{
    return partition_of(ledger, partition)->first;
}

size_t ledger_count(const struct ledger *ledger)
{
    return ledger->count;
}

void ledger_remember(struct ledger *ledger, int home, const char *id, uint64_t digest)
{
    struct partition *partition = partition_of(ledger, home);
    struct remembered **slot = &partition->ring[partition->at];
    uint64_t known;

    if (ledger_remembers(ledger, home, id, &known))
        return;
    if (*slot) {
        tdelete(*slot, &partition->remembered, compare_remembered);
        remembered_free(*slot);
    }
    *slot = xmalloc(sizeof **slot);
    **slot = (struct remembered){xstrdup(id), digest};
    BUG_ON(!tsearch(*slot, &partition->remembered, compare_remembered));
    partition->at = (partition->at + 1) % LEDGER_REMEMBERED_MAX;
}

bool ledger_remembers(const struct ledger *ledger, int home, const char *id, uint64_t *digest)
{
    struct remembered probe = {.id = (char *)(uintptr_t)id};
    struct remembered **place =
        tfind(&probe, &partition_of(ledger, home)->remembered, compare_remembered);
    if (place && digest)
        *digest = (*place)->digest;
    return place != NULL;
}

void job_set_state(struct ledger *ledger, struct live_job *job, enum job_state state,
                   int64_t now_ms, const char *why)
{
    BUG_ON(!job_state_legal(job->state, state));
    log_info("job %s: %s -> %s (%s)", job->job.id, job_state_name(job->state),
             job_state_name(state), why);
    if (job_state_final(state)) {
        unlink_live(ledger, job);
        unlink_unshown(ledger, job); /* it joins again, counted as ended */
        ledger_remember(ledger, job->home, job->job.id, job->digest);
        job->finished_at_ms = now_ms;
    }
    job->state = state;
    job->updated_at_ms = now_ms;
    ledger_mark_unshown(ledger, job);
}

void ledger_touch(struct ledger *ledger, struct live_job *job, struct outbox *outbox,
                  int64_t now_ms)
{
    job->outbox = outbox;
    job->updated_at_ms = now_ms;
    timer_set(ledger, job);
    ledger_mark_unshown(ledger, job);
    admission_in_flight(partition_of(ledger, job->home)->admission, &job->ticket,
                        live_job_in_flight(job));
    if (job->link_changed)
        return;
    job->next_changed = ledger->changed;
    if (job->next_changed)
        job->next_changed->link_changed = &job->next_changed;
    ledger->changed = job;
    job->link_changed = &ledger->changed;
}

struct live_job *ledger_next_changed(struct ledger *ledger)
{
    struct live_job *job = ledger->changed;
    if (job)
        unlink_changed(job);
    return job;
}

void ledger_mark_unshown(struct ledger *ledger, struct live_job *job)
{
    if (job->unshown)
        return;
    job->unshown = true;
    job->next_unshown = NULL;
    job->link_unshown = ledger->unshown_end;
    *ledger->unshown_end = job;
    ledger->unshown_end = &job->next_unshown;
    if (job_state_final(job->state))
        ledger->unshown_ended++;
}

struct live_job *ledger_first_unshown(const struct ledger *ledger)
{
    return ledger->unshown;
}

size_t ledger_unshown_ended(const struct ledger *ledger)
{
    return ledger->unshown_ended;
}

void ledger_shown(struct ledger *ledger, struct live_job *job)
{
    BUG_ON(job->link_changed); /* nothing is shown before it is committed */
    unlink_unshown(ledger, job);
    if (job_state_final(job->state))
        live_job_free(job);
}

int live_job_count(const struct live_job *job, enum picture_state state)
{
    int count = 0;
    for (int i = 0; job->pictures && i < job->job.n; i++)
        count += job->pictures[i].state == state;
    return count;
}

int live_job_hop(const struct live_job *job)
{
    int hop = job->job.hops - 1;
    if (!job->pictures && hop > 0)
        return 0;
    for (int i = 0; job->pictures && i < job->job.n; i++)
        if (job->pictures[i].state != PICTURE_STORED && job->pictures[i].hops < hop)
            hop = job->pictures[i].hops;
    return hop;
}

double live_job_progress(const struct live_job *job)
{
    struct task task = {.hops = job->job.hops};
    double sum = 0;

    if (!job->pictures || job->job.hops == 0)
        return 0;
    memcpy(task.route, job->job.route, sizeof task.route);
    for (int i = 0; i < job->job.n; i++) {
        const struct picture *picture = &job->pictures[i];
        task.hop = picture->hops;
        sum += picture->state == PICTURE_STORED ? 1 : task_progress(&task, 0);
    }
    return sum / job->job.n;
}

void live_job_notice(struct live_job *job, const char *text)
{
    size_t i;
    json_t *known;
    json_array_foreach (job->notices, i, known) {
        if (strcmp(json_string_value(known), text) == 0)
            return;
    }
    if (!job->notices)
        job->notices = json_array();
    if (json_array_size(job->notices) < LIVE_JOB_NOTICES_MAX)
        json_array_append_new(job->notices, json_string(text));
}

void live_job_error(struct live_job *job, const char *code, const char *message)
{
    free(job->error_code);
    free(job->error_message);
    job->error_code = xstrdup(code);
    job->error_message = xstrdup(message);
}
