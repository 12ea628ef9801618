/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs that say what is not allowed: in whatever field, refused or flagged, and what is told of it.
 */
#include "fixture.h"

#include <unistd.h>

static char path[] = "/tmp/unclip-policy-XXXXXX";

static int make_list(void **state)
{
    int fd = mkstemp(path);
    (void)state;
    bool written = fd >= 0 && write(fd, "forbidden\n", 10) == 10;
    return close(fd) || !written;
}

static int remove_list(void **state)
{
    (void)state;
    return unlink(path);
}

/* The fixture's handler follows it until policy_release(). */
static void set_policy(struct fixture *fixture, struct policy *policy, const char *action)
{
    char *copy = xstrdup(action);
    struct config config = {.deny_list = path, .deny_action = copy};
    struct err err = {0};
    if (policy_open(policy, &config, &err))
        fail_msg("%s", err.text);
    fixture->handler.policy = policy;
    free(copy);
}

/* Sends the job and holds its result's message against the field that is named. */
static void assert_denied(struct fixture *fixture, const char *key, const char *job,
                          const char *field)
{
    const struct kafka_output *output;
    struct outbox *outbox = send_job(fixture, key, job);
    assert_dead_letter(outbox, "content_denied");
    handle_settle(&fixture->handler);
    json_t *result = output_json(outbox, TOPIC_RESULTS, "result");
    char *message = xasprintf("'%s' says what is not allowed here", field);
    assert_member(result, "state", "failed");
    assert_member(result, "error_code", "content_denied");
    assert_member(result, "error_message", message);
    assert_int_equal(outputs_to(outbox, topic_tasks(STAGE_TEXT_ENCODE, CLASS_INTERACTIVE), &output),
                     0);
    free(message);
    json_decref(result);
    fixture_commit(fixture);
}

static void test_fields(void **state)
{
    struct fixture fixture;
    struct policy policy;
    (void)state;
    fixture_init(&fixture);
    set_policy(&fixture, &policy, "refuse");
    assert_denied(&fixture, "a",
                  "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a Forbidden heart\"}",
                  "/prompt");
    assert_denied(&fixture, "b",
                  "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a heart\","
                  "\"negative_prompt\":\"forbidden\",\"guidance\":{\"decoder\":0}}",
                  "/negative_prompt");
    assert_denied(&fixture, "c",
                  "{\"version\":1,\"type\":\"interpolate\",\"inputs\":[{\"text\":\"a heart\"},"
                  "{\"text\":\"FORBIDDEN\"}]}",
                  "/inputs/1");
    assert_denied(&fixture, "d",
                  "{\"version\":1,\"type\":\"text-diff\",\"image\":\"https://example.com/a.png\","
                  "\"from\":\"a heart\",\"to\":\"a forbidden heart\"}",
                  "/to");
    assert_denied(&fixture, "e",
                  "{\"version\":1,\"type\":\"edit\",\"image\":\"https://example.com/a.png\","
                  "\"mask\":\"https://example.com/b.png\",\"prompt\":\"it is forbidden\"}",
                  "/prompt");
    policy_release(&policy);
    fixture_release(&fixture);
}

static void test_allowed(void **state)
{
    struct fixture fixture;
    struct policy policy;
    (void)state;
    fixture_init(&fixture);
    set_policy(&fixture, &policy, "refuse");
    send_job(&fixture, "a",
             "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a heart\","
             "\"metadata\":{\"note\":\"forbidden\"}}");
    const struct live_job *job = ledger_find(fixture.ledger, HOME, "a");
    assert_non_null(job);
    json_t *notices = notices_json(job);
    assert_int_equal(json_array_size(notices), 0);
    json_decref(notices);
    policy_release(&policy);
    fixture_release(&fixture);
}

static void test_flagged(void **state)
{
    struct fixture fixture;
    struct policy policy;
    (void)state;
    fixture_init(&fixture);
    set_policy(&fixture, &policy, "flag");
    send_job(&fixture, "a",
             "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a forbidden heart\"}");
    const struct live_job *job = ledger_find(fixture.ledger, HOME, "a");
    assert_non_null(job);
    json_t *notices = notices_json(job);
    assert_int_equal(json_array_size(notices), 1);
    assert_string_equal(json_string_value(json_array_get(notices, 0)),
                        "'/prompt' says what is not allowed here");
    json_decref(notices);
    policy_release(&policy);
    fixture_release(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_flagged),
    };
    return cmocka_run_group_tests(tests, make_list, remove_list);
}
