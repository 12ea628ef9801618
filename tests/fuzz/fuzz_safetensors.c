/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a safetensors record. What parses must have every tensor inside the bytes, be found
 * by its names, and come out of safetensors_encode() as a record that parses again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "common/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_entry(const struct safetensors *file, const struct safetensors_entry *entry,
                        const uint8_t *data, size_t size)
{
    const uint8_t *values = entry->data;
    size_t count = 1;
    BUG_ON(entry->rank < 0 || entry->rank > SAFETENSORS_RANK_MAX);
    for (int i = 0; i < entry->rank; i++)
        count *= (size_t)entry->dim[i];
    BUG_ON(count * dtype_size(entry->dtype) != entry->bytes);
    BUG_ON(entry->bytes > 0 && (values < data || values + entry->bytes > data + size));
    BUG_ON(safetensors_find(file, entry->name) != entry);
}

static void encode_again(const struct safetensors *file)
{
    size_t count = safetensors_count(file), size;
    struct safetensors_entry *entries = xcalloc(count + 1, sizeof *entries);
    struct safetensors *copy;
    struct err err;
    void *bytes;
    for (size_t i = 0; i < count; i++)
        entries[i] = *safetensors_at(file, i);
    BUG_ON(safetensors_encode(entries, count, NULL, 0, &bytes, &size, &err) != 0);
    BUG_ON(safetensors_parse(&copy, bytes, size, &err) != 0);
    BUG_ON(safetensors_count(copy) != count);
    safetensors_free(copy);
    free(bytes);
    free(entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct safetensors *file;
    struct err err;
    if (safetensors_parse(&file, data, size, &err) != 0)
        return 0;
    for (size_t i = 0; i < safetensors_count(file); i++)
        check_entry(file, safetensors_at(file, i), data, size);
    encode_again(file);
    safetensors_free(file);
    return 0;
}
