/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters: the record in unclip.dead-letter that says which record could not be served, and
 * why. Its JSON form: docs/protocol.md, "Dead letters". Pure.
 */
#ifndef UNCLIP_COMMON_DEAD_LETTER_H
#define UNCLIP_COMMON_DEAD_LETTER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/kafka.h"

#define DEAD_LETTER_VALUE_MAX       (64u << 10) /* bytes of the refused value that are kept */
#define DEAD_LETTER_KEY_MAX         1024        /* bytes of its key */
#define DEAD_LETTER_HEADERS_MAX     32
#define DEAD_LETTER_HEADERS_SIZE    (64u << 10) /* bytes of all headers' names and values */
#define DEAD_LETTER_HEADER_NAME_MAX 256
#define DEAD_LETTER_HEADER_MAX      (16u << 10) /* bytes of a header's value */

struct dead_letter {
    int64_t at_ms;                     /* when it was refused */
    const struct err *err;             /* why */
    const struct kafka_record *record; /* what */
    const char *worker;                /* who refused it: "coordinator-0" */
    const char *job;                   /* id, or NULL */
    const char *stage;                 /* name, or NULL */
    bool with_value;                   /* false for tasks: their tensors are no use to anyone */
};

/*
 * Fills in the record to produce. Its value, which is returned, is owned by the caller (free());
 * its key is the refused record's own, borrowed, or none where that is over DEAD_LETTER_KEY_MAX.
 * Value and key together are under KAFKA_RECORD_MAX whatever the refused record holds.
 *
 * `truncated` tells that something was cut or left out for its size. A value that is not UTF-8 or
 * holds a NUL stands in `value_base64`; in a key or a header U+FFFD takes the place of bad bytes.
 * Of headers whose names are the same in the letter the last one stays.
 */
char *dead_letter_make(const struct dead_letter *letter, struct kafka_output *out);

#endif
