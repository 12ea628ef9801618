/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of pictures: the first line is the setting of servers, the rest an address. Servers are
 * switched off, so that nothing is asked; what a data URL holds is the same when it is written
 * again.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/fetch.h"
#include "tests/fuzz/fuzz.h"

static void check_data(const char *address)
{
    void *bytes;
    size_t size, length;
    const char *extension;
    struct err err = {0};
    int rc = fetch_data(address, &bytes, &size, &extension, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    const char *text = strchr(address, ',') + 1;
    char *again = base64_encode(bytes, size, &length);
    BUG_ON(size == 0 || size > FETCH_BYTES_MAX || length != strlen(text));
    /* the last digit may have had bits that no byte takes */
    BUG_ON(length > 4 && memcmp(text, again, length - 4) != 0);
    free(again);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size}, line = take_line(&input);
    struct err err = {0};
    void *bytes;
    char *allowed = text_of_input(line), *address = text_of_input(input);
    int rc = fetch_check_allowed(allowed, &err);
    if (rc < 0)
        check_refusal(rc, &err);
    struct fetch fetch = {.storage = NULL, .allowed = "off"};
    rc = fetch_address(&fetch, address, &bytes, &size, &err);
    if (rc < 0)
        check_refusal(rc, &err);
    else
        free(bytes);
    if (fetch_is_data(address))
        check_data(address);
    else /* nothing but a data URL can be read here */
        BUG_ON(rc == 0);
    free(address);
    free(allowed);
    return 0;
}
