/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 by libcrypto's EVP. It fails only where memory is gone or the library lacks SHA-256. */
#include "common/digest.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/memory.h"

struct digest {
    EVP_MD_CTX *context;
};

struct digest *digest_new(void)
{
    struct digest *digest = xmalloc(sizeof(*digest));
    digest->context = EVP_MD_CTX_new();
    BUG_ON(!digest->context || !EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL));
    return digest;
}

void digest_add(struct digest *digest, const void *bytes, size_t size)
{
    BUG_ON(!EVP_DigestUpdate(digest->context, bytes, size));
}

void digest_add_number(struct digest *digest, int64_t number)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)((uint64_t)number >> (8 * i));
    digest_add(digest, bytes, sizeof(bytes));
}

void digest_add_text(struct digest *digest, const char *text)
{
    size_t size = strlen(text);
    digest_add_number(digest, (int64_t)size);
    digest_add(digest, text, size);
}

void digest_finish(struct digest *digest, char out[DIGEST_TEXT_SIZE])
{
    uint8_t bytes[32];
    unsigned size = 0;
    BUG_ON(!EVP_DigestFinal_ex(digest->context, bytes, &size) || size != sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    EVP_MD_CTX_free(digest->context);
    free(digest);
}

void digest_of(const void *bytes, size_t size, char out[DIGEST_TEXT_SIZE])
{
    struct digest *digest = digest_new();
    digest_add(digest, bytes, size);
    digest_finish(digest, out);
}

void digest_hmac(const void *key, size_t key_size, const void *bytes, size_t size,
                 unsigned char out[DIGEST_HMAC_SIZE])
{
    unsigned written = 0;
    BUG_ON(!HMAC(EVP_sha256(), key, (int)key_size, bytes, size, out, &written) ||
           written != DIGEST_HMAC_SIZE);
}
