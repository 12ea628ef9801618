/* SPDX-License-Identifier: Apache-2.0 */
/* unclip cancel: a record to the partition that the job lives on, so that it cannot overtake it. */
#include "client/command.h"
#include "client/record.h"
#include "client/status_hash.h"
#include "common/clock.h"

static const char record[] = "{\"version\":1,\"type\":\"cancel\"}";

static enum exit_code cancel(const struct invocation *invocation, const char *id,
                             const json_t *status)
{
    struct err err;

    if (job_state_final(status_state(status))) {
        complain(invocation, "job '%s' has already ended: %s", id, status_text(status, "state"));
        return EXIT_FAILED;
    }
    int partition = json_is_integer(json_object_get(status, "partition"))
                        ? (int)status_int(status, "partition")
                        : KAFKA_ANY_PARTITION;
    if (record_send(invocation->config, id, partition, record, &err) < 0)
        return complain_of(invocation, &err);
    fprintf(stderr, "asked to cancel %s\n", id);
    return EXIT_OK;
}

static enum exit_code run(const struct invocation *invocation)
{
    const char *id = invocation->operands[0];
    struct redis *redis = NULL;
    struct err err;
    json_t *status = NULL;
    enum exit_code code;

    if (redis_open(&redis, invocation->config->redis, clock_system(), &err) < 0 ||
        status_fetch(redis, id, &status, &err) < 0)
        code = complain_of(invocation, &err);
    else
        code = cancel(invocation, id, status);
    json_decref(status);
    redis_close(redis);
    return code;
}

static const struct option_group groups[] = {{0}};

const struct command cancel_command = {
    .name = "cancel",
    .operands = "ID",
    .least = 1,
    .most = 1,
    .summary = "end a job; pictures that are done stay",
    .groups = groups,
    .settings = {"kafka", "redis"},
    .run = run,
};
