/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures of the artifact store, seen from a client: URIs of files on this host. */
#ifndef UNCLIP_CLIENT_ARTIFACT_H
#define UNCLIP_CLIENT_ARTIFACT_H

#include <stddef.h>

#include "common/err.h"

/* The path of a file:// URI, percent-decoded, owned. ERR_UNSUPPORTED for other URIs. */
int artifact_path(const char *uri, char **path, struct err *err);
/* A whole file of at most max_size bytes; *bytes is owned. ERR_IO, ERR_TOO_LARGE. */
int artifact_read(const char *path, size_t max_size, void **bytes, size_t *size, struct err *err);
/* Makes the folder, and those above it. ERR_IO. */
int folder_make(const char *path, struct err *err);
/* Makes it, and makes sure that a file can be written into it. ERR_IO. */
int folder_ready(const char *path, struct err *err);
/* Writes under a temporary name beside `path`, then renames. ERR_IO. */
int artifact_write(const char *path, const void *bytes, size_t size, struct err *err);

#endif
