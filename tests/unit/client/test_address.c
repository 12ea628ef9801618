/* SPDX-License-Identifier: Apache-2.0 */
/* What a person writes for a picture, as an address of a job. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "client/address.h"
#include "client/artifact.h"
#include "common/memory.h"

static char folder[] = "/tmp/unclip-address-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

/* A file that begins like a GIF. Owned path. */
static char *gif(const char *name, size_t size)
{
    char *path = xasprintf("%s/%s", folder, name);
    char *bytes = xcalloc(1, size);
    memcpy(bytes, "GIF89a", 6);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    free(bytes);
    return path;
}

static void test_addresses_pass(void **state)
{
    static const char *const words[] = {"data:,", "http://a.org/b", "https://a.org/b.png",
                                        "file:///a/b.png", "s3://bucket/a.png"};
    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct addresses addresses = {0};
        struct err err;
        char *address = NULL;
        assert_int_equal(address_take(&addresses, words[i], &address, &err), 0);
        assert_string_equal(address, words[i]);
        free(address);
    }
}

static void test_refusals(void **state)
{
    struct addresses addresses = {0};
    struct err err;
    char *address = NULL, *words = gif("words", 8);
    (void)state;
    FILE *file = fopen(words, "wb");
    fputs("no picture", file);
    fclose(file);
    assert_int_equal(address_take(&addresses, words, &address, &err), -ERR_INVALID_IMAGE);
    assert_int_equal(address_take(&addresses, folder, &address, &err), -ERR_IO);
    assert_int_equal(address_take(&addresses, "/none/such", &address, &err), -ERR_IO);
    assert_null(address);
    free(words);
}

/* Files travel in the record while all of them together are small; the others go to the store. */
static void test_small_and_large(void **state)
{
    char *store = xasprintf("%s/store", folder), *upload = xasprintf("file://%s/uploads/", store);
    struct config config = {.artifacts = store};
    struct addresses addresses = {.config = &config};
    struct err err;
    char *first = NULL, *second = NULL, *third = NULL;
    char *large = gif("large", ADDRESS_INLINE_MAX - 100), *small = gif("small", 101),
         *tiny = gif("tiny", 6);
    (void)state;
    assert_int_equal(address_take(&addresses, large, &first, &err), 0);
    assert_int_equal(strncmp(first, "data:image/gif;base64,R0lGODlh", 30), 0);
    assert_int_equal(address_take(&addresses, small, &second, &err), 0);
    assert_int_equal(strncmp(second, upload, strlen(upload)), 0);
    assert_string_equal(second + strlen(second) - 4, ".gif");
    assert_int_equal(access(second + strlen("file://"), R_OK), 0);
    assert_int_equal(address_take(&addresses, tiny, &third, &err), 0);
    assert_string_equal(third, "data:image/gif;base64,R0lGODlh");
    addresses_release(&addresses);
    free(first);
    free(second);
    free(third);
    free(large);
    free(small);
    free(tiny);
    free(upload);
    free(store);
}

/* This process's own job reads a large file where it lies, whatever its name. */
static void test_own(void **state)
{
    struct addresses addresses = {.local = true};
    struct err err;
    char *path = gif("50% é ?#.gif", ADDRESS_INLINE_MAX + 1), *address = NULL, *back = NULL;
    (void)state;
    assert_int_equal(address_take(&addresses, path, &address, &err), 0);
    assert_non_null(strstr(address, "/50%25%20%C3%A9%20%3F%23.gif"));
    assert_int_equal(artifact_path(address, &back, &err), 0);
    assert_string_equal(back, path);
    free(back);
    free(address);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_pass),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_small_and_large),
        cmocka_unit_test(test_own),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
