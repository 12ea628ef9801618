/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines and rounds. Each class has a ring of lines, one for each client that has something waiting;
 * the head is served one picture and goes to the tail. A line carries the number of the round in
 * which it is due: along the ring these never fall and differ by one at most, so the head's is the
 * round that runs. A ticket's round is its line's plus the pictures ahead of it in that line, when
 * it came: exact unless a ticket ahead of it leaves unserved.
 */
#include "coordinator/admission.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/memory.h"

struct line {
    char *client;                /* owned */
    struct ticket *first, *last; /* in the order in which they came */
    struct line *next, *previous;
    size_t count;  /* tickets */
    size_t bytes;  /* theirs */
    int64_t round; /* in which it is due */
    int64_t end;   /* the round after its last picture's */
};

struct ring {
    struct line *head, *tail;
    void *lines; /* tsearch() tree by client */
    struct admission_state state;
};

struct admission {
    struct admission_bounds bounds;
    struct ring rings[CLASS_COUNT];
};

static int compare_lines(const void *a, const void *b)
{
    return strcmp(((const struct line *)a)->client, ((const struct line *)b)->client);
}

struct admission *admission_new(const struct admission_bounds *bounds)
{
    struct admission *admission = xcalloc(1, sizeof *admission);
    for (int i = 0; i < CLASS_COUNT; i++)
        BUG_ON(bounds->in_flight[i] < 1);
    BUG_ON(bounds->waiting < 1 || bounds->client_waiting < 1 || bounds->waiting_bytes < 1);
    admission->bounds = *bounds;
    return admission;
}

static void line_free(void *node)
{
    struct line *line = node;
    free(line->client);
    free(line);
}

void admission_free(struct admission *admission)
{
    for (int i = 0; admission && i < CLASS_COUNT; i++)
        tdestroy(admission->rings[i].lines, line_free);
    free(admission);
}

/* --- the ring --- */

static void ring_append(struct ring *ring, struct line *line)
{
    line->previous = ring->tail;
    line->next = NULL;
    *(ring->tail ? &ring->tail->next : &ring->head) = line;
    ring->tail = line;
}

static void ring_remove(struct ring *ring, struct line *line)
{
    *(line->previous ? &line->previous->next : &ring->head) = line->next;
    *(line->next ? &line->next->previous : &ring->tail) = line->previous;
}

static struct line *line_find(const struct ring *ring, const char *client)
{
    struct line probe = {.client = (char *)(uintptr_t)client};
    struct line **place = tfind(&probe, &ring->lines, compare_lines);
    return place ? *place : NULL;
}

/* A client that comes is due when those are that wait longest for their next turn: last. */
static struct line *line_add(struct ring *ring, const char *client)
{
    struct line *line = xcalloc(1, sizeof *line);
    line->client = xstrdup(client);
    line->round = line->end = ring->tail ? ring->tail->round : ring->state.round;
    BUG_ON(!tsearch(line, &ring->lines, compare_lines));
    ring_append(ring, line);
    ring->state.clients++;
    return line;
}

static void line_remove(struct ring *ring, struct line *line)
{
    ring_remove(ring, line);
    tdelete(line, &ring->lines, compare_lines);
    line_free(line);
    ring->state.clients--;
}

/* --- tickets --- */

static void ticket_append(struct ring *ring, struct line *line, struct ticket *ticket)
{
    ticket->line = line;
    ticket->round = line->end;
    ticket->previous = line->last;
    ticket->next = NULL;
    *(line->last ? &line->last->next : &line->first) = ticket;
    line->last = ticket;
    line->count++;
    line->bytes += ticket->bytes;
    line->end += ticket->waiting;
    ring->state.waiting_jobs++;
    ring->state.waiting_bytes += ticket->bytes;
    ring->state.waiting_pictures += (size_t)ticket->waiting;
}

/* Takes it out of its line, whose pictures that wait no more are `ticket->waiting`. */
static void ticket_remove(struct ring *ring, struct ticket *ticket)
{
    struct line *line = ticket->line;
    *(ticket->previous ? &ticket->previous->next : &line->first) = ticket->next;
    *(ticket->next ? &ticket->next->previous : &line->last) = ticket->previous;
    if (!ticket->next)
        line->end = ticket->round;
    ticket->line = NULL;
    ticket->next = ticket->previous = NULL;
    line->bytes -= ticket->bytes;
    ring->state.waiting_jobs--;
    ring->state.waiting_bytes -= ticket->bytes;
    ring->state.waiting_pictures -= (size_t)ticket->waiting;
    ticket->waiting = 0;
    if (--line->count == 0)
        line_remove(ring, line);
}

#define COME_AGAIN "more are not taken; send it again, under a new id, when some have ended"

/* The client's own bounds first: they tell it more. */
static int line_check(const struct admission_bounds *bounds, const struct line *line,
                      const char *class_name, struct err *err)
{
    if (line->count >= (size_t)bounds->client_waiting)
        return err_set(err, ERR_QUOTA_EXCEEDED,
                       "the client '%.130s' has %zu %s jobs waiting on this partition, " COME_AGAIN,
                       line->client, line->count, class_name);
    if (line->bytes > bounds->waiting_bytes / 2)
        return err_set(err, ERR_QUOTA_EXCEEDED,
                       "the client '%.130s' has %s jobs of %zu KiB waiting on this "
                       "partition, " COME_AGAIN,
                       line->client, class_name, line->bytes / 1024);
    return 0;
}

int admission_check(const struct admission *admission, enum task_class task_class,
                    const char *client, struct err *err)
{
    const struct ring *ring = &admission->rings[task_class];
    const struct admission_bounds *bounds = &admission->bounds;
    const struct line *line = line_find(ring, client);
    const char *class_name = task_class_name(task_class);

    if (ring->state.in_flight < (size_t)bounds->in_flight[task_class])
        return 0;
    int rc = line ? line_check(bounds, line, class_name, err) : 0;
    if (!rc && ring->state.waiting_jobs >= (size_t)bounds->waiting)
        rc = err_set(err, ERR_QUOTA_EXCEEDED, "%zu %s jobs wait on this partition, " COME_AGAIN,
                     ring->state.waiting_jobs, class_name);
    if (!rc && ring->state.waiting_bytes >= bounds->waiting_bytes)
        rc = err_set(err, ERR_QUOTA_EXCEEDED,
                     "%s jobs of %zu KiB wait on this partition, " COME_AGAIN, class_name,
                     ring->state.waiting_bytes / 1024);
    return rc;
}

void admission_enter(struct admission *admission, struct ticket *ticket, enum task_class task_class,
                     const char *client, int waiting, int in_flight)
{
    struct ring *ring = &admission->rings[task_class];
    BUG_ON(ticket->entered || waiting < 0 || in_flight < 0);
    *ticket = (struct ticket){.bytes = ticket->bytes,
                              .number = in_flight ? ring->state.admitted : -1,
                              .waiting = waiting,
                              .in_flight = in_flight,
                              .entered = true,
                              .in_class = (uint8_t)task_class};
    ring->state.in_flight += (size_t)in_flight;
    ring->state.admitted += in_flight;
    if (waiting == 0)
        return;
    struct line *line = line_find(ring, client);
    ticket_append(ring, line ? line : line_add(ring, client), ticket);
}

struct ticket *admission_next(struct admission *admission, enum task_class task_class)
{
    struct ring *ring = &admission->rings[task_class];
    struct line *line = ring->head;

    if (!line || ring->state.in_flight >= (size_t)admission->bounds.in_flight[task_class])
        return NULL;
    struct ticket *ticket = line->first;
    ring->state.round = line->round++;
    ring_remove(ring, line);
    ring_append(ring, line);
    ticket->waiting--;
    ticket->in_flight++;
    if (ticket->number < 0)
        ticket->number = ring->state.admitted;
    ring->state.admitted++;
    ticket->round = line->round;
    if (line->end < line->round)
        line->end = line->round;
    ring->state.waiting_pictures--;
    ring->state.in_flight++;
    if (ticket->waiting == 0)
        ticket_remove(ring, ticket);
    return ticket;
}

void admission_in_flight(struct admission *admission, struct ticket *ticket, int pictures)
{
    if (!ticket->entered)
        return;
    struct ring *ring = &admission->rings[ticket->in_class];
    ring->state.in_flight += (size_t)pictures;
    ring->state.in_flight -= (size_t)ticket->in_flight;
    ticket->in_flight = pictures;
}

void admission_leave(struct admission *admission, struct ticket *ticket)
{
    if (!ticket->entered)
        return;
    admission_in_flight(admission, ticket, 0);
    if (ticket->line)
        ticket_remove(&admission->rings[ticket->in_class], ticket);
    *ticket = (struct ticket){0};
}

struct admission_state admission_state(const struct admission *admission,
                                       enum task_class task_class)
{
    const struct ring *ring = &admission->rings[task_class];
    struct admission_state state = ring->state;
    if (ring->head)
        state.round = ring->head->round;
    return state;
}
