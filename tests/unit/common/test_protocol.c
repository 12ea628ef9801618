/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of schemas/tables.h: names, transitions, ids, and docs/protocol.md against them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/memory.h"
#include "common/protocol.h"

static void names_go_both_ways(void **state)
{
    (void)state;
    for (int i = 0; i < STAGE_COUNT; i++) {
        enum stage stage = STAGE_COUNT;
        assert_true(stage_parse(stage_name((enum stage)i), &stage));
        assert_int_equal(stage, i);
    }
    for (int i = 0; i < JOB_STATE_COUNT; i++) {
        enum job_state job_state = JOB_STATE_COUNT;
        assert_true(job_state_parse(job_state_name((enum job_state)i), &job_state));
        assert_int_equal(job_state, i);
    }
    for (int i = 0; i < CLASS_COUNT; i++) {
        enum task_class task_class = CLASS_COUNT;
        assert_true(task_class_parse(task_class_name((enum task_class)i), &task_class));
        assert_int_equal(task_class, i);
    }
    for (int i = 0; i < SAMPLER_COUNT; i++) {
        enum sampler sampler = SAMPLER_COUNT;
        assert_true(sampler_parse(sampler_name((enum sampler)i), &sampler));
        assert_int_equal(sampler, i);
    }
    enum stage stage = STAGE_PRIOR;
    assert_false(stage_parse("Prior", &stage));
    assert_int_equal(stage, STAGE_PRIOR);
}

static void stages(void **state)
{
    (void)state;
    assert_false(stage_has_steps(STAGE_TEXT_ENCODE));
    assert_true(stage_has_steps(STAGE_UPSAMPLER_2));
    assert_true(stage_has_guidance(STAGE_PRIOR));
    assert_false(stage_has_guidance(STAGE_UPSAMPLER_1));
    for (int i = 0; i < STAGE_COUNT; i++)
        assert_true(stage_weight((enum stage)i) > 0);
}

static void topics(void **state)
{
    (void)state;
    assert_string_equal(topic_name(TOPIC_JOBS), "unclip.jobs");
    assert_true(topic_compacted(TOPIC_RESULTS));
    assert_false(topic_compacted(TOPIC_JOBS));
    assert_string_equal(topic_tasks(STAGE_UPSAMPLER_1, CLASS_INTERACTIVE),
                        "unclip.tasks.upsampler-1");
    assert_string_equal(topic_tasks(STAGE_PRIOR, CLASS_BULK), "unclip.tasks.prior.bulk");
    assert_string_equal(topic_tasks_group(STAGE_PRIOR, CLASS_BULK), "unclip-prior.bulk");
    assert_string_equal(topic_tasks_group(STAGE_PRIOR, CLASS_INTERACTIVE), "unclip-prior");
}

/* The whole life of a job: legal[from][to], states in the order of the table. */
static void all_pairs_of_states(void **state)
{
    (void)state;
    static const char *const legal[JOB_STATE_COUNT] = {
        [JOB_ACCEPTED] = ".q..fce",  [JOB_QUEUED] = "..r..ce", [JOB_RUNNING] = "...sfce",
        [JOB_SUCCEEDED] = ".......", [JOB_FAILED] = ".......", [JOB_CANCELLED] = ".......",
        [JOB_EXPIRED] = ".......",
    };
    for (int from = 0; from < JOB_STATE_COUNT; from++)
        for (int to = 0; to < JOB_STATE_COUNT; to++) {
            enum job_state a = (enum job_state)from, b = (enum job_state)to;
            assert_int_equal(job_state_legal(a, b), legal[from][to] != '.');
            if (job_state_legal(a, b)) {
                assert_true(job_state_rank(b) > job_state_rank(a));
                assert_false(job_state_final(a));
            }
        }
    for (int from = 0; from < JOB_STATE_COUNT; from++)
        assert_int_equal(job_state_final((enum job_state)from), from >= JOB_SUCCEEDED);
}

static void redis_keys(void **state)
{
    (void)state;
    char key[REDIS_KEY_SIZE], id[JOB_ID_MAX + 1];
    assert_string_equal(redis_key(REDIS_KEY_JOB, "my-heart", key), "unclip:job:my-heart");
    assert_string_equal(redis_key(REDIS_KEY_JOBS, NULL, key), "unclip:jobs");
    assert_string_equal(redis_key(REDIS_KEY_STAGE, "prior", key), "unclip:stage:prior");
    memset(id, 'a', JOB_ID_MAX);
    id[JOB_ID_MAX] = '\0';
    assert_int_equal(strlen(redis_key(REDIS_KEY_EMBED_PRIOR, id, key)), 19 + JOB_ID_MAX);
}

static void queue_fields(void **state)
{
    (void)state;
    char field[QUEUE_FIELD_SIZE];
    assert_string_equal(queue_field(3, CLASS_BULK, QUEUE_IN_FLIGHT, field), "3:bulk:in_flight");
}

static void job_ids(void **state)
{
    (void)state;
    char id[JOB_ID_MAX + 2];
    memset(id, 'a', sizeof id);
    assert_true(job_id_valid(id, JOB_ID_MAX));
    assert_false(job_id_valid(id, JOB_ID_MAX + 1));
    assert_false(job_id_valid(id, 0));
    static const char *const good[] = {"a", "9", "A.b_c-d", "unclip.jobs-3-17"};
    static const char *const bad[] = {".a", "-a", "_a", "a/b", "a b", "..", "é", "a:b", "a\n"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(job_id_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(job_id_valid(bad[i], strlen(bad[i])));
    assert_false(job_id_valid("a\0b", 3));
}

static char *document;

static int read_document(void **state)
{
    (void)state;
    size_t size = 0;
    FILE *in = fopen(SOURCE_DIR "/docs/protocol.md", "r");
    if (!in || getdelim(&document, &size, '\0', in) < 0)
        return -1;
    return fclose(in);
}

static int free_document(void **state)
{
    (void)state;
    free(document);
    return 0;
}

/* `before` and name and `after`, as the document writes it. */
static void assert_documented(const char *before, const char *name, const char *after)
{
    char *text = xasprintf("%s%s%s", before, name, after);
    if (!strstr(document, text))
        fail_msg("docs/protocol.md does not have: %s", text);
    free(text);
}

static void the_document_names_everything(void **state)
{
    (void)state;
#define X(id, name, ...) assert_documented("`", name, "`");
    STAGE_TABLE(X)
    TOPIC_TABLE(X)
    JOB_STATE_TABLE(X)
#undef X
#define X(name, meaning) assert_documented("`", name, "`");
    JOB_FIELD_TABLE(X)
#undef X
#define X(id, name, meaning) assert_documented("`", name, "`");
    QUEUE_FIELD_TABLE(X)
#undef X
    assert_documented("`", TOPIC_TASKS_PREFIX "STAGE", "`");
    assert_documented("`", TOPIC_TASKS_PREFIX "STAGE" TOPIC_BULK_SUFFIX, "`");
#define X(id, format, type, meaning)                                                               \
    {                                                                                              \
        char *key = xstrdup(format), *hole = strstr(key, "%s");                                    \
        if (hole)                                                                                  \
            *hole = '\0';                                                                          \
        assert_documented("`", key, hole ? "" : "`");                                              \
        free(key);                                                                                 \
    }
    REDIS_KEY_TABLE(X)
#undef X
}

static void the_document_has_the_error_codes(void **state)
{
    (void)state;
#define X(id, name, retriable, meaning)                                                            \
    assert_documented("| `" name "` | ", retriable ? "yes" : "no", " | " meaning " |");
    ERR_TABLE(X)
#undef X
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_go_both_ways),
        cmocka_unit_test(stages),
        cmocka_unit_test(topics),
        cmocka_unit_test(all_pairs_of_states),
        cmocka_unit_test(redis_keys),
        cmocka_unit_test(queue_fields),
        cmocka_unit_test(job_ids),
        cmocka_unit_test(the_document_names_everything),
        cmocka_unit_test(the_document_has_the_error_codes),
    };
    return cmocka_run_group_tests(tests, read_document, free_document);
}
