/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that talk to receivers: a delivery goes in and comes back with what came of it. A
 * delivery that is inside belongs to them. All functions are the Kafka thread's.
 */
#ifndef UNCLIP_WEBHOOKS_SENDER_H
#define UNCLIP_WEBHOOKS_SENDER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/clock.h"
#include "common/err.h"
#include "webhooks/sign.h"
#include "webhooks/window.h"

struct sender_options {
    const struct secrets *secrets; /* borrowed, like all here */
    const char *allowed;           /* the setting `fetch` */
    long timeout_ms;
    int threads;
    struct clock *clock;         /* its wall time goes into the signature */
    void (*wake)(void *context); /* called from any thread when one is back */
    void *context;
};

/* What came of one try. */
struct sent {
    struct delivery *delivery;
    int rc; /* http_send()'s, with err */
    struct err err;
    long status;           /* HTTP's; 0: none came */
    int64_t retry_after_s; /* 0: it does not say */
};

struct sender; /* opaque */
int sender_open(struct sender **out, const struct sender_options *options, struct err *err);
void sender_give(struct sender *sender, struct delivery *delivery);
/* Takes one that is back; false: none is. */
bool sender_take(struct sender *sender, struct sent *sent);
/* Waits for those that are being sent, then ends the threads; sender_take() gives what is back. */
void sender_stop(struct sender *sender);
void sender_free(struct sender *sender); /* after sender_stop(); NULL is fine */

#endif
