/* SPDX-License-Identifier: Apache-2.0 */
/* What a finished batch teaches about how long bulk tasks take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "workers/compute.h"

#define I CLASS_INTERACTIVE
#define B CLASS_BULK

struct made {
    enum task_class task_class;
    enum outcome outcome;
    bool computed;
};

static const struct {
    const char *what;
    struct made made[4]; /* ends with one that is open */
    size_t lesson;
} batches[] = {
    {"all computed", {{B, OUTCOME_FINISHED, true}, {I, OUTCOME_FINISHED, true}}, 2},
    {"no bulk task", {{I, OUTCOME_FINISHED, true}, {I, OUTCOME_FINISHED, true}}, 0},
    {"a cancelled job", {{B, OUTCOME_DROPPED, false}, {B, OUTCOME_DROPPED, false}}, 0},
    {"some dropped before", {{B, OUTCOME_FINISHED, true}, {B, OUTCOME_DROPPED, false}}, 1},
    {"bulk ones dropped before", {{I, OUTCOME_FINISHED, true}, {B, OUTCOME_DROPPED, false}}, 0},
    {"from the cache", {{B, OUTCOME_FINISHED, false}, {B, OUTCOME_FINISHED, true}}, 1},
    {"one given up midway", {{B, OUTCOME_FINISHED, true}, {B, OUTCOME_DROPPED, true}}, 0},
    {"one failed", {{B, OUTCOME_FINISHED, true}, {I, OUTCOME_FAILED, true}}, 0},
    {"one is tried again", {{B, OUTCOME_RETRY, true}, {B, OUTCOME_FINISHED, true}}, 0},
    {"one unreadable", {{B, OUTCOME_FINISHED, true}, {B, OUTCOME_FAILED, false}}, 1},
};

static void only_what_was_computed_counts(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(batches) / sizeof(*batches); i++) {
        struct parcel parcels[4] = {0}, *pointers[4];
        struct work work = {.parcels = pointers};
        for (const struct made *made = batches[i].made; made->outcome != OUTCOME_OPEN; made++) {
            struct parcel *parcel = &parcels[work.count];
            parcel->has_task = true;
            parcel->task.task_class = made->task_class;
            parcel->outcome = made->outcome;
            parcel->computed = made->computed;
            pointers[work.count++] = parcel;
        }
        if (work_lesson(&work) != batches[i].lesson)
            fail_msg("%s: %zu, not %zu", batches[i].what, work_lesson(&work), batches[i].lesson);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_what_was_computed_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
