/* SPDX-License-Identifier: Apache-2.0 */
/* Parcels: making, reading and freeing; see parcel.h. */
#include "workers/parcel.h"

#include <stdlib.h>

#include "common/memory.h"

struct parcel *parcel_new(struct kafka_record *record, enum stage stage, int homes)
{
    struct parcel *parcel = xcalloc(1, sizeof(*parcel));
    struct err err = {0};
    parcel->record = record;
    parcel->has_task = !task_decode(&parcel->task, record, stage, homes, &err);
    if (parcel->has_task)
        item_begin(&parcel->item, &parcel->task);
    else
        parcel_fail(parcel, &err);
    return parcel;
}

void parcel_free(struct parcel *parcel)
{
    if (!parcel)
        return;
    for (size_t i = 0; i < parcel->memory_count; i++)
        free(parcel->memory[i]);
    if (parcel->has_task) {
        item_release(&parcel->item);
        task_release(&parcel->task);
    }
    free(parcel->input_ref);
    kafka_record_free(parcel->record);
    free(parcel);
}

int parcel_read(struct parcel *parcel, struct storage *storage, struct err *err)
{
    const struct kafka_record *record = parcel->record;
    unsigned needed = tensors_needed(&parcel->task, parcel->task.hop);
    char *uri;
    void *bytes;
    size_t size;
    int rc = task_decode_ref(&parcel->task, record, storage, &uri, err);
    if (rc)
        return rc;
    if (!uri)
        return tensors_decode(&parcel->item, needed, record->value, record->value_size, err);
    rc = storage_read(storage, uri, TASK_BYTES_MAX, &bytes, &size, err);
    if (rc) {
        free(uri);
        return rc;
    }
    parcel->input_ref = uri;
    rc = tensors_decode(&parcel->item, needed, bytes, size, err);
    free(bytes);
    return rc;
}

void parcel_clear(struct parcel *parcel, struct sweeper *sweeper)
{
    if (!parcel->input_ref || parcel->outcome == OUTCOME_RETRY)
        return;
    sweeper_add(sweeper, parcel->input_ref);
    parcel->input_ref = NULL;
}

size_t parcels_within(struct parcel *const *parcels, size_t count, size_t bytes)
{
    size_t sum = 0, i = 0;
    for (; i < count; i++) {
        for (size_t k = 0; k < parcels[i]->output_count; k++)
            sum += parcels[i]->outputs[k].value_size;
        if (i > 0 && sum > bytes)
            break;
    }
    return i;
}

void *parcel_keep(struct parcel *parcel, void *memory)
{
    BUG_ON(parcel->memory_count == PARCEL_MEMORY_MAX);
    parcel->memory[parcel->memory_count++] = memory;
    return memory;
}

void parcel_fail(struct parcel *parcel, const struct err *err)
{
    parcel->outcome = OUTCOME_FAILED;
    parcel->err = *err;
}
