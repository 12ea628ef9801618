/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small explicit-state model checker. A model is a set of states (plain bytes, no padding that
 * differs), one initial state and a function that gives a state's successors. The checker visits
 * every reachable state once, breadth first, so that a counterexample is as short as can be:
 *
 *  safety    no reachable state has a violation
 *  liveness  from every reachable state a goal can be reached by steps that are not faults: when
 *            faults stop, nothing is stuck for ever (every path may go on, none is closed)
 *
 * States are compared in full: a hash never stands for a state.
 */
#ifndef UNCLIP_TESTS_MODEL_CHECKER_H
#define UNCLIP_TESTS_MODEL_CHECKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define CHECKER_LABEL_SIZE 96

struct checker; /* opaque */

struct model {
    size_t state_size; /* bytes */
    void (*initial)(const void *context, void *state);
    /* Calls checker_step() for each successor. */
    void (*expand)(const void *context, const void *state, struct checker *checker);
    /* What is wrong with the state, static; NULL: nothing. */
    const char *(*violation)(const void *context, const void *state);
    bool (*goal)(const void *context, const void *state);
    void (*label)(const void *context, unsigned label, char text[CHECKER_LABEL_SIZE]);
    void (*show)(const void *context, const void *state, FILE *out);
};

/* `next` is borrowed during the call. `label` (below 65536) names the step in traces. */
void checker_step(struct checker *checker, const void *next, unsigned label, bool fault);

enum verdict { VERDICT_HOLDS, VERDICT_VIOLATED, VERDICT_STUCK, VERDICT_TOO_BIG };

struct finding {
    enum verdict verdict;
    const char *what; /* of a violation, static */
    size_t states, steps;
    size_t depth; /* steps of the trace, or the longest shortest way to a state */
    size_t goals; /* states that are one */
};

/*
 * Visits all states, at most `limit` (then VERDICT_TOO_BIG). The way to what is wrong is written to
 * `trace` unless that is NULL. `context` is handed to the model's functions.
 */
struct finding checker_run(const struct model *model, const void *context, size_t limit,
                           FILE *trace);

#endif
