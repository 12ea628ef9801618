/* SPDX-License-Identifier: Apache-2.0 */
/* unclip model check: can this directory serve? */
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/local_model.h"
#include "client/model_report.h"
#include "common/memory.h"
#include "stages/stage.h"

struct values {
    bool load, json;
};

/* Opens every stage as a worker would. */
static void load_stages(struct model_report *report, struct nn *nn)
{
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        struct stage_model *model = NULL;
        struct err err;
        if (stage_open(&model, stage, report->path, nn, &err) < 0) {
            char *text = xasprintf("%s: %s", stage_name(stage), err.text);
            model_report_problem(report, text);
            free(text);
        }
        stage_close(model);
    }
}

static enum exit_code check(const struct invocation *invocation, struct model_report *report)
{
    const struct values *values = invocation->values;
    struct nn *nn = NULL;
    struct err err;

    if (values->load && model_report_good(report)) {
        if (local_nn_open(&nn, invocation->config, &err) < 0)
            return complain_of(invocation, &err);
        load_stages(report, nn);
        nn_close(nn);
    }
    if (values->json) {
        json_t *json = model_report_json(report);
        json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
        puts("");
        json_decref(json);
    } else if (report->count) {
        model_report_print(report, stdout);
    }
    for (int i = 0; i < report->problem_count; i++)
        complain(invocation, "%s", report->problems[i]);
    if (model_report_good(report) && !values->json)
        printf("good%s\n", values->load ? ": every stage loads" : "");
    return model_report_good(report) ? EXIT_OK : EXIT_FAILED;
}

static enum exit_code run(const struct invocation *invocation)
{
    struct model_report report;

    if (strcmp(invocation->operands[0], "check") != 0) {
        complain(invocation, "knows 'check' only, not '%s'", invocation->operands[0]);
        return EXIT_MISUSE;
    }
    model_report_make(&report, invocation->operands[1]);
    enum exit_code code = check(invocation, &report);
    model_report_release(&report);
    return code;
}

#define AT(member) offsetof(struct values, member)

static const struct option options[] = {
    {"load", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(load), "really load every stage"},
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(json), "as one JSON object"},
    {0},
};
static const struct option_group groups[] = {{"Options", options}, {0}};

const struct command model_command = {
    .name = "model",
    .operands = "check DIR",
    .least = 2,
    .most = 2,
    .summary = "look at a model directory: what is in it, what is missing",
    .groups = groups,
    .values_size = sizeof(struct values),
    .settings = {"dtype", "threads"},
    .run = run,
};
