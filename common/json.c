/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON from outside. jansson itself refuses broken UTF-8, lone surrogates, NUL in strings, integers
 * beyond 64 bits and reals that overflow; here come the limits on size and the messages.
 */
#include "common/json.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"

int jsonx_parse(json_t **out, const char *bytes, size_t size, struct err *err)
{
    json_error_t error;
    json_t *value = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        return err_set(err, ERR_INVALID_JSON, "line %d, column %d: %s", error.line, error.column,
                       error.text);
    *out = value;
    return 0;
}

/* Returns a descriptor of a regular file, or a negative code. */
static int open_file(const char *path, size_t max_size, size_t *size, struct err *err)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    int result = 0;
    if (fstat(fd, &status) != 0)
        result = err_set(err, ERR_IO, "cannot read '%s': %s", path, strerror(errno));
    else if (!S_ISREG(status.st_mode))
        result = err_set(err, ERR_IO, "'%s' is not a regular file", path);
    else if ((size_t)status.st_size > max_size)
        result = err_set(err, ERR_INVALID_MODEL, "'%s' has %lld bytes, at most %zu are allowed",
                         path, (long long)status.st_size, max_size);
    if (result == 0) {
        *size = (size_t)status.st_size;
        return fd;
    }
    close(fd);
    return result;
}

static int read_all(int fd, char *bytes, size_t size, const char *path, struct err *err)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = read(fd, bytes + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return err_set(err, ERR_IO, "cannot read '%s': %s", path,
                           got < 0 ? strerror(errno) : "it shrank meanwhile");
        done += (size_t)got;
    }
    return 0;
}

int jsonx_read_file(json_t **out, const char *path, size_t max_size, struct err *err)
{
    size_t size = 0;
    int fd = open_file(path, max_size, &size, err);
    if (fd < 0)
        return fd;
    char *bytes = xmalloc(size);
    struct err why;
    int result = read_all(fd, bytes, size, path, err);
    if (result == 0 && jsonx_parse(out, bytes, size, &why) != 0)
        result = err_set(err, ERR_INVALID_MODEL, "'%s' is not valid JSON: %s", path, why.text);
    free(bytes);
    close(fd);
    return result;
}

/* The member, or NULL where it is absent or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static int wrong_type(const char *what, const char *key, const char *wanted, struct err *err)
{
    return err_set(err, ERR_INVALID_MODEL, "%s: '%s' must be %s", what, key, wanted);
}

int jsonx_int(const json_t *object, const char *key, int64_t minimum, int64_t maximum,
              int64_t *value, const char *what, struct err *err)
{
    const json_t *found = member(object, key);
    if (!found)
        return 0;
    if (!json_is_integer(found))
        return wrong_type(what, key, "an integer", err);
    json_int_t number = json_integer_value(found);
    if (number < minimum || number > maximum)
        return err_set(err, ERR_INVALID_MODEL, "%s: '%s' is %lld, it must be from %lld to %lld",
                       what, key, (long long)number, (long long)minimum, (long long)maximum);
    *value = number;
    return 0;
}

int jsonx_double(const json_t *object, const char *key, double *value, const char *what,
                 struct err *err)
{
    const json_t *found = member(object, key);
    if (!found)
        return 0;
    if (!json_is_number(found))
        return wrong_type(what, key, "a number", err);
    *value = json_number_value(found);
    return 0;
}

int jsonx_bool(const json_t *object, const char *key, bool *value, const char *what,
               struct err *err)
{
    const json_t *found = member(object, key);
    if (!found)
        return 0;
    if (!json_is_boolean(found))
        return wrong_type(what, key, "true or false", err);
    *value = json_is_true(found);
    return 0;
}

int jsonx_string(const json_t *object, const char *key, const char **value, const char *what,
                 struct err *err)
{
    const json_t *found = member(object, key);
    if (!found)
        return 0;
    if (!json_is_string(found))
        return wrong_type(what, key, "a string", err);
    *value = json_string_value(found);
    return 0;
}
