/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oneDNN's v2 C API behind onednn.h. Nothing here allocates per call: primitives and their memory
 * objects are made once for a shape, and a call only sets data handles. The file is long because
 * the library's types must not leave it.
 */
#include "stages/nn/onednn.h"
#include "common/memory.h"
#include "stages/nn/parallel.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/nn/context.h"

/* One engine for the process: CPU engines hold no state, and layers may outlive contexts. */
static dnnl_engine_t engine;
static pthread_once_t engine_once = PTHREAD_ONCE_INIT;

static void make_engine(void)
{
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success)
        engine = NULL;
}

struct product {
    struct product_shape shape;
    dnnl_primitive_t primitive;
    size_t scratch_bytes;
    int slots;
    struct product_slot {
        dnnl_memory_t src, weights, bias, dst, scratchpad;
        dnnl_stream_t stream;
    } * slot;
    dnnl_memory_desc_t src_desc, weights_desc, bias_desc, dst_desc, scratchpad_desc;
    struct product *next;
};

struct device {
    struct product *products;
};

static int status_error(struct err *err, dnnl_status_t status, const char *what)
{
    if (status == dnnl_out_of_memory)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for %s", what);
    if (status == dnnl_unimplemented)
        return err_set(err, ERR_UNSUPPORTED, "this machine's oneDNN has no %s", what);
    return err_set(err, ERR_COMPUTE, "oneDNN failed with status %d in %s", (int)status, what);
}

static int fail_status(struct nn *nn, dnnl_status_t status, const char *what)
{
    struct err err = {0};
    status_error(&err, status, what);
    return nn_fail(nn, err.code, "%s", err.text);
}

/* Makes a memory object; does nothing after an earlier failure. */
static void add_memory(dnnl_status_t *status, dnnl_memory_t *memory, const dnnl_memory_desc_t *desc,
                       void *data)
{
    if (*status == dnnl_success)
        *status = dnnl_memory_create(memory, desc, engine, data);
}

static dnnl_data_type_t data_type(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

/* Whether the library has a matrix product in this type here. */
static dnnl_status_t probe(enum dtype compute)
{
    dnnl_memory_desc_t desc;
    dnnl_dims_t dims = {16, 16};
    dnnl_matmul_desc_t op;
    dnnl_primitive_desc_t made;
    dnnl_memory_desc_init_by_tag(&desc, 2, dims, data_type(compute), dnnl_ab);
    dnnl_status_t status = dnnl_matmul_desc_init(&op, &desc, &desc, NULL, &desc);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(&made, &op, NULL, engine, NULL);
    if (status == dnnl_success)
        dnnl_primitive_desc_destroy(made);
    return status;
}

int device_open(struct device **out, enum dtype compute, struct err *err)
{
    pthread_once(&engine_once, make_engine);
    if (!engine)
        return err_set(err, ERR_COMPUTE, "oneDNN has no CPU engine");
    dnnl_status_t status = probe(compute);
    if (status != dnnl_success)
        return status_error(err, status,
                            compute == DTYPE_BF16 ? "bf16 (use f32)" : "matrix product");
    *out = xcalloc(1, sizeof(**out));
    return 0;
}

static void product_free(struct product *product);

void device_close(struct device *device)
{
    if (!device)
        return;
    while (device->products) {
        struct product *next = device->products->next;
        product_free(device->products);
        device->products = next;
    }
    free(device);
}

bool device_fast_bf16(void)
{
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    unsigned wanted = (unsigned)dnnl_cpu_isa_avx512_core_bf16; /* AMX's bits include these */
    return (isa & wanted) == wanted;
}

const char *device_version(void)
{
    static char text[32];
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, sizeof(text), "%d.%d.%d", version->major, version->minor, version->patch);
    return text;
}

/* --- weights and the primitives made for them ---------------------------------------------------
 */

/* The weights in one layout. */
struct copy {
    dnnl_memory_desc_t desc;
    void *data;
    int users; /* primitives */
    struct copy *next;
};

/* What a primitive is made for. */
struct key {
    int64_t ih, iw;
    int threads;
    enum act act;
    bool accumulate, bias;
};

/* What one thread needs to run a primitive beside other threads. */
struct runner {
    dnnl_stream_t stream;
    dnnl_memory_t src, weights, bias, dst, scratchpad;
};

struct primitive {
    struct key key;
    int threads; /* with which it was made and runs: key's, or 1 */
    bool tiled;  /* products of tiles instead of the rest */
    const struct copy *copy;
    dnnl_primitive_t primitive;
    dnnl_memory_desc_t src, bias, dst, scratchpad;
    struct runner *runner; /* [runners] */
    int runners;
    size_t scratch_bytes; /* of one runner, aligned */
    struct primitive *next;
};

struct packed {
    struct packed_layer layer;
    float *bias;
    struct copy *copies;
    struct primitive *primitives; /* most recently used first */
};

/* The descriptors of one sample. */
struct descs {
    dnnl_memory_desc_t src, weights, bias, dst;
};

static int64_t out_size(const struct packed_layer *layer, int64_t in)
{
    return (in + 2 * layer->pad - layer->k) / layer->stride + 1;
}

static dnnl_memory_desc_t plain_weights(const struct packed_layer *layer)
{
    dnnl_memory_desc_t desc;
    dnnl_dims_t conv = {layer->oc, layer->ic, layer->k, layer->k};
    dnnl_dims_t matrix = {layer->ic, layer->oc};
    if (layer->conv)
        dnnl_memory_desc_init_by_tag(&desc, 4, conv, data_type(layer->dtype), dnnl_oihw);
    else
        dnnl_memory_desc_init_by_tag(&desc, 2, matrix, data_type(layer->dtype), dnnl_ba);
    return desc;
}

static void describe_conv(const struct packed_layer *layer, const struct key *key,
                          struct descs *descs)
{
    dnnl_data_type_t type = data_type(layer->dtype);
    dnnl_dims_t src = {1, layer->ic, key->ih, key->iw};
    dnnl_dims_t weights = {layer->oc, layer->ic, layer->k, layer->k};
    dnnl_dims_t bias = {layer->oc};
    dnnl_dims_t dst = {1, layer->oc, out_size(layer, key->ih), out_size(layer, key->iw)};
    dnnl_memory_desc_init_by_tag(&descs->src, 4, src, type, dnnl_nhwc);
    dnnl_memory_desc_init_by_tag(&descs->weights, 4, weights, type, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&descs->bias, 1, bias, dnnl_f32, dnnl_a);
    dnnl_memory_desc_init_by_tag(&descs->dst, 4, dst, type, dnnl_nhwc);
}

static void describe_matrix(const struct packed_layer *layer, const struct key *key,
                            struct descs *descs)
{
    dnnl_data_type_t type = data_type(layer->dtype);
    dnnl_dims_t src = {key->ih, layer->ic};
    dnnl_dims_t weights = {layer->ic, layer->oc};
    dnnl_dims_t bias = {1, layer->oc};
    dnnl_dims_t dst = {key->ih, layer->oc};
    dnnl_memory_desc_init_by_tag(&descs->src, 2, src, type, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&descs->weights, 2, weights, type, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&descs->bias, 2, bias, dnnl_f32, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&descs->dst, 2, dst, type, dnnl_ab);
}

static dnnl_status_t append_act(dnnl_post_ops_t ops, enum act act)
{
    switch (act) {
    case ACT_NONE:
        return dnnl_success;
    case ACT_SILU:
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_swish, 1, 0);
    case ACT_GELU:
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_gelu_erf, 0, 0);
    case ACT_GELU_TANH:
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_gelu_tanh, 0, 0);
    case ACT_QUICK_GELU:
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_swish, 1.702f, 0);
    case ACT_RELU:
        return dnnl_post_ops_append_eltwise(ops, 1, dnnl_eltwise_relu, 0, 0);
    }
    BUG("no such activation");
}

static dnnl_status_t make_attr(dnnl_primitive_attr_t *out, enum act act, bool accumulate)
{
    dnnl_post_ops_t ops;
    dnnl_status_t status = dnnl_primitive_attr_create(out);
    if (status != dnnl_success)
        return status;
    dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
    dnnl_primitive_attr_set_fpmath_mode(*out, dnnl_fpmath_mode_strict);
    status = dnnl_post_ops_create(&ops);
    if (status != dnnl_success)
        goto destroy_attr;
    status = append_act(ops, act);
    if (status == dnnl_success && accumulate)
        status = dnnl_post_ops_append_sum(ops, 1);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(*out, ops);
    dnnl_post_ops_destroy(ops);
    if (status == dnnl_success)
        return status;
destroy_attr:
    dnnl_primitive_attr_destroy(*out);
    return status;
}

/* Any operation's descriptor: the library tells them apart by their first member. */
union operation {
    dnnl_convolution_desc_t conv;
    dnnl_matmul_desc_t matrix;
};

static dnnl_status_t init_operation(const struct packed_layer *layer, const struct key *key,
                                    const struct descs *descs, union operation *operation)
{
    const dnnl_memory_desc_t *bias = key->bias ? &descs->bias : NULL;
    if (!layer->conv)
        return dnnl_matmul_desc_init(&operation->matrix, &descs->src, &descs->weights, bias,
                                     &descs->dst);
    dnnl_dims_t strides = {layer->stride, layer->stride};
    dnnl_dims_t dilation = {0, 0};
    dnnl_dims_t pad = {layer->pad, layer->pad};
    return dnnl_dilated_convolution_forward_desc_init(
        &operation->conv, dnnl_forward_inference, dnnl_convolution_direct, &descs->src,
        &descs->weights, bias, &descs->dst, strides, dilation, pad, pad);
}

static const char *implementation(const_dnnl_primitive_desc_t desc)
{
    const char *name = "";
    dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    return name;
}

/* The library's general gemm, whose sums depend on the number of threads ("gemm:jit",
   "x64:gemm:jit"; but "brgemm:…" is none). */
static bool is_gemm(const char *name)
{
    return strncmp(name, "gemm:", 5) == 0 || strstr(name, ":gemm:") != NULL;
}

static bool is_slow(const char *name)
{
    return strncmp(name, "ref", 3) == 0 || strncmp(name, "simple", 6) == 0;
}

/* The first implementation that is neither gemm nor naive; else simply the first. */
static dnnl_status_t choose(const union operation *operation, const_dnnl_primitive_attr_t attr,
                            dnnl_primitive_desc_t *out)
{
    dnnl_primitive_desc_iterator_t iterator;
    dnnl_status_t status =
        dnnl_primitive_desc_iterator_create(&iterator, operation, attr, engine, NULL);
    if (status != dnnl_success)
        return status;
    *out = NULL;
    do {
        dnnl_primitive_desc_t desc = dnnl_primitive_desc_iterator_fetch(iterator);
        const char *name = implementation(desc);
        if (!is_gemm(name) && !is_slow(name)) {
            dnnl_primitive_desc_destroy(*out);
            *out = desc;
            break;
        }
        if (*out)
            dnnl_primitive_desc_destroy(desc);
        else
            *out = desc;
    } while (dnnl_primitive_desc_iterator_next(iterator) == dnnl_success);
    dnnl_primitive_desc_iterator_destroy(iterator);
    return *out ? dnnl_success : dnnl_unimplemented;
}

/* What is needed while one primitive is made. */
struct maker {
    struct packed *packed;
    const struct key *key;
    struct descs descs;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t desc;
    struct copy *copy;
};

static dnnl_status_t choose_with(struct maker *maker, const dnnl_memory_desc_t *weights,
                                 dnnl_primitive_desc_t *out)
{
    union operation operation;
    struct descs descs = maker->descs;
    if (weights)
        descs.weights = *weights;
    dnnl_status_t status = init_operation(&maker->packed->layer, maker->key, &descs, &operation);
    return status == dnnl_success ? choose(&operation, maker->attr, out) : status;
}

static dnnl_status_t reorder(struct copy *from, struct copy *to)
{
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t src = NULL, dst = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&desc, &from->desc, engine, &to->desc, engine, NULL);
    if (status != dnnl_success)
        return status;
    status = dnnl_primitive_create(&primitive, desc);
    add_memory(&status, &src, &from->desc, from->data);
    add_memory(&status, &dst, &to->desc, to->data);
    if (status == dnnl_success)
        status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, src}, {DNNL_ARG_TO, dst}};
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive, stream, 2, args);
    if (stream)
        dnnl_stream_wait(stream);
    dnnl_stream_destroy(stream);
    dnnl_memory_destroy(src);
    dnnl_memory_destroy(dst);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

static struct copy *copy_new(const dnnl_memory_desc_t *desc, void *data)
{
    struct copy *copy = xcalloc(1, sizeof(*copy));
    copy->desc = *desc;
    copy->data = data ? data : memory_new(dnnl_memory_desc_get_size(desc));
    return copy;
}

/* Repacks the weights for a new layout. */
static dnnl_status_t add_copy(struct packed *packed, const dnnl_memory_desc_t *desc,
                              struct copy **out)
{
    struct copy *copy = copy_new(desc, NULL);
    dnnl_status_t status = copy->data ? reorder(packed->copies, copy) : dnnl_out_of_memory;
    if (status != dnnl_success) {
        free(copy->data);
        free(copy);
        return status;
    }
    copy->next = packed->copies;
    packed->copies = copy;
    *out = copy;
    return dnnl_success;
}

/* Frees copies that no primitive uses: the checkpoint's layout, once another is packed. */
static void drop_unused(struct packed *packed)
{
    struct copy **place = &packed->copies;
    while (*place) {
        struct copy *copy = *place;
        if (copy->users == 0 && packed->copies->next) {
            *place = copy->next;
            free(copy->data);
            free(copy);
        } else {
            place = &copy->next;
        }
    }
}

static struct copy *find_copy(const struct packed *packed, const dnnl_memory_desc_t *desc)
{
    struct copy *copy = packed->copies;
    while (copy && !dnnl_memory_desc_equal(desc, &copy->desc))
        copy = copy->next;
    return copy;
}

/* Another copy that the same implementation takes as it is, or NULL. */
static struct copy *adapt_to_copy(struct maker *maker)
{
    for (struct copy *copy = maker->packed->copies; copy; copy = copy->next) {
        dnnl_primitive_desc_t desc;
        if (copy->users == 0 || choose_with(maker, &copy->desc, &desc) != dnnl_success)
            continue;
        bool same = strcmp(implementation(desc), implementation(maker->desc)) == 0;
        dnnl_primitive_desc_destroy(same ? maker->desc : desc);
        if (same) {
            maker->desc = desc;
            return copy;
        }
    }
    return NULL;
}

static dnnl_status_t runner_init(const struct primitive *primitive, struct runner *runner)
{
    dnnl_status_t status = dnnl_stream_create(&runner->stream, engine, dnnl_stream_default_flags);
    add_memory(&status, &runner->src, &primitive->src, DNNL_MEMORY_NONE);
    add_memory(&status, &runner->weights, &primitive->copy->desc, primitive->copy->data);
    if (primitive->key.bias)
        add_memory(&status, &runner->bias, &primitive->bias, DNNL_MEMORY_NONE);
    add_memory(&status, &runner->dst, &primitive->dst, DNNL_MEMORY_NONE);
    add_memory(&status, &runner->scratchpad, &primitive->scratchpad, DNNL_MEMORY_NONE);
    return status;
}

/* Sees to it that there are so many. */
static dnnl_status_t runners_add(struct primitive *primitive, int count)
{
    dnnl_status_t status = dnnl_success;
    if (primitive->runners >= count)
        return status;
    primitive->runner = xrealloc(primitive->runner, (size_t)count * sizeof(*primitive->runner));
    while (primitive->runners < count && status == dnnl_success) {
        primitive->runner[primitive->runners] = (struct runner){0};
        status = runner_init(primitive, &primitive->runner[primitive->runners++]);
    }
    return status;
}

static void runner_release(struct runner *runner)
{
    dnnl_memory_destroy(runner->src);
    dnnl_memory_destroy(runner->weights);
    dnnl_memory_destroy(runner->bias);
    dnnl_memory_destroy(runner->dst);
    dnnl_memory_destroy(runner->scratchpad);
    dnnl_stream_destroy(runner->stream);
}

static void keep_descs(const struct maker *maker, struct primitive *primitive)
{
    primitive->src = maker->descs.src;
    primitive->bias = maker->descs.bias;
    primitive->dst = maker->descs.dst;
    primitive->scratchpad = *dnnl_primitive_desc_query_md(maker->desc, dnnl_query_scratchpad_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(&primitive->scratchpad);
    primitive->scratch_bytes = (bytes + MEMORY_ALIGNMENT) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
}

static void primitive_free(struct primitive *primitive)
{
    dnnl_primitive_destroy(primitive->primitive);
    for (int i = 0; i < primitive->runners; i++)
        runner_release(&primitive->runner[i]);
    free(primitive->runner);
    free(primitive);
}

/* Chooses the implementation: gemm only for tiles, or on one thread. */
static dnnl_status_t choose_for_threads(struct maker *maker, struct primitive *primitive)
{
    omp_set_num_threads(primitive->threads);
    dnnl_status_t status = choose_with(maker, NULL, &maker->desc);
    if (status != dnnl_success || !is_gemm(implementation(maker->desc)))
        return status;
    primitive->tiled = !maker->packed->layer.conv;
    if (primitive->tiled || primitive->threads == 1)
        return status;
    dnnl_primitive_desc_destroy(maker->desc);
    maker->desc = NULL;
    primitive->threads = 1;
    omp_set_num_threads(1);
    return choose_with(maker, NULL, &maker->desc);
}

/* Finds or packs the weights in the layout that the implementation, or the tiles, want. */
static dnnl_status_t choose_copy(struct maker *maker, const struct primitive *primitive)
{
    dnnl_memory_desc_t wanted =
        primitive->tiled ? plain_weights(&maker->packed->layer)
                         : *dnnl_primitive_desc_query_md(maker->desc, dnnl_query_weights_md, 0);
    maker->copy = find_copy(maker->packed, &wanted);
    if (!maker->copy && !primitive->tiled)
        maker->copy = adapt_to_copy(maker);
    return maker->copy ? dnnl_success : add_copy(maker->packed, &wanted, &maker->copy);
}

static dnnl_status_t make(struct maker *maker, struct primitive *primitive)
{
    dnnl_status_t status = choose_for_threads(maker, primitive);
    if (status == dnnl_success)
        status = choose_copy(maker, primitive);
    if (status != dnnl_success)
        return status;
    primitive->copy = maker->copy;
    if (primitive->tiled)
        return dnnl_success;
    status = dnnl_primitive_create(&primitive->primitive, maker->desc);
    keep_descs(maker, primitive);
    return status;
}

static dnnl_status_t add_primitive(struct packed *packed, const struct key *key)
{
    struct maker maker = {.packed = packed, .key = key};
    if (packed->layer.conv)
        describe_conv(&packed->layer, key, &maker.descs);
    else
        describe_matrix(&packed->layer, key, &maker.descs);
    dnnl_status_t status = make_attr(&maker.attr, key->act, key->accumulate);
    if (status != dnnl_success)
        return status;
    struct primitive *primitive = xcalloc(1, sizeof(*primitive));
    primitive->key = *key;
    primitive->threads = key->threads;
    status = make(&maker, primitive);
    dnnl_primitive_desc_destroy(maker.desc);
    dnnl_primitive_attr_destroy(maker.attr);
    if (status != dnnl_success) {
        primitive_free(primitive);
        return status;
    }
    maker.copy->users++;
    drop_unused(packed);
    primitive->next = packed->primitives;
    packed->primitives = primitive;
    return dnnl_success;
}

static bool same_key(const struct key *a, const struct key *b)
{
    return a->ih == b->ih && a->iw == b->iw && a->threads == b->threads && a->act == b->act &&
           a->accumulate == b->accumulate && a->bias == b->bias;
}

/* The primitive for a key, moved to the front; NULL when it has to be made. */
static struct primitive *find_primitive(struct packed *packed, const struct key *key)
{
    for (struct primitive **place = &packed->primitives; *place; place = &(*place)->next) {
        struct primitive *primitive = *place;
        if (!same_key(&primitive->key, key))
            continue;
        *place = primitive->next;
        primitive->next = packed->primitives;
        packed->primitives = primitive;
        return primitive;
    }
    return NULL;
}

struct packed *packed_new(const struct packed_layer *layer, void *weights, float *bias)
{
    struct packed *packed = xcalloc(1, sizeof(*packed));
    packed->layer = *layer;
    packed->bias = bias;
    dnnl_memory_desc_t desc = plain_weights(layer);
    packed->copies = copy_new(&desc, weights);
    return packed;
}

void packed_free(struct packed *packed)
{
    if (!packed)
        return;
    while (packed->primitives) {
        struct primitive *next = packed->primitives->next;
        primitive_free(packed->primitives);
        packed->primitives = next;
    }
    while (packed->copies) {
        struct copy *next = packed->copies->next;
        free(packed->copies->data);
        free(packed->copies);
        packed->copies = next;
    }
    free(packed->bias);
    free(packed);
}

const float *packed_bias(const struct packed *packed)
{
    return packed->bias;
}

/* Runs one sample. */
static dnnl_status_t execute(const struct primitive *primitive, const struct runner *runner,
                             const void *src, void *dst, const float *bias)
{
    omp_set_num_threads(primitive->threads);
    dnnl_memory_set_data_handle(runner->src, (void *)src);
    dnnl_memory_set_data_handle(runner->dst, dst);
    dnnl_exec_arg_t args[5] = {
        {DNNL_ARG_SRC, runner->src},
        {DNNL_ARG_WEIGHTS, runner->weights},
        {DNNL_ARG_DST, runner->dst},
        {DNNL_ARG_SCRATCHPAD, runner->scratchpad},
    };
    int count = 4;
    if (bias) {
        dnnl_memory_set_data_handle(runner->bias, (void *)bias);
        args[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, runner->bias};
    }
    return dnnl_primitive_execute(primitive->primitive, runner->stream, count, args);
}

/* The samples one after another, or, with several runners, side by side on a thread each. */
static int execute_samples(const struct packed_layer *layer, const struct primitive *primitive,
                           const struct packed_call *call, int runners)
{
    int64_t pixels =
        layer->conv ? out_size(layer, call->ih) * out_size(layer, call->iw) : call->ih * call->iw;
    size_t src_bytes = (size_t)(call->ih * call->iw * layer->ic) * dtype_size(layer->dtype);
    size_t dst_bytes = (size_t)(pixels * layer->oc) * dtype_size(layer->dtype);
    int failures = 0;
#pragma omp parallel for schedule(static) num_threads(runners) if (runners > 1) reduction(+ : failures)
    for (int64_t n = 0; n < call->n; n++)
        failures += execute(primitive, &primitive->runner[runners > 1 ? omp_get_thread_num() : 0],
                            (const char *)call->src + (size_t)n * src_bytes,
                            (char *)call->dst + (size_t)n * dst_bytes,
                            call->bias ? call->bias + n * call->bias_stride : NULL) != dnnl_success;
    return failures;
}

/* Multiply-adds of one sample. */
static int64_t sample_products(const struct packed_layer *layer, const struct packed_call *call)
{
    if (!layer->conv)
        return call->ih * call->iw * layer->ic * layer->oc;
    return out_size(layer, call->ih) * out_size(layer, call->iw) * layer->k * layer->k * layer->ic *
           layer->oc;
}

static dnnl_status_t run_samples(struct nn *nn, const struct packed *packed,
                                 struct primitive *primitive, const struct packed_call *call,
                                 int runners)
{
    dnnl_status_t status = runners_add(primitive, runners);
    if (status != dnnl_success)
        return status;
    char *scratch = nn_scratch(nn, primitive->scratch_bytes * (size_t)runners);
    if (!scratch)
        return dnnl_out_of_memory;
    for (int i = 0; i < runners; i++)
        dnnl_memory_set_data_handle(primitive->runner[i].scratchpad,
                                    scratch + (size_t)i * primitive->scratch_bytes);
    int failures = execute_samples(&packed->layer, primitive, call, runners);
    pool_drop(&nn->pool, scratch);
    return failures ? dnnl_runtime_error : dnnl_success;
}

/* A sample below this shares its threads badly: then each thread takes samples of its own. */
#define SPREAD_PRODUCTS 100000000

int packed_run(struct nn *nn, struct packed *packed, const struct packed_call *call)
{
    int64_t products = sample_products(&packed->layer, call);
    bool spread = call->n > 1 && products < SPREAD_PRODUCTS;
    int runners = spread ? threads_for_products(nn, products * call->n) : 1;
    struct key key = {.ih = call->ih,
                      .iw = call->iw,
                      .threads = runners > 1 ? 1 : threads_for_products(nn, products),
                      .act = call->act,
                      .accumulate = call->accumulate,
                      .bias = call->bias != NULL};
    struct primitive *primitive = find_primitive(packed, &key);
    if (!primitive) {
        dnnl_status_t status = add_primitive(packed, &key);
        if (status != dnnl_success)
            return fail_status(nn, status, packed->layer.conv ? "convolution" : "matrix product");
        primitive = packed->primitives;
    }
    if (primitive->tiled)
        return tiles_run(nn, &packed->layer, primitive->copy->data, call);
    dnnl_status_t status = run_samples(nn, packed, primitive, call, runners);
    return status == dnnl_success ? 0 : fail_status(nn, status, "computing a layer");
}

/* --- products of activations --------------------------------------------------------------------
 */

static void describe_product(struct product *product)
{
    const struct product_shape *shape = &product->shape;
    dnnl_dims_t src = {shape->m, shape->k}, src_strides = {shape->src_stride, 1};
    dnnl_dims_t weights = {shape->k, shape->n};
    dnnl_dims_t straight = {shape->weights_stride, 1}, transposed = {1, shape->weights_stride};
    dnnl_dims_t bias = {1, shape->n};
    dnnl_dims_t dst = {shape->m, shape->n}, dst_strides = {shape->dst_stride, 1};
    dnnl_data_type_t type = data_type(shape->src_dtype);
    dnnl_memory_desc_init_by_strides(&product->src_desc, 2, src, type, src_strides);
    dnnl_memory_desc_init_by_strides(&product->weights_desc, 2, weights, type,
                                     shape->transposed ? transposed : straight);
    dnnl_memory_desc_init_by_tag(&product->bias_desc, 2, bias, dnnl_f32, dnnl_ab);
    dnnl_memory_desc_init_by_strides(&product->dst_desc, 2, dst, data_type(shape->dst_dtype),
                                     dst_strides);
}

static void slots_free(struct product *product)
{
    for (int i = 0; i < product->slots; i++) {
        struct product_slot *slot = &product->slot[i];
        dnnl_memory_destroy(slot->src);
        dnnl_memory_destroy(slot->weights);
        dnnl_memory_destroy(slot->bias);
        dnnl_memory_destroy(slot->dst);
        dnnl_memory_destroy(slot->scratchpad);
        dnnl_stream_destroy(slot->stream);
    }
    free(product->slot);
    product->slot = NULL;
    product->slots = 0;
}

static void product_free(struct product *product)
{
    slots_free(product);
    dnnl_primitive_destroy(product->primitive);
    free(product);
}

static dnnl_status_t slot_init(struct product *product, struct product_slot *slot)
{
    dnnl_status_t status = dnnl_stream_create(&slot->stream, engine, dnnl_stream_default_flags);
    add_memory(&status, &slot->src, &product->src_desc, DNNL_MEMORY_NONE);
    add_memory(&status, &slot->weights, &product->weights_desc, DNNL_MEMORY_NONE);
    add_memory(&status, &slot->bias, &product->bias_desc, DNNL_MEMORY_NONE);
    add_memory(&status, &slot->dst, &product->dst_desc, DNNL_MEMORY_NONE);
    add_memory(&status, &slot->scratchpad, &product->scratchpad_desc, DNNL_MEMORY_NONE);
    return status;
}

static dnnl_status_t slots_init(struct product *product, int slots)
{
    slots_free(product);
    product->slot = xcalloc((size_t)slots, sizeof(*product->slot));
    product->slots = slots;
    dnnl_status_t status = dnnl_success;
    for (int i = 0; i < slots && status == dnnl_success; i++)
        status = slot_init(product, &product->slot[i]);
    return status;
}

/* Made for one thread, whatever implementation comes first: on one thread all are deterministic. */
static dnnl_status_t product_init(struct product *product)
{
    dnnl_matmul_desc_t op;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t desc;
    omp_set_num_threads(1);
    describe_product(product);
    dnnl_status_t status =
        dnnl_matmul_desc_init(&op, &product->src_desc, &product->weights_desc,
                              product->shape.bias ? &product->bias_desc : NULL, &product->dst_desc);
    if (status != dnnl_success)
        return status;
    status = make_attr(&attr, product->shape.act, product->shape.accumulate);
    if (status != dnnl_success)
        return status;
    status = dnnl_primitive_desc_create(&desc, &op, attr, engine, NULL);
    dnnl_primitive_attr_destroy(attr);
    if (status != dnnl_success)
        return status;
    product->scratchpad_desc = *dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0);
    product->scratch_bytes = dnnl_memory_desc_get_size(&product->scratchpad_desc);
    status = dnnl_primitive_create(&product->primitive, desc);
    dnnl_primitive_desc_destroy(desc);
    return status;
}

static bool same_shape(const struct product_shape *a, const struct product_shape *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->src_stride == b->src_stride &&
           a->weights_stride == b->weights_stride && a->dst_stride == b->dst_stride &&
           a->transposed == b->transposed && a->src_dtype == b->src_dtype &&
           a->dst_dtype == b->dst_dtype && a->bias == b->bias && a->accumulate == b->accumulate &&
           a->act == b->act;
}

struct product *device_product(struct nn *nn, const struct product_shape *shape, int slots)
{
    struct product *product = nn->device->products;
    while (product && !same_shape(&product->shape, shape))
        product = product->next;
    dnnl_status_t status = dnnl_success;
    if (!product) {
        product = xcalloc(1, sizeof(*product));
        product->shape = *shape;
        status = product_init(product);
        if (status != dnnl_success) {
            product_free(product);
            fail_status(nn, status, "matrix product");
            return NULL;
        }
        product->next = nn->device->products;
        nn->device->products = product;
    }
    if (product->slots < slots)
        status = slots_init(product, slots);
    if (status == dnnl_success)
        return product;
    slots_free(product);
    fail_status(nn, status, "matrix product");
    return NULL;
}

size_t product_scratch_bytes(const struct product *product)
{
    return product->scratch_bytes;
}

bool product_run(struct product *product, int slot, const struct product_args *args)
{
    struct product_slot *mine = &product->slot[slot];
    omp_set_num_threads(1);
    dnnl_memory_set_data_handle(mine->src, (void *)args->src);
    dnnl_memory_set_data_handle(mine->weights, (void *)args->weights);
    dnnl_memory_set_data_handle(mine->dst, args->dst);
    dnnl_memory_set_data_handle(mine->scratchpad, args->scratch);
    dnnl_exec_arg_t exec_args[5] = {
        {DNNL_ARG_SRC, mine->src},
        {DNNL_ARG_WEIGHTS, mine->weights},
        {DNNL_ARG_DST, mine->dst},
        {DNNL_ARG_SCRATCHPAD, mine->scratchpad},
    };
    int count = 4;
    if (product->shape.bias) {
        dnnl_memory_set_data_handle(mine->bias, (void *)args->bias);
        exec_args[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, mine->bias};
    }
    return dnnl_primitive_execute(product->primitive, mine->stream, count, exec_args) ==
           dnnl_success;
}
