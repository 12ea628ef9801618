/* SPDX-License-Identifier: Apache-2.0 */
/* Signatures against the reference vector of the Standard Webhooks project; secrets read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "webhooks/sign.h"

/* standard-webhooks/standard-webhooks, libraries/go/webhook_test.go */
#define SECRET          "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
#define ID              "msg_p5jXN8AQM9LWM0D4loKWxJek"
#define AT              1614265330
#define BODY            "{\"test\": 2432232314}"
#define SIGNATURE       "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
#define OTHER           "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#define OTHER_SIGNATURE "v1,O4Gjv1HqPqsMrjmczoggs/sWA8gZD0VyHG+fLh4+ktI="

static void assert_signs(const char *setting, const char *expected)
{
    struct secrets secrets;
    struct err err = {0};
    if (secrets_open(&secrets, setting, &err))
        fail_msg("%s", err.text);
    char *text = webhook_sign(&secrets, ID, AT, BODY, strlen(BODY));
    assert_string_equal(text, expected);
    free(text);
    secrets_release(&secrets);
}

static void test_vector(void **state)
{
    (void)state;
    assert_signs(SECRET, SIGNATURE);
    assert_signs("  " SECRET "\n", SIGNATURE);
}

/* The other key is 0..31; made with Python's hmac module. */
static void test_rotation(void **state)
{
    (void)state;
    assert_signs(SECRET " " OTHER, SIGNATURE " " OTHER_SIGNATURE);
    assert_signs(OTHER "\t" SECRET, OTHER_SIGNATURE " " SIGNATURE);
}

static void test_binary(void **state)
{
    struct secrets secrets;
    (void)state;
    assert_int_equal(secrets_open(&secrets, SECRET, NULL), 0);
    char *with_nul = webhook_sign(&secrets, ID, AT, "a\0b", 3);
    char *without = webhook_sign(&secrets, ID, AT, "a\0c", 3);
    assert_string_not_equal(with_nul, without);
    free(with_nul);
    free(without);
    secrets_release(&secrets);
}

static void assert_refused(const char *setting, const char *reason)
{
    struct secrets secrets;
    struct err err = {0};
    assert_int_equal(secrets_open(&secrets, setting, &err), -ERR_INVALID_ARGUMENT);
    if (!strstr(err.text, reason))
        fail_msg("'%s' does not say '%s'", err.text, reason);
    assert_null(strstr(err.text, "MfKQ"));
    assert_int_equal(secrets.count, 0);
}

static void test_refused(void **state)
{
    (void)state;
    assert_refused("", "no secret");
    assert_refused(" \n", "no secret");
    assert_refused("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "secret 1 does not begin");
    assert_refused(SECRET " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS", "secret 2 is not base 64");
    assert_refused("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLQ==", "has 22 bytes");
    assert_refused("whsec_", "secret 1");
    assert_refused(SECRET " " SECRET " " SECRET " " SECRET " " SECRET " " SECRET " " SECRET
                          " " SECRET " " SECRET,
                   "more than 8");
}

static void write_text(const char *path, const char *text, size_t copies)
{
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    while (copies-- > 0)
        assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

static void test_file(void **state)
{
    (void)state;
    char path[] = "/tmp/unclip-secret-XXXXXX", setting[64];
    struct secrets secrets;
    struct err err;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    snprintf(setting, sizeof setting, "@%s", path);
    write_text(path, SECRET "\n" OTHER "\n", 1);
    assert_signs(setting, SIGNATURE " " OTHER_SIGNATURE);
    write_text(path, SECRET "\n", 200);
    assert_refused(setting, "more than");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(secrets_open(&secrets, setting, &err), -ERR_IO);
}

/* Stable, and without the full stops that a job's id may have. */
static void test_id(void **state)
{
    char one[WEBHOOK_ID_SIZE], same[WEBHOOK_ID_SIZE], other[WEBHOOK_ID_SIZE];
    (void)state;
    webhook_id("a.b.1614265330", one);
    webhook_id("a.b.1614265330", same);
    webhook_id("a_b.1614265330", other);
    assert_string_equal(one, same);
    assert_string_not_equal(one, other);
    assert_int_equal(strlen(one), 36);
    assert_null(strchr(one, '.'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vector), cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_binary), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_file),   cmocka_unit_test(test_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
