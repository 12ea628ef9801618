/* SPDX-License-Identifier: Apache-2.0 */
/* Base 64 (RFC 4648, section 4), padded, without spaces or line ends. */
#ifndef UNCLIP_COMMON_BASE64_H
#define UNCLIP_COMMON_BASE64_H

#include <stddef.h>

/* Owned, NUL-terminated; *length may be NULL. */
char *base64_encode(const void *bytes, size_t size, size_t *length);
/* Owned, of at most length / 4 * 3 bytes, with a NUL behind them; NULL when it is not base 64. */
void *base64_decode(const char *text, size_t length, size_t *size);

#endif
