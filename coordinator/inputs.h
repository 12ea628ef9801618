/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pictures that a job brings along in data URLs. They go into the artifact store before the job
 * is first written anywhere, and their URIs take their places, so that no later record is large:
 * JOB/input-K.EXT of its inputs, JOB/image.EXT and JOB/mask.EXT. The names follow from the job, so
 * that a record which is handled again puts the same bytes in the same place.
 */
#ifndef UNCLIP_COORDINATOR_INPUTS_H
#define UNCLIP_COORDINATOR_INPUTS_H

#include "common/err.h"
#include "common/job.h"
#include "common/storage.h"

/* Errors: fetch_data()'s, naming the field; those of the store. The job is as it was then, or has
   some of its pictures replaced. */
int inputs_store(struct storage *storage, struct job *job, struct err *err);
/* Cuts data URLs down to "data:,", for a job that is refused. */
void inputs_hide(struct job *job);

#endif
