/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records to be produced because of one consumed record. An outbox owns every byte that its outputs
 * point to, so that it outlives the jobs that they speak of.
 */
#ifndef UNCLIP_COORDINATOR_OUTBOX_H
#define UNCLIP_COORDINATOR_OUTBOX_H

#include <stddef.h>

#include "common/kafka.h"

#define OUTBOX_HEADERS_MAX 2 /* of one record */

struct outbox {
    struct kafka_output *outputs; /* owned, with all they point to but the topics' names */
    size_t count, capacity;
};

/*
 * Adds a record. `topic` must be static, `key` (NULL: none) is copied; `value` (NULL: a tombstone)
 * and `header_value` are taken; header_name (static; NULL: no header).
 */
void outbox_add(struct outbox *outbox, const char *topic, int partition, const void *key,
                size_t key_size, void *value, size_t value_size, const char *header_name,
                char *header_value);
/* Gives the last record another header; at most OUTBOX_HEADERS_MAX in all. */
void outbox_add_header(struct outbox *outbox, const char *name, char *value);
size_t outbox_bytes(const struct outbox *outbox); /* of all values */
void outbox_release(struct outbox *outbox);       /* empties it */

#endif
