/* SPDX-License-Identifier: Apache-2.0 */
/* Files of pictures. */
#include "client/artifact.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* In place. */
static bool percent_decode(char *text)
{
    char *out = text;
    for (; *text; text++) {
        if (*text != '%') {
            *out++ = *text;
            continue;
        }
        int high = hex_value(text[1]), low = high < 0 ? -1 : hex_value(text[2]);
        if (low < 0 || (high == 0 && low == 0))
            return false;
        *out++ = (char)(high << 4 | low);
        text += 2;
    }
    *out = 0;
    return true;
}

int artifact_path(const char *uri, char **path, struct err *err)
{
    if (strncmp(uri, "file:///", 8) != 0)
        return err_set(err, ERR_UNSUPPORTED, "'%s' is not a file of this host", uri);
    char *decoded = xstrdup(uri + 7);
    if (!percent_decode(decoded)) {
        free(decoded);
        return err_set(err, ERR_UNSUPPORTED, "'%s' is not a valid URI", uri);
    }
    *path = decoded;
    return 0;
}

static int read_file(FILE *file, const char *path, size_t max_size, void **bytes, size_t *size,
                     struct err *err)
{
    struct stat stat;
    if (fstat(fileno(file), &stat) != 0 || !S_ISREG(stat.st_mode))
        return err_set(err, ERR_IO, "'%s' is not a regular file", path);
    if ((size_t)stat.st_size > max_size)
        return err_set(err, ERR_TOO_LARGE, "'%s' has %lld bytes, at most %zu are read", path,
                       (long long)stat.st_size, max_size);
    char *memory = malloc((size_t)stat.st_size + 1);
    if (!memory)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for '%s'", path);
    *size = fread(memory, 1, (size_t)stat.st_size, file);
    *bytes = memory;
    return 0;
}

int artifact_read(const char *path, size_t max_size, void **bytes, size_t *size, struct err *err)
{
    FILE *file = fopen(path, "rbe");
    if (!file)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    int rc = read_file(file, path, max_size, bytes, size, err);
    fclose(file);
    return rc;
}

int folder_make(const char *path, struct err *err)
{
    char *partial = xstrdup(path);
    int rc = 0;

    for (char *at = partial + 1; rc == 0; at++) {
        char end = *at;
        if (end != '/' && end)
            continue;
        *at = 0;
        if (mkdir(partial, 0777) != 0 && errno != EEXIST)
            rc = err_set(err, ERR_IO, "cannot make the folder '%s': %s", partial, strerror(errno));
        *at = end;
        if (!end)
            break;
    }
    free(partial);
    return rc;
}

int folder_ready(const char *path, struct err *err)
{
    char *probe = xasprintf("%s/.unclip-XXXXXX", path);
    int rc = folder_make(path, err);

    if (rc == 0) {
        int file = mkstemp(probe);
        if (file < 0)
            rc = err_set(err, ERR_IO, "cannot write into the folder '%s': %s", path,
                         strerror(errno));
        else if (close(file) != 0 || unlink(probe) != 0)
            rc = err_set(err, ERR_IO, "cannot write '%s': %s", probe, strerror(errno));
    }
    free(probe);
    return rc;
}

static bool write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wbe");
    bool good = file && fwrite(bytes, 1, size, file) == size;
    return file && fclose(file) == 0 && good;
}

int artifact_write(const char *path, const void *bytes, size_t size, struct err *err)
{
    char *temporary = xasprintf("%s.%d.tmp", path, (int)getpid());
    int rc = 0;

    if (!write_file(temporary, bytes, size) || rename(temporary, path) != 0) {
        rc = err_set(err, ERR_IO, "cannot write '%s': %s", path, strerror(errno));
        unlink(temporary);
    }
    free(temporary);
    return rc;
}
