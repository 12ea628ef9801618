/* SPDX-License-Identifier: Apache-2.0 */
/* Winograd's kernels in f32 (winograd_kernels.h). */
#include "stages/nn/winograd_kernels.h"

#if defined(__AVX512F__)
#define FIXED 0
#include "stages/nn/winograd.inc"

const struct winograd_kernels *winograd_kernels_f32(void)
{
    return &kernels;
}
#else
const struct winograd_kernels *winograd_kernels_f32(void)
{
    return NULL;
}
#endif
