/* SPDX-License-Identifier: Apache-2.0 */
/* The diffusion prior; see prior_transformer.h. */
#include "stages/networks/prior_transformer.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/netconfig.h"

#define ADDITIONAL_MAX 64
#define MLP_FACTOR     4
#define NORM_EPS       1e-5f

static const struct netconfig_fixed fixed[] = {
    {"norm_in_type", "null"},
    {"embedding_proj_norm_type", "null"},
    {"encoder_hid_proj_type", "\"linear\""},
    {NULL, NULL},
};

/* added_emb_type is "prd", absent or null; only the first two mean the prd token. */
static int read_added_embedding(struct prior_config *config, const struct netconfig *file,
                                struct err *err)
{
    const json_t *type = json_object_get(file->json, "added_emb_type");
    config->prd = !json_is_null(type);
    if (type && config->prd &&
        !(json_is_string(type) && strcmp(json_string_value(type), "prd") == 0))
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: added_emb_type is neither \"prd\" nor null, which is not supported",
                       file->what);
    int64_t needed = config->prd ? 4 : 3;
    if (config->additional_embeddings != needed)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: additional_embeddings is %lld, only %lld is supported", file->what,
                       (long long)config->additional_embeddings, (long long)needed);
    return 0;
}

static int read_sizes(struct prior_config *config, const struct netconfig *file, struct err *err)
{
    int rc;
    if ((rc = netconfig_size(file, "num_attention_heads", NETCONFIG_HEADS_MAX,
                             &config->num_attention_heads, err)) ||
        (rc = netconfig_size(file, "attention_head_dim", NETCONFIG_HEADS_MAX,
                             &config->attention_head_dim, err)) ||
        (rc = netconfig_size(file, "num_layers", NETCONFIG_LAYERS_MAX, &config->num_layers, err)) ||
        (rc = netconfig_size(file, "embedding_dim", NETCONFIG_WIDTH_MAX, &config->embedding_dim,
                             err)) ||
        (rc = netconfig_size(file, "num_embeddings", NETCONFIG_LENGTH_MAX, &config->num_embeddings,
                             err)) ||
        (rc = netconfig_size(file, "additional_embeddings", ADDITIONAL_MAX,
                             &config->additional_embeddings, err)))
        return rc;
    config->time_embed_dim = config->num_attention_heads * config->attention_head_dim;
    config->embedding_proj_dim = config->clip_embed_dim = config->embedding_dim;
    if (config->time_embed_dim > NETCONFIG_WIDTH_MAX)
        return err_set(err, ERR_TOO_LARGE,
                       "%s: num_attention_heads · attention_head_dim is %lld, "
                       "at most %d are supported",
                       file->what, (long long)config->time_embed_dim, NETCONFIG_WIDTH_MAX);
    if ((rc = netconfig_size(file, "time_embed_dim", NETCONFIG_WIDTH_MAX, &config->time_embed_dim,
                             err)) ||
        (rc = netconfig_size(file, "embedding_proj_dim", NETCONFIG_WIDTH_MAX,
                             &config->embedding_proj_dim, err)) ||
        (rc = netconfig_size(file, "clip_embed_dim", NETCONFIG_WIDTH_MAX, &config->clip_embed_dim,
                             err)))
        return rc;
    return 0;
}

static int read_config(struct prior_config *config, const struct netconfig *file, struct err *err)
{
    *config = (struct prior_config){
        .num_attention_heads = 32,
        .attention_head_dim = 64,
        .num_layers = 20,
        .embedding_dim = 768,
        .num_embeddings = 77,
        .additional_embeddings = 4,
    };
    const char *act = "silu";
    int rc;
    if ((rc = netconfig_class(file, "PriorTransformer", err)) ||
        (rc = netconfig_check(file, fixed, err)) || (rc = read_sizes(config, file, err)) ||
        (rc = read_added_embedding(config, file, err)) ||
        (rc = jsonx_string(file->json, "time_embed_act_fn", &act, file->what, err)))
        return rc;
    if ((rc = act_parse(act, &config->time_embed_act, err)))
        return err_prefix(err, "%s: time_embed_act_fn: ", file->what), rc;
    return 0;
}

static int load_statistics(struct prior_transformer *prior, struct weights *weights,
                           struct err *err)
{
    int64_t dim[] = {1, prior->config.clip_embed_dim};
    prior->clip_mean = xmalloc((size_t)dim[1] * sizeof(float));
    prior->clip_std = xmalloc((size_t)dim[1] * sizeof(float));
    int rc = weights_take_f32(weights, "clip_mean", 2, dim, prior->clip_mean, err);
    return rc ? rc : weights_take_f32(weights, "clip_std", 2, dim, prior->clip_std, err);
}

static int load_blocks(struct prior_transformer *prior, struct nn *nn, struct weights *weights,
                       int64_t inner, struct err *err)
{
    struct transformer_shape shape = {
        .width = inner,
        .hidden = MLP_FACTOR * inner,
        .heads = (int)prior->config.num_attention_heads,
        .head_dim = (int)prior->config.attention_head_dim,
        .eps = NORM_EPS,
        .act = ACT_GELU,
    };
    return transformer_load(&prior->transformer_blocks, (int)prior->config.num_layers, nn, weights,
                            "transformer_blocks", &TRANSFORMER_NAMES_DIFFUSERS, &shape, err);
}

static int load_weights(struct prior_transformer *prior, struct nn *nn, struct weights *weights,
                        struct err *err)
{
    const struct prior_config *config = &prior->config;
    int64_t inner = config->num_attention_heads * config->attention_head_dim;
    int64_t length = config->num_embeddings + config->additional_embeddings;
    prior->time_embedding = (struct timestep_embedding){
        .act = config->time_embed_act, .flip_sin_to_cos = true, .freq_shift = 0};
    int rc;
    if ((rc = timestep_embedding_load(&prior->time_embedding, nn, weights, "time_embedding", inner,
                                      config->time_embed_dim, inner, err)) ||
        (rc = linear_load(&prior->proj_in, nn, weights, "proj_in", config->embedding_dim, inner,
                          true, err)) ||
        (rc = linear_load(&prior->embedding_proj, nn, weights, "embedding_proj",
                          config->embedding_proj_dim, inner, true, err)) ||
        (rc = linear_load(&prior->encoder_hidden_states_proj, nn, weights,
                          "encoder_hidden_states_proj", config->embedding_dim, inner, true, err)) ||
        (rc = embedding_load(&prior->positional_embedding, nn, weights, "positional_embedding", 3,
                             (int64_t[]){1, length, inner}, err)) ||
        (config->prd && (rc = embedding_load(&prior->prd_embedding, nn, weights, "prd_embedding", 3,
                                             (int64_t[]){1, 1, inner}, err))) ||
        (rc = load_blocks(prior, nn, weights, inner, err)) ||
        (rc = layer_norm_load(&prior->norm_out, nn, weights, "norm_out", inner, NORM_EPS, err)) ||
        (rc = linear_load(&prior->proj_to_clip_embeddings, nn, weights, "proj_to_clip_embeddings",
                          inner, config->clip_embed_dim, true, err)) ||
        (rc = load_statistics(prior, weights, err)))
        return rc;
    return weights_finish(weights, err);
}

int prior_transformer_load(struct prior_transformer *prior, struct nn *nn, const char *folder,
                           struct err *err)
{
    memset(prior, 0, sizeof *prior);
    struct netconfig file = {0};
    struct weights *weights = NULL;
    char *path = xasprintf("%s/" NETCONFIG_DIFFUSERS_WEIGHTS, folder);
    int rc;
    if ((rc = netconfig_open(&file, folder, err)) == 0 &&
        (rc = read_config(&prior->config, &file, err)) == 0 &&
        (rc = weights_open(&weights, path, err)) == 0)
        rc = load_weights(prior, nn, weights, err);
    weights_close(weights);
    netconfig_close(&file);
    free(path);
    if (rc)
        prior_transformer_release(prior);
    return rc;
}

void prior_transformer_release(struct prior_transformer *prior)
{
    timestep_embedding_release(&prior->time_embedding);
    linear_release(&prior->proj_in);
    linear_release(&prior->embedding_proj);
    linear_release(&prior->encoder_hidden_states_proj);
    embedding_release(&prior->positional_embedding);
    embedding_release(&prior->prd_embedding);
    transformer_release(prior->transformer_blocks, (int)prior->config.num_layers);
    layer_norm_release(&prior->norm_out);
    linear_release(&prior->proj_to_clip_embeddings);
    free(prior->clip_mean);
    free(prior->clip_std);
    memset(prior, 0, sizeof *prior);
}

/* [n, s, s]: the causal mask plus the text's padding. Nothing is padded behind the text. Without a
   padding mask there is no causal one either, as in the reference. */
static struct tensor attention_mask(struct nn *nn, struct tensor text_bias, int64_t n, int64_t s)
{
    if (tensor_empty(text_bias))
        return text_bias;
    struct tensor mask = NN_NEW(nn, DTYPE_F32, n, s, s);
    const float *bias = text_bias.data;
    int64_t l = text_bias.dim[1];
    float *out = mask.data;
    for (int64_t i = 0; i < n && out; i++)
        for (int64_t q = 0; q < s; q++)
            for (int64_t k = 0; k < s; k++)
                *out++ = (k > q ? NETWORKS_MASKED : 0) + (k < l ? bias[i * l + k] : 0);
    return mask;
}

/* [n, c] as a sequence of one: [n, 1, c]. */
static struct tensor token(struct tensor x)
{
    return TENSOR_RESHAPE(x, x.dim[0], 1, x.dim[1]);
}

/* The sequence that the header describes, with positions added: [n, s, inner]. */
static struct tensor sequence(struct nn *nn, struct prior_transformer *prior,
                              const struct prior_input *input, int64_t n, int64_t s)
{
    struct linear_fuse none = {0};
    size_t scope = nn_enter(nn);
    struct tensor time = timestep_embedding_forward(nn, &prior->time_embedding, input->timestep, n);
    struct tensor text = nn_linear(nn, &prior->embedding_proj, input->text_embed, none);
    struct tensor image = nn_linear(nn, &prior->proj_in, input->latents, none);
    struct tensor h = nn_linear(nn, &prior->encoder_hidden_states_proj, input->text_states, none);
    h = nn_concat_rows(nn, h, token(text));
    h = nn_concat_rows(nn, h, token(time));
    h = nn_concat_rows(nn, h, token(image));
    if (prior->config.prd)
        h = nn_concat_rows(nn, h, nn_repeat(nn, &prior->prd_embedding, n, 1));
    h = nn_add(nn, h, nn_repeat(nn, &prior->positional_embedding, n, s));
    return nn_leave(nn, scope, h);
}

struct tensor prior_transformer_forward(struct nn *nn, struct prior_transformer *prior,
                                        const struct prior_input *input)
{
    size_t scope = nn_enter(nn);
    int64_t n = input->latents.dim[0], s = prior->positional_embedding.rows;
    struct tensor mask = attention_mask(nn, input->text_bias, n, s);
    struct tensor h = sequence(nn, prior, input, n, s);
    h = transformer_forward(nn, prior->transformer_blocks, (int)prior->config.num_layers, h, mask);

    int64_t *last = xmalloc((size_t)n * sizeof *last);
    for (int64_t i = 0; i < n; i++)
        last[i] = s - 1;
    h = nn_pick_rows(nn, h, last); /* [n, inner] */
    free(last);
    h = nn_layer_norm(nn, &prior->norm_out, h);
    return nn_leave(nn, scope,
                    nn_linear(nn, &prior->proj_to_clip_embeddings, h, (struct linear_fuse){0}));
}

void prior_transformer_post_process(const struct prior_transformer *prior, float *x)
{
    for (int64_t i = 0; i < prior->config.clip_embed_dim; i++)
        x[i] = x[i] * prior->clip_std[i] + prior->clip_mean[i];
}
