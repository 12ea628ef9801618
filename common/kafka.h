/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kafka: consume → compute → one short transaction, exactly once between topics. The only file that
 * knows librdkafka's types is kafka.c. The recipe and its traps: docs/architecture.md, "Delivery".
 *
 * A `struct kafka` is one consumer and one transactional producer and belongs to ONE thread (the
 * Kafka thread): no other thread may call anything here on it. It keeps the group membership alive
 * as long as kafka_poll() is called every few hundred milliseconds; computing happens elsewhere.
 *
 * Records come from *lanes*: lane i pulls the partitions of the topics given for it, on demand, so
 * that a worker prefers one class of tasks over another without pausing partitions. Records of one
 * partition arrive in order and must be committed in order: kafka_commit() takes for each partition
 * a run of records that starts where the last commit ended (a BUG otherwise).
 */
#ifndef UNCLIP_COMMON_KAFKA_H
#define UNCLIP_COMMON_KAFKA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/err.h"

#define KAFKA_RECORD_MAX                                                                           \
    (900u << 10) /* bytes of key, headers and value; larger values go by reference */
#define KAFKA_PATIENCE_MS                                                                          \
    3600000 /* how long servers let the brokers be away in a commit, whose                         \
               results they keep, before they give up and exit */
#define KAFKA_LANES_MAX     2
#define KAFKA_ANY_PARTITION (-1)

struct kafka; /* opaque; owned by the Kafka thread */

struct kafka_header {
    const char *name;
    const void *value;
    size_t size;
};

/* A consumed record. Owned by whoever holds it; kafka_record_free() works until kafka_close(). */
struct kafka_record {
    const char *topic;
    int32_t partition;
    int64_t offset;
    uint32_t epoch;       /* of the partition's assignment; see kafka_record_current() */
    int64_t timestamp_ms; /* of its production */
    const void *key;      /* NULL when there is none */
    size_t key_size;
    const void *value; /* NULL for a tombstone */
    size_t value_size;
    const struct kafka_header *headers;
    size_t header_count;
    void *message; /* private */
};
void kafka_record_free(struct kafka_record *record); /* NULL is fine */
/* The header's value or NULL; the last one of that name. */
const struct kafka_header *kafka_record_header(const struct kafka_record *record, const char *name);

/* A record to produce. All pointers are borrowed until the call that takes it returns. */
struct kafka_output {
    const char *topic;
    int32_t partition; /* KAFKA_ANY_PARTITION: by the key (murmur2, as Java's producer) */
    const void *key;
    size_t key_size;
    const void *value; /* NULL: a tombstone */
    size_t value_size;
    const struct kafka_header *headers;
    size_t header_count;
};

/* One consumed record and what comes of it; commits whole or not at all. */
struct kafka_unit {
    struct kafka_record *record; /* borrowed */
    const struct kafka_output *outputs;
    size_t output_count;
    bool lost; /* out: its partition was revoked, or someone else has committed it: drop it */
};

struct kafka_options {
    const struct config *config; /* brokers and kafka.* settings; borrowed during kafka_open() */
    const char *slot;            /* "<stage>-<ordinal>": transactional id and static group member */
    const char *const *lane_topics[KAFKA_LANES_MAX]; /* NULL-terminated arrays; unused lanes NULL */
    const char *lane_group[KAFKA_LANES_MAX]; /* consumer group id, another one for each lane, so
                                                that the partitions of each are shared out evenly */
    const char *const *output_topics; /* NULL-terminated; looked up at start so that the first
                                         transaction is not slow */
    bool copartition; /* range assignor: partition p of every topic goes to the same member; else
                         cooperative-sticky */
    /* Called from kafka_poll() when partitions come and go; may be NULL. With `copartition`,
       records of an assigned partition arrive only after assigned() has returned. */
    void (*assigned)(void *context, const char *topic, int32_t partition);
    void (*revoked)(void *context, const char *topic, int32_t partition);
    void *context;
};

/* Errors: ERR_KAFKA (also when the first contact fails: the text names broker and cause). */
int kafka_open(struct kafka **out, const struct kafka_options *options, struct err *err);
/* Leaves the group and frees all. Every record must have been freed before. NULL is fine. */
void kafka_close(struct kafka *kafka);

/*
 * Serves rebalances and errors, and pulls at most one record of `lane` (-1: pulls none). Waits up
 * to timeout_ms, and returns earlier without one when a record came for another lane or
 * kafka_wake() was called. *record is NULL when there was none. Errors: only what cannot be
 * recovered from.
 */
int kafka_poll(struct kafka *kafka, int lane, int timeout_ms, struct kafka_record **record,
               struct err *err);
bool kafka_assigned(const struct kafka *kafka);     /* at least one partition is assigned, or the
                                                       group is settled without one for this member */
size_t kafka_partitions(const struct kafka *kafka); /* how many are assigned */
/* How many partitions one of the topics that kafka_open() was given had then. */
int kafka_topic_partitions(const struct kafka *kafka, const char *topic);
/* Makes a kafka_poll() that waits return. The one function that any thread may call. */
void kafka_wake(struct kafka *kafka);
/* False when the record's partition has been revoked since, even if it came back. */
bool kafka_record_current(const struct kafka *kafka, const struct kafka_record *record);

/*
 * One transaction: all outputs of all units that are not lost, and the offsets after their records.
 * Retries, aborts and re-creates the producer as needed, keeping the results: on return 0 each unit
 * is either committed exactly once or marked lost. Serves the consumer meanwhile. Errors:
 * ERR_TOO_LARGE when an output is larger than the brokers take, and nothing is committed; ERR_KAFKA
 * or ERR_TIMEOUT when the brokers have not answered for deadline_ms; then nothing is known and the
 * process should exit for its slot to be taken over.
 */
int kafka_commit(struct kafka *kafka, struct kafka_unit *units, size_t count, int deadline_ms,
                 struct err *err);
/* Outputs that belong to no consumed record (timers of the coordinator): one transaction. It is
   fenced like a commit: when partitions came or went since the last kafka_poll(), nothing is
   published and ERR_CONFLICT is returned; kafka_poll() then tells of the change. Other errors as
   above. */
int kafka_publish(struct kafka *kafka, const struct kafka_output *outputs, size_t count,
                  int deadline_ms, struct err *err);
/* When nothing is in flight, and nothing came or went for quiet_ms: moves committed offsets past
   transaction markers, so that idle lag is exactly 0. Cheap when there is nothing to do; a request
   that is waited for when there is, so a loop that may get work again soon gives it time. */
#define KAFKA_QUIET_MS 250
void kafka_commit_idle(struct kafka *kafka, int quiet_ms);

/*
 * Reads one partition of a (compacted) topic from its beginning to its present end, read_committed,
 * waiting up to deadline_ms for open transactions to end, and calls `each` for every record
 * (borrowed during the call). Once a partition is assigned, nothing that an earlier owner of the
 * partition of that number commits can come later than this. May be called from the assigned()
 * callback.
 */
int kafka_replay(struct kafka *kafka, const char *topic, int32_t partition, int deadline_ms,
                 int (*each)(void *context, const struct kafka_record *record, struct err *err),
                 void *context, struct err *err);

/* --- what clients need: no group, no transaction --- */

struct kafka_client; /* opaque; one thread */
int kafka_client_open(struct kafka_client **out, const struct config *config, struct err *err);
void kafka_client_close(struct kafka_client *client);
/* Sends and waits for the acknowledgement (acks=all, idempotent). */
int kafka_client_send(struct kafka_client *client, const struct kafka_output *output,
                      int timeout_ms, struct err *err);
struct kafka_topic_spec {
    const char *name;
    int partitions;
    int replication;
    bool compacted;
};
/* Creates what is missing; an existing topic with another partition count is ERR_CONFLICT. */
int kafka_client_create_topics(struct kafka_client *client, const struct kafka_topic_spec *specs,
                               size_t count, int timeout_ms, struct err *err);

/* How many partitions the topic has. ERR_NOT_FOUND: no such topic. */
int kafka_client_partitions(struct kafka_client *client, const char *topic, int timeout_ms,
                            int *partitions, struct err *err);
/* The offset that the partition's next record will get, or its transactions' next marker. */
int kafka_client_end(struct kafka_client *client, const char *topic, int32_t partition,
                     int timeout_ms, int64_t *end, struct err *err);
/* Reads a partition from its beginning to its present end as kafka_replay() does. A value other
   than 0 from `each` ends the reading and is returned. */
int kafka_client_read(struct kafka_client *client, const char *topic, int32_t partition,
                      int timeout_ms,
                      int (*each)(void *context, const struct kafka_record *record,
                                  struct err *err),
                      void *context, struct err *err);
/* Deletes the partition's records below `offset` for good. */
int kafka_client_delete(struct kafka_client *client, const char *topic, int32_t partition,
                        int64_t offset, int timeout_ms, struct err *err);

/* How many offsets of the topic the consumer group has not committed yet: records, and the markers
   of transactions. */
int kafka_client_lag(struct kafka_client *client, const char *group, const char *topic,
                     int timeout_ms, int64_t *lag, struct err *err);

const char *kafka_library_version(void);

#endif
