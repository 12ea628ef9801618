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

/* Rows from … to - 1 of the mask, for the first `keys` keys: [n, to - from, keys]. It is the causal
   mask plus the text's padding; nothing is padded behind the text. Without a padding mask there is
   no causal one either, as in the reference. */
static struct tensor attention_mask(struct nn *nn, struct tensor text_bias, int64_t n, int64_t from,
                                    int64_t to, int64_t keys)
{
    if (tensor_empty(text_bias))
        return text_bias;
    struct tensor mask = NN_NEW(nn, DTYPE_F32, n, to - from, keys);
    const float *bias = text_bias.data;
    int64_t l = text_bias.dim[1];
    float *out = mask.data;
    for (int64_t i = 0; i < n && out; i++)
        for (int64_t q = from; q < to; q++)
            for (int64_t k = 0; k < keys; k++)
                *out++ = (k > q ? NETWORKS_MASKED : 0) + (k < l ? bias[i * l + k] : 0);
    return mask;
}

/* [n, c] as a sequence of one: [n, 1, c]. */
static struct tensor token(struct tensor x)
{
    return TENSOR_RESHAPE(x, x.dim[0], 1, x.dim[1]);
}

/* The text's tokens and embedding, without positions: [n, L + 1, inner]. */
static struct tensor text_tokens(struct nn *nn, struct prior_transformer *prior,
                                 const struct prior_input *input)
{
    struct linear_fuse none = {0};
    size_t scope = nn_enter(nn);
    struct tensor text = nn_linear(nn, &prior->embedding_proj, input->text_embed, none);
    struct tensor h = nn_linear(nn, &prior->encoder_hidden_states_proj, input->text_states, none);
    return nn_leave(nn, scope, nn_concat_rows(nn, h, token(text)));
}

/* What follows them: [n, 3, inner], or 2 without prd. */
static struct tensor step_tokens(struct nn *nn, struct prior_transformer *prior,
                                 const struct prior_input *input)
{
    int64_t n = input->latents.dim[0];
    size_t scope = nn_enter(nn);
    struct tensor time = timestep_embedding_forward(nn, &prior->time_embedding, input->timestep, n);
    struct tensor image = nn_linear(nn, &prior->proj_in, input->latents, (struct linear_fuse){0});
    struct tensor h = nn_concat_rows(nn, token(time), token(image));
    if (prior->config.prd)
        h = nn_concat_rows(nn, h, nn_repeat(nn, &prior->prd_embedding, n, 1));
    return nn_leave(nn, scope, h);
}

/* The prediction from the last of the states. Takes h. */
static struct tensor predict(struct nn *nn, struct prior_transformer *prior, struct tensor h)
{
    nn_advance(nn, &h, nn_pick_last(nn, h)); /* [n, inner] */
    nn_advance(nn, &h, nn_layer_norm(nn, &prior->norm_out, h));
    nn_advance(nn, &h, nn_linear(nn, &prior->proj_to_clip_embeddings, h, (struct linear_fuse){0}));
    return h;
}

struct tensor prior_transformer_forward(struct nn *nn, struct prior_transformer *prior,
                                        const struct prior_input *input)
{
    size_t scope = nn_enter(nn);
    int64_t n = input->latents.dim[0], s = prior->positional_embedding.rows;
    struct tensor mask = attention_mask(nn, input->text_bias, n, 0, s, s);
    struct tensor h = text_tokens(nn, prior, input);
    nn_advance(nn, &h, nn_concat_rows(nn, h, step_tokens(nn, prior, input)));
    h = nn_add_positions(nn, &prior->positional_embedding, h, 0);
    h = transformer_forward(nn, prior->transformer_blocks, (int)prior->config.num_layers, h, mask);
    return nn_leave(nn, scope, predict(nn, prior, h));
}

/* ---- sampling ---- */

/* Positions that no step changes: the text's tokens and its embedding. */
static int64_t text_positions(const struct prior_transformer *prior)
{
    return prior->config.num_embeddings + 1;
}

/* What one block keeps of a row: keys and values of the text's positions. */
static size_t block_bytes(const struct nn *nn, const struct prior_transformer *prior)
{
    int64_t inner = prior->config.num_attention_heads * prior->config.attention_head_dim;
    return (size_t)(text_positions(prior) * 2 * inner) * dtype_size(nn_dtype(nn));
}

size_t prior_transformer_kept_bytes(const struct nn *nn, const struct prior_transformer *prior)
{
    return (size_t)prior->config.num_layers * block_bytes(nn, prior);
}

/* Causal, as keeping needs it. */
static struct tensor causal_mask(struct nn *nn, struct tensor text_bias, int64_t n, int64_t from,
                                 int64_t to)
{
    BUG_ON(tensor_empty(text_bias) && !nn_failed(nn));
    return attention_mask(nn, text_bias, n, from, to, to);
}

void prior_transformer_read_text(struct nn *nn, struct prior_transformer *prior,
                                 const struct prior_input *input, void *const *kept)
{
    size_t scope = nn_enter(nn);
    int64_t n = input->text_states.dim[0], l = text_positions(prior);
    int64_t inner = prior->config.num_attention_heads * prior->config.attention_head_dim;
    struct tensor mask = causal_mask(nn, input->text_bias, n, 0, l);
    struct tensor h =
        nn_add_positions(nn, &prior->positional_embedding, text_tokens(nn, prior, input), 0);
    struct tensor seen = NN_NEW(nn, nn_dtype(nn), n, l, 2 * inner);
    size_t bytes = block_bytes(nn, prior);
    for (int64_t i = 0; i < prior->config.num_layers && !nn_failed(nn); i++) {
        nn_advance(nn, &h,
                   transformer_block_extend(nn, &prior->transformer_blocks[i], h, seen, 0, mask));
        if (!nn_failed(nn))
            nn_move_kept(seen, kept, (size_t)i * bytes, bytes, true);
    }
    nn_leave_all(nn, scope);
}

struct tensor prior_transformer_step(struct nn *nn, struct prior_transformer *prior,
                                     const struct prior_input *input, void *const *kept)
{
    size_t scope = nn_enter(nn);
    int64_t n = input->latents.dim[0], s = prior->positional_embedding.rows;
    int64_t at = text_positions(prior);
    int64_t inner = prior->config.num_attention_heads * prior->config.attention_head_dim;
    struct tensor mask = causal_mask(nn, input->text_bias, n, at, s);
    struct tensor h =
        nn_add_positions(nn, &prior->positional_embedding, step_tokens(nn, prior, input), at);
    struct tensor seen = NN_NEW(nn, nn_dtype(nn), n, s, 2 * inner);
    size_t bytes = block_bytes(nn, prior);
    for (int64_t i = 0; i < prior->config.num_layers && !nn_failed(nn); i++) {
        nn_move_kept(seen, kept, (size_t)i * bytes, bytes, false);
        nn_advance(nn, &h,
                   transformer_block_extend(nn, &prior->transformer_blocks[i], h, seen, at, mask));
    }
    return nn_leave(nn, scope, predict(nn, prior, h));
}

void prior_transformer_post_process(const struct prior_transformer *prior, float *x)
{
    for (int64_t i = 0; i < prior->config.clip_embed_dim; i++)
        x[i] = x[i] * prior->clip_std[i] + prior->clip_mean[i];
}
