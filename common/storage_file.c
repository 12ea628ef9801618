/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact store in a folder. All work below it goes through a descriptor of it and openat() of
 * one component after the other with O_NOFOLLOW: no name and no symbolic link in the store leads
 * out of it. Nothing here is guarded, because nothing changes after the store is open.
 */
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
#include "common/storage_ops.h"

struct folder {
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

static int folder_open(void **state, const char *place, char **root, struct err *err)
{
    int result = make_folders(place, err);
    if (result != 0)
        return result;
    char *path = realpath(place, NULL);
    int fd = path ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0) {
        free(path);
        return err_set(err, ERR_IO, "cannot open the folder '%s': %s", place, strerror(errno));
    }
    struct folder *folder = xcalloc(1, sizeof *folder);
    folder->root = path;
    folder->fd = fd;
    *root = xstrdup(strcmp(path, "/") == 0 ? "" : path);
    *state = folder;
    return 0;
}

static void folder_close(void *state)
{
    struct folder *folder = state;
    close(folder->fd);
    free(folder->root);
    free(folder);
}

/* --- files --- */

static int io_error(const struct folder *folder, const char *verb, const char *name,
                    struct err *err)
{
    return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot %s '%s/%s': %s", verb,
                   folder->root, name, strerror(errno));
}

/*
 * Opens the folder that `name` lies in, making folders when `make`. Returns a descriptor, or -1
 * with errno; *leaf points to the last component.
 */
static int open_parent(const struct folder *folder, const char *name, bool make, const char **leaf)
{
    int fd = fcntl(folder->fd, F_DUPFD_CLOEXEC, 0);
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

static int folder_write(void *state, const char *name, const void *bytes, size_t size,
                        struct err *err)
{
    const struct folder *folder = state;
    const char *leaf;
    int parent = open_parent(folder, name, true, &leaf);
    int result = parent < 0 ? -1 : write_leaf(parent, leaf, bytes, size);
    if (result != 0) {
        struct err why;
        io_error(folder, "write", name, &why);
        result = err_set(err, ERR_IO, "%s", why.text);
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
static int read_file(const struct folder *folder, int fd, const char *name, size_t max_size,
                     void **bytes, size_t *size, struct err *err)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return io_error(folder, "read", name, err);
    if (!S_ISREG(status.st_mode))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s/%s' is not a file", folder->root, name);
    if ((uintmax_t)status.st_size > max_size)
        return err_set(err, ERR_TOO_LARGE, "'%s/%s' has %jd bytes, at most %zu are allowed",
                       folder->root, name, (intmax_t)status.st_size, max_size);
    *size = (size_t)status.st_size;
    *bytes = malloc(*size ? *size : 1);
    if (!*bytes)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for the %zu bytes of '%s/%s'", *size,
                       folder->root, name);
    if (read_all(fd, *bytes, *size) == 0)
        return 0;
    free(*bytes);
    *bytes = NULL;
    return io_error(folder, "read", name, err);
}

static int folder_read(void *state, const char *name, size_t max_size, void **bytes, size_t *size,
                       struct err *err)
{
    const struct folder *folder = state;
    const char *leaf;
    int parent = open_parent(folder, name, false, &leaf);
    int fd = parent < 0 ? -1 : openat(parent, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int result = fd < 0 ? io_error(folder, "open", name, err)
                        : read_file(folder, fd, name, max_size, bytes, size, err);
    if (fd >= 0)
        close(fd);
    if (parent >= 0)
        close(parent);
    return result;
}

static int folder_remove(void *state, const char *name, struct err *err)
{
    const struct folder *folder = state;
    const char *leaf;
    int parent = open_parent(folder, name, false, &leaf), result = 0;
    if ((parent < 0 || unlinkat(parent, leaf, 0) != 0) && errno != ENOENT)
        result = io_error(folder, "remove", name, err);
    if (parent >= 0)
        close(parent);
    return result;
}

const struct storage_ops storage_file_ops = {
    .scheme = "file://",
    .open = folder_open,
    .close = folder_close,
    .write = folder_write,
    .read = folder_read,
    .remove = folder_remove,
};
