/* SPDX-License-Identifier: Apache-2.0 */
/* Job records from options, ids, and the command line that makes a picture again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/info.h"
#include "client/request.h"
#include "client/text.h"

static json_t *record_of(const struct request *request, const char *model)
{
    json_t *record = NULL;
    struct err err;
    assert_int_equal(request_json(request, model, &record, &err), 0);
    return record;
}

static void test_smallest(void **state)
{
    struct request request;
    struct job job;
    struct err err;
    (void)state;
    request_init(&request);
    request.prompt = "a red heart";
    json_t *record = record_of(&request, NULL);
    assert_int_equal(json_object_size(record), 3); /* version, type, prompt */
    assert_int_equal(request_check(record, &job, &err), 0);
    assert_int_equal(job.n, 1);
    assert_true(job.seed < 0);
    job_release(&job);
    json_decref(record);
}

static void test_everything(void **state)
{
    struct request request;
    struct job job;
    struct err err;
    (void)state;
    request_init(&request);
    request.id = "mine";
    request.negative_prompt = "blur";
    request.n = 4;
    request.size = 256;
    request.seed = 42;
    request.task_class = "bulk";
    request.client = "me";
    request.webhook = "https://example.org/hook";
    request.steps[STAGE_DECODER] = 10;
    request.guidance[STAGE_PRIOR] = 0;
    request.sampler[STAGE_DECODER] = "ddim";
    request.eta[STAGE_DECODER] = 0.5;
    request.reuse[STAGE_UPSAMPLER_1] = 2;
    request.prompt = "café 猫";
    request.threshold[STAGE_DECODER] = 0.995;
    request.prior = "none";
    request.candidates = 3;
    request.overflow = "split";
    request.best_of = 8;
    request.stop_at = 64;
    request.preview = 5;
    request.format = "webp";
    request.quality = 80;
    json_t *record = record_of(&request, "emoji");
    assert_int_equal(request_check(record, &job, &err), 0);
    assert_string_equal(job.id, "mine");
    assert_string_equal(job.prompt, "café 猫");
    assert_string_equal(job.negative_prompt, "blur");
    assert_string_equal(job.model, "emoji");
    assert_string_equal(job.client, "me");
    assert_string_equal(job.webhook, "https://example.org/hook");
    assert_int_equal(job.task_class, CLASS_BULK);
    assert_int_equal(job.size, 256);
    assert_int_equal(job.route[STAGE_DECODER].steps, 10);
    assert_true(job.route[STAGE_PRIOR].guidance == 0);
    assert_true(job.route[STAGE_DECODER].guidance < 0); /* not given */
    assert_int_equal(job.route[STAGE_DECODER].sampler, SAMPLER_DDIM);
    assert_true(job.route[STAGE_DECODER].eta == 0.5);
    assert_int_equal(job.route[STAGE_UPSAMPLER_1].reuse, 2);
    assert_true(hop_number(job.route[STAGE_DECODER].threshold) == 0.995);
    assert_int_equal(job.prior, PRIOR_NONE);
    assert_int_equal(job.candidates, 3);
    assert_int_equal(job.overflow, OVERFLOW_SPLIT);
    assert_int_equal(job.n, 8);
    assert_int_equal(job.keep, 4);
    assert_int_equal(job.stop_at, 64);
    assert_int_equal(job.preview, 5);
    assert_int_equal(job.output.format, FORMAT_WEBP);
    assert_int_equal(job.output.quality, 80);
    job_release(&job);
    json_decref(record);
}

static void test_mistakes(void **state)
{
    static const char *const prompts[] = {"", "ok"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct request request;
        struct job job = {0};
        struct err err;
        request_init(&request);
        request.id = i ? "not an id" : NULL;
        request.prompt = prompts[i];
        json_t *record = record_of(&request, NULL);
        assert_int_equal(request_check(record, &job, &err), -ERR_INVALID_JOB);
        job_release(&job);
        json_decref(record);
    }
}

static void test_not_utf8(void **state)
{
    struct request request;
    struct err err;
    json_t *record = NULL;
    (void)state;
    request_init(&request);
    request.prompt = "a red heart";
    request.sampler[STAGE_DECODER] = "\xff";
    assert_int_equal(request_json(&request, NULL, &record, &err), -ERR_INVALID_ARGUMENT);
    assert_string_equal(err.text, "'sampler' is not valid UTF-8");
    request.prompt = "\xff";
    request.sampler[STAGE_DECODER] = NULL;
    assert_int_equal(request_json(&request, NULL, &record, &err), -ERR_INVALID_ARGUMENT);
    assert_string_equal(err.text, "'prompt' is not valid UTF-8");
}

static void test_weights(void **state)
{
    static const struct {
        const char *weights;
        bool good;
    } cases[] = {{"1,2", true},  {"0.25,1e2", true}, {"1", false}, {"1,2,3", false},
                 {"1;2", false}, {"", false},        {",", false}, {"1,x", false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job_input inputs[2] = {{.weight = 1}, {.weight = 1}};
        struct request request = {.weights = cases[i].weights,
                                  .sources = {.inputs = inputs, .count = 2}};
        struct err err;
        assert_int_equal(request_weigh(&request, &err), cases[i].good ? 0 : -ERR_INVALID_ARGUMENT);
    }
    struct job_input inputs[2] = {{.weight = 1}, {.weight = 1}};
    struct request request = {.weights = "0.25,3", .sources = {.inputs = inputs, .count = 2}};
    assert_int_equal(request_weigh(&request, NULL), 0);
    assert_true(inputs[0].weight == 0.25 && inputs[1].weight == 3);
}

/* --- every option of every kind --- */

static const struct option_group all[] = {{"1", source_options},
                                          {"2", picture_options},
                                          {"3", sampling_options},
                                          {"4", sampler_options},
                                          {0}};

/* What a kind cannot be without, and nothing else. */
static void begin(struct request *request, enum job_type type)
{
    request_init(request);
    request->type = type;
    struct sources *sources = &request->sources;
    bool inputs = type == JOB_INTERPOLATE || type == JOB_EMBED || type == JOB_SCORE;
    if (type == JOB_TEXT_TO_IMAGE || type == JOB_EDIT || type == JOB_SCORE)
        request->prompt = "a red heart";
    if (type == JOB_TEXT_DIFF) {
        request->from = "red";
        request->to = "blue";
    }
    if (inputs) {
        sources->inputs = calloc(2, sizeof *sources->inputs);
        sources->count = 2;
        for (int i = 0; i < 2; i++)
            sources->inputs[i] = (struct job_input){.image = strdup("file:///a.png"), .weight = 1};
    } else if (type != JOB_TEXT_TO_IMAGE) {
        sources->image = strdup("file:///a.png");
    }
}

static bool is_word(const char *name, const char *beginning)
{
    return strncmp(name, beginning, strlen(beginning)) == 0;
}

/* A value that goes alone with the kind's defaults. */
static const char *value_of(const struct option *option, enum job_type type)
{
    const char *name = option->name;
    if (option->kind != OPTION_TEXT)
        return is_word(name, "eta-") ? "0" : is_word(name, "best") ? "3" : "2";
    return strcmp(name, "weight") == 0      ? "1,2"
           : strcmp(name, "mask-mode") == 0 ? "white"
           : strcmp(name, "overflow") == 0  ? "refuse"
           : strcmp(name, "prior") == 0     ? "none"
           : strcmp(name, "start") == 0     ? "noise"
           : strcmp(name, "noise") == 0     ? "fixed"
           : strcmp(name, "format") == 0    ? (type == JOB_EMBED ? "npy" : "webp")
           : is_word(name, "sampler-")      ? "ddim"
                                            : "file:///b.png";
}

static void parse_one(struct request *request, const struct option *option, enum job_type type)
{
    struct err err;
    bool help = false;
    static char value[64]; /* the request keeps it */
    char flag[64], *argv[] = {(char[]){"x"}, flag, value, NULL};
    int argc = option->kind == OPTION_FLAG ? 2 : 3;
    snprintf(flag, sizeof flag, "--%s", option->name);
    bool share = strcmp(option->unit ? option->unit : "", "X") == 0; /* 0 to 1 */
    snprintf(value, sizeof value, "%s",
             share && option->maximum <= 1 ? (is_word(option->name, "eta-") ? "0" : "0.5")
                                           : value_of(option, type));
    assert_int_equal(options_parse(all, type, request, &argc, argv, &help, &err), 0);
    assert_int_equal(argc, 1);
}

/* The tables of options and the schemas say the same of each kind. */
static void test_options_and_schemas(void **state)
{
    (void)state;
    int accepted = 0, refused = 0;
    for (enum job_type type = 0; type < JOB_CANCEL; type++)
        for (const struct option_group *group = all; group->title; group++)
            for (const struct option *option = group->options; option->name; option++) {
                struct request request, plain;
                struct job job = {0};
                struct err err = {0};
                bool has = option->kinds & KIND(type);
                enum job_type as = type;
                for (enum job_type other = 0; !has && other < JOB_CANCEL; other++)
                    if (option->kinds & KIND(other))
                        as = other; /* where it is, its value is read like this */
                begin(&request, type);
                begin(&plain, type);
                parse_one(&request, option, as);
                if (request.image && !request.sources.image)
                    request.sources.image = strdup(request.image);
                if (request.mask)
                    request.sources.mask = strdup(request.mask);
                assert_int_equal(request_weigh(&request, &err), 0);
                json_t *record = record_of(&request, NULL), *same = record_of(&plain, NULL);
                int rc = request_check(record, &job, &err);
                if (has && (rc != 0 || json_equal(record, same)))
                    fail_msg("%s --%s: %s", job_type_name(type), option->name, err.text);
                accepted += rc == 0 && has;
                refused += rc != 0;
                if (rc == 0)
                    job_release(&job);
                json_decref(record);
                json_decref(same);
                request_release(&request);
                request_release(&plain);
            }
    assert_true(accepted > 150);
    assert_true(refused > 50);
}

/* Each member of each kind's schema can be said by an option, or is one of these. */
static void test_schema_members(void **state)
{
    static const char *const others[] = {"version",    "type",   "id",      "image",
                                         "inputs",     "prompt", "model",   "class",
                                         "deadline_s", "client", "webhook", "metadata"};
    static const char *const stages[] = {"steps", "guidance", "sampler",
                                         "eta",   "reuse",    "threshold"};
    (void)state;
    for (enum job_type type = 0; type < JOB_CANCEL; type++) {
        char path[256];
        snprintf(path, sizeof path, SOURCE_DIR "/schemas/job-%s.schema.json", job_type_name(type));
        json_t *schema = json_load_file(path, 0, NULL);
        assert_non_null(schema);
        const char *key;
        json_t *value;
        json_object_foreach (json_object_get(schema, "properties"), key, value) {
            bool known = false;
            char name[64];
            for (size_t i = 0; i < sizeof others / sizeof *others; i++)
                known |= strcmp(key, others[i]) == 0;
            bool staged = false;
            for (size_t i = 0; i < sizeof stages / sizeof *stages; i++)
                staged |= strcmp(key, stages[i]) == 0;
            snprintf(name, sizeof name, "%s%s", strcmp(key, "output") == 0 ? "format" : key,
                     staged ? "-upsampler-2" : "");
            if (strcmp(key, "guidance") == 0)
                snprintf(name, sizeof name, "guidance-decoder");
            for (char *at = name; *at; at++)
                *at = *at == '_' ? '-' : *at;
            for (const struct option_group *group = all; group->title && !known; group++)
                for (const struct option *option = group->options; option->name; option++)
                    known |= strcmp(option->name, name) == 0 && option->kinds & KIND(type);
            if (!known)
                fail_msg("no option of %s says '%s'", job_type_name(type), key);
        }
        json_decref(schema);
    }
}

/* Each JSON example of docs/jobs.md is a job that a coordinator takes. */
static void test_examples_of_the_document(void **state)
{
    static const char fence[] = "```json\n";
    char *text = NULL, *at;
    size_t size = 0;
    bool seen[JOB_TYPE_COUNT] = {false};
    (void)state;
    FILE *file = fopen(SOURCE_DIR "/docs/jobs.md", "r");
    assert_non_null(file);
    assert_true(getdelim(&text, &size, 0, file) > 0);
    fclose(file);
    for (at = text; (at = strstr(at, fence)); at++) {
        struct job job;
        struct err err;
        json_t *record = json_loads(at + strlen(fence), JSON_DISABLE_EOF_CHECK, NULL);
        assert_non_null(record);
        if (request_check(record, &job, &err) != 0)
            fail_msg("an example of docs/jobs.md: %s", err.text);
        seen[job.type] = true;
        job_release(&job);
        json_decref(record);
    }
    for (enum job_type type = 0; type < JOB_CANCEL; type++)
        if (!seen[type])
            fail_msg("docs/jobs.md has no example of %s", job_type_name(type));
    free(text);
}

static void test_ids(void **state)
{
    static const unsigned char zero[10] = {0},
                               ones[10] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    static const unsigned char one[10] = {[9] = 1}, first[10] = {0x80};
    char a[JOB_ID_NEW_SIZE], b[JOB_ID_NEW_SIZE];
    (void)state;
    job_id_make(0, zero, a);
    assert_string_equal(a, "00000000000000000000000000");
    job_id_make(1469918176385, ones, a); /* the time of the ULID specification's example */
    assert_string_equal(a, "01aryz6s41zzzzzzzzzzzzzzzz");
    job_id_make(31, one, a);
    assert_string_equal(a, "000000000z0000000000000001");
    job_id_make(0, first, a);
    assert_string_equal(a, "0000000000g000000000000000");
    job_id_make(1000, ones, a);
    job_id_make(1001, zero, b);
    assert_true(strcmp(a, b) < 0);
    job_id_new(1000, a);
    job_id_new(1000, b);
    assert_string_not_equal(a, b);
    assert_true(job_id_valid(a, strlen(a)));
}

static char *quoted(const char *text)
{
    char *out = NULL;
    size_t size;
    FILE *file = open_memstream(&out, &size);
    text_quote(text, file);
    fclose(file);
    return out;
}

static void test_quoting(void **state)
{
    static const char *const words[] = {
        "plain-1.5_@%",
        "plain-1.5_@%",
        "a red heart",
        "'a red heart'",
        "it's",
        "'it'\\''s'",
        "",
        "''",
        "$HOME `x`",
        "'$HOME `x`'",
        "a\nb",
        "$'a\\nb'",
        "a\033[31mb",
        "$'a\\033[31mb'",
        "it's \\ \177",
        "$'it\\'s \\\\ \\177'",
        "\302\2331m",
        "$'\\302\\2331m'",
        "\xff",
        "$'\\377'",
        "猫",
        "'猫'",
        "~",
        "'~'",
    };
    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i += 2) {
        char *text = quoted(words[i]);
        assert_string_equal(text, words[i + 1]);
        free(text);
    }
}

static void assert_printed(const char *text, bool lines, const char *wanted)
{
    char *out = NULL;
    size_t size;
    FILE *file = open_memstream(&out, &size);
    text_print(text, lines, file);
    fclose(file);
    assert_string_equal(out, wanted);
    free(out);
}

static void test_text_for_terminals(void **state)
{
    (void)state;
    assert_printed("a \033[31mred\r\n猫 é\177\302\233m", true, "a  [31mred \n猫 é  m");
    assert_printed("a\n\tb\xff.", false, "a  b .");
    assert_printed("cut \347\214", true, "cut   ");
}

static void assert_trimmed(const char *text, const char *wanted)
{
    char buffer[200];
    snprintf(buffer, sizeof buffer, "%s", text);
    text_trim_kafka(buffer);
    assert_string_equal(buffer, wanted);
}

static void test_words_of_librdkafka(void **state)
{
    (void)state;
    assert_trimmed("refused (after 0ms in state CONNECT, 1 identical error(s) suppressed)",
                   "refused");
    assert_trimmed("a (after 2ms in state DOWN); b (after 3ms in state UP).", "a; b.");
    assert_trimmed("lost (after lunch)", "lost (after lunch)");
    assert_trimmed("lost (after 2ms in state", "lost (after 2ms in state");
}

static void test_sizes(void **state)
{
    static const struct {
        int size, rc;
    } cases[] = {{0, 0}, {64, 0}, {256, 0}, {1024, 0}, {512, -ERR_INVALID_JOB}};
    const struct model_card card = {
        .name = "m", .decoder_size = 64, .upsampler_1_size = 256, .upsampler_2_size = 1024};
    struct err err;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct job job = {.size = cases[i].size};
        assert_int_equal(request_check_size(&job, &card, &err), cases[i].rc);
    }
    assert_non_null(strstr(err.text, "--size is 512, the model 'm' makes 64, 256 or 1024"));
}

static void assert_command(const char *request, const char *wanted)
{
    json_t *json = json_loads(request, 0, NULL);
    char *text = info_command_line(json);
    assert_string_equal(text, wanted);
    free(text);
    json_decref(json);
}

static void test_command_lines(void **state)
{
    (void)state;
    assert_command("{\"prompt\":\"a red heart\",\"seed\":8,\"size\":256,\"model\":\"emoji\","
                   "\"steps\":{\"prior\":25,\"upsampler-1\":7},\"guidance\":{\"prior\":2.5}}",
                   "unclip generate 'a red heart' --seed 8 --size 256 --model emoji "
                   "--steps-prior 25 --steps-upsampler-1 7 --guidance-prior 2.5 -o out");
    assert_command("{\"prompt\":\"-x\",\"negative_prompt\":\"it's\",\"seed\":1}",
                   "unclip generate --negative-prompt 'it'\\''s' --seed 1 -o out -- -x");
    assert_command("{\"type\":\"text-to-image\",\"prompt\":\"x\",\"prior\":\"none\",\"output\":"
                   "{\"format\":\"webp\",\"quality\":80}}",
                   "unclip generate x --prior none --format webp --quality 80 -o out");
    assert_command("{\"type\":\"variation\",\"image\":\"data:,\",\"prompt\":\"a cat\",\"seed\":3,"
                   "\"start\":\"inversion\",\"eta\":{\"decoder\":0.5}}",
                   "unclip variation PICTURE --prompt 'a cat' --seed 3 --start inversion "
                   "--eta-decoder 0.5 --local -o out");
    assert_command("{\"type\":\"edit\",\"image\":\"https://a.org/b.png\",\"mask\":\"data:,\","
                   "\"prompt\":\"-x\",\"mask_mode\":\"white\",\"feather\":2}",
                   "unclip edit https://a.org/b.png --mask PICTURE --mask-mode white --feather 2 "
                   "--local -o out -- -x");
    assert_command("{\"type\":\"interpolate\",\"inputs\":[{\"image\":\"data:,\",\"weight\":0.25},"
                   "{\"text\":\"a star\",\"weight\":0.75}],\"seed\":1}",
                   "unclip interpolate PICTURE 'text:a star' --weight 0.25,0.75 --seed 1 --local "
                   "-o out");
    assert_command("{\"type\":\"text-diff\",\"image\":\"data:,\",\"from\":\"a b\",\"to\":\"c\","
                   "\"theta\":0.5}",
                   "unclip text-diff PICTURE --theta 0.5 --from 'a b' --to c --local -o out");
    assert_command("{\"type\":\"upscale\",\"image\":\"data:,\",\"from\":64,\"size\":256}",
                   "unclip upscale PICTURE --size 256 --from 64 --local -o out");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smallest),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_options_and_schemas),
        cmocka_unit_test(test_schema_members),
        cmocka_unit_test(test_examples_of_the_document),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_quoting),
        cmocka_unit_test(test_command_lines),
        cmocka_unit_test(test_text_for_terminals),
        cmocka_unit_test(test_words_of_librdkafka),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
