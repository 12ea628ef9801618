/* SPDX-License-Identifier: Apache-2.0 */
/* Previews against a real Redis: small pictures that go away by themselves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "common/image.h"
#include "common/memory.h"
#include "tests/unit/workers/redis_fixture.h"
#include "workers/preview.h"

static struct redis_fixture fixture;

static int start(void **state)
{
    (void)state;
    struct err err;
    redis_start(&fixture);
    return image_setup("test", &err);
}

static int stop(void **state)
{
    (void)state;
    redis_stop(&fixture);
    return 0;
}

/* Red, of that side; the preview is read back. */
static void show(int size, struct image *image)
{
    struct task task = {.job = "my-heart", .image = 2};
    struct err err = {0};
    struct redis_reply *reply;
    float *x0 = xmalloc((size_t)size * (size_t)size * 3 * sizeof *x0);
    for (int i = 0; i < size * size * 3; i++)
        x0[i] = i % 3 ? -1.5f : 1.5f; /* what is beyond the range is cut */
    assert_int_equal(preview_show(fixture.redis, &task, x0, size, &err), 0);
    free(x0);
    struct redis_arg args[] = {REDIS_STRING("GET"), REDIS_STRING("unclip:preview:my-heart/2")};
    assert_int_equal(redis_command(fixture.redis, args, 2, &reply, &err), 0);
    assert_int_equal(reply->kind, REDIS_BYTES);
    assert_string_equal(image_media_type(reply->bytes, reply->size), "image/webp");
    assert_int_equal(image_decode(image, reply->bytes, reply->size, &err), 0);
    redis_reply_free(reply);
    assert_true(image->pixels[0] > 240 && image->pixels[1] < 15 && image->pixels[2] < 15);
}

static void small_pictures_stay_large_ones_shrink(void **state)
{
    (void)state;
    struct image image;
    show(64, &image);
    assert_int_equal(image.width, 64);
    image_release(&image);
    show(256, &image);
    assert_int_equal(image.width, PREVIEW_SIDE);
    image_release(&image);
    int ttl = atoi(redis_ask(&fixture, "TTL", "unclip:preview:my-heart/2", NULL));
    assert_in_range(ttl, PREVIEW_TTL_S - 60, PREVIEW_TTL_S);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(small_pictures_stay_large_ones_shrink)};
    return cmocka_run_group_tests(tests, start, stop);
}
