/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzzers share: taking an input apart, and what every refusal must say. An input that is
 * more than one thing is lines first, so that a person can read and write its seeds.
 */
#ifndef UNCLIP_TESTS_FUZZ_H
#define UNCLIP_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

struct input {
    const uint8_t *data;
    size_t size;
};

/* The first byte, taken off; 0 when there is none. */
static inline uint8_t take_byte(struct input *input)
{
    if (input->size == 0)
        return 0;
    input->size--;
    return *input->data++;
}

/* A line without its end, taken off; the last one may have no end. */
static inline struct input take_line(struct input *input)
{
    const uint8_t *end = input->size ? memchr(input->data, '\n', input->size) : NULL;
    size_t length = end ? (size_t)(end - input->data) : input->size;
    struct input line = {input->data, length};
    size_t used = length + (end != NULL);
    if (used) {
        input->data += used;
        input->size -= used;
    }
    return line;
}

/* A copy with a NUL behind it, owned. */
static inline char *text_of_input(struct input input)
{
    char *text = xmalloc(input.size + 1);
    if (input.size)
        memcpy(text, input.data, input.size);
    text[input.size] = 0;
    return text;
}

/* A call that returned `rc` and failed gave its code and a reason. */
static inline void check_refusal(int rc, const struct err *err)
{
    BUG_ON(rc >= 0 || rc <= -ERR_CODE_COUNT);
    BUG_ON((int)err->code != -rc || !err->text[0]);
}

#endif
