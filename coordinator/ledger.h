/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: what a coordinator knows of the jobs of its partitions. Pure memory: no Kafka, no
 * Redis, no clock; the opening comment of ledger.c has the invariants and the life of a job.
 */
#ifndef UNCLIP_COORDINATOR_LEDGER_H
#define UNCLIP_COORDINATOR_LEDGER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/job.h"
#include "common/protocol.h"
#include "coordinator/admission.h"
#include "coordinator/timers.h"

#define LEDGER_PARTITIONS_MAX 1000  /* as the most that `unclip topics --create` makes */
#define LEDGER_REMEMBERED_MAX 16384 /* ended jobs of a partition whose ids are remembered */

struct outbox;

enum picture_state { PICTURE_PENDING, PICTURE_STORED, PICTURE_FAILED, PICTURE_DROPPED };
const char *picture_state_name(enum picture_state state);
bool picture_state_parse(const char *name, enum picture_state *state);

/* All strings are owned; NULL where there is none. */
struct picture {
    enum picture_state state;
    int hops;                       /* of the route that are done */
    int attempt;                    /* tries again so far; what speaks of another attempt is late */
    unsigned char tries[ROUTE_MAX]; /* the same, by hop */
    int64_t retry_at_ms;            /* it waits until then; 0: it does not */
    char *ref;                      /* while it waits: its tensors in the artifact store */
    char *uri;
    char *sha256;
    int width, height; /* pixels */
    double score;      /* CLIP score for the prompt */
    bool has_score;
    char *error_code;
    char *error_message;
};

/* A job on its way, or one that has ended and is still to be shown. Owned by the ledger. There may
   be hundreds of thousands: its members are in an order that leaves few holes. */
struct live_job {
    struct job job; /* completed, with its seed; of a job that could not be read only the id */
    bool readable;  /* false: `job` holds nothing but the id */
    bool unshown;   /* Redis does not have its present state */
    int home;
    enum job_state state;
    int admitted; /* its first so many pictures have got their tasks */
    int64_t created_at_ms, updated_at_ms;
    int64_t finished_at_ms;   /* 0 until then */
    uint64_t digest;          /* of its record's body, to tell a repetition from a conflict */
    int64_t offset;           /* of its record in unclip.jobs: the order of waiting jobs */
    struct picture *pictures; /* owned, [job.n]; NULL until one is admitted, or it ends */
    struct ticket ticket;     /* of the others, in its partition's admission */
    double *stage_ms;         /* private: owned, [STAGE_COUNT]; NULL: all zero */
    json_t *notices;          /* owned array of distinct sentences; NULL: none */
    char *error_code;         /* owned; NULL: none */
    char *error_message;

    struct outbox *outbox; /* borrowed: of the last record that changed it since the last commit */
    struct timer timer;    /* of whatever it waits for next; kept by ledger.c */
    /* private to ledger.c: the lists it is in */
    struct live_job *next, **link;                 /* of its partition's live jobs */
    struct live_job *next_changed, **link_changed; /* of those changed since the last commit */
    struct live_job *next_unshown, **link_unshown;
};

struct ledger; /* opaque; used by one thread */

struct ledger *ledger_new(void); /* without bounds */
void ledger_free(struct ledger *ledger);
/* The bounds of each partition that is added from now on. */
void ledger_bound(struct ledger *ledger, const struct admission_bounds *bounds);

/* Partitions that are kept. Adding one that is there and dropping one that is not are bugs. */
void ledger_partition_add(struct ledger *ledger, int partition);
void ledger_partition_drop(struct ledger *ledger, int partition); /* forgets all of its jobs */
bool ledger_partition_kept(const struct ledger *ledger, int partition);

/*
 * A new job in state accepted (`job` is taken and emptied). Its home must be kept and its id
 * neither live nor remembered there. Returns it borrowed, until it has ended and been shown.
 */
struct live_job *ledger_add(struct ledger *ledger, int home, struct job *job, bool readable,
                            uint64_t digest, int64_t created_at_ms);
/* Whether a job of that class and client may come to the partition. Error: ERR_QUOTA_EXCEEDED. */
int ledger_check(const struct ledger *ledger, int partition, enum task_class task_class,
                 const char *client, struct err *err);
/* It waits for admission, behind all others of its client. */
void ledger_wait(struct ledger *ledger, struct live_job *job);
/* Lets the next picture of the class in, if there is room: job->pictures[job->admitted - 1] of the
   job returned, whose task the caller writes; NULL when there is nothing more to let in. */
struct live_job *ledger_admit(struct ledger *ledger, int partition, enum task_class task_class);
struct admission_state ledger_admission(const struct ledger *ledger, int partition,
                                        enum task_class task_class);
/* A job read back from a record (taken); live or, while it is being shown, ended. */
void ledger_restore(struct ledger *ledger, struct live_job *job);
/* All of the partition's jobs are restored: those that waited wait again, in their order. */
void ledger_partition_ready(struct ledger *ledger, int partition);
/* Forgets a job: a later record of it was read. */
void ledger_discard(struct ledger *ledger, struct live_job *job);

struct live_job *ledger_find(const struct ledger *ledger, int home, const char *id); /* or NULL */
struct live_job *ledger_first(const struct ledger *ledger, int partition); /* then job->next */
size_t ledger_count(const struct ledger *ledger);                          /* live jobs */
/* The live job whose timer is due first, or NULL: at job->timer.due_ms. */
struct live_job *ledger_first_due(const struct ledger *ledger);

/* Ids of ended jobs, the latest LEDGER_REMEMBERED_MAX of each partition. */
void ledger_remember(struct ledger *ledger, int home, const char *id, uint64_t digest);
bool ledger_remembers(const struct ledger *ledger, int home, const char *id, uint64_t *digest);

/*
 * The one way to change a job's state: checks that it is legal (a BUG otherwise), logs
 * `old -> new (why)` and stores it. A final state takes the job off the live ones and remembers its
 * id; the job itself stays until it has been shown.
 */
void job_set_state(struct ledger *ledger, struct live_job *job, enum job_state state,
                   int64_t now_ms, const char *why);

/* The job has changed through the record whose outputs are `outbox`: it is to be logged to Kafka
   there, and shown. */
void ledger_touch(struct ledger *ledger, struct live_job *job, struct outbox *outbox,
                  int64_t now_ms);
/* Takes the next changed job off its list, or returns NULL. */
struct live_job *ledger_next_changed(struct ledger *ledger);

void ledger_mark_unshown(struct ledger *ledger, struct live_job *job);
struct live_job *ledger_first_unshown(const struct ledger *ledger); /* then job->next_unshown */
size_t ledger_unshown_ended(const struct ledger *ledger);
/* Redis has it now. An ended job is freed: the pointer is dead. */
void ledger_shown(struct ledger *ledger, struct live_job *job);

/* A job outside any ledger, for reading records: all fields zero but those given. */
struct live_job *live_job_new(struct job *job, bool readable, int home);
void live_job_start(struct live_job *job); /* gives it its pictures, all pending, unless it has */
void live_job_drop(struct live_job *job);  /* every pending picture, admitted or not, is dropped */
void live_job_free(struct live_job *job);  /* must be in no list; NULL is fine */

/* How many pictures are in that state; those that wait for admission are pending. */
int live_job_count(const struct live_job *job, enum picture_state state);
/* The hop where the picture that is furthest behind is: an index of the route; -1 without one. */
int live_job_hop(const struct live_job *job);
double live_job_progress(const struct live_job *job); /* 0..1, over all pictures and stages */
#define LIVE_JOB_NOTICES_MAX 64                       /* as the schemas allow */
/* Adds a sentence unless it is there, or there are too many. */
void live_job_notice(struct live_job *job, const char *text);
/* Milliseconds of computing at a stage, summed over the pictures; and some more of them. */
double live_job_stage_ms(const struct live_job *job, enum stage stage);
void live_job_spent(struct live_job *job, enum stage stage, double ms);
void live_job_error(struct live_job *job, const char *code, const char *message);

#endif
