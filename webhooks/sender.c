/* SPDX-License-Identifier: Apache-2.0 */
/* Sending on threads; see sender.h. Two rings, guarded by one mutex: what is to go, what is back.
 */
#include "webhooks/sender.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/fetch.h"
#include "common/http.h"
#include "common/memory.h"

#define ANSWER_MAX (16u << 10) /* bytes of a receiver's answer, which nobody reads */

struct node {
    struct sent sent;
    struct node *next;
};

struct ring {
    struct node *head, **tail;
};

struct sender {
    struct sender_options options;
    pthread_t *threads;
    int count;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    struct ring waiting, back; /* guarded by mutex, as is the next */
    bool stopping;
};

static void ring_init(struct ring *ring)
{
    *ring = (struct ring){.tail = &ring->head};
}

static void ring_put(struct ring *ring, struct node *node)
{
    node->next = NULL;
    *ring->tail = node;
    ring->tail = &node->next;
}

static struct node *ring_get(struct ring *ring)
{
    struct node *node = ring->head;
    if (node && !(ring->head = node->next))
        ring->tail = &ring->head;
    return node;
}

/* One POST, as the Standard Webhooks specification has it. */
static void post(const struct sender_options *options, struct sent *sent, const char *allow)
{
    const struct delivery *delivery = sent->delivery;
    const struct kafka_record *record = delivery->record;
    struct http_answer answer;
    char id[WEBHOOK_ID_SIZE];
    int64_t now_s = clock_wall_ms(options->clock) / 1000;
    webhook_id(delivery->job, id);
    char *signature = webhook_sign(options->secrets, id, now_s, record->value, record->value_size);
    char *lines[] = {xasprintf("webhook-id: %s", id),
                     xasprintf("webhook-timestamp: %lld", (long long)now_s),
                     xasprintf("webhook-signature: %s", signature)};
    const struct http_request request = {
        .method = "POST",
        .url = delivery->url,
        .headers = {"content-type: application/json", lines[0], lines[1], lines[2]},
        .body = record->value,
        .body_size = record->value_size,
        .answer_max = ANSWER_MAX,
        .timeout_ms = options->timeout_ms,
        .guarded = true,
        .allow = allow,
    };
    sent->rc = http_send(&request, &answer, &sent->err);
    sent->status = answer.status;
    sent->retry_after_s = answer.retry_after_s > 0 ? answer.retry_after_s : 0;
    http_answer_release(&answer);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        free(lines[i]);
    free(signature);
}

static void send_one(const struct sender_options *options, struct sent *sent)
{
    char *allow;
    sent->rc = fetch_permit(options->allowed, sent->delivery->url, &allow, &sent->err);
    if (!sent->rc)
        post(options, sent, allow);
    free(allow);
}

static void *serve(void *context)
{
    struct sender *sender = context;
    pthread_mutex_lock(&sender->mutex);
    for (;;) {
        struct node *node = ring_get(&sender->waiting);
        if (!node && sender->stopping)
            break;
        if (!node) {
            pthread_cond_wait(&sender->changed, &sender->mutex);
            continue;
        }
        pthread_mutex_unlock(&sender->mutex);
        send_one(&sender->options, &node->sent);
        pthread_mutex_lock(&sender->mutex);
        ring_put(&sender->back, node);
        sender->options.wake(sender->options.context);
    }
    pthread_mutex_unlock(&sender->mutex);
    return NULL;
}

int sender_open(struct sender **out, const struct sender_options *options, struct err *err)
{
    struct sender *sender = xcalloc(1, sizeof *sender);
    sender->options = *options;
    sender->threads = xcalloc((size_t)options->threads, sizeof *sender->threads);
    ring_init(&sender->waiting);
    ring_init(&sender->back);
    pthread_mutex_init(&sender->mutex, NULL);
    pthread_cond_init(&sender->changed, NULL);
    for (; sender->count < options->threads; sender->count++) {
        int rc = pthread_create(&sender->threads[sender->count], NULL, serve, sender);
        if (!rc)
            continue;
        sender_stop(sender);
        sender_free(sender);
        return err_set(err, ERR_INTERNAL, "cannot start a thread: %s", strerror(rc));
    }
    *out = sender;
    return 0;
}

void sender_give(struct sender *sender, struct delivery *delivery)
{
    struct node *node = xcalloc(1, sizeof *node);
    node->sent.delivery = delivery;
    pthread_mutex_lock(&sender->mutex);
    ring_put(&sender->waiting, node);
    pthread_cond_signal(&sender->changed);
    pthread_mutex_unlock(&sender->mutex);
}

bool sender_take(struct sender *sender, struct sent *sent)
{
    pthread_mutex_lock(&sender->mutex);
    struct node *node = ring_get(&sender->back);
    pthread_mutex_unlock(&sender->mutex);
    if (node)
        *sent = node->sent;
    free(node);
    return node;
}

void sender_stop(struct sender *sender)
{
    pthread_mutex_lock(&sender->mutex);
    sender->stopping = true;
    pthread_cond_broadcast(&sender->changed);
    pthread_mutex_unlock(&sender->mutex);
    for (; sender->count > 0; sender->count--)
        pthread_join(sender->threads[sender->count - 1], NULL);
}

void sender_free(struct sender *sender)
{
    if (!sender)
        return;
    pthread_mutex_destroy(&sender->mutex);
    pthread_cond_destroy(&sender->changed);
    free(sender->threads);
    free(sender);
}
