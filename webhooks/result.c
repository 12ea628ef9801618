/* SPDX-License-Identifier: Apache-2.0 */
/* Results to deliveries; see result.h. */
#include "webhooks/result.h"

#include <jansson.h>
#include <string.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

/* "host:port" of an http URL as it stands there, in lower case, fit to be logged. Owned. */
static char *host_of(const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    size_t length = strcspn(host, "/?#");
    const char *at = memrchr(host, '@', length); /* what is before it may be a password */
    if (at) {
        length -= (size_t)(at + 1 - host);
        host = at + 1;
    }
    char *name = xasprintf("%.*s", (int)length, host);
    for (char *c = name; *c; c++)
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c > ' ' && *c <= '~' ? *c : '?';
    return name;
}

int result_read(struct delivery *delivery, struct err *err)
{
    static const char key[] = "\"webhook\"";
    const struct kafka_record *record = delivery->record;
    json_t *json = NULL;
    delivery->state = DELIVERY_SETTLED;
    if (!record->value || !memmem(record->value, record->value_size, key, strlen(key)))
        return 0; /* most have none, and are not parsed */
    int rc = schema_validate("result", record->value, record->value_size, err);
    if (!rc)
        rc = jsonx_parse(&json, record->value, record->value_size, err);
    if (rc)
        return rc;
    const char *url =
        json_string_value(json_object_get(json_object_get(json, "request"), "webhook"));
    if (url) {
        delivery->url = xstrdup(url);
        delivery->host = host_of(url);
        delivery->job = xstrdup(json_string_value(json_object_get(json, "id")));
        delivery->state = DELIVERY_WAITING;
    }
    json_decref(json);
    return 0;
}
