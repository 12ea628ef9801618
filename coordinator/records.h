/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator's records as JSON: events in; states and results out, and back in when a
 * partition comes to this coordinator. Forms: docs/protocol.md and
 * schemas/{event,state,result}.schema.json. States and results carry the job's digest in the header
 * `digest` (16 hex digits).
 */
#ifndef UNCLIP_COORDINATOR_RECORDS_H
#define UNCLIP_COORDINATOR_RECORDS_H

#include <jansson.h>
#include <stdint.h>

#include "common/err.h"
#include "common/kafka.h"
#include "coordinator/ledger.h"

#define RECORD_DIGEST_HEADER "digest"

enum event_type {
    EVENT_STAGE_FINISHED,
    EVENT_PICTURE_FINISHED,
    EVENT_PICTURE_FAILED,
    EVENT_PICTURE_DROPPED,
    EVENT_PICTURE_RETRY,
    EVENT_COUNT
};

/* Strings and arrays are borrowed from `json`, which event_release() frees. */
struct event {
    enum event_type type;
    const char *job;
    int image, hop, attempt;
    enum stage stage;
    const char *worker;
    double compute_ms;
    const char *uri, *sha256; /* picture-finished's */
    int width, height;        /* 0: no picture */
    double score;
    bool has_score;
    const char *error_code, *error_message; /* picture-failed's and picture-retry's */
    const char *ref;                        /* picture-retry's, or NULL */
    const json_t *notices;                  /* or NULL */
    json_t *json;                           /* owned */
};
/* Errors: ERR_INVALID_RECORD; ERR_UNSUPPORTED for a newer version, here and below. */
int event_parse(struct event *event, const void *bytes, size_t size, struct err *err);
void event_release(struct event *event);

/* Compact JSON, owned by the caller (free()). The job must not be final, or must be. */
char *state_encode(const struct live_job *job);
char *result_encode(const struct live_job *job);

/*
 * Reads back a record of unclip.state or unclip.results; `key` is the job's id. *out is owned
 * (live_job_free()). Errors: ERR_INVALID_RECORD.
 */
int state_decode(struct live_job **out, int home, const struct kafka_record *record,
                 struct err *err);
int result_decode(struct live_job **out, int home, const struct kafka_record *record,
                  struct err *err);

/* The digest of a job record's body: of its JSON without the id, in whatever order and spacing; of
   the bytes where it is no JSON. */
uint64_t body_digest(const void *bytes, size_t size);
char *digest_text(uint64_t digest);                        /* owned */
uint64_t record_digest(const struct kafka_record *record); /* of its header; 0 where it has none */

/* Milliseconds since 1970 of clock_iso8601()'s text; -1 when it is none, or before 1970. */
int64_t iso8601_parse(const char *text);

json_t *notices_json(const struct live_job *job); /* an array. Owned. */
/* stage_ms as an object, of the stages that took part. Owned. */
json_t *timings_json(const struct live_job *job);
/* Indices by falling score, of best_of the best; empty where there are no scores. Owned. */
json_t *best_json(const struct live_job *job);
/* The stages with steps and guidance, in order. Owned. */
json_t *route_json(const struct job *job);

#endif
