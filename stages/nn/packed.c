/* SPDX-License-Identifier: Apache-2.0 */
/* Layers' weights and kernels (packed.h). */
#include "stages/nn/packed.h"

#include <omp.h>
#include <stdlib.h>

#include "common/memory.h"
#include "stages/nn/context.h"
#include "stages/nn/onednn.h"
#include "stages/nn/parallel.h"
#include "stages/nn/winograd.h"

/* The weights in one layout. */
struct copy {
    struct layout *layout;
    const void *data;
    bool mapped;                      /* data is the store's */
    int users;                        /* recipes */
    struct winograd_scaling *scaling; /* once one of them is for WAY_WINOGRAD */
    struct copy *next;
};

/* What a recipe is made for. */
struct key {
    int64_t ih, iw;
    int threads;
    enum act act;
    bool accumulate, bias;
};

/* By what a layer is computed. */
enum way {
    WAY_KERNEL,   /* the library's, which takes a sample */
    WAY_TILES,    /* its products of tiles (tiles.c) */
    WAY_WINOGRAD, /* winograd.c */
};

/* How a call of that key is computed. */
struct recipe {
    struct key key;
    enum way way;
    int threads; /* with which the kernel was made and runs: key's, or 1 */
    const struct copy *copy;
    struct kernel *kernel; /* for WAY_KERNEL */
    struct lane **lane;    /* [lanes] */
    int lanes;
    size_t scratch_bytes; /* of one lane, aligned */
    struct recipe *next;
};

struct packed {
    struct packed_layer layer;
    float *bias;
    struct copy *copies;
    struct recipe *recipes; /* most recently used first */
    struct store *store;    /* held; or NULL */
    struct copy *stored;    /* what it has, or will have, of this */
    bool expected;          /* the store waits for the first copy */
};

static int64_t out_size(const struct packed_layer *layer, int64_t in)
{
    return (in + 2 * layer->pad - layer->k) / layer->stride + 1;
}

/* --- layouts of one sample ----------------------------------------------------------------------
 */

/* [1, c, h, w] as NHWC. */
static struct layout *picture_layout(enum dtype dtype, int64_t c, int64_t h, int64_t w)
{
    return layout_new(dtype, 4, (int64_t[]){1, c, h, w}, (int64_t[]){h * w * c, 1, w * c, c});
}

static struct layout *matrix_layout(enum dtype dtype, int64_t rows, int64_t columns)
{
    return layout_new(dtype, 2, (int64_t[]){rows, columns}, (int64_t[]){columns, 1});
}

/* The weights as checkpoints have them, or (`any`) as the library likes them. */
static struct layout *weights_layout(const struct packed_layer *layer, bool any)
{
    int64_t k = layer->k, ic = layer->ic, oc = layer->oc;
    if (layer->conv)
        return layout_new(layer->dtype, 4, (int64_t[]){oc, ic, k, k},
                          any ? NULL : (int64_t[]){ic * k * k, k * k, k, 1});
    return layout_new(layer->dtype, 2, (int64_t[]){ic, oc}, any ? NULL : (int64_t[]){1, ic});
}

/* An operation and the layouts that it borrows. */
struct sample {
    struct layout *src, *weights, *bias, *dst;
    struct operation operation;
};

static void sample_init(struct sample *sample, const struct packed_layer *layer,
                        const struct key *key)
{
    enum dtype dtype = layer->dtype;
    int64_t ic = layer->ic, oc = layer->oc;
    sample->weights = weights_layout(layer, true);
    if (layer->conv) {
        sample->src = picture_layout(dtype, ic, key->ih, key->iw);
        sample->dst = picture_layout(dtype, oc, out_size(layer, key->ih), out_size(layer, key->iw));
        sample->bias = layout_new(DTYPE_F32, 1, &oc, (int64_t[]){1});
    } else {
        sample->src = matrix_layout(dtype, key->ih, ic);
        sample->dst = matrix_layout(dtype, key->ih, oc);
        sample->bias = matrix_layout(DTYPE_F32, 1, oc);
    }
    sample->operation = (struct operation){.conv = layer->conv,
                                           .stride = layer->stride,
                                           .pad = layer->pad,
                                           .src = sample->src,
                                           .weights = sample->weights,
                                           .bias = key->bias ? sample->bias : NULL,
                                           .dst = sample->dst,
                                           .act = key->act,
                                           .accumulate = key->accumulate};
}

static void sample_release(struct sample *sample)
{
    layout_free(sample->src);
    layout_free(sample->weights);
    layout_free(sample->bias);
    layout_free(sample->dst);
}

/* --- copies of the weights ----------------------------------------------------------------------
 */

/* Takes the layout, and data when there is some. */
static struct copy *copy_new(struct layout *layout, void *data)
{
    struct copy *copy = xcalloc(1, sizeof(*copy));
    copy->layout = layout;
    copy->data = data ? data : memory_new(layout_bytes(layout));
    return copy;
}

static void copy_free(struct copy *copy)
{
    layout_free(copy->layout);
    if (!copy->mapped)
        free((void *)copy->data);
    winograd_scaling_free(copy->scaling);
    free(copy);
}

/* Repacks the weights for a new layout. */
static enum device_status add_copy(struct packed *packed, const struct layout *layout,
                                   struct copy **out)
{
    struct copy *copy = copy_new(layout_copy(layout), NULL), *from = packed->copies;
    enum device_status status =
        copy->data ? layout_reorder(from->layout, from->data, copy->layout, (void *)copy->data)
                   : DEVICE_NO_MEMORY;
    if (status != DEVICE_OK) {
        copy_free(copy);
        return status;
    }
    copy->next = packed->copies;
    packed->copies = copy;
    *out = copy;
    return DEVICE_OK;
}

/* Frees copies that no recipe uses: the checkpoint's layout, once another is packed. */
static void drop_unused(struct packed *packed)
{
    struct copy **place = &packed->copies;
    while (*place) {
        struct copy *copy = *place;
        if (copy->users == 0 && packed->copies->next) {
            *place = copy->next;
            copy_free(copy);
        } else {
            place = &copy->next;
        }
    }
}

static struct copy *find_copy(const struct packed *packed, const struct layout *layout)
{
    struct copy *copy = packed->copies;
    while (copy && !layout_same(layout, copy->layout))
        copy = copy->next;
    return copy;
}

/* --- recipes ------------------------------------------------------------------------------------
 */

/* Sees to it that there are so many lanes. */
static enum device_status lanes_add(struct recipe *recipe, int count)
{
    enum device_status status = DEVICE_OK;
    if (recipe->lanes >= count)
        return status;
    recipe->lane = xrealloc(recipe->lane, (size_t)count * sizeof(struct lane *));
    while (recipe->lanes < count && status == DEVICE_OK) {
        status = lane_new(&recipe->lane[recipe->lanes], recipe->kernel);
        recipe->lanes += status == DEVICE_OK;
    }
    return status;
}

static void recipe_free(struct recipe *recipe)
{
    for (int i = 0; i < recipe->lanes; i++)
        lane_free(recipe->lane[i]);
    free(recipe->lane);
    kernel_free(recipe->kernel);
    free(recipe);
}

/* Chooses the implementation: gemm only for tiles, or on one thread. */
static enum device_status plan_for_threads(struct recipe *recipe, const struct sample *sample)
{
    enum device_status status = kernel_plan(&recipe->kernel, &sample->operation, false);
    if (status != DEVICE_OK || !kernel_is_gemm(recipe->kernel))
        return status;
    if (!sample->operation.conv)
        recipe->way = WAY_TILES;
    if (recipe->way == WAY_TILES || recipe->threads == 1)
        return status;
    kernel_free(recipe->kernel);
    recipe->kernel = NULL;
    recipe->threads = 1;
    omp_set_num_threads(1);
    return kernel_plan(&recipe->kernel, &sample->operation, false);
}

/* Another copy that the same implementation takes as it is, or NULL. */
static struct copy *adapt_to_copy(const struct packed *packed, struct recipe *recipe,
                                  const struct sample *sample)
{
    for (struct copy *copy = packed->copies; copy; copy = copy->next) {
        struct kernel *kernel;
        struct operation operation = sample->operation;
        operation.weights = copy->layout;
        if (copy->users == 0 || kernel_plan(&kernel, &operation, false) != DEVICE_OK)
            continue;
        bool same = kernel_same_implementation(kernel, recipe->kernel);
        kernel_free(same ? recipe->kernel : kernel);
        if (same) {
            recipe->kernel = kernel;
            return copy;
        }
    }
    return NULL;
}

static struct layout *layout_for(const struct packed_layer *layer, const struct recipe *recipe)
{
    switch (recipe->way) {
    case WAY_KERNEL:
        return layout_copy(kernel_weights(recipe->kernel));
    case WAY_TILES:
        return weights_layout(layer, false);
    case WAY_WINOGRAD:
        return winograd_layout(layer);
    }
    BUG("no such way");
}

/* Finds or packs the weights in the layout that this way of computing wants. */
static enum device_status choose_copy(struct packed *packed, struct recipe *recipe,
                                      const struct sample *sample, struct copy **out)
{
    struct layout *wanted = layout_for(&packed->layer, recipe);
    enum device_status status = DEVICE_OK;
    *out = find_copy(packed, wanted);
    if (!*out && recipe->way == WAY_KERNEL)
        *out = adapt_to_copy(packed, recipe, sample);
    if (!*out)
        status = add_copy(packed, wanted, out);
    layout_free(wanted);
    return status;
}

static enum device_status recipe_init(struct recipe *recipe, struct packed *packed,
                                      struct copy **copy)
{
    struct sample sample;
    const struct key *key = &recipe->key;
    sample_init(&sample, &packed->layer, key);
    omp_set_num_threads(recipe->threads); /* for packing too */
    enum device_status status = DEVICE_OK;
    if (key->act == ACT_NONE && winograd_fits(&packed->layer, key->ih, key->iw))
        recipe->way = WAY_WINOGRAD;
    else
        status = plan_for_threads(recipe, &sample);
    if (status == DEVICE_OK)
        status = choose_copy(packed, recipe, &sample, copy);
    sample_release(&sample);
    if (status == DEVICE_OK && recipe->way == WAY_WINOGRAD && !(*copy)->scaling) {
        (*copy)->scaling = winograd_scaling_new(&packed->layer, (*copy)->data, key->threads);
        status = (*copy)->scaling ? DEVICE_OK : DEVICE_NO_MEMORY;
    }
    if (status != DEVICE_OK || recipe->way != WAY_KERNEL)
        return status;
    size_t bytes = kernel_scratch_bytes(recipe->kernel);
    recipe->scratch_bytes = (bytes + MEMORY_ALIGNMENT) / MEMORY_ALIGNMENT * MEMORY_ALIGNMENT;
    return kernel_compile(recipe->kernel);
}

static enum device_status add_recipe(struct packed *packed, const struct key *key)
{
    struct recipe *recipe = xcalloc(1, sizeof(*recipe));
    struct copy *copy;
    recipe->key = *key;
    recipe->threads = key->threads;
    enum device_status status = recipe_init(recipe, packed, &copy);
    if (status != DEVICE_OK) {
        recipe_free(recipe);
        return status;
    }
    recipe->copy = copy;
    copy->users++;
    drop_unused(packed);
    recipe->next = packed->recipes;
    packed->recipes = recipe;
    if (packed->expected) {
        packed->expected = false;
        packed->stored = copy;
        store_settled(packed->store);
    }
    return DEVICE_OK;
}

static bool same_key(const struct key *a, const struct key *b)
{
    return a->ih == b->ih && a->iw == b->iw && a->threads == b->threads && a->act == b->act &&
           a->accumulate == b->accumulate && a->bias == b->bias;
}

/* The recipe for a key, moved to the front; NULL when it has to be made. */
static struct recipe *find_recipe(struct packed *packed, const struct key *key)
{
    for (struct recipe **place = &packed->recipes; *place; place = &(*place)->next) {
        struct recipe *recipe = *place;
        if (!same_key(&recipe->key, key))
            continue;
        *place = recipe->next;
        recipe->next = packed->recipes;
        packed->recipes = recipe;
        return recipe;
    }
    return NULL;
}

struct layout *packed_plain(const struct packed_layer *layer)
{
    return weights_layout(layer, false);
}

struct packed *packed_new(const struct packed_layer *layer, void *weights, float *bias)
{
    struct packed *packed = xcalloc(1, sizeof(*packed));
    packed->layer = *layer;
    packed->bias = bias;
    packed->copies = copy_new(weights_layout(layer, false), weights);
    return packed;
}

struct packed *packed_new_stored(const struct packed_layer *layer, struct store *store,
                                 struct store_layer stored, float *bias)
{
    struct packed *packed = xcalloc(1, sizeof(*packed));
    packed->layer = *layer;
    packed->bias = bias;
    packed->store = store_hold(store);
    packed->copies = xcalloc(1, sizeof(*packed->copies));
    *packed->copies = (struct copy){.layout = stored.layout, .data = stored.data, .mapped = true};
    return packed;
}

void packed_keep(struct packed *packed, struct store *store, const char *name)
{
    packed->store = store_hold(store);
    packed->expected = true;
    store_expect(store, name, packed);
}

struct store_layer packed_settled(const struct packed *packed)
{
    return (struct store_layer){.layout = packed->stored->layout, .data = packed->stored->data};
}

void packed_adopt(struct packed *packed, const void *data)
{
    free((void *)packed->stored->data);
    packed->stored->data = data;
    packed->stored->mapped = true;
}

void packed_free(struct packed *packed)
{
    if (!packed)
        return;
    if (packed->store)
        store_forget(packed->store, packed);
    while (packed->recipes) {
        struct recipe *next = packed->recipes->next;
        recipe_free(packed->recipes);
        packed->recipes = next;
    }
    while (packed->copies) {
        struct copy *next = packed->copies->next;
        copy_free(packed->copies);
        packed->copies = next;
    }
    store_release(packed->store);
    free(packed->bias);
    free(packed);
}

const float *packed_bias(const struct packed *packed)
{
    return packed->bias;
}

/* --- running ------------------------------------------------------------------------------------
 */

static bool run_sample(const struct packed_layer *layer, const struct recipe *recipe,
                       const struct packed_call *call, int64_t n, int lane, char *scratch)
{
    int64_t pixels =
        layer->conv ? out_size(layer, call->ih) * out_size(layer, call->iw) : call->ih * call->iw;
    size_t src_bytes = (size_t)(call->ih * call->iw * layer->ic) * dtype_size(layer->dtype);
    size_t dst_bytes = (size_t)(pixels * layer->oc) * dtype_size(layer->dtype);
    struct lane_args args = {
        .src = (const char *)call->src + (size_t)n * src_bytes,
        .weights = recipe->copy->data,
        .bias = call->bias ? call->bias + n * call->bias_stride : NULL,
        .dst = (char *)call->dst + (size_t)n * dst_bytes,
        .scratch = scratch + (size_t)lane * recipe->scratch_bytes,
    };
    omp_set_num_threads(recipe->threads);
    return lane_run(recipe->lane[lane], &args) == DEVICE_OK;
}

/*
 * The samples one after another, or, with several lanes, side by side on a thread each. Not even a
 * parallel region of one thread may stand around a kernel that has threads of its own: that makes
 * the kernel's region a nested one, for which OpenMP starts new threads every time.
 */
static int run_lanes(const struct packed_layer *layer, const struct recipe *recipe,
                     const struct packed_call *call, char *scratch, int lanes)
{
    int failures = 0;
    if (lanes == 1) {
        for (int64_t n = 0; n < call->n; n++)
            failures += !run_sample(layer, recipe, call, n, 0, scratch);
        return failures;
    }
#pragma omp parallel for schedule(static) num_threads(lanes) reduction(+ : failures)
    for (int64_t n = 0; n < call->n; n++)
        failures += !run_sample(layer, recipe, call, n, omp_get_thread_num(), scratch);
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

static enum device_status run_samples(struct nn *nn, const struct packed *packed,
                                      struct recipe *recipe, const struct packed_call *call,
                                      int lanes)
{
    enum device_status status = lanes_add(recipe, lanes);
    if (status != DEVICE_OK)
        return status;
    char *scratch = nn_scratch(nn, recipe->scratch_bytes * (size_t)lanes);
    if (!scratch)
        return DEVICE_NO_MEMORY;
    int failures = run_lanes(&packed->layer, recipe, call, scratch, lanes);
    pool_drop(&nn->pool, scratch);
    return failures ? DEVICE_FAILED : DEVICE_OK;
}

/* A sample below this shares its threads badly: then each thread takes samples of its own. */
#define SPREAD_PRODUCTS 100000000

int packed_run(struct nn *nn, struct packed *packed, const struct packed_call *call)
{
    int64_t products = sample_products(&packed->layer, call);
    bool spread = call->n > 1 && products < SPREAD_PRODUCTS;
    int lanes = spread ? threads_for_products(nn, products * call->n) : 1;
    struct key key = {.ih = call->ih,
                      .iw = call->iw,
                      .threads = lanes > 1 ? 1 : threads_for_products(nn, products),
                      .act = call->act,
                      .accumulate = call->accumulate,
                      .bias = call->bias != NULL};
    struct recipe *recipe = find_recipe(packed, &key);
    if (!recipe) {
        enum device_status status = add_recipe(packed, &key);
        if (status != DEVICE_OK)
            return device_fail(nn, status, packed->layer.conv ? "convolution" : "matrix product");
        recipe = packed->recipes;
    }
    if (recipe->way == WAY_TILES)
        return tiles_run(nn, &packed->layer, recipe->copy->data, call);
    if (recipe->way == WAY_WINOGRAD)
        return winograd_run(nn, &packed->layer, recipe->copy->data, recipe->copy->scaling, call);
    enum device_status status = run_samples(nn, packed, recipe, call, lanes);
    return status == DEVICE_OK ? 0 : device_fail(nn, status, "computing a layer");
}
