/* SPDX-License-Identifier: Apache-2.0 */
/* Reading and checking a network's config.json; see netconfig.h. */
#include "stages/networks/netconfig.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "common/model_card.h"

int netconfig_open(struct netconfig *config, const char *folder, struct err *err)
{
    const char *slash = strrchr(folder, '/');
    config->what = xasprintf("%s/config.json", slash ? slash + 1 : folder);
    char *path = xasprintf("%s/config.json", folder);
    int rc = jsonx_read_file(&config->json, path, MODEL_JSON_MAX, err);
    if (rc == 0 && !json_is_object(config->json))
        rc = err_set(err, ERR_INVALID_MODEL, "%s: is not a JSON object", config->what);
    free(path);
    return rc;
}

void netconfig_close(struct netconfig *config)
{
    json_decref(config->json);
    free(config->what);
    memset(config, 0, sizeof *config);
}

int netconfig_size(const struct netconfig *config, const char *key, int64_t maximum, int64_t *value,
                   struct err *err)
{
    return jsonx_int(config->json, key, 1, maximum, value, config->what, err);
}

int netconfig_levels(const struct netconfig *config, const char *key, int levels, int64_t maximum,
                     int64_t *values, struct err *err)
{
    const json_t *list = json_object_get(config->json, key);
    if (!json_is_array(list)) {
        int64_t value = values[0];
        int rc = netconfig_size(config, key, maximum, &value, err);
        for (int i = 0; i < levels && rc == 0 && list; i++)
            values[i] = value;
        return rc;
    }
    if (json_array_size(list) != (size_t)levels)
        return err_set(err, ERR_INVALID_MODEL, "%s: %s has %zu entries, expected %d", config->what,
                       key, json_array_size(list), levels);
    for (int i = 0; i < levels; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        json_int_t size = json_integer_value(value);
        if (!json_is_integer(value) || size < 1 || size > maximum)
            return err_set(err, ERR_INVALID_MODEL, "%s: %s[%d] is not an integer from 1 to %lld",
                           config->what, key, i, (long long)maximum);
        values[i] = size;
    }
    return 0;
}

int netconfig_class(const struct netconfig *config, const char *class_name, struct err *err)
{
    const char *name = class_name;
    int rc = jsonx_string(config->json, "_class_name", &name, config->what, err);
    if (rc == 0 && strcmp(name, class_name) != 0)
        rc = err_set(err, ERR_UNSUPPORTED, "%s: _class_name is '%.80s', expected '%s'",
                     config->what, name, class_name);
    return rc;
}

static bool equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return fabs(json_number_value(a) - json_number_value(b)) == 0;
    return json_equal(a, b);
}

static bool holds_only(const json_t *value, const json_t *only)
{
    if (!json_is_array(value))
        return equal(value, only);
    for (size_t i = 0; i < json_array_size(value); i++)
        if (!equal(json_array_get(value, i), only))
            return false;
    return true;
}

static int check_one(const struct netconfig *config, const struct netconfig_fixed *fixed,
                     struct err *err)
{
    const json_t *value = json_object_get(config->json, fixed->key);
    if (!value && fixed->required)
        return err_set(err, ERR_UNSUPPORTED, "%s: %s is absent, and only %s is supported",
                       config->what, fixed->key, fixed->json);
    if (!value || (json_is_null(value) && !fixed->required))
        return 0;
    json_t *only = json_loads(fixed->json, JSON_DECODE_ANY, NULL);
    BUG_ON(!only);
    int rc = 0;
    if (!holds_only(value, only)) {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        rc = err_set(err, ERR_UNSUPPORTED, "%s: %s is %.80s, which is not supported (only %s is)",
                     config->what, fixed->key, text ? text : "?", fixed->json);
        free(text);
    }
    json_decref(only);
    return rc;
}

int netconfig_check(const struct netconfig *config, const struct netconfig_fixed *table,
                    struct err *err)
{
    int rc = 0;
    for (; rc == 0 && table->key; table++)
        rc = check_one(config, table, err);
    return rc;
}

struct netconfig_name netconfig_name(const char *format, ...)
{
    struct netconfig_name name;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(name.text, sizeof name.text, format, arguments);
    va_end(arguments);
    BUG_ON(length < 0 || (size_t)length >= sizeof name.text);
    return name;
}
