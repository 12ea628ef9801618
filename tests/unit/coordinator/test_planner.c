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

/* The stages of a job's route, with blanks between; owned. */
static char *route_of(struct planner *planner, const char *fields)
{
    struct job job;
    struct err err = {0};
    char *text = xasprintf("{\"version\":1,%s}", fields), *route = xstrdup("");
    assert_int_equal(job_parse(&job, "id", 2, text, strlen(text), "unclip.jobs", 0, 0, &err), 0);
    assert_int_equal(planner_complete(planner, &job, &err), 0);
    for (int i = 0; i < job.hops; i++) {
        char *longer = xasprintf("%s%s%s", route, i ? " " : "", stage_name(job.route[i].stage));
        free(route);
        route = longer;
    }
    job_release(&job);
    free(text);
    return route;
}

static void test_a_probe_ends_each_picture(void **state)
{
    static const struct {
        const char *fields, *plain, *probed;
    } cases[] = {
        {"\"type\":\"text-to-image\",\"prompt\":\"a\",\"size\":64", "text-encode prior decoder",
         "text-encode prior decoder image-encode"},
        {"\"type\":\"text-to-image\",\"prompt\":\"a\",\"size\":64,\"score\":true",
         "text-encode prior decoder image-encode", "text-encode prior decoder image-encode"},
        {"\"type\":\"edit\",\"image\":\"x\",\"mask\":\"y\",\"prompt\":\"a\"",
         "text-encode prior image-encode decoder upsampler-1 upsampler-2",
         "text-encode prior image-encode decoder upsampler-1 upsampler-2 image-encode"},
        {"\"type\":\"upscale\",\"image\":\"x\",\"size\":256", "image-encode upsampler-1",
         "image-encode upsampler-1 image-encode"},
        {"\"type\":\"embed\",\"inputs\":[{\"image\":\"x\"}]", "text-encode image-encode",
         "text-encode image-encode"},
        {"\"type\":\"score\",\"prompt\":\"a\",\"inputs\":[{\"image\":\"x\"}]",
         "text-encode image-encode", "text-encode image-encode"},
    };
    struct planner planner;
    (void)state;
    planner_init(&planner, SOURCE_DIR "/models", "emoji");
    for (size_t i = 0; i < 2 * (sizeof cases / sizeof *cases); i++) {
        planner.probe = i % 2;
        char *route = route_of(&planner, cases[i / 2].fields);
        assert_string_equal(route, planner.probe ? cases[i / 2].probed : cases[i / 2].plain);
        free(route);
    }
    planner_release(&planner);
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
        cmocka_unit_test(test_defaults_and_seed), cmocka_unit_test(test_a_model_that_comes_later),
        cmocka_unit_test(test_many_models),       cmocka_unit_test(test_a_probe_ends_each_picture),
        cmocka_unit_test(test_seeds_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
