/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Task records ⇄ tasks and items, as docs/protocol.md, "Tasks", has them. Every byte that is read
 * may be hostile: shapes, sizes and the finiteness of each number are checked.
 */
#ifndef UNCLIP_WORKERS_TASK_CODEC_H
#define UNCLIP_WORKERS_TASK_CODEC_H

#include <stddef.h>

#include "common/err.h"
#include "common/job.h"
#include "common/kafka.h"
#include "common/storage.h"
#include "stages/stage.h"

#define TASK_BYTES_MAX (64u << 20) /* of the tensors of one task */
#define TASK_DIM_MAX   16384       /* of D, L and W */
#define TASK_SIDE_MAX  2048        /* of S */

/* Groups of tensors. */
enum tensors {
    TENSORS_RNG = 1,
    TENSORS_TEXT = 2, /* text_embed, text_states, text_mask */
    TENSORS_IMAGE_EMBED = 4,
    TENSORS_IMAGE = 8,
    TENSORS_TEXTS_EMBEDS = 16,
    TENSORS_INVERT_EMBED = 32,
    TENSORS_SOURCE = 64,
    TENSORS_MASK = 128,
    TENSORS_ALL = 255
};
/* What the task's record has for the stage at `hop` of its route. */
unsigned tensors_needed(const struct task *task, int hop);
/* The groups that the item has. */
unsigned tensors_present(const struct item *item);

/*
 * Reads the header `task`. The task must be at `stage`, and its home below `homes` (the partitions
 * of unclip.events). Error: ERR_INVALID_RECORD.
 */
int task_decode(struct task *task, const struct kafka_record *record, enum stage stage, int homes,
                struct err *err);
/* What the task at `hop` of its route is called where it is known by one name: JOB/IMAGE.STAGE, and
   JOB/IMAGE.STAGE.HOP where the stage stands a second time in the route. Owned. */
char *task_hop_name(const struct task *task, int hop);
/* The name in the artifact store of what the task takes to `hop` by reference. Owned. */
char *task_tensors_name(const struct task *task, int hop);
/*
 * Reads the header `ref` of a task that is at its stage. *uri (owned) is NULL when there is no such
 * header. Error: ERR_INVALID_RECORD when it is anything but the URI of this very task's tensors.
 */
int task_decode_ref(const struct task *task, const struct kafka_record *record,
                    const struct storage *storage, char **uri, struct err *err);
/* Reads exactly the tensors of `groups` into an item after item_begin() or item_init(). Error:
   ERR_INVALID_RECORD; the item can be released in any case. */
int tensors_decode(struct item *item, unsigned groups, const void *bytes, size_t size,
                   struct err *err);
/*
 * Writes the tensors of `groups`. *bytes is owned (free()). Errors: ERR_OUT_OF_MEMORY;
 * ERR_INVALID_RECORD when the item has no such tensor: its route skipped the stage that makes it.
 */
int tensors_encode(const struct item *item, unsigned groups, void **bytes, size_t *size,
                   struct err *err);

#endif
