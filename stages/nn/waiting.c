/* SPDX-License-Identifier: Apache-2.0 */
/* nn_wait_passively(). GNU's OpenMP reads its environment before main(), so a change needs an exec. */
#include <stdlib.h>
#include <unistd.h>

#include "stages/nn/nn.h"

void nn_wait_passively(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    if (setenv("OMP_WAIT_POLICY", "passive", 0) == 0)
        execv("/proc/self/exe", argv);
}
