/* SPDX-License-Identifier: Apache-2.0 */
/* Job records: ids, refusals, planning, and the way back to JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/job.h"
#include "common/json.h"
#include "common/memory.h"

#define HEART  "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\""
#define CANCEL "{\"version\":1,\"type\":\"cancel\""

static int parse_sized(struct job *job, const char *key, const void *value, size_t size,
                       struct err *err)
{
    memset(err, 0, sizeof *err);
    return job_parse(job, key, key ? strlen(key) : 0, value, size, "unclip.jobs", 3, 17, err);
}

static int parse(struct job *job, const char *key, const char *value, struct err *err)
{
    return parse_sized(job, key, value, strlen(value), err);
}

static const struct model_card emoji = {
    .name = "emoji",
    .decoder_size = 64,
    .upsampler_1_size = 256,
    .has_upsampler_2 = true,
    .upsampler_2_size = 1024,
    .steps = {0, 25, 30, 7, 4},
    .guidance = {0, 2, 2.5, 0, 0},
};

static void smallest_job(void **state)
{
    (void)state;
    struct job job;
    struct err err;
    assert_int_equal(parse(&job, "my-heart", HEART "}", &err), 0);
    assert_int_equal(job.type, JOB_TEXT_TO_IMAGE);
    assert_string_equal(job.id, "my-heart");
    assert_string_equal(job.prompt, "a red heart");
    assert_string_equal(job.negative_prompt, "");
    assert_string_equal(job.client, "");
    assert_string_equal(job.model, "");
    assert_int_equal(job.n, 1);
    assert_int_equal(job.seed, -1);
    assert_int_equal(job.task_class, CLASS_INTERACTIVE);
    assert_null(job.metadata);
    job_release(&job);
}

static void full_job(void **state)
{
    (void)state;
    struct job job;
    struct err err;
    json_t *example;
    assert_int_equal(jsonx_read_file(&example,
                                     SOURCE_DIR "/schemas/examples/job-text-to-image.json", 10000,
                                     &err),
                     0);
    char *text = json_dumps(example, 0);
    assert_int_equal(parse(&job, NULL, text, &err), 0);
    assert_string_equal(job.id, "my-heart");
    assert_string_equal(job.negative_prompt, "green");
    assert_string_equal(job.model, "emoji");
    assert_string_equal(job.client, "docs");
    assert_int_equal(job.n, 4);
    assert_int_equal(job.size, 256);
    assert_int_equal(job.seed, 42);
    assert_int_equal(job.task_class, CLASS_BULK);
    assert_int_equal(json_object_size(job.metadata), 2);
    assert_int_equal(job_plan(&job, &emoji, &err), 0);
    json_t *written = job_to_json(&job);
    json_object_set_new(json_object_get(example, "guidance"), "prior", json_real(2));
    assert_true(json_equal(written, example));
    json_decref(written);
    job_release(&job);
    free(text);
    json_decref(example);
}

/* The id, and the error if any, of each combination of key and field. */
static void ids(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *id, *text;
    } cases[] = {
        {"a", HEART "}", "a", NULL},
        {NULL, HEART ",\"id\":\"b\"}", "b", NULL},
        {"", HEART ",\"id\":\"b\"}", "b", NULL},
        {"b", HEART ",\"id\":\"b\"}", "b", NULL},
        {NULL, HEART "}", "unclip.jobs-3-17", NULL},
        {"a", CANCEL "}", "a", NULL},
        {NULL, CANCEL ",\"id\":\"b\"}", "b", NULL},
        {"a", HEART ",\"id\":\"b\"}", "a", "the record's key is 'a', but its field 'id' is 'b'"},
        {NULL, CANCEL "}", "", "a cancellation needs its job's id, as the record's key or in 'id'"},
        {"a b", HEART "}", "",
         "the record's key 'a b' is not a job id: 1 to 128 of A-Z a-z 0-9 . _ -, the first a "
         "letter or digit"},
        {"\xff", HEART "}", "",
         "the record's key '?' is not a job id: 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter "
         "or digit"},
        {"a", HEART ",\"n\":65}", "a", "'/n' is 65, at most 64 is allowed"},
        {NULL, HEART ",\"n\":65,\"id\":\"b\"}", "b", "'/n' is 65, at most 64 is allowed"},
        {NULL, HEART ",\"n\":65}", "unclip.jobs-3-17", "'/n' is 65, at most 64 is allowed"},
        {NULL, HEART ",\"id\":5}", "", "'/id' must be a string, not 5"},
        {NULL, HEART ",\"id\":\"../x\"}", "",
         "'/id' is '../x', it must be 1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit"},
        {NULL, "{\"version\":1,\"type\":\"text-to-video\",\"id\":\"b\"}", "b",
         "'/type' is 'text-to-video', it must be 'text-to-image', 'variation', "
         "'interpolate', 'edit', 'text-diff', 'upscale', 'embed', 'score' or 'cancel'"},
        {NULL, "[]", "unclip.jobs-3-17", "the record must be an object, not an array"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job job;
        struct err err;
        int result = parse(&job, cases[i].key, cases[i].value, &err);
        assert_int_equal(result, cases[i].text ? -ERR_INVALID_JOB : 0);
        assert_string_equal(job.id, cases[i].id);
        assert_string_equal(err.text, cases[i].text ? cases[i].text : "");
        if (result == 0)
            job_release(&job);
    }
}

static void broken_records_keep_the_key(void **state)
{
    (void)state;
    struct job job;
    struct err err;
    assert_int_equal(parse(&job, "a", "hello", &err), -ERR_INVALID_JSON);
    assert_string_equal(job.id, "a");
    assert_int_equal(parse(&job, NULL, "hello", &err), -ERR_INVALID_JSON);
    assert_string_equal(job.id, "");
    assert_int_equal(parse(&job, "a", "", &err), -ERR_INVALID_JSON);
    assert_string_equal(err.text, "the record is empty");
    assert_int_equal(parse_sized(&job, "a", NULL, 0, &err), -ERR_INVALID_JSON);
    assert_string_equal(job.id, "a");
    char *megabyte = xmalloc(1 << 20);
    memset(megabyte, 'a', 1 << 20);
    memcpy(megabyte, HEART, strlen(HEART));
    assert_int_equal(parse_sized(&job, "a", megabyte, 1 << 20, &err), -ERR_TOO_LARGE);
    assert_string_equal(job.id, "a");
    free(megabyte);
    assert_int_equal(
        job_parse(&job, "a\0b", 3, HEART "}", strlen(HEART "}"), "unclip.jobs", 0, 0, &err),
        -ERR_INVALID_JOB);
    assert_string_equal(job.id, "");
}

static void seeds_have_room_for_all_pictures(void **state)
{
    (void)state;
    struct job job;
    struct err err;
    assert_int_equal(parse(&job, "a", HEART ",\"n\":64,\"seed\":9007199254740927}", &err), 0);
    assert_int_equal(job.seed + job.n, JOB_SEED_MAX);
    job_release(&job);
    assert_int_equal(parse(&job, "a", HEART ",\"n\":64,\"seed\":9007199254740928}", &err),
                     -ERR_INVALID_JOB);
    assert_string_equal(err.text, "'/seed' is 9007199254740928, for 64 pictures at most "
                                  "9007199254740927 is allowed");
}

static void metadata_has_a_limit(void **state)
{
    (void)state;
    for (int over = 0; over < 2; over++) {
        struct job job;
        struct err err;
        int length = JOB_METADATA_MAX - (int)strlen("{\"x\":\"\"}") + over;
        char *filler = xmalloc((size_t)length + 1);
        memset(filler, 'x', (size_t)length);
        filler[length] = '\0';
        char *value = xasprintf(HEART ", \"metadata\": { \"x\": \"%s\" } }", filler);
        assert_int_equal(parse(&job, "a", value, &err), over ? -ERR_INVALID_JOB : 0);
        if (over)
            assert_string_equal(
                err.text, "'/metadata' has 4097 bytes as compact JSON, at most 4096 are allowed");
        job_release(&job);
        free(value);
        free(filler);
    }
}

static void plan_by_size(void **state)
{
    (void)state;
    static const struct {
        const char *size;
        int hops, pixels;
    } cases[] = {{"", 5, 1024},
                 {",\"size\":1024", 5, 1024},
                 {",\"size\":256", 4, 256},
                 {",\"size\":64", 3, 64}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job job;
        struct err err;
        char *value = xasprintf(HEART "%s}", cases[i].size);
        assert_int_equal(parse(&job, "a", value, &err), 0);
        assert_int_equal(job_plan(&job, &emoji, &err), 0);
        assert_int_equal(job.hops, cases[i].hops);
        assert_int_equal(job.size, cases[i].pixels);
        assert_string_equal(job.model, "emoji");
        for (int hop = 0; hop < job.hops; hop++) {
            assert_int_equal(job.route[hop].stage, hop);
            assert_int_equal(job.route[hop].steps, emoji.steps[hop]);
            assert_true(job.route[hop].guidance == emoji.guidance[hop]);
        }
        job_release(&job);
        free(value);
    }
    struct job job;
    struct err err;
    assert_int_equal(parse(&job, "a", HEART ",\"size\":100}", &err), 0);
    assert_int_equal(job_plan(&job, &emoji, &err), -ERR_INVALID_JOB);
    assert_string_equal(err.text, "'/size' is 100, the model 'emoji' makes 64, 256 or 1024");
    job_release(&job);
}

static void plan_takes_what_the_record_asks_for(void **state)
{
    (void)state;
    struct job job;
    struct err err;
    assert_int_equal(parse(&job, "a",
                           HEART ",\"size\":64,\"steps\":{\"decoder\":50,\"upsampler-2\":9},"
                                 "\"guidance\":{\"prior\":0}}",
                           &err),
                     0);
    assert_int_equal(job_plan(&job, &emoji, &err), 0);
    assert_int_equal(job.route[STAGE_PRIOR].steps, 25);
    assert_true(job.route[STAGE_PRIOR].guidance == 0);
    assert_int_equal(job.route[STAGE_DECODER].steps, 50);
    json_t *record = job_to_json(&job);
    assert_int_equal(json_object_size(json_object_get(record, "steps")), 2);
    json_decref(record);
    job_release(&job);
    struct model_card lanczos = emoji;
    lanczos.has_upsampler_2 = false;
    lanczos.steps[STAGE_UPSAMPLER_2] = 0;
    assert_int_equal(parse(&job, "a", HEART ",\"steps\":{\"upsampler-2\":9}}", &err), 0);
    assert_int_equal(job_plan(&job, &lanczos, &err), 0);
    assert_int_equal(job.route[STAGE_UPSAMPLER_2].steps, 0);
    job_release(&job);
}

static void plan_of_samplers(void **state)
{
    (void)state;
    struct job job;
    struct err err;
    const char *value = HEART ",\"sampler\":{\"prior\":\"ddim\",\"decoder\":\"dpm-solver++\","
                              "\"upsampler-2\":\"ddim\"},\"eta\":{\"prior\":0.5,\"decoder\":0},"
                              "\"reuse\":{\"decoder\":2,\"upsampler-1\":1}}";
    struct model_card lanczos = emoji;
    lanczos.has_upsampler_2 = false;
    lanczos.steps[STAGE_UPSAMPLER_2] = 0;
    assert_int_equal(parse(&job, "a", value, &err), 0);
    assert_int_equal(job.route[STAGE_UPSAMPLER_2].sampler, SAMPLER_DDIM);
    assert_int_equal(job_plan(&job, &lanczos, &err), 0);
    assert_int_equal(job.route[STAGE_PRIOR].sampler, SAMPLER_DDIM);
    assert_true(job.route[STAGE_PRIOR].eta == 0.5);
    assert_int_equal(job.route[STAGE_DECODER].sampler, SAMPLER_DPM_SOLVER_PP);
    assert_int_equal(job.route[STAGE_DECODER].reuse, 2);
    assert_int_equal(job.route[STAGE_UPSAMPLER_1].sampler, SAMPLER_DDPM);
    assert_int_equal(job.route[STAGE_UPSAMPLER_1].reuse, 0);
    assert_int_equal(job.route[STAGE_UPSAMPLER_2].sampler, SAMPLER_DDPM); /* it has no steps */
    json_t *record = job_to_json(&job);
    char *text = json_dumps(json_object_get(record, "sampler"), JSON_COMPACT);
    assert_string_equal(text, "{\"prior\":\"ddim\",\"decoder\":\"dpm-solver++\"}");
    assert_int_equal(json_object_size(json_object_get(record, "eta")), 1);
    assert_int_equal(json_object_size(json_object_get(record, "reuse")), 1);
    free(text);
    json_decref(record);
    job_release(&job);
}

static void refused_samplers(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *text;
    } cases[] = {
        {"\"sampler\":{\"decoder\":\"euler\"}",
         "'/sampler/decoder' is 'euler', it must be 'ddpm', 'ddim' or 'dpm-solver++'"},
        {"\"eta\":{\"decoder\":0.5}",
         "'/eta/decoder' is 0.5, but its sampler is 'ddpm': only 'ddim' takes one"},
        {"\"eta\":{\"prior\":1},\"sampler\":{\"prior\":\"dpm-solver++\"}",
         "'/eta/prior' is 1, but its sampler is 'dpm-solver++': only 'ddim' takes one"},
        {"\"eta\":{\"prior\":1.5},\"sampler\":{\"prior\":\"ddim\"}",
         "'/eta/prior' is 1.5, at most 1 is allowed"},
        {"\"reuse\":{\"decoder\":0}", "'/reuse/decoder' is 0, at least 1 is needed"},
        {"\"reuse\":{\"prior\":2}",
         "unknown field '/reuse/prior', known are decoder, upsampler-1, upsampler-2"},
        {"\"sampler\":{\"text-encode\":\"ddim\"}",
         "unknown field '/sampler/text-encode', known are prior, decoder, upsampler-1, "
         "upsampler-2"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job job;
        struct err err;
        char *value = xasprintf(HEART ",%s}", cases[i].fields);
        assert_int_equal(parse(&job, "a", value, &err), -ERR_INVALID_JOB);
        assert_string_equal(err.text, cases[i].text);
        free(value);
    }
}

/* Before and after planning, what is written reads back to the same. */
static void json_round_trip(void **state)
{
    (void)state;
    static const char *const values[] = {
        HEART "}",
        HEART ",\"seed\":0,\"guidance\":{\"decoder\":0.1}}",
        CANCEL "}",
        HEART ",\"n\":3,\"class\":\"bulk\",\"metadata\":{\"a\":[1,{}]},\"client\":\"caf\\u00e9\"}",
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        for (int planned = 0; planned < 2; planned++) {
            struct job job, again;
            struct err err;
            assert_int_equal(parse(&job, "a", values[i], &err), 0);
            if (planned && job.type == JOB_TEXT_TO_IMAGE)
                assert_int_equal(job_plan(&job, &emoji, &err), 0);
            json_t *record = job_to_json(&job);
            char *text = json_dumps(record, 0);
            assert_int_equal(parse(&again, NULL, text, &err), 0);
            if (planned && job.type == JOB_TEXT_TO_IMAGE) {
                assert_int_equal(job_plan(&again, &emoji, &err), 0);
                assert_int_equal(again.hops, job.hops);
                assert_memory_equal(again.route, job.route, sizeof *job.route * (size_t)job.hops);
            }
            json_t *second = job_to_json(&again);
            assert_true(json_equal(record, second));
            json_decref(record);
            json_decref(second);
            free(text);
            job_release(&job);
            job_release(&again);
        }
}

/* The route of a kind: its stages, separated by blanks. */
static char *route_of(const char *fields, const struct model_card *card, struct err *err)
{
    struct job job, again;
    char *text = xstrdup(""), *record = xasprintf("{\"version\":1,%s}", fields);
    assert_int_equal(parse(&job, "a", record, err), 0);
    free(record);
    if (job_plan(&job, card, err) != 0) {
        job_release(&job);
        free(text);
        return NULL;
    }
    for (int i = 0; i < job.hops; i++) {
        char *longer = xasprintf("%s%s%s", text, i ? " " : "", stage_name(job.route[i].stage));
        free(text);
        text = longer;
    }
    json_t *written = job_to_json(&job);
    char *first = json_dumps(written, JSON_COMPACT);
    assert_int_equal(parse(&again, "a", first, err), 0);
    assert_int_equal(job_plan(&again, card, err), 0);
    json_t *twice = job_to_json(&again);
    assert_true(json_equal(written, twice));
    assert_int_equal(again.hops, job.hops);
    assert_memory_equal(again.route, job.route, sizeof job.route);
    free(first);
    json_decref(written);
    json_decref(twice);
    job_release(&job);
    job_release(&again);
    return text;
}

static void every_kind_has_its_route(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *route;
    } cases[] = {
        {"\"type\":\"variation\",\"image\":\"x\",\"size\":64", "text-encode image-encode decoder"},
        {"\"type\":\"interpolate\",\"inputs\":[{\"image\":\"x\"},{\"image\":\"y\"}],\"size\":256",
         "text-encode image-encode decoder upsampler-1"},
        {"\"type\":\"interpolate\",\"inputs\":[{\"image\":\"x\"},{\"text\":\"y\"}],\"size\":64,"
         "\"frames\":5",
         "text-encode prior image-encode decoder"},
        {"\"type\":\"edit\",\"image\":\"x\",\"prompt\":\"y\",\"feather\":3",
         "text-encode prior image-encode decoder upsampler-1 upsampler-2"},
        {"\"type\":\"text-diff\",\"image\":\"x\",\"from\":\"y\",\"to\":\"z\",\"size\":64,"
         "\"frames\":3",
         "text-encode image-encode decoder"},
        {"\"type\":\"upscale\",\"image\":\"x\"", "image-encode upsampler-2"},
        {"\"type\":\"upscale\",\"image\":\"x\",\"from\":64",
         "image-encode upsampler-1 upsampler-2"},
        {"\"type\":\"embed\",\"inputs\":[{\"text\":\"x\"},{\"image\":\"y\"}]",
         "text-encode image-encode"},
        {"\"type\":\"score\",\"inputs\":[{\"image\":\"y\"}],\"prompt\":\"z\"",
         "text-encode image-encode"},
        {"\"type\":\"text-to-image\",\"prompt\":\"z\",\"stop_at\":64,\"score\":true,"
         "\"prior\":\"autoregressive\",\"prior_candidates\":2",
         "text-encode prior decoder image-encode"},
        {"\"type\":\"text-to-image\",\"prompt\":\"z\",\"size\":64,\"n\":2,\"best_of\":5",
         "text-encode prior decoder image-encode"},
    };
    struct model_card card = emoji;
    card.has_image_encoder = card.has_ar_prior = true;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        char *route = route_of(cases[i].fields, &card, &err);
        if (!route)
            fail_msg("%s: %s", cases[i].fields, err.text);
        assert_string_equal(route, cases[i].route);
        free(route);
    }
}

/* What is inverted without guidance comes back without; one that is asked for stays. */
static void an_inversion_goes_by_ddim_and_unguided(void **state)
{
    (void)state;
    struct model_card card = emoji;
    card.has_image_encoder = true;
    for (int asked = 0; asked < 2; asked++) {
        struct job job;
        struct err err;
        char *record = xasprintf("{\"version\":1,\"type\":\"variation\",\"image\":\"x\","
                                 "\"start\":\"inversion\",\"size\":256%s}",
                                 asked ? ",\"guidance\":{\"decoder\":3}" : "");
        assert_int_equal(parse(&job, "a", record, &err), 0);
        assert_int_equal(job_plan(&job, &card, &err), 0);
        assert_int_equal(job.hops, 4);
        assert_true(job.route[2].guidance == (asked ? 3 : 1));
        assert_int_equal(job.route[2].sampler, SAMPLER_DDIM);
        assert_int_equal(job.route[3].sampler, SAMPLER_DDIM);
        assert_int_equal(job.route[3].start, START_INVERSION);
        job_release(&job);
        free(record);
    }
}

static void kinds_that_cannot_be(void **state)
{
    (void)state;
    static const struct {
        const char *fields, *text;
    } cases[] = {
        {"\"type\":\"variation\",\"image\":\"x\"",
         "the model 'emoji' has no image_encoder, which 'variation' needs"},
        {"\"type\":\"text-to-image\",\"prompt\":\"z\",\"prior\":\"autoregressive\"",
         "the model 'emoji' has no autoregressive prior"},
        {"\"type\":\"upscale\",\"image\":\"x\",\"size\":64",
         "'/size' is 64, the smallest of the model 'emoji'"},
        {"\"type\":\"text-to-image\",\"prompt\":\"z\",\"stop_at\":100",
         "'/stop_at' is 100, the model 'emoji' makes 64, 256 or 1024"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err err = {0};
        assert_null(route_of(cases[i].fields, &emoji, &err));
        assert_string_equal(err.text, cases[i].text);
    }
    struct job probed;
    struct err no_encoder = {0};
    assert_int_equal(parse(&probed, "a",
                           "{\"version\":1,\"type\":\"upscale\",\"image\":\"x\",\"size\":256}",
                           &no_encoder),
                     0);
    probed.probe = true;
    assert_int_equal(job_plan(&probed, &emoji, &no_encoder), -ERR_INVALID_JOB);
    assert_string_equal(no_encoder.text,
                        "the model 'emoji' has no image_encoder, which 'probe' needs");
    job_release(&probed);
    static const struct {
        const char *fields, *text;
    } refused[] = {
        {"\"type\":\"interpolate\",\"inputs\":[{\"image\":\"x\",\"weight\":0},{\"text\":\"y\","
         "\"weight\":0}]",
         "'/inputs': no weight is above 0"},
        {"\"type\":\"interpolate\",\"inputs\":[{\"text\":\"x\"},{\"text\":\"y\"},{\"text\":\"z\"}],"
         "\"frames\":3",
         "'/frames' goes with two inputs, not 3"},
        {"\"type\":\"score\",\"inputs\":[{\"text\":\"x\"}],\"prompt\":\"y\"",
         "'/inputs/0' is a text, not a picture"},
        {"\"type\":\"text-to-image\",\"prompt\":\"y\",\"n\":3,\"best_of\":2",
         "'/best_of' is 2, less than the 3 pictures of '/n'"},
        {"\"type\":\"text-to-image\",\"prompt\":\"y\",\"output\":{\"format\":\"npy\"}",
         "'/output/format' is 'npy', which holds no picture"},
    };
    char *address = xasprintf("%0*d", JOB_ADDRESS_MAX + 1, 0);
    char *far = xasprintf("{\"version\":1,\"type\":\"variation\",\"image\":\"%s\"}", address);
    struct job long_one;
    struct err why = {0};
    assert_int_equal(parse(&long_one, "a", far, &why), -ERR_INVALID_JOB);
    assert_string_equal(why.text,
                        "'/image' has 2049 bytes, an address that is no data URL at most 2048");
    free(far);
    free(address);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct job job;
        struct err err = {0};
        char *record = xasprintf("{\"version\":1,%s}", refused[i].fields);
        assert_int_equal(parse(&job, "a", record, &err), -ERR_INVALID_JOB);
        assert_string_equal(err.text, refused[i].text);
        free(record);
    }
}

/* Each frame has its own mixture, and all have one seed; embeddings have their own input. */
static void frames_and_inputs_become_tasks(void **state)
{
    (void)state;
    struct model_card card = emoji;
    card.has_image_encoder = true;
    struct job job;
    struct err err;
    struct task task, again;
    assert_int_equal(parse(&job, "a",
                           "{\"version\":1,\"type\":\"interpolate\",\"inputs\":[{\"image\":\"x\"},"
                           "{\"text\":\"y\"}],\"frames\":5,\"seed\":9,\"size\":64}",
                           &err),
                     0);
    assert_int_equal(job_plan(&job, &card, &err), 0);
    task_from_job(&task, &job, 3, 0, 1, 1);
    assert_int_equal(task.seed, 9);
    assert_true(task.sources.inputs[0].weight == 0.25 && task.sources.inputs[1].weight == 0.75);
    char *text = task_to_json(&task);
    assert_int_equal(task_parse(&again, text, strlen(text), &err), 0);
    char *second = task_to_json(&again);
    assert_string_equal(text, second);
    task_release(&task);
    task_release(&again);
    job_release(&job);
    free(text);
    free(second);
    assert_int_equal(parse(&job, "a",
                           "{\"version\":1,\"type\":\"embed\",\"inputs\":[{\"image\":\"x\"},"
                           "{\"text\":\"y\"}]}",
                           &err),
                     0);
    assert_int_equal(job_plan(&job, &card, &err), 0);
    assert_int_equal(job.n, 2);
    task_from_job(&task, &job, 1, 0, 1, 1);
    assert_int_equal(task.sources.count, 1);
    assert_string_equal(task.sources.inputs[0].text, "y");
    task_release(&task);
    job_release(&job);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smallest_job),
        cmocka_unit_test(full_job),
        cmocka_unit_test(ids),
        cmocka_unit_test(broken_records_keep_the_key),
        cmocka_unit_test(seeds_have_room_for_all_pictures),
        cmocka_unit_test(metadata_has_a_limit),
        cmocka_unit_test(plan_by_size),
        cmocka_unit_test(plan_takes_what_the_record_asks_for),
        cmocka_unit_test(plan_of_samplers),
        cmocka_unit_test(refused_samplers),
        cmocka_unit_test(json_round_trip),
        cmocka_unit_test(every_kind_has_its_route),
        cmocka_unit_test(an_inversion_goes_by_ddim_and_unguided),
        cmocka_unit_test(kinds_that_cannot_be),
        cmocka_unit_test(frames_and_inputs_become_tasks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
