/* SPDX-License-Identifier: Apache-2.0 */
/* Files of this computer as addresses; see address.h. */
#include "client/address.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/artifact.h"
#include "common/base64.h"
#include "common/digest.h"
#include "common/http.h"
#include "common/image.h"
#include "common/memory.h"
#include "common/storage.h"

void addresses_release(struct addresses *self)
{
    storage_close(self->storage);
    self->storage = NULL;
}

static bool is_address(const char *word)
{
    static const char *const schemes[] = {"data:", "http://", "https://", "file:///", "s3://"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncmp(word, schemes[i], strlen(schemes[i])) == 0)
            return true;
    return false;
}

static char *data_url(const char *type, const void *bytes, size_t size)
{
    char *text = base64_encode(bytes, size, NULL);
    char *url = xasprintf("data:%s;base64,%s", type, text);
    free(text);
    return url;
}

/* The URI of a file where it lies. */
static int own_uri(const char *path, char **uri, struct err *err)
{
    char *whole = realpath(path, NULL);
    if (!whole)
        return err_set(err, ERR_IO, "cannot find '%s': %s", path, strerror(errno));
    char *out = xmalloc(strlen("file://") + 3 * strlen(whole) + 1);
    char *end = out + sprintf(out, "file://");
    for (const unsigned char *at = (const unsigned char *)whole; *at; at++)
        end += isalnum(*at) || strchr("/._-", *at) ? sprintf(end, "%c", *at)
                                                   : sprintf(end, "%%%02X", *at);
    free(whole);
    *uri = out;
    return 0;
}

static int upload(struct addresses *self, const char *type, const void *bytes, size_t size,
                  char **uri, struct err *err)
{
    char digest[DIGEST_TEXT_SIZE];
    int rc = 0;
    if (!self->storage && strncmp(self->config->artifacts, "s3://", 5) == 0)
        rc = http_setup(err);
    if (rc == 0 && !self->storage)
        rc = storage_open(&self->storage, self->config->artifacts, err);
    if (rc < 0)
        return rc;
    digest_of(bytes, size, digest);
    char *name = xasprintf("uploads/%s.%s", digest, strchr(type, '/') + 1);
    rc = storage_write(self->storage, name, bytes, size, uri, err);
    free(name);
    return rc;
}

int address_take(struct addresses *self, const char *word, char **address, struct err *err)
{
    void *bytes = NULL;
    size_t size;
    if (is_address(word)) {
        *address = xstrdup(word);
        return 0;
    }
    int rc = artifact_read(word, IMAGE_FILE_MAX, &bytes, &size, err);
    const char *type = rc < 0 ? NULL : image_media_type(bytes, size);
    if (rc == 0 && !type)
        rc = err_set(err, ERR_INVALID_IMAGE,
                     "'%s' is no picture that unclip reads (PNG, JPEG, WebP, AVIF, HEIC, GIF)",
                     word);
    if (rc == 0 && size <= ADDRESS_INLINE_MAX - self->inlined) {
        *address = data_url(type, bytes, size);
        self->inlined += size;
    } else if (rc == 0) {
        rc = self->local ? own_uri(word, address, err)
                         : upload(self, type, bytes, size, address, err);
    }
    free(bytes);
    return rc;
}
