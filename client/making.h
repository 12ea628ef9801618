/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands that make something (kinds.c has their table): all of them put what is asked for
 * into one struct, of which a cluster's job (submit.c) or this process's own (local.c) is made.
 */
#ifndef UNCLIP_CLIENT_MAKING_H
#define UNCLIP_CLIENT_MAKING_H

#include <jansson.h>

#include "client/command.h"
#include "client/request.h"
#include "client/sheet.h"

struct making {
    struct request request; /* first: the shared tables' offsets are into it */
    bool local;             /* in this process */
    bool wait, json;
    bool quiet, profile; /* of this process's own */
    const char *out;     /* folder, or NULL */
    struct sheet_wish sheet;
};

/* Both take a request whose sources are filled in. */
enum exit_code submit_run(const struct invocation *invocation, struct making *making);
enum exit_code local_run(const struct invocation *invocation, struct making *making);

/*
 * Prints what a score job is for: a line for each picture, the best first, "29.31  cat.png".
 * `scores` is an array of numbers, null for a picture that has none.
 */
void making_print_ranking(const struct invocation *invocation, const json_t *scores);

#endif
