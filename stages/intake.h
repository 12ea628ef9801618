/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a task says of pictures becomes what its item holds of them, at the image-encode hop that
 * stands before the decoder. Pure: the caller reads the bytes of an address.
 *
 *   item.inputs   whole pictures, sRGB: of variation and text-diff its picture; of interpolate,
 *                 embed and score the task's inputs in order, texts among them
 *   item.source   the middle square of the task's picture, brought to source.side by Lanczos-3
 *                 (of that size already: its very pixels); for edit, upscale, and where a later
 *                 stage begins with it
 *   item.mask     of an edit, cut and brought to size like the picture (by a triangle, which does
 *                 not overshoot)
 *
 * Transparency: a picture is laid on white, except one whose own transparency is the mask: what is
 * painted anew anyway is not looked at, and becomes grey where it is wholly transparent.
 *
 * The mask: by mask_mode `alpha` what is transparent in `mask`, or in the picture itself where
 * there is no `mask`, is painted; by `white` what is white in `mask`. Between, it is blended. A
 * mask of another size must have the picture's proportions, to a pixel. `feather` fades the edge
 * over so many pixels of the square into the painted part: what is kept stays untouched. A mask
 * that paints nothing is an error.
 */
#ifndef UNCLIP_STAGES_INTAKE_H
#define UNCLIP_STAGES_INTAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/image.h"
#include "common/job.h"
#include "stages/stage.h"

#define INTAKE_PIXELS_MAX IMAGE_PIXELS_MAX /* of all inputs of one task */

/* The bytes of a picture's file: *bytes is owned (free()). */
typedef int intake_read(void *context, const char *address, void **bytes, size_t *size,
                        struct err *err);

/* Whether the task is at the hop that takes its pictures in. */
bool intake_needed(const struct task *task);
/*
 * Fills an item after item_begin(). Errors: those of `read`; ERR_INVALID_IMAGE, ERR_TOO_LARGE,
 * ERR_OUT_OF_MEMORY; ERR_INVALID_JOB of the mask; ERR_INVALID_RECORD of a task that names no
 * picture. The item can be released in any case.
 */
int intake_fill(struct item *item, const struct task *task, intake_read *read, void *context,
                struct err *err);
/* Frees the inputs' pixels: they have been encoded. */
void intake_forget(struct item *item);

#endif
