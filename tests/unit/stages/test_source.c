/* SPDX-License-Identifier: Apache-2.0 */
/* The picture that an item starts from or keeps: at the sizes of stages, and back in bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"
#include "common/memory.h"
#include "stages/source.h"

static struct item item_new(int size, bool masked)
{
    struct item item;
    size_t pixels = (size_t)size * (size_t)size;
    item_init(&item, "", "", 0);
    item.source_size = size;
    item.source = xcalloc(pixels, 3);
    item.mask = masked ? xcalloc(pixels, 1) : NULL;
    return item;
}

static struct source_view view_of(const struct item *item, int size)
{
    struct source_view view;
    struct err err = {0};
    assert_int_equal(source_view_init(&view, item, size, &err), 0);
    return view;
}

/* Every byte, in every channel, comes back from the float that stands for it. */
static void test_every_byte(void **state)
{
    (void)state;
    struct item item = item_new(16, true);
    struct image image = {0};
    struct err err = {0};
    for (size_t i = 0; i < 16 * 16 * 3; i++)
        item.source[i] = (uint8_t)((i / 3 + i % 3 * 85) & 255);
    item.image_size = 16;
    item.image = xmalloc(16 * 16 * 3 * sizeof(float));
    for (size_t i = 0; i < 16 * 16 * 3; i++)
        item.image[i] = 0.123f;
    item_keep_source(&item);
    assert_int_equal(item.err.code, ERR_OK);
    assert_int_equal(image_from_float(&image, item.image, 16, &err), 0);
    assert_memory_equal(image.pixels, item.source, 16 * 16 * 3);
    image_release(&image);
    item_release(&item);
}

static void test_feathered_bytes(void **state)
{
    (void)state;
    struct item item = item_new(16, true);
    for (int i = 0; i < 256; i++)
        item.mask[i] = (uint8_t)i;
    memset(item.source, 255, 16 * 16 * 3);
    item.image_size = 16;
    item.image = xmalloc(16 * 16 * 3 * sizeof(float));
    for (size_t i = 0; i < 16 * 16 * 3; i++)
        item.image[i] = -1;
    item_keep_source(&item);
    for (int i = 0; i < 256; i++)
        assert_true(fabs((double)item.image[3 * i] - (1 - 2 * i / 255.0)) < 1e-6);
    assert_true(item.image[0] == 1);
    assert_true(item.image[3 * 255] == -1);
    item_release(&item);
}

/* A cell is kept only where all of it is, and then holds nothing of its neighbours. */
static void test_smaller(void **state)
{
    (void)state;
    struct item item = item_new(8, true);
    for (int y = 0; y < 8; y++)
        for (int x = 0; x < 8; x++) {
            memset(item.source + (y * 8 + x) * 3, x < 3 ? 200 : 10, 3);
            item.mask[y * 8 + x] = x < 3 ? 0 : 255;
        }
    struct source_view view = view_of(&item, 4);
    float kept = (float)(200 / 127.5 - 1), lost = (float)(10 / 127.5 - 1);
    for (int y = 0; y < 4; y++) {
        assert_true(view.paint[y * 4] == 0);
        assert_true(fabsf(view.paint[y * 4 + 1] - 0.5f) < 1e-6f);
        assert_true(view.paint[y * 4 + 2] == 1);
        for (int c = 0; c < 3; c++) {
            assert_true(view.picture[(y * 4) * 3 + c] == kept);
            assert_true(view.picture[(y * 4 + 1) * 3 + c] == kept); /* of its kept half alone */
            assert_true(view.picture[(y * 4 + 2) * 3 + c] == lost);
        }
    }
    source_view_release(&view);
    item_release(&item);
}

/* One painted pixel anywhere is seen by a stage of any size, and nowhere but there. */
static void test_no_painted_pixel_is_lost(void **state)
{
    (void)state;
    static const int sizes[] = {1, 2, 3, 5, 8, 12, 16, 31};
    for (int p = 0; p < 12 * 12; p += 7) {
        struct item item = item_new(12, true);
        item.mask[p] = 1;
        for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
            struct source_view view = view_of(&item, sizes[s]);
            int painted = 0;
            for (int i = 0; i < sizes[s] * sizes[s]; i++) {
                int y = i / sizes[s], x = i % sizes[s], n = sizes[s];
                bool touches = y * 12 < (p / 12 + 1) * n && (y + 1) * 12 > p / 12 * n &&
                               x * 12 < (p % 12 + 1) * n && (x + 1) * 12 > p % 12 * n;
                assert_int_equal(view.paint[i] > 0, touches);
                painted += view.paint[i] > 0;
            }
            assert_true(painted > 0);
            source_view_release(&view);
        }
        item_release(&item);
    }
}

static void test_larger(void **state)
{
    (void)state;
    struct item item = item_new(4, false);
    for (int i = 0; i < 16 * 3; i++)
        item.source[i] = i / 24 ? 255 : 0; /* an edge, to overshoot at */
    struct source_view view = view_of(&item, 16);
    assert_null(view.paint);
    for (int i = 0; i < 16 * 16 * 3; i++)
        assert_true(view.picture[i] >= -1 && view.picture[i] <= 1);
    assert_true(view.picture[0] < -0.95f && view.picture[16 * 16 * 3 - 1] > 0.95f);
    float image[16 * 16 * 3], same[16 * 16 * 3];
    for (int i = 0; i < 16 * 16 * 3; i++)
        image[i] = same[i] = 0.5f;
    source_view_keep(&view, image);
    assert_memory_equal(image, same, sizeof same);
    source_view_release(&view);
    item_release(&item);
}

static void test_no_source(void **state)
{
    (void)state;
    struct item item;
    struct source_view view;
    struct err err = {0};
    item_init(&item, "", "", 0);
    assert_int_equal(source_view_init(&view, &item, 8, &err), -ERR_INVALID_RECORD);
    item_release(&item);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte), cmocka_unit_test(test_feathered_bytes),
        cmocka_unit_test(test_smaller),    cmocka_unit_test(test_no_painted_pixel_is_lost),
        cmocka_unit_test(test_larger),     cmocka_unit_test(test_no_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
