/* SPDX-License-Identifier: Apache-2.0 */
/* Threads are started once: no op starts new ones after its first run. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

#include "nn_fixture.h"

static atomic_int started;

/* Stands before the C library's, for OpenMP's library too. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                   void *argument)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pthread_create");
    started++;
    return next(thread, attributes, body, argument);
}

#define C    64
#define SIZE 64

/* Each op on several threads, two samples. */
static void run_all(struct fixture *f, struct conv2d *conv, struct linear *linear,
                    struct group_norm *norm, const float *values)
{
    size_t scope = nn_enter(f->nn);
    struct tensor x = nn_from_f32(f->nn, values, 4, (int64_t[]){2, SIZE, SIZE, C});
    struct tensor y = nn_group_norm(f->nn, norm, x, (struct norm_fuse){.act = ACT_SILU});
    y = nn_conv2d(f->nn, conv, y, (struct conv_fuse){.residual = x});
    y = nn_linear(f->nn, linear, TENSOR_RESHAPE(y, 2, SIZE * SIZE, C), (struct linear_fuse){0});
    struct tensor few = nn_from_f32(f->nn, values, 3, (int64_t[]){2, 256, C});
    nn_attention(f->nn,
                 (struct attention_args){
                     .q = few, .k = few, .v = few, .heads = 2, .head_dim = C / 2, .scale = 1});
    nn_add(f->nn, x, x);
    nn_leave_all(f->nn, scope);
}

static void check_starts(struct fixture *f)
{
    struct conv2d conv;
    struct linear linear;
    struct group_norm norm;
    struct err err = {0};
    float *values = fixture_values(f, 2 * SIZE * SIZE * C, 1, 0);
    struct safetensors_entry entries[] = {
        F32_ENTRY("c.weight", values, C, C, 3, 3), F32_ENTRY("c.bias", values, C),
        F32_ENTRY("l.weight", values, C, C),       F32_ENTRY("l.bias", values, C),
        F32_ENTRY("n.weight", values, C),          F32_ENTRY("n.bias", values, C)};
    struct weights *weights = fixture_weights(entries, COUNT_OF(entries));
    assert_int_equal(conv2d_load(&conv, f->nn, weights, "c", C, C, 3, 1, 1, true, &err), 0);
    assert_int_equal(linear_load(&linear, f->nn, weights, "l", C, C, true, &err), 0);
    assert_int_equal(group_norm_load(&norm, f->nn, weights, "n", C, 8, 1e-5f, &err), 0);
    weights_close(weights);
    run_all(f, &conv, &linear, &norm, values);
    int before = started;
    assert_true(before > 0);
    for (int i = 0; i < 3; i++)
        run_all(f, &conv, &linear, &norm, values);
    assert_int_equal(started, before);
    conv2d_release(&conv);
    linear_release(&linear);
    group_norm_release(&norm);
    free(values);
}

static void test_starts(void **state)
{
    (void)state;
    fixture_each_dtype(check_starts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
