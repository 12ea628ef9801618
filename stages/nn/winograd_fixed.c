/* SPDX-License-Identifier: Apache-2.0 */
/* Winograd's kernels in fixed-point numbers, for bf16 (winograd_kernels.h). */
#include "stages/nn/winograd_kernels.h"

#if defined(__AVX512VNNI__)
#define FIXED 1
#include "stages/nn/winograd.inc"

const struct winograd_kernels *winograd_kernels_fixed(void)
{
    return &kernels;
}
#else
const struct winograd_kernels *winograd_kernels_fixed(void)
{
    return NULL;
}
#endif
