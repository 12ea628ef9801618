/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signatures of the Standard Webhooks specification 1.0.0 (symmetric, `v1`): base 64 of the
 * HMAC-SHA256 of ID.TIMESTAMP.BODY. Secrets are texts `whsec_` + base 64 of 24 to 64 bytes; where
 * there are several, so that receivers can change from one to the next, each makes a signature.
 */
#ifndef UNCLIP_WEBHOOKS_SIGN_H
#define UNCLIP_WEBHOOKS_SIGN_H

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define SECRETS_MAX     8
#define SECRET_MIN_SIZE 24 /* bytes of a key */
#define SECRET_MAX_SIZE 64
#define SECRET_FILE_MAX 4096

struct secret {
    unsigned char *bytes; /* owned */
    size_t size;
};

struct secrets {
    struct secret keys[SECRETS_MAX];
    size_t count;
};

/*
 * Reads the setting `webhook-secret`: secrets with blanks between, or @ and the name of a file that
 * holds them, one or more a line. Errors (ERR_INVALID_ARGUMENT, ERR_IO) never quote a secret.
 */
int secrets_open(struct secrets *secrets, const char *setting, struct err *err);
void secrets_release(struct secrets *secrets); /* overwrites them */

#define WEBHOOK_ID_SIZE 40
/*
 * The header webhook-id of a job's delivery, by which a receiver knows a repetition: the same for
 * each try, and after a restart. No full stop is in it, as the specification asks, since the
 * client chooses the job's id: it is made of that one's SHA-256.
 */
void webhook_id(const char *job, char out[WEBHOOK_ID_SIZE]);

/* The header webhook-signature: "v1,…", one for each secret, with blanks between. Owned. */
char *webhook_sign(const struct secrets *secrets, const char *id, int64_t timestamp_s,
                   const void *body, size_t size);

#endif
