/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator's loop: gather records, handle them, commit, show. One thread does all of it.
 */
#ifndef UNCLIP_COORDINATOR_COORDINATOR_H
#define UNCLIP_COORDINATOR_COORDINATOR_H

#include <signal.h>

#include "common/config.h"
#include "common/err.h"

/*
 * Runs until *stop becomes true; the batch at hand is committed first. Logs "ready" once partitions
 * are assigned and their ledgers read. Errors: ERR_KAFKA, ERR_TIMEOUT when the brokers do not
 * answer, ERR_INVALID_ARGUMENT; the process should exit, and its slot may be started again at once.
 */
int coordinator_run(const struct config *config, const volatile sig_atomic_t *stop,
                    struct err *err);

#endif
