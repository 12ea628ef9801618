/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file:// artifact store. All work below the store's folder goes through a descriptor of it and
 * openat() of one component after the other with O_NOFOLLOW: no name and no symbolic link in the
 * store leads out of it. Nothing here is guarded, because nothing changes after storage_open().
 */
#include "common/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"

#define NAME_MAX_BYTES 1024 /* of a name with all its folders */
#define SCHEME         "file://"

struct storage {
    char *root; /* owned, absolute */
    int fd;     /* of the root folder */
};

/* --- the folder --- */

/* mkdir -p */
static int make_folders(const char *folder, struct err *err)
{
    if (!*folder)
        return err_set(err, ERR_IO, "the artifact store's folder has no name");
    char *path = xstrdup(folder);
    int result = 0;
    for (char *slash = path; result == 0 && slash; *slash = '/') {
        slash = strchr(slash + 1, '/');
        if (slash)
            *slash = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            result = err_set(err, ERR_IO, "cannot make the folder '%s': %s", path, strerror(errno));
        if (!slash)
            break;
    }
    free(path);
    return result;
}

int storage_open(struct storage **out, const char *folder, struct err *err)
{
    int result = make_folders(folder, err);
    if (result != 0)
        return result;
    char *root = realpath(folder, NULL);
    int fd = root ? open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0) {
        free(root);
        return err_set(err, ERR_IO, "cannot open the folder '%s': %s", folder, strerror(errno));
    }
    struct storage *storage = xcalloc(1, sizeof *storage);
    storage->root = root;
    storage->fd = fd;
    *out = storage;
    return 0;
}

void storage_close(struct storage *storage)
{
    if (!storage)
        return;
    close(storage->fd);
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

static char *encode(char *out, const char *text)
{
    static const char digits[] = "0123456789ABCDEF";
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
    return out;
}

static char *make_uri(const struct storage *storage, const char *name) /* owned */
{
    char *uri = xmalloc(sizeof SCHEME + 3 * (strlen(storage->root) + strlen(name)) + 1);
    char *end = encode(stpcpy(uri, SCHEME), strcmp(storage->root, "/") == 0 ? "" : storage->root);
    *end++ = '/';
    encode(end, name);
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
    const size_t scheme = strlen(SCHEME), root = strlen(storage->root);
    char *path = xmalloc(strlen(uri) + 1);
    if (strncmp(uri, SCHEME "/", scheme + 1) != 0 || !decode(path, uri + scheme)) {
        free(path);
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not a file:// URI", uri);
    }
    size_t start = root == 1 ? 0 : root; /* the root may be / itself */
    if (strncmp(path, storage->root, start) != 0 || path[start] != '/' ||
        !name_valid(path + start + 1)) {
        free(path);
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not in the artifact store '%s'", uri,
                       storage->root);
    }
    memmove(path, path + start + 1, strlen(path + start + 1) + 1);
    *name = path;
    return 0;
}

/* --- files --- */

static int io_error(const struct storage *storage, const char *verb, const char *name,
                    struct err *err)
{
    return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot %s '%s/%s': %s", verb,
                   storage->root, name, strerror(errno));
}

/*
 * Opens the folder that `name` lies in, making folders when `make`. Returns a descriptor, or -1
 * with errno; *leaf points to the last component.
 */
static int open_parent(const struct storage *storage, const char *name, bool make,
                       const char **leaf)
{
    int fd = fcntl(storage->fd, F_DUPFD_CLOEXEC, 0);
    const char *slash;
    while (fd >= 0 && (slash = strchr(name, '/'))) {
        char component[NAME_MAX + 1];
        snprintf(component, sizeof component, "%.*s", (int)(slash - name), name);
        int made = make ? mkdirat(fd, component, 0777) : -1;
        int below = openat(fd, component, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        if (below >= 0 && made == 0 && fsync(fd) != 0) { /* the new folder's own entry */
            error = errno;
            close(below);
            below = -1;
        }
        close(fd);
        errno = error;
        fd = below;
        name = slash + 1;
    }
    *leaf = name;
    return fd;
}

static int write_all(int fd, const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t done = write(fd, bytes, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -1;
        bytes += done;
        size -= (size_t)done;
    }
    return 0;
}

/* A name that no other thread, process or host that shares the folder uses. */
static int temporary_name(char out[64])
{
    uint64_t random[2];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        return -1;
    snprintf(out, 64, ".unclip-%016jx%016jx", (uintmax_t)random[0], (uintmax_t)random[1]);
    return 0;
}

/* Writes leaf in the folder `parent` at once or not at all. Returns -1 with errno. */
static int write_leaf(int parent, const char *leaf, const void *bytes, size_t size)
{
    char temporary[64];
    if (temporary_name(temporary) != 0)
        return -1;
    int fd = openat(parent, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0)
        return -1;
    int result = write_all(fd, bytes, size);
    if (result == 0)
        result = fsync(fd);
    int error = errno;
    if (close(fd) != 0 && result == 0) {
        result = -1;
        error = errno;
    }
    errno = error;
    if (result == 0)
        result = renameat(parent, temporary, parent, leaf);
    if (result == 0)
        return fsync(parent);
    error = errno;
    unlinkat(parent, temporary, 0);
    errno = error;
    return -1;
}

int storage_uri(const struct storage *storage, const char *name, char **uri, struct err *err)
{
    if (!name_valid(name))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not a name for the artifact store",
                       name);
    *uri = make_uri(storage, name);
    return 0;
}

int storage_write(struct storage *storage, const char *name, const void *bytes, size_t size,
                  char **uri, struct err *err)
{
    char *made;
    int result = storage_uri(storage, name, &made, err);
    if (result != 0)
        return result;
    const char *leaf;
    int parent = open_parent(storage, name, true, &leaf);
    result = parent < 0 ? -1 : write_leaf(parent, leaf, bytes, size);
    if (result != 0) {
        struct err why;
        io_error(storage, "write", name, &why);
        result = err_set(err, ERR_IO, "%s", why.text);
        free(made);
    } else {
        *uri = made;
    }
    if (parent >= 0)
        close(parent);
    return result;
}

static int read_all(int fd, char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t got = read(fd, bytes, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = EIO; /* it shrank */
        if (got <= 0)
            return -1;
        bytes += got;
        size -= (size_t)got;
    }
    return 0;
}

/* Reads an open file; `name` is for messages. */
static int read_file(const struct storage *storage, int fd, const char *name, size_t max_size,
                     void **bytes, size_t *size, struct err *err)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return io_error(storage, "read", name, err);
    if (!S_ISREG(status.st_mode))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s/%s' is not a file", storage->root, name);
    if ((uintmax_t)status.st_size > max_size)
        return err_set(err, ERR_TOO_LARGE, "'%s/%s' has %jd bytes, at most %zu are allowed",
                       storage->root, name, (intmax_t)status.st_size, max_size);
    *size = (size_t)status.st_size;
    *bytes = malloc(*size ? *size : 1);
    if (!*bytes)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for the %zu bytes of '%s/%s'", *size,
                       storage->root, name);
    if (read_all(fd, *bytes, *size) == 0)
        return 0;
    free(*bytes);
    *bytes = NULL;
    return io_error(storage, "read", name, err);
}

int storage_read(struct storage *storage, const char *uri, size_t max_size, void **bytes,
                 size_t *size, struct err *err)
{
    char *name;
    int result = parse_uri(storage, uri, &name, err);
    if (result != 0)
        return result;
    const char *leaf;
    int parent = open_parent(storage, name, false, &leaf);
    int fd = parent < 0 ? -1 : openat(parent, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        result = io_error(storage, "open", name, err);
    else
        result = read_file(storage, fd, name, max_size, bytes, size, err);
    if (fd >= 0)
        close(fd);
    if (parent >= 0)
        close(parent);
    free(name);
    return result;
}

int storage_remove(struct storage *storage, const char *uri, struct err *err)
{
    char *name;
    int result = parse_uri(storage, uri, &name, err);
    if (result != 0)
        return result;
    const char *leaf;
    int parent = open_parent(storage, name, false, &leaf);
    if ((parent < 0 || unlinkat(parent, leaf, 0) != 0) && errno != ENOENT)
        result = io_error(storage, "remove", name, err);
    if (parent >= 0)
        close(parent);
    free(name);
    return result;
}
