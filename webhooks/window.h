/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records that were pulled and are not committed yet. A Kafka offset can only say "everything
 * up to here", so the records of a partition wait in their order, and what is settled leaves from
 * the head: a delivery that is to be tried again keeps those behind it from being committed, but
 * not from being sent. After a crash, what is behind it is sent again: at least once.
 */
#ifndef UNCLIP_WEBHOOKS_WINDOW_H
#define UNCLIP_WEBHOOKS_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/kafka.h"
#include "webhooks/sign.h"

#define WINDOW_RECORDS_MAX 10000
#define WINDOW_BYTES_MAX   (64u << 20) /* of their values */

/*
 *  WAITING ──▶ SENDING ──▶ SETTLED     its record may be committed
 *     ▲           │
 *     └───────────┘ to be tried again
 */
enum delivery_state { DELIVERY_WAITING, DELIVERY_SENDING, DELIVERY_SETTLED };

/* Why a settled one becomes a dead letter; apart, since few have it. */
struct delivery {
    struct kafka_record *record; /* owned */
    struct delivery *next;       /* of the same partition */
    enum delivery_state state;
    bool orphan;     /* being sent, and in no window any more: its partition is another's */
    char *url;       /* owned; NULL: nobody is to be told */
    char *host;      /* owned: host and port as in the URL, in lower case */
    char *job;       /* owned: the job's id */
    int tries;       /* that have ended */
    int64_t due_ms;  /* WAITING: when to send it, monotonic */
    struct err *why; /* owned: why the last try failed; NULL: it did not */
    bool dead;       /* SETTLED, and given up for `why` */
};
void delivery_free(struct delivery *delivery); /* with its record; NULL is fine */

struct window; /* opaque; owned by the Kafka thread */
struct window *window_new(void);
void window_free(struct window *window); /* with all that is in it, none of them SENDING */

/* Takes it, behind the others of its record's partition. */
void window_add(struct window *window, struct delivery *delivery);
/* Whether no more is to be pulled. */
bool window_full(const struct window *window);
size_t window_count(const struct window *window);

/* Calls `each` for all, partition by partition, by rising offset, until it returns false. */
void window_each(struct window *window, bool (*each)(void *context, struct delivery *delivery),
                 void *context);
/* Takes out the settled ones at the heads, at most `max`, each partition's in order. The caller
   owns them. */
size_t window_settled(struct window *window, struct delivery **out, size_t max);
/* Whether there are any of those. */
bool window_has_settled(const struct window *window);
/*
 * When the window is full: a delivery at a head that waits for another try, so that what holds the
 * others up can be given up; NULL: none, all heads are settled, being sent, or not tried yet.
 */
struct delivery *window_blocking(struct window *window);
/* Drops all whose record `keep` denies; those that are being sent become orphans, which the caller
   frees when they are back. */
void window_drop(struct window *window,
                 bool (*keep)(void *context, const struct kafka_record *record), void *context);

#endif
