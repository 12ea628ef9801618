/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kafka as the bench sees it: bare librdkafka, so that the floor is the library's own and the clock
 * stands outside the product. Errors end the program: a bench without its broker has no result.
 */
#ifndef UNCLIP_BENCH_QUEUE_BUS_H
#define UNCLIP_BENCH_QUEUE_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

double bus_now_ms(void); /* monotonic */

struct bus_producer; /* opaque: idempotent, acks=all */
struct bus_producer *bus_producer_open(const char *brokers, int linger_ms);
void bus_producer_close(struct bus_producer *producer);
/* Copies all. `header` may be NULL: then the record has none; else it is the value of `task`. Waits
   while the queue is full. */
void bus_send(struct bus_producer *producer, const char *topic, const char *key, const void *value,
              size_t size, const char *header);
/* Waits until the broker has acknowledged all. */
void bus_flush(struct bus_producer *producer);

#define BUS_KEY_SIZE 160
struct bus_record {
    char key[BUS_KEY_SIZE]; /* "" for none */
    int partition;
    int64_t offset;
    bool empty; /* a tombstone */
};

/* What comes into a topic from now on, all partitions, read_committed. */
struct bus_tail; /* opaque */
struct bus_tail *bus_tail_open(const char *brokers, const char *topic);
void bus_tail_close(struct bus_tail *tail);
bool bus_tail_next(struct bus_tail *tail, int timeout_ms, struct bus_record *record);
/* From here on only records that are not in the log yet are given. */
void bus_tail_skip(struct bus_tail *tail);

#endif
