/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of pictures to bytes; see fetch.h. */
#include "common/fetch.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/base64.h"
#include "common/http.h"
#include "common/memory.h"

#define SHOWN 100 /* characters of an address in a message */

static bool has_scheme(const char *address, const char *scheme)
{
    return strncasecmp(address, scheme, strlen(scheme)) == 0;
}

bool fetch_is_data(const char *address)
{
    return has_scheme(address, "data:");
}

/* --- data URLs --- */

/* The extension of "image/png;…"; NULL for a type that is not taken. */
static const char *type_extension(const char *type, size_t length)
{
    static const struct {
        const char *type, *extension;
    } types[] = {
#define X(type, extension) {type, extension},
        FETCH_TYPE_TABLE(X)
#undef X
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strlen(types[i].type) == length && strncasecmp(type, types[i].type, length) == 0)
            return types[i].extension;
    return NULL;
}

int fetch_data(const char *address, void **bytes, size_t *size, const char **extension,
               struct err *err)
{
    static const char coding[] = ";base64";
    const char *type = address + strlen("data:");
    const char *comma = strchr(type, ',');
    size_t head = comma ? (size_t)(comma - type) : 0, tail = sizeof coding - 1;
    if (head < tail || strncasecmp(comma - tail, coding, tail) != 0)
        return err_set(err, ERR_INVALID_JOB, "the data URL is not like data:image/png;base64,…");
    size_t type_length = strcspn(type, ";,"); /* parameters are of no use */
    const char *found = type_extension(type, type_length);
    if (!found)
        return err_set(err, ERR_INVALID_JOB,
                       "the data URL's type is '%.*s', it must be image/png, jpeg, webp, avif, "
                       "heic or gif",
                       type_length > 60 ? 60 : (int)type_length, type);
    size_t length = strlen(comma + 1);
    if (length / 4 * 3 > FETCH_BYTES_MAX)
        return err_set(err, ERR_TOO_LARGE, "the data URL has more than %u bytes", FETCH_BYTES_MAX);
    void *decoded = base64_decode(comma + 1, length, size);
    if (!decoded)
        return err_set(err, ERR_INVALID_JOB, "the data URL is not base 64 with its padding");
    if (*size == 0) {
        free(decoded);
        return err_set(err, ERR_INVALID_JOB, "the data URL is empty");
    }
    *bytes = decoded;
    *extension = found;
    return 0;
}

/* --- servers --- */

/* Steps over the next word of a comma-separated list; false at its end. */
static bool next_word(const char **at, const char **word, size_t *length)
{
    if (!**at)
        return false;
    *word = *at;
    *length = strcspn(*at, ",");
    *at += *length + ((*at)[*length] == ',');
    return true;
}

static bool word_is(const char *word, size_t length, const char *text)
{
    return strlen(text) == length && memcmp(word, text, length) == 0;
}

static bool lists(const char *allowed, const char *text)
{
    const char *word;
    size_t length;
    while (next_word(&allowed, &word, &length))
        if (word_is(word, length, text))
            return true;
    return false;
}

/* Whether "HOST" or "[2001:db8::1]" comes without a port. */
static bool without_port(const char *word, size_t length)
{
    const char *colon = memrchr(word, ':', length);
    return !colon || word[length - 1] == ']';
}

/* The named hosts as http_fetch() takes them: each with a port. Owned. */
static char *exceptions_of(const char *allowed)
{
    const char *word;
    size_t length;
    char *list = xstrdup("");
    while (next_word(&allowed, &word, &length)) {
        if (word_is(word, length, "public") || word_is(word, length, "off"))
            continue;
        int n = (int)length;
        char *longer = without_port(word, length)
                           ? xasprintf("%s%.*s:80,%.*s:443,", list, n, word, n, word)
                           : xasprintf("%s%.*s,", list, n, word);
        free(list);
        list = longer;
    }
    return list;
}

int fetch_check_allowed(const char *allowed, struct err *err)
{
    const char *at = allowed, *word;
    size_t length;
    if (lists(allowed, "off") && strcmp(allowed, "off") != 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s': 'off' goes with nothing else", allowed);
    while (next_word(&at, &word, &length))
        if (length == 0 || memchr(word, '/', length) || memchr(word, ' ', length))
            return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not a list like public,HOST:PORT",
                           allowed);
    return 0;
}

/* The host and port of a URL as they stand in it, or with the scheme's own port. Owned. */
static char *place_of(const char *url)
{
    const char *host = strstr(url, "://") + 3;
    size_t length = strcspn(host, "/?#");
    bool bare = length == 0 || without_port(host, length);
    return bare ? xasprintf("%.*s:%d", (int)length, host, has_scheme(url, "https") ? 443 : 80)
                : xasprintf("%.*s", (int)length, host);
}

int fetch_permit(const char *allowed, const char *url, char **exceptions, struct err *err)
{
    *exceptions = NULL;
    if (!has_scheme(url, "http://") && !has_scheme(url, "https://"))
        return err_set(err, ERR_REFUSED, "it is no http: or https: URL");
    if (strcmp(allowed, "off") == 0)
        return err_set(err, ERR_REFUSED, "asking other servers is switched off here");
    char *list = exceptions_of(allowed), *place = place_of(url);
    const char *at = list, *word;
    size_t length;
    bool named = false;
    while (!named && next_word(&at, &word, &length))
        named = strlen(place) == length && strncasecmp(place, word, length) == 0;
    int rc = 0;
    if (named || lists(allowed, "public"))
        *exceptions = list;
    else
        rc = err_set(err, ERR_REFUSED, "'%s' is not one of the servers that may be asked", place);
    if (rc)
        free(list);
    free(place);
    return rc;
}

static int fetch_http(const struct fetch *fetch, const char *url, void **bytes, size_t *size,
                      struct err *err)
{
    char *exceptions;
    int rc = fetch_permit(fetch->allowed, url, &exceptions, err);
    if (!rc)
        rc = http_fetch(url, exceptions, FETCH_BYTES_MAX, bytes, size, err);
    free(exceptions);
    return rc;
}

/* --- the store --- */

static int fetch_stored(const struct fetch *fetch, const char *uri, void **bytes, size_t *size,
                        struct err *err)
{
    struct err why = {0};
    if (!fetch->storage)
        return err_set(err, ERR_REFUSED, "there is no artifact store here");
    int rc = storage_read(fetch->storage, uri, FETCH_BYTES_MAX, bytes, size, &why);
    if (rc == -ERR_INVALID_ARGUMENT)
        return err_set(err, ERR_REFUSED, "it is not in the artifact store");
    return rc ? err_set_at(err, why.code, why.where, "%s", why.text) : 0;
}

int fetch_address(const struct fetch *fetch, const char *address, void **bytes, size_t *size,
                  struct err *err)
{
    const char *extension;
    int rc;
    if (fetch_is_data(address))
        return fetch_data(address, bytes, size, &extension, err);
    if (has_scheme(address, "http://") || has_scheme(address, "https://"))
        rc = fetch_http(fetch, address, bytes, size, err);
    else if (has_scheme(address, "file://") || has_scheme(address, "s3://"))
        rc = fetch_stored(fetch, address, bytes, size, err);
    else
        rc =
            err_set(err, ERR_REFUSED, "it is no data:, http: or https: URL, and no stored picture");
    if (rc && err)
        err_prefix(err, "cannot fetch '%.*s'", SHOWN, address);
    return rc;
}
