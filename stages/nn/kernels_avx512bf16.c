/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for CPUs with avx512 and its bf16 instructions (kernels.h). */
#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,prefer-vector-width=512")
#define KERNELS      kernels_avx512bf16
#define KERNELS_NAME "avx512bf16"
#include "stages/nn/kernels.inc"
#else
typedef int kernels_avx512bf16_not_here;
#endif
