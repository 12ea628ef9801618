/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for CPUs with avx2 (kernels.h). */
#if defined(__x86_64__)
#pragma GCC target("avx2")
#define KERNELS      kernels_avx2
#define KERNELS_NAME "avx2"
#include "stages/nn/kernels.inc"
#else
typedef int kernels_avx2_not_here;
#endif
