/* SPDX-License-Identifier: Apache-2.0 */
/* A growing array of owned outputs. */
#include "coordinator/outbox.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

static const struct kafka_header *header_new(const char *name, char *value)
{
    struct kafka_header *header = xmalloc(sizeof *header);
    *header = (struct kafka_header){.name = name, .value = value, .size = strlen(value)};
    return header;
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
        .headers = header_name ? header_new(header_name, header_value) : NULL,
        .header_count = header_name ? 1 : 0,
    };
}

size_t outbox_bytes(const struct outbox *outbox)
{
    size_t bytes = 0;
    for (size_t i = 0; i < outbox->count; i++)
        bytes += outbox->outputs[i].value_size;
    return bytes;
}

/* The outputs' pointers are const for Kafka; the memory is ours. */
static void owned_free(const void *memory)
{
    free((void *)(uintptr_t)memory);
}

void outbox_release(struct outbox *outbox)
{
    for (size_t i = 0; i < outbox->count; i++) {
        struct kafka_output *output = &outbox->outputs[i];
        owned_free(output->key);
        owned_free(output->value);
        if (output->headers)
            owned_free(output->headers->value);
        owned_free(output->headers);
    }
    free(outbox->outputs);
    *outbox = (struct outbox){0};
}
