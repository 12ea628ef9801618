/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets bookkeeping: one list for each partition; see window.h. */
#include "webhooks/window.h"

#include <stdlib.h>

#include "common/memory.h"

struct line {
    int32_t partition;
    struct delivery *head, *tail;
};

struct window {
    struct line *lines;
    size_t line_count;
    size_t count, bytes;
};

void delivery_free(struct delivery *delivery)
{
    if (!delivery)
        return;
    kafka_record_free(delivery->record);
    free(delivery->url);
    free(delivery->host);
    free(delivery->job);
    free(delivery->why);
    free(delivery);
}

struct window *window_new(void)
{
    return xcalloc(1, sizeof(struct window));
}

static struct line *line_of(struct window *window, int32_t partition)
{
    for (size_t i = 0; i < window->line_count; i++)
        if (window->lines[i].partition == partition)
            return &window->lines[i];
    size_t count = ++window->line_count;
    window->lines = xrealloc(window->lines, count * sizeof *window->lines);
    window->lines[count - 1] = (struct line){.partition = partition};
    return &window->lines[count - 1];
}

void window_add(struct window *window, struct delivery *delivery)
{
    struct line *line = line_of(window, delivery->record->partition);
    delivery->next = NULL;
    if (line->tail)
        line->tail->next = delivery;
    else
        line->head = delivery;
    line->tail = delivery;
    window->count++;
    window->bytes += delivery->record->value_size;
}

bool window_full(const struct window *window)
{
    return window->count >= WINDOW_RECORDS_MAX || window->bytes >= WINDOW_BYTES_MAX;
}

size_t window_count(const struct window *window)
{
    return window->count;
}

void window_each(struct window *window, bool (*each)(void *context, struct delivery *delivery),
                 void *context)
{
    for (size_t i = 0; i < window->line_count; i++)
        for (struct delivery *at = window->lines[i].head; at; at = at->next)
            if (!each(context, at))
                return;
}

/* Takes the one at *link, whose predecessor is `before`, out of the line. */
static struct delivery *unlink_one(struct window *window, struct line *line, struct delivery **link,
                                   struct delivery *before)
{
    struct delivery *taken = *link;
    *link = taken->next;
    if (line->tail == taken)
        line->tail = before;
    window->count--;
    window->bytes -= taken->record->value_size;
    taken->next = NULL;
    return taken;
}

size_t window_settled(struct window *window, struct delivery **out, size_t max)
{
    size_t count = 0;
    for (size_t i = 0; i < window->line_count; i++) {
        struct line *line = &window->lines[i];
        while (count < max && line->head && line->head->state == DELIVERY_SETTLED)
            out[count++] = unlink_one(window, line, &line->head, NULL);
    }
    return count;
}

bool window_has_settled(const struct window *window)
{
    for (size_t i = 0; i < window->line_count; i++)
        if (window->lines[i].head && window->lines[i].head->state == DELIVERY_SETTLED)
            return true;
    return false;
}

struct delivery *window_blocking(struct window *window)
{
    for (size_t i = 0; i < window->line_count; i++) {
        struct delivery *head = window->lines[i].head;
        if (head && head->state == DELIVERY_WAITING && head->tries > 0)
            return head;
    }
    return NULL;
}

static void let_go(struct delivery *delivery)
{
    if (delivery->state == DELIVERY_SENDING)
        delivery->orphan = true;
    else
        delivery_free(delivery);
}

void window_drop(struct window *window,
                 bool (*keep)(void *context, const struct kafka_record *record), void *context)
{
    for (size_t i = 0; i < window->line_count; i++) {
        struct line *line = &window->lines[i];
        struct delivery **link = &line->head, *before = NULL;
        while (*link) {
            if (keep && keep(context, (*link)->record)) {
                before = *link;
                link = &before->next;
            } else {
                let_go(unlink_one(window, line, link, before));
            }
        }
    }
}

void window_free(struct window *window)
{
    if (!window)
        return;
    window_drop(window, NULL, NULL);
    free(window->lines);
    free(window);
}
