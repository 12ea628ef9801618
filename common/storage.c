/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact store's front: names and URIs, which are the same for every kind of store, and the
 * choice between the kinds.
 */
#include "common/storage.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "common/storage_ops.h"

#define NAME_MAX_BYTES 1024 /* of a name with all its folders */

struct storage {
    const struct storage_ops *ops;
    void *state; /* owned by ops */
    char *root;  /* owned; see storage_ops.h */
};

static const struct storage_ops *ops_for(const char **place)
{
    static const struct storage_ops *const kinds[] = {&storage_s3_ops, &storage_file_ops};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t length = strlen(kinds[i]->scheme);
        if (strncmp(*place, kinds[i]->scheme, length) == 0) {
            *place += length;
            return kinds[i];
        }
    }
    return strstr(*place, "://") ? NULL : &storage_file_ops;
}

int storage_open(struct storage **out, const char *place, struct err *err)
{
    const char *inside = place;
    const struct storage_ops *ops = ops_for(&inside);
    if (!ops)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the artifact store '%s' is neither a folder nor s3://bucket/prefix", place);
    struct storage *storage = xcalloc(1, sizeof *storage);
    storage->ops = ops;
    int result = ops->open(&storage->state, inside, &storage->root, err);
    if (result == 0)
        *out = storage;
    else
        free(storage);
    return result;
}

void storage_close(struct storage *storage)
{
    if (!storage)
        return;
    storage->ops->close(storage->state);
    free(storage->root);
    free(storage);
}

/* --- names and URIs --- */

static bool component_valid(const char *name, size_t length)
{
    if (length == 0 || length > NAME_MAX || name[0] == '.') /* . and .. and our temporary names */
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f)
            return false;
    return true;
}

/* "job/0.png": relative, no empty and no dotted component, no control characters. */
static bool name_valid(const char *name)
{
    if (strlen(name) > NAME_MAX_BYTES)
        return false;
    for (;;) {
        size_t length = strcspn(name, "/");
        if (!component_valid(name, length))
            return false;
        if (!name[length])
            return true;
        name += length + 1;
    }
}

static bool is_unreserved(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
           (c && strchr("-._~/", c));
}

char *storage_encode(const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
    char *encoded = xmalloc(3 * strlen(text) + 1), *out = encoded;
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (is_unreserved(*text)) {
            *out++ = *text;
        } else {
            *out++ = '%';
            *out++ = digits[byte >> 4];
            *out++ = digits[byte & 15];
        }
    }
    *out = '\0';
    return encoded;
}

static char *make_uri(const struct storage *storage, const char *name) /* owned */
{
    char *root = storage_encode(storage->root), *encoded = storage_encode(name);
    char *uri = xasprintf("%s%s/%s", storage->ops->scheme, root, encoded);
    free(root);
    free(encoded);
    return uri;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* Decodes into `out`, of at least strlen(text) + 1 bytes; false when %XX is broken or NUL. */
static bool decode(char *out, const char *text)
{
    while (*text) {
        int high = *text == '%' ? hex(text[1]) : 0;
        int low = *text == '%' && high >= 0 ? hex(text[2]) : 0;
        if (*text != '%') {
            *out++ = *text++;
            continue;
        }
        if (high < 0 || low < 0 || high + low == 0)
            return false;
        *out++ = (char)(high << 4 | low);
        text += 3;
    }
    *out = '\0';
    return true;
}

/* The name within the store that `uri` stands for. Owned. */
static int parse_uri(const struct storage *storage, const char *uri, char **name, struct err *err)
{
    const char *scheme = storage->ops->scheme;
    const size_t begin = strlen(scheme), root = strlen(storage->root);
    char *path = xmalloc(strlen(uri) + 1);
    if (strncmp(uri, scheme, begin) != 0 || !decode(path, uri + begin)) {
        free(path);
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not a %s URI", uri, scheme);
    }
    if (strncmp(path, storage->root, root) != 0 || path[root] != '/' ||
        !name_valid(path + root + 1)) {
        free(path);
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not in the artifact store '%s'", uri,
                       storage->root);
    }
    memmove(path, path + root + 1, strlen(path + root + 1) + 1);
    *name = path;
    return 0;
}

int storage_uri(const struct storage *storage, const char *name, char **uri, struct err *err)
{
    if (!name_valid(name))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not a name for the artifact store",
                       name);
    *uri = make_uri(storage, name);
    return 0;
}

/* --- what the kinds do --- */

int storage_write(struct storage *storage, const char *name, const void *bytes, size_t size,
                  char **uri, struct err *err)
{
    char *made;
    int result = storage_uri(storage, name, &made, err);
    if (result == 0 && (result = storage->ops->write(storage->state, name, bytes, size, err)) != 0)
        free(made);
    else if (result == 0)
        *uri = made;
    return result;
}

int storage_read(struct storage *storage, const char *uri, size_t max_size, void **bytes,
                 size_t *size, struct err *err)
{
    char *name;
    int result = parse_uri(storage, uri, &name, err);
    if (result == 0) {
        result = storage->ops->read(storage->state, name, max_size, bytes, size, err);
        free(name);
    }
    return result;
}

int storage_remove(struct storage *storage, const char *uri, struct err *err)
{
    char *name;
    int result = parse_uri(storage, uri, &name, err);
    if (result == 0) {
        result = storage->ops->remove(storage->state, name, err);
        free(name);
    }
    return result;
}
