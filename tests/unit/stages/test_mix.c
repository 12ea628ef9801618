/* SPDX-License-Identifier: Apache-2.0 */
/* Mixing embeddings: directions by angle, lengths by share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "stages/mix.h"

static void assert_near(const float *got, float x, float y)
{
    assert_true(fabsf(got[0] - x) < 1e-5f && fabsf(got[1] - y) < 1e-5f);
}

static void slerp_goes_along_the_arc(void **state)
{
    (void)state;
    const float a[] = {2, 0}, b[] = {0, 4};
    float out[2];
    mix_slerp(a, b, 0, 2, out);
    assert_near(out, 2, 0);
    mix_slerp(a, b, 1, 2, out);
    assert_near(out, 0, 4);
    mix_slerp(a, b, 0.5, 2, out); /* halfway in angle, and in length: 3 */
    assert_near(out, 3 / sqrtf(2), 3 / sqrtf(2));
    mix_slerp(a, b, 1 / 3.0, 2, out);
    assert_near(out, 8 / 3.0f * cosf((float)M_PI / 6), 8 / 3.0f * sinf((float)M_PI / 6));
}

static void slerp_of_what_has_no_arc(void **state)
{
    (void)state;
    const float a[] = {1, 0}, same[] = {3, 0}, opposite[] = {-1, 0}, none[] = {0, 0};
    float out[2];
    mix_slerp(a, same, 0.5, 2, out);
    assert_near(out, 2, 0);
    mix_slerp(a, opposite, 0.25, 2, out);
    assert_near(out, 1, 0);
    mix_slerp(a, none, 0.5, 2, out);
    assert_true(isfinite(out[0]) && isfinite(out[1]));
}

static void two_mix_as_slerp_more_as_sum(void **state)
{
    (void)state;
    const float a[] = {1, 0}, b[] = {0, 1}, c[] = {-1, 0};
    const float *all[] = {a, b, c};
    float out[2], want[2];
    mix_embeds(all, (double[]){3, 1}, 2, 2, out);
    mix_slerp(a, b, 0.25, 2, want);
    assert_near(out, want[0], want[1]);
    mix_embeds(all, (double[]){1, 1, 1}, 3, 2, out); /* a and c cancel; the length stays */
    assert_near(out, 0, 1);
    mix_embeds(all, (double[]){5}, 1, 2, out);
    assert_near(out, 1, 0);
}

static void turn_keeps_the_length(void **state)
{
    (void)state;
    const float image[] = {5, 0}, from[] = {7, 0}, to[] = {0, 2};
    float out[2];
    mix_turn(image, from, to, 0, 2, out);
    assert_near(out, 5, 0);
    mix_turn(image, from, to, 1, 2, out); /* the direction of to - from, both made length 1 */
    assert_near(out, -5 / sqrtf(2), 5 / sqrtf(2));
    mix_turn(image, from, to, 0.4, 2, out);
    assert_true(fabs(hypot((double)out[0], (double)out[1]) - 5) < 1e-5);
    mix_turn(image, from, from, 0.7, 2, out);
    assert_near(out, 5, 0);
}

static void cosine(void **state)
{
    (void)state;
    const float a[] = {3, 0}, b[] = {1, 1}, none[] = {0, 0};
    assert_true(fabs(mix_cosine(a, b, 2) - sqrt(0.5)) < 1e-7);
    assert_true(mix_cosine(a, none, 2) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slerp_goes_along_the_arc),
        cmocka_unit_test(slerp_of_what_has_no_arc),
        cmocka_unit_test(two_mix_as_slerp_more_as_sum),
        cmocka_unit_test(turn_keeps_the_length),
        cmocka_unit_test(cosine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
