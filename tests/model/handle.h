/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model's coordinator: its ledger and what it will write, as functions of a record, or of the
 * time. They stand for coordinator/handle.c.
 */
#ifndef UNCLIP_TESTS_MODEL_HANDLE_H
#define UNCLIP_TESTS_MODEL_HANDLE_H

#include "tests/model/state.h"

/* handle_record() with admit() */
void coordinator_handle(const struct turn *turn, struct member *member, uint8_t record);
/* handle_due(): the job's picture waits for another try, or its deadline has passed. False: not so,
   and nothing is changed. How long a wait is does not matter here: it may be over at any time. */
bool coordinator_retry(const struct turn *turn, struct member *member, int job);
bool coordinator_expire(const struct turn *turn, struct member *member, int job);

#endif
