/* SPDX-License-Identifier: Apache-2.0 */
/* A job as the fields of its status hash (docs/protocol.md, "Status"). Pure. */
#ifndef UNCLIP_COORDINATOR_STATUS_H
#define UNCLIP_COORDINATOR_STATUS_H

#include <stddef.h>

#include "coordinator/ledger.h"
#include "coordinator/rates.h"

#define STATUS_FIELDS_MAX 36

struct status {
    size_t count;
    const char *names[STATUS_FIELDS_MAX]; /* static */
    char *values[STATUS_FIELDS_MAX];      /* owned */
    /* Workers write these too, so they are set apart: the view merges them. */
    const char *stage; /* static; "" when the job never got a route */
    int step, steps;
    double progress;
};

/* `rates` may be NULL: nothing is known of the pace. */
void status_make(struct status *status, const struct live_job *job, const struct rates *rates);
void status_release(struct status *status);

#endif
