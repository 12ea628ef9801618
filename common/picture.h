/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A finished picture as the bytes of a file: the one piece of code behind workers and `unclip
 * generate`, so that both make the very same bytes of the same task and pixels.
 */
#ifndef UNCLIP_COMMON_PICTURE_H
#define UNCLIP_COMMON_PICTURE_H

#include <stddef.h>

#include "common/err.h"
#include "common/job.h"

#define PICTURE_TOOL "unclip " UNCLIP_VERSION /* XMP's CreatorTool */

/*
 * Encodes [size][size][3] f32 in [-1, 1] in the form that the task's output says, with its
 * parameters in it. image_setup() must have been called. *bytes is owned by the caller (free()).
 * Errors: image_encode()'s; ERR_INVALID_RECORD for a format that holds no picture.
 */
int picture_encode(const struct task *task, const float *pixels, int size, void **bytes,
                   size_t *byte_count, struct err *err);

#endif
