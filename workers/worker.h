/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unclip-worker: one stage of the pipeline. `unclip-worker STAGE` consumes that stage's task
 * topics, computes in batches, and hands each task on in one transaction with what it consumed.
 */
#ifndef UNCLIP_WORKERS_WORKER_H
#define UNCLIP_WORKERS_WORKER_H

#include "common/config.h"
#include "workers/shard.h"

/* Runs until SIGTERM. An error cannot be recovered from: threads may still run, so the caller must
   end the process with _exit(). */
int worker_run(const struct config *config, enum stage stage, struct shard *shard, struct err *err);

#endif
