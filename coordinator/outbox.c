/* SPDX-License-Identifier: Apache-2.0 */
/* A growing array of owned outputs. */
#include "coordinator/outbox.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/memory.h"

/* The outputs' pointers are const for Kafka; the memory is ours. */
static void *owned(const void *memory)
{
    return (void *)(uintptr_t)memory;
}

void outbox_add_header(struct outbox *outbox, const char *name, char *value)
{
    struct kafka_output *output = &outbox->outputs[outbox->count - 1];
    struct kafka_header *headers = owned(output->headers);
    if (!headers)
        headers = xcalloc(OUTBOX_HEADERS_MAX, sizeof *headers);
    BUG_ON(output->header_count == OUTBOX_HEADERS_MAX);
    headers[output->header_count++] =
        (struct kafka_header){.name = name, .value = value, .size = strlen(value)};
    output->headers = headers;
}

void outbox_add(struct outbox *outbox, const char *topic, int partition, const void *key,
                size_t key_size, void *value, size_t value_size, const char *header_name,
                char *header_value)
{
    if (outbox->count == outbox->capacity) {
        outbox->capacity = outbox->capacity ? 2 * outbox->capacity : 4;
        outbox->outputs = xrealloc(outbox->outputs, outbox->capacity * sizeof *outbox->outputs);
    }
    outbox->outputs[outbox->count++] = (struct kafka_output){
        .topic = topic,
        .partition = partition,
        .key = key ? memcpy(xmalloc(key_size + 1), key, key_size) : NULL,
        .key_size = key ? key_size : 0,
        .value = value,
        .value_size = value_size,
    };
    if (header_name)
        outbox_add_header(outbox, header_name, header_value);
}

size_t outbox_bytes(const struct outbox *outbox)
{
    size_t bytes = 0;
    for (size_t i = 0; i < outbox->count; i++)
        bytes += outbox->outputs[i].value_size;
    return bytes;
}

void outbox_release(struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->count; i++) {
        struct kafka_output *output = &outbox->outputs[i];
        free(owned(output->key));
        free(owned(output->value));
        for (size_t h = 0; h < output->header_count; h++)
            free(owned(output->headers[h].value));
        free(owned(output->headers));
    }
    free(outbox->outputs);
    *outbox = (struct outbox){0};
}
