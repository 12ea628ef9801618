/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A dead letter as it was read (docs/protocol.md, "Dead letters"), and what sending its record
 * again comes to. Pure: the sending is dlq.c's.
 */
#ifndef UNCLIP_CLIENT_LETTER_H
#define UNCLIP_CLIENT_LETTER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/kafka.h"
#include "common/protocol.h"

/* Where a letter stands in unclip.dead-letter, in text PARTITION:OFFSET. */
struct place {
    int32_t partition;
    int64_t offset;
};
#define PLACE_SIZE 40
/* False: the text is no place. */
bool place_parse(const char *text, struct place *place);
const char *place_text(struct place place, char text[PLACE_SIZE]); /* returns `text` */

/* "2026-01-31", "2026-01-31T12:34:56Z", UTC, in ms since 1970; false: not such a time. */
bool time_parse(const char *text, int64_t *at_ms);

struct letter {
    struct place place;
    json_t *json; /* owned: the whole record */
};

/* Errors: ERR_INVALID_RECORD when it is no dead letter; then nothing is owned. */
int letter_read(struct letter *letter, const struct kafka_record *record, struct err *err);
void letter_release(struct letter *letter);

const char *letter_text(const struct letter *letter, const char *field); /* "" for none */
/* NULL matches all. */
bool letter_matches(const struct letter *letter, const char *job, const char *code);

/* The heading, and one line: place, time, code, job, stage, reason. Nothing in it steers a
   terminal. */
void letter_heading(FILE *out);
void letter_row(const struct letter *letter, FILE *out);
/* Owned: `place` and all fields but the refused record's value and headers; `whole`: those too. */
json_t *letter_json(const struct letter *letter, bool whole);

/* A record to produce; all but the topic is owned, resend_release(). */
struct resend {
    struct kafka_output output;
    char *topic, *key;
    char *value;
    struct kafka_header *headers;
    json_t *texts;           /* what the headers point into */
    char id[JOB_ID_MAX + 1]; /* of the new job; "" where the record goes back as it was */
};

/*
 * What sends the refused record again:
 *
 *  a job         as a new job, because its id has ended with the refusal: the same body under the
 *                id JOB.retry-PARTITION-OFFSET (the letter's place)
 *  a task        as a new job too, since its picture was announced as failed: this one picture with
 *                its seed, as JOB.IMAGE.retry-PARTITION-OFFSET
 *  what remains  (cancellations, events, jobs without an id) as it was, to where it came from
 *
 * The same letter gives the same id, so a job sent twice is one job. A retry's own retry takes the
 * place of the old suffix. Errors: ERR_TOO_LARGE when the letter holds only a part of the record,
 * ERR_UNSUPPORTED when sending it again would not help.
 */
int letter_resend(const struct letter *letter, struct resend *resend, struct err *err);
void resend_release(struct resend *resend);

#endif
