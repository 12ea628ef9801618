/* SPDX-License-Identifier: Apache-2.0 */
/* The result of an embed job as the bytes of a file: workers and `unclip embed` make the same. */
#ifndef UNCLIP_COMMON_EMBEDDING_H
#define UNCLIP_COMMON_EMBEDDING_H

#include <stddef.h>

#include "common/err.h"
#include "common/job.h"

/*
 * embed [dim] f32 as the task's output says: safetensors with the one tensor `embedding` [dim] and
 * the metadata `model`, or .npy (format version 1.0, <f4, one axis). *bytes is owned (free()).
 * Errors: ERR_INVALID_RECORD for a format of pictures, ERR_COMPUTE where a value is not finite,
 * ERR_OUT_OF_MEMORY.
 */
int embedding_encode(const struct task *task, const float *embed, int dim, void **bytes,
                     size_t *size, struct err *err);

#endif
