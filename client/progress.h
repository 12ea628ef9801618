/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress for people: a bar for each stage on a terminal, else a line for each change. Used by
 * watch, by submit --wait and by generate. The text is made by pure functions.
 */
#ifndef UNCLIP_CLIENT_PROGRESS_H
#define UNCLIP_CLIENT_PROGRESS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/hop.h"
#include "common/protocol.h"

enum stage_phase { PHASE_WAITING, PHASE_DOING, PHASE_DONE };

struct stage_progress {
    const char *name; /* static */
    enum stage_phase phase;
    int step, steps; /* 0: it has no steps */
    double ms;       /* of computing; < 0: not known */
};

struct progress {
    char id[JOB_ID_MAX + 1]; /* "" for none */
    char state[16];
    char words[512]; /* of an error, or what it waits for; "" for none */
    struct stage_progress stages[ROUTE_MAX];
    int count;
    double fraction;         /* 0..1, of all pictures and stages */
    int done, failed, total; /* pictures */
    bool waits;              /* in the queue: what follows says how long */
    int64_t ahead;           /* pictures */
    double eta_s;            /* -1: not known */
};

void progress_from_status(struct progress *progress, const json_t *status);

/* The pace at which the fraction rises within a stage: stages differ too much to foretell one from
   another. */
struct pace {
    int stage; /* its index + 1; 0: nothing seen */
    int64_t first_ms;
    double first_fraction;
};
/* Seconds to go at the pace of `stage` (an index; -1: none), or -1 when it is too early to tell. */
double pace_eta(struct pace *pace, int stage, int64_t now_ms, double fraction);

struct progress_style {
    int columns; /* of the terminal */
    bool utf8;   /* block characters, else # and - */
};
/* A line for the job and one for each stage, each ending in a newline. Owned. */
char *progress_bars(const struct progress *progress, double eta_s,
                    const struct progress_style *style);
/* One line without newline: "decoder 12/25, 48 %". Owned. */
char *progress_line(const struct progress *progress);
/* Seconds as people say them: "4 s", "2 min", "1 h 5 min". */
void progress_duration(double seconds, char out[24]);

/* Where it is shown. Zero-initialise, then progress_open(). */
struct progress_screen {
    FILE *out;
    bool terminal;
    struct progress_style style;
    int lines;  /* of the last bars, to be overwritten */
    char *last; /* owned: what was shown */
    struct pace pace;
};
void progress_open(struct progress_screen *screen, FILE *out);
/* On a terminal it overwrites the bars; elsewhere it prints a line when stage, state or the number
   of pictures has changed. */
void progress_show(struct progress_screen *screen, const struct progress *progress, int64_t now_ms);
void progress_close(struct progress_screen *screen);

#endif
