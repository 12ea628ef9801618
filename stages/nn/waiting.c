/* SPDX-License-Identifier: Apache-2.0 */
/* nn_wait_passively(): GNU's OpenMP reads its environment before main(), so it takes an exec. */
#include <stdlib.h>
#include <unistd.h>

#include "stages/nn/nn.h"

/*
 * Looks at a barrier before a thread sleeps. Alone: some 50 µs, which small networks' ops take;
 * they are a tenth faster than with the other. Among others: 5 µs, what waking it would take; small
 * networks are a sixth faster so on cores of their own than without a look, and 4 % slower where
 * three processes share two cores.
 */
static const char *const looks[] = {[NN_ALONE] = "5000", [NN_AMONG_OTHERS] = "500"};

void nn_wait_passively(char **argv, enum nn_company company)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    if (setenv("GOMP_SPINCOUNT", looks[company], 0) == 0 &&
        setenv("OMP_WAIT_POLICY", "passive", 0) == 0)
        execv("/proc/self/exe", argv);
}
