/* SPDX-License-Identifier: Apache-2.0 */
/* Digests equal SHA-256's published values; fingerprints tell folders apart. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "workers/fingerprint.h"

static char folder[] = "/tmp/unclip-fingerprint.XXXXXX";

static void published_values(void **state)
{
    (void)state;
    char out[DIGEST_TEXT_SIZE];
    digest_of("", 0, out); /* FIPS 180-4's examples */
    assert_string_equal(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    digest_of("abc", 3, out);
    assert_string_equal(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void pair(const char *first, const char *second, char out[DIGEST_TEXT_SIZE])
{
    struct digest *digest = digest_new();
    digest_add_text(digest, first);
    digest_add_text(digest, second);
    digest_finish(digest, out);
}

static void texts_do_not_run_together(void **state)
{
    (void)state;
    char a[DIGEST_TEXT_SIZE], b[DIGEST_TEXT_SIZE];
    pair("ab", "c", a);
    pair("a", "bc", b);
    assert_string_not_equal(a, b);
}

static void write_file(const char *name, size_t size, size_t changed)
{
    char path[256];
    char *bytes = calloc(1, size + 1);
    if (changed < size)
        bytes[changed] = 1;
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
    free(bytes);
}

static void take(char out[DIGEST_TEXT_SIZE])
{
    struct digest *digest = digest_new();
    struct err err = {0};
    assert_int_equal(fingerprint_folder(digest, folder, &err), 0);
    digest_finish(digest, out);
}

static void folders_are_told_apart(void **state)
{
    (void)state;
    enum { LARGE = FINGERPRINT_WHOLE_MAX + 12345 };
    char first[DIGEST_TEXT_SIZE], second[DIGEST_TEXT_SIZE];
    assert_non_null(mkdtemp(folder));
    take(first); /* empty */
    write_file("config.json", 100, SIZE_MAX);
    write_file("weights", LARGE, SIZE_MAX);
    take(second);
    assert_string_not_equal(first, second);
    take(first);
    assert_string_equal(first, second);
    const size_t changes[] = {0, FINGERPRINT_PAGE - 1, LARGE - 1}; /* first and last page */
    for (size_t i = 0; i < 3; i++) {
        write_file("weights", LARGE, changes[i]);
        take(first);
        assert_string_not_equal(first, second);
    }
    write_file("weights", LARGE + 1, SIZE_MAX);
    take(first);
    assert_string_not_equal(first, second);
    write_file("weights", LARGE, SIZE_MAX);
    write_file("config.json", 100, 57);
    take(first);
    assert_string_not_equal(first, second);
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    struct digest *digest = digest_new();
    assert_int_equal(fingerprint_folder(digest, folder, NULL), 0); /* a part that is not there */
    digest_finish(digest, first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values),
        cmocka_unit_test(texts_do_not_run_together),
        cmocka_unit_test(folders_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
