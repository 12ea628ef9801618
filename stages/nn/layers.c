/* SPDX-License-Identifier: Apache-2.0 */
/* Linear and Conv2d: the layers whose weights are packed (layers.h, packed.h). */
#include "stages/nn/layers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stages/nn/context.h"
#include "stages/nn/onednn.h"
#include "stages/nn/packed.h"
#include "stages/nn/profile.h"

#define NAME_MAX_BYTES   512
#define JOINED_MAX_BYTES 512 /* names of a joined layer */

int act_parse(const char *name, enum act *act, struct err *err)
{
    static const struct {
        const char *name;
        enum act act;
    } names[] = {
        {"silu", ACT_SILU},
        {"swish", ACT_SILU},
        {"gelu", ACT_GELU},
        {"gelu_new", ACT_GELU_TANH},
        {"gelu_pytorch_tanh", ACT_GELU_TANH},
        {"gelu-approximate", ACT_GELU_TANH},
        {"quick_gelu", ACT_QUICK_GELU},
        {"relu", ACT_RELU},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i].name) == 0) {
            *act = names[i].act;
            return 0;
        }
    }
    return err_set(err, ERR_UNSUPPORTED, "unknown activation '%s'", name);
}

/* Weights of a layer while they are read from the checkpoint, or found packed. */
struct loading {
    enum dtype dtype;
    struct store *store; /* borrowed; NULL for none */
    const char *name;    /* of the layer there */
    struct store_layer stored;
    void *weights; /* [oc, ...]; NULL when `stored` has them */
    float *bias;   /* [oc], or NULL */
};

static bool find_stored(struct loading *loading, const struct packed_layer *layer)
{
    struct layout *plain = packed_plain(layer);
    bool found = store_find(loading->store, loading->name, plain, &loading->stored);
    layout_free(plain);
    return found;
}

static int loading_init(struct loading *loading, struct nn *nn, struct weights *weights,
                        const char *name, const struct packed_layer *layer, bool bias,
                        struct err *err)
{
    int64_t count = layer->oc * layer->ic * (layer->conv ? layer->k * layer->k : 1);
    int64_t biases = bias ? layer->oc : 0;
    *loading = (struct loading){.dtype = layer->dtype, .name = name};
    if (nn->packed_folder)
        loading->store = weights_store(weights, nn->packed_folder, nn->compute, nn->note);
    loading->bias = biases ? memory_new((size_t)biases * sizeof(float)) : NULL;
    if (loading->store && (loading->bias || !biases) && find_stored(loading, layer))
        return 0;
    loading->weights = memory_new((size_t)count * dtype_size(loading->dtype));
    if (loading->weights && (loading->bias || !biases))
        return 0;
    free(loading->weights);
    free(loading->bias);
    return err_set(err, ERR_OUT_OF_MEMORY, "no memory for %lld weights", (long long)count);
}

/* The layer; takes what was loaded. */
static struct packed *loading_finish(const struct loading *loading,
                                     const struct packed_layer *layer)
{
    if (!loading->weights)
        return packed_new_stored(layer, loading->store, loading->stored, loading->bias);
    struct packed *packed = packed_new(layer, loading->weights, loading->bias);
    if (loading->store)
        packed_keep(packed, loading->store, loading->name);
    return packed;
}

#define CHUNK 4096
/* Copies an entry in the compute dtype. */
static void copy_converted(void *dst, enum dtype dtype, const struct weights *weights,
                           const struct safetensors_entry *entry)
{
    size_t count = entry->bytes / dtype_size(entry->dtype);
    if (entry->dtype == dtype && count) {
        memcpy(dst, entry->data, entry->bytes);
        return;
    }
    if (dtype == DTYPE_F32) {
        weights_read(weights, entry, 0, count, dst);
        return;
    }
    float chunk[CHUNK];
    for (size_t i = 0; i < count; i += CHUNK) {
        size_t now = count - i < CHUNK ? count - i : CHUNK;
        weights_read(weights, entry, i, now, chunk);
        convert_f32_to_bf16((uint16_t *)dst + i, chunk, now);
    }
}

/* Reads name.weight of this shape, and name.bias, to behind the first `skip` outputs. */
static int load_part(struct loading *loading, struct weights *weights, const char *name, int rank,
                     const int64_t *dim, int64_t skip, struct err *err)
{
    char path[NAME_MAX_BYTES];
    const struct safetensors_entry *entry;
    BUG_ON(snprintf(path, sizeof(path), "%s.weight", name) >= (int)sizeof(path));
    int rc = weights_take(weights, path, rank, dim, &entry, err);
    if (rc)
        return rc;
    size_t row = dtype_size(loading->dtype);
    for (int i = 1; i < rank; i++)
        row *= (size_t)dim[i];
    if (loading->weights)
        copy_converted((char *)loading->weights + (size_t)skip * row, loading->dtype, weights,
                       entry);
    if (!loading->bias)
        return 0;
    BUG_ON(snprintf(path, sizeof(path), "%s.bias", name) >= (int)sizeof(path));
    return weights_take_f32(weights, path, 1, dim, loading->bias + skip, err);
}

static void loading_release(struct loading *loading)
{
    layout_free(loading->stored.layout);
    free(loading->weights);
    free(loading->bias);
}

int linear_load_joined(struct linear *linear, struct nn *nn, struct weights *weights,
                       const char *const *names, int64_t ic, const int64_t *oc, bool bias,
                       struct err *err)
{
    char joined[JOINED_MAX_BYTES];
    int64_t sum = 0;
    int end = 0;
    for (int i = 0; names[i]; i++) {
        sum += oc[i];
        end += snprintf(joined + end, sizeof(joined) - (size_t)end, "%s%s", i ? "+" : "", names[i]);
        BUG_ON((size_t)end >= sizeof(joined));
    }
    struct packed_layer layer = {.ic = ic, .oc = sum, .dtype = nn_dtype(nn)};
    struct loading loading;
    int rc = loading_init(&loading, nn, weights, joined, &layer, bias, err);
    if (rc)
        return rc;
    int64_t skip = 0;
    for (int i = 0; names[i] && rc == 0; i++) {
        rc = load_part(&loading, weights, names[i], 2, (int64_t[]){oc[i], ic}, skip, err);
        skip += oc[i];
    }
    if (rc) {
        loading_release(&loading);
        return rc;
    }
    *linear = (struct linear){.ic = ic, .oc = sum, .has_bias = bias};
    linear->packed = loading_finish(&loading, &layer);
    return 0;
}

int linear_load(struct linear *linear, struct nn *nn, struct weights *weights, const char *name,
                int64_t ic, int64_t oc, bool bias, struct err *err)
{
    return linear_load_joined(linear, nn, weights, (const char *[]){name, NULL}, ic, &oc, bias,
                              err);
}

void linear_release(struct linear *linear)
{
    packed_free(linear->packed);
    *linear = (struct linear){0};
}

/* Whether a fused tensor is absent, or of the shape it is added to. */
static bool expect_fused(struct nn *nn, const char *op, struct tensor fused, struct tensor dst)
{
    return fused.data == NULL || nn_expect(nn, op, fused, dst.rank, dst.dim);
}

static void copy_tensor(struct tensor dst, struct tensor src)
{
    memcpy(dst.data, src.data, (size_t)dst.dim[0] * sample_bytes(dst));
}

/* For a linear layer (k = 0) or a convolution: oc outputs, of k x k x ic each. */
static void profile_layer(struct nn *nn, int64_t began, struct tensor x, struct tensor y,
                          const struct conv2d *conv, struct tensor residual)
{
    double ic = (double)x.dim[x.rank - 1], oc = (double)y.dim[y.rank - 1];
    double k = conv ? conv->k : 1;
    profile_end(nn, began,
                &(struct profile_op){
                    .name = conv ? "conv2d" : "linear",
                    .x = x,
                    .oc = y.dim[y.rank - 1],
                    .k = conv ? conv->k : 0,
                    .stride = conv ? conv->stride : 0,
                    .flop = 2 * (double)tensor_count(y) * ic * k * k,
                    .bytes = tensor_bytes(x) + tensor_bytes(y) + tensor_bytes(residual) +
                             ic * oc * k * k * (double)dtype_size(nn->compute),
                });
}

struct tensor nn_linear(struct nn *nn, struct linear *linear, struct tensor x,
                        struct linear_fuse fuse)
{
    int64_t began = profile_begin(nn);
    int64_t shape[] = {-1, x.rank == 3 ? -1 : linear->ic, linear->ic};
    if (!nn_expect(nn, "linear", x, x.rank == 3 ? 3 : 2, shape))
        return (struct tensor){0};
    int64_t dim[] = {x.dim[0], x.dim[1], linear->oc};
    dim[x.rank - 1] = linear->oc;
    struct tensor y = nn_new(nn, nn->compute, x.rank, dim);
    if (nn_failed(nn) || !expect_fused(nn, "linear's residual", fuse.residual, y))
        return (struct tensor){0};
    if (fuse.residual.data)
        copy_tensor(y, fuse.residual);
    struct packed_call call = {.n = x.dim[0],
                               .ih = x.rank == 3 ? x.dim[1] : 1,
                               .iw = 1,
                               .act = fuse.act,
                               .accumulate = fuse.residual.data != NULL,
                               .src = x.data,
                               .dst = y.data,
                               .bias = packed_bias(linear->packed)};
    if (packed_run(nn, linear->packed, &call))
        return (struct tensor){0};
    profile_layer(nn, began, x, y, NULL, fuse.residual);
    return y;
}

int conv2d_load(struct conv2d *conv, struct nn *nn, struct weights *weights, const char *name,
                int64_t ic, int64_t oc, int k, int stride, int pad, bool bias, struct err *err)
{
    struct packed_layer layer = {.conv = true,
                                 .ic = ic,
                                 .oc = oc,
                                 .k = k,
                                 .stride = stride,
                                 .pad = pad,
                                 .dtype = nn_dtype(nn)};
    struct loading loading;
    int rc = loading_init(&loading, nn, weights, name, &layer, bias, err);
    if (rc)
        return rc;
    rc = load_part(&loading, weights, name, 4, (int64_t[]){oc, ic, k, k}, 0, err);
    if (rc) {
        loading_release(&loading);
        return rc;
    }
    *conv =
        (struct conv2d){.ic = ic, .oc = oc, .k = k, .stride = stride, .pad = pad, .has_bias = bias};
    conv->packed = loading_finish(&loading, &layer);
    return 0;
}

void conv2d_release(struct conv2d *conv)
{
    packed_free(conv->packed);
    *conv = (struct conv2d){0};
}

/* The convolution's bias plus what is added to every pixel of each sample: [n, oc] scratch. */
static float *joined_bias(struct nn *nn, const struct conv2d *conv, struct tensor add)
{
    int64_t n = add.dim[0], oc = conv->oc;
    const float *bias = packed_bias(conv->packed);
    float *sums = nn_scratch(nn, (size_t)(n * oc) * sizeof(float));
    if (!sums)
        return NULL;
    convert_to_f32(sums, add.data, add.dtype, (size_t)(n * oc));
    for (int64_t i = 0; i < n && bias; i++) {
        for (int64_t c = 0; c < oc; c++)
            sums[i * oc + c] += bias[c];
    }
    return sums;
}

static bool run_conv(struct nn *nn, struct conv2d *conv, struct tensor x, struct tensor y,
                     struct conv_fuse fuse)
{
    float *sums = NULL;
    if (fuse.add_channels.data && !(sums = joined_bias(nn, conv, fuse.add_channels)))
        return false;
    if (fuse.residual.data)
        copy_tensor(y, fuse.residual);
    struct packed_call call = {.n = x.dim[0],
                               .ih = x.dim[1],
                               .iw = x.dim[2],
                               .accumulate = fuse.residual.data != NULL,
                               .src = x.data,
                               .dst = y.data,
                               .bias = sums ? sums : packed_bias(conv->packed),
                               .bias_stride = sums ? conv->oc : 0};
    int rc = packed_run(nn, conv->packed, &call);
    pool_drop(&nn->pool, sums);
    return rc == 0;
}

struct tensor nn_conv2d(struct nn *nn, struct conv2d *conv, struct tensor x, struct conv_fuse fuse)
{
    int64_t began = profile_begin(nn);
    if (!NN_EXPECT(nn, "conv2d", x, -1, -1, -1, conv->ic))
        return (struct tensor){0};
    int64_t oh = (x.dim[1] + 2 * conv->pad - conv->k) / conv->stride + 1;
    int64_t ow = (x.dim[2] + 2 * conv->pad - conv->k) / conv->stride + 1;
    struct tensor y = NN_NEW(nn, nn->compute, x.dim[0], oh, ow, conv->oc);
    if (nn_failed(nn) || !expect_fused(nn, "conv2d's residual", fuse.residual, y))
        return (struct tensor){0};
    if (fuse.add_channels.data &&
        !NN_EXPECT(nn, "conv2d's channels", fuse.add_channels, x.dim[0], conv->oc))
        return (struct tensor){0};
    if (!run_conv(nn, conv, x, y, fuse))
        return (struct tensor){0};
    profile_layer(nn, began, x, y, conv, fuse.residual);
    return y;
}
