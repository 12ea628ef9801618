/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as JSON, and as a record of the schema that the first byte names. What is JSON is the
 * same JSON again when it is written; members are read as each type, or refused with a reason.
 */
#include "common/json.h"
#include "common/schema.h"
#include "tests/fuzz/fuzz.h"

static const char *const schemas[] = {
    "job", "job-text-to-image", "job-cancel", "event", "state", "result", "dead-letter", "task",
};
#define SCHEMAS (sizeof schemas / sizeof *schemas)

static void check_same(const json_t *json)
{
    json_t *again = NULL;
    char *text = json_dumps(json, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    struct err err = {0};
    BUG_ON(!text);
    BUG_ON(jsonx_parse(&again, text, strlen(text), &err) != 0 || !json_equal(json, again));
    json_decref(again);
    free(text);
}

static void read_members(json_t *json)
{
    const char *key, *text = NULL;
    json_t *value;
    json_object_foreach (json, key, value) {
        struct err err = {0};
        int64_t number = 0;
        double real = 0;
        bool flag = false;
        int rc = jsonx_int(json, key, -5, 1000, &number, "file", &err);
        BUG_ON(rc == 0 && (number < -5 || number > 1000));
        if (rc < 0)
            check_refusal(rc, &err);
        if ((rc = jsonx_double(json, key, &real, "file", &err)) < 0)
            check_refusal(rc, &err);
        if ((rc = jsonx_bool(json, key, &flag, "file", &err)) < 0)
            check_refusal(rc, &err);
        if ((rc = jsonx_string(json, key, &text, "file", &err)) < 0)
            check_refusal(rc, &err);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    const char *schema = schemas[take_byte(&input) % SCHEMAS];
    struct err err = {0};
    json_t *json = NULL;
    int valid = schema_validate(schema, (const char *)input.data, input.size, &err);
    if (valid < 0)
        check_refusal(valid, &err);
    int rc = jsonx_parse(&json, (const char *)input.data, input.size, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return 0;
    }
    BUG_ON(valid == 0 && !json_is_object(json));
    check_same(json);
    if (json_is_object(json))
        read_members(json);
    json_decref(json);
    return 0;
}
