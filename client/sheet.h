/* SPDX-License-Identifier: Apache-2.0 */
/* All pictures of a job in one file: a contact sheet, an animation. */
#ifndef UNCLIP_CLIENT_SHEET_H
#define UNCLIP_CLIENT_SHEET_H

#include <stddef.h>
#include <stdint.h>

#include "client/options.h"
#include "common/image.h"
#include "common/job.h"

#define SHEET_FRAME_MS 150

/* What is wanted; both may be NULL. */
struct sheet_wish {
    const char *grid;      /* file, whose name tells the format */
    const char *animation; /* .webp */
    int64_t columns;       /* 0: about a square */
    int64_t frame_ms;      /* 0: SHEET_FRAME_MS */
};

/* Zero-initialise. */
struct sheet {
    struct image pictures[JOB_IMAGES_MAX]; /* owned */
    int count;
};

/* Whether the names can be written to: ERR_INVALID_ARGUMENT. */
int sheet_check(const struct sheet_wish *wish, struct err *err);
/* Adds an encoded picture, or one of floats [size][size][3] in [-1, 1]. image_decode()'s errors. */
int sheet_add_file(struct sheet *sheet, const void *bytes, size_t size, struct err *err);
int sheet_add_floats(struct sheet *sheet, const float *pixels, int size, struct err *err);
/* Says each file's name on stderr. Without pictures it writes nothing. image.h's errors, ERR_IO. */
int sheet_write(const struct sheet *sheet, const struct sheet_wish *wish, struct err *err);
void sheet_release(struct sheet *sheet);

#endif
