/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels for any CPU (kernels.h). */
#define KERNELS      kernels_generic
#define KERNELS_NAME "generic"
#include "stages/nn/kernels.inc"
