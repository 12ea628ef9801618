/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact store: finished pictures, and task records that are too large for Kafka. Names are
 * deterministic ("<job>/<index>.png"), so that writing one again is harmless. Writes are atomic:
 * a temporary name, fsync, rename, fsync of the folder. This is the `file://` store.
 */
#ifndef UNCLIP_COMMON_STORAGE_H
#define UNCLIP_COMMON_STORAGE_H

#include <stddef.h>

#include "common/err.h"

struct storage; /* opaque; thread-safe */

/* Makes the folder if need be. Errors: ERR_IO naming the folder. */
int storage_open(struct storage **out, const char *folder, struct err *err);
void storage_close(struct storage *storage);

/* *uri is owned by the caller: "file:///absolute/path", percent-encoded. `name` is relative, and no
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
