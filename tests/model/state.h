/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the protocol's model: processes, logs with open transactions, what Kafka and Redis
 * hold of each job. And what a broker does with it: append, commit, abort; commits are where most
 * of what must never happen is looked for.
 */
#ifndef UNCLIP_TESTS_MODEL_STATE_H
#define UNCLIP_TESTS_MODEL_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/model/protocol.h"

#define MEMBERS (2 * POOL_COUNT)
#define NOBODY  7
#define LOG_MAX 12

enum topic { JOBS, EVENTS, FIRST, LAST, TOPICS };

enum pc { DOWN, STARTING, IDLE, HELD, READY, TXN, RECOVER, ASK, LATE_OFFSETS, LATE_STORE };

/* What a worker's task comes to; 0 where there is none. */
enum work { FINISH, FAIL, DROP, RETRY };

enum job_record { SUBMIT, OTHER, CANCEL };
enum event { STAGE_FINISHED, PICTURE_FINISHED, PICTURE_FAILED, PICTURE_DROPPED };

/* Jobs as in a ledger: bits 0-2 life, 3 body, 4-5 and 6-7 pictures, 8-9 how many are admitted,
   10-11 how it stands with another try at its first picture: the only one that is tried again. */
enum retry { NEVER, WAITS_FIRST, WAITS_LAST, AGAIN };
enum life { ABSENT, ACCEPTED, QUEUED, RUNNING, ENDED };
enum picture { PENDING, STORED, FAILED, DROPPED };

/* A process. What is after `ledger1` belongs to its transactional id and survives it. */
struct member {
    uint64_t pc : 4;
    uint64_t believes : 1; /* that the partition is its own */
    uint64_t current : 1;  /* and it is */
    uint64_t meta : 1;     /* the group's generation that it took is still the present one */
    uint64_t producer : 1; /* the latest of its transactional id */
    uint64_t fetched : 1, replayed : 1;
    uint64_t asked : 1;         /* for the commit of what it holds */
    uint64_t half : 1;          /* a mutation's first of two transactions is through */
    uint64_t topic : 1;         /* of the record in hand: 0 or 1 of its inputs */
    uint64_t at0 : 4, at1 : 4;  /* the next records of its inputs, or the one in hand */
    uint64_t work : 2, job : 1; /* a worker's */
    uint64_t changed : 2;       /* a coordinator's: jobs whose state or result is to be written, */
    uint64_t tasks : 4;         /* and pictures that are admitted with it */
    uint64_t unshown : 2;       /* jobs */
    uint64_t behind : 1;        /* Redis is to be written anew */
    uint64_t left_mark : 3;     /* the mark as it left it */
    uint64_t timer : 1;         /* in hand is no record but what is due: `job` expires, or, if */
                                /* `half`, is tried again, at the last stage if `topic` */
    uint64_t ledger0 : 12, ledger1 : 12;
    uint64_t produced : 1, offsets : 1, writes_state : 1; /* in the open transaction */
};

enum budget {
    CRASH,
    TAKEOVER,
    REBALANCE,
    UNKNOWN,
    FAILURE,
    RETRIABLE,
    REPEAT,
    ANOTHER,
    CANCELLATION,
    DEADLINE,
    FLUSH
};
#define BUDGETS (FLUSH + 1)

/*
 * Records: bit 0 job, 1 picture, 2-3 kind, 4-6 the open transaction's id + 1 (0: committed). A task
 * has its attempt as its kind, 0 or 1. With bit 7 an event tells of a failure that is worth another
 * try: bit 2 is the stage then, 0 or 1, bit 3 the attempt.
 */
#define RETRY_BIT 128
struct state {
    struct member members[MEMBERS];
    uint8_t logs[TOPICS][LOG_MAX];
    uint16_t kafka[2]; /* each job as unclip.state and unclip.results have it */
    uint8_t length[TOPICS], committed[TOPICS];
    uint8_t assigned[POOL_COUNT];
    uint8_t results[2]; /* records in unclip.results */
    uint8_t redis[2];   /* lives */
    uint8_t mark;      /* in Redis: bits 0-1 the watermark, 0 none, 1 + ended jobs; 2 whose it is */
    uint8_t stored;    /* pictures' files */
    uint8_t submitted; /* jobs */
    uint8_t bad;       /* what is wrong, 1 + index in `wrongs` */
    uint8_t expired;   /* jobs whose deadline has passed */
    uint8_t spare[5];  /* 0 */
    uint8_t left[BUDGETS];
};
_Static_assert(sizeof(struct state) % 8 == 0, "no padding");

enum wrong {
    TASK_TWICE = 1,
    ANNOUNCED_TWICE,
    EVENT_TWICE,
    NOT_STORED,
    TWO_RESULTS,
    STATE_BACK,
    OFFSET_BACK,
    VIEW_AHEAD,
    VIEW_BACK,
    LOG_FULL
};

const char *wrong_text(uint8_t bad); /* NULL: nothing is wrong */

/* One expansion. `next` is the successor being made. */
struct turn {
    const struct bounds *bounds;
    const struct state *state;
    struct checker *checker;
    struct state next;
};

/* --- members: processes by number, two a pool --- */
enum pool pool_of(int i);
int tid_of(const struct bounds *bounds, int i); /* who stands for its transactional id */
int inputs_of(int i);
enum topic input_of(int i, int input);
int at_of(const struct member *member, int input);
void at_set(struct member *member, int input, int at);
unsigned ledger_of(const struct member *member, int job);
void ledger_set(struct member *member, int job, unsigned value);

/* --- jobs --- */
enum life life_of(unsigned job);
enum picture picture_of(unsigned job, int picture);
unsigned picture_set(unsigned job, int picture, enum picture value);
bool live(unsigned job);
int admitted(unsigned job);
enum retry retry_of(unsigned job);
unsigned retry_set(unsigned job, enum retry retry);

/* --- records and logs --- */
uint8_t record_make(int job, int picture, unsigned kind);
int record_job(uint8_t record);
int record_picture(uint8_t record);
unsigned record_kind(uint8_t record);
unsigned record_attempt(uint8_t record); /* of a task */
int record_owner(uint8_t record);        /* -1: committed */
/* Where a read_committed reader has to stop. */
int readable(const struct state *state, enum topic topic);
void append(struct state *state, enum topic topic, uint8_t record, int owner);

/* --- transactions --- */
/* Whether a transaction holds offsets of that group that are not decided yet. */
bool pool_pending(const struct state *state, enum pool pool);
bool txn_open(const struct state *state, int tid);
void txn_abort(struct state *state, int tid);
/* Of the record that member i has in hand: its outputs, open; the transaction; the offset after it.
 */
void produce(struct turn *turn, int i);
void txn_commit(struct turn *turn, int i);
void offset_commit(struct state *state, int i);

/* For the end of a trace: the logs, and each job. `context` is a struct bounds. */
void state_show(const void *context, const void *memory, FILE *out);

/* Notes the first thing that is wrong. Returns `wrong`. */
bool wrong_if(struct state *state, bool wrong, enum wrong what);
/* A mutation's first of two transactions is being made for member i. */
bool first_half(const struct turn *turn, int i);
bool mutated(const struct turn *turn, enum mutation mutation);

#endif
