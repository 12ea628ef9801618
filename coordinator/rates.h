/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast things go, as a coordinator sees it: what a step of each stage takes, and how long lies
 * between the ends of two pictures of a class and partition while there are any in flight. Moving
 * averages, in memory only: after a start they are unknown until something has ended. Pure.
 */
#ifndef UNCLIP_COORDINATOR_RATES_H
#define UNCLIP_COORDINATOR_RATES_H

#include <stdint.h>

#include "common/job.h"
#include "coordinator/ledger.h"

/* All zero at first. */
struct rate {
    double mean_ms;
    int count; /* of what it is the mean, up to RATES_MEMORY */
};

#define RATES_MEMORY 20 /* a new value weighs 1 in so many */

struct rates {
    struct rate steps[STAGE_COUNT]; /* ms of computing: one step, or the pass of a stage without */
    struct rates_pace {
        struct rate between_ends;
        int64_t since_ms; /* the latest end, or when the first picture came after none was there */
    } paces[LEDGER_PARTITIONS_MAX][CLASS_COUNT];
};

/* A picture was `compute_ms` in that hop. */
void rates_computed(struct rates *rates, const struct hop *hop, double compute_ms);
/* A picture is admitted where none was in flight. */
void rates_began(struct rates *rates, int partition, enum task_class task_class, int64_t now_ms);
/* One has ended there. */
void rates_ended(struct rates *rates, int partition, enum task_class task_class, int64_t now_ms);

/* The partition has gone: when it comes back, others have ended pictures there meanwhile. */
void rates_forget(struct rates *rates, int partition);

/* Milliseconds between two ends; -1: not known. */
double rates_between_ends(const struct rates *rates, int partition, enum task_class task_class);
/* Milliseconds of computing that a picture has before it from hop `from` on; -1: not known. */
double rates_work(const struct rates *rates, const struct job *job, int from);

#endif
