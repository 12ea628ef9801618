/* SPDX-License-Identifier: Apache-2.0 */
/* Records into unclip.jobs. */
#ifndef UNCLIP_CLIENT_RECORD_H
#define UNCLIP_CLIENT_RECORD_H

#include "common/config.h"
#include "common/err.h"

/* Returns when Kafka has it, or after ten seconds. `partition` may be KAFKA_ANY_PARTITION.
   ERR_KAFKA, ERR_TIMEOUT, ERR_TOO_LARGE. */
int record_send(const struct config *config, const char *id, int partition, const char *text,
                struct err *err);

#endif
