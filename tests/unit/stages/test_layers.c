/* SPDX-License-Identifier: Apache-2.0 */
/* Each op against its naive twin, on odd shapes, in f32 and bf16 (op_limits.h). */
#include "common/memory.h"
#include "nn_fixture.h"

static char text[200];

struct linear_case {
    int64_t n, l, ic, oc; /* l 0: rank 2 */
    bool bias;
    enum act act;
    bool residual;
};
static const struct linear_case linear_cases[] = {
    {1, 0, 1, 1, true, ACT_NONE, false},           {3, 0, 7, 5, true, ACT_SILU, false},
    {2, 0, 320, 1280, true, ACT_SILU, false},      {1, 3, 33, 17, false, ACT_NONE, false},
    {2, 21, 256, 1024, true, ACT_GELU, false},     {2, 21, 1024, 256, true, ACT_NONE, true},
    {1, 77, 48, 192, true, ACT_QUICK_GELU, false}, {1, 13, 40, 24, true, ACT_GELU_TANH, true},
    {3, 5, 16, 31, false, ACT_RELU, true},         {1, 81, 100, 130, true, ACT_NONE, true},
};

static void check_linear(struct fixture *f, const struct linear_case *c)
{
    int64_t rows = c->n * (c->l ? c->l : 1);
    float *x = fixture_values(f, rows * c->ic, 1, 0);
    float *w = fixture_values(f, c->oc * c->ic, 0.3f, 0);
    float *b = fixture_values(f, c->oc, 1, 0);
    float *r = fixture_values(f, rows * c->oc, 1, 0);
    float *expected = xmalloc((unsigned long)(rows * c->oc) * sizeof(float));
    ref_linear(expected, x, w, c->bias ? b : NULL, rows, c->ic, c->oc, c->act,
               c->residual ? r : NULL);
    struct safetensors_entry entries[] = {F32_ENTRY("a.weight", w, c->oc, c->ic),
                                          F32_ENTRY("a.bias", b, c->oc)};
    struct weights *weights = fixture_weights(entries, c->bias ? 2 : 1);
    struct err err = {0};
    struct linear linear;
    assert_int_equal(linear_load(&linear, f->nn, weights, "a", c->ic, c->oc, c->bias, &err), 0);
    assert_int_equal(weights_finish(weights, &err), 0);
    weights_close(weights);
    size_t scope = nn_enter(f->nn);
    int rank = c->l ? 3 : 2;
    int64_t in[] = {c->n, c->l ? c->l : c->ic, c->ic}, out[] = {c->n, c->l ? c->l : c->oc, c->oc};
    struct linear_fuse fuse = {.act = c->act};
    struct tensor tx = nn_from_f32(f->nn, x, rank, in);
    if (c->residual)
        fuse.residual = nn_from_f32(f->nn, r, rank, out);
    struct tensor y = nn_linear(f->nn, &linear, tx, fuse);
    snprintf(text, sizeof(text), "%lldx%lld %lld->%lld act %d", (long long)c->n, (long long)c->l,
             (long long)c->ic, (long long)c->oc, c->act);
    fixture_check(f, LIMIT_LINEAR, y, expected, text);
    assert_int_equal(y.rank, rank);
    assert_int_equal(y.dim[rank - 1], c->oc);
    nn_leave_all(f->nn, scope);
    linear_release(&linear);
    linear_release(&linear); /* a released one is a zeroed one */
    free(x);
    free(w);
    free(b);
    free(r);
    free(expected);
}

static void linear_body(struct fixture *f)
{
    for (size_t i = 0; i < COUNT_OF(linear_cases); i++)
        check_linear(f, &linear_cases[i]);
}

static void test_linear(void **state)
{
    (void)state;
    fixture_each_dtype(linear_body);
}

/* Query, key and value in one product equal the three apart. */
static void joined_body(struct fixture *f)
{
    enum { IC = 24, A = 20, B = 12, ROWS = 9 };
    float *x = fixture_values(f, ROWS * IC, 1, 0);
    float *w = fixture_values(f, (A + B) * IC, 0.3f, 0);
    float *b = fixture_values(f, A + B, 1, 0);
    float expected[ROWS * (A + B)];
    ref_linear(expected, x, w, b, ROWS, IC, A + B, ACT_NONE, NULL);
    struct safetensors_entry entries[] = {F32_ENTRY("q.weight", w, A, IC),
                                          F32_ENTRY("k.weight", w + A * IC, B, IC),
                                          F32_ENTRY("q.bias", b, A), F32_ENTRY("k.bias", b + A, B)};
    struct weights *weights = fixture_weights(entries, COUNT_OF(entries));
    struct linear linear;
    struct err err = {0};
    assert_int_equal(linear_load_joined(&linear, f->nn, weights, (const char *[]){"q", "k", NULL},
                                        IC, (int64_t[]){A, B}, true, &err),
                     0);
    assert_int_equal(weights_finish(weights, &err), 0);
    weights_close(weights);
    size_t scope = nn_enter(f->nn);
    struct tensor tx = nn_from_f32(f->nn, x, 3, (int64_t[]){1, ROWS, IC});
    struct tensor y = nn_linear(f->nn, &linear, tx, (struct linear_fuse){0});
    fixture_check(f, LIMIT_LINEAR, y, expected, "joined");
    nn_leave_all(f->nn, scope);
    linear_release(&linear);
    free(x);
    free(w);
    free(b);
}

static void test_linear_joined(void **state)
{
    (void)state;
    fixture_each_dtype(joined_body);
}

struct conv_case {
    int64_t n, ih, iw, ic, oc;
    int k, stride, pad;
    bool bias, add_channels, residual;
};
static const struct conv_case conv_cases[] = {
    {1, 1, 1, 1, 1, 1, 1, 0, true, false, false},
    {2, 1, 1, 20, 12, 3, 1, 1, true, true, true},
    {1, 8, 8, 3, 32, 3, 1, 1, true, false, false},
    {1, 8, 8, 6, 32, 3, 1, 1, true, false, false},
    {2, 7, 5, 13, 19, 3, 1, 1, true, true, false},
    {3, 6, 9, 33, 48, 3, 1, 1, true, true, true},
    {1, 9, 9, 32, 64, 3, 2, 1, true, false, false},
    {2, 8, 6, 64, 64, 3, 2, 1, false, false, true},
    {1, 8, 8, 64, 3, 3, 1, 1, true, false, false},
    {2, 4, 4, 160, 128, 3, 1, 1, true, true, true},
    {1, 5, 7, 96, 32, 1, 1, 0, true, false, true},
    {1, 28, 28, 3, 24, 14, 14, 0, false, false, false},
    {1, 16, 16, 128, 160, 3, 1, 1, false, true, false},
    {2, 9, 11, 96, 96, 3, 1, 1, true, true, true},
    {3, 12, 8, 64, 96, 3, 1, 1, true, false, true},
    {1, 2, 33, 16, 16, 5, 1, 2, true, false, false},
};

struct conv_arrays {
    float *x, *w, *b, *add, *r, *expected;
};

static struct conv_arrays make_conv(struct fixture *f, const struct conv_case *c, int64_t out)
{
    struct conv_arrays a = {
        .x = fixture_values(f, c->n * c->ih * c->iw * c->ic, 1, 0),
        .w = fixture_values(f, c->oc * c->ic * c->k * c->k, 0.3f, 0),
        .b = fixture_values(f, c->oc, 1, 0),
        .add = fixture_values(f, c->n * c->oc, 1, 0),
        .r = fixture_values(f, out, 1, 0),
        .expected = xmalloc((unsigned long)out * sizeof(float)),
    };
    struct ref_conv ref = {c->n, c->ih, c->iw, c->ic, c->oc, c->k, c->stride, c->pad, a.x, a.w};
    ref.bias = c->bias ? a.b : NULL;
    ref.add_channels = c->add_channels ? a.add : NULL;
    ref.residual = c->residual ? a.r : NULL;
    ref_conv2d(a.expected, &ref);
    return a;
}

static void free_conv(struct conv_arrays *a)
{
    free(a->x);
    free(a->w);
    free(a->b);
    free(a->add);
    free(a->r);
    free(a->expected);
}

static void load_conv(struct fixture *f, struct conv2d *conv, const struct conv_case *c,
                      const struct conv_arrays *a)
{
    struct safetensors_entry entries[] = {F32_ENTRY("c.weight", a->w, c->oc, c->ic, c->k, c->k),
                                          F32_ENTRY("c.bias", a->b, c->oc)};
    struct weights *weights = fixture_weights(entries, c->bias ? 2 : 1);
    struct err err = {0};
    assert_int_equal(conv2d_load(conv, f->nn, weights, "c", c->ic, c->oc, c->k, c->stride, c->pad,
                                 c->bias, &err),
                     0);
    assert_int_equal(weights_finish(weights, &err), 0);
    weights_close(weights);
}

static void check_conv(struct fixture *f, const struct conv_case *c)
{
    int64_t oh = (c->ih + 2 * c->pad - c->k) / c->stride + 1;
    int64_t ow = (c->iw + 2 * c->pad - c->k) / c->stride + 1;
    struct conv_arrays a = make_conv(f, c, c->n * oh * ow * c->oc);
    struct conv2d conv;
    load_conv(f, &conv, c, &a);
    size_t scope = nn_enter(f->nn);
    struct conv_fuse fuse = {0};
    struct tensor x = nn_from_f32(f->nn, a.x, 4, (int64_t[]){c->n, c->ih, c->iw, c->ic});
    if (c->add_channels)
        fuse.add_channels = nn_from_f32(f->nn, a.add, 2, (int64_t[]){c->n, c->oc});
    if (c->residual)
        fuse.residual = nn_from_f32(f->nn, a.r, 4, (int64_t[]){c->n, oh, ow, c->oc});
    struct tensor y = nn_conv2d(f->nn, &conv, x, fuse);
    snprintf(text, sizeof(text), "%lldx%lldx%lld %lld->%lld k%d s%d", (long long)c->n,
             (long long)c->ih, (long long)c->iw, (long long)c->ic, (long long)c->oc, c->k,
             c->stride);
    fixture_check(f, LIMIT_CONV2D, y, a.expected, text);
    nn_leave_all(f->nn, scope);
    conv2d_release(&conv);
    free_conv(&a);
}

static void conv_body(struct fixture *f)
{
    for (size_t i = 0; i < COUNT_OF(conv_cases); i++)
        check_conv(f, &conv_cases[i]);
}

static void test_conv2d(void **state)
{
    (void)state;
    fixture_each_dtype(conv_body);
}

/* One layer sees several sizes, and its weights stay right whatever layouts they are packed to. */
static void sizes_body(struct fixture *f)
{
    static const int64_t sizes[] = {1, 16, 3, 64, 2, 16};
    struct conv_case c = {1, 64, 64, 24, 40, 3, 1, 1, true, false, false};
    struct conv_arrays all = make_conv(f, &c, 64 * 64 * 40);
    struct conv2d conv;
    load_conv(f, &conv, &c, &all);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        int64_t size = sizes[i];
        struct ref_conv ref = {1, size, size, 24, 40, 3, 1, 1, all.x, all.w, all.b};
        ref_conv2d(all.expected, &ref);
        size_t scope = nn_enter(f->nn);
        struct tensor x = nn_from_f32(f->nn, all.x, 4, (int64_t[]){1, size, size, 24});
        fixture_check(f, LIMIT_CONV2D, nn_conv2d(f->nn, &conv, x, (struct conv_fuse){0}),
                      all.expected, "another size");
        nn_leave_all(f->nn, scope);
    }
    conv2d_release(&conv);
    free_conv(&all);
}

static void test_conv2d_of_many_sizes(void **state)
{
    (void)state;
    fixture_each_dtype(sizes_body);
}

struct group_norm_case {
    int64_t n, h, w, c; /* h 0: [n, w, c] */
    int groups;
    bool scale_shift;
    enum act act;
    float offset; /* of the input's mean */
};
static const struct group_norm_case group_norm_cases[] = {
    {1, 1, 1, 4, 2, false, ACT_NONE, 0},     {2, 3, 5, 20, 5, false, ACT_SILU, 0},
    {3, 8, 8, 32, 32, true, ACT_SILU, 0},    {1, 17, 9, 96, 32, true, ACT_NONE, 3},
    {2, 0, 77, 33, 11, false, ACT_NONE, 0},  {1, 64, 64, 64, 8, false, ACT_SILU, 30},
    {1, 130, 131, 16, 4, true, ACT_SILU, 5}, {1, 1024, 256, 2, 1, false, ACT_NONE, 100},
};

static void check_group_norm(struct fixture *f, const struct group_norm_case *c)
{
    int64_t pixels = c->w * (c->h ? c->h : 1), count = c->n * pixels * c->c;
    float *x = fixture_values(f, count, 1, c->offset);
    float *g = fixture_values(f, c->c, 1, 0.5f), *b = fixture_values(f, c->c, 1, 0);
    float *s = fixture_values(f, c->n * 2 * c->c, 0.5f, 0);
    float *expected = xmalloc((unsigned long)count * sizeof(float));
    struct ref_group_norm ref = {.n = c->n,
                                 .pixels = pixels,
                                 .c = c->c,
                                 .groups = c->groups,
                                 .eps = 1e-5,
                                 .src = x,
                                 .gamma = g,
                                 .beta = b,
                                 .scale_shift = c->scale_shift ? s : NULL,
                                 .act = c->act};
    ref_group_norm(expected, &ref);
    struct safetensors_entry entries[] = {F32_ENTRY("n.weight", g, c->c),
                                          F32_ENTRY("n.bias", b, c->c)};
    struct weights *weights = fixture_weights(entries, 2);
    struct group_norm norm;
    struct err err = {0};
    assert_int_equal(group_norm_load(&norm, f->nn, weights, "n", c->c, c->groups, 1e-5f, &err), 0);
    weights_close(weights);
    size_t scope = nn_enter(f->nn);
    int64_t flat[] = {c->n, c->w, c->c}, plane[] = {c->n, c->h, c->w, c->c};
    struct tensor tx = nn_from_f32(f->nn, x, c->h ? 4 : 3, c->h ? plane : flat);
    struct norm_fuse fuse = {.act = c->act};
    if (c->scale_shift)
        fuse.scale_shift = nn_from_f32(f->nn, s, 2, (int64_t[]){c->n, 2 * c->c});
    snprintf(text, sizeof(text), "%lldx%lldx%lldx%lld", (long long)c->n, (long long)c->h,
             (long long)c->w, (long long)c->c);
    fixture_check(f, LIMIT_GROUP_NORM, nn_group_norm(f->nn, &norm, tx, fuse), expected, text);
    nn_leave_all(f->nn, scope);
    group_norm_release(&norm);
    group_norm_release(&norm);
    free(x);
    free(g);
    free(b);
    free(s);
    free(expected);
}

static void group_norm_body(struct fixture *f)
{
    for (size_t i = 0; i < COUNT_OF(group_norm_cases); i++)
        check_group_norm(f, &group_norm_cases[i]);
}

static void test_group_norm(void **state)
{
    (void)state;
    fixture_each_dtype(group_norm_body);
}

static void check_layer_norm(struct fixture *f, int64_t n, int64_t l, int64_t c, float offset)
{
    float *x = fixture_values(f, n * l * c, 2, offset);
    float *g = fixture_values(f, c, 1, 0.5f), *b = fixture_values(f, c, 1, 0);
    float *expected = xmalloc((unsigned long)(n * l * c) * sizeof(float));
    ref_layer_norm(expected, x, g, b, n * l, c, 1e-5);
    struct safetensors_entry entries[] = {F32_ENTRY("n.weight", g, c), F32_ENTRY("n.bias", b, c)};
    struct weights *weights = fixture_weights(entries, 2);
    struct layer_norm norm;
    struct err err = {0};
    assert_int_equal(layer_norm_load(&norm, f->nn, weights, "n", c, 1e-5f, &err), 0);
    weights_close(weights);
    size_t scope = nn_enter(f->nn);
    struct tensor tx = nn_from_f32(f->nn, x, 3, (int64_t[]){n, l, c});
    snprintf(text, sizeof(text), "%lldx%lldx%lld", (long long)n, (long long)l, (long long)c);
    fixture_check(f, LIMIT_LAYER_NORM, nn_layer_norm(f->nn, &norm, tx), expected, text);
    nn_leave_all(f->nn, scope);
    layer_norm_release(&norm);
    free(x);
    free(g);
    free(b);
    free(expected);
}

static void layer_norm_body(struct fixture *f)
{
    check_layer_norm(f, 1, 1, 2, 0);
    check_layer_norm(f, 3, 7, 33, 0);
    check_layer_norm(f, 2, 81, 256, 10);
    check_layer_norm(f, 1, 2, 2048, 0);
    check_layer_norm(f, 1, 5, 15, 1);
}

static void test_layer_norm(void **state)
{
    (void)state;
    fixture_each_dtype(layer_norm_body);
}

struct attention_case {
    int64_t n, lq, lk;
    int heads, head_dim;
    int64_t mask_n, mask_lq; /* 0: no mask */
    bool joined;             /* q, k and v in one tensor; needs lq == lk */
};
static const struct attention_case attention_cases[] = {
    {1, 1, 1, 1, 1, 0, 0, false},      {2, 5, 7, 3, 8, 0, 0, false},
    {1, 21, 21, 8, 32, 1, 21, true},   {3, 81, 81, 4, 64, 3, 1, true},
    {2, 64, 144, 5, 64, 2, 1, false},  {1, 77, 77, 12, 24, 1, 77, true},
    {2, 16, 33, 2, 20, 2, 16, false},  {1, 300, 1100, 2, 16, 0, 0, false},
    {1, 70, 4096, 1, 40, 1, 1, false}, {1, 29, 50, 2, 48, 0, 0, false},
};

struct attention_arrays {
    float *q, *k, *v, *mask, *expected;
    int64_t q_stride, k_stride, v_stride;
};

static struct attention_arrays make_attention(struct fixture *f, const struct attention_case *c)
{
    int64_t width = c->heads * c->head_dim, stride = c->joined ? 3 * width : width;
    struct attention_arrays a = {.q_stride = stride, .k_stride = stride, .v_stride = stride};
    a.q = fixture_values(f, c->n * c->lq * stride, 1.5f, 0);
    a.k = c->joined ? a.q + width : fixture_values(f, c->n * c->lk * stride, 1.5f, 0);
    a.v = c->joined ? a.q + 2 * width : fixture_values(f, c->n * c->lk * stride, 1, 0);
    int64_t mask = c->mask_n * c->mask_lq * c->lk;
    a.mask = fixture_values(f, mask, 2, 0);
    for (int64_t i = 0; i < mask; i += 3)
        a.mask[i] = i % c->lk ? -10000.0f : 0; /* never a whole row */
    a.expected = xmalloc((unsigned long)(c->n * c->lq * width) * sizeof(float));
    struct ref_attention ref = {.n = c->n, .lq = c->lq, .lk = c->lk, .heads = c->heads};
    ref.head_dim = c->head_dim;
    ref.q = a.q, ref.k = a.k, ref.v = a.v;
    ref.q_stride = ref.k_stride = ref.v_stride = stride;
    ref.scale = 0.35;
    ref.mask = c->mask_n ? a.mask : NULL;
    ref.mask_n = c->mask_n, ref.mask_lq = c->mask_lq;
    ref_attention(a.expected, &ref);
    return a;
}

static void free_attention(struct attention_arrays *a, bool joined)
{
    free(a->q);
    if (!joined) {
        free(a->k);
        free(a->v);
    }
    free(a->mask);
    free(a->expected);
}

static struct tensor run_attention(struct fixture *f, const struct attention_case *c,
                                   const struct attention_arrays *a)
{
    int64_t width = c->heads * c->head_dim;
    int64_t q[] = {c->n, c->lq, a->q_stride}, k[] = {c->n, c->lk, a->k_stride};
    struct attention_args args = {.heads = c->heads, .head_dim = c->head_dim, .scale = 0.35f};
    args.q = nn_from_f32(f->nn, a->q, 3, q);
    args.k = c->joined ? args.q : nn_from_f32(f->nn, a->k, 3, k);
    args.v = c->joined ? args.q : nn_from_f32(f->nn, a->v, 3, k);
    args.k_offset = c->joined ? width : 0;
    args.v_offset = c->joined ? 2 * width : 0;
    if (c->mask_n) {
        args.mask = NN_NEW(f->nn, DTYPE_F32, c->mask_n, c->mask_lq, c->lk);
        memcpy(args.mask.data, a->mask, (size_t)tensor_count(args.mask) * sizeof(float));
    }
    return nn_attention(f->nn, args);
}

static void attention_body(struct fixture *f)
{
    for (size_t i = 0; i < COUNT_OF(attention_cases); i++) {
        const struct attention_case *c = &attention_cases[i];
        struct attention_arrays a = make_attention(f, c);
        size_t scope = nn_enter(f->nn);
        snprintf(text, sizeof(text), "%lld: %lldx%lld heads %d of %d", (long long)c->n,
                 (long long)c->lq, (long long)c->lk, c->heads, c->head_dim);
        fixture_check(f, LIMIT_ATTENTION, run_attention(f, c, &a), a.expected, text);
        nn_leave_all(f->nn, scope);
        free_attention(&a, c->joined);
    }
}

static void test_attention(void **state)
{
    (void)state;
    fixture_each_dtype(attention_body);
}

static void act_body(struct fixture *f)
{
    static const int64_t counts[] = {1, 15, 16, 17, 1000, 40001};
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        for (enum act act = ACT_NONE; act <= ACT_RELU; act++) {
            float *x = fixture_values(f, counts[i], 12, 0);
            float *expected = xmalloc((unsigned long)counts[i] * sizeof(float));
            for (int64_t j = 0; j < counts[i]; j++)
                expected[j] = (float)ref_act((double)x[j], act);
            size_t scope = nn_enter(f->nn);
            struct tensor y =
                nn_act(f->nn, nn_from_f32(f->nn, x, 2, (int64_t[]){1, counts[i]}), act);
            snprintf(text, sizeof(text), "%d of %lld", act, (long long)counts[i]);
            fixture_check(f, LIMIT_ACT, y, expected, text);
            nn_leave_all(f->nn, scope);
            free(x);
            free(expected);
        }
    }
}

static void test_act(void **state)
{
    (void)state;
    fixture_each_dtype(act_body);
}

/* Far-out inputs: limits, not NaN; and NaN stays NaN. */
static void test_act_at_the_ends(void **state)
{
    (void)state;
    struct fixture f;
    assert_true(fixture_open(&f, DTYPE_F32, 1));
    float x[] = {-1000, -90, 90, 1000, NAN, 0};
    for (enum act act = ACT_SILU; act <= ACT_RELU; act++) {
        float y[6];
        size_t scope = nn_enter(f.nn);
        nn_to_f32(f.nn, nn_act(f.nn, nn_from_f32(f.nn, x, 2, (int64_t[]){1, 6}), act), y);
        assert_true(y[0] <= 0 && y[0] > -1e-30f);
        assert_true(y[1] <= 0 && y[1] > -1e-30f);
        assert_true(y[2] == 90 && y[3] == 1000);
        assert_true(y[4] != y[4] && y[5] == 0);
        nn_leave_all(f.nn, scope);
    }
    fixture_close(&f);
}

static void add_body(struct fixture *f)
{
    int64_t dim[] = {3, 5, 7, 11}, count = 3 * 5 * 7 * 11;
    float *a = fixture_values(f, count, 3, 0), *b = fixture_values(f, count, 3, 0);
    float *expected = xmalloc((unsigned long)count * sizeof(float));
    for (int64_t i = 0; i < count; i++)
        expected[i] = a[i] + b[i];
    size_t scope = nn_enter(f->nn);
    struct tensor y = nn_add(f->nn, nn_from_f32(f->nn, a, 4, dim), nn_from_f32(f->nn, b, 4, dim));
    fixture_check(f, LIMIT_ADD, y, expected, "3x5x7x11");
    nn_leave_all(f->nn, scope);
    free(a);
    free(b);
    free(expected);
}

static void test_add(void **state)
{
    (void)state;
    fixture_each_dtype(add_body);
}

static void check_concat(struct fixture *f, int64_t n, int64_t h, int64_t w, int64_t ca, int64_t cb)
{
    float *a = fixture_values(f, n * h * w * ca, 1, 0);
    float *b = fixture_values(f, n * h * w * cb, 1, 0);
    float *expected = xmalloc((unsigned long)(n * h * w * (ca + cb)) * sizeof(float));
    size_t scope = nn_enter(f->nn);
    ref_concat(expected, a, b, n * h * w, ca, cb);
    struct tensor y = nn_concat_channels(f->nn, nn_from_f32(f->nn, a, 4, (int64_t[]){n, h, w, ca}),
                                         nn_from_f32(f->nn, b, 4, (int64_t[]){n, h, w, cb}));
    fixture_check(f, LIMIT_MOVE, y, expected, "channels");
    assert_int_equal(y.dim[3], ca + cb);
    ref_concat(expected, a, b, n, h * w * ca, h * w * cb);
    y = nn_concat_rows(f->nn, nn_from_f32(f->nn, a, 3, (int64_t[]){n, ca, h * w}),
                       nn_from_f32(f->nn, b, 3, (int64_t[]){n, cb, h * w}));
    fixture_check(f, LIMIT_MOVE, y, expected, "rows");
    assert_int_equal(y.dim[1], ca + cb);
    nn_leave_all(f->nn, scope);
    free(a);
    free(b);
    free(expected);
}

static void concat_body(struct fixture *f)
{
    check_concat(f, 1, 1, 1, 1, 1);
    check_concat(f, 3, 5, 7, 13, 2);
    check_concat(f, 2, 16, 16, 64, 96);
}

static void test_concat(void **state)
{
    (void)state;
    fixture_each_dtype(concat_body);
}

static void check_resample(struct fixture *f, int64_t n, int64_t h, int64_t w, int64_t c)
{
    float *x = fixture_values(f, n * h * w * c, 1, 0);
    float *expected = xmalloc((unsigned long)(4 * n * h * w * c) * sizeof(float));
    size_t scope = nn_enter(f->nn);
    struct tensor tx = nn_from_f32(f->nn, x, 4, (int64_t[]){n, h, w, c});
    ref_upsample_nearest_2x(expected, x, n, h, w, c);
    fixture_check(f, LIMIT_MOVE, nn_upsample_nearest_2x(f->nn, tx), expected, "upsample");
    if (h > 1 && w > 1) {
        ref_avg_pool_2x(expected, x, n, h, w, c);
        fixture_check(f, LIMIT_AVG_POOL, nn_avg_pool_2x(f->nn, tx), expected, "pool");
    }
    nn_leave_all(f->nn, scope);
    free(x);
    free(expected);
}

static void resample_body(struct fixture *f)
{
    check_resample(f, 1, 1, 1, 1);
    check_resample(f, 2, 3, 5, 7);
    check_resample(f, 1, 16, 8, 32);
    check_resample(f, 3, 2, 2, 17);
}

static void test_upsample_and_pool(void **state)
{
    (void)state;
    fixture_each_dtype(resample_body);
}

static void timestep_body(struct fixture *f)
{
    static const float timesteps[] = {0, 1, 13.5f, 999};
    static const struct {
        int64_t channels;
        bool flip;
        float shift;
    } cases[] = {{320, true, 0}, {7, false, 1}, {32, false, 0}, {2, true, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        float expected[4 * 320];
        ref_timestep_embedding(expected, timesteps, 4, cases[i].channels, cases[i].flip,
                               (double)cases[i].shift);
        size_t scope = nn_enter(f->nn);
        struct tensor y = nn_timestep_embedding(f->nn, timesteps, 4, cases[i].channels,
                                                cases[i].flip, cases[i].shift);
        fixture_check(f, LIMIT_TIMESTEP, y, expected, "4 timesteps");
        nn_leave_all(f->nn, scope);
    }
}

static void test_timestep_embedding(void **state)
{
    (void)state;
    fixture_each_dtype(timestep_body);
}

static void test_act_parse(void **state)
{
    (void)state;
    enum act act;
    struct err err = {0};
    assert_int_equal(act_parse("silu", &act, &err), 0);
    assert_int_equal(act, ACT_SILU);
    assert_int_equal(act_parse("quick_gelu", &act, &err), 0);
    assert_int_equal(act, ACT_QUICK_GELU);
    assert_int_equal(act_parse("mish", &act, &err), -(int)ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "'mish'"));
}

/* A wrong shape fails the context with the op's name; what follows does nothing. */
static void test_wrong_shapes(void **state)
{
    (void)state;
    struct fixture f;
    assert_true(fixture_open(&f, DTYPE_F32, 1));
    size_t scope = nn_enter(f.nn);
    float zeros[64] = {0};
    struct tensor a = nn_from_f32(f.nn, zeros, 4, (int64_t[]){1, 2, 2, 4});
    struct tensor b = nn_from_f32(f.nn, zeros, 4, (int64_t[]){1, 2, 4, 4});
    assert_true(tensor_empty(nn_concat_channels(f.nn, a, b)));
    assert_true(nn_failed(f.nn));
    assert_true(tensor_empty(nn_add(f.nn, a, a)));
    struct err err = {0};
    assert_int_equal(nn_finish(f.nn, &err), -(int)ERR_COMPUTE);
    assert_string_equal(err.text, "concat_channels got a tensor of shape [1, 2, 4, 4], not "
                                  "[1, 2, 2, any]");
    assert_false(tensor_empty(nn_add(f.nn, a, a)));
    nn_leave_all(f.nn, scope);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_joined),
        cmocka_unit_test(test_conv2d),
        cmocka_unit_test(test_conv2d_of_many_sizes),
        cmocka_unit_test(test_group_norm),
        cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_act),
        cmocka_unit_test(test_act_at_the_ends),
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_concat),
        cmocka_unit_test(test_upsample_and_pool),
        cmocka_unit_test(test_timestep_embedding),
        cmocka_unit_test(test_act_parse),
        cmocka_unit_test(test_wrong_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
