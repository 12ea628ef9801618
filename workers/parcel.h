/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One task in a worker's hands: the record it came in, what is computed, and the records that come
 * of it. A parcel is owned by one thread at a time: the Kafka thread pulls it, hands it to the
 * compute thread in a batch, gets it back with its outputs, and commits them.
 */
#ifndef UNCLIP_WORKERS_PARCEL_H
#define UNCLIP_WORKERS_PARCEL_H

#include <stdatomic.h>

#include "common/digest.h"
#include "common/kafka.h"
#include "common/storage.h"
#include "workers/sweeper.h"
#include "workers/task_codec.h"

enum outcome {
    OUTCOME_OPEN,     /* still to be computed */
    OUTCOME_FINISHED, /* this stage's part is done */
    OUTCOME_FAILED,   /* err says why */
    OUTCOME_RETRY,    /* the same, but another try may help; the coordinator says when */
    OUTCOME_DROPPED /* its job was cancelled or has expired (err says so), or its partition went to
                       another worker */
};

#define PARCEL_OUTPUTS_MAX 3
#define PARCEL_MEMORY_MAX  12

struct parcel {
    struct kafka_record *record; /* owned */
    bool has_task;               /* false: the record could not be read */
    struct task task;            /* owned */
    struct item item;            /* owned; item_init()ed when there is a task */
    char *input_ref;             /* owned URI of the tensors, where they came by reference */

    enum outcome outcome;
    struct err err;
    atomic_bool abandoned; /* set by the Kafka thread while another computes: not ours any more */
    bool cache_hit, computed;
    bool looked;  /* deaths.h was asked for its count */
    bool counted; /* in Redis, as started; both are the Kafka thread's, as are the next two */
    bool gone;    /* it went to another worker, whose count is not ours to clear */
    int deaths;   /* how often its worker has died before; 0 where it is not known */

    double queue_ms, compute_ms; /* as in the event */
    int batch;
    const char *uri; /* of the stored picture; in `memory` */
    const char *ref; /* of the tensors that are kept for the next try; in `memory` */
    bool unkept;     /* they could not be kept */
    const char *concept; /* that the picture looks like, and is made all the same; borrowed from
                            the probe; NULL: none */
    bool blurred;        /* for that */
    char sha256[DIGEST_TEXT_SIZE];

    struct kafka_output outputs[PARCEL_OUTPUTS_MAX]; /* their pointers point into `memory` */
    size_t output_count;
    struct kafka_header headers[2];
    void *memory[PARCEL_MEMORY_MAX]; /* owned: what the outputs point to */
    size_t memory_count;
};

/*
 * Takes the record. A record that cannot be read makes a failed parcel without a task: it goes to
 * the dead letters. `homes`: partitions of unclip.events.
 */
struct parcel *parcel_new(struct kafka_record *record, enum stage stage, int homes);
void parcel_free(struct parcel *parcel); /* NULL is fine */
/*
 * Reads the item's tensors from the record, or from the store when they came by reference: only the
 * object of this very task, which parcel_clear() then removes. Errors: ERR_INVALID_RECORD, and
 * those of storage_read(); nothing is removed for a reference that was refused or not read.
 */
int parcel_read(struct parcel *parcel, struct storage *storage, struct err *err);
/* What parcel_read() found in the store is removed, unless the task is tried again; once it is
   committed. */
void parcel_clear(struct parcel *parcel, struct sweeper *sweeper);
/* How many of the first of them have outputs of at most so many bytes together: one at least. */
size_t parcels_within(struct parcel *const *parcels, size_t count, size_t bytes);
/* The parcel owns the memory from now on. Returns it. */
void *parcel_keep(struct parcel *parcel, void *memory);
void parcel_fail(struct parcel *parcel, const struct err *err);

#endif
