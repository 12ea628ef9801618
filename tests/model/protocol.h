/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protocol between coordinators and workers as a model for checker.h: what is modelled and
 * which function each step stands for is in docs/architecture.md, section 3, and in protocol.c.
 */
#ifndef UNCLIP_TESTS_MODEL_PROTOCOL_H
#define UNCLIP_TESTS_MODEL_PROTOCOL_H

#include <stdbool.h>

#include "tests/model/checker.h"

/* The groups of processes: coordinators, the workers of the first and of the last stage. */
enum pool { POOL_COORDINATOR, POOL_FIRST, POOL_LAST, POOL_COUNT };

/*  X(identifier, what is done wrong) */
#define MUTATION_TABLE(X)                                                                          \
    X(MUTATION_NONE, "nothing")                                                                    \
    X(OFFSETS_OUTSIDE, "offsets are committed after the transaction, not in it")                   \
    X(RESULTS_OUTLIVE_EPOCH, "results are kept when their partition went and came back")           \
    X(UNKNOWN_REPEATED, "a commit of unknown outcome is repeated without looking it up")           \
    X(EVENT_BEFORE_PICTURE, "the event is committed before the picture is stored")                 \
    X(NO_GENERATION_FENCE, "offsets are taken from members of an earlier generation")              \
    X(NO_FENCES, "the same, and a new producer does not fence the old one off")                    \
    X(UNSTABLE_OFFSETS, "a new owner does not wait for the old one's pending offsets")             \
    X(REPLAY_TOO_EARLY, "a coordinator reads its state back before those offsets have settled")    \
    X(TOMBSTONE_BEFORE_RESULT, "a job's state is deleted in a transaction before its result's")    \
    X(ENDED_FORGOTTEN, "ids of ended jobs are not remembered")                                     \
    X(LATE_EVENT_COUNTED, "an event that comes after the job's end ends it once more")             \
    X(ADMISSION_UNMARKED, "a picture is admitted without a mark in its job's state")               \
    X(VIEW_BEFORE_COMMIT, "Redis is written before the commit")                                    \
    X(VIEW_GOES_BACK, "the script that writes Redis does not compare ranks")                       \
    X(VIEW_LOSS_UNNOTICED, "nobody looks whether Redis was emptied")                               \
    X(MARK_UNSIGNED, "the mark in Redis does not say who wrote it")                                \
    X(RETRY_UNMARKED, "a try again is written without a mark in its job's state")                  \
    X(TIMER_UNFENCED, "what is due is written whoever has the partition")                          \
    X(TIMER_REPEATED, "a timer's commit of unknown outcome is repeated")

enum mutation {
#define X(id, text) id,
    MUTATION_TABLE(X)
#undef X
        MUTATION_COUNT
};
const char *mutation_text(enum mutation mutation);

/* Bounds of one run. Faults are budgets: each kind happens at most that often, anywhere. */
struct bounds {
    const char *name;
    int jobs, pictures;      /* 1 or 2; pictures of each job */
    int room;                /* pictures that may be in flight; 0: as many as there are */
    int members[POOL_COUNT]; /* processes, 1 or 2 */
    /* The two processes of a pool are one slot: the second is started while the first one, cut
       off, is still at work. Else they are slots of their own, between which rebalances happen. */
    bool one_slot[POOL_COUNT];
    int crashes, takeovers, rebalances;
    int unknowns; /* a commit's request or its answer is lost, or a live transaction times out */
    int failures; /* of computing, for good */
    int retries;  /* failures of a job's first picture that are worth another try, of which it has
                     one */
    int repeats;  /* the same job record again */
    int others;   /* the same id with another body */
    int cancels;
    int deadlines; /* that pass */
    int flushes;   /* Redis emptied */
    enum mutation mutation;
};

extern const struct model protocol_model; /* its context is a struct bounds */

#endif
