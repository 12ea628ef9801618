/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the lines of a coordinator's partitions stand, as unclip:queue: a few numbers a partition and
 * class, of which a reader makes the place of any job (docs/protocol.md, "Place and ETA"); and
 * which stages have no worker.
 */
#ifndef UNCLIP_COORDINATOR_QUEUE_VIEW_H
#define UNCLIP_COORDINATOR_QUEUE_VIEW_H

#include "common/err.h"
#include "common/redis.h"
#include "coordinator/ledger.h"
#include "coordinator/rates.h"

/* Writes all of it, in one round trip. Error: ERR_REDIS. */
int queue_view_write(struct redis *redis, const struct ledger *ledger, const struct rates *rates,
                     struct err *err);

#endif
