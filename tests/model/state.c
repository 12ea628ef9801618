/* SPDX-License-Identifier: Apache-2.0 */
/* The model's state, and the broker's side of a transaction. */
#include "tests/model/state.h"

#include <string.h>

static const char *const wrongs[] = {
    "a task is twice in the committed log",
    "a picture is announced twice",
    "an event is twice in the committed log",
    "a picture is announced that is not stored",
    "a job has two results",
    "a job's state in Kafka goes back",
    "a committed offset goes back",
    "Redis shows a state that Kafka does not have",
    "a job's state in Redis goes back",
    "the model's logs are too short",
};
const char *wrong_text(uint8_t bad)
{
    return bad ? wrongs[bad - 1] : NULL;
}

bool mutated(const struct turn *turn, enum mutation mutation)
{
    return turn->bounds->mutation == mutation;
}

enum pool pool_of(int i)
{
    return (enum pool)(i / 2);
}

int tid_of(const struct bounds *bounds, int i)
{
    return bounds->one_slot[i / 2] ? i / 2 * 2 : i;
}

int inputs_of(int i)
{
    return pool_of(i) == POOL_COORDINATOR ? 2 : 1;
}

enum topic input_of(int i, int input)
{
    static const enum topic inputs[POOL_COUNT][2] = {{JOBS, EVENTS}, {FIRST, FIRST}, {LAST, LAST}};
    return inputs[i / 2][input];
}

int at_of(const struct member *member, int input)
{
    return input ? (int)member->at1 : (int)member->at0;
}

void at_set(struct member *member, int input, int at)
{
    if (input)
        member->at1 = (unsigned)at & 15;
    else
        member->at0 = (unsigned)at & 15;
}

unsigned ledger_of(const struct member *member, int job)
{
    return job ? (unsigned)member->ledger1 : (unsigned)member->ledger0;
}

void ledger_set(struct member *member, int job, unsigned value)
{
    if (job)
        member->ledger1 = value & 4095;
    else
        member->ledger0 = value & 4095;
}

enum life life_of(unsigned job)
{
    return (enum life)(job & 7);
}

enum picture picture_of(unsigned job, int picture)
{
    return (enum picture)(job >> (4 + 2 * picture) & 3);
}

unsigned picture_set(unsigned job, int picture, enum picture value)
{
    unsigned shift = 4 + 2 * (unsigned)picture;
    return (job & ~(3u << shift)) | (unsigned)value << shift;
}

bool live(unsigned job)
{
    return life_of(job) != ABSENT && life_of(job) != ENDED;
}

int admitted(unsigned job)
{
    return (int)(job >> 8 & 3);
}

enum retry retry_of(unsigned job)
{
    return (enum retry)(job >> 10 & 3);
}

unsigned retry_set(unsigned job, enum retry retry)
{
    return (job & ~(3u << 10)) | (unsigned)retry << 10;
}

uint8_t record_make(int job, int picture, unsigned kind)
{
    return (uint8_t)(job | picture << 1 | (int)kind << 2);
}

int record_job(uint8_t record)
{
    return record & 1;
}

int record_picture(uint8_t record)
{
    return record >> 1 & 1;
}

unsigned record_kind(uint8_t record)
{
    return record >> 2 & 3;
}

int record_owner(uint8_t record)
{
    return (record >> 4 & 7) - 1;
}

unsigned record_attempt(uint8_t record)
{
    return record >> 2 & 1;
}

int readable(const struct state *state, enum topic topic)
{
    int end = 0;
    while (end < state->length[topic] && record_owner(state->logs[topic][end]) < 0)
        end++;
    return end;
}

bool pool_pending(const struct state *state, enum pool pool)
{
    return state->members[2 * pool].offsets || state->members[2 * pool + 1].offsets;
}

bool wrong_if(struct state *state, bool wrong, enum wrong what)
{
    if (wrong && !state->bad)
        state->bad = (uint8_t)what;
    return wrong;
}

void append(struct state *state, enum topic topic, uint8_t record, int owner)
{
    if (wrong_if(state, state->length[topic] == LOG_MAX, LOG_FULL))
        return;
    state->logs[topic][state->length[topic]++] = (uint8_t)(record | (owner + 1) << 4);
}

/* --- transactions --- */

static void log_abort(struct state *state, enum topic topic, int tid)
{
    uint8_t *log = state->logs[topic];
    int kept = 0;
    for (int i = 0; i < state->length[topic]; i++)
        if (record_owner(log[i]) != tid)
            log[kept++] = log[i];
    memset(log + kept, 0, (size_t)(state->length[topic] - kept));
    state->length[topic] = (uint8_t)kept;
}

static void txn_close(struct state *state, int tid)
{
    struct member *holder = &state->members[tid];
    holder->produced = holder->offsets = holder->writes_state = 0;
}

bool txn_open(const struct state *state, int tid)
{
    const struct member *holder = &state->members[tid];
    return holder->produced || holder->offsets;
}

void txn_abort(struct state *state, int tid)
{
    for (enum topic topic = 0; topic < TOPICS; topic++)
        log_abort(state, topic, tid);
    txn_close(state, tid);
}

/* An event of the committed log; `seen` by all bits but the owner's, of those before it. */
static void check_event(struct state *state, uint8_t record, int announced[4], bool seen[256])
{
    int picture = record & 3;
    bool announces = !(record & RETRY_BIT) && record_kind(record) != STAGE_FINISHED;
    bool absent =
        announces && record_kind(record) == PICTURE_FINISHED && !(state->stored >> picture & 1);
    wrong_if(state, absent, NOT_STORED);
    wrong_if(state, announces && announced[picture]++ > 0, ANNOUNCED_TWICE);
    wrong_if(state, seen[record], EVENT_TWICE);
}

static void check_log(struct state *state, enum topic topic)
{
    bool seen[256] = {false};
    int announced[4] = {0};
    for (int i = 0; i < state->length[topic]; i++) {
        uint8_t record = state->logs[topic][i];
        if (record_owner(record) >= 0)
            continue;
        if (topic == EVENTS)
            check_event(state, record, announced, seen);
        else
            wrong_if(state, seen[record], TASK_TWICE);
        seen[record] = true;
    }
}

static void log_commit(struct state *state, enum topic topic, int tid)
{
    for (int i = 0; i < state->length[topic]; i++)
        if (record_owner(state->logs[topic][i]) == tid)
            state->logs[topic][i] &= RETRY_BIT | 15;
    if (topic != JOBS)
        check_log(state, topic);
}

void offset_commit(struct state *state, int i)
{
    const struct member *member = &state->members[i];
    enum topic topic = input_of(i, (int)member->topic);
    int offset = at_of(member, (int)member->topic) + 1;
    wrong_if(state, offset < state->committed[topic], OFFSET_BACK);
    state->committed[topic] = (uint8_t)offset;
}

bool first_half(const struct turn *turn, int i)
{
    const struct member *member = &turn->next.members[i];
    bool ends = false;
    for (int job = 0; job < 2; job++)
        ends = ends || ((member->changed >> job & 1) && life_of(ledger_of(member, job)) == ENDED);
    return mutated(turn, TOMBSTONE_BEFORE_RESULT) && ends && !member->half && !member->timer;
}

/* The coordinator's state or result record: handle_settle(). */
static void job_commit(struct turn *turn, int i, int job)
{
    struct state *state = &turn->next;
    unsigned value = ledger_of(&state->members[i], job);
    if (first_half(turn, i)) {
        if (life_of(value) == ENDED)
            state->kafka[job] = ABSENT;
        return;
    }
    wrong_if(state, life_of(value) < life_of(state->kafka[job]), STATE_BACK);
    wrong_if(state, life_of(value) == ENDED && ++state->results[job] > 1, TWO_RESULTS);
    state->kafka[job] = (uint16_t)value;
}

/* The broker commits the open transaction of member i. */
void txn_commit(struct turn *turn, int i)
{
    struct state *state = &turn->next;
    int tid = tid_of(turn->bounds, i);
    for (enum topic topic = 0; topic < TOPICS; topic++)
        log_commit(state, topic, tid);
    if (state->members[tid].offsets && !state->members[i].timer)
        offset_commit(state, i);
    for (int job = 0; job < 2; job++)
        if (state->members[i].changed >> job & 1)
            job_commit(turn, i, job);
    txn_close(state, tid);
}

static void produce_event(struct state *state, int picture, enum event event, int tid)
{
    append(state, EVENTS, (uint8_t)(picture | (int)event << 2), tid);
}

static void produce_work(struct state *state, int i, int tid)
{
    const struct member *member = &state->members[i];
    uint8_t task = state->logs[input_of(i, 0)][at_of(member, 0)] & 7;
    int picture = task & 3;
    bool last = pool_of(i) == POOL_LAST;
    if (member->work == FINISH && !last)
        append(state, LAST, task, tid);
    if (member->work == FINISH)
        produce_event(state, picture, last ? PICTURE_FINISHED : STAGE_FINISHED, tid);
    else if (member->work == RETRY)
        append(state, EVENTS,
               (uint8_t)(RETRY_BIT | picture | last << 2 | (int)record_attempt(task) << 3), tid);
    else
        produce_event(state, picture, member->work == FAIL ? PICTURE_FAILED : PICTURE_DROPPED, tid);
}

void produce(struct turn *turn, int i)
{
    struct state *state = &turn->next;
    struct member *member = &state->members[i];
    int tid = tid_of(turn->bounds, i);
    state->members[tid].produced = 1;
    state->members[tid].writes_state = member->changed != 0;
    if (pool_of(i) != POOL_COORDINATOR)
        produce_work(state, i, tid);
    for (int picture = 0; picture < 4 && !first_half(turn, i); picture++)
        if (member->tasks >> picture & 1)
            append(state, FIRST, (uint8_t)picture, tid);
    if (member->timer && member->half)
        append(state, member->topic ? LAST : FIRST, record_make((int)member->job, 0, 1), tid);
}

/* --- showing --- */

static void show_log(const struct state *state, enum topic topic, const char *name, FILE *out)
{
    static const char *const kinds[2][4] = {{"submit", "other", "cancel", ""},
                                            {"stage-finished", "finished", "failed", "dropped"}};
    fprintf(out, "       %-7s committed to %d:", name, state->committed[topic]);
    for (int i = 0; i < state->length[topic]; i++) {
        uint8_t record = state->logs[topic][i];
        fprintf(out, " %d/%d%s%s%s", record_job(record), record_picture(record),
                topic <= EVENTS ? " " : "",
                record & RETRY_BIT ? "retry"
                : topic <= EVENTS  ? kinds[topic][record_kind(record)]
                                   : &" again"[record_attempt(record) ? 0 : 6],
                record_owner(record) < 0 ? "" : " (open)");
        fputc(i + 1 < state->length[topic] ? ',' : ' ', out);
    }
    fputc('\n', out);
}

void state_show(const void *context, const void *memory, FILE *out)
{
    static const char *const lives[] = {"absent", "accepted", "queued", "running", "ended"};
    static const char *const names[] = {"jobs", "events", "first", "last"};
    const struct bounds *bounds = context;
    const struct state *state = memory;
    for (enum topic topic = 0; topic < TOPICS; topic++)
        show_log(state, topic, names[topic], out);
    for (int job = 0; job < bounds->jobs; job++)
        fprintf(out, "       job %d: %s in Kafka, %s in Redis, %d results\n", job,
                lives[life_of(state->kafka[job])], lives[state->redis[job]], state->results[job]);
}
