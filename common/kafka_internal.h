/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kafka*.c files share, and nobody else includes: librdkafka's types stay in here.
 *
 *   kafka_config.c   the settings, from one table
 *   kafka.c          the consumer: assignment, lanes, records, idle commits
 *   kafka_txn.c      the transactional producer and its recovery
 *   kafka_replay.c   reading a partition from its beginning
 *   kafka_lag.c      how far a group is behind
 *   kafka_client.c   the plain producer, reading and deleting without a group, topic creation
 */
#ifndef UNCLIP_COMMON_KAFKA_INTERNAL_H
#define UNCLIP_COMMON_KAFKA_INTERNAL_H

#include <librdkafka/rdkafka.h>
#include <time.h>

#include "common/kafka.h"

/* A topic partition that is or was assigned to us. Owned by the kafka thread. */
struct lane;
struct partition {
    char *topic; /* owned */
    int32_t id;
    struct lane *lane;
    bool assigned;
    uint32_t epoch;    /* rises whenever the partition is revoked */
    int64_t *pending;  /* offsets pulled and not yet committed, oldest first */
    size_t head, tail; /* pending[head..tail) */
    size_t cursor;     /* of kafka_commit(), while it checks its units' order */
    size_t capacity;
    int64_t next;      /* after the last offset pulled or committed in this epoch; -1: none yet */
    int64_t committed; /* last offset that we know to be committed; -1: not known */
};

/* A rebalance that the user's callbacks have not heard of yet. */
struct notice {
    size_t partition; /* index in kafka->partitions */
    bool assigned;
};

/*
 * A consumer with a group of its own. Two classes of topics are two groups because the sticky
 * assignor balances how many partitions a member has, not of which topic: in one group, a second
 * member would get all partitions of one class and none of the other.
 */
struct lane {
    struct kafka *kafka;
    char **topics;              /* NULL-terminated, owned */
    rd_kafka_t *consumer;       /* NULL: unused */
    rd_kafka_queue_t *main;     /* rebalances and errors */
    rd_kafka_queue_t *records;  /* what the partitions are forwarded to; NULL when closing */
    rd_kafka_message_t **stray; /* records that overtook their forwarding */
    size_t stray_count;
    bool eager;   /* the range assignor's protocol: assign and unassign whole */
    bool settled; /* a first assignment, maybe an empty one, has arrived */
};

struct kafka {
    struct lane lane[KAFKA_LANES_MAX];
    rd_kafka_t *producer;           /* NULL between two lives */
    rd_kafka_conf_t *producer_conf; /* template for the next life */
    rd_kafka_conf_t *replay_conf;   /* template of kafka_replay()'s consumers */
    char *slot, *brokers;

    char **output_topics;
    rd_kafka_topic_t **warm; /* handles that keep the outputs' leaders known */
    int *warm_partitions;    /* of each, when it was looked up */
    size_t warm_count;

    int wake_fd; /* eventfd: any queue has become non-empty, or kafka_wake() */
    struct partition **partitions;
    size_t partition_count;
    struct notice *notices;
    size_t notice_count;
    int64_t active_ms;    /* when a record last came, or a transaction ended */
    uint64_t assignments; /* how many rebalances there were */
    struct err fatal;     /* the consumer is beyond repair */
    char last_error[256]; /* what librdkafka last complained about */
    bool down;            /* no broker answers; said once */

    void (*assigned)(void *context, const char *topic, int32_t partition);
    void (*revoked)(void *context, const char *topic, int32_t partition);
    void *context;
};

struct kafka_client {
    rd_kafka_t *producer;
    rd_kafka_conf_t *reader_conf; /* template */
    char *brokers;
    char last_error[256]; /* what librdkafka last complained about */
};

/* --- kafka_config.c --- */
enum kafka_role { KAFKA_CONSUMER = 1, KAFKA_PRODUCER = 2, KAFKA_CLIENT = 4, KAFKA_REPLAYER = 8 };
/* The table's settings, then the user's, then what must not be changed. *out is owned.
   Error: ERR_INVALID_ARGUMENT naming the key. */
int kafka_conf_new(rd_kafka_conf_t **out, const struct config *config, enum kafka_role role,
                   struct err *err);
int kafka_conf_set(rd_kafka_conf_t *conf, const char *key, const char *value, struct err *err);
int kafka_handle_new(rd_kafka_t **out, rd_kafka_type_t type, rd_kafka_conf_t *conf,
                     struct err *err); /* takes conf */

/* --- kafka.c --- */
int64_t kafka_now_ms(void); /* monotonic */
/* Serves the consumers' rebalances and errors for up to timeout_ms. */
void kafka_serve(struct kafka *kafka, int timeout_ms);
struct partition *kafka_partition(const struct kafka *kafka, const char *topic, int32_t id);
void kafka_partition_pop(struct partition *partition); /* its oldest pending record is done */
/* A record out of a message, which it takes. */
struct kafka_record *kafka_record_new(rd_kafka_message_t *message, uint32_t epoch);
void kafka_error_note(rd_kafka_t *handle, int code, const char *reason, void *kafka);
void kafka_answered(struct kafka *kafka); /* the brokers did something for us */

/* --- kafka_replay.c --- */
/* kafka_replay() for who has no group: nobody's transaction is waited for but open ones below the
   end. `template` is a KAFKA_REPLAYER's. */
int kafka_read(const rd_kafka_conf_t *template, const char *topic, int32_t partition,
               int deadline_ms,
               int (*each)(void *context, const struct kafka_record *record, struct err *err),
               void *context, struct err *err);

/* --- kafka_client.c --- */
int kafka_client_fail(const struct kafka_client *client, struct err *err, enum err_code code,
                      const char *what, const char *why);

/* --- kafka_txn.c --- */
/* Makes sure that there is a producer whose predecessor's transactions are aborted. */
int kafka_producer_start(struct kafka *kafka, int64_t deadline, struct err *err);
void kafka_producer_stop(struct kafka *kafka);
int kafka_produce(rd_kafka_t *producer, const struct kafka_output *output, void *opaque,
                  rd_kafka_resp_err_t *code);

#endif
