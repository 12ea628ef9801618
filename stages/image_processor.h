/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transformers' CLIPImageProcessor (models/clip/image_processing_clip.py): a picture's shortest edge
 * is resized to CLIP's size by Pillow's bicubic filter, the middle cut out, and the values
 * normalised. Pillow's arithmetic (libImaging/Resample.c: 8-bit pixels, fixed-point weights,
 * rounding between the passes) is followed bit by bit.
 */
#ifndef UNCLIP_STAGES_IMAGE_PROCESSOR_H
#define UNCLIP_STAGES_IMAGE_PROCESSOR_H

#include <stdint.h>

#include "common/err.h"

#define IMAGE_PROCESSOR_SIDE_MAX 8192 /* pixels of a picture that is taken */

struct image_processor {
    int edge; /* the shortest edge after the resize */
    int crop; /* pixels a side of what is cut out; at most `edge` */
    double rescale;
    float mean[3], std[3];
};

/* Reads folder/preprocessor_config.json. Errors: ERR_IO, ERR_INVALID_MODEL; ERR_UNSUPPORTED for
   another resampling filter or steps that are switched off. */
int image_processor_load(struct image_processor *processor, const char *folder, struct err *err);

/*
 * rgb [height][width][3] → out [crop][crop][3] (caller's), normalised. Error: ERR_OUT_OF_MEMORY;
 * ERR_INVALID_IMAGE when a side is too long after the resize.
 */
int image_processor_run(const struct image_processor *processor, const uint8_t *rgb, int width,
                        int height, float *out, struct err *err);

#endif
