/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP on libcurl. Two kinds of request: http_fetch() takes a URL that came from outside and trusts
 * nothing about it; http_send() goes to a server that the operator named (an object store, a
 * webhook's receiver after http_check()). Both have limits of time and size, and neither sends
 * cookies, reads .netrc, or decompresses what it gets. All functions may be used by several threads.
 */
#ifndef UNCLIP_COMMON_HTTP_H
#define UNCLIP_COMMON_HTTP_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

#define HTTP_URL_MAX       2048
#define HTTP_REDIRECTS_MAX 3
#define HTTP_TIMEOUT_MS    20000 /* of a whole request, redirects included */
#define HTTP_CONNECT_MS    5000
#define HTTP_STALL_S       10 /* without a byte */
#define HTTP_HEADERS_MAX   16

int http_setup(struct err *err); /* once per process, before any thread uses this file */

/*
 * Gets a URL from outside, at most `max_bytes` of it. Refused (ERR_REFUSED): a scheme that is not
 * http or https, a port that is not the scheme's own, user and password in the URL, and any address that
 * address_public() does not like, as a literal or after the name was resolved, on the first request
 * and on each redirect (at most HTTP_REDIRECTS_MAX). The address that was checked is the one that is
 * connected to. `allow` lists exceptions from the rules of ports and addresses: "host:port,…" with
 * the host as it stands in the URL; "" for none; it holds for the first URL's host alone, not for
 * redirects to others.
 *
 * A proxy of the environment (http_proxy, https_proxy, no_proxy) is honoured. Behind one it is the
 * proxy that resolves names; literal addresses are checked here all the same, and so are names that
 * resolve here.
 *
 * *bytes is owned by the caller (free()). Errors besides: ERR_TOO_LARGE, ERR_TIMEOUT, ERR_NOT_FOUND
 * (404, 410), ERR_FETCH (retriable: no connection, 429, 5xx), ERR_REFUSED (other answers).
 */
int http_fetch(const char *url, const char *allow, size_t max_bytes, void **bytes, size_t *size,
               struct err *err);

struct http_request {
    const char *method; /* "GET", "PUT", "POST", "HEAD", "DELETE" */
    const char *url;
    const char *headers[HTTP_HEADERS_MAX]; /* "Name: value"; NULL ends them */
    const void *body;                      /* borrowed; NULL: none */
    size_t body_size;
    size_t answer_max; /* bytes of the answer's body */
    long timeout_ms;   /* 0: HTTP_TIMEOUT_MS */
    bool patient;      /* timeout_ms is for much data: a stall of HTTP_STALL_S ends it, too */
    const char *sigv4; /* "aws:amz:REGION:SERVICE": signed by AWS's Signature Version 4; NULL: not */
    const char *user;  /* "KEY:SECRET" of the signature */
    bool guarded;      /* the address rules of http_fetch() hold, with `allow` */
    const char *allow;
};

struct http_answer {
    long status;
    char *body; /* owned, NUL-terminated behind its size */
    size_t size;
    char etag[128];       /* "" where there is none */
    long retry_after_s;   /* 0 where it does not say */
};

/*
 * Sends it and takes the answer, whatever its status; redirects are not followed. Errors:
 * ERR_REFUSED (guarded), ERR_TOO_LARGE, ERR_TIMEOUT, ERR_FETCH.
 */
int http_send(const struct http_request *request, struct http_answer *answer, struct err *err);
void http_answer_release(struct http_answer *answer);

const char *http_library_version(void);

#endif
