/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oneDNN's C API behind onednn.h, as version 2 has it and as version 3 has it: the library's types,
 * and what differs between its versions, do not leave this file. What differs stands in three
 * places: what a layout holds, an operation's candidates, and saved layouts.
 */
#include "stages/nn/onednn.h"

#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/nn/context.h"

/* One engine for the process: CPU engines hold no state, and layers may outlive contexts. */
static dnnl_engine_t engine;
static pthread_once_t engine_once = PTHREAD_ONCE_INIT;

static void make_engine(void)
{
    if (dnnl_engine_create(&engine, dnnl_cpu, 0) != dnnl_success)
        engine = NULL;
}

static enum device_status told(dnnl_status_t status)
{
    switch (status) {
    case dnnl_success:
        return DEVICE_OK;
    case dnnl_out_of_memory:
        return DEVICE_NO_MEMORY;
    case dnnl_unimplemented:
        return DEVICE_UNSUPPORTED;
    default:
        return DEVICE_FAILED;
    }
}

static int status_error(struct err *err, enum device_status status, const char *what)
{
    if (status == DEVICE_NO_MEMORY)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for %s", what);
    if (status == DEVICE_UNSUPPORTED)
        return err_set(err, ERR_UNSUPPORTED, "this machine's oneDNN has no %s", what);
    return err_set(err, ERR_COMPUTE, "oneDNN failed in %s", what);
}

int device_fail(struct nn *nn, enum device_status status, const char *what)
{
    struct err err = {0};
    status_error(&err, status, what);
    return nn_fail(nn, err.code, "%s", err.text);
}

int device_check(enum dtype compute, struct err *err)
{
    pthread_once(&engine_once, make_engine);
    if (!engine)
        return err_set(err, ERR_COMPUTE, "oneDNN has no CPU engine");
    struct layout *layout = layout_new(compute, 2, (int64_t[]){16, 16}, (int64_t[]){16, 1});
    struct operation operation = {.src = layout, .weights = layout, .dst = layout};
    struct kernel *kernel = NULL;
    enum device_status status = kernel_plan(&kernel, &operation, true);
    kernel_free(kernel);
    layout_free(layout);
    const char *what = compute == DTYPE_BF16 ? "bf16 (use f32)" : "matrix product";
    return status == DEVICE_OK ? 0 : status_error(err, status, what);
}

static bool has_isa(dnnl_cpu_isa_t wanted)
{
    return ((unsigned)dnnl_get_effective_cpu_isa() & (unsigned)wanted) == (unsigned)wanted;
}

bool device_fast_bf16(void)
{
    return has_isa(dnnl_cpu_isa_avx512_core_bf16); /* AMX's bits include these */
}

bool device_has(enum device_isa isa)
{
    switch (isa) {
    case DEVICE_AVX512:
        return has_isa(dnnl_cpu_isa_avx512_core);
    case DEVICE_VNNI:
        return has_isa(dnnl_cpu_isa_avx512_core_vnni);
    case DEVICE_AMX:
        return has_isa(dnnl_cpu_isa_avx512_core_amx);
    }
    BUG("no such instructions");
}

const char *device_version(void)
{
    static char text[32];
    const dnnl_version_t *version = dnnl_version();
    snprintf(text, sizeof(text), "%d.%d.%d", version->major, version->minor, version->patch);
    return text;
}

void device_identity(char *out, size_t size)
{
    snprintf(out, size, "onednn %s %s isa %x", device_version(), dnnl_version()->hash,
             (unsigned)dnnl_get_effective_cpu_isa());
}

/* --- layouts -------------------------------------------------------------------------------------
 */

struct layout {
    dnnl_memory_desc_t desc;
};

#if DNNL_VERSION_MAJOR >= 3
typedef const_dnnl_memory_desc_t lib_desc; /* a description is an object of the library's */
#define DESC(layout)        ((lib_desc)(layout)->desc)
#define DESC_NEW_BY_STRIDES dnnl_memory_desc_create_with_strides
#define DESC_NEW_BY_TAG     dnnl_memory_desc_create_with_tag

static dnnl_status_t desc_copy(dnnl_memory_desc_t *out, lib_desc desc)
{
    return dnnl_memory_desc_clone(out, desc);
}

static void desc_release(struct layout *layout)
{
    dnnl_memory_desc_destroy(layout->desc);
}

bool layout_alike(const struct layout *a, const struct layout *b)
{
    int rank[2] = {0, -1};
    dnnl_data_type_t type[2] = {0};
    const dnnl_dims_t *dim[2] = {NULL};
    for (int i = 0; i < 2; i++) {
        lib_desc desc = DESC(i ? b : a);
        if (dnnl_memory_desc_query(desc, dnnl_query_ndims_s32, &rank[i]) != dnnl_success ||
            dnnl_memory_desc_query(desc, dnnl_query_data_type, &type[i]) != dnnl_success ||
            dnnl_memory_desc_query(desc, dnnl_query_dims, &dim[i]) != dnnl_success)
            return false;
    }
    return rank[0] == rank[1] && type[0] == type[1] &&
           memcmp(*dim[0], *dim[1], (size_t)rank[0] * sizeof(**dim)) == 0;
}
#else
typedef const dnnl_memory_desc_t *lib_desc; /* a description is a plain struct */
#define DESC(layout)        (&(layout)->desc)
#define DESC_NEW_BY_STRIDES dnnl_memory_desc_init_by_strides
#define DESC_NEW_BY_TAG     dnnl_memory_desc_init_by_tag

static dnnl_status_t desc_copy(dnnl_memory_desc_t *out, lib_desc desc)
{
    *out = *desc;
    return dnnl_success;
}

static void desc_release(struct layout *layout)
{
    (void)layout;
}

bool layout_alike(const struct layout *a, const struct layout *b)
{
    return a->desc.ndims == b->desc.ndims && a->desc.data_type == b->desc.data_type &&
           memcmp(a->desc.dims, b->desc.dims, (size_t)b->desc.ndims * sizeof(*b->desc.dims)) == 0;
}
#endif

static dnnl_data_type_t data_type(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
}

struct layout *layout_new(enum dtype dtype, int rank, const int64_t *dim, const int64_t *strides)
{
    struct layout *layout = xcalloc(1, sizeof(*layout));
    dnnl_dims_t dims = {0}, steps = {0};
    memcpy(dims, dim, (size_t)rank * sizeof(*dims));
    if (strides)
        memcpy(steps, strides, (size_t)rank * sizeof(*steps));
    dnnl_data_type_t type = data_type(dtype);
    dnnl_status_t status =
        strides ? DESC_NEW_BY_STRIDES(&layout->desc, rank, dims, type, steps)
                : DESC_NEW_BY_TAG(&layout->desc, rank, dims, type, dnnl_format_tag_any);
    BUG_ON(status != dnnl_success);
    return layout;
}

struct layout *layout_new_in_blocks(enum dtype dtype, const int64_t *dim)
{
    struct layout *layout = xcalloc(1, sizeof(*layout));
    dnnl_dims_t dims = {0};
    memcpy(dims, dim, 4 * sizeof(*dims));
    BUG_ON(dim[0] % 16);
    dnnl_status_t status = DESC_NEW_BY_TAG(&layout->desc, 4, dims, data_type(dtype), dnnl_Abcd16a);
    BUG_ON(status != dnnl_success);
    return layout;
}

static struct layout *layout_of(lib_desc desc)
{
    struct layout *layout = xcalloc(1, sizeof(*layout));
    BUG_ON(desc_copy(&layout->desc, desc) != dnnl_success);
    return layout;
}

struct layout *layout_copy(const struct layout *layout)
{
    return layout_of(DESC(layout));
}

void layout_free(struct layout *layout)
{
    if (!layout)
        return;
    desc_release(layout);
    free(layout);
}

bool layout_same(const struct layout *a, const struct layout *b)
{
    return dnnl_memory_desc_equal(DESC(a), DESC(b)) != 0;
}

size_t layout_bytes(const struct layout *layout)
{
    return dnnl_memory_desc_get_size(DESC(layout));
}

#if DNNL_VERSION_MAJOR >= 3 && (DNNL_VERSION_MAJOR > 3 || DNNL_VERSION_MINOR >= 4)
size_t layout_save(const struct layout *layout, void *out)
{
    size_t bytes = 0;
    dnnl_status_t status = dnnl_memory_desc_get_blob(NULL, &bytes, DESC(layout));
    if (status != dnnl_success || bytes > LAYOUT_SAVED_MAX)
        return 0;
    status = dnnl_memory_desc_get_blob(out, &bytes, DESC(layout));
    return status == dnnl_success ? bytes : 0;
}

struct layout *layout_restore(const void *saved, size_t bytes)
{
    dnnl_memory_desc_t desc;
    if (bytes == 0 || dnnl_memory_desc_create_with_blob(&desc, saved) != dnnl_success)
        return NULL;
    struct layout *layout = xcalloc(1, sizeof(*layout));
    layout->desc = desc;
    return layout;
}
#elif DNNL_VERSION_MAJOR >= 3
/* Before 3.4 the library does not tell what is in its descriptions. */
size_t layout_save(const struct layout *layout, void *out)
{
    (void)layout, (void)out;
    return 0;
}

struct layout *layout_restore(const void *saved, size_t bytes)
{
    (void)saved, (void)bytes;
    return NULL;
}
#else
size_t layout_save(const struct layout *layout, void *out)
{
    _Static_assert(sizeof(layout->desc) <= LAYOUT_SAVED_MAX, "a layout can be saved");
    memcpy(out, &layout->desc, sizeof(layout->desc));
    return sizeof(layout->desc);
}

struct layout *layout_restore(const void *saved, size_t bytes)
{
    dnnl_memory_desc_t desc;
    if (bytes != sizeof(desc))
        return NULL;
    memcpy(&desc, saved, sizeof(desc));
    return layout_of(&desc);
}
#endif

/* Makes a memory object; does nothing after an earlier failure. */
static void add_memory(dnnl_status_t *status, dnnl_memory_t *memory, const struct layout *layout,
                       void *data)
{
    if (*status == dnnl_success)
        *status = dnnl_memory_create(memory, DESC(layout), engine, data);
}

enum device_status layout_reorder(const struct layout *from, const void *src,
                                  const struct layout *to, void *dst)
{
    dnnl_primitive_desc_t desc;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t src_memory = NULL, dst_memory = NULL;
    dnnl_stream_t stream = NULL;
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&desc, DESC(from), engine, DESC(to), engine, NULL);
    if (status != dnnl_success)
        return told(status);
    status = dnnl_primitive_create(&primitive, desc);
    add_memory(&status, &src_memory, from, (void *)src);
    add_memory(&status, &dst_memory, to, dst);
    if (status == dnnl_success)
        status = dnnl_stream_create(&stream, engine, dnnl_stream_default_flags);
    dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, src_memory}, {DNNL_ARG_TO, dst_memory}};
    if (status == dnnl_success)
        status = dnnl_primitive_execute(primitive, stream, 2, args);
    if (stream)
        dnnl_stream_wait(stream);
    dnnl_stream_destroy(stream);
    dnnl_memory_destroy(src_memory);
    dnnl_memory_destroy(dst_memory);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(desc);
    return told(status);
}

/* --- kernels -------------------------------------------------------------------------------------
 */

struct kernel {
    dnnl_primitive_desc_t desc; /* until compiled */
    dnnl_primitive_t primitive;
    struct layout *src, *weights, *bias, *dst, *scratch; /* bias may be NULL */
};

#if DNNL_VERSION_MAJOR >= 3
#define APPEND_ACT(ops, kind, alpha, beta) dnnl_post_ops_append_eltwise(ops, kind, alpha, beta)
#define APPEND_SUM(ops)                    dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef)
#else
#define APPEND_ACT(ops, kind, alpha, beta) dnnl_post_ops_append_eltwise(ops, 1, kind, alpha, beta)
#define APPEND_SUM(ops)                    dnnl_post_ops_append_sum(ops, 1)
#endif

static dnnl_status_t append_act(dnnl_post_ops_t ops, enum act act)
{
    switch (act) {
    case ACT_NONE:
        return dnnl_success;
    case ACT_SILU:
        return APPEND_ACT(ops, dnnl_eltwise_swish, 1, 0);
    case ACT_GELU:
        return APPEND_ACT(ops, dnnl_eltwise_gelu_erf, 0, 0);
    case ACT_GELU_TANH:
        return APPEND_ACT(ops, dnnl_eltwise_gelu_tanh, 0, 0);
    case ACT_QUICK_GELU:
        return APPEND_ACT(ops, dnnl_eltwise_swish, 1.702f, 0);
    case ACT_RELU:
        return APPEND_ACT(ops, dnnl_eltwise_relu, 0, 0);
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
        status = APPEND_SUM(ops);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(*out, ops);
    dnnl_post_ops_destroy(ops);
    if (status == dnnl_success)
        return status;
destroy_attr:
    dnnl_primitive_attr_destroy(*out);
    return status;
}

static const char *implementation(const_dnnl_primitive_desc_t desc)
{
    const char *name = "";
    dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    return name;
}

/* The library's general gemm ("gemm:jit", "x64:gemm:jit"; but "brgemm:…" is none). */
static bool is_gemm(const char *name)
{
    return strncmp(name, "gemm:", 5) == 0 || strstr(name, ":gemm:") != NULL;
}

static bool is_slow(const char *name)
{
    return strncmp(name, "ref", 3) == 0 || strncmp(name, "simple", 6) == 0;
}

/* Neither is wanted where there is another. */
static bool is_last_resort(const_dnnl_primitive_desc_t desc)
{
    const char *name = implementation(desc);
    return is_gemm(name) || is_slow(name);
}

#if DNNL_VERSION_MAJOR >= 3
static dnnl_status_t first_candidate(const struct operation *operation,
                                     const_dnnl_primitive_attr_t attr, dnnl_primitive_desc_t *out)
{
    lib_desc bias = operation->bias ? DESC(operation->bias) : NULL;
    if (!operation->conv)
        return dnnl_matmul_primitive_desc_create(out, engine, DESC(operation->src),
                                                 DESC(operation->weights), bias,
                                                 DESC(operation->dst), attr);
    dnnl_dims_t strides = {operation->stride, operation->stride};
    dnnl_dims_t dilation = {0, 0};
    dnnl_dims_t pad = {operation->pad, operation->pad};
    return dnnl_convolution_forward_primitive_desc_create(
        out, engine, dnnl_forward_inference, dnnl_convolution_direct, DESC(operation->src),
        DESC(operation->weights), bias, DESC(operation->dst), strides, dilation, pad, pad, attr);
}

/* The first implementation that is no last resort; else, or for `any`, simply the first. */
static dnnl_status_t choose(const struct operation *operation, const_dnnl_primitive_attr_t attr,
                            bool any, dnnl_primitive_desc_t *out)
{
    dnnl_status_t status = first_candidate(operation, attr, out);
    if (status != dnnl_success || any)
        return status;
    while (is_last_resort(*out))
        if (dnnl_primitive_desc_next_impl(*out) != dnnl_success) {
            dnnl_primitive_desc_destroy(*out);
            return first_candidate(operation, attr, out);
        }
    return dnnl_success;
}
#else
/* Any operation's descriptor: the library tells them apart by their first member. */
union description {
    dnnl_convolution_desc_t conv;
    dnnl_matmul_desc_t matrix;
};

static dnnl_status_t describe(const struct operation *operation, union description *description)
{
    lib_desc bias = operation->bias ? DESC(operation->bias) : NULL;
    if (!operation->conv)
        return dnnl_matmul_desc_init(&description->matrix, DESC(operation->src),
                                     DESC(operation->weights), bias, DESC(operation->dst));
    dnnl_dims_t strides = {operation->stride, operation->stride};
    dnnl_dims_t dilation = {0, 0};
    dnnl_dims_t pad = {operation->pad, operation->pad};
    return dnnl_dilated_convolution_forward_desc_init(
        &description->conv, dnnl_forward_inference, dnnl_convolution_direct, DESC(operation->src),
        DESC(operation->weights), bias, DESC(operation->dst), strides, dilation, pad, pad);
}

/* The first implementation that is no last resort; else, or for `any`, simply the first. */
static dnnl_status_t choose(const struct operation *operation, const_dnnl_primitive_attr_t attr,
                            bool any, dnnl_primitive_desc_t *out)
{
    union description description;
    dnnl_primitive_desc_iterator_t iterator;
    dnnl_status_t status = describe(operation, &description);
    if (status != dnnl_success)
        return status;
    status = dnnl_primitive_desc_iterator_create(&iterator, &description, attr, engine, NULL);
    if (status != dnnl_success)
        return status;
    *out = NULL;
    do {
        dnnl_primitive_desc_t desc = dnnl_primitive_desc_iterator_fetch(iterator);
        if (any || !is_last_resort(desc)) {
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
#endif

static dnnl_status_t plan(const struct operation *operation, bool any, dnnl_primitive_desc_t *out)
{
    dnnl_primitive_attr_t attr;
    dnnl_status_t status = make_attr(&attr, operation->act, operation->accumulate);
    if (status != dnnl_success)
        return status;
    status = choose(operation, attr, any, out);
    dnnl_primitive_attr_destroy(attr);
    return status;
}

static struct layout *layout_wanted(const_dnnl_primitive_desc_t desc, dnnl_query_t what)
{
    return layout_of(dnnl_primitive_desc_query_md(desc, what, 0));
}

enum device_status kernel_plan(struct kernel **out, const struct operation *operation, bool any)
{
    dnnl_primitive_desc_t desc;
    dnnl_status_t status = plan(operation, any, &desc);
    if (status != dnnl_success)
        return told(status);
    struct kernel *kernel = xcalloc(1, sizeof(*kernel));
    kernel->desc = desc;
    kernel->src = layout_copy(operation->src);
    kernel->weights = layout_wanted(desc, dnnl_query_weights_md);
    kernel->bias = operation->bias ? layout_copy(operation->bias) : NULL;
    kernel->dst = layout_copy(operation->dst);
    kernel->scratch = layout_wanted(desc, dnnl_query_scratchpad_md);
    *out = kernel;
    return DEVICE_OK;
}

enum device_status kernel_compile(struct kernel *kernel)
{
    BUG_ON(!kernel->desc);
    dnnl_status_t status = dnnl_primitive_create(&kernel->primitive, kernel->desc);
    dnnl_primitive_desc_destroy(kernel->desc);
    kernel->desc = NULL;
    return told(status);
}

void kernel_free(struct kernel *kernel)
{
    if (!kernel)
        return;
    dnnl_primitive_desc_destroy(kernel->desc);
    dnnl_primitive_destroy(kernel->primitive);
    layout_free(kernel->src);
    layout_free(kernel->weights);
    layout_free(kernel->bias);
    layout_free(kernel->dst);
    layout_free(kernel->scratch);
    free(kernel);
}

bool kernel_is_gemm(const struct kernel *kernel)
{
    return is_gemm(implementation(kernel->desc));
}

bool kernel_same_implementation(const struct kernel *a, const struct kernel *b)
{
    return strcmp(implementation(a->desc), implementation(b->desc)) == 0;
}

const struct layout *kernel_weights(const struct kernel *kernel)
{
    return kernel->weights;
}

size_t kernel_scratch_bytes(const struct kernel *kernel)
{
    return layout_bytes(kernel->scratch);
}

/* --- lanes ---------------------------------------------------------------------------------------
 */

struct lane {
    dnnl_primitive_t primitive; /* the kernel's */
    dnnl_stream_t stream;
    dnnl_memory_t src, weights, bias, dst, scratch;
};

enum device_status lane_new(struct lane **out, const struct kernel *kernel)
{
    BUG_ON(!kernel->primitive);
    struct lane *lane = xcalloc(1, sizeof(*lane));
    lane->primitive = kernel->primitive;
    dnnl_status_t status = dnnl_stream_create(&lane->stream, engine, dnnl_stream_default_flags);
    add_memory(&status, &lane->src, kernel->src, DNNL_MEMORY_NONE);
    add_memory(&status, &lane->weights, kernel->weights, DNNL_MEMORY_NONE);
    if (kernel->bias)
        add_memory(&status, &lane->bias, kernel->bias, DNNL_MEMORY_NONE);
    add_memory(&status, &lane->dst, kernel->dst, DNNL_MEMORY_NONE);
    add_memory(&status, &lane->scratch, kernel->scratch, DNNL_MEMORY_NONE);
    if (status == dnnl_success)
        *out = lane;
    else
        lane_free(lane);
    return told(status);
}

void lane_free(struct lane *lane)
{
    if (!lane)
        return;
    dnnl_memory_destroy(lane->src);
    dnnl_memory_destroy(lane->weights);
    dnnl_memory_destroy(lane->bias);
    dnnl_memory_destroy(lane->dst);
    dnnl_memory_destroy(lane->scratch);
    dnnl_stream_destroy(lane->stream);
    free(lane);
}

enum device_status lane_run(struct lane *lane, const struct lane_args *args)
{
    dnnl_memory_set_data_handle(lane->src, (void *)args->src);
    dnnl_memory_set_data_handle(lane->weights, (void *)args->weights);
    dnnl_memory_set_data_handle(lane->dst, args->dst);
    dnnl_memory_set_data_handle(lane->scratch, args->scratch);
    dnnl_exec_arg_t list[5] = {
        {DNNL_ARG_SRC, lane->src},
        {DNNL_ARG_WEIGHTS, lane->weights},
        {DNNL_ARG_DST, lane->dst},
        {DNNL_ARG_SCRATCHPAD, lane->scratch},
    };
    int count = 4;
    if (lane->bias) {
        dnnl_memory_set_data_handle(lane->bias, (void *)args->bias);
        list[count++] = (dnnl_exec_arg_t){DNNL_ARG_BIAS, lane->bias};
    }
    return told(dnnl_primitive_execute(lane->primitive, lane->stream, count, list));
}
