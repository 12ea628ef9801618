/* SPDX-License-Identifier: Apache-2.0 */
/* What an item gets of a task's pictures: inputs, the square, the mask, and every refusal. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/intake.h"
#include "tests/unit/common/png_maker.h"

#define SIDE 16

/* --- files by name --- */

static struct {
    const char *name;
    struct png_file png;
    int reads;
} files[2];

static int read_file(void *context, const char *address, void **bytes, size_t *size,
                     struct err *err)
{
    assert_ptr_equal(context, files);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!files[i].name || strcmp(files[i].name, address) != 0)
            continue;
        files[i].reads++;
        *size = files[i].png.size;
        *bytes = xmalloc(*size);
        memcpy(*bytes, files[i].png.bytes, *size);
        return 0;
    }
    return err_set(err, ERR_FETCH, "no file '%s'", address);
}

/* One pixel of a test picture, RGBA. */
typedef void paint_pixel(int x, int y, uint8_t *rgba);

static void put_file(int slot, const char *name, int width, int height, paint_pixel *paint)
{
    struct png_file *png = &files[slot].png;
    size_t row = 1 + 4 * (size_t)width;
    uint8_t *rows = xcalloc((size_t)height, row);
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            paint(x, y, rows + (size_t)y * row + 1 + 4 * (size_t)x);
    png_start(png, (uint32_t)width, (uint32_t)height, 8, 6);
    png_finish(png, rows, (size_t)height * row);
    files[slot].name = name;
    files[slot].reads = 0;
    free(rows);
}

static void opaque(int x, int y, uint8_t *rgba)
{
    const uint8_t pixel[] = {(uint8_t)(x * 9), (uint8_t)(y * 7), 40, 255};
    memcpy(rgba, pixel, 4);
}

/* The left half is transparent, over colours that must not be seen. */
static void half(int x, int y, uint8_t *rgba)
{
    opaque(x, y, rgba);
    rgba[3] = x < SIDE / 2 ? 0 : 255;
}

static void faint(int x, int y, uint8_t *rgba)
{
    opaque(x, y, rgba);
    rgba[3] = 102; /* 0.4 */
}

static void white_corner(int x, int y, uint8_t *rgba)
{
    memset(rgba, x >= 12 && y >= 12 ? 255 : 0, 3);
    rgba[3] = 255;
}

static void black(int x, int y, uint8_t *rgba)
{
    (void)x, (void)y;
    memcpy(rgba, "\0\0\0\377", 4);
}

static void hidden_white(int x, int y, uint8_t *rgba)
{
    memset(rgba, 255, 4);
    rgba[3] = x == 3 && y == 3 ? 255 : 0;
}

static void white_left(int x, int y, uint8_t *rgba)
{
    (void)y;
    memset(rgba, x < SIDE ? 255 : 0, 3);
    rgba[3] = 255;
}

/* --- a task at its image-encode hop --- */

struct bench {
    struct task task;
    struct item item;
    struct err err;
};

static void begin(struct bench *bench, enum job_type type, int side)
{
    memset(bench, 0, sizeof *bench);
    struct task *task = &bench->task;
    task->type = type;
    task->prompt = xstrdup("");
    task->negative_prompt = xstrdup("");
    task->route[0] = (struct hop){.stage = STAGE_TEXT_ENCODE};
    task->route[1] = (struct hop){.stage = STAGE_IMAGE_ENCODE};
    task->route[2] = (struct hop){.stage = STAGE_DECODER, .steps = 2};
    task->hops = 3;
    task->hop = 1;
    task->sources.side = side;
}

static void begin_with(struct bench *bench, enum job_type type, int side, const char *image)
{
    begin(bench, type, side);
    bench->task.sources.image = xstrdup(image);
}

static int fill(struct bench *bench)
{
    item_begin(&bench->item, &bench->task);
    return intake_fill(&bench->item, &bench->task, read_file, files, &bench->err);
}

static void expect_refusal(struct bench *bench, enum err_code code, const char *words)
{
    assert_int_equal(fill(bench), -(int)code);
    assert_int_equal(bench->err.code, code);
    if (!strstr(bench->err.text, words))
        fail_msg("'%s' does not say '%s'", bench->err.text, words);
}

static void end(struct bench *bench)
{
    item_release(&bench->item);
    task_release(&bench->task);
}

static const uint8_t *pixel(const uint8_t *pixels, int width, int x, int y)
{
    return pixels + 3 * (y * width + x);
}

static void assert_pixel(const uint8_t *got, int r, int g, int b)
{
    assert_int_equal(got[0], r);
    assert_int_equal(got[1], g);
    assert_int_equal(got[2], b);
}

/* --- when --- */

static void only_the_hop_before_the_pictures_takes_in(void **state)
{
    (void)state;
    struct bench bench;
    begin(&bench, JOB_VARIATION, SIDE);
    assert_true(intake_needed(&bench.task));
    bench.task.hop = 0;
    assert_false(intake_needed(&bench.task));
    bench.task.route[3] = (struct hop){.stage = STAGE_IMAGE_ENCODE};
    bench.task.hops = 4;
    bench.task.hop = 3;
    assert_false(intake_needed(&bench.task));
    end(&bench);
}

/* --- inputs --- */

static void a_variation_gets_the_whole_picture(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "wide", 20, 10, opaque);
    begin_with(&bench, JOB_VARIATION, SIDE, "wide");
    assert_int_equal(fill(&bench), 0);
    assert_int_equal(bench.item.input_count, 1);
    assert_int_equal(bench.item.inputs[0].width, 20);
    assert_int_equal(bench.item.inputs[0].height, 10);
    assert_pixel(pixel(bench.item.inputs[0].pixels, 20, 19, 9), 171, 63, 40);
    assert_null(bench.item.source);
    assert_null(bench.item.mask);
    intake_forget(&bench.item);
    assert_null(bench.item.inputs[0].pixels);
    end(&bench);
}

static void transparent_pictures_are_laid_on_white(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "half", SIDE, SIDE, half);
    put_file(1, "faint", SIDE, SIDE, faint);
    begin_with(&bench, JOB_VARIATION, SIDE, "half");
    assert_int_equal(fill(&bench), 0);
    assert_pixel(pixel(bench.item.inputs[0].pixels, SIDE, 0, 5), 255, 255, 255);
    assert_pixel(pixel(bench.item.inputs[0].pixels, SIDE, 9, 5), 81, 35, 40);
    end(&bench);
    begin_with(&bench, JOB_VARIATION, SIDE, "faint");
    assert_int_equal(fill(&bench), 0);
    assert_pixel(bench.item.inputs[0].pixels, 153, 153, 169); /* 0.4 of 0,0,40 */
    end(&bench);
}

static void a_picture_that_is_input_and_source_is_read_once(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "wide", 20, 10, opaque);
    begin_with(&bench, JOB_TEXT_DIFF, 10, "wide");
    bench.task.route[2].start = START_INVERSION;
    bench.task.sources.inputs = xcalloc(2, sizeof *bench.task.sources.inputs);
    bench.task.sources.count = 2;
    bench.task.sources.inputs[0].text = xstrdup("from");
    bench.task.sources.inputs[1].text = xstrdup("to");
    assert_int_equal(fill(&bench), 0);
    assert_int_equal(files[0].reads, 1);
    assert_int_equal(bench.item.input_count, 1);
    assert_false(bench.item.inputs[0].is_text);
    assert_int_equal(bench.item.text_count, 2);
    assert_int_equal(bench.item.source_size, 10);
    for (int y = 0; y < 10; y++) /* the middle, as it is */
        assert_memory_equal(pixel(bench.item.source, 10, 0, y),
                            pixel(bench.item.inputs[0].pixels, 20, 5, y), 30);
    end(&bench);
}

static void inputs_keep_their_order(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "a", 3, 2, opaque);
    put_file(1, "b", 2, 5, opaque);
    begin(&bench, JOB_INTERPOLATE, SIDE);
    bench.task.sources.inputs = xcalloc(3, sizeof *bench.task.sources.inputs);
    bench.task.sources.count = 3;
    bench.task.sources.inputs[0] = (struct job_input){.image = xstrdup("b"), .weight = 0.25};
    bench.task.sources.inputs[1] = (struct job_input){.text = xstrdup("words"), .weight = 2};
    bench.task.sources.inputs[2] = (struct job_input){.image = xstrdup("a"), .weight = 3};
    assert_int_equal(fill(&bench), 0);
    assert_int_equal(bench.item.input_count, 3);
    assert_int_equal(bench.item.inputs[0].height, 5);
    assert_true(bench.item.inputs[0].weight == 0.25);
    assert_true(bench.item.inputs[1].is_text);
    assert_null(bench.item.inputs[1].pixels);
    assert_true(bench.item.inputs[1].weight == 2);
    assert_int_equal(bench.item.inputs[2].width, 3);
    assert_null(bench.item.source);
    end(&bench);
}

static void an_interpolation_may_begin_with_a_picture(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "a", 3, 3, opaque);
    put_file(1, "b", SIDE, SIDE, opaque);
    begin_with(&bench, JOB_INTERPOLATE, SIDE, "b");
    bench.task.sources.inputs = xcalloc(1, sizeof *bench.task.sources.inputs);
    bench.task.sources.count = 1;
    bench.task.sources.inputs[0] = (struct job_input){.image = xstrdup("a"), .weight = 1};
    assert_int_equal(fill(&bench), 0);
    assert_null(bench.item.source); /* noise does not look at it */
    item_release(&bench.item);
    bench.task.route[2].start = START_PICTURE;
    assert_int_equal(fill(&bench), 0);
    assert_non_null(bench.item.source);
    end(&bench);
}

static void failures_name_the_input(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "a", 3, 3, opaque);
    put_file(1, "cut", SIDE, SIDE, opaque);
    files[1].png.size -= 40;
    begin(&bench, JOB_SCORE, 0);
    bench.task.sources.inputs = xcalloc(2, sizeof *bench.task.sources.inputs);
    bench.task.sources.count = 2;
    bench.task.sources.inputs[0] = (struct job_input){.image = xstrdup("a"), .weight = 1};
    bench.task.sources.inputs[1] = (struct job_input){.image = xstrdup("cut"), .weight = 1};
    expect_refusal(&bench, ERR_INVALID_IMAGE, "input 1: ");
    end(&bench);
    begin_with(&bench, JOB_VARIATION, SIDE, "elsewhere");
    expect_refusal(&bench, ERR_FETCH, "the picture: no file 'elsewhere'");
    end(&bench);
}

/* A picture of side x side, one bit a pixel. */
static void put_large(int slot, const char *name, uint32_t side)
{
    struct png_file *png = &files[slot].png;
    size_t size = (size_t)side * (1 + (side + 7) / 8);
    uint8_t *rows = xcalloc(1, size);
    unsigned char packed[16000];
    uLongf length = sizeof packed;
    assert_int_equal(compress2(packed, &length, rows, size, 9), Z_OK);
    png_start(png, side, side, 1, 0);
    png_put_chunk(png, "IDAT", packed, length);
    png_put_chunk(png, "IEND", NULL, 0);
    files[slot].name = name;
    free(rows);
}

static void pixels_of_all_inputs_are_bounded(void **state)
{
    (void)state;
    struct bench bench;
    put_large(0, "a", 4500);
    put_file(1, "b", 3, 3, opaque);
    for (int small = 1; small >= 0; small--) {
        begin(&bench, JOB_INTERPOLATE, SIDE);
        bench.task.sources.inputs = xcalloc(2, sizeof *bench.task.sources.inputs);
        bench.task.sources.count = 2;
        bench.task.sources.inputs[0] = (struct job_input){.image = xstrdup("a"), .weight = 1};
        bench.task.sources.inputs[1] =
            (struct job_input){.image = xstrdup(small ? "b" : "a"), .weight = 1};
        if (small)
            assert_int_equal(fill(&bench), 0);
        else
            expect_refusal(&bench, ERR_TOO_LARGE, "37748736 pixels together");
        end(&bench);
    }
}

static void a_task_without_its_picture_is_refused(void **state)
{
    (void)state;
    static const enum job_type types[] = {JOB_VARIATION, JOB_EDIT,  JOB_TEXT_DIFF,  JOB_UPSCALE,
                                          JOB_EMBED,     JOB_SCORE, JOB_INTERPOLATE};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct bench bench;
        begin(&bench, types[i], SIDE);
        expect_refusal(&bench, ERR_INVALID_RECORD, "the task");
        end(&bench);
    }
}

/* --- the square --- */

static void a_square_of_the_size_is_kept_bit_for_bit(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "square", SIDE, SIDE, opaque);
    begin_with(&bench, JOB_UPSCALE, SIDE, "square");
    assert_int_equal(fill(&bench), 0);
    assert_int_equal(bench.item.source_size, SIDE);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            assert_pixel(pixel(bench.item.source, SIDE, x, y), x * 9, y * 7, 40);
    assert_int_equal(bench.item.input_count, 0);
    end(&bench);
}

static void the_middle_is_cut_out_and_resized(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "tall", 8, 24, opaque);
    begin_with(&bench, JOB_UPSCALE, SIDE, "tall");
    assert_int_equal(fill(&bench), 0);
    const uint8_t *at = pixel(bench.item.source, SIDE, 8, 8);
    assert_in_range(at[0], 33, 36); /* x 3.75 */
    assert_in_range(at[1], 81, 84); /* y 11.75 */
    assert_int_equal(at[2], 40);
    end(&bench);
}

/* --- masks --- */

static void begin_edit(struct bench *bench, const char *mask, enum mask_mode mode)
{
    begin_with(bench, JOB_EDIT, SIDE, "picture");
    bench->task.sources.mask = mask ? xstrdup(mask) : NULL;
    bench->task.sources.mask_mode = mode;
}

static void the_pictures_own_hole_is_painted(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, half);
    begin_edit(&bench, NULL, MASK_ALPHA);
    assert_int_equal(fill(&bench), 0);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) {
            bool hole = x < SIDE / 2;
            const uint8_t *at = pixel(bench.item.source, SIDE, x, y);
            assert_int_equal(bench.item.mask[y * SIDE + x], hole ? 255 : 0);
            if (hole)
                assert_pixel(at, 128, 128, 128); /* what it hides is not looked at */
            else
                assert_pixel(at, x * 9, y * 7, 40);
        }
    end(&bench);
}

static void half_transparent_is_half_painted(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, faint);
    begin_edit(&bench, NULL, MASK_ALPHA);
    assert_int_equal(fill(&bench), 0);
    assert_int_equal(bench.item.mask[17], 153);
    assert_pixel(pixel(bench.item.source, SIDE, 1, 1), 9, 7, 40);
    end(&bench);
}

static void a_masks_hole_is_painted(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, opaque);
    put_file(1, "mask", SIDE, SIDE, half);
    begin_edit(&bench, "mask", MASK_ALPHA);
    assert_int_equal(fill(&bench), 0);
    assert_int_equal(bench.item.mask[SIDE + 7], 255);
    assert_int_equal(bench.item.mask[SIDE + 8], 0);
    assert_pixel(pixel(bench.item.source, SIDE, 3, 2), 27, 14, 40); /* of the picture, all of it */
    end(&bench);
}

static void with_a_mask_the_picture_is_laid_on_white(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, half);
    put_file(1, "mask", SIDE, SIDE, white_corner);
    begin_edit(&bench, "mask", MASK_WHITE);
    assert_int_equal(fill(&bench), 0);
    assert_pixel(pixel(bench.item.source, SIDE, 3, 2), 255, 255, 255);
    assert_int_equal(bench.item.mask[0], 0);
    assert_int_equal(bench.item.mask[11 * SIDE + 15], 0);
    assert_int_equal(bench.item.mask[12 * SIDE + 12], 255);
    end(&bench);
}

static void white_that_cannot_be_seen_is_none(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, opaque);
    put_file(1, "mask", SIDE, SIDE, hidden_white);
    begin_edit(&bench, "mask", MASK_WHITE);
    assert_int_equal(fill(&bench), 0);
    for (int i = 0; i < SIDE * SIDE; i++)
        assert_int_equal(bench.item.mask[i], i == 3 * SIDE + 3 ? 255 : 0);
    end(&bench);
}

static void a_mask_that_paints_nothing_is_refused(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, opaque);
    put_file(1, "mask", SIDE, SIDE, black);
    begin_edit(&bench, "mask", MASK_WHITE);
    expect_refusal(&bench, ERR_INVALID_JOB, "selects nothing");
    end(&bench);
    begin_edit(&bench, "mask", MASK_ALPHA);
    expect_refusal(&bench, ERR_INVALID_JOB, "selects nothing");
    end(&bench);
    begin_edit(&bench, NULL, MASK_ALPHA);
    expect_refusal(&bench, ERR_INVALID_JOB, "no pixel of the picture is transparent");
    end(&bench);
    begin_edit(&bench, NULL, MASK_WHITE);
    expect_refusal(&bench, ERR_INVALID_JOB, "needs a mask");
    end(&bench);
    /* its hole is not in the square that is cut out */
    put_file(0, "picture", 3 * SIDE, SIDE, opaque);
    put_file(1, "side", 3 * SIDE, SIDE, half);
    begin_edit(&bench, "side", MASK_ALPHA);
    expect_refusal(&bench, ERR_INVALID_JOB, "selects nothing");
    end(&bench);
}

static void a_mask_of_another_size_is_resized(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, opaque);
    put_file(1, "mask", 2 * SIDE, 2 * SIDE, white_left);
    begin_edit(&bench, "mask", MASK_WHITE);
    assert_int_equal(fill(&bench), 0);
    assert_int_equal(bench.item.mask[5 * SIDE + 6], 255);
    assert_int_equal(bench.item.mask[5 * SIDE + 9], 0);
    end(&bench);
}

/* No pixel far from the edge changes: that is why masks have a filter of their own. */
static void an_enlarged_mask_does_not_ring(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, half);
    begin_edit(&bench, NULL, MASK_ALPHA);
    bench.task.sources.side = 8 * SIDE;
    assert_int_equal(fill(&bench), 0);
    for (int x = 0; x < 8 * SIDE; x++) {
        int got = bench.item.mask[5 * 8 * SIDE + x];
        if (x < 4 * SIDE - 4)
            assert_int_equal(got, 255);
        else if (x >= 4 * SIDE + 4)
            assert_int_equal(got, 0);
    }
    end(&bench);
}

static void a_mask_of_another_shape_is_refused(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, opaque);
    put_file(1, "mask", SIDE, SIDE - 2, half);
    begin_edit(&bench, "mask", MASK_ALPHA);
    expect_refusal(&bench, ERR_INVALID_JOB, "the mask: it has 16x14 pixels, the picture 16x16");
    end(&bench);
}

static void feathering_leaves_what_is_kept(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", SIDE, SIDE, half);
    begin_edit(&bench, NULL, MASK_ALPHA);
    bench.task.sources.feather = 3;
    assert_int_equal(fill(&bench), 0);
    static const int ramp[] = {255, 255, 255, 255, 255, 191, 128, 64, 0, 0};
    for (int x = 0; x < 10; x++)
        assert_int_equal(bench.item.mask[7 * SIDE + x], ramp[x]);
    end(&bench);
}

static void a_wholly_painted_picture_has_no_edge(void **state)
{
    (void)state;
    struct bench bench;
    put_file(0, "picture", 8, 8, half); /* transparent all over */
    begin_edit(&bench, NULL, MASK_ALPHA);
    bench.task.sources.feather = 256;
    assert_int_equal(fill(&bench), 0);
    for (int i = 0; i < SIDE * SIDE; i++)
        assert_int_equal(bench.item.mask[i], 255);
    end(&bench);
}

static int set_up(void **state)
{
    struct err err;
    (void)state;
    return image_setup("test_intake", &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_hop_before_the_pictures_takes_in),
        cmocka_unit_test(a_variation_gets_the_whole_picture),
        cmocka_unit_test(transparent_pictures_are_laid_on_white),
        cmocka_unit_test(a_picture_that_is_input_and_source_is_read_once),
        cmocka_unit_test(inputs_keep_their_order),
        cmocka_unit_test(an_interpolation_may_begin_with_a_picture),
        cmocka_unit_test(failures_name_the_input),
        cmocka_unit_test(pixels_of_all_inputs_are_bounded),
        cmocka_unit_test(a_task_without_its_picture_is_refused),
        cmocka_unit_test(a_square_of_the_size_is_kept_bit_for_bit),
        cmocka_unit_test(the_middle_is_cut_out_and_resized),
        cmocka_unit_test(the_pictures_own_hole_is_painted),
        cmocka_unit_test(half_transparent_is_half_painted),
        cmocka_unit_test(a_masks_hole_is_painted),
        cmocka_unit_test(with_a_mask_the_picture_is_laid_on_white),
        cmocka_unit_test(white_that_cannot_be_seen_is_none),
        cmocka_unit_test(a_mask_that_paints_nothing_is_refused),
        cmocka_unit_test(a_mask_of_another_size_is_resized),
        cmocka_unit_test(an_enlarged_mask_does_not_ring),
        cmocka_unit_test(a_mask_of_another_shape_is_refused),
        cmocka_unit_test(feathering_leaves_what_is_kept),
        cmocka_unit_test(a_wholly_painted_picture_has_no_edge),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
