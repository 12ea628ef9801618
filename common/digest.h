/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 and HMAC with it, on libcrypto (only digest.c knows its types). */
#ifndef UNCLIP_COMMON_DIGEST_H
#define UNCLIP_COMMON_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#define DIGEST_TEXT_SIZE 65 /* 64 digits of 0-9 a-f and a NUL */

struct digest; /* opaque; one thread */
struct digest *digest_new(void);
void digest_add(struct digest *digest, const void *bytes, size_t size);
/* The text's length, then the text: so that no two sequences of texts look the same. */
void digest_add_text(struct digest *digest, const char *text);
void digest_add_number(struct digest *digest, int64_t number);
void digest_finish(struct digest *digest, char out[DIGEST_TEXT_SIZE]); /* frees it */
void digest_of(const void *bytes, size_t size, char out[DIGEST_TEXT_SIZE]);

#define DIGEST_HMAC_SIZE 32
/* HMAC-SHA256 (RFC 2104) of the bytes. */
void digest_hmac(const void *key, size_t key_size, const void *bytes, size_t size,
                 unsigned char out[DIGEST_HMAC_SIZE]);

#endif
