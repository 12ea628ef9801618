/* SPDX-License-Identifier: Apache-2.0 */
/* Which jobs this cluster does not serve for what they say, and what is done about them. */
#ifndef UNCLIP_COORDINATOR_POLICY_H
#define UNCLIP_COORDINATOR_POLICY_H

#include <stdbool.h>

#include "common/config.h"
#include "common/err.h"
#include "common/job.h"
#include "coordinator/deny.h"

struct policy {
    struct deny *deny; /* owned; NULL: there is no list */
    bool flags;        /* such a job is made all the same, with a notice */
};

/* By the settings deny-list and deny-action. Errors: deny_open()'s. */
int policy_open(struct policy *policy, const struct config *config, struct err *err);
void policy_release(struct policy *policy);

/*
 * Looks at every text that pictures are made from: prompt, inputs and captions, and the negative
 * prompt, which is what is painted where the guidance is 0. Error: ERR_DENIED, which names the
 * field, and not what in it is on the list.
 */
int policy_check(const struct policy *policy, const struct job *job, struct err *err);

#endif
