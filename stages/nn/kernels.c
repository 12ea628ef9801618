/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses the kernels for this CPU (kernels.h). */
#include "stages/nn/kernels.h"

const struct kernels *kernels(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return __builtin_cpu_supports("avx512bf16") ? &kernels_avx512bf16 : &kernels_avx512;
    if (__builtin_cpu_supports("avx2"))
        return &kernels_avx2;
#endif
    return &kernels_generic;
}
