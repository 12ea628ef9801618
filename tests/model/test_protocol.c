/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the model of the protocol within bounds, and shows that the checker can fail: each mutation
 * of the model has a counterexample. With the argument `slow` the bounds are wider; with `trace`
 * the counterexamples of the mutations are printed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/model/protocol.h"

#define STATES_MAX 4000000 /* some 700 MB with the steps between them */

static bool tracing;

/* --- the checker itself, on a counter --- */

struct counter {
    int top, bad, trap; /* counts up to `top`; a state that must not be; one without a way on */
};

static void counter_initial(const void *context, void *state)
{
    (void)context;
    *(int *)state = 0;
}

static void counter_expand(const void *context, const void *state, struct checker *checker)
{
    const struct counter *counter = context;
    int at = *(const int *)state, up = at + 1, over = at + 2;
    if (at == counter->trap || at >= counter->top)
        return;
    checker_step(checker, &up, 1, false);
    checker_step(checker, &over, 2, true);
}

static const char *counter_violation(const void *context, const void *state)
{
    return *(const int *)state == ((const struct counter *)context)->bad ? "bad" : NULL;
}

static bool counter_goal(const void *context, const void *state)
{
    return *(const int *)state >= ((const struct counter *)context)->top;
}

static void counter_label(const void *context, unsigned label, char text[CHECKER_LABEL_SIZE])
{
    (void)context;
    snprintf(text, CHECKER_LABEL_SIZE, "+%u", label);
}

static void counter_show(const void *context, const void *state, FILE *out)
{
    (void)context;
    fprintf(out, "at %d\n", *(const int *)state);
}

static struct finding count(struct counter counter, size_t limit, FILE *trace)
{
    static const struct model model = {sizeof(int),       counter_initial, counter_expand,
                                       counter_violation, counter_goal,    counter_label,
                                       counter_show};
    return checker_run(&model, &counter, limit, trace);
}

static void test_checker_holds(void **state)
{
    struct finding finding = count((struct counter){10, -1, -1}, 100, NULL);
    (void)state;
    assert_int_equal(finding.verdict, VERDICT_HOLDS);
    assert_int_equal(finding.states, 12); /* 0 to 11 */
    assert_int_equal(finding.steps, 20);
    assert_int_equal(finding.goals, 2);
}

static void test_checker_finds_the_shortest_way(void **state)
{
    char text[256] = "";
    FILE *trace = fmemopen(text, sizeof text, "w");
    struct finding finding = count((struct counter){10, 5, -1}, 100, trace);
    (void)state;
    fclose(trace);
    assert_int_equal(finding.verdict, VERDICT_VIOLATED);
    assert_int_equal(finding.depth, 3);
    assert_string_equal(text, "violated: bad\n    1  +1\n    2  +2\n    3  +2\nat 5\n");
}

/* Faults lead past the trap; without them there is no way. */
static void test_checker_finds_what_is_stuck(void **state)
{
    (void)state;
    struct finding finding = count((struct counter){10, -1, 6}, 100, NULL);
    assert_int_equal(finding.verdict, VERDICT_STUCK);
    assert_int_equal(finding.depth, 0); /* from the start on only a fault leads past it */
    assert_int_equal(count((struct counter){10, -1, -1}, 11, NULL).verdict, VERDICT_TOO_BIG);
}

static void test_checker_grows(void **state)
{
    struct finding finding = count((struct counter){100000, -1, -1}, 200000, NULL);
    (void)state;
    assert_int_equal(finding.verdict, VERDICT_HOLDS);
    assert_int_equal(finding.states, 100002);
}

/* --- what holds --- */

static struct finding run(const struct bounds *bounds, FILE *trace)
{
    struct finding finding = checker_run(&protocol_model, bounds, STATES_MAX, trace);
    print_message("%s: %zu states, %zu steps, depth %zu\n", bounds->name, finding.states,
                  finding.steps, finding.depth);
    return finding;
}

#define ONE_EACH .members = {1, 1, 1}
#define JOB      .jobs = 1, .pictures = 1

static const struct bounds quick[] = {
    {"processes die twice", JOB, ONE_EACH, .crashes = 2, .unknowns = 1},
    {"two pictures", .jobs = 1, .pictures = 2, ONE_EACH, .crashes = 1, .unknowns = 1},
    {"two jobs", .jobs = 2, .pictures = 1, ONE_EACH, .crashes = 1},
    {"two jobs, room for one picture", .jobs = 2, .pictures = 1, .room = 1, ONE_EACH, .crashes = 1},
    {"two pictures, room for one", .jobs = 1, .pictures = 2, .room = 1, ONE_EACH, .cancels = 1,
     .crashes = 1},
    {"a client sends all there is", JOB, ONE_EACH, .repeats = 1, .others = 1, .cancels = 1,
     .crashes = 1},
    {"pictures fail, the job is cancelled", .jobs = 1, .pictures = 2, ONE_EACH, .failures = 1,
     .cancels = 1},
    {"Redis is emptied", JOB, ONE_EACH, .flushes = 2, .crashes = 2},
    {"Redis is emptied under two coordinators", JOB, .members = {2, 1, 1}, .rebalances = 1,
     .flushes = 1},
    {"tried again, processes die", JOB, ONE_EACH, .retries = 2, .crashes = 1, .unknowns = 1},
    {"tried again by two coordinators", JOB, .members = {2, 1, 1}, .retries = 1, .rebalances = 1},
    {"a deadline passes, processes die", JOB, ONE_EACH, .deadlines = 1, .crashes = 1,
     .unknowns = 1},
    {"a deadline makes room for another job", .jobs = 2, .pictures = 1, .room = 1, ONE_EACH,
     .deadlines = 1},
    {"a deadline and two coordinators", JOB, .members = {2, 1, 1}, .deadlines = 1, .rebalances = 1},
    {"tried again, cancelled, expired", JOB, ONE_EACH, .retries = 1, .cancels = 1, .deadlines = 1},
    {"two coordinators", JOB, .members = {2, 1, 1}, .rebalances = 1, .crashes = 1},
    {"a coordinator's zombie", JOB, .members = {2, 1, 1}, .one_slot = {true}, .takeovers = 1,
     .unknowns = 1},
    {"two workers", JOB, .members = {1, 2, 1}, .rebalances = 2, .crashes = 1},
    {"two workers of the last stage", JOB, .members = {1, 1, 2}, .rebalances = 1, .unknowns = 1,
     .crashes = 1},
    {"a worker's zombie", JOB, .members = {1, 2, 1}, .one_slot = {false, true}, .takeovers = 1,
     .unknowns = 1, .crashes = 1},
    {"a zombie of the last stage", JOB, .members = {1, 1, 2}, .one_slot = {false, false, true},
     .takeovers = 1, .unknowns = 1},
};

static const struct bounds wide[] = {
    {"processes die four times", JOB, ONE_EACH, .crashes = 4, .unknowns = 2},
    {"all clients, crashes and losses", JOB, ONE_EACH, .repeats = 1, .cancels = 1, .crashes = 1,
     .unknowns = 1, .failures = 1},
    {"two jobs, one cancelled", .jobs = 2, .pictures = 1, ONE_EACH, .cancels = 1, .failures = 1},
    {"two coordinators, two rebalances", JOB, .members = {2, 1, 1}, .rebalances = 2, .unknowns = 1},
    {"a coordinator's zombie and a crash", JOB, .members = {2, 1, 1}, .one_slot = {true},
     .takeovers = 1, .crashes = 1},
    {"two jobs, room for one", .jobs = 2, .pictures = 1, .room = 1, ONE_EACH, .crashes = 2,
     .unknowns = 1},
    {"two pictures, room for one, two coordinators", .jobs = 1, .pictures = 2, .room = 1,
     .members = {2, 1, 1}, .rebalances = 1},
    {"two pictures, two workers", .jobs = 1, .pictures = 2, .members = {1, 1, 2}, .rebalances = 1,
     .crashes = 1},
    {"tried again at both stages, processes die twice", JOB, ONE_EACH, .retries = 2, .crashes = 2,
     .unknowns = 1},
    {"tried again, expired, cancelled, a crash", JOB, ONE_EACH, .retries = 1, .deadlines = 1,
     .cancels = 1, .crashes = 1},
    {"two pictures, one tried again, a deadline", .jobs = 1, .pictures = 2, ONE_EACH, .retries = 1,
     .deadlines = 1},
    {"Redis is emptied three times", JOB, ONE_EACH, .flushes = 3, .crashes = 3, .unknowns = 1},
};

static void check_all(const struct bounds *bounds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct finding finding = run(&bounds[i], stderr);
        assert_int_equal(finding.verdict, VERDICT_HOLDS);
        assert_true(finding.goals > 1); /* more than the start, where nothing was submitted */
    }
}

static void test_protocol(void **state)
{
    (void)state;
    check_all(quick, sizeof quick / sizeof *quick);
}

static void test_protocol_wide(void **state)
{
    (void)state;
    check_all(wide, sizeof wide / sizeof *wide);
}

/* --- what does not hold --- */

static const struct {
    struct bounds bounds;
    enum verdict verdict;
} mutants[] = {
#define CRASHING JOB, ONE_EACH, .crashes = 1, .unknowns = 1
#define SHARING  JOB, .members = {2, 2, 1}, .rebalances = 1
    {{.mutation = OFFSETS_OUTSIDE, CRASHING}, VERDICT_VIOLATED},
    {{.mutation = RESULTS_OUTLIVE_EPOCH, JOB, .members = {1, 2, 1}, .rebalances = 2},
     VERDICT_VIOLATED},
    {{.mutation = UNKNOWN_REPEATED, CRASHING}, VERDICT_VIOLATED},
    {{.mutation = EVENT_BEFORE_PICTURE, CRASHING}, VERDICT_VIOLATED},
    {{.mutation = NO_GENERATION_FENCE, SHARING}, VERDICT_VIOLATED},
    {{.mutation = NO_FENCES, JOB, .members = {1, 2, 1}, .one_slot = {false, true}, .takeovers = 1},
     VERDICT_VIOLATED},
    {{.mutation = UNSTABLE_OFFSETS, SHARING}, VERDICT_VIOLATED},
    {{.mutation = REPLAY_TOO_EARLY, SHARING}, VERDICT_STUCK},
    {{.mutation = TOMBSTONE_BEFORE_RESULT, CRASHING}, VERDICT_STUCK},
    {{.mutation = ENDED_FORGOTTEN, JOB, ONE_EACH, .repeats = 1}, VERDICT_VIOLATED},
    {{.mutation = LATE_EVENT_COUNTED, JOB, ONE_EACH, .cancels = 1}, VERDICT_VIOLATED},
    {{.mutation = ADMISSION_UNMARKED, .jobs = 2, .pictures = 1, .room = 1, ONE_EACH},
     VERDICT_VIOLATED},
    {{.mutation = VIEW_BEFORE_COMMIT, JOB, ONE_EACH}, VERDICT_VIOLATED},
    {{.mutation = VIEW_GOES_BACK, SHARING}, VERDICT_VIOLATED},
    {{.mutation = VIEW_LOSS_UNNOTICED, JOB, ONE_EACH, .flushes = 1}, VERDICT_STUCK},
    {{.mutation = MARK_UNSIGNED, JOB, .members = {2, 1, 1}, .rebalances = 1, .flushes = 1},
     VERDICT_STUCK},
    {{.mutation = RETRY_UNMARKED, JOB, ONE_EACH, .retries = 1, .crashes = 1}, VERDICT_VIOLATED},
    {{.mutation = TIMER_UNFENCED, JOB, .members = {2, 1, 1}, .retries = 1, .rebalances = 1},
     VERDICT_VIOLATED},
    {{.mutation = TIMER_REPEATED, JOB, ONE_EACH, .retries = 1, .unknowns = 1}, VERDICT_VIOLATED},
};

/* Each is found, and the same bounds hold without it. */
static void test_mutations_are_found(void **state)
{
    (void)state;
    assert_int_equal(sizeof mutants / sizeof *mutants, MUTATION_COUNT - 1);
    for (size_t i = 0; i < sizeof mutants / sizeof *mutants; i++) {
        struct bounds bounds = mutants[i].bounds;
        bounds.name = mutation_text(bounds.mutation);
        assert_int_equal(bounds.mutation, i + 1);
        struct finding finding = run(&bounds, tracing ? stdout : NULL);
        assert_int_equal(finding.verdict, mutants[i].verdict);
        bounds.mutation = MUTATION_NONE;
        bounds.name = "the same without it";
        assert_int_equal(run(&bounds, stderr).verdict, VERDICT_HOLDS);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checker_holds),
        cmocka_unit_test(test_checker_finds_the_shortest_way),
        cmocka_unit_test(test_checker_finds_what_is_stuck),
        cmocka_unit_test(test_checker_grows),
        cmocka_unit_test(test_protocol),
        cmocka_unit_test(test_mutations_are_found),
    };
    const struct CMUnitTest slow_tests[] = {cmocka_unit_test(test_protocol_wide)};
    tracing = argc > 1 && strcmp(argv[1], "trace") == 0;
    if (argc > 1 && strcmp(argv[1], "slow") == 0)
        return cmocka_run_group_tests(slow_tests, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
