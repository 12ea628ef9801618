/* SPDX-License-Identifier: Apache-2.0 */
/*
 * oneDNN in words of our own: only onednn.c includes its headers, and what differs between its
 * versions stands there. packed.h and product.h make layers and products of this.
 *
 * A layout is a shape and how it lies in memory. A kernel is planned for an operation (then it can
 * be asked which implementation it is, and which layout of the weights that wants), and compiled.
 * It runs in lanes: what one thread needs to run it beside other threads. Nothing allocates per
 * run: a run only sets addresses.
 *
 * The number of threads of a kernel is OpenMP's (omp_set_num_threads()) where it is planned,
 * compiled and run.
 *
 * Accuracy: fpmath mode strict (no hidden bf16 or tf32), the library's direct convolutions, f32
 * accumulation.
 */
#ifndef UNCLIP_STAGES_NN_ONEDNN_H
#define UNCLIP_STAGES_NN_ONEDNN_H

#include "stages/nn/layers.h"
#include "stages/nn/nn.h"

enum device_status { DEVICE_OK, DEVICE_NO_MEMORY, DEVICE_UNSUPPORTED, DEVICE_FAILED };

/* Whether the library can compute so on this machine: ERR_UNSUPPORTED. */
int device_check(enum dtype compute, struct err *err);
/* Fails the context: `what` was wanted. */
int device_fail(struct nn *nn, enum device_status status, const char *what);
bool device_fast_bf16(void);
/* What the CPU has, and the library's settings let it use; AVX512 is F, BW, DQ and VL. */
enum device_isa { DEVICE_AVX512, DEVICE_VNNI, DEVICE_AMX };
bool device_has(enum device_isa isa);
const char *device_version(void); /* "2.6.3" */
/* What a saved layout, and the bytes that lie so, depend on: library, build, instruction set. */
void device_identity(char *out, size_t size);

struct layout;
/* strides in elements; NULL leaves the order to the library. Owned. */
struct layout *layout_new(enum dtype dtype, int rank, const int64_t *dim, const int64_t *strides);
/* Of 4 dimensions in blocks of 16 of the first, which must divide it: [d0/16, d1, d2, d3, 16]. */
struct layout *layout_new_in_blocks(enum dtype dtype, const int64_t *dim);
struct layout *layout_copy(const struct layout *layout);
void layout_free(struct layout *layout); /* NULL is fine */
bool layout_same(const struct layout *a, const struct layout *b);
/* Whether both are of one shape and dtype, however they lie. */
bool layout_alike(const struct layout *a, const struct layout *b);
size_t layout_bytes(const struct layout *layout);
/* As bytes that the same device_identity() reads back. */
#define LAYOUT_SAVED_MAX 2048
size_t layout_save(const struct layout *layout, void *out);
struct layout *layout_restore(const void *saved, size_t bytes); /* NULL when they are none */
enum device_status layout_reorder(const struct layout *from, const void *src,
                                  const struct layout *to, void *dst);

/* dst = act(src · weights + bias) + dst. Layouts are borrowed. */
struct operation {
    bool conv;           /* src [n, ic, ih, iw], weights [oc, ic, kh, kw]; else [m, k] and [k, n] */
    int64_t stride, pad; /* conv */
    const struct layout *src, *weights, *dst;
    const struct layout *bias; /* f32 [oc] or [1, n]; NULL for none */
    enum act act;
    bool accumulate; /* dst is added last */
};

struct kernel;
/*
 * `any` takes the library's first implementation; else the first that is neither gemm, whose sums
 * depend on the number of threads, nor naive, where there is one. Owned.
 */
enum device_status kernel_plan(struct kernel **out, const struct operation *operation, bool any);
enum device_status kernel_compile(struct kernel *kernel);
void kernel_free(struct kernel *kernel); /* NULL is fine */
bool kernel_is_gemm(const struct kernel *kernel);
bool kernel_same_implementation(const struct kernel *a, const struct kernel *b);
const struct layout *kernel_weights(const struct kernel *kernel); /* borrowed */
size_t kernel_scratch_bytes(const struct kernel *kernel);         /* of each lane */

struct lane;
enum device_status lane_new(struct lane **out, const struct kernel *kernel);
void lane_free(struct lane *lane); /* NULL is fine */
struct lane_args {
    const void *src, *weights;
    const float *bias; /* NULL for none */
    void *dst, *scratch;
};
enum device_status lane_run(struct lane *lane, const struct lane_args *args);

#endif
