/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs are completed from cards; cards are kept, absences are not. */
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"
#include "fixture.h"

static void make(struct job *job, const char *model)
{
    struct err err;
    char *text = xasprintf("{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a\"%s%s%s}",
                           *model ? ",\"model\":\"" : "", model, *model ? "\"" : "");
    assert_int_equal(job_parse(job, "id", 2, text, strlen(text), "unclip.jobs", 0, 0, &err), 0);
    free(text);
}

static void test_defaults_and_seed(void **state)
{
    struct planner planner;
    struct job job;
    struct err err;
    (void)state;
    planner_init(&planner, SOURCE_DIR "/models", "emoji");
    planner.seed = fixture_seed;
    make(&job, "");
    assert_int_equal(planner_complete(&planner, &job, &err), 0);
    assert_string_equal(job.model, "emoji");
    assert_int_equal(job.seed, 4242);
    assert_int_equal(job.size, 1024);
    assert_int_equal(job.hops, 5);
    job.seed = 7;
    assert_int_equal(planner_complete(&planner, &job, &err), 0);
    assert_int_equal(job.seed, 7);
    assert_int_equal(planner.count, 1);
    job_release(&job);
    planner_release(&planner);
}

static void test_a_model_that_comes_later(void **state)
{
    struct planner planner;
    struct job job;
    struct err err;
    char folder[] = "/tmp/unclip-planner-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(folder));
    char *link = xasprintf("%s/late", folder);
    planner_init(&planner, folder, "late");
    make(&job, "");
    assert_int_equal(planner_complete(&planner, &job, &err), -ERR_UNKNOWN_MODEL);
    assert_int_equal(symlink(SOURCE_DIR "/models/emoji", link), 0);
    assert_int_equal(planner_complete(&planner, &job, &err), 0);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(planner_complete(&planner, &job, &err), 0); /* kept */
    job_release(&job);
    planner_release(&planner);
    rmdir(folder);
    free(link);
}

static void test_many_models(void **state)
{
    struct planner planner;
    struct job job;
    struct err err;
    char folder[] = "/tmp/unclip-planner-XXXXXX", name[32];
    (void)state;
    assert_non_null(mkdtemp(folder));
    planner_init(&planner, folder, "none");
    for (int i = 0; i < PLANNER_CARDS_MAX + 3; i++) {
        snprintf(name, sizeof name, "model-%d", i);
        char *link = xasprintf("%s/%s", folder, name);
        assert_int_equal(symlink(SOURCE_DIR "/models/emoji", link), 0);
        make(&job, name);
        assert_int_equal(planner_complete(&planner, &job, &err), 0);
        job_release(&job);
        unlink(link);
        free(link);
    }
    assert_int_equal(planner.count, PLANNER_CARDS_MAX);
    planner_release(&planner);
    rmdir(folder);
}

static void test_seeds_differ(void **state)
{
    (void)state;
    int64_t a = planner_seed(), b = planner_seed(), c = planner_seed();
    assert_true(a >= 0 && a <= UINT32_MAX);
    assert_true(a != b || b != c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_and_seed),
        cmocka_unit_test(test_a_model_that_comes_later),
        cmocka_unit_test(test_many_models),
        cmocka_unit_test(test_seeds_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
