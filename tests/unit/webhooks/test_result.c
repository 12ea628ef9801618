/* SPDX-License-Identifier: Apache-2.0 */
/* Final records: who is to be told, and what cannot be read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "webhooks/result.h"

#define RESULT(id, request)                                                                        \
    "{\"version\":1,\"id\":\"" id "\",\"type\":null,\"state\":\"failed\","                         \
    "\"created_at\":\"2026-01-31T12:34:56.789Z\",\"finished_at\":\"2026-01-31T12:34:56.789Z\","    \
    "\"request\":" request ",\"route\":[],\"images\":[],\"timings\":{},\"notices\":[],"            \
    "\"error_code\":\"\",\"error_message\":\"\"}"

/* Owned by the caller: delivery_free(). */
static struct delivery *read_text(const char *text, int expected)
{
    struct delivery *delivery = xcalloc(1, sizeof *delivery);
    struct err err = {0};
    delivery->record = xcalloc(1, sizeof *delivery->record);
    delivery->record->value = text;
    delivery->record->value_size = text ? strlen(text) : 0;
    int rc = result_read(delivery, &err);
    if (rc != expected)
        fail_msg("%d, not %d: %s", rc, expected, err.text);
    return delivery;
}

static void test_told(void **state)
{
    (void)state;
    struct delivery *one =
        read_text(RESULT("a.b", "{\"webhook\":\"https://Example.COM:8443/Path?x=1\"}"), 0);
    assert_int_equal(one->state, DELIVERY_WAITING);
    assert_string_equal(one->url, "https://Example.COM:8443/Path?x=1");
    assert_string_equal(one->host, "example.com:8443");
    assert_string_equal(one->job, "a.b");
    delivery_free(one);
    one = read_text(RESULT("c", "{\"webhook\":\"http://example.com?x\"}"), 0);
    assert_string_equal(one->host, "example.com");
    delivery_free(one);
    one = read_text(RESULT("d", "{\"webhook\":\"http://a\\nb\\u001b c/\"}"), 0);
    assert_string_equal(one->host, "a?b??c");
    delivery_free(one);
    one = read_text(RESULT("e", "{\"webhook\":\"http://user:secret@h:1/a@b\"}"), 0);
    assert_string_equal(one->host, "h:1");
    delivery_free(one);
}

static void assert_nobody(const char *text)
{
    struct delivery *one = read_text(text, 0);
    assert_int_equal(one->state, DELIVERY_SETTLED);
    assert_null(one->url);
    delivery_free(one);
}

static void test_nobody(void **state)
{
    (void)state;
    assert_nobody(NULL);
    assert_nobody("not JSON at all");
    assert_nobody(RESULT("a", "null"));
    assert_nobody(RESULT("a", "{\"prompt\":\"a heart\"}"));
    assert_nobody(RESULT("a", "{\"prompt\":\"\\\"webhook\\\"\"}"));
    assert_nobody(RESULT("a", "{\"metadata\":{\"webhook\":\"http://example.com\"}}"));
    assert_nobody(RESULT("a", "{\"webhook\":7}"));
}

static void test_unreadable(void **state)
{
    (void)state;
    struct delivery *one = read_text("{\"webhook\":", -ERR_INVALID_JSON);
    assert_null(one->url);
    delivery_free(one);
    delivery_free(read_text("{\"webhook\":\"http://example.com\"}", -ERR_INVALID_JOB));
    delivery_free(
        read_text("{\"version\":2,\"webhook\":\"http://example.com\"}", -ERR_UNSUPPORTED));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_told),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_unreadable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
