/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pictures that a job names, as bytes. An address is one of:
 *
 *   data:image/TYPE;base64,…   the picture itself; TYPE is one of FETCH_TYPE_TABLE
 *   file:///… and s3://…       a picture in our own artifact store, and nothing outside it
 *   http://… and https://…     through http_fetch() and its guard, as the setting `fetch` allows
 *
 * Nothing is decoded here, and no byte is believed: that is image_decode()'s.
 */
#ifndef UNCLIP_COMMON_FETCH_H
#define UNCLIP_COMMON_FETCH_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/storage.h"

#define FETCH_BYTES_MAX (64u << 20) /* of one picture's file */

/*  X(media type, file name's extension) */
#define FETCH_TYPE_TABLE(X)                                                                        \
    X("image/png", "png")                                                                          \
    X("image/jpeg", "jpeg")                                                                        \
    X("image/webp", "webp")                                                                        \
    X("image/avif", "avif")                                                                        \
    X("image/heic", "heic")                                                                        \
    X("image/gif", "gif")

struct fetch {
    struct storage *storage; /* borrowed; NULL: there is none, and its URIs are refused */
    /*
     * Which servers may be asked, as words with commas between: "off" none; "public" those at
     * public addresses, by their scheme's own port; "HOST" or "HOST:PORT" this one too, wherever it
     * stands. Without "public" only those hosts that are named; they may redirect to public
     * addresses, but to no others. Borrowed.
     */
    const char *allowed;
};

/*
 * Whether such a setting lets an http(s) URL be asked. *exceptions (owned, free(), NULL after an
 * error) is then what http_fetch() and a guarded http_send() take as `allow`. Error: ERR_REFUSED.
 */
int fetch_permit(const char *allowed, const char *url, char **exceptions, struct err *err);

/* Whether the setting can be read. Error: ERR_INVALID_ARGUMENT. */
int fetch_check_allowed(const char *allowed, struct err *err);

/*
 * *bytes is owned (free()). Errors: ERR_INVALID_JOB (a broken data URL), ERR_TOO_LARGE,
 * ERR_NOT_FOUND, ERR_REFUSED (another scheme, outside the store, what http_fetch() refuses); those
 * that another try may mend: ERR_FETCH, ERR_TIMEOUT, ERR_IO. The messages name the address.
 */
int fetch_address(const struct fetch *fetch, const char *address, void **bytes, size_t *size,
                  struct err *err);

/* Whether it is a data URL, good or bad. */
bool fetch_is_data(const char *address);
/* Reads one. *extension is static, of the type that it says to be. Errors as above. */
int fetch_data(const char *address, void **bytes, size_t *size, const char **extension,
               struct err *err);

#endif
