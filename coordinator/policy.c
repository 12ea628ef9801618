/* SPDX-License-Identifier: Apache-2.0 */
/* The deny-list held against jobs; see policy.h. */
#include "coordinator/policy.h"

#include <stdio.h>
#include <string.h>

int policy_open(struct policy *policy, const struct config *config, struct err *err)
{
    *policy = (struct policy){.flags = strcmp(config->deny_action, "flag") == 0};
    if (strcmp(config->deny_list, "none") == 0)
        return 0;
    int rc = deny_open(&policy->deny, config->deny_list, err);
    return rc ? err_prefix(err, "deny-list") : 0;
}

void policy_release(struct policy *policy)
{
    deny_free(policy->deny);
    *policy = (struct policy){0};
}

static int check(const struct policy *policy, const char *field, const char *text, struct err *err)
{
    enum deny_match match = text && *text ? deny_check(policy->deny, text) : DENY_NOTHING;
    if (match == DENY_MATCHES)
        return err_set(err, ERR_DENIED, "'%s' says what is not allowed here", field);
    if (match == DENY_UNCHECKED)
        return err_set(err, ERR_DENIED, "'%s' cannot be checked for what is not allowed here",
                       field);
    return 0;
}

/* The field of a job record that the input stands in. */
static void name_input(const struct job *job, int i, char *out, size_t size)
{
    if (job->type == JOB_TEXT_DIFF)
        snprintf(out, size, i == 0 ? "/from" : "/to");
    else
        snprintf(out, size, "/inputs/%d", i);
}

int policy_check(const struct policy *policy, const struct job *job, struct err *err)
{
    const struct sources *sources = job->sources;
    if (!policy->deny)
        return 0;
    int rc = check(policy, "/prompt", job->prompt, err);
    if (!rc)
        rc = check(policy, "/negative_prompt", job->negative_prompt, err);
    for (int i = 0; !rc && sources && i < sources->count; i++) {
        char field[24];
        name_input(job, i, field, sizeof field);
        rc = check(policy, field, sources->inputs[i].text, err);
    }
    return rc;
}
