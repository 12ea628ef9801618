/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. For checking
 * what comes from outside; the tokenizer's Unicode work is elsewhere (stages/tokenizer.c).
 */
#ifndef UNCLIP_COMMON_UTF8_H
#define UNCLIP_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the character that `text` begins with, or 0 where it is not valid within `size`. */
size_t utf8_step(const char *text, size_t size);
bool utf8_valid(const char *text, size_t size);
/* A copy, NUL-terminated and owned by the caller, with U+FFFD for each byte that is not valid or
 * NUL. */
char *utf8_clean(const void *bytes, size_t size);

#endif
