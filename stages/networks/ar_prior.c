/* SPDX-License-Identifier: Apache-2.0 */
/* The autoregressive prior; see ar_prior.h. */
#include "stages/networks/ar_prior.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/netconfig.h"

#define MLP_FACTOR 4

/* Positions of the whole sequence: the last code is only ever an output. */
static int64_t positions(const struct ar_prior_config *config)
{
    return config->num_embeddings + 1 + config->dimensions;
}

/* Positions before the first code. */
static int64_t prefix(const struct ar_prior_config *config)
{
    return config->num_embeddings + 2;
}

static int read_config(struct ar_prior_config *config, const struct netconfig *file,
                       struct err *err)
{
    *config = (struct ar_prior_config){.layer_norm_eps = 1e-5};
    const struct {
        const char *key;
        int64_t maximum;
        int64_t *value;
    } sizes[] = {
        {"embedding_dim", NETCONFIG_WIDTH_MAX, &config->embedding_dim},
        {"text_dim", NETCONFIG_WIDTH_MAX, &config->text_dim},
        {"num_embeddings", NETCONFIG_LENGTH_MAX, &config->num_embeddings},
        {"width", NETCONFIG_WIDTH_MAX, &config->width},
        {"num_layers", NETCONFIG_LAYERS_MAX, &config->num_layers},
        {"num_attention_heads", NETCONFIG_HEADS_MAX, &config->num_attention_heads},
        {"dimensions", NETCONFIG_LENGTH_MAX, &config->dimensions},
        {"buckets", NETCONFIG_WIDTH_MAX, &config->buckets},
        {"dot_buckets", NETCONFIG_WIDTH_MAX, &config->dot_buckets},
    };
    int rc = netconfig_class(file, "UnCLIPAutoregressivePrior", err);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && rc == 0; i++) {
        rc = netconfig_size(file, sizes[i].key, sizes[i].maximum, sizes[i].value, err);
        if (rc == 0 && *sizes[i].value == 0)
            rc = err_set(err, ERR_INVALID_MODEL, "%s: %s has no default, set it", file->what,
                         sizes[i].key);
    }
    if (rc == 0)
        rc = jsonx_double(file->json, "layer_norm_eps", &config->layer_norm_eps, file->what, err);
    if (rc)
        return rc;
    if (config->buckets < 2 || config->dot_buckets < 2)
        return err_set(err, ERR_INVALID_MODEL, "%s: buckets and dot_buckets must be at least 2",
                       file->what);
    if (config->width % config->num_attention_heads)
        return err_set(err, ERR_INVALID_MODEL, "%s: width is not a multiple of num_attention_heads",
                       file->what);
    return 0;
}

/* A table of f32: its size is the file's before it is allocated. */
static int load_table(struct weights *weights, const char *name, int rank, const int64_t *dim,
                      float **out, struct err *err)
{
    const struct safetensors_entry *entry;
    int rc = weights_take(weights, name, rank, dim, &entry, err);
    if (rc)
        return rc;
    size_t count = (size_t)dim[0] * (size_t)(rank > 1 ? dim[1] : 1);
    *out = malloc(count * sizeof **out);
    if (!*out)
        return err_set(err, ERR_OUT_OF_MEMORY, "cannot hold '%s' of %zu values", name, count);
    weights_read(weights, entry, 0, count, *out);
    return 0;
}

/* The edges between buckets are training's alone: they are in the file and not read. */
static int load_quantiser(struct ar_prior *prior, struct weights *weights, struct err *err)
{
    const struct ar_prior_config *config = &prior->config;
    int64_t k = config->dimensions, d = config->embedding_dim, b = config->buckets;
    const struct safetensors_entry *unread;
    int rc;
    if ((rc = load_table(weights, "quantiser.mean", 1, (int64_t[]){d}, &prior->mean, err)) ||
        (rc = load_table(weights, "quantiser.directions", 2, (int64_t[]){k, d}, &prior->directions,
                         err)) ||
        (rc = load_table(weights, "quantiser.centres", 2, (int64_t[]){k, b}, &prior->centres,
                         err)) ||
        (rc = weights_take(weights, "quantiser.edges", 2, (int64_t[]){k, b - 1}, &unread, err)))
        return rc;
    return weights_take(weights, "quantiser.dot_edges", 1, (int64_t[]){config->dot_buckets - 1},
                        &unread, err);
}

static int load_layers(struct ar_prior *prior, struct nn *nn, struct weights *weights,
                       struct err *err)
{
    const struct ar_prior_config *config = &prior->config;
    struct transformer_shape shape = {
        .width = config->width,
        .hidden = MLP_FACTOR * config->width,
        .heads = (int)config->num_attention_heads,
        .head_dim = (int)(config->width / config->num_attention_heads),
        .eps = (float)config->layer_norm_eps,
        .act = ACT_GELU,
    };
    return transformer_load(&prior->layers, (int)config->num_layers, nn, weights, "layers",
                            &TRANSFORMER_NAMES_JOINED, &shape, err);
}

static int load_weights(struct ar_prior *prior, struct nn *nn, struct weights *weights,
                        struct err *err)
{
    const struct ar_prior_config *config = &prior->config;
    int64_t width = config->width;
    int rc;
    if ((rc = linear_load(&prior->text_in, nn, weights, "text_in", config->text_dim, width, true,
                          err)) ||
        (rc = linear_load(&prior->embedding_in, nn, weights, "embedding_in", config->embedding_dim,
                          width, true, err)) ||
        (rc = embedding_load(&prior->dot_in, nn, weights, "dot_in.weight", 2,
                             (int64_t[]){config->dot_buckets, width}, err)) ||
        (rc = embedding_load(&prior->bucket_in, nn, weights, "bucket_in.weight", 2,
                             (int64_t[]){config->buckets, width}, err)) ||
        (rc = embedding_load(&prior->position, nn, weights, "position", 2,
                             (int64_t[]){positions(config), width}, err)) ||
        (rc = load_layers(prior, nn, weights, err)) ||
        (rc = layer_norm_load(&prior->norm, nn, weights, "norm", width,
                              (float)config->layer_norm_eps, err)) ||
        (rc = linear_load(&prior->head, nn, weights, "head", width, config->buckets, true, err)) ||
        (rc = load_quantiser(prior, weights, err)))
        return rc;
    return weights_finish(weights, err);
}

int ar_prior_load(struct ar_prior *prior, struct nn *nn, const char *folder, struct err *err)
{
    memset(prior, 0, sizeof *prior);
    struct netconfig file = {0};
    struct weights *weights = NULL;
    char *path = xasprintf("%s/" NETCONFIG_TRANSFORMERS_WEIGHTS, folder);
    int rc;
    if ((rc = netconfig_open(&file, folder, err)) == 0 &&
        (rc = read_config(&prior->config, &file, err)) == 0 &&
        (rc = weights_open(&weights, path, err)) == 0)
        rc = load_weights(prior, nn, weights, err);
    weights_close(weights);
    netconfig_close(&file);
    free(path);
    if (rc)
        ar_prior_release(prior);
    return rc;
}

void ar_prior_release(struct ar_prior *prior)
{
    linear_release(&prior->text_in);
    linear_release(&prior->embedding_in);
    embedding_release(&prior->dot_in);
    embedding_release(&prior->bucket_in);
    embedding_release(&prior->position);
    transformer_release(prior->layers, (int)prior->config.num_layers);
    layer_norm_release(&prior->norm);
    linear_release(&prior->head);
    free(prior->mean);
    free(prior->directions);
    free(prior->centres);
    memset(prior, 0, sizeof *prior);
}

/* Takes what a sequence of n rows keeps; keys that are not there yet are zero. */
static void sequence_init(struct nn *nn, const struct ar_prior *prior,
                          struct ar_prior_sequence *sequence, int64_t n)
{
    const struct ar_prior_config *config = &prior->config;
    int64_t s = positions(config);
    *sequence = (struct ar_prior_sequence){.n = n};
    sequence->seen = xcalloc((size_t)config->num_layers, sizeof *sequence->seen);
    for (int64_t i = 0; i < config->num_layers; i++) {
        sequence->seen[i] = NN_NEW(nn, nn_dtype(nn), n, s, 2 * config->width);
        if (!tensor_empty(sequence->seen[i]))
            memset(sequence->seen[i].data, 0,
                   (size_t)tensor_count(sequence->seen[i]) * dtype_size(nn_dtype(nn)));
    }
    sequence->mask = NN_NEW(nn, DTYPE_F32, n, 1, s);
}

void ar_prior_end(struct ar_prior_sequence *sequence)
{
    free(sequence->seen);
    memset(sequence, 0, sizeof *sequence);
}

size_t ar_prior_row_bytes(const struct nn *nn, const struct ar_prior *prior)
{
    const struct ar_prior_config *config = &prior->config;
    size_t s = (size_t)positions(config), width = (size_t)config->width;
    size_t seen = (size_t)config->num_layers * s * 2 * width * dtype_size(nn_dtype(nn));
    size_t prefix_row = s + 16 * width + (size_t)config->text_dim; /* mask, activations, text */
    return seen + (size_t)prefix(config) * prefix_row * sizeof(float);
}

/* Position `at` of row i may see all keys up to it but the text's padding: [n, l, s], for positions
   at … at + l - 1. */
static void fill_mask(struct tensor mask, const struct ar_prior_config *config,
                      const uint8_t *text_mask, int64_t at)
{
    int64_t n = mask.dim[0], l = mask.dim[1], s = mask.dim[2], text = config->num_embeddings;
    float *out = mask.data;
    for (int64_t i = 0; i < n && out; i++)
        for (int64_t q = at; q < at + l; q++)
            for (int64_t k = 0; k < s; k++) {
                bool seen = k <= q && (k >= text || text_mask[i * text + k]);
                *out++ = seen ? 0 : NETWORKS_MASKED;
            }
}

/* The layers over x [n, l, width] and the last position's logits: [n, buckets]. Takes x. */
static struct tensor extend(struct nn *nn, struct ar_prior *prior,
                            struct ar_prior_sequence *sequence, struct tensor x, struct tensor mask)
{
    int64_t l = tensor_empty(x) ? 0 : x.dim[1];
    for (int64_t i = 0; i < prior->config.num_layers; i++)
        nn_advance(nn, &x,
                   transformer_block_extend(nn, &prior->layers[i], x, sequence->seen[i],
                                            sequence->at, mask));
    sequence->at += l;
    nn_advance(nn, &x, nn_pick_last(nn, x));
    nn_advance(nn, &x, nn_layer_norm(nn, &prior->norm, x));
    nn_advance(nn, &x, nn_linear(nn, &prior->head, x, (struct linear_fuse){0}));
    return x;
}

/* [n, L + 2, width]: states, embedding and dot. */
static struct tensor prefix_rows(struct nn *nn, struct ar_prior *prior,
                                 const struct ar_prior_input *input, int64_t n)
{
    struct linear_fuse none = {0};
    struct tensor h = nn_linear(nn, &prior->text_in, input->text_states, none);
    struct tensor embed = nn_linear(nn, &prior->embedding_in, input->text_embed, none);
    if (nn_failed(nn))
        return (struct tensor){0};
    h = nn_concat_rows(nn, h, TENSOR_RESHAPE(embed, n, 1, prior->config.width));
    h = nn_concat_rows(nn, h, nn_embed(nn, &prior->dot_in, input->dot, n, 1));
    return nn_add_positions(nn, &prior->position, h, 0);
}

struct tensor ar_prior_begin(struct nn *nn, struct ar_prior *prior,
                             const struct ar_prior_input *input, struct ar_prior_sequence *sequence)
{
    const struct ar_prior_config *config = &prior->config;
    int64_t n = input->text_embed.dim[0];
    sequence_init(nn, prior, sequence, n);
    size_t scope = nn_enter(nn);
    struct tensor mask = NN_NEW(nn, DTYPE_F32, n, prefix(config), positions(config));
    fill_mask(mask, config, input->text_mask, 0);
    fill_mask(sequence->mask, config, input->text_mask, prefix(config) - 1);
    struct tensor h = prefix_rows(nn, prior, input, n);
    return nn_leave(nn, scope, extend(nn, prior, sequence, h, mask));
}

struct tensor ar_prior_next(struct nn *nn, struct ar_prior *prior,
                            struct ar_prior_sequence *sequence, const int32_t *codes)
{
    int64_t n = sequence->n, s = positions(&prior->config);
    if (nn_failed(nn))
        return (struct tensor){0};
    BUG_ON(sequence->at >= s);
    float *mask = sequence->mask.data;
    for (int64_t i = 0; i < n; i++)
        mask[i * s + sequence->at] = 0;
    size_t scope = nn_enter(nn);
    struct tensor h = nn_embed(nn, &prior->bucket_in, codes, n, 1);
    h = nn_add_positions(nn, &prior->position, h, sequence->at);
    return nn_leave(nn, scope, extend(nn, prior, sequence, h, sequence->mask));
}

void ar_prior_decode(const struct ar_prior *prior, const int32_t *codes, float *out)
{
    int64_t d = prior->config.embedding_dim, buckets = prior->config.buckets;
    memcpy(out, prior->mean, (size_t)d * sizeof *out);
    for (int64_t k = 0; k < prior->config.dimensions; k++) {
        BUG_ON(codes[k] < 0 || codes[k] >= buckets);
        float value = prior->centres[k * buckets + codes[k]];
        for (int64_t i = 0; i < d; i++)
            out[i] += value * prior->directions[k * d + i];
    }
}
