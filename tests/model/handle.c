/* SPDX-License-Identifier: Apache-2.0 */
/* What a coordinator of the model does with a record, and with what is due. */
#include "tests/model/handle.h"

/* live_job_drop() */
static unsigned drop_pending(const struct turn *turn, unsigned job)
{
    for (int picture = 0; picture < turn->bounds->pictures; picture++)
        if (picture_of(job, picture) == PENDING)
            job = picture_set(job, picture, DROPPED);
    return retry_set((job & ~7u) | ENDED, NEVER);
}

/* handle_job(). Whether the job has changed. */
static bool job_handle(const struct turn *turn, unsigned *job, enum job_record kind)
{
    bool known = life_of(*job) != ABSENT;
    if (mutated(turn, ENDED_FORGOTTEN) && life_of(*job) == ENDED)
        known = false;
    if (kind == CANCEL) {
        if (!live(*job))
            return false; /* it has ended, or a dead letter */
        *job = drop_pending(turn, *job);
        return true;
    }
    if (known)
        return false; /* a repetition, or a dead letter */
    *job = ACCEPTED | (unsigned)kind << 3;
    return true;
}

static bool over(const struct turn *turn, unsigned job)
{
    for (int picture = 0; picture < turn->bounds->pictures; picture++)
        if (picture_of(job, picture) == PENDING)
            return false;
    return true;
}

/* picture_retry() with retry_note(): it waits, or has no more tries. */
static unsigned picture_retry(unsigned job, uint8_t record)
{
    if (record >> 3 & 1)
        return picture_set(job, 0, FAILED);
    return retry_set(job, record >> 2 & 1 ? WAITS_LAST : WAITS_FIRST);
}

/* What it tells is known, or is of an attempt that has been given up. */
static bool event_late(unsigned job, uint8_t record)
{
    bool again = retry_of(job) == AGAIN, waits = retry_of(job) != NEVER && !again;
    if (!live(job) || picture_of(job, record_picture(record)) != PENDING)
        return true;
    return record & RETRY_BIT && (waits || again != (record >> 3 & 1));
}

/* handle_event(). Whether the job has changed. */
static bool event_handle(const struct turn *turn, unsigned *job, uint8_t record)
{
    static const enum picture states[] = {PENDING, STORED, FAILED, DROPPED};
    if (mutated(turn, LATE_EVENT_COUNTED) && life_of(*job) == ENDED)
        return true;
    if (event_late(*job, record))
        return false;
    *job = (*job & ~7u) | RUNNING;
    *job = record & RETRY_BIT
               ? picture_retry(*job, record)
               : picture_set(*job, record_picture(record), states[record_kind(record)]);
    if (over(turn, *job))
        *job = retry_set((*job & ~7u) | ENDED, NEVER);
    return true;
}

/* Pictures between their admission and their end. */
static int in_flight(const struct turn *turn, const struct member *member)
{
    int count = 0;
    for (int job = 0; job < 2; job++)
        for (int picture = 0; picture < turn->bounds->pictures; picture++) {
            unsigned value = ledger_of(member, job);
            count +=
                live(value) && picture < admitted(value) && picture_of(value, picture) == PENDING;
        }
    return count;
}

/* Lets one picture of the job in. */
static void admit_one(const struct turn *turn, struct member *member, int job, unsigned *changed)
{
    unsigned value = ledger_of(member, job);
    member->tasks |= 1u << (job | admitted(value) << 1) & 15;
    value += 1u << 8;
    if (life_of(value) == ACCEPTED)
        value = (value & ~7u) | QUEUED;
    ledger_set(member, job, value);
    if (!mutated(turn, ADMISSION_UNMARKED))
        *changed |= 1u << job;
}

/* admit(): as long as there is room. Whose turn it is between two jobs is not modelled. */
static void admit(const struct turn *turn, struct member *member, unsigned *changed)
{
    int room = turn->bounds->room ? turn->bounds->room : 4;
    for (int job = 0; job < turn->bounds->jobs; job++)
        while (live(ledger_of(member, job)) &&
               admitted(ledger_of(member, job)) < turn->bounds->pictures &&
               in_flight(turn, member) < room)
            admit_one(turn, member, job, changed);
}

void coordinator_handle(const struct turn *turn, struct member *member, uint8_t record)
{
    int job = record_job(record);
    unsigned value = ledger_of(member, job), kind = record_kind(record), changed = 0;
    bool change = member->topic ? event_handle(turn, &value, record)
                                : job_handle(turn, &value, (enum job_record)kind);
    ledger_set(member, job, value);
    if (change)
        changed |= 1u << job;
    member->tasks = 0;
    admit(turn, member, &changed);
    member->changed = changed & 3;
    member->unshown |= changed & 3;
}

/* What is made ready is as of a record. */
static void due_make(const struct turn *turn, struct member *member, int job, unsigned value)
{
    unsigned changed = 1u << job;
    member->pc = READY;
    member->timer = 1;
    member->asked = 0;
    member->job = (unsigned)job & 1;
    ledger_set(member, job, value);
    if (member->half && mutated(turn, RETRY_UNMARKED))
        changed = 0;
    member->tasks = 0;
    admit(turn, member, &changed);
    member->changed = changed & 3;
    member->unshown |= changed & 3;
}

bool coordinator_retry(const struct turn *turn, struct member *member, int job)
{
    unsigned value = ledger_of(member, job);
    if (!live(value) || (retry_of(value) != WAITS_FIRST && retry_of(value) != WAITS_LAST))
        return false;
    member->half = 1;
    member->topic = retry_of(value) == WAITS_LAST;
    due_make(turn, member, job, retry_set(value, AGAIN));
    return true;
}

bool coordinator_expire(const struct turn *turn, struct member *member, int job)
{
    unsigned value = ledger_of(member, job);
    if (!live(value) || !(turn->state->expired >> job & 1))
        return false;
    member->half = member->topic = 0;
    due_make(turn, member, job, drop_pending(turn, value));
    return true;
}
