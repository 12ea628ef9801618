/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks: their JSON, what may share a batch, progress, and the text in the picture. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/job.h"
#include "common/json.h"
#include "common/schema.h"

static void make_task(struct task *task, const char *prompt, const char *negative, int hops)
{
    struct job job = {
        .type = JOB_TEXT_TO_IMAGE,
        .id = "my-heart",
        .prompt = (char *)(uintptr_t)prompt,
        .negative_prompt = (char *)(uintptr_t)negative,
        .model = "emoji",
        .n = 4,
        .size = hops == 3   ? 64
                : hops == 4 ? 256
                            : 1024,
        .seed = 42,
        .route = {{STAGE_TEXT_ENCODE, 0, 0},
                  {STAGE_PRIOR, 25, 2},
                  {STAGE_DECODER, 30, 2.5},
                  {STAGE_UPSAMPLER_1, 7, 0},
                  {STAGE_UPSAMPLER_2, 4, 0}},
        .hops = hops,
    };
    task_from_job(task, &job, 1, 3, 1000, 2000);
}

static void json_round_trip(void **state)
{
    (void)state;
    struct task task, again;
    struct err err;
    make_task(&task, "a \"red\"\nheart, 猫", "é", 5);
    task.hop = 2;
    char *text = task_to_json(&task);
    assert_null(strchr(text, '\n'));
    assert_int_equal(schema_validate("task", text, strlen(text), &err), 0);
    assert_int_equal(task_parse(&again, text, strlen(text), &err), 0);
    assert_string_equal(again.job, "my-heart");
    assert_string_equal(again.model, "emoji");
    assert_string_equal(again.prompt, task.prompt);
    assert_string_equal(again.negative_prompt, "é");
    assert_int_equal(again.image, 1);
    assert_int_equal(again.images, 4);
    assert_int_equal(again.home, 3);
    assert_int_equal(again.seed, 43);
    assert_int_equal(again.size, 1024);
    assert_int_equal(again.hop, 2);
    assert_int_equal(again.created_at_ms, 1000);
    assert_int_equal(again.enqueued_at_ms, 2000);
    char *second = task_to_json(&again);
    assert_string_equal(second, text);
    free(text);
    free(second);
    task_release(&task);
    task_release(&again);
}

/* What is the default stays unwritten, so that a record of a plain task is what it always was. */
static void sampling_travels(void **state)
{
    (void)state;
    struct task task, again;
    struct err err;
    make_task(&task, "a", "", 5);
    char *text = task_to_json(&task);
    assert_null(strstr(text, "\"sampler\""));
    assert_null(strstr(text, "\"eta\""));
    assert_null(strstr(text, "\"reuse\""));
    free(text);
    task.route[1].sampler = SAMPLER_DPM_SOLVER_PP;
    task.route[2].sampler = SAMPLER_DDIM;
    task.route[2].eta = 0.25;
    task.route[3].reuse = 3;
    text = task_to_json(&task);
    assert_int_equal(task_parse(&again, text, strlen(text), &err), 0);
    for (int i = 0; i < task.hops; i++) {
        assert_int_equal(again.route[i].sampler, task.route[i].sampler);
        assert_true(again.route[i].eta == task.route[i].eta);
        assert_int_equal(again.route[i].reuse, task.route[i].reuse);
    }
    free(text);
    task_release(&task);
    task_release(&again);
}

/* Parses the task with one member replaced (or removed: NULL). */
static void assert_refused(const char *key, const char *value, const char *why)
{
    struct task task;
    struct err err;
    make_task(&task, "a", "", 4);
    char *text = task_to_json(&task);
    json_t *record;
    assert_int_equal(jsonx_parse(&record, text, strlen(text), &err), 0);
    if (value)
        json_object_set_new(record, key, json_loads(value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(record, key);
    free(text);
    text = json_dumps(record, 0);
    task_release(&task);
    enum err_code code = strcmp(key, "version") == 0 ? ERR_UNSUPPORTED : ERR_INVALID_RECORD;
    assert_int_equal(task_parse(&task, text, strlen(text), &err), -(int)code);
    assert_string_equal(err.text, why);
    free(text);
    json_decref(record);
}

static void refusals(void **state)
{
    (void)state;
    assert_refused("version", "2", "task: the record's version is 2, this unclip reads version 1");
    assert_refused("home", NULL, "task: the field 'home' is missing");
    assert_refused("image", "4", "task: '/image' is 4 of 4");
    assert_refused("hop", "4", "task: '/hop' is 4, the route has 4 stages");
    assert_refused("hop", "2.0", "task: '/hop' must be an integer, not 2.0");
    assert_refused("seed", "\"x\"", "task: '/seed' must be an integer, not a string");
    assert_refused("route", "[]", "task: '/route' is empty");
    assert_refused("route",
                   "[{\"stage\":\"decoder\",\"steps\":1,\"guidance\":0},"
                   "{\"stage\":\"prior\",\"steps\":1,\"guidance\":0}]",
                   "task: '/route' has 'prior' after 'decoder'");
    assert_refused("route", "[{\"stage\":\"painter\",\"steps\":1,\"guidance\":0}]",
                   "task: '/route/0/stage' is 'painter', it must be 'text-encode', 'prior', "
                   "'decoder', 'upsampler-1', 'upsampler-2' or 'image-encode'");
    struct task task;
    struct err err;
    assert_int_equal(task_parse(&task, "{", 1, &err), -ERR_INVALID_RECORD);
    task_release(&task);
}

static void batches_share_model_and_hop(void **state)
{
    (void)state;
    struct task a, b;
    make_task(&a, "a", "", 5);
    make_task(&b, "b", "c", 4);
    assert_true(task_compatible(&a, &b));
    a.hop = b.hop = 2;
    assert_true(task_compatible(&a, &b));
    b.route[3].steps = 9; /* another hop's settings do not matter */
    assert_true(task_compatible(&a, &b));
    b.route[2].guidance = 3;
    assert_false(task_compatible(&a, &b));
    b.route[2].guidance = a.route[2].guidance;
    b.route[2].steps = 29;
    assert_false(task_compatible(&a, &b));
    b.route[2].steps = a.route[2].steps;
    b.route[2].sampler = a.route[2].sampler = SAMPLER_DDIM;
    assert_true(task_compatible(&a, &b));
    b.route[2].eta = 0.5;
    assert_false(task_compatible(&a, &b));
    b.route[2].eta = 0;
    b.route[2].reuse = 2;
    assert_false(task_compatible(&a, &b));
    b.route[2].reuse = 0;
    b.route[2].sampler = SAMPLER_DPM_SOLVER_PP;
    assert_false(task_compatible(&a, &b));
    b.route[2].sampler = a.route[2].sampler;
    strcpy(b.model, "karlo");
    assert_false(task_compatible(&a, &b));
    strcpy(b.model, "emoji");
    b.hop = 1;
    assert_false(task_compatible(&a, &b));
    assert_int_equal(task_hop(&b)->stage, STAGE_PRIOR);
    assert_false(task_last_hop(&b));
    b.hop = 3;
    assert_true(task_last_hop(&b));
    task_release(&a);
    task_release(&b);
}

static void progress_rises_from_0_to_1(void **state)
{
    (void)state;
    struct task task;
    make_task(&task, "a", "", 5);
    assert_true(task_progress(&task, 0) == 0);
    double last = -1;
    for (task.hop = 0; task.hop < task.hops; task.hop++)
        for (int step = 0; step <= (task_hop(&task)->steps ? task_hop(&task)->steps : 1); step++) {
            double now = task_progress(&task, step);
            assert_true(now >= last - 1e-12 && now <= 1 + 1e-12);
            last = now;
        }
    assert_true(fabs(last - 1) < 1e-12);
    task.hop = 2;
    assert_true(task_progress(&task, 99) == task_progress(&task, 30));
    assert_true(task_progress(&task, -1) == task_progress(&task, 0));
    task_release(&task);
}

static void infotext(void **state)
{
    (void)state;
    struct task task;
    make_task(&task, "a red heart, café 猫", "green: leaves", 5);
    char *text = task_infotext(&task);
    assert_string_equal(text, "a red heart, café 猫\n"
                              "Negative prompt: green: leaves\n"
                              "Steps: 30, Sampler: DDPM, CFG scale: 2.5, Seed: 43, "
                              "Size: 1024x1024, Model: emoji, Prior steps: 25, "
                              "Prior CFG scale: 2, SR steps: 7, SR2 steps: 4, "
                              "Version: unclip " UNCLIP_VERSION);
    free(text);
    task.route[1].sampler = task.route[2].sampler = SAMPLER_DDIM;
    task.route[2].eta = 0.5;
    task.route[2].reuse = task.route[3].reuse = 2;
    task.route[4].sampler = SAMPLER_DPM_SOLVER_PP;
    text = task_infotext(&task);
    assert_non_null(strstr(text, "Steps: 30, Sampler: DDIM, CFG scale: 2.5, Eta: 0.5, Reuse: 2, "
                                 "Seed: 43, "));
    assert_non_null(strstr(text, "Prior CFG scale: 2, Prior Sampler: DDIM, SR steps: 7, "
                                 "SR Reuse: 2, SR2 steps: 4, SR2 Sampler: DPM++ 2M, Version"));
    free(text);
    task.route[3].reuse = 0;
    task.route[4].steps = 0; /* a model without upsampler-2 */
    text = task_infotext(&task);
    assert_non_null(strstr(text, ", SR steps: 7, SR2 upscaler: Lanczos, Version: "));
    free(text);
    task_release(&task);
    make_task(&task, "a", "", 3);
    text = task_infotext(&task);
    assert_null(strstr(text, "Negative prompt"));
    assert_null(strstr(text, "SR"));
    assert_non_null(strstr(text, "Size: 64x64"));
    free(text);
    task_release(&task);
}

static void infotext_quotes_as_a1111(void **state)
{
    (void)state;
    struct task task;
    make_task(&task, "a", "", 3);
    strcpy(task.model, "my: \"é\", x");
    char *text = task_infotext(&task);
    assert_non_null(strstr(text, ", Model: \"my: \\\"é\\\", x\", Prior steps"));
    free(text);
    task_release(&task);
}

/* The request makes this one picture again, and says nothing of who asked when. */
static void request_is_a_job(void **state)
{
    (void)state;
    struct task task, again;
    struct job job;
    struct err err;
    make_task(&task, "a red heart", "", 4);
    char *text = task_request_json(&task, true);
    assert_string_equal(text,
                        "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\","
                        "\"n\":1,\"model\":\"emoji\",\"size\":256,\"seed\":43,"
                        "\"steps\":{\"prior\":25,\"decoder\":30,\"upsampler-1\":7},"
                        "\"guidance\":{\"prior\":2.0,\"decoder\":2.5}}");
    assert_int_equal(job_parse(&job, "x", 1, text, strlen(text), "t", 0, 0, &err), 0);
    const struct model_card other = {.name = "other",
                                     .decoder_size = 64,
                                     .upsampler_1_size = 256,
                                     .upsampler_2_size = 1024,
                                     .steps = {0, 1, 1, 1, 1}};
    assert_int_equal(job_plan(&job, &other, &err), 0);
    task_from_job(&again, &job, 0, 0, 0, 0);
    char *second = task_request_json(&again, true);
    assert_string_equal(second, text);
    free(text);
    free(second);
    job_release(&job);
    task_release(&task);
    task_release(&again);
}

/* What a picture was made from is told by URLs of the web alone, but sent again as it is. */
static void request_of_sources(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"https://example.org/a.png", "https://example.org/a.png"},
        {"data:image/png;base64,AAAA", "data:,"},
        {"file:///store/job-7/image.png", "data:,"},
        {"s3://bucket/job-7/image.png", "data:,"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job_input input = {.image = (char *)cases[i][0], .weight = 1};
        struct task task = {
            .type = JOB_VARIATION,
            .prompt = (char[]){""},
            .negative_prompt = (char[]){""},
            .model = "emoji",
            .sources = {.inputs = &input, .count = 1, .image = (char *)cases[i][0]},
        };
        char *text = task_request_json(&task, true);
        json_t *record = json_loads(text, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(record, "image")), cases[i][1]);
        json_t *first = json_array_get(json_object_get(record, "inputs"), 0);
        assert_string_equal(json_string_value(json_object_get(first, "image")), cases[i][1]);
        assert_string_equal(input.image, cases[i][0]); /* the task keeps its own */
        json_decref(record);
        free(text);
        text = task_request_json(&task, false); /* to be sent again */
        record = json_loads(text, 0, NULL);
        assert_string_equal(json_string_value(json_object_get(record, "image")), cases[i][0]);
        first = json_array_get(json_object_get(record, "inputs"), 0);
        assert_string_equal(json_string_value(json_object_get(first, "image")), cases[i][0]);
        json_decref(record);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_of_sources),
        cmocka_unit_test(json_round_trip),
        cmocka_unit_test(sampling_travels),
        cmocka_unit_test(refusals),
        cmocka_unit_test(batches_share_model_and_hop),
        cmocka_unit_test(progress_rises_from_0_to_1),
        cmocka_unit_test(infotext),
        cmocka_unit_test(infotext_quotes_as_a1111),
        cmocka_unit_test(request_is_a_job),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
