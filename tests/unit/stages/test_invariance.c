/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Results are the same bits with 1, 2, 3 and 4 threads, alone and in company, on every instruction
 * set that our kernels are compiled for. The shapes are those of Karlo's networks and of the small
 * model that ships.
 */
#include <math.h>

#include "common/memory.h"
#include "nn_fixture.h"

#include "stages/nn/kernels.h"

#define THREADS_MAX 4

/* What a run over shapes needs: random bits once, shared by all. */
static float *pool_values;
#define POOL_COUNT ((int64_t)24 << 20)

static int set_up(void **state)
{
    (void)state;
    struct fixture f = {.dtype = DTYPE_BF16, .seed = 7};
    pool_values = fixture_values(&f, POOL_COUNT, 1, 0);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(pool_values);
    return 0;
}

static struct tensor random_tensor(struct nn *nn, int rank, const int64_t *dim)
{
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= dim[i];
    assert_true(count <= POOL_COUNT);
    return nn_from_f32(nn, pool_values, rank, dim);
}
#define RANDOM(nn, ...)                                                                            \
    random_tensor((nn), COUNT_OF(((int64_t[]){__VA_ARGS__})), (int64_t[]){__VA_ARGS__})

static size_t tensor_bytes(struct tensor x)
{
    return (size_t)tensor_count(x) * dtype_size(x.dtype);
}

/* Keeps the first result, and compares the others with it. */
struct witness {
    void *bytes;
    size_t size;
};

static void witness_check(struct witness *witness, struct nn *nn, struct tensor y, const char *what)
{
    struct err err = {0};
    if (nn_finish(nn, &err))
        fail_msg("%s: %s", what, err.text);
    if (!witness->bytes) {
        witness->size = tensor_bytes(y);
        witness->bytes = xmalloc(witness->size);
        memcpy(witness->bytes, y.data, witness->size);
        return;
    }
    assert_int_equal(tensor_bytes(y), witness->size);
    if (memcmp(witness->bytes, y.data, witness->size) != 0)
        fail_msg("%s gives other bits", what);
}

static void witness_release(struct witness *witness)
{
    free(witness->bytes);
    *witness = (struct witness){0};
}

struct conv_case {
    int64_t ic, oc, h;
    int k, stride;
};
static const struct conv_case conv_cases[] = {
    /* Karlo's decoder and upsamplers */
    {320, 320, 64, 3, 1},
    {640, 640, 32, 3, 1},
    {960, 960, 16, 3, 1},
    {1280, 1280, 8, 3, 1},
    {640, 320, 64, 1, 1},
    {1920, 1280, 8, 1, 1},
    {1920, 1280, 8, 3, 1},
    {320, 320, 64, 3, 2},
    {6, 320, 256, 3, 1},
    {3, 320, 64, 3, 1},
    {320, 3, 64, 3, 1},
    {320, 6, 64, 3, 1},
    /* the small model's */
    {3, 32, 64, 3, 1},
    {32, 32, 64, 3, 1},
    {32, 64, 32, 3, 2},
    {64, 64, 32, 3, 1},
    {192, 128, 16, 3, 1},
    {128, 128, 16, 3, 1},
    {160, 160, 8, 3, 1},
    {288, 128, 16, 1, 1},
    {6, 32, 256, 3, 1},
    {32, 3, 256, 3, 1},
    {160, 160, 4, 3, 1},
    {7, 13, 9, 3, 1},
    /* CLIP's patches */
    {3, 768, 224, 14, 14},
    {3, 64, 64, 8, 8},
};

static void check_conv(struct fixture *f, const struct conv_case *c)
{
    char what[80];
    struct err err = {0};
    struct conv2d conv;
    struct safetensors_entry entries[] = {
        F32_ENTRY("c.weight", pool_values, c->oc, c->ic, c->k, c->k),
        F32_ENTRY("c.bias", pool_values, c->oc)};
    struct weights *weights = fixture_weights(entries, 2);
    assert_int_equal(conv2d_load(&conv, f->nn, weights, "c", c->ic, c->oc, c->k, c->stride,
                                 c->stride > 2 ? 0 : c->k / 2, true, &err),
                     0);
    weights_close(weights);
    struct witness plain = {0}, added = {0};
    for (int threads = 1; threads <= THREADS_MAX; threads++) {
        size_t scope = nn_enter(f->nn);
        snprintf(what, sizeof(what), "conv %lld->%lld@%lld k%d %s with %d threads",
                 (long long)c->ic, (long long)c->oc, (long long)c->h, c->k, dtype_name(f->dtype),
                 threads);
        nn_set_threads(f->nn, threads);
        struct tensor x = RANDOM(f->nn, 1, c->h, c->h, c->ic);
        struct tensor y = nn_conv2d(f->nn, &conv, x, (struct conv_fuse){0});
        witness_check(&plain, f->nn, y, what);
        struct conv_fuse fuse = {.add_channels = RANDOM(f->nn, 1, c->oc), .residual = y};
        witness_check(&added, f->nn, nn_conv2d(f->nn, &conv, x, fuse), what);
        nn_leave_all(f->nn, scope);
    }
    witness_release(&plain);
    witness_release(&added);
    conv2d_release(&conv);
}

static void conv_body(struct fixture *f)
{
    for (size_t i = 0; i < COUNT_OF(conv_cases); i++)
        check_conv(f, &conv_cases[i]);
}

static void test_conv2d_threads(void **state)
{
    (void)state;
    fixture_each_dtype(conv_body);
}

struct linear_case {
    int64_t l, ic, oc;
    enum act act;
    bool residual;
};
static const struct linear_case linear_cases[] = {
    /* Karlo's prior, decoder and CLIP */
    {81, 2048, 2048, ACT_NONE, true},
    {81, 2048, 8192, ACT_GELU, false},
    {81, 8192, 2048, ACT_NONE, true},
    {77, 768, 3072, ACT_QUICK_GELU, false},
    {77, 3072, 768, ACT_NONE, true},
    {1024, 640, 1920, ACT_NONE, false},
    {64, 1280, 1280, ACT_NONE, true},
    {1, 1280, 2560, ACT_NONE, false},
    {1, 768, 8192, ACT_NONE, false},
    {1, 320, 1280, ACT_SILU, false},
    {1, 2048, 768, ACT_NONE, false},
    {1, 8192, 64, ACT_NONE, false},
    /* the small model's */
    {21, 256, 256, ACT_NONE, true},
    {21, 256, 768, ACT_NONE, false},
    {21, 256, 1024, ACT_GELU, false},
    {21, 1024, 256, ACT_NONE, true},
    {1, 256, 256, ACT_NONE, false},
    {1, 32, 128, ACT_SILU, false},
    {64, 160, 160, ACT_NONE, true},
    {257, 128, 384, ACT_NONE, false},
    {7, 33, 5, ACT_NONE, true},
};

static void check_linear(struct fixture *f, const struct linear_case *c)
{
    char what[80];
    struct err err = {0};
    struct linear linear;
    struct safetensors_entry entries[] = {F32_ENTRY("a.weight", pool_values, c->oc, c->ic),
                                          F32_ENTRY("a.bias", pool_values, c->oc)};
    struct weights *weights = fixture_weights(entries, 2);
    assert_int_equal(linear_load(&linear, f->nn, weights, "a", c->ic, c->oc, true, &err), 0);
    weights_close(weights);
    struct witness witness = {0};
    for (int threads = 1; threads <= THREADS_MAX; threads++) {
        size_t scope = nn_enter(f->nn);
        snprintf(what, sizeof(what), "linear %lldx%lld->%lld %s with %d threads", (long long)c->l,
                 (long long)c->ic, (long long)c->oc, dtype_name(f->dtype), threads);
        nn_set_threads(f->nn, threads);
        struct linear_fuse fuse = {.act = c->act};
        if (c->residual)
            fuse.residual = RANDOM(f->nn, 1, c->l, c->oc);
        struct tensor y = nn_linear(f->nn, &linear, RANDOM(f->nn, 1, c->l, c->ic), fuse);
        witness_check(&witness, f->nn, y, what);
        nn_leave_all(f->nn, scope);
    }
    witness_release(&witness);
    linear_release(&linear);
}

static void linear_body(struct fixture *f)
{
    for (size_t i = 0; i < COUNT_OF(linear_cases); i++)
        check_linear(f, &linear_cases[i]);
}

static void test_linear_threads(void **state)
{
    (void)state;
    fixture_each_dtype(linear_body);
}

static void attention_body(struct fixture *f)
{
    static const struct {
        int64_t lq, lk;
        int heads, head_dim;
    } cases[] = {{81, 81, 32, 64}, {77, 77, 12, 64},  {1024, 1105, 10, 64}, {64, 145, 20, 64},
                 {21, 21, 8, 32},  {256, 277, 4, 32}, {4096, 4096, 1, 64},  {3, 7, 5, 9}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct witness witness = {0};
        char what[80];
        for (int threads = 1; threads <= THREADS_MAX; threads++) {
            size_t scope = nn_enter(f->nn);
            snprintf(what, sizeof(what), "attention %lldx%lld with %d threads",
                     (long long)cases[i].lq, (long long)cases[i].lk, threads);
            nn_set_threads(f->nn, threads);
            int64_t width = cases[i].heads * cases[i].head_dim;
            struct attention_args args = {.heads = cases[i].heads, .head_dim = cases[i].head_dim};
            args.q = RANDOM(f->nn, 1, cases[i].lq, width);
            args.k = args.v = RANDOM(f->nn, 1, cases[i].lk, width);
            args.scale = 0.125f;
            witness_check(&witness, f->nn, nn_attention(f->nn, args), what);
            nn_leave_all(f->nn, scope);
        }
        witness_release(&witness);
    }
}

static void test_attention_threads(void **state)
{
    (void)state;
    fixture_each_dtype(attention_body);
}

static void norm_body(struct fixture *f)
{
    static const int64_t shapes[][4] = {
        {1, 64, 64, 320}, {1, 8, 8, 1280}, {2, 256, 256, 32}, {1, 5, 7, 96}, {1, 512, 512, 64}};
    struct group_norm norm = {.groups = 32, .eps = 1e-5f, .gamma = pool_values};
    struct layer_norm layer = {.eps = 1e-5f, .gamma = pool_values, .beta = pool_values};
    norm.beta = pool_values;
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        struct witness group_witness = {0}, layer_witness = {0}, act_witness = {0};
        norm.channels = layer.channels = shapes[i][3];
        for (int threads = 1; threads <= THREADS_MAX; threads++) {
            size_t scope = nn_enter(f->nn);
            nn_set_threads(f->nn, threads);
            struct tensor x = random_tensor(f->nn, 4, shapes[i]);
            struct norm_fuse fuse = {.act = ACT_SILU};
            fuse.scale_shift = RANDOM(f->nn, shapes[i][0], 2 * shapes[i][3]);
            struct tensor y = nn_group_norm(f->nn, &norm, x, fuse);
            witness_check(&group_witness, f->nn, y, "group_norm");
            witness_check(&layer_witness, f->nn, nn_layer_norm(f->nn, &layer, x), "layer_norm");
            witness_check(&act_witness, f->nn, nn_act(f->nn, x, ACT_GELU), "act");
            nn_leave_all(f->nn, scope);
        }
        witness_release(&group_witness);
        witness_release(&layer_witness);
        witness_release(&act_witness);
    }
}

static void test_norm_threads(void **state)
{
    (void)state;
    fixture_each_dtype(norm_body);
}

/* A small network over [n, h, w, c]: every op that has an n. */
struct little_net {
    struct conv2d conv;
    struct linear qkv;
    struct group_norm norm;
};
enum { NET_C = 64, NET_H = 10, NET_HEADS = 4 };

static void net_load(struct fixture *f, struct little_net *net)
{
    struct err err = {0};
    struct safetensors_entry entries[] = {
        F32_ENTRY("c.weight", pool_values, NET_C, NET_C, 3, 3),
        F32_ENTRY("c.bias", pool_values, NET_C),
        F32_ENTRY("qkv.weight", pool_values, 3 * NET_C, NET_C),
        F32_ENTRY("qkv.bias", pool_values, 3 * NET_C),
        F32_ENTRY("n.weight", pool_values, NET_C),
        F32_ENTRY("n.bias", pool_values, NET_C),
    };
    struct weights *weights = fixture_weights(entries, COUNT_OF(entries));
    assert_int_equal(
        conv2d_load(&net->conv, f->nn, weights, "c", NET_C, NET_C, 3, 1, 1, true, &err), 0);
    assert_int_equal(linear_load(&net->qkv, f->nn, weights, "qkv", NET_C, 3 * NET_C, true, &err),
                     0);
    assert_int_equal(group_norm_load(&net->norm, f->nn, weights, "n", NET_C, 8, 1e-5f, &err), 0);
    weights_close(weights);
}

static void net_release(struct little_net *net)
{
    conv2d_release(&net->conv);
    linear_release(&net->qkv);
    group_norm_release(&net->norm);
}

static struct tensor net_forward(struct fixture *f, struct little_net *net, struct tensor x,
                                 struct tensor time)
{
    struct nn *nn = f->nn;
    size_t scope = nn_enter(nn);
    struct norm_fuse norm = {.act = ACT_SILU};
    struct conv_fuse conv = {.add_channels = time, .residual = x};
    struct tensor h = nn_conv2d(nn, &net->conv, nn_group_norm(nn, &net->norm, x, norm), conv);
    h = nn_concat_channels(nn, nn_avg_pool_2x(nn, h), nn_avg_pool_2x(nn, x));
    h = TENSOR_RESHAPE(h, h.dim[0], h.dim[1] * h.dim[2] * 2, NET_C);
    h = nn_linear(nn, &net->qkv, h, (struct linear_fuse){0});
    struct attention_args args = {.q = h, .k = h, .v = h, .heads = NET_HEADS};
    args.k_offset = NET_C, args.v_offset = 2 * NET_C;
    args.head_dim = NET_C / NET_HEADS, args.scale = 0.25f;
    return nn_leave(nn, scope, nn_attention(nn, args));
}

/* Sample i of a batch is what it is alone; the convolution takes many tiles another way than few.
 */
static void batch_body(struct fixture *f)
{
    enum { N = 6, SAMPLE = NET_H * NET_H * NET_C };
    struct little_net net;
    net_load(f, &net);
    size_t scope = nn_enter(f->nn);
    struct tensor x = RANDOM(f->nn, N, NET_H, NET_H, NET_C), time = RANDOM(f->nn, N, NET_C);
    struct tensor all = net_forward(f, &net, x, time);
    for (int64_t i = 0; i < N; i++) {
        struct tensor alone =
            nn_from_f32(f->nn, pool_values + i * SAMPLE, 4, (int64_t[]){1, NET_H, NET_H, NET_C});
        struct tensor now = nn_from_f32(f->nn, pool_values + i * NET_C, 2, (int64_t[]){1, NET_C});
        struct tensor y = net_forward(f, &net, alone, now);
        assert_false(nn_failed(f->nn));
        size_t bytes = tensor_bytes(y);
        assert_memory_equal((const char *)all.data + (size_t)i * bytes, y.data, bytes);
    }
    nn_leave_all(f->nn, scope);
    net_release(&net);
}

static void test_batch(void **state)
{
    (void)state;
    fixture_each_dtype(batch_body);
}

/* --- instruction sets --- */

static const struct kernels *const kernel_sets[] = {
    &kernels_generic,
#if defined(__x86_64__)
    &kernels_avx2,
    &kernels_avx512,
    &kernels_avx512bf16,
#endif
};

static bool usable(const struct kernels *set)
{
#if defined(__x86_64__)
    if (set == &kernels_avx2)
        return __builtin_cpu_supports("avx2");
    if (set == &kernels_avx512)
        return kernels() == set || kernels() == &kernels_avx512bf16;
    if (set == &kernels_avx512bf16)
        return kernels() == set;
#endif
    return set == &kernels_generic;
}

enum { KERNEL_COUNT = 1003, KERNEL_C = 59, KERNEL_STRIDE = 59, KERNEL_PIXELS = 17 };
enum { SOFT_ROWS = 6, SOFT_COUNT = 187, SOFT_STRIDE = 192 };

/*
 * Zeros, what is too small for a normal number, what overflows in an exp. No NaN: its sign is
 * whatever the compiler's order of operands makes it.
 */
static const float edges[] = {0,      -0.0f, 1e-40f,  -1e-40f,  1.1e-38f, -1.2e-38f, 87.5f,
                              -87.5f, 87.8f, -87.8f,  88.5f,    -88.5f,   127,       -127,
                              1e4f,   -1e4f, 3.3e38f, -3.3e38f, INFINITY, -INFINITY};

/* All kernels' results, one behind the other. */
struct kernel_results {
    float act[6][KERNEL_COUNT], edge[6][COUNT_OF(edges)], add[KERNEL_COUNT], affine[KERNEL_COUNT],
        layer_norm[KERNEL_COUNT];
    float softmax[SOFT_ROWS * SOFT_STRIDE], sums[SOFT_ROWS], scaled[KERNEL_COUNT],
        mean_of_4[KERNEL_C];
    double moments[2][KERNEL_C];
};

static void run_kernels(const struct kernels *set, enum dtype dtype, struct kernel_results *r)
{
    static uint16_t halves[4 * KERNEL_COUNT], edge_halves[COUNT_OF(edges)];
    memset(r, 0, sizeof(*r));
    convert_f32_to_bf16(edge_halves, edges, COUNT_OF(edges));
    const void *src = pool_values, *more = pool_values + KERNEL_COUNT;
    if (dtype == DTYPE_BF16) {
        convert_f32_to_bf16(halves, pool_values, COUNT_OF(halves));
        src = halves, more = halves + KERNEL_COUNT;
    }
    for (enum act act = ACT_NONE; act <= ACT_RELU; act++)
        set->act(r->act[act], src, dtype, KERNEL_COUNT, act);
    const void *edge = dtype == DTYPE_BF16 ? (const void *)edge_halves : edges;
    for (enum act act = ACT_NONE; act <= ACT_RELU; act++)
        set->act(r->edge[act], edge, dtype, COUNT_OF(edges), act);
    set->add(r->add, src, more, dtype, KERNEL_COUNT);
    set->moments(r->moments[0], r->moments[1], src, pool_values, dtype, KERNEL_PIXELS,
                 KERNEL_STRIDE, KERNEL_C);
    struct affine affine = {pool_values, pool_values + 1, pool_values + 2, ACT_SILU};
    set->affine(r->affine, src, &affine, dtype, KERNEL_PIXELS, KERNEL_STRIDE, KERNEL_C);
    set->layer_norm(r->layer_norm, src, pool_values, pool_values, 1e-5f, dtype, KERNEL_COUNT);
    set->softmax(r->sums, r->softmax, pool_values, SOFT_STRIDE, pool_values + 9, 3, 7, dtype,
                 SOFT_ROWS, SOFT_COUNT);
    set->scale(r->scaled, pool_values, 0.3f, dtype, KERNEL_COUNT);
    set->mean_of_4(r->mean_of_4, src, more, dtype, KERNEL_C);
}

/* Whether rows of bf16, each in the lower half of `bytes`, are the same but for the last bit. */
static bool near_bf16(const void *found, const void *expected, size_t bytes)
{
    const uint16_t *x = found, *y = expected;
    for (size_t i = 0; i < bytes / (2 * sizeof(*x)); i++) {
        float a, b;
        convert_to_f32(&a, x + i, DTYPE_BF16, 1);
        convert_to_f32(&b, y + i, DTYPE_BF16, 1);
        if (x[i] != y[i] && !(fabsf(a - b) <= fabsf(b) / 128))
            return false;
    }
    return true;
}

static bool near_doubles(const double *found, const double *expected, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!(fabs(found[i] - expected[i]) <= 1e-6 * fabs(expected[i])))
            return false;
    return true;
}

#define SAME(field) (memcmp(found->field, expected->field, sizeof(found->field)) == 0)
#define NEAR(field) near_bf16(found->field, expected->field, sizeof(found->field))

/* Of bf16 rows by a set with fused multiply-adds. */
static bool near_results(const struct kernel_results *found, const struct kernel_results *expected)
{
    for (int act = 0; act < 6; act++)
        if (!NEAR(act[act]) || !NEAR(edge[act]))
            return false;
    for (int row = 0; row < SOFT_ROWS; row++)
        if (!(fabsf(found->sums[row] - expected->sums[row]) <= 1e-3f * expected->sums[row]))
            return false;
    return SAME(add) && SAME(layer_norm) && SAME(scaled) && SAME(mean_of_4) && NEAR(affine) &&
           NEAR(softmax) && SAME(moments[0]) &&
           near_doubles(found->moments[1], expected->moments[1], KERNEL_C);
}

static bool fused(const struct kernels *set, enum dtype dtype)
{
#if defined(__x86_64__)
    return set == &kernels_avx512bf16 && dtype == DTYPE_BF16;
#else
    (void)set, (void)dtype;
    return false;
#endif
}

static void test_instruction_sets(void **state)
{
    (void)state;
    static struct kernel_results expected, found;
    for (int half = 0; half < 2; half++) {
        enum dtype dtype = half ? DTYPE_BF16 : DTYPE_F32;
        run_kernels(&kernels_generic, dtype, &expected);
        for (size_t i = 0; i < COUNT_OF(kernel_sets); i++) {
            if (!usable(kernel_sets[i]))
                continue;
            run_kernels(kernel_sets[i], dtype, &found);
            if (fused(kernel_sets[i], dtype) ? !near_results(&found, &expected)
                                             : memcmp(&found, &expected, sizeof(found)) != 0)
                fail_msg("%s kernels give other results in %s", kernel_sets[i]->name,
                         dtype_name(dtype));
        }
    }
}

/* A NaN among a row's scores is one in its sum, wherever it stands, and in no other row's. */
static void test_softmax_nan(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(kernel_sets); i++) {
        for (size_t at = 0; usable(kernel_sets[i]) && at < SOFT_COUNT; at += 31) {
            float scores[2 * SOFT_STRIDE] = {0}, sums[2], dst[2 * SOFT_STRIDE];
            scores[at] = NAN;
            for (int half = 0; half < 2; half++) {
                kernel_sets[i]->softmax(sums, dst, scores, SOFT_STRIDE, NULL, 0, 1,
                                        half ? DTYPE_BF16 : DTYPE_F32, 2, SOFT_COUNT);
                assert_true(isnan(sums[0]));
                assert_true(sums[1] == SOFT_COUNT);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv2d_threads),
        cmocka_unit_test(test_linear_threads),
        cmocka_unit_test(test_attention_threads),
        cmocka_unit_test(test_norm_threads),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_instruction_sets),
        cmocka_unit_test(test_softmax_nan),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
