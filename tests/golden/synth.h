/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Model directories made from manifests: the weights of the test models are not committed but
 * follow from the names of their tensors, here and in the Python twin synth.py, equal to the bit.
 *
 * A manifest directory has the layout of a model directory, with a `weights.manifest` in the place
 * of each weights file. Its first line is `file NAME`; every other line is
 *
 *     dtype name shape scale offset        such as   f32 conv_in.weight 32x3x3x3 0.6667 0
 *
 * Value i (in C order) of tensor `name` of the component in folder `prior` is
 *
 *     u(i)  = (splitmix64_mix(fnv1a64("prior/name") + i * 0x9E3779B97F4A7C15) >> 40) * 2^-24 - 0.5
 *     value = (float)(u(i) * (double)scale + (double)offset)          scale and offset as float
 *
 * rounded to nearest even where the dtype is f16 or bf16. A tensor of dtype i64 counts instead:
 * value i is i * scale + offset. Every other file is copied.
 *
 * Standalone C11 and POSIX, so that any test can compile it in. Results are independent of floating
 * point contraction (a product of two floats is exact in double).
 */
#ifndef GOLDEN_SYNTH_H
#define GOLDEN_SYNTH_H

#include <stddef.h>

/* Value first..first+count-1 of the stream `name`; borrows both pointers for the call. */
void synth_fill(const char *name, size_t first, size_t count, float scale, float offset,
                float *values);

/*
 * Writes the model that `manifest_dir` describes to `out_dir`, which is made if missing; files
 * there are overwritten. Returns 0, or -1 with a message in `errtext` (at most n bytes with its 0).
 */
int synth_model(const char *manifest_dir, const char *out_dir, char *errtext, size_t n);

/* The same with all float tensors stored as `dtype` ("f32", "f16", "bf16"; NULL as the manifest
 * says). */
int synth_model_as(const char *manifest_dir, const char *out_dir, const char *dtype, char *errtext,
                   size_t n);

#endif
