/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a consumed record does: changes in the ledger, and records to produce. A function of the
 * record, the ledger and the time alone; the loop around it is coordinator.c.
 */
#ifndef UNCLIP_COORDINATOR_HANDLE_H
#define UNCLIP_COORDINATOR_HANDLE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/kafka.h"
#include "common/storage.h"
#include "coordinator/ledger.h"
#include "coordinator/outbox.h"
#include "coordinator/planner.h"
#include "coordinator/policy.h"
#include "coordinator/rates.h"
#include "coordinator/retry.h"

#define HANDLE_DUE_MAX 128 /* jobs whose timers are served in one transaction */

struct handler {
    struct ledger *ledger;       /* borrowed */
    struct planner *planner;     /* borrowed */
    const char *name;            /* of this coordinator, for dead letters: "coordinator-0" */
    struct retry *retry;         /* borrowed */
    struct rates *rates;         /* borrowed: what events tell of the pace */
    struct storage *storage;     /* borrowed: takes the pictures that jobs bring along */
    const struct policy *policy; /* borrowed: what may not be asked for; NULL: all may */
};

/*
 * Handles one record of unclip.jobs or unclip.events, whose partition the ledger keeps. What it
 * makes at once (dead letters, and the tasks of every picture that there is now room for) goes into
 * `outbox`; jobs that it changed remember the outbox.
 * Never fails: what cannot be served becomes a dead letter. Returns whether its commit is urgent:
 * nobody waits for one that only tells how far a picture is.
 */
bool handle_record(struct handler *handler, const struct kafka_record *record, int64_t now_ms,
                   struct outbox *outbox);

/*
 * Does what is due by now: pictures whose wait is over get their tasks, jobs whose deadline has
 * passed expire. What it makes goes into
 * `outbox`, as above. Returns how many jobs it changed, at most HANDLE_DUE_MAX.
 */
size_t handle_due(struct handler *handler, int64_t now_ms, struct outbox *outbox);

/*
 * Lets in whatever there is room for, on all partitions: after one was read back, where a bound may
 * have risen, or jobs may be gone whose ends would have made room. Records and timers do so anyway.
 */
void handle_admission(struct handler *handler, int64_t now_ms, struct outbox *outbox);

/*
 * Before the commit of any number of handled records: writes the state, or the result and the
 * state's tombstone, of every job that they changed, once, into the outbox of the last record that
 * did.
 */
void handle_settle(struct handler *handler);

#endif
