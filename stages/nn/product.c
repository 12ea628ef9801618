/* SPDX-License-Identifier: Apache-2.0 */
/* Products of activations (product.h). */
#include "stages/nn/product.h"

#include <omp.h>
#include <stdlib.h>

#include "common/memory.h"
#include "stages/nn/context.h"
#include "stages/nn/onednn.h"

struct product {
    struct product_shape shape;
    struct kernel *kernel;
    size_t scratch_bytes;
    struct lane **lane; /* [slots] */
    int slots;
    struct product *next;
};

static void product_free(struct product *product)
{
    for (int i = 0; i < product->slots; i++)
        lane_free(product->lane[i]);
    free(product->lane);
    kernel_free(product->kernel);
    free(product);
}

void products_free(struct product *products)
{
    while (products) {
        struct product *next = products->next;
        product_free(products);
        products = next;
    }
}

static struct layout *matrix_layout(enum dtype dtype, int64_t rows, int64_t columns,
                                    int64_t row_stride, int64_t column_stride)
{
    return layout_new(dtype, 2, (int64_t[]){rows, columns}, (int64_t[]){row_stride, column_stride});
}

/* Made for one thread, whatever implementation comes first: on one thread all are deterministic. */
static enum device_status product_init(struct product *product)
{
    const struct product_shape *shape = &product->shape;
    int64_t stride = shape->weights_stride;
    struct layout *src = matrix_layout(shape->src_dtype, shape->m, shape->k, shape->src_stride, 1);
    struct layout *weights =
        matrix_layout(shape->src_dtype, shape->k, shape->n, shape->transposed ? 1 : stride,
                      shape->transposed ? stride : 1);
    struct layout *bias = matrix_layout(DTYPE_F32, 1, shape->n, shape->n, 1);
    struct layout *dst = matrix_layout(shape->dst_dtype, shape->m, shape->n, shape->dst_stride, 1);
    struct operation operation = {.src = src,
                                  .weights = weights,
                                  .bias = shape->bias ? bias : NULL,
                                  .dst = dst,
                                  .act = shape->act,
                                  .accumulate = shape->accumulate};
    omp_set_num_threads(1);
    enum device_status status = kernel_plan(&product->kernel, &operation, true);
    if (status == DEVICE_OK)
        status = kernel_compile(product->kernel);
    if (status == DEVICE_OK)
        product->scratch_bytes = kernel_scratch_bytes(product->kernel);
    layout_free(src);
    layout_free(weights);
    layout_free(bias);
    layout_free(dst);
    return status;
}

static enum device_status add_slots(struct product *product, int slots)
{
    enum device_status status = DEVICE_OK;
    if (product->slots >= slots)
        return status;
    product->lane = xrealloc(product->lane, (size_t)slots * sizeof(struct lane *));
    while (product->slots < slots && status == DEVICE_OK) {
        status = lane_new(&product->lane[product->slots], product->kernel);
        product->slots += status == DEVICE_OK;
    }
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

struct product *product_get(struct nn *nn, const struct product_shape *shape, int slots)
{
    struct product *product = nn->products;
    while (product && !same_shape(&product->shape, shape))
        product = product->next;
    enum device_status status = DEVICE_OK;
    if (!product) {
        product = xcalloc(1, sizeof(*product));
        product->shape = *shape;
        status = product_init(product);
        if (status != DEVICE_OK) {
            product_free(product);
            device_fail(nn, status, "matrix product");
            return NULL;
        }
        product->next = nn->products;
        nn->products = product;
    }
    status = add_slots(product, slots);
    if (status == DEVICE_OK)
        return product;
    device_fail(nn, status, "matrix product");
    return NULL;
}

size_t product_scratch_bytes(const struct product *product)
{
    return product->scratch_bytes;
}

bool product_run(struct product *product, int slot, const struct product_args *args)
{
    struct lane_args lane_args = {.src = args->src,
                                  .weights = args->weights,
                                  .bias = args->bias,
                                  .dst = args->dst,
                                  .scratch = args->scratch};
    omp_set_num_threads(1);
    return lane_run(product->lane[slot], &lane_args) == DEVICE_OK;
}
