/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact store: finished pictures, and task records that are too large for Kafka. Names are
 * deterministic ("<job>/<index>.png"), so that writing one again is harmless. Two kinds:
 *
 *   a folder             writes are atomic: a temporary name, fsync, rename, fsync of the folder
 *   s3://bucket/prefix   any server that speaks S3. AWS's own variables say where and who:
 *                        AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3; AWS itself without),
 *                        AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
 */
#ifndef UNCLIP_COMMON_STORAGE_H
#define UNCLIP_COMMON_STORAGE_H

#include <stddef.h>

#include "common/err.h"

struct storage; /* opaque; thread-safe */

/*
 * Makes the folder if need be; asks whether the bucket is there. http_setup() must have been called
 * before a bucket is opened. Errors: ERR_IO naming the place; ERR_INVALID_ARGUMENT for a place that
 * is neither, a bucket that is not there or may not be used, and credentials that are missing.
 */
int storage_open(struct storage **out, const char *place, struct err *err);
void storage_close(struct storage *storage);

/* *uri is owned by the caller: "file:///absolute/path" or
   "s3://bucket/prefix/name", percent-encoded. `name` is relative, and no
   part of it is empty, begins with a dot or has control characters (ERR_INVALID_ARGUMENT). */
int storage_write(struct storage *storage, const char *name, const void *bytes, size_t size,
                  char **uri, struct err *err);
/* The URI that storage_write() gives for this name, without writing: owned, same error. */
int storage_uri(const struct storage *storage, const char *name, char **uri, struct err *err);
/* Refuses URIs outside the store (ERR_INVALID_ARGUMENT) and sizes over max_size (ERR_TOO_LARGE);
   what is not there is ERR_NOT_FOUND. *bytes is owned. */
int storage_read(struct storage *storage, const char *uri, size_t max_size, void **bytes,
                 size_t *size, struct err *err);
/* What is gone already is no error. */
int storage_remove(struct storage *storage, const char *uri, struct err *err);

#endif
