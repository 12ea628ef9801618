/* SPDX-License-Identifier: Apache-2.0 */
/* unclip status: one look at the status hash. */
#include "client/command.h"
#include "client/status_hash.h"
#include "common/clock.h"

struct values {
    bool json;
};

static enum exit_code run(const struct invocation *invocation)
{
    const struct values *values = invocation->values;
    struct redis *redis = NULL;
    struct err err;
    json_t *status = NULL;
    enum exit_code code = EXIT_OK;

    if (redis_open(&redis, invocation->config->redis, clock_system(), &err) < 0 ||
        status_fetch(redis, invocation->operands[0], &status, &err) < 0)
        code = complain_of(invocation, &err);
    else if (values->json)
        json_dumpf(status, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15)), puts("");
    else
        status_print(status, stdout);
    json_decref(status);
    redis_close(redis);
    return code;
}

static const struct option options[] = {
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, offsetof(struct values, json), "as one JSON object"},
    {0},
};
static const struct option_group groups[] = {{"Output", options}, {0}};

const struct command status_command = {
    .name = "status",
    .operands = "ID",
    .least = 1,
    .most = 1,
    .summary = "show how a job is doing",
    .groups = groups,
    .values_size = sizeof(struct values),
    .settings = {"redis"},
    .run = run,
};
