/* SPDX-License-Identifier: Apache-2.0 */
/* Concepts: what is done with a picture that looks like one, and files that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include <math.h>

#include "common/safetensors.h"
#include "worker_fixture.h"
#include "workers/probe.h"

enum { D = 4, SIDE = 64, VALUES = SIDE * SIDE * 3 };

static char path[] = "/tmp/unclip-probe.XXXXXX";

static const float east[D] = {1, 0, 0, 0}, north[D] = {0, 3, 0, 0}, nothing[D], endless[D] = {NAN};

struct entry {
    const char *name;
    const float *embed;
    const char *threshold; /* NULL: none */
    int dim;               /* 0: D */
};

static void write_bytes(const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void write_concepts(const struct entry *from, size_t count, enum dtype dtype)
{
    struct safetensors_entry entries[4];
    struct safetensors_metadata_pair pairs[4];
    size_t pair_count = 0, size;
    void *bytes;
    struct err err = {0};
    for (size_t i = 0; i < count; i++) {
        entries[i] = (struct safetensors_entry){.name = from[i].name,
                                                .dtype = dtype,
                                                .rank = 1,
                                                .dim = {from[i].dim ? from[i].dim : D},
                                                .data = from[i].embed};
        if (from[i].threshold)
            pairs[pair_count++] =
                (struct safetensors_metadata_pair){from[i].name, from[i].threshold};
    }
    assert_int_equal(safetensors_encode(entries, count, pairs, pair_count, &bytes, &size, &err), 0);
    write_bytes(bytes, size);
    free(bytes);
}

static int open_as(struct probe **probe, const char *action, struct err *err)
{
    char copy[16];
    snprintf(copy, sizeof copy, "%s", action);
    struct config config = {.concepts = path, .concept_action = copy};
    return probe_open(probe, &config, err);
}

/* With the concepts east (0.6) and north (0.7). */
static struct probe *two_concepts(const char *action)
{
    static const struct entry both[] = {{"east", east, "0.6", 0}, {"north", north, "0.7", 0}};
    struct probe *probe;
    struct err err = {0};
    write_concepts(both, 2, DTYPE_F32);
    assert_int_equal(open_as(&probe, action, &err), 0);
    return probe;
}

/* A finished picture of stripes, whose embedding has the direction (x, y). */
static struct parcel *picture(float x, float y)
{
    struct parcel *parcel = xcalloc(1, sizeof *parcel);
    parcel->has_task = true;
    parcel->task = fixture_scored_task(2);
    item_init(&parcel->item, parcel->task.prompt, "", 1);
    parcel->item.image_size = SIDE;
    parcel->item.image = xmalloc(VALUES * sizeof(float));
    for (int i = 0; i < VALUES; i++)
        parcel->item.image[i] = i / 3 % 2 ? 1 : -1;
    parcel->item.embed_dim = D;
    parcel->item.inputs[0].embed = xcalloc(D, sizeof(float));
    parcel->item.inputs[0].embed[0] = x;
    parcel->item.inputs[0].embed[1] = y;
    parcel->outcome = OUTCOME_FINISHED;
    return parcel;
}

static bool striped(const struct parcel *parcel)
{
    for (int i = 0; i < VALUES; i++)
        if (parcel->item.image[i] != (i / 3 % 2 ? 1 : -1))
            return false;
    return true;
}

static void assert_untouched(struct parcel *parcel)
{
    assert_int_equal(parcel->outcome, OUTCOME_FINISHED);
    assert_null(parcel->concept);
    assert_false(parcel->blurred);
    assert_true(striped(parcel));
}

static void a_picture_of_nothing_passes(void **state)
{
    (void)state;
    static const char *const actions[] = {"refuse", "blur", "flag"};
    for (size_t i = 0; i < 3; i++) {
        struct probe *probe = two_concepts(actions[i]);
        struct parcel *parcel = picture(-1, 0.2f);
        probe_check(probe, parcel);
        assert_untouched(parcel);
        parcel_free(parcel);
        parcel = picture(0, 0); /* no direction: like nothing */
        probe_check(probe, parcel);
        assert_untouched(parcel);
        parcel_free(parcel);
        probe_free(probe);
    }
}

static void a_picture_is_refused(void **state)
{
    (void)state;
    struct probe *probe = two_concepts("refuse");
    struct parcel *parcel = picture(2, 1);
    probe_check(probe, parcel);
    assert_int_equal(parcel->outcome, OUTCOME_FAILED);
    assert_int_equal(parcel->err.code, ERR_DENIED);
    assert_string_equal(parcel->err.text,
                        "the picture looks like 'east', which is not allowed here");
    parcel_free(parcel);
    probe_free(probe);
}

/* Both are reached by (4, 5): east by 0.02, north by 0.08. By (1, 1), east alone: 0.107 and 0.007.
 */
static void the_most_above_decides(void **state)
{
    (void)state;
    struct probe *probe = two_concepts("flag");
    struct parcel *parcel = picture(4, 5);
    probe_check(probe, parcel);
    assert_string_equal(parcel->concept, "north");
    assert_int_equal(parcel->outcome, OUTCOME_FINISHED);
    assert_false(parcel->blurred);
    assert_true(striped(parcel));
    parcel_free(parcel);
    parcel = picture(1, 1);
    probe_check(probe, parcel);
    assert_string_equal(parcel->concept, "east");
    parcel_free(parcel);
    probe_free(probe);
}

static void a_picture_is_blurred(void **state)
{
    (void)state;
    struct probe *probe = two_concepts("blur");
    struct parcel *parcel = picture(0, 1);
    probe_check(probe, parcel);
    assert_int_equal(parcel->outcome, OUTCOME_FINISHED);
    assert_string_equal(parcel->concept, "north");
    assert_true(parcel->blurred);
    for (int i = 0; i < VALUES; i++) /* the stripes' mean */
        assert_true(fabsf(parcel->item.image[i]) < 0.2f);
    parcel_free(parcel);
    probe_free(probe);
}

static void what_cannot_be_checked_fails(void **state)
{
    (void)state;
    struct probe *probe = two_concepts("flag");
    struct parcel *parcel = picture(1, 0);
    parcel->item.embed_dim = D + 1;
    probe_check(probe, parcel);
    assert_int_equal(parcel->err.code, ERR_INVALID_MODEL);
    assert_string_equal(parcel->err.text,
                        "the concepts have 4 numbers, embeddings of the model 'emoji' have 5");
    parcel_free(parcel);
    parcel = picture(NAN, 0);
    probe_check(probe, parcel);
    assert_int_equal(parcel->err.code, ERR_COMPUTE);
    parcel_free(parcel);
    parcel = picture(1, 0);
    free(parcel->item.inputs[0].embed);
    parcel->item.inputs[0].embed = NULL;
    probe_check(probe, parcel);
    assert_int_equal(parcel->err.code, ERR_INVALID_RECORD);
    assert_int_equal(parcel->outcome, OUTCOME_FAILED);
    parcel_free(parcel);
    probe_free(probe);
}

static void what_is_no_finished_picture_is_left_alone(void **state)
{
    (void)state;
    struct probe *probe = two_concepts("refuse");
    for (int i = 0; i < 4; i++) {
        struct parcel *parcel = picture(1, 0);
        if (i == 0)
            parcel->task.hop = 0; /* its inputs are encoded */
        else if (i == 1)
            parcel->outcome = OUTCOME_DROPPED;
        else
            parcel->task.type = i == 2 ? JOB_EMBED : JOB_SCORE;
        enum outcome outcome = parcel->outcome;
        probe_check(probe, parcel);
        assert_int_equal(parcel->outcome, outcome);
        assert_int_equal(parcel->err.code, 0);
        parcel_free(parcel);
    }
    probe_free(probe);
}

static void assert_refused(const struct entry *entries, size_t count, enum dtype dtype,
                           const char *why)
{
    struct probe *probe;
    struct err err = {0};
    write_concepts(entries, count, dtype);
    assert_true(open_as(&probe, "refuse", &err) < 0);
    assert_null(probe);
    assert_non_null(strstr(err.text, path));
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
}

static void broken_files(void **state)
{
    (void)state;
    static const float many[PROBE_DIM_MAX + 1] = {1};
    static const char *const thresholds[] = {"", "much", "0.5 ", "-0.1", "1.01", "nan", "inf"};
    char name[PROBE_NAME_MAX + 2];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    const struct entry far = {"far", many, "0.5", PROBE_DIM_MAX + 1};
    const struct entry two[] = {{"east", east, "0.5", 0}, {"far", many, "0.5", D + 1}};
    assert_refused(NULL, 0, DTYPE_F32, "it has 0 concepts, 1 to 1000 may be");
    assert_refused(&far, 1, DTYPE_F32, "'far' is no embedding");
    assert_refused(two, 1, DTYPE_I32, "'east' is no embedding");
    assert_refused(two, 2, DTYPE_F32, "'far' has 5 numbers, those before it have 4");
    assert_refused(&(struct entry){"east", east, NULL, 0}, 1, DTYPE_F32, "'east' has no threshold");
    assert_refused(&(struct entry){"n", nothing, "0.5", 0}, 1, DTYPE_F32, "'n' is all zeros");
    assert_refused(&(struct entry){"e", endless, "0.5", 0}, 1, DTYPE_F32, "not finite");
    assert_refused(&(struct entry){"a\nb", east, "0.5", 0}, 1, DTYPE_F32, "cannot be printed");
    assert_refused(&(struct entry){name, east, "0.5", 0}, 1, DTYPE_F32, "of 101 bytes");
    for (size_t i = 0; i < sizeof thresholds / sizeof *thresholds; i++)
        assert_refused(&(struct entry){"east", east, thresholds[i], 0}, 1, DTYPE_F32,
                       "is no number from 0 to 1");
}

static void no_file_and_no_setting(void **state)
{
    (void)state;
    struct probe *probe;
    struct err err = {0};
    struct config none = {.concepts = (char[]){"none"}, .concept_action = (char[]){"refuse"}};
    assert_int_equal(probe_open(&probe, &none, &err), 0);
    assert_null(probe);
    write_bytes("no safetensors", 14);
    assert_true(open_as(&probe, "refuse", &err) < 0);
    none.concepts = (char[]){"/nowhere/concepts.safetensors"};
    assert_true(probe_open(&probe, &none, &err) < 0);
    assert_non_null(strstr(err.text, "/nowhere/concepts.safetensors"));
}

static int start(void **state)
{
    (void)state;
    int file = mkstemp(path);
    return file < 0 ? -1 : close(file);
}

static int stop(void **state)
{
    (void)state;
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_picture_of_nothing_passes),
        cmocka_unit_test(a_picture_is_refused),
        cmocka_unit_test(the_most_above_decides),
        cmocka_unit_test(a_picture_is_blurred),
        cmocka_unit_test(what_cannot_be_checked_fails),
        cmocka_unit_test(what_is_no_finished_picture_is_left_alone),
        cmocka_unit_test(broken_files),
        cmocka_unit_test(no_file_and_no_setting),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
