/* SPDX-License-Identifier: Apache-2.0 */
/* UNCLIP_FAULT: what is read, what is refused, and what happens at a point. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "child.h"
#include "common/fault.h"

static int use(const char *value, struct err *err)
{
    assert_int_equal(setenv("UNCLIP_FAULT", value, 1), 0);
    return fault_open(FAULT_WORKER, err);
}

static void test_nothing_asked_for(void **state)
{
    struct err err = {0};
    (void)state;
    unsetenv("UNCLIP_FAULT");
    assert_int_equal(fault_open(FAULT_WORKER, &err), 0);
    assert_int_equal(use("", &err), 0);
    assert_int_equal(fault_at(FAULT_BEFORE_COMPUTE, "a", &err), 0);
}

#if UNCLIP_FAULTS

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "nonsense",
        "worker:kill",
        "worker.:kill",
        "worker.nowhere:kill",
        "gateway.before_commit:kill",
        "worker.in_replay:kill",
        "coordinator.in_compute:kill",
        "worker.before_commit",
        "worker.before_commit:",
        "worker.before_commit:die",
        "worker.before_commit:kill:0",
        "worker.before_commit:kill:1x",
        "worker.before_commit:kill:1:2",
        "worker.before_commit:kill@",
        "worker.before_commit:sleep-",
        "worker.before_commit:sleep-0",
        "worker.before_commit:error",
        "worker.before_compute:error-nothing",
        "worker.before_compute:error-ok",
        "worker.before_compute:error,worker.nowhere:kill",
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err err = {0};
        if (use(bad[i], &err) != -ERR_INVALID_ARGUMENT)
            fail_msg("'%s' is taken", bad[i]);
        assert_non_null(strstr(err.text, "UNCLIP_FAULT"));
    }
}

static void test_nth(void **state)
{
    struct err err = {0};
    (void)state;
    assert_int_equal(use("worker.before_compute:error:2", &err), 0);
    assert_int_equal(fault_at(FAULT_BEFORE_COMPUTE, NULL, &err), 0);
    assert_int_equal(fault_at(FAULT_BEFORE_STORE, NULL, &err), 0);
    assert_int_equal(fault_at(FAULT_BEFORE_COMPUTE, NULL, &err), -ERR_IO);
    assert_string_equal(err.text, "fault at before_compute");
    assert_int_equal(fault_at(FAULT_BEFORE_COMPUTE, NULL, &err), 0);
}

static void test_onwards_and_subject(void **state)
{
    struct err err = {0};
    (void)state;
    assert_int_equal(
        use("worker.before_compute:error-timeout@a.b-1:2+,coordinator.in_replay:kill", &err), 0);
    assert_int_equal(fault_at(FAULT_IN_REPLAY, NULL, &err), 0); /* the coordinator's */
    assert_int_equal(fault_at(FAULT_BEFORE_COMPUTE, "a.b-1", &err), 0);
    assert_int_equal(fault_at(FAULT_BEFORE_COMPUTE, "other", &err), 0);
    assert_int_equal(fault_at(FAULT_BEFORE_COMPUTE, NULL, &err), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(fault_at(FAULT_BEFORE_COMPUTE, "a.b-1", &err), -ERR_TIMEOUT);
}

static void test_two_at_one_point(void **state)
{
    struct err err = {0};
    (void)state;
    assert_int_equal(use("worker.before_store:error:1,worker.before_store:error-timeout:2", &err),
                     0);
    assert_int_equal(fault_at(FAULT_BEFORE_STORE, NULL, &err), -ERR_IO);
    assert_int_equal(fault_at(FAULT_BEFORE_STORE, NULL, &err), -ERR_TIMEOUT);
    assert_int_equal(fault_at(FAULT_BEFORE_STORE, NULL, &err), 0);
}

static void pass_commit(void)
{
    fault_at(FAULT_BEFORE_COMMIT, NULL, NULL);
}

static void test_deaths(void **state)
{
    char said[4096];
    struct err err = {0};
    (void)state;
    assert_int_equal(use("worker.before_commit:kill", &err), 0);
    int status = in_child(pass_commit, said, sizeof said);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(use("worker.before_commit:exit", &err), 0);
    status = in_child(pass_commit, said, sizeof said);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_int_equal(use("worker.before_commit:sleep-20", &err), 0);
    status = in_child(pass_commit, said, sizeof said);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#else

static void test_release_refuses(void **state)
{
    struct err err = {0};
    (void)state;
    assert_int_equal(use("worker.before_commit:kill", &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.text, "release build"));
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_asked_for),
#if UNCLIP_FAULTS
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_nth),
        cmocka_unit_test(test_onwards_and_subject),
        cmocka_unit_test(test_two_at_one_point),
        cmocka_unit_test(test_deaths),
#else
        cmocka_unit_test(test_release_refuses),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
