/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to the artifact store: what a kind of store gives to storage.c, which checks the names.
 * A name is relative, "job/0.png"; no part of it is empty or begins with a dot.
 */
#ifndef UNCLIP_COMMON_STORAGE_OPS_H
#define UNCLIP_COMMON_STORAGE_OPS_H

#include "common/storage.h"

struct storage_ops {
    const char *scheme; /* "file://" */
    /*
     * Opens `place`, what stands behind the scheme. *root (owned by the caller) is where the store
     * is, not encoded, as it comes between scheme and name in a URI.
     */
    int (*open)(void **state, const char *place, char **root, struct err *err);
    void (*close)(void *state);
    int (*write)(void *state, const char *name, const void *bytes, size_t size, struct err *err);
    int (*read)(void *state, const char *name, size_t max_size, void **bytes, size_t *size,
                struct err *err);
    int (*remove)(void *state, const char *name, struct err *err);
};
extern const struct storage_ops storage_file_ops; /* a folder */
extern const struct storage_ops storage_s3_ops;   /* "bucket" or "bucket/prefix" */

/* Percent-encodes all but unreserved characters and slashes. Owned. */
char *storage_encode(const char *text);

#endif
