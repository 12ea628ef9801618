/* SPDX-License-Identifier: Apache-2.0 */
/* nn_wait_passively(). GNU's OpenMP reads its environment before main(), so a change needs an exec.
 */
#include <stdlib.h>
#include <unistd.h>

#include "stages/nn/nn.h"

/*
 * Looks at a barrier before a thread sleeps: some 5 µs, what waking it would take. Small networks
 * are a sixth faster so on cores of their own, and 4 % slower where three processes share two
 * cores.
 */
#define LOOKS "500"

void nn_wait_passively(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    if (setenv("GOMP_SPINCOUNT", LOOKS, 0) == 0 && setenv("OMP_WAIT_POLICY", "passive", 0) == 0)
        execv("/proc/self/exe", argv);
}
