/* SPDX-License-Identifier: Apache-2.0 */
/* Status hashes read, and progress as people see it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/progress.h"
#include "client/queue_place.h"
#include "client/status_hash.h"

#define ROUTE                                                                                      \
    "[{\"stage\":\"text-encode\",\"steps\":0,\"guidance\":0},"                                     \
    "{\"stage\":\"prior\",\"steps\":20,\"guidance\":2},"                                           \
    "{\"stage\":\"decoder\",\"steps\":25,\"guidance\":2}]"

/* A reply of HGETALL from NULL-terminated words. */
static json_t *status_of(const char *const *words)
{
    static struct redis_reply items[64];
    struct redis_reply reply = {.kind = REDIS_ARRAY, .items = items};
    for (; *words; words++)
        items[reply.count++] =
            (struct redis_reply){.kind = REDIS_BYTES, .bytes = *words, .size = strlen(*words)};
    return status_from_reply("heart", &reply);
}

static json_t *running(void)
{
    return status_of(
        (const char *const[]){"state",       "running", "stage",         "prior",
                              "step",        "5",       "steps",         "20",
                              "progress",    "0.125",   "images_total",  "2",
                              "images_done", "0",       "images_failed", "0",
                              "route",       ROUTE,     "timings",       "{\"text-encode\":12.5}",
                              "progress:0",  "0.1",     "prompt",        "a\xff",
                              "size",        "big",     "seed",          "",
                              NULL});
}

static void test_retries_are_shown(void **state)
{
    json_t *status =
        status_of((const char *const[]){"state", "running", "images_total", "1", "attempts", "2",
                                        "retry_at", "2026-01-31T12:34:56.789Z", NULL});
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    (void)state;
    assert_int_equal(json_integer_value(json_object_get(status, "attempts")), 2);
    status_print(status, out);
    fclose(out);
    assert_non_null(strstr(text, "  retries    2\n  next try   2026-01-31T12:34:56.789Z\n"));
    free(text);
    json_decref(status);
    status =
        status_of((const char *const[]){"state", "running", "attempts", "0", "retry_at", "", NULL});
    out = open_memstream(&text, &size);
    status_print(status, out);
    fclose(out);
    assert_null(strstr(text, "retries"));
    assert_null(strstr(text, "next try"));
    free(text);
    json_decref(status);
}

/* What the person asked for, as digits: of best_of's pictures the best, in their order. */
static void assert_wanted(const char *results, const char *best, const char *wanted)
{
    int indices[JOB_IMAGES_MAX];
    char found[JOB_IMAGES_MAX + 1] = "";
    json_t *status = status_of((const char *const[]){"results", results, "best", best, NULL});
    int count = status_wanted(status, indices);
    for (int i = 0; i < count; i++)
        found[i] = (char)('0' + indices[i]);
    assert_string_equal(found, wanted);
    json_decref(status);
}

static void test_wanted_results(void **state)
{
    (void)state;
    assert_wanted("[\"a\",null,\"c\",\"d\"]", "[]", "023");
    assert_wanted("[\"a\",null,\"c\",\"d\"]", "[3,0,2]", "023"); /* scores alone */
    assert_wanted("[\"a\",null,\"c\",\"d\"]", "[3,0]", "30");
    assert_wanted("[\"a\",\"b\"]", "[1]", "1");
    assert_wanted("[null,null]", "[]", "");
    /* what anybody may write into Redis */
    assert_wanted("[\"a\",\"b\",\"c\"]", "[7,-1]", "");
    assert_wanted("[\"a\",\"b\",\"c\"]", "[\"1\",1]", "1");
    assert_wanted("[\"a\",\"b\"]", "3", "01");
    assert_wanted("x", "[0]", "");
}

static void test_more_results_than_a_job_has(void **state)
{
    int indices[JOB_IMAGES_MAX];
    json_t *results = json_array(), *status = json_object();
    (void)state;
    for (int i = 0; i < JOB_IMAGES_MAX + 9; i++)
        json_array_append_new(results, json_string("a"));
    json_object_set_new(status, "results", results);
    assert_int_equal(status_wanted(status, indices), JOB_IMAGES_MAX);
    json_decref(status);
}

static void test_scores_are_shown(void **state)
{
    json_t *status = status_of(
        (const char *const[]){"state", "succeeded", "images_total", "3", "images_done", "3",
                              "results", "[\"file:///a\",\"file:///b\",\"file:///c\"]", "scores",
                              "[20.5,null,31.257]", "best", "[2,0]", NULL});
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    (void)state;
    status_print(status, out);
    fclose(out);
    assert_non_null(strstr(text, "  pictures   3 of 3 done; the best 2:\n"
                                 "  31.26      file:///c\n"
                                 "  20.50      file:///a\n"));
    assert_null(strstr(text, "file:///b"));
    free(text);
    json_decref(status);
}

static void test_fields_are_typed(void **state)
{
    json_t *status = running();
    (void)state;
    char *text = json_dumps(status, JSON_COMPACT | JSON_REAL_PRECISION(6));
    assert_string_equal(text,
                        "{\"id\":\"heart\",\"state\":\"running\",\"prompt\":\"a\xef\xbf\xbd\","
                        "\"size\":\"big\",\"seed\":null,\"stage\":\"prior\",\"step\":5,\"steps\":"
                        "20,\"progress\":0.125,"
                        "\"images_total\":2,\"images_done\":0,\"images_failed\":0,\"route\":" ROUTE
                        ",\"timings\":{\"text-encode\":12.5}}");
    assert_int_equal(status_state(status), JOB_RUNNING);
    free(text);
    json_decref(status);
}

static json_t *placed(const char *state, const char *ticket, const char *work,
                      const struct queue_numbers *numbers)
{
    json_t *status = status_of(
        (const char *const[]){"state", state, "images_total", "2", "images_done", "0",
                              "images_failed", "0", "queue_ticket", ticket, "work_ms", work, NULL});
    queue_place(status, numbers, 1769862896789LL);
    return status;
}

static void assert_place(const char *state, const char *ticket, const char *work,
                         const struct queue_numbers *numbers, int64_t position, int64_t eta)
{
    json_t *status = placed(state, ticket, work, numbers);
    const json_t *found = json_object_get(status, "queue_position");
    const json_t *eta_ms = json_object_get(status, "eta_ms");
    assert_int_equal(found ? json_integer_value(found) : -1, position);
    assert_int_equal(eta_ms ? json_integer_value(eta_ms) : -1, eta);
    json_decref(status);
}

static void test_place_in_the_queue(void **state)
{
    /* round 10, 3 clients with 500 pictures, 16 in flight, 40 ended, one each 100 ms */
    const struct queue_numbers numbers = {{10, 3, 500, 16, 40, 100}, ""};
    const struct queue_numbers nothing = {{-1, -1, -1, -1, -1, -1}, NULL};
    struct queue_numbers unpaced = numbers;
    (void)state;
    assert_place("accepted", "30", "", &numbers, 60 + 16, (76 + 2) * 100);
    assert_place("accepted", "9", "", &numbers, 16, 1800);
    assert_place("accepted", "4000", "", &numbers, 498 + 16, 51600);
    assert_place("accepted", "9223372036854775807", "", &numbers, 498 + 16, 51600);
    assert_place("queued", "50", "", &numbers, 10, 1200);
    assert_place("queued", "30", "", &numbers, 0, 200);
    assert_place("queued", "30", "5000", &numbers, 0, 5000); /* its own computing takes longer */
    assert_place("running", "", "50", &numbers, -1, 200);
    assert_place("running", "", "", &nothing, -1, -1);
    assert_place("accepted", "30", "70", &nothing, -1, 70);
    unpaced.of[QUEUE_INTERVAL_MS] = -1;
    assert_place("queued", "50", "", &unpaced, 10, -1);
    /* numbers that no queue can have */
    const struct queue_numbers odd = {
        {INT64_C(1) << 53, 0, INT64_C(1) << 53, 5, 0, INT64_C(1) << 53}, ""};
    assert_place("accepted", "-9223372036854775808", "", &odd, 5, 3155760000000);
    assert_place("queued", "9223372036854775807", "", &odd, INT64_C(1) << 53, 3155760000000);
    assert_place("running", "", "9223372036854775807", &nothing, -1, 3155760000000);
    json_t *status = placed("queued", "50", "", &numbers);
    assert_string_equal(status_text(status, "eta_at"), "2026-01-31T12:34:57.989Z");
    json_decref(status);
}

static void assert_waiting(const char *state, const char *stage, const char *no_worker,
                           const char *wanted)
{
    const struct queue_numbers numbers = {{10, 3, 500, 16, 40, 100}, no_worker};
    json_t *status = status_of((const char *const[]){"state", state, "images_total", "1",
                                                     "images_done", "0", "images_failed", "0",
                                                     "stage", stage, "route", ROUTE, NULL});
    queue_place(status, &numbers, 0);
    assert_string_equal(status_text(status, "waiting"), wanted);
    assert_int_equal(json_object_get(status, "eta_ms") != NULL, !*wanted);
    json_decref(status);
}

static void test_no_worker(void **state)
{
    (void)state;
    assert_waiting("running", "prior", "", "");
    assert_waiting("running", "prior", NULL, "");
    assert_waiting("running", "prior", "text-encode,upsampler-1", "");
    assert_waiting("running", "prior", "decoder,upsampler-1", "no worker for stage decoder");
    assert_waiting("queued", "text-encode", "upsampler-2,prior", "no worker for stage prior");
    assert_waiting("accepted", "text-encode", "text-encode", "no worker for stage text-encode");
    assert_waiting("running", "decoder", "decoders,a-decoder", "");
}

static void test_bars(void **state)
{
    struct progress progress;
    struct progress_style style = {.columns = 62};
    json_t *status = running();
    (void)state;
    progress_from_status(&progress, status);
    char *bars = progress_bars(&progress, 7.4, &style);
    assert_string_equal(bars, "heart running  12 %  0 of 2 pictures  ETA 7 s\n"
                              "  text-encode  ####################  done      0.01 s\n"
                              "  prior        #####---------------  5/20      \n"
                              "  decoder      --------------------  waiting   \n");
    free(bars);
    style.utf8 = true;
    bars = progress_bars(&progress, -1, &style);
    assert_non_null(strstr(bars, "  prior        █████░░░░░░░░░░░░░░░  5/20"));
    assert_null(strstr(bars, "ETA"));
    free(bars);
    char *line = progress_line(&progress);
    assert_string_equal(line, "running: prior, 0 of 2 pictures");
    free(line);
    json_decref(status);
}

static void test_ended(void **state)
{
    struct progress progress;
    json_t *status = status_of((const char *const[]){"state", "succeeded", "stage", "decoder",
                                                     "step", "25", "steps", "25", "progress", "1",
                                                     "images_total", "1", "route", ROUTE, NULL});
    (void)state;
    progress_from_status(&progress, status);
    for (int i = 0; i < progress.count; i++)
        assert_int_equal(progress.stages[i].phase, PHASE_DONE);
    char *line = progress_line(&progress);
    assert_string_equal(line, "succeeded");
    free(line);
    json_decref(status);
    status = status_of((const char *const[]){"state", "failed", "error_message", "no such model",
                                             "route", "[]", "stage", "", NULL});
    progress_from_status(&progress, status);
    assert_int_equal(progress.count, 0);
    line = progress_line(&progress);
    assert_string_equal(line, "failed: no such model");
    free(line);
    json_decref(status);
}

/* What anybody may write into Redis: bars end, and nothing steers the terminal. */
static void test_odd_status(void **state)
{
    static const char *const fractions[] = {"1200", "-3", "1e308"};
    const struct progress_style style = {.columns = 60};
    (void)state;
    for (size_t i = 0; i < sizeof fractions / sizeof *fractions; i++) {
        struct progress progress;
        char *shown = NULL;
        size_t size;
        FILE *out = open_memstream(&shown, &size);
        json_t *status = status_of(
            (const char *const[]){"state",    "running",         "stage",         "prior\033[2J",
                                  "step",     "99999999999",     "steps",         "3",
                                  "progress", fractions[i],      "error_message", "a\033[31mb",
                                  "results",  "[\"\\u001b[m\"]", "seed",          "1",
                                  "model",    "x\033",           "route",         ROUTE,
                                  NULL});
        progress_from_status(&progress, status);
        assert_true(progress.fraction >= 0 && progress.fraction <= 1);
        char *bars = progress_bars(&progress, 1e300, &style), *line = progress_line(&progress);
        status_print(status, out);
        fclose(out);
        assert_true(strlen(bars) < 600);
        assert_null(strchr(bars, '\033'));
        assert_null(strchr(line, '\033'));
        assert_null(strchr(shown, '\033'));
        free(bars);
        free(line);
        free(shown);
        json_decref(status);
    }
}

static void test_pace(void **state)
{
    struct pace pace = {0};
    (void)state;
    assert_true(pace_eta(&pace, 2, 1000, 0.2) < 0);
    assert_true(pace_eta(&pace, 2, 1200, 0.3) < 0); /* too early */
    double eta = pace_eta(&pace, 2, 3000, 0.4);     /* 0.2 in 2 s, 0.6 to go */
    assert_true(eta > 5.99 && eta < 6.01);
    assert_true(pace_eta(&pace, 3, 4000, 0.5) < 0); /* another stage, another pace */
    eta = pace_eta(&pace, 3, 8000, 0.6);
    assert_true(eta > 15.99 && eta < 16.01);
    assert_true(pace_eta(&pace, 3, 9000, 0.5) < 0); /* nothing won */
}

static void test_durations(void **state)
{
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{0, "0 s"},
                 {59.4, "59 s"},
                 {59.6, "1 min 0 s"},
                 {3725, "1 h 2 min"},
                 {1e300, "100000 h 0 min"}};
    char text[24];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        progress_duration(cases[i].seconds, text);
        assert_string_equal(text, cases[i].text);
    }
}

/* Not a terminal: a line for each change, and none twice. */
static void test_lines(void **state)
{
    struct progress_screen screen;
    struct progress progress;
    char *text = NULL;
    size_t size;
    FILE *out = tmpfile();
    json_t *status = running();
    (void)state;
    progress_open(&screen, out);
    assert_false(screen.terminal);
    progress_from_status(&progress, status);
    progress_show(&screen, &progress, 1000);
    progress.stages[1].step = 6;
    progress_show(&screen, &progress, 1200);
    progress.done = 1;
    progress_show(&screen, &progress, 1400);
    progress_close(&screen);
    rewind(out);
    FILE *copy = open_memstream(&text, &size);
    for (int c; (c = getc(out)) != EOF;)
        putc(c, copy);
    fclose(copy);
    fclose(out);
    assert_string_equal(text, "running: prior, 0 of 2 pictures\nrunning: prior, 1 of 2 pictures\n");
    free(text);
    json_decref(status);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_place_in_the_queue),
        cmocka_unit_test(test_no_worker),
        cmocka_unit_test(test_fields_are_typed),
        cmocka_unit_test(test_retries_are_shown),
        cmocka_unit_test(test_wanted_results),
        cmocka_unit_test(test_more_results_than_a_job_has),
        cmocka_unit_test(test_scores_are_shown),
        cmocka_unit_test(test_bars),
        cmocka_unit_test(test_ended),
        cmocka_unit_test(test_odd_status),
        cmocka_unit_test(test_pace),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
