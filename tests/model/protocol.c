/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model. One partition of each topic; a picture goes through two stages; a transaction takes
 * one record. Each step below is one thing that can be seen from outside or lost by a crash:
 *
 *   step            stands for
 *   begin … commit  transact() in common/kafka_txn.c; records and offsets may arrive in any order
 *   recover, ask    clean_up(), drop_covered()
 *   notice          on_rebalance(), kafka_record_current(), both drop_revoked()
 *   fetch, replay   the consumer's start on a partition; partition_read() in coordinator.c
 *   take            handle_record() with admit(), handle_settle(); in workers pull()
 *   due             handle_due(), serve_due() in coordinator.c; kafka_publish()
 *   compute, store  compute.c; storage_write() out of output.c
 *   show, check     write_slice(), check() and the watermark's functions in view.c
 *
 * Aborted records are taken out of their log: no reader sees them, and no offset that anyone holds
 * lies behind them, since readers stop at the first open record.
 */
#include "tests/model/protocol.h"

#include <string.h>

#include "tests/model/handle.h"
#include "tests/model/state.h"

/*  X(identifier, text): every step has a member, a job or a pool as its argument. */
#define ACT_TABLE(X)                                                                               \
    X(ACT_SUBMIT, "a client submits job %d")                                                       \
    X(ACT_REPEAT, "a client submits job %d again")                                                 \
    X(ACT_OTHER, "a client submits another body as job %d")                                        \
    X(ACT_CANCEL, "a client cancels job %d")                                                       \
    X(ACT_PASS, "the deadline of job %d passes")                                                   \
    X(ACT_FLUSH, "Redis is emptied")                                                               \
    X(ACT_CRASH, "%s crashes")                                                                     \
    X(ACT_TAKEOVER, "%s is started though its other self lives")                                   \
    X(ACT_REBALANCE, "a rebalance gives the partition to %s")                                      \
    X(ACT_GENERATION, "a rebalance leaves the partition with %s")                                  \
    X(ACT_TIMEOUT, "the open transaction of %s times out")                                         \
    X(ACT_CLEAN, "the broker aborts what a dead %s left open")                                     \
    X(ACT_EVICT, "the group gives the partition of a dead member to %s")                           \
    X(ACT_RESTART, "%s is started")                                                                \
    X(ACT_INIT, "%s fences its former self and joins")                                             \
    X(ACT_NOTICE, "%s notices that it lost its partition")                                         \
    X(ACT_ASSIGN, "%s hears that the partition is its own")                                        \
    X(ACT_FETCH, "%s reads the committed offsets")                                                 \
    X(ACT_REPLAY, "%s reads the state back")                                                       \
    X(ACT_TAKE_0, "%s takes a record")                                                             \
    X(ACT_TAKE_1, "%s takes an event")                                                             \
    X(ACT_COMPUTE, "%s computes")                                                                  \
    X(ACT_FAIL, "%s fails to compute")                                                             \
    X(ACT_DROP, "%s drops a picture of a job that has ended")                                      \
    X(ACT_TROUBLE, "%s fails to compute, but may try again")                                       \
    X(ACT_RETRY, "%s writes a task anew")                                                          \
    X(ACT_EXPIRE, "%s ends a job whose deadline has passed")                                       \
    X(ACT_EXIT, "%s exits, since nothing tells whether it has committed")                          \
    X(ACT_STORE, "%s stores the picture")                                                          \
    X(ACT_BEGIN, "%s begins a transaction")                                                        \
    X(ACT_FENCED, "%s finds itself fenced off")                                                    \
    X(ACT_PRODUCE, "%s's records arrive")                                                          \
    X(ACT_OFFSETS, "%s's offsets arrive")                                                          \
    X(ACT_REFUSED, "%s's offsets are refused, it aborts")                                          \
    X(ACT_COMMIT, "%s commits")                                                                    \
    X(ACT_ANSWER_LOST, "%s commits, the answer is lost")                                           \
    X(ACT_REQUEST_LOST, "%s's request to commit is lost")                                          \
    X(ACT_RECOVER, "%s makes a new producer")                                                      \
    X(ACT_COVERED, "%s finds its record committed")                                                \
    X(ACT_AGAIN, "%s finds its record not committed")                                              \
    X(ACT_LATE, "%s does what it should have done before")                                         \
    X(ACT_KEEP, "%s gets the partition back and keeps its results")                                \
    X(ACT_SHOW_0, "%s writes job 0 to Redis")                                                      \
    X(ACT_SHOW_1, "%s writes job 1 to Redis")                                                      \
    X(ACT_CHECK, "%s finds that Redis has lost something")                                         \
    X(ACT_REWRITE, "%s begins to write Redis anew")                                                \
    X(ACT_RAISE, "%s raises the watermark")

enum act {
#define X(id, text) id,
    ACT_TABLE(X)
#undef X
};

static const char *const act_texts[] = {
#define X(id, text) text,
    ACT_TABLE(X)
#undef X
};

static const char *const member_names[MEMBERS] = {"coordinator a", "coordinator b", "first a",
                                                  "first b",       "last a",        "last b"};

const char *mutation_text(enum mutation mutation)
{
    static const char *const texts[] = {
#define X(id, text) text,
        MUTATION_TABLE(X)
#undef X
    };
    return texts[mutation];
}

/* --- making successors --- */

static struct member *begin_step(struct turn *turn, int i)
{
    turn->next = *turn->state;
    return &turn->next.members[i];
}

static void end_step(struct turn *turn, enum act act, int argument, bool fault)
{
    checker_step(turn->checker, &turn->next, (unsigned)act * 8 + (unsigned)argument, fault);
}

static bool spend(struct turn *turn, enum budget budget)
{
    turn->next = *turn->state;
    return turn->next.left[budget] && turn->next.left[budget]--;
}

/* --- members --- */

/* Nothing stays but what belongs to the transactional id. */
static void member_clear(struct member *member, enum pc pc, bool producer)
{
    *member = (struct member){.pc = pc,
                              .producer = producer,
                              .produced = member->produced,
                              .offsets = member->offsets,
                              .writes_state = member->writes_state};
}

static void producer_start(struct turn *turn, int i)
{
    int tid = tid_of(turn->bounds, i);
    if (!mutated(turn, NO_FENCES)) {
        txn_abort(&turn->next, tid);
        for (int other = 0; other < MEMBERS; other++)
            if (tid_of(turn->bounds, other) == tid)
                turn->next.members[other].producer = 0;
    }
    turn->next.members[i].producer = 1;
}

/* The group's partition goes to member i: earlier generations are void. */
static void group_give(struct state *state, enum pool pool, int i)
{
    for (int member = 2 * (int)pool; member < 2 * (int)pool + 2; member++) {
        state->members[member].meta = 0;
        if (member != i)
            state->members[member].current = 0;
    }
    state->assigned[pool] = (uint8_t)i;
}

static bool alive(const struct state *state, int i)
{
    return state->members[i].pc != DOWN;
}

static void step_down(struct turn *turn, int i)
{
    bool slot_taken = turn->bounds->one_slot[i / 2] && alive(turn->state, i ^ 1) &&
                      turn->state->assigned[i / 2] != i;
    if (!slot_taken) {
        begin_step(turn, i)->pc = STARTING;
        end_step(turn, ACT_RESTART, i, false);
    } else if (spend(turn, TAKEOVER)) {
        turn->next.members[i].pc = STARTING;
        end_step(turn, ACT_TAKEOVER, i, true);
    }
}

static void step_starting(struct turn *turn, int i)
{
    begin_step(turn, i)->pc = IDLE;
    producer_start(turn, i);
    if (turn->bounds->one_slot[i / 2] || turn->state->assigned[i / 2] == NOBODY)
        group_give(&turn->next, pool_of(i), i);
    end_step(turn, ACT_INIT, i, false);
}

/* True when the member has lost its partition and may hear of it now. */
static bool step_notice(struct turn *turn, int i)
{
    const struct member *member = &turn->state->members[i];
    bool back = turn->state->assigned[i / 2] == i;
    if (!member->believes || member->current)
        return false;
    if (back && mutated(turn, RESULTS_OUTLIVE_EPOCH) && member->pc != IDLE) {
        begin_step(turn, i)->current = 1;
        end_step(turn, ACT_KEEP, i, false);
        return true;
    }
    bool replaced = turn->bounds->one_slot[i / 2] && !back; /* its slot was taken: it ends */
    struct member *next = begin_step(turn, i);
    member_clear(next, replaced ? DOWN : IDLE, !replaced && member->producer);
    end_step(turn, ACT_NOTICE, i, false);
    return true;
}

static void step_assign(struct turn *turn, int i)
{
    struct member *next = begin_step(turn, i);
    next->believes = next->current = 1;
    end_step(turn, ACT_ASSIGN, i, false);
}

static void step_fetch(struct turn *turn, int i)
{
    if (pool_pending(turn->state, pool_of(i)) && !mutated(turn, UNSTABLE_OFFSETS))
        return;
    struct member *next = begin_step(turn, i);
    for (int input = 0; input < inputs_of(i); input++)
        at_set(next, input, turn->state->committed[input_of(i, input)]);
    next->fetched = 1;
    end_step(turn, ACT_FETCH, i, false);
}

static void step_replay(struct turn *turn, int i)
{
    const struct member *members = turn->state->members;
    bool early = mutated(turn, REPLAY_TOO_EARLY) || mutated(turn, UNSTABLE_OFFSETS);
    if (members[0].writes_state || members[1].writes_state)
        return; /* the log's end is not to be read yet */
    if (pool_pending(turn->state, POOL_COORDINATOR) && !early)
        return;
    struct member *next = begin_step(turn, i);
    next->replayed = 1;
    next->behind = 1;
    next->left_mark = 0;
    next->unshown = 0;
    for (int job = 0; job < 2; job++) {
        unsigned value = turn->state->kafka[job];
        if (mutated(turn, ENDED_FORGOTTEN) && life_of(value) == ENDED)
            value = ABSENT;
        ledger_set(next, job, value);
        if (live(value))
            next->unshown |= 1u << job;
    }
    end_step(turn, ACT_REPLAY, i, false);
}

/* --- a coordinator's and a worker's next record --- */

static void step_take(struct turn *turn, int i, int input)
{
    enum topic topic = input_of(i, input);
    int at = at_of(&turn->state->members[i], input);
    if (at >= readable(turn->state, topic))
        return;
    struct member *next = begin_step(turn, i);
    uint8_t record = turn->state->logs[topic][at];
    next->topic = (unsigned)input & 1;
    next->asked = next->half = 0;
    next->job = (unsigned)record_job(record) & 1;
    next->pc = pool_of(i) == POOL_COORDINATOR ? READY : HELD;
    if (next->pc == READY)
        coordinator_handle(turn, next, record);
    end_step(turn, input ? ACT_TAKE_1 : ACT_TAKE_0, i, false);
}

/* --- the view --- */

static int ended_count(const struct member *member)
{
    return (life_of(ledger_of(member, 0)) == ENDED) + (life_of(ledger_of(member, 1)) == ENDED);
}

static void step_show(struct turn *turn, int i, int job)
{
    const struct member *member = &turn->state->members[i];
    uint8_t life = (uint8_t)life_of(ledger_of(member, job));
    if (!(member->unshown >> job & 1))
        return;
    struct member *next = begin_step(turn, i);
    struct state *state = &turn->next;
    next->unshown &= ~(1u << job) & 3;
    if (life > state->redis[job] || mutated(turn, VIEW_GOES_BACK)) {
        wrong_if(state, life < state->redis[job], VIEW_BACK);
        state->redis[job] = life;
    }
    wrong_if(state, state->redis[job] > life_of(state->kafka[job]), VIEW_AHEAD);
    end_step(turn, job ? ACT_SHOW_1 : ACT_SHOW_0, i, false);
}

/* The two coordinators' marks differ in bit 2. */
static unsigned mark_of(const struct turn *turn, int i, unsigned watermark)
{
    return watermark | (mutated(turn, MARK_UNSIGNED) ? 0 : (unsigned)i << 2);
}

/* Whether Redis is not as the member left it. */
static bool mark_lost(const struct turn *turn, const struct member *member)
{
    if (mutated(turn, VIEW_LOSS_UNNOTICED))
        return false;
    if (mutated(turn, MARK_UNSIGNED))
        return turn->state->mark < member->left_mark;
    return turn->state->mark != member->left_mark;
}

static void step_rewrite(struct turn *turn, int i)
{
    struct member *next = begin_step(turn, i);
    unsigned watermark = turn->state->mark & 3;
    turn->next.mark = (uint8_t)mark_of(turn, i, watermark ? watermark : 1);
    next->left_mark = turn->next.mark & 7;
    next->behind = 0;
    for (int job = 0; job < 2; job++)
        if (life_of(ledger_of(next, job)) != ABSENT)
            next->unshown |= 1u << job;
    end_step(turn, ACT_REWRITE, i, false);
}

static void step_raise(struct turn *turn, int i)
{
    struct member *next = begin_step(turn, i);
    int ended = ended_count(next);
    if (next->behind || next->unshown || 1 + ended <= (int)(next->left_mark & 3) ||
        turn->state->mark != next->left_mark)
        return;
    turn->next.mark = (uint8_t)mark_of(turn, i, 1 + (unsigned)ended);
    next->left_mark = turn->next.mark & 7;
    end_step(turn, ACT_RAISE, i, false);
}

static void step_view(struct turn *turn, int i)
{
    const struct member *member = &turn->state->members[i];
    for (int job = 0; job < 2; job++)
        step_show(turn, i, job);
    if (member->behind)
        step_rewrite(turn, i);
    else if (mark_lost(turn, member)) {
        begin_step(turn, i)->behind = 1;
        end_step(turn, ACT_CHECK, i, false);
    }
    step_raise(turn, i);
}

static void step_due(struct turn *turn, int i, int job)
{
    if (coordinator_retry(turn, begin_step(turn, i), job))
        end_step(turn, ACT_RETRY, i, false);
    if (coordinator_expire(turn, begin_step(turn, i), job))
        end_step(turn, ACT_EXPIRE, i, false);
}

static void step_idle(struct turn *turn, int i)
{
    const struct member *member = &turn->state->members[i];
    bool coordinator = pool_of(i) == POOL_COORDINATOR;
    if (!member->believes) {
        if (turn->state->assigned[i / 2] == i)
            step_assign(turn, i);
        return;
    }
    step_notice(turn, i);
    if (!member->fetched)
        step_fetch(turn, i);
    if (coordinator && !member->replayed)
        step_replay(turn, i);
    if (coordinator && member->replayed)
        step_view(turn, i);
    for (int job = 0; job < turn->bounds->jobs && coordinator && member->replayed; job++)
        step_due(turn, i, job);
    for (int input = 0; input < inputs_of(i); input++)
        if (member->fetched && (member->replayed || !coordinator))
            step_take(turn, i, input);
}

/* --- a worker's record --- */

static void compute(struct turn *turn, int i, enum work work, enum act act, bool fault)
{
    struct member *next = &turn->next.members[i];
    next->pc = READY;
    next->work = work & 3;
    end_step(turn, act, i, fault);
}

static void picture_store(struct turn *turn, int i)
{
    const struct member *member = &turn->state->members[i];
    turn->next.stored |= (uint8_t)(1 << (turn->state->logs[input_of(i, 0)][at_of(member, 0)] & 3));
}

static void step_held(struct turn *turn, int i)
{
    const struct member *member = &turn->state->members[i];
    int job = (int)member->job;
    uint8_t task = turn->state->logs[input_of(i, 0)][at_of(member, 0)];
    step_notice(turn, i);
    begin_step(turn, i);
    if (pool_of(i) == POOL_LAST && !mutated(turn, EVENT_BEFORE_PICTURE))
        picture_store(turn, i);
    compute(turn, i, FINISH, pool_of(i) == POOL_LAST ? ACT_STORE : ACT_COMPUTE, false);
    if (spend(turn, FAILURE))
        compute(turn, i, FAIL, ACT_FAIL, true);
    if (record_picture(task) == 0 && spend(turn, RETRIABLE))
        compute(turn, i, RETRY, ACT_TROUBLE, true);
    begin_step(turn, i);
    if (turn->state->redis[job] == ENDED || turn->state->expired >> job & 1)
        compute(turn, i, DROP, ACT_DROP, false);
}

/* --- transactions, step by step --- */

static void step_ready(struct turn *turn, int i)
{
    if (mutated(turn, VIEW_BEFORE_COMMIT) && pool_of(i) == POOL_COORDINATOR)
        step_view(turn, i);
    step_notice(turn, i); /* or it begins before it hears */
    struct member *next = begin_step(turn, i);
    next->meta = next->current;
    next->pc = next->producer ? TXN : RECOVER;
    end_step(turn, next->producer ? ACT_BEGIN : ACT_FENCED, i, false);
}

static void record_done(struct member *member)
{
    int input = (int)member->topic;
    if (!member->timer)
        at_set(member, input, at_of(member, input) + 1);
    member->timer = 0;
    member->pc = IDLE;
    member->meta = member->asked = member->half = 0;
    member->topic = 0;
    member->work = 0;
    member->job = 0;
    member->changed = 0;
    member->tasks = 0;
}

/* After the answer to a commit. */
static void commit_answered(struct turn *turn, int i)
{
    struct member *next = &turn->next.members[i];
    if (mutated(turn, OFFSETS_OUTSIDE) && !next->timer) {
        next->pc = LATE_OFFSETS;
    } else if (mutated(turn, EVENT_BEFORE_PICTURE) && pool_of(i) == POOL_LAST) {
        next->pc = LATE_STORE;
    } else if (first_half(turn, i)) {
        next->half = 1;
        next->pc = READY;
    } else {
        record_done(next);
    }
}

static void step_commit(struct turn *turn, int i)
{
    begin_step(turn, i)->asked = 1;
    txn_commit(turn, i);
    commit_answered(turn, i);
    end_step(turn, ACT_COMMIT, i, false);
    if (spend(turn, UNKNOWN)) {
        struct member *next = &turn->next.members[i];
        next->asked = 1;
        next->pc = RECOVER;
        end_step(turn, ACT_REQUEST_LOST, i, true);
        txn_commit(turn, i);
        end_step(turn, ACT_ANSWER_LOST, i, true);
    }
}

static void step_offsets(struct turn *turn, int i)
{
    int tid = tid_of(turn->bounds, i);
    struct member *next = begin_step(turn, i);
    bool fence = !mutated(turn, NO_GENERATION_FENCE) && !mutated(turn, NO_FENCES) &&
                 !(mutated(turn, TIMER_UNFENCED) && next->timer);
    if (next->meta || !fence) {
        turn->next.members[tid].offsets = 1;
        end_step(turn, ACT_OFFSETS, i, false);
        return;
    }
    txn_abort(&turn->next, tid);
    next->pc = next->timer ? READY : ASK;
    end_step(turn, ACT_REFUSED, i, false);
}

static void step_txn(struct turn *turn, int i)
{
    const struct member *member = &turn->state->members[i];
    const struct member *txn = &turn->state->members[tid_of(turn->bounds, i)];
    begin_step(turn, i);
    bool offsets = !mutated(turn, OFFSETS_OUTSIDE) && !first_half(turn, i);
    if (!member->producer) {
        begin_step(turn, i)->pc = RECOVER;
        end_step(turn, ACT_FENCED, i, false);
        return;
    }
    if (!txn->produced) {
        begin_step(turn, i);
        produce(turn, i);
        end_step(turn, ACT_PRODUCE, i, false);
    }
    if (!txn->offsets && offsets)
        step_offsets(turn, i);
    if (txn->produced && (txn->offsets || !offsets))
        step_commit(turn, i);
}

static void step_recover(struct turn *turn, int i)
{
    struct member *next = begin_step(turn, i);
    if (next->timer && next->asked && !mutated(turn, TIMER_REPEATED)) { /* publish() */
        member_clear(next, DOWN, false);
        end_step(turn, ACT_EXIT, i, false);
        return;
    }
    producer_start(turn, i);
    next->pc = mutated(turn, UNKNOWN_REPEATED) || next->timer ? READY : ASK;
    end_step(turn, ACT_RECOVER, i, false);
}

static void step_ask(struct turn *turn, int i)
{
    const struct member *member = &turn->state->members[i];
    int input = (int)member->topic;
    step_notice(turn, i);
    if (pool_pending(turn->state, pool_of(i)))
        return;
    struct member *next = begin_step(turn, i);
    if (turn->state->committed[input_of(i, input)] <= at_of(member, input)) {
        next->pc = READY;
        end_step(turn, ACT_AGAIN, i, false);
        return;
    }
    if (!member->asked) /* by somebody else: note_lost() */
        next->replayed = 0;
    record_done(next);
    end_step(turn, ACT_COVERED, i, false);
}

/* The second half of two mutations. */
static void step_late(struct turn *turn, int i)
{
    struct member *next = begin_step(turn, i);
    if (next->pc == LATE_STORE)
        picture_store(turn, i);
    else
        offset_commit(&turn->next, i);
    record_done(next);
    end_step(turn, ACT_LATE, i, false);
}

static void step_member(struct turn *turn, int i)
{
    static void (*const steps[])(struct turn * turn, int i) = {
        [DOWN] = step_down,       [STARTING] = step_starting, [IDLE] = step_idle,
        [HELD] = step_held,       [READY] = step_ready,       [TXN] = step_txn,
        [RECOVER] = step_recover, [ASK] = step_ask,           [LATE_OFFSETS] = step_late,
        [LATE_STORE] = step_late,
    };
    steps[turn->state->members[i].pc](turn, i);
    if (alive(turn->state, i) && spend(turn, CRASH)) {
        member_clear(&turn->next.members[i], DOWN, false);
        end_step(turn, ACT_CRASH, i, true);
    }
}

/* --- the world around --- */

static bool producer_lives(const struct turn *turn, int tid)
{
    for (int i = 0; i < MEMBERS; i++)
        if (tid_of(turn->bounds, i) == tid && turn->state->members[i].producer)
            return true;
    return false;
}

static void step_broker(struct turn *turn, int tid)
{
    if (!txn_open(turn->state, tid))
        return;
    if (!producer_lives(turn, tid)) {
        begin_step(turn, tid);
        txn_abort(&turn->next, tid);
        end_step(turn, ACT_CLEAN, tid, false);
    } else if (spend(turn, UNKNOWN)) {
        txn_abort(&turn->next, tid);
        for (int i = 0; i < MEMBERS; i++)
            if (tid_of(turn->bounds, i) == tid)
                turn->next.members[i].producer = 0;
        end_step(turn, ACT_TIMEOUT, tid, true);
    }
}

static bool can_have(const struct turn *turn, int i)
{
    const struct member *member = &turn->state->members[i];
    bool free = !member->believes || mutated(turn, RESULTS_OUTLIVE_EPOCH);
    return member->pc >= IDLE && free && !turn->bounds->one_slot[i / 2];
}

static void step_group(struct turn *turn, enum pool pool)
{
    int holder = turn->state->assigned[pool];
    if (holder == NOBODY)
        return;
    bool dead = !alive(turn->state, holder);
    if (dead && can_have(turn, holder ^ 1)) {
        begin_step(turn, holder);
        group_give(&turn->next, pool, holder ^ 1);
        end_step(turn, ACT_EVICT, holder ^ 1, false);
    } else if (!dead && can_have(turn, holder ^ 1) && spend(turn, REBALANCE)) {
        group_give(&turn->next, pool, holder ^ 1);
        end_step(turn, ACT_REBALANCE, holder ^ 1, true);
    }
    if (!dead && turn->state->members[holder].meta && spend(turn, REBALANCE)) {
        turn->next.members[holder].meta = 0;
        end_step(turn, ACT_GENERATION, holder, true);
    }
}

static void client_send(struct turn *turn, int job, enum job_record kind, enum act act)
{
    append(&turn->next, JOBS, record_make(job, 0, kind), -1);
    turn->next.submitted |= (uint8_t)(1 << job);
    end_step(turn, act, job, true);
}

static void step_client(struct turn *turn, int job)
{
    turn->next = *turn->state;
    if (!(turn->state->submitted >> job & 1)) {
        client_send(turn, job, SUBMIT, ACT_SUBMIT);
        return;
    }
    if (spend(turn, REPEAT))
        client_send(turn, job, SUBMIT, ACT_REPEAT);
    if (spend(turn, ANOTHER))
        client_send(turn, job, OTHER, ACT_OTHER);
    if (spend(turn, CANCELLATION))
        client_send(turn, job, CANCEL, ACT_CANCEL);
    if (!(turn->state->expired >> job & 1) && spend(turn, DEADLINE)) {
        turn->next.expired |= (uint8_t)(1 << job);
        end_step(turn, ACT_PASS, job, true);
    }
}

static void step_flush(struct turn *turn)
{
    if (!spend(turn, FLUSH))
        return;
    memset(turn->next.redis, 0, sizeof turn->next.redis);
    turn->next.mark = 0;
    end_step(turn, ACT_FLUSH, 0, true);
}

/* --- the model's functions --- */

static void model_expand(const void *context, const void *state, struct checker *checker)
{
    struct turn turn = {.bounds = context, .state = state, .checker = checker};
    for (int i = 0; i < MEMBERS; i++)
        if (i % 2 < turn.bounds->members[i / 2]) {
            step_member(&turn, i);
            if (tid_of(turn.bounds, i) == i)
                step_broker(&turn, i);
        }
    for (enum pool pool = 0; pool < POOL_COUNT; pool++)
        step_group(&turn, pool);
    for (int job = 0; job < turn.bounds->jobs; job++)
        step_client(&turn, job);
    step_flush(&turn);
}

static void model_initial(const void *context, void *memory)
{
    const struct bounds *bounds = context;
    struct state *state = memory;
    const uint8_t left[BUDGETS] = {
        [CRASH] = (uint8_t)bounds->crashes,        [TAKEOVER] = (uint8_t)bounds->takeovers,
        [REBALANCE] = (uint8_t)bounds->rebalances, [UNKNOWN] = (uint8_t)bounds->unknowns,
        [FAILURE] = (uint8_t)bounds->failures,     [RETRIABLE] = (uint8_t)bounds->retries,
        [REPEAT] = (uint8_t)bounds->repeats,       [ANOTHER] = (uint8_t)bounds->others,
        [CANCELLATION] = (uint8_t)bounds->cancels, [DEADLINE] = (uint8_t)bounds->deadlines,
        [FLUSH] = (uint8_t)bounds->flushes};
    memcpy(state->left, left, sizeof left);
    for (int i = 0; i < MEMBERS; i++) {
        bool there = i % 2 < bounds->members[i / 2] && !(i % 2 && bounds->one_slot[i / 2]);
        if (there)
            state->members[i] = (struct member){.pc = IDLE, .producer = 1};
        state->assigned[i / 2] = (uint8_t)(i & ~1);
    }
}

static const char *model_violation(const void *context, const void *memory)
{
    const struct state *state = memory;
    (void)context;
    return wrong_text(state->bad);
}

/* Every job that was submitted has ended, Redis shows it, nothing is open and nothing waits. */
static bool model_goal(const void *context, const void *memory)
{
    const struct state *state = memory;
    (void)context;
    for (int job = 0; job < 2; job++)
        if (state->submitted >> job & 1)
            if (life_of(state->kafka[job]) != ENDED || state->redis[job] != ENDED ||
                state->results[job] != 1)
                return false;
    for (int i = 0; i < MEMBERS; i++)
        if (txn_open(state, i))
            return false;
    for (enum topic topic = 0; topic < TOPICS; topic++)
        if (state->committed[topic] != state->length[topic])
            return false;
    return true;
}

static void model_label(const void *context, unsigned label, char text[CHECKER_LABEL_SIZE])
{
    const char *format = act_texts[label / 8];
    (void)context;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (strstr(format, "%d"))
        snprintf(text, CHECKER_LABEL_SIZE, format, (int)(label % 8));
    else
        snprintf(text, CHECKER_LABEL_SIZE, format, member_names[label % 8 % MEMBERS]);
#pragma GCC diagnostic pop
}

const struct model protocol_model = {
    .state_size = sizeof(struct state),
    .initial = model_initial,
    .expand = model_expand,
    .violation = model_violation,
    .goal = model_goal,
    .label = model_label,
    .show = state_show,
};
