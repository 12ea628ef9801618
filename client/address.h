/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a person writes for a picture, as an address that a job may hold. URLs (data, http, https)
 * and URIs of stored pictures (file, s3) pass as they are. A file of this computer becomes a data
 * URL, as long as all of a job's together are small; a larger one is put into the artifact store,
 * as uploads/SHA256.EXT, or stays where it is when the job is this process's own.
 */
#ifndef UNCLIP_CLIENT_ADDRESS_H
#define UNCLIP_CLIENT_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "common/err.h"

#define ADDRESS_INLINE_MAX (512u << 10) /* bytes of a job's files that travel in it */

/* Zero but for the first two, then address_take(), then addresses_release(). */
struct addresses {
    const struct config *config; /* borrowed */
    bool local;                  /* the job is this process's own */
    size_t inlined;              /* bytes so far */
    struct storage *storage;     /* owned: opened when it is needed */
};

/* *address is owned. Errors: ERR_IO, ERR_TOO_LARGE, ERR_INVALID_IMAGE (a file that is none), the
   store's. */
int address_take(struct addresses *self, const char *word, char **address, struct err *err);
void addresses_release(struct addresses *self);

#endif
