/* SPDX-License-Identifier: Apache-2.0 */
/* An empty artifact store for a target that needs one, opened before its first input. */
#ifndef FUZZ_STORE_H
#define FUZZ_STORE_H

#include <stdlib.h>
#include <unistd.h>

#include "common/err.h"
#include "common/storage.h"
#include "tests/fuzz/fuzz.h"

static char folder[] = "/tmp/unclip-fuzz-XXXXXX";
static struct storage *store;

static void store_close(void)
{
    storage_close(store);
    rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct err err;
    (void)argc, (void)argv;
    BUG_ON(!mkdtemp(folder) || storage_open(&store, folder, &err) != 0);
    atexit(store_close);
    return 0;
}

#endif
