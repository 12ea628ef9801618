/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A task record: the first byte names the stage that it came to, then follow the header `task`, a
 * line, the header `ref`, a line (empty: none), and the tensors. Header and tensors are read apart,
 * so that a bad one does not hide the other. What is read is the same when it is written.
 */
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_store.h"
#include "workers/task_codec.h"

#define HOMES 8

static void check_header(const struct kafka_record *record, enum stage stage)
{
    struct task task, again;
    struct err err = {0};
    char *uri = NULL;
    int rc = task_decode(&task, record, stage, HOMES, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    BUG_ON(task_hop(&task)->stage != stage || task.home < 0 || task.home >= HOMES);
    BUG_ON(task.image < 0 || task.image >= task.images);
    if ((rc = task_decode_ref(&task, record, store, &uri, &err)) < 0)
        check_refusal(rc, &err);
    else
        free(uri);
    char *text = task_to_json(&task);
    BUG_ON(task_parse(&again, text, strlen(text), &err) != 0 || !task_compatible(&task, &again));
    task_release(&again);
    task_release(&task);
    free(text);
}

static void check_tensors(struct input input, unsigned groups)
{
    struct item item, again;
    struct err err = {0};
    void *bytes;
    size_t size;
    item_init(&item, "", "", 0);
    int rc = tensors_decode(&item, groups, input.data, input.size, &err);
    if (rc < 0)
        check_refusal(rc, &err);
    if (rc == 0 && groups) {
        void *second;
        size_t second_size;
        item_init(&again, "", "", 0);
        BUG_ON(tensors_encode(&item, groups, &bytes, &size, &err) != 0);
        BUG_ON(tensors_decode(&again, groups, bytes, size, &err) != 0);
        BUG_ON(tensors_encode(&again, groups, &second, &second_size, &err) != 0);
        BUG_ON(size != second_size || memcmp(bytes, second, size) != 0);
        item_release(&again);
        free(second);
        free(bytes);
    }
    item_release(&item);
}

/* What the record's task has with it; of one that is no task, what a text-to-image's has. */
static unsigned groups_of(const struct kafka_record *record, enum stage stage)
{
    struct task task;
    struct err err;
    if (task_decode(&task, record, stage, HOMES, &err) != 0)
        return stage == STAGE_TEXT_ENCODE ? 0
               : stage == STAGE_PRIOR     ? TENSORS_RNG | TENSORS_TEXT
               : stage == STAGE_DECODER   ? TENSORS_RNG | TENSORS_TEXT | TENSORS_IMAGE_EMBED
                                          : TENSORS_RNG | TENSORS_IMAGE;
    unsigned groups = tensors_needed(&task, task.hop);
    task_release(&task);
    return groups;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    enum stage stage = (enum stage)(take_byte(&input) % STAGE_COUNT);
    struct input task = take_line(&input), ref = take_line(&input);
    const struct kafka_header headers[] = {{TASK_HEADER, task.data, task.size},
                                           {TASK_REF_HEADER, ref.data, ref.size}};
    struct kafka_record record = {.topic = topic_tasks(stage, CLASS_INTERACTIVE),
                                  .headers = headers,
                                  .header_count = ref.size ? 2 : 1};
    check_header(&record, stage);
    check_tensors(input, groups_of(&record, stage));
    return 0;
}
