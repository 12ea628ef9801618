/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Admission: which waiting picture of a partition is let into the first stage next. Pure memory: no
 * Kafka, no clock. A job holds a ticket; the ticket waits in the line of its class and client until
 * its pictures are let in one by one, in turn with those of the other clients (round robin by
 * picture, which is deficit round robin with a quantum of one picture that all cost the same).
 *
 * Bounds hold for one partition, so that coordinators need not speak to each other: a class has at
 * most so many pictures in flight (let in and not yet ended), and so a slow stage makes jobs wait
 * here instead of filling the broker's disk. What waits is bounded too, of each client and of all,
 * by count and by bytes: a job's text may be a hundred times another's.
 */
#ifndef UNCLIP_COORDINATOR_ADMISSION_H
#define UNCLIP_COORDINATOR_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/protocol.h"

struct admission_bounds {
    int in_flight[CLASS_COUNT]; /* pictures, at least 1 each */
    int waiting;                /* jobs of each class, at least 1 */
    int client_waiting;         /* of those, one client's */
    size_t waiting_bytes;       /* of memory that each class's take, at least 1; half of it of one
                                   client's */
};

struct admission; /* opaque: one partition's; used by one thread */
struct line;      /* private: a client's waiting tickets of a class */

/* Embedded in what waits; all zero but `bytes` before admission_enter(), and all zero after
   admission_leave(). */
struct ticket {
    uint32_t bytes;   /* of memory that it takes while it waits: its owner's count */
    int waiting;      /* pictures still to be let in */
    int in_flight;    /* pictures let in and not yet ended */
    bool entered;     /* it is known to an admission */
    uint8_t in_class; /* enum task_class */
    int64_t round;    /* while it waits: about the round in which its next picture is let in */
    int64_t number;   /* of its first picture that was let in: so many were before; -1: none yet */
    /* private */
    struct line *line; /* NULL: none of its pictures waits */
    struct ticket *next, *previous;
};

/* How a class stands. */
struct admission_state {
    size_t waiting_jobs, waiting_pictures, waiting_bytes;
    size_t clients;   /* that have something waiting */
    size_t in_flight; /* pictures */
    int64_t round;    /* in which the next picture is let in; each round serves each client once */
    int64_t admitted; /* pictures that were let in so far */
};

struct admission *admission_new(const struct admission_bounds *bounds);
/* Tickets that are still in it are forgotten, not touched. NULL is fine. */
void admission_free(struct admission *admission);

/* Whether a job may come: there is room for it to wait, or it would not have to. Error:
   ERR_QUOTA_EXCEEDED. */
int admission_check(const struct admission *admission, enum task_class task_class,
                    const char *client, struct err *err);
/* Takes the ticket (borrowed until admission_leave()) to the end of the line of `client`; into none
   when no picture is waiting. */
void admission_enter(struct admission *admission, struct ticket *ticket, enum task_class task_class,
                     const char *client, int waiting, int in_flight);

/*
 * The ticket whose next picture is let in now, counted as in flight; NULL when none waits or the
 * class's bound is reached. Call it until NULL after whatever may have made room.
 */
struct ticket *admission_next(struct admission *admission, enum task_class task_class);

/* So many of the ticket's pictures are in flight now. Nothing for a ticket that has not entered. */
void admission_in_flight(struct admission *admission, struct ticket *ticket, int pictures);
/* Its job has ended, also while waiting. Nothing for a ticket that has not entered. */
void admission_leave(struct admission *admission, struct ticket *ticket);

struct admission_state admission_state(const struct admission *admission,
                                       enum task_class task_class);

#endif
