/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP on libcurl; see http.h. The guard sits where the socket is made: libcurl asks it for each
 * address that it is about to connect to, so that what is checked is what is used, whatever a name
 * resolves to the second time. Redirects are followed here, not by libcurl, so that each hop is
 * checked like the first.
 */
#include "common/http.h"

#include <curl/curl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/address.h"
#include "common/memory.h"

#define NAME_SIZE 300 /* "host:port" */

/* One request, and what its callbacks need. */
struct transfer {
    CURL *curl;
    struct curl_slist *headers; /* owned */
    char *bytes;                /* owned */
    size_t size, room, max;
    bool too_large, no_memory;
    bool guarded, excepted;          /* excepted: its host and port are on the list */
    struct addrinfo *proxy;          /* owned: its addresses are no target's; NULL without one */
    char refused[ADDRESS_TEXT_SIZE]; /* the address that the guard refused; "" */
    struct http_answer *answer;      /* takes what its headers say; NULL */
    char trouble[CURL_ERROR_SIZE];
};

int http_setup(struct err *err)
{
    CURLcode rc = curl_global_init(CURL_GLOBAL_DEFAULT);
    return rc ? err_set(err, ERR_INTERNAL, "cannot set up libcurl: %s", curl_easy_strerror(rc)) : 0;
}

const char *http_library_version(void)
{
    return curl_version_info(CURLVERSION_NOW)->version;
}

/* --- the URL --- */

struct target {
    char scheme[8], host[256];
    long port;
    bool plain_port; /* the scheme's own */
};

static int url_part(CURLU *url, CURLUPart part, char *out, size_t size)
{
    char *text = NULL;
    if (curl_url_get(url, part, &text, part == CURLUPART_PORT ? CURLU_DEFAULT_PORT : 0))
        return -1;
    size_t length = strlen(text);
    if (length < size)
        memcpy(out, text, length + 1);
    curl_free(text);
    return length < size ? 0 : -1;
}

static int parse_parts(CURLU *url, struct target *target, struct err *err)
{
    char port[8], secret[2];
    if (url_part(url, CURLUPART_SCHEME, target->scheme, sizeof target->scheme))
        return err_set(err, ERR_REFUSED, "the URL's scheme must be http or https");
    bool http = strcmp(target->scheme, "http") == 0, https = strcmp(target->scheme, "https") == 0;
    if (!http && !https)
        return err_set(err, ERR_REFUSED, "the URL's scheme is '%s', it must be http or https",
                       target->scheme);
    if (url_part(url, CURLUPART_HOST, target->host, sizeof target->host) ||
        url_part(url, CURLUPART_PORT, port, sizeof port))
        return err_set(err, ERR_REFUSED, "the URL has no host, or one that is too long");
    char *user = NULL;
    bool has_user = curl_url_get(url, CURLUPART_USER, &user, 0) == CURLUE_OK;
    curl_free(user);
    if (has_user || url_part(url, CURLUPART_PASSWORD, secret, sizeof secret) == 0)
        return err_set(err, ERR_REFUSED, "the URL has a user or a password");
    target->port = strtol(port, NULL, 10);
    target->plain_port = target->port == (https ? 443 : 80);
    return 0;
}

static int target_parse(struct target *target, const char *text, struct err *err)
{
    if (strlen(text) > HTTP_URL_MAX)
        return err_set(err, ERR_TOO_LARGE, "the URL is longer than %d bytes", HTTP_URL_MAX);
    CURLU *url = curl_url();
    CURLUcode rc = url ? curl_url_set(url, CURLUPART_URL, text, CURLU_NON_SUPPORT_SCHEME)
                       : CURLUE_OUT_OF_MEMORY;
    int result = rc ? err_set(err, ERR_REFUSED, "this is no URL: %s", curl_url_strerror(rc))
                    : parse_parts(url, target, err);
    curl_url_cleanup(url);
    return result;
}

/* Whether "host:port" is one of the comma-separated words of `allow`. */
static bool listed(const struct target *target, const char *allow)
{
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s:%ld", target->host, target->port);
    size_t length = strlen(name);
    for (const char *at = allow; at && *at;) {
        size_t word = strcspn(at, ",");
        if (word == length && strncasecmp(at, name, length) == 0)
            return true;
        at += word + (at[word] == ',');
    }
    return false;
}

/* --- the guard --- */

static bool is_proxy(const struct transfer *transfer, const struct sockaddr *address)
{
    for (const struct addrinfo *at = transfer->proxy; at; at = at->ai_next)
        if (address_equal(at->ai_addr, address))
            return true;
    return false;
}

static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    struct transfer *transfer = context;
    bool open = !transfer->guarded || transfer->excepted || is_proxy(transfer, &address->addr) ||
                address_public(&address->addr);
    if (!open) {
        address_text(&address->addr, transfer->refused);
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* The environment's proxy for this scheme, as libcurl would choose it; NULL: none. */
static const char *proxy_of(const char *scheme)
{
    const char *names[] = {strcmp(scheme, "https") == 0 ? "https_proxy" : "http_proxy",
                           strcmp(scheme, "https") == 0 ? "HTTPS_PROXY" : "", "all_proxy",
                           "ALL_PROXY"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = *names[i] ? getenv(names[i]) : NULL;
        if (value && *value)
            return value;
    }
    return NULL;
}

/* Error: ERR_FETCH when there is one whose address is not found. */
static int find_proxy(struct transfer *transfer, const char *scheme, struct err *err)
{
    const char *proxy = proxy_of(scheme);
    if (!proxy)
        return 0;
    CURLU *url = curl_url();
    char host[256] = "", *port = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    if (url &&
        !curl_url_set(url, CURLUPART_URL, proxy, CURLU_NON_SUPPORT_SCHEME | CURLU_DEFAULT_SCHEME) &&
        !url_part(url, CURLUPART_HOST, host, sizeof host) &&
        curl_url_get(url, CURLUPART_PORT, &port, 0) != CURLUE_OK)
        port = NULL;
    const char *own = strncmp(proxy, "https://", 8) == 0 ? "443" : "1080"; /* libcurl's */
    bool found = *host && getaddrinfo(host, port ? port : own, &hints, &transfer->proxy) == 0;
    curl_free(port);
    curl_url_cleanup(url);
    if (!found)
        transfer->proxy = NULL;
    return found ? 0 : err_set(err, ERR_FETCH, "the proxy '%s' has no address", host);
}

/* Behind a proxy our guard sees the proxy alone: so the name is looked up here, as far as it can.
 */
static int check_behind_proxy(struct transfer *transfer, const struct target *target,
                              struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    char host[sizeof target->host];
    snprintf(host, sizeof host, "%s", target->host);
    size_t length = strlen(host);
    if (*host == '[' && host[length - 1] == ']') { /* an IPv6 literal */
        host[length - 1] = '\0';
        memmove(host, host + 1, length - 1);
    }
    if (getaddrinfo(host, NULL, &hints, &found))
        return 0;
    bool open = true;
    for (const struct addrinfo *at = found; at && open; at = at->ai_next) {
        open = address_public(at->ai_addr);
        if (!open)
            address_text(at->ai_addr, transfer->refused);
    }
    freeaddrinfo(found);
    return open ? 0
                : err_set(err, ERR_REFUSED, "'%s' leads to %s, which is no public address",
                          target->host, transfer->refused);
}

static int guard(struct transfer *transfer, const struct target *target, const char *allow,
                 struct err *err)
{
    transfer->guarded = true;
    transfer->excepted = listed(target, allow);
    if (transfer->excepted)
        return 0;
    if (!target->plain_port)
        return err_set(err, ERR_REFUSED, "the URL's port is %ld, it must be the scheme's own",
                       target->port);
    int rc = find_proxy(transfer, target->scheme, err);
    return rc || !transfer->proxy ? rc : check_behind_proxy(transfer, target, err);
}

/* --- one request --- */

static size_t take_body(char *bytes, size_t one, size_t count, void *context)
{
    (void)one; /* is 1 */
    struct transfer *transfer = context;
    if (count > transfer->max - transfer->size) {
        transfer->too_large = true;
        return 0;
    }
    if (transfer->size + count + 1 > transfer->room) {
        size_t room = 2 * (transfer->size + count) + 4096;
        char *grown = realloc(transfer->bytes, room);
        if (!grown) {
            transfer->no_memory = true;
            return 0;
        }
        transfer->bytes = grown;
        transfer->room = room;
    }
    memcpy(transfer->bytes + transfer->size, bytes, count);
    transfer->size += count;
    transfer->bytes[transfer->size] = '\0';
    return count;
}

/* The value of "Name: value\r\n" when the line is that header's; NULL otherwise. */
static const char *header_value(const char *line, size_t size, const char *name, size_t *length)
{
    size_t n = strlen(name);
    if (size <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
        return NULL;
    const char *at = line + n + 1, *end = line + size;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    while (end > at && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' '))
        end--;
    *length = (size_t)(end - at);
    return at;
}

static size_t take_header(char *line, size_t one, size_t count, void *context)
{
    (void)one;
    struct http_answer *answer = ((struct transfer *)context)->answer;
    size_t length;
    const char *value = header_value(line, count, "etag", &length);
    if (value && answer && length < sizeof answer->etag) {
        memcpy(answer->etag, value, length);
        answer->etag[length] = '\0';
    }
    value = header_value(line, count, "retry-after", &length);
    if (value && answer && length > 0 && length < 10)
        answer->retry_after_s = strtol(value, NULL, 10);
    return count;
}

static int transfer_open(struct transfer *transfer, const char *url, size_t max, long timeout_ms,
                         struct err *err)
{
    CURL *curl = transfer->curl = curl_easy_init();
    if (!curl)
        return err_set(err, ERR_OUT_OF_MEMORY, "cannot make an HTTP request");
    transfer->max = max;
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_MS);
    curl_easy_setopt(curl, CURLOPT_MAXFILESIZE_LARGE, (curl_off_t)max);
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "unclip/" UNCLIP_VERSION);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, transfer->trouble);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, transfer);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, transfer);
    if (transfer->excepted) /* what the operator named stands beside us */
        curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    return 0;
}

static void transfer_close(struct transfer *transfer)
{
    curl_easy_cleanup(transfer->curl);
    curl_slist_free_all(transfer->headers);
    if (transfer->proxy)
        freeaddrinfo(transfer->proxy);
    free(transfer->bytes);
}

static int transfer_run(struct transfer *transfer, long *status, struct err *err)
{
    CURLcode rc = curl_easy_perform(transfer->curl);
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, status);
    const char *why = *transfer->trouble ? transfer->trouble : curl_easy_strerror(rc);
    if (*transfer->refused && rc)
        return err_set(err, ERR_REFUSED, "the URL leads to %s, which is no public address",
                       transfer->refused);
    if (transfer->too_large || rc == CURLE_FILESIZE_EXCEEDED)
        return err_set(err, ERR_TOO_LARGE, "the answer has more than %zu bytes", transfer->max);
    if (transfer->no_memory || rc == CURLE_OUT_OF_MEMORY)
        return err_set(err, ERR_OUT_OF_MEMORY, "cannot hold the answer");
    if (rc == CURLE_OPERATION_TIMEDOUT)
        return err_set(err, ERR_TIMEOUT, "no whole answer in time: %s", why);
    return rc ? err_set(err, ERR_FETCH, "%s", why) : 0;
}

static void give_body(struct transfer *transfer, char **bytes, size_t *size)
{
    *bytes = transfer->bytes ? transfer->bytes : xcalloc(1, 1);
    *size = transfer->size;
    transfer->bytes = NULL;
}

/* --- fetching --- */

static int judge(long status, struct err *err)
{
    if (status >= 200 && status < 300)
        return 0;
    if (status == 404 || status == 410)
        return err_set(err, ERR_NOT_FOUND, "the server has no such thing (HTTP %ld)", status);
    if (status == 408 || status == 425 || status == 429 || status >= 500)
        return err_set(err, ERR_FETCH, "the server answers HTTP %ld", status);
    return err_set(err, ERR_REFUSED, "the server answers HTTP %ld", status);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether a hop stays at the host and port of the first URL. */
static bool same_place(const struct target *target, const char *first)
{
    struct target other;
    return target_parse(&other, first, NULL) == 0 && strcasecmp(other.host, target->host) == 0 &&
           other.port == target->port;
}

/* One hop. *next (owned) is where it leads to, or NULL when the bytes are here. */
static int fetch_hop(const char *url, const char *first, const char *allow, long timeout_ms,
                     size_t max_bytes, char **bytes, size_t *size, char **next, struct err *err)
{
    struct transfer transfer = {0};
    struct target target;
    long status = 0;
    char *location = NULL;
    int rc = target_parse(&target, url, err);
    if (!rc)
        rc = guard(&transfer, &target, same_place(&target, first) ? allow : "", err);
    if (!rc)
        rc = transfer_open(&transfer, url, max_bytes, timeout_ms, err);
    if (!rc)
        rc = transfer_run(&transfer, &status, err);
    if (!rc)
        curl_easy_getinfo(transfer.curl, CURLINFO_REDIRECT_URL, &location);
    if (!rc && location)
        *next = xstrdup(location);
    else if (!rc && (rc = judge(status, err)) == 0)
        give_body(&transfer, bytes, size);
    transfer_close(&transfer);
    return rc;
}

int http_fetch(const char *url, const char *allow, size_t max_bytes, void **bytes, size_t *size,
               struct err *err)
{
    int64_t end = now_ms() + HTTP_TIMEOUT_MS;
    char *at = xstrdup(url), *body = NULL;
    int rc = 0;
    for (int hop = 0; !body && !rc; hop++) {
        char *next = NULL;
        int64_t left = end - now_ms();
        if (hop > HTTP_REDIRECTS_MAX)
            rc = err_set(err, ERR_REFUSED, "the URL is redirected more than %d times",
                         HTTP_REDIRECTS_MAX);
        else if (left <= 0)
            rc = err_set(err, ERR_TIMEOUT, "no whole answer in %d ms", HTTP_TIMEOUT_MS);
        else
            rc = fetch_hop(at, url, allow, (long)left, max_bytes, &body, size, &next, err);
        free(at);
        at = next;
    }
    free(at);
    *bytes = body;
    return rc;
}

/* --- sending --- */

static int set_method(struct transfer *transfer, const struct http_request *request,
                      struct err *err)
{
    CURL *curl = transfer->curl;
    for (size_t i = 0; i < HTTP_HEADERS_MAX && request->headers[i]; i++) {
        struct curl_slist *longer = curl_slist_append(transfer->headers, request->headers[i]);
        if (!longer)
            return err_set(err, ERR_OUT_OF_MEMORY, "cannot hold the request's headers");
        transfer->headers = longer;
    }
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, transfer->headers);
    if (request->body || strcmp(request->method, "POST") == 0 ||
        strcmp(request->method, "PUT") == 0) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, request->body ? request->body : "");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
    }
    if (strcmp(request->method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    if (request->patient) {
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
        curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)HTTP_STALL_S);
    }
    if (request->sigv4) {
        curl_easy_setopt(curl, CURLOPT_AWS_SIGV4, request->sigv4);
        curl_easy_setopt(curl, CURLOPT_USERPWD, request->user);
    }
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
    return 0;
}

int http_send(const struct http_request *request, struct http_answer *answer, struct err *err)
{
    struct transfer transfer = {.answer = answer};
    struct target target;
    *answer = (struct http_answer){0};
    int rc = target_parse(&target, request->url, err);
    if (!rc && request->guarded)
        rc = guard(&transfer, &target, request->allow, err);
    if (!rc)
        rc = transfer_open(&transfer, request->url, request->answer_max,
                           request->timeout_ms ? request->timeout_ms : HTTP_TIMEOUT_MS, err);
    if (!rc)
        rc = set_method(&transfer, request, err);
    if (!rc)
        rc = transfer_run(&transfer, &answer->status, err);
    if (!rc)
        give_body(&transfer, &answer->body, &answer->size);
    transfer_close(&transfer);
    return rc;
}

void http_answer_release(struct http_answer *answer)
{
    free(answer->body);
    *answer = (struct http_answer){0};
}
