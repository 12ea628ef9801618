/* SPDX-License-Identifier: Apache-2.0 */
/* What the denoising loop tells the stages; the loop itself is tests/golden's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "stages/denoise.h"

static void test_keeps(void **state)
{
    (void)state;
    const struct stage_settings usual = {0}, small = {.kept_bytes_max = 100};
    assert_true(denoise_keeps(&usual, 1, DENOISE_KEPT_BYTES_MAX));
    assert_false(denoise_keeps(&usual, 1, DENOISE_KEPT_BYTES_MAX + 1));
    assert_false(denoise_keeps(&usual, 2, DENOISE_KEPT_BYTES_MAX));
    assert_true(denoise_keeps(&small, 3, 33));
    assert_false(denoise_keeps(&small, 3, 34));
    assert_false(denoise_keeps(&usual, SIZE_MAX, SIZE_MAX)); /* their product is no size */
    assert_false(denoise_keeps(&usual, 1, 0));               /* there is nothing to keep */
}

static void test_guidance(void **state)
{
    (void)state;
    const struct stage_settings one = {.guidance = 1}, more = {.guidance = 1.5};
    float cond[] = {1, 2}, uncond[] = {3, 2};
    denoise_guide(cond, uncond, 2, 2);
    assert_true(cond[0] == -1 && cond[1] == 2);
    assert_false(denoise_guided(&one));
    assert_true(denoise_guided(&more));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keeps),
        cmocka_unit_test(test_guidance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
