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

static void test_smallest(void **state)
{
    struct request request;
    struct job job;
    struct err err;
    (void)state;
    request_init(&request);
    json_t *record = request_json(&request, "a red heart", NULL);
    assert_int_equal(json_object_size(record), 4); /* version, type, prompt, n */
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
    request.steps[STAGE_DECODER] = 10;
    request.guidance[STAGE_PRIOR] = 0;
    request.sampler[STAGE_DECODER] = "ddim";
    request.eta[STAGE_DECODER] = 0.5;
    request.reuse[STAGE_UPSAMPLER_1] = 2;
    json_t *record = request_json(&request, "café 猫", "emoji");
    assert_int_equal(request_check(record, &job, &err), 0);
    assert_string_equal(job.id, "mine");
    assert_string_equal(job.prompt, "café 猫");
    assert_string_equal(job.negative_prompt, "blur");
    assert_string_equal(job.model, "emoji");
    assert_string_equal(job.client, "me");
    assert_int_equal(job.task_class, CLASS_BULK);
    assert_int_equal(job.size, 256);
    assert_int_equal(job.route[STAGE_DECODER].steps, 10);
    assert_true(job.route[STAGE_PRIOR].guidance == 0);
    assert_true(job.route[STAGE_DECODER].guidance < 0); /* not given */
    assert_int_equal(job.route[STAGE_DECODER].sampler, SAMPLER_DDIM);
    assert_true(job.route[STAGE_DECODER].eta == 0.5);
    assert_int_equal(job.route[STAGE_UPSAMPLER_1].reuse, 2);
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
        json_t *record = request_json(&request, prompts[i], NULL);
        assert_int_equal(request_check(record, &job, &err), -ERR_INVALID_JOB);
        job_release(&job);
        json_decref(record);
    }
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
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smallest),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_quoting),
        cmocka_unit_test(test_command_lines),
        cmocka_unit_test(test_text_for_terminals),
        cmocka_unit_test(test_words_of_librdkafka),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
