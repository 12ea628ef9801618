/* SPDX-License-Identifier: Apache-2.0 */
/* CLIP's text encoder; see clip_text.h. */
#include "stages/networks/clip_text.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/netconfig.h"

#define LEGACY_EOS_TOKEN_ID 2

static int read_config(struct clip_text_config *config, const struct netconfig *file,
                       struct err *err)
{
    *config = (struct clip_text_config){
        .vocab_size = 49408,
        .hidden_size = 512,
        .intermediate_size = 2048,
        .projection_dim = 512,
        .num_hidden_layers = 12,
        .num_attention_heads = 8,
        .max_position_embeddings = 77,
        .layer_norm_eps = 1e-5,
        .eos_token_id = 49407,
    };
    const char *act = "quick_gelu";
    int rc;
    if ((rc = netconfig_size(file, "vocab_size", NETCONFIG_VOCAB_MAX, &config->vocab_size, err)) ||
        (rc =
             netconfig_size(file, "hidden_size", NETCONFIG_WIDTH_MAX, &config->hidden_size, err)) ||
        (rc = netconfig_size(file, "intermediate_size", NETCONFIG_WIDTH_MAX,
                             &config->intermediate_size, err)) ||
        (rc = netconfig_size(file, "projection_dim", NETCONFIG_WIDTH_MAX, &config->projection_dim,
                             err)) ||
        (rc = netconfig_size(file, "num_hidden_layers", NETCONFIG_LAYERS_MAX,
                             &config->num_hidden_layers, err)) ||
        (rc = netconfig_size(file, "num_attention_heads", NETCONFIG_HEADS_MAX,
                             &config->num_attention_heads, err)) ||
        (rc = netconfig_size(file, "max_position_embeddings", NETCONFIG_LENGTH_MAX,
                             &config->max_position_embeddings, err)) ||
        (rc = jsonx_double(file->json, "layer_norm_eps", &config->layer_norm_eps, file->what,
                           err)) ||
        (rc = jsonx_int(file->json, "eos_token_id", 0, INT32_MAX, &config->eos_token_id, file->what,
                        err)) ||
        (rc = jsonx_string(file->json, "hidden_act", &act, file->what, err)))
        return rc;
    if ((rc = act_parse(act, &config->hidden_act, err)))
        return err_prefix(err, "%s: hidden_act: ", file->what), rc;
    if (config->hidden_size % config->num_attention_heads)
        return err_set(err, ERR_INVALID_MODEL,
                       "%s: hidden_size is not a multiple of num_attention_heads", file->what);
    return 0;
}

static int load_weights(struct clip_text *clip, struct nn *nn, struct weights *weights,
                        struct err *err)
{
    const struct clip_text_config *config = &clip->config;
    int64_t width = config->hidden_size;
    struct transformer_shape shape = {
        .width = width,
        .hidden = config->intermediate_size,
        .heads = (int)config->num_attention_heads,
        .head_dim = (int)(width / config->num_attention_heads),
        .eps = (float)config->layer_norm_eps,
        .act = config->hidden_act,
    };
    weights_ignore_suffix(weights, "position_ids");
    int rc;
    if ((rc = embedding_load(&clip->token_embedding, nn, weights,
                             "text_model.embeddings.token_embedding.weight", 2,
                             (int64_t[]){config->vocab_size, width}, err)) ||
        (rc = embedding_load(&clip->position_embedding, nn, weights,
                             "text_model.embeddings.position_embedding.weight", 2,
                             (int64_t[]){config->max_position_embeddings, width}, err)) ||
        (rc =
             transformer_load(&clip->layers, (int)config->num_hidden_layers, nn, weights,
                              "text_model.encoder.layers", &TRANSFORMER_NAMES_CLIP, &shape, err)) ||
        (rc = layer_norm_load(&clip->final_layer_norm, nn, weights, "text_model.final_layer_norm",
                              width, shape.eps, err)) ||
        (rc = linear_load(&clip->text_projection, nn, weights, "text_projection", width,
                          config->projection_dim, false, err)))
        return rc;
    return weights_finish(weights, err);
}

int clip_text_load(struct clip_text *clip, struct nn *nn, const char *folder, struct err *err)
{
    memset(clip, 0, sizeof *clip);
    struct netconfig file = {0};
    struct weights *weights = NULL;
    char *path = xasprintf("%s/" NETCONFIG_TRANSFORMERS_WEIGHTS, folder);
    int rc;
    if ((rc = netconfig_open(&file, folder, err)) == 0 &&
        (rc = read_config(&clip->config, &file, err)) == 0 &&
        (rc = weights_open(&weights, path, err)) == 0)
        rc = load_weights(clip, nn, weights, err);
    weights_close(weights);
    netconfig_close(&file);
    free(path);
    if (rc)
        clip_text_release(clip);
    return rc;
}

void clip_text_release(struct clip_text *clip)
{
    embedding_release(&clip->token_embedding);
    embedding_release(&clip->position_embedding);
    transformer_release(clip->layers, (int)clip->config.num_hidden_layers);
    layer_norm_release(&clip->final_layer_norm);
    linear_release(&clip->text_projection);
    memset(clip, 0, sizeof *clip);
}

/* [1, l, l]: 0 on and below the diagonal, the lowest float above it. */
static struct tensor causal_mask(struct nn *nn, int64_t l)
{
    struct tensor mask = NN_NEW(nn, DTYPE_F32, 1, l, l);
    for (int64_t i = 0; i < l && !tensor_empty(mask); i++)
        for (int64_t j = 0; j < l; j++)
            ((float *)mask.data)[i * l + j] = j > i ? -FLT_MAX : 0;
    return mask;
}

/* Where a sequence's end token is: 0 if it has none, as in the reference. */
static int64_t end_position(const struct clip_text_config *config, const int32_t *ids, int64_t l)
{
    int64_t end = 0;
    if (config->eos_token_id == LEGACY_EOS_TOKEN_ID) {
        for (int64_t i = 1; i < l; i++)
            if (ids[i] > ids[end])
                end = i;
        return end;
    }
    for (int64_t i = 0; i < l; i++)
        if (ids[i] == config->eos_token_id)
            return i;
    return end;
}

struct clip_text_output clip_text_forward(struct nn *nn, struct clip_text *clip, const int32_t *ids,
                                          int64_t n, int64_t l)
{
    struct clip_text_output out;
    size_t scope = nn_enter(nn);
    struct tensor mask = causal_mask(nn, l);
    struct tensor h = nn_embed(nn, &clip->token_embedding, ids, n, l); /* [n, l, W] */
    nn_advance(nn, &h, nn_add(nn, h, nn_repeat(nn, &clip->position_embedding, n, l)));
    h = transformer_forward(nn, clip->layers, (int)clip->config.num_hidden_layers, h, mask);
    out.states = nn_leave(nn, scope, nn_layer_norm(nn, &clip->final_layer_norm, h));

    int64_t *end = xmalloc((size_t)n * sizeof *end);
    for (int64_t i = 0; i < n; i++)
        end[i] = end_position(&clip->config, ids + i * l, l);
    scope = nn_enter(nn);
    struct tensor pooled = nn_pick_rows(nn, out.states, end); /* [n, W] */
    out.embed =
        nn_leave(nn, scope, nn_linear(nn, &clip->text_projection, pooled, (struct linear_fuse){0}));
    free(end);
    return out;
}
