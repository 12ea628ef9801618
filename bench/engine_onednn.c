/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench-onednn: how fast the library itself computes bare shapes, with weights in the layout that
 * it likes best and nothing around them: the peak that ./bench/engine compares the networks with.
 * Besides stages/nn the only file that sees oneDNN's types.
 *
 * usage: bench-onednn bf16|f32 THREADS SECONDS < SHAPES
 * Each line of stdin, "conv IH IW IC OC K STRIDE" (one sample, padded to its size) or "matmul M K
 * N", is answered by a line of JSON.
 */
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static dnnl_engine_t engine;
static dnnl_stream_t stream;

static void check(dnnl_status_t status, const char *what)
{
    if (status == dnnl_success)
        return;
    fprintf(stderr, "bench-onednn: %s failed with status %d\n", what, (int)status);
    exit(1);
}

struct shape {
    char text[96];
    int conv;
    long ih, iw, ic, oc, k, stride; /* conv */
    long m, n;                      /* matmul, with k */
};

static long out_size(const struct shape *shape, long in)
{
    return (in + 2 * (shape->k / 2) - shape->k) / shape->stride + 1;
}

static double operations(const struct shape *s)
{
    if (!s->conv)
        return 2.0 * (double)s->m * (double)s->k * (double)s->n;
    return 2.0 * (double)(out_size(s, s->ih) * out_size(s, s->iw)) * (double)(s->k * s->k) *
           (double)(s->ic * s->oc);
}

/* Version 3 makes objects of the descriptions; they are few here and stay. */
#if DNNL_VERSION_MAJOR >= 3
#define DESC_NEW dnnl_memory_desc_create_with_tag
typedef const_dnnl_memory_desc_t desc_out;
#else
#define DESC_NEW dnnl_memory_desc_init_by_tag
typedef const dnnl_memory_desc_t *desc_out;
#endif

static dnnl_primitive_desc_t describe_conv(const struct shape *s, dnnl_data_type_t type)
{
    dnnl_memory_desc_t src, weights, dst;
    dnnl_primitive_desc_t desc;
    dnnl_dims_t src_dims = {1, s->ic, s->ih, s->iw};
    dnnl_dims_t weights_dims = {s->oc, s->ic, s->k, s->k};
    dnnl_dims_t dst_dims = {1, s->oc, out_size(s, s->ih), out_size(s, s->iw)};
    dnnl_dims_t strides = {s->stride, s->stride}, pad = {s->k / 2, s->k / 2}, dilation = {0, 0};
    check(DESC_NEW(&src, 4, src_dims, type, dnnl_nhwc), s->text);
    check(DESC_NEW(&weights, 4, weights_dims, type, dnnl_format_tag_any), s->text);
    check(DESC_NEW(&dst, 4, dst_dims, type, dnnl_nhwc), s->text);
#if DNNL_VERSION_MAJOR >= 3
    check(dnnl_convolution_forward_primitive_desc_create(
              &desc, engine, dnnl_forward_inference, dnnl_convolution_direct, src, weights, NULL,
              dst, strides, dilation, pad, pad, NULL),
          s->text);
#else
    dnnl_convolution_desc_t operation;
    check(dnnl_dilated_convolution_forward_desc_init(&operation, dnnl_forward_inference,
                                                     dnnl_convolution_direct, &src, &weights, NULL,
                                                     &dst, strides, dilation, pad, pad),
          s->text);
    check(dnnl_primitive_desc_create(&desc, &operation, NULL, engine, NULL), s->text);
#endif
    return desc;
}

static dnnl_primitive_desc_t describe_matmul(const struct shape *s, dnnl_data_type_t type)
{
    dnnl_memory_desc_t src, weights, dst;
    dnnl_primitive_desc_t desc;
    dnnl_dims_t src_dims = {s->m, s->k}, weights_dims = {s->k, s->n}, dst_dims = {s->m, s->n};
    check(DESC_NEW(&src, 2, src_dims, type, dnnl_ab), s->text);
    check(DESC_NEW(&weights, 2, weights_dims, type, dnnl_format_tag_any), s->text);
    check(DESC_NEW(&dst, 2, dst_dims, type, dnnl_ab), s->text);
#if DNNL_VERSION_MAJOR >= 3
    check(dnnl_matmul_primitive_desc_create(&desc, engine, src, weights, NULL, dst, NULL), s->text);
#else
    dnnl_matmul_desc_t operation;
    check(dnnl_matmul_desc_init(&operation, &src, &weights, NULL, &dst), s->text);
    check(dnnl_primitive_desc_create(&desc, &operation, NULL, engine, NULL), s->text);
#endif
    return desc;
}

/* Memory for one of a primitive's tensors, of small numbers (all bytes equal, exponents below 1).
 */
static dnnl_memory_t memory(dnnl_primitive_desc_t desc, dnnl_query_t what, void **data)
{
    dnnl_memory_t out;
    desc_out md = dnnl_primitive_desc_query_md(desc, what, 0);
    size_t size = (dnnl_memory_desc_get_size(md) + 4095) / 4096 * 4096;
    *data = aligned_alloc(4096, size);
    if (!*data) {
        fputs("bench-onednn: no memory\n", stderr);
        exit(1);
    }
    memset(*data, 0x3c, size);
    check(dnnl_memory_create(&out, md, engine, *data), "a memory object");
    return out;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* The seconds of a call: the best of five equal parts of `seconds`, after a first call. */
static double measure(dnnl_primitive_t primitive, const dnnl_exec_arg_t *args, double seconds)
{
    double best = 1e9;
    check(dnnl_primitive_execute(primitive, stream, 3, args), "a first call");
    for (int part = 0; part < 5; part++) {
        double begin = now(), end;
        int calls = 0;
        do {
            check(dnnl_primitive_execute(primitive, stream, 3, args), "a call");
            calls++;
            end = now();
        } while (end - begin < seconds / 5);
        if ((end - begin) / calls < best)
            best = (end - begin) / calls;
    }
    return best;
}

static void run(const struct shape *shape, dnnl_data_type_t type, double seconds)
{
    const char *name = "";
    void *data[3];
    dnnl_primitive_t primitive;
    dnnl_primitive_desc_t desc =
        shape->conv ? describe_conv(shape, type) : describe_matmul(shape, type);
    dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
    check(dnnl_primitive_create(&primitive, desc), shape->text);
    dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, memory(desc, dnnl_query_src_md, &data[0])},
        {DNNL_ARG_WEIGHTS, memory(desc, dnnl_query_weights_md, &data[1])},
        {DNNL_ARG_DST, memory(desc, dnnl_query_dst_md, &data[2])},
    };
    double best = measure(primitive, args, seconds);
    printf("{\"shape\": \"%s\", \"kernel\": \"%s\", \"seconds\": %.6g, \"gflops\": %.1f}\n",
           shape->text, name, best, operations(shape) / best * 1e-9);
    fflush(stdout);
    for (int i = 0; i < 3; i++) {
        dnnl_memory_destroy(args[i].memory);
        free(data[i]);
    }
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(desc);
}

static int parse(const char *line, struct shape *s)
{
    memset(s, 0, sizeof *s);
    snprintf(s->text, sizeof s->text, "%.*s", (int)strcspn(line, "\n"), line);
    s->conv = sscanf(line, "conv %ld %ld %ld %ld %ld %ld", &s->ih, &s->iw, &s->ic, &s->oc, &s->k,
                     &s->stride) == 6;
    return s->conv || sscanf(line, "matmul %ld %ld %ld", &s->m, &s->k, &s->n) == 3;
}

int main(int argc, char **argv)
{
    char line[128];
    struct shape shape;
    if (argc != 4) {
        fputs("usage: bench-onednn bf16|f32 THREADS SECONDS < SHAPES\n", stderr);
        return 2;
    }
    omp_set_num_threads(atoi(argv[2]));
    check(dnnl_engine_create(&engine, dnnl_cpu, 0), "the engine");
    check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "the stream");
    while (fgets(line, sizeof line, stdin)) {
        if (!parse(line, &shape)) {
            fprintf(stderr, "bench-onednn: not a shape: %s", line);
            return 2;
        }
        run(&shape, strcmp(argv[1], "f32") == 0 ? dnnl_f32 : dnnl_bf16, atof(argv[3]));
    }
    return 0;
}
