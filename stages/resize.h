/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torch's F.interpolate(mode="bicubic", antialias=True, align_corners=False) on f32 pictures, as
 * the pipeline uses it between decoder and upsampler. Source: ATen native/cpu/UpSampleKernel.cpp
 * (separable, horizontal first, a = -0.5).
 */
#ifndef UNCLIP_STAGES_RESIZE_H
#define UNCLIP_STAGES_RESIZE_H

#include "common/err.h"

/* src [ih][iw][c] → dst [oh][ow][c] (caller's). Error: ERR_OUT_OF_MEMORY. */
int resize_bicubic(const float *src, int ih, int iw, int c, float *dst, int oh, int ow,
                   struct err *err);

#endif
