/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fault injection: makes a process die, stop or fail at a named point where the order of things
 * matters. Only in builds with UNCLIP_FAULTS (all but Release); elsewhere fault_at() is nothing,
 * and a program that finds the variable set refuses to start rather than ignore it.
 *
 *     UNCLIP_FAULT=POINT:ACTION[@SUBJECT][:NTH[+]][,…]
 *
 * POINT     a name of the table below after its program: worker.before_commit
 * ACTION    kill      SIGKILL to itself
 *           exit      leaves at once with status 1
 *           sleep-MS  the whole process is stopped (SIGSTOP) for that long
 *           error     the point's call fails with io_error, which is worth another try;
 *                     error-CODE with any other code, where the table allows errors
 * SUBJECT   only where the point is passed on behalf of that job
 * NTH       at the NTH passing alone (default 1); NTH+ from then on
 *
 * A point of another program is left to that program, so that one value serves a whole cluster.
 */
#ifndef UNCLIP_COMMON_FAULT_H
#define UNCLIP_COMMON_FAULT_H

#include <stdbool.h>

#include "common/err.h"

enum fault_program { FAULT_WORKER = 1, FAULT_COORDINATOR = 2, FAULT_BOTH = 3 };

/*  X(identifier, name, programs that have it, whether it can return an error, where it is) */
#define FAULT_TABLE(X)                                                                             \
    X(FAULT_AFTER_PULL, "after_pull", FAULT_WORKER, false, "a task is pulled, nothing is done")    \
    X(FAULT_BEFORE_COMPUTE, "before_compute", FAULT_WORKER, true,                                  \
      "a batch is in the compute thread's hands, its tensors are not read")                        \
    X(FAULT_IN_COMPUTE, "in_compute", FAULT_WORKER, false, "after each denoising step or pass")    \
    X(FAULT_BEFORE_STORE, "before_store", FAULT_WORKER, true,                                      \
      "a picture, or a task's tensors, are about to be stored")                                    \
    X(FAULT_PICTURE_STORED, "picture_stored", FAULT_WORKER, false,                                 \
      "a picture is stored, nothing tells of it")                                                  \
    X(FAULT_BEFORE_BEGIN, "before_begin", FAULT_BOTH, false,                                       \
      "a batch is done, its transaction has not begun")                                            \
    X(FAULT_AFTER_PRODUCE, "after_produce", FAULT_BOTH, false,                                     \
      "records are produced, the offsets are not in the transaction")                              \
    X(FAULT_BEFORE_COMMIT, "before_commit", FAULT_BOTH, false,                                     \
      "all is in the transaction, which is not committed")                                         \
    X(FAULT_AFTER_COMMIT, "after_commit", FAULT_BOTH, false,                                       \
      "committed; Redis does not show it, nothing is cleaned up")                                  \
    X(FAULT_IN_REPLAY, "in_replay", FAULT_COORDINATOR, false,                                      \
      "a partition is taken over, its live jobs are read back, nothing is served")

enum fault_point {
#define X(id, ...) id,
    FAULT_TABLE(X)
#undef X
        FAULT_COUNT
};

/* Reads UNCLIP_FAULT; call it once, before any thread. Error: ERR_INVALID_ARGUMENT, also where the
   variable is set and this build cannot inject faults. */
int fault_open(enum fault_program program, struct err *err);

#if UNCLIP_FAULTS
/*
 * The process is at that point, for the job `subject` (NULL: none). Returns 0 or, where the point
 * allows it, the error that was asked for. Any thread.
 */
int fault_at(enum fault_point point, const char *subject, struct err *err);
#else
static inline int fault_at(enum fault_point point, const char *subject, struct err *err)
{
    (void)point, (void)subject, (void)err;
    return 0;
}
#endif

#endif
