/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading JSON from outside on top of jansson: sizes are limited before parsing, and a wrong type is
 * an error that names file and key. Prefix jsonx_, since json_ is jansson's.
 */
#ifndef UNCLIP_COMMON_JSON_H
#define UNCLIP_COMMON_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Reads a file of at most max_size bytes. *out is owned (json_decref). ERR_IO, ERR_INVALID_MODEL. */
int jsonx_read_file(json_t **out, const char *path, size_t max_size, struct err *err);
/* Parses bytes that need no NUL; duplicate keys and NUL bytes in strings are refused.
   ERR_INVALID_JSON with line and column. */
int jsonx_parse(json_t **out, const char *bytes, size_t size, struct err *err);

/*
 * Members of a config object. An absent or null member leaves *value as it is (the caller puts the
 * class's default there first); a wrong type or a value outside [minimum, maximum] is
 * ERR_INVALID_MODEL naming the key. `what` names the file in messages.
 */
int jsonx_int(const json_t *object, const char *key, int64_t minimum, int64_t maximum,
              int64_t *value, const char *what, struct err *err);
int jsonx_double(const json_t *object, const char *key, double *value, const char *what,
                 struct err *err);
int jsonx_bool(const json_t *object, const char *key, bool *value, const char *what,
               struct err *err);
/* Borrowed until the object goes. */
int jsonx_string(const json_t *object, const char *key, const char **value, const char *what,
                 struct err *err);

#endif
