/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes of a parcel, as records: the next stage's task or a stored picture, the event, the
 * dead letter. Forms: docs/protocol.md and schemas/.
 */
#ifndef UNCLIP_WORKERS_OUTPUT_H
#define UNCLIP_WORKERS_OUTPUT_H

#include "common/storage.h"
#include "workers/parcel.h"

struct output {
    enum stage stage;
    const char *worker;      /* borrowed: "decoder-0" */
    int homes;               /* partitions of unclip.events */
    struct storage *storage; /* borrowed */
};

/*
 * Makes the product of a finished parcel: at the route's end the picture or embedding, written to
 * the store, else the next task. A failure makes it a failed parcel. `now_ms` is when the task
 * enters the next topic.
 */
void output_product(const struct output *output, struct parcel *parcel, int64_t now_ms);
/* Where a parcel has failed, but may succeed another time: keeps its tensors for that, and makes it
   one that is tried again. After output_product(). */
void output_retry(const struct output *output, struct parcel *parcel);
/* Adds the event and, for a failed parcel, the dead letter. Call it once, after output_product().
 */
void output_report(const struct output *output, struct parcel *parcel, int64_t now_ms);

#endif
