/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Removes from the artifact store what committed tasks leave behind, in a thread of its own: a
 * bucket takes its time, and the thread that commits serves Kafka. What is not removed, because the
 * store does not answer or the process is killed, stays behind and harms nobody.
 */
#ifndef UNCLIP_WORKERS_SWEEPER_H
#define UNCLIP_WORKERS_SWEEPER_H

#include "common/storage.h"

#define SWEEPER_MAX 4096 /* URIs that wait */

struct sweeper; /* opaque */

/* `storage` is borrowed until sweeper_stop(). Error: ERR_INTERNAL. */
int sweeper_start(struct sweeper **out, struct storage *storage, struct err *err);
void sweeper_add(struct sweeper *sweeper, char *uri); /* takes the URI */
/* Removes what waits, up to the first failure, and frees the sweeper. NULL is fine. */
void sweeper_stop(struct sweeper *sweeper);

#endif
