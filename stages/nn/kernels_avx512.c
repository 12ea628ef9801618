/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for CPUs with avx512 (kernels.h). */
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")
#define KERNELS      kernels_avx512
#define KERNELS_NAME "avx512"
#include "stages/nn/kernels.inc"
#else
typedef int kernels_avx512_not_here;
#endif
