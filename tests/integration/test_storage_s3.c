/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact store in a bucket, against a real S3 server: s3.sh starts one and names it in the
 * environment, with the bucket `pictures` made.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/http.h"
#include "common/storage.h"

#define PLACE "s3://pictures/some/folder"
#define LARGE (130u << 20) /* three parts */

static struct storage *store;

static int set_up(void **state)
{
    struct err err;
    (void)state;
    if (http_setup(&err))
        return -1;
    int rc = storage_open(&store, PLACE, &err);
    if (rc)
        print_error("%s\n", err.text);
    return rc;
}

static int tear_down(void **state)
{
    (void)state;
    storage_close(store);
    return 0;
}

static void there_and_back(void **state)
{
    static const char *const names[] = {"job-1/0.png", "job-1/with space & more+%.webp", "x",
                                        "猫/0"};
    struct err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *uri;
        void *bytes;
        size_t size;
        if (storage_write(store, names[i], "first", 5, &uri, &err))
            fail_msg("%s", err.text);
        assert_memory_equal(uri, PLACE "/", strlen(PLACE) + 1);
        free(uri);
        assert_int_equal(storage_write(store, names[i], "second", 6, &uri, &err), 0);
        if (storage_read(store, uri, 6, &bytes, &size, &err))
            fail_msg("%s", err.text);
        assert_int_equal(size, 6);
        assert_memory_equal(bytes, "second", 6);
        free(bytes);
        assert_int_equal(storage_read(store, uri, 5, &bytes, &size, &err), -ERR_TOO_LARGE);
        assert_int_equal(storage_remove(store, uri, &err), 0);
        assert_int_equal(storage_read(store, uri, 6, &bytes, &size, &err), -ERR_NOT_FOUND);
        assert_int_equal(storage_remove(store, uri, &err), 0);
        free(uri);
    }
}

static void nothing_is_something(void **state)
{
    struct err err = {0};
    char *uri;
    void *bytes;
    size_t size;
    (void)state;
    assert_int_equal(storage_write(store, "empty", "", 0, &uri, &err), 0);
    assert_int_equal(storage_read(store, uri, 0, &bytes, &size, &err), 0);
    assert_int_equal(size, 0);
    free(bytes);
    free(uri);
}

static void large_objects(void **state)
{
    struct err err = {0};
    char *uri;
    void *bytes;
    size_t size;
    (void)state;
    unsigned char *large = malloc(LARGE);
    assert_non_null(large);
    for (size_t i = 0; i < LARGE; i++)
        large[i] = (unsigned char)(i * 2654435761u >> 13);
    if (storage_write(store, "large", large, LARGE, &uri, &err))
        fail_msg("%s", err.text);
    if (storage_read(store, uri, LARGE, &bytes, &size, &err))
        fail_msg("%s", err.text);
    assert_int_equal(size, LARGE);
    assert_true(memcmp(bytes, large, LARGE) == 0);
    assert_int_equal(storage_remove(store, uri, &err), 0);
    free(bytes);
    free(large);
    free(uri);
}

static void other_places(void **state)
{
    struct err err = {0};
    void *bytes;
    size_t size;
    (void)state;
    static const char *const uris[] = {"s3://pictures/some/folder", "s3://pictures/other/x",
                                       "s3://other/some/folder/x", "file:///etc/passwd",
                                       "s3://pictures/some/folder/../x"};
    for (size_t i = 0; i < sizeof uris / sizeof *uris; i++)
        assert_int_equal(storage_read(store, uris[i], 9, &bytes, &size, &err),
                         -ERR_INVALID_ARGUMENT);
}

static void assert_closed(const char *place, const char *why)
{
    struct storage *other;
    struct err err = {0};
    assert_int_equal(storage_open(&other, place, &err), -ERR_INVALID_ARGUMENT);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in: %s", why, err.text);
}

static void refused_places(void **state)
{
    (void)state;
    assert_closed("s3://no-such-bucket", "there is no bucket");
    assert_closed("s3://No/x", "is not s3://bucket");
    assert_closed("s3://pictures/", "is not s3://bucket");
    assert_closed("gs://pictures", "neither a folder nor s3://");
    char *secret = strdup(getenv("AWS_SECRET_ACCESS_KEY"));
    setenv("AWS_SECRET_ACCESS_KEY", "wrong", 1);
    assert_closed(PLACE, "check its region and the credentials");
    unsetenv("AWS_SECRET_ACCESS_KEY");
    assert_closed(PLACE, "needs AWS_ACCESS_KEY_ID");
    setenv("AWS_SECRET_ACCESS_KEY", secret, 1);
    free(secret);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back), cmocka_unit_test(nothing_is_something),
        cmocka_unit_test(large_objects),  cmocka_unit_test(other_places),
        cmocka_unit_test(refused_places),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
