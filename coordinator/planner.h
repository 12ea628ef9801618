/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Completes jobs: the model's defaults and route from its card, and a seed where none was given.
 * Cards are read once and kept; a model that is not there is looked for again each time.
 */
#ifndef UNCLIP_COORDINATOR_PLANNER_H
#define UNCLIP_COORDINATOR_PLANNER_H

#include <stdint.h>

#include "common/err.h"
#include "common/job.h"
#include "common/model_card.h"

#define PLANNER_CARDS_MAX 64 /* models at a time; the oldest card is given up for a new one */

struct planner {
    const char *models;        /* folder; borrowed */
    const char *default_model; /* of jobs that name none; borrowed */
    bool probe;                /* pictures end at image-encode (docs/safety.md) */
    int64_t (*seed)(void);     /* planner_seed(), or a test's */
    struct model_card cards[PLANNER_CARDS_MAX];
    size_t count, oldest;
};

void planner_init(struct planner *planner, const char *models, const char *default_model);
void planner_release(struct planner *planner);

/* Errors: ERR_UNKNOWN_MODEL, ERR_INVALID_MODEL, ERR_INVALID_JOB. */
int planner_complete(struct planner *planner, struct job *job, struct err *err);

/* From the system's generator; 32 bits, since torch's generator takes no more of a seed. */
int64_t planner_seed(void);

#endif
