/* SPDX-License-Identifier: Apache-2.0 */
/* What the decoder is told; see text_proj.h. */
#include "stages/networks/text_proj.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/netconfig.h"
#include "stages/networks/rows.h"

#define EXTRA_TOKENS_MAX 1024
#define NORM_EPS         1e-5f

static int read_config(struct text_proj_config *config, const struct netconfig *file,
                       struct err *err)
{
    *config = (struct text_proj_config){.clip_extra_context_tokens = 4, .clip_embeddings_dim = 768};
    int rc;
    if ((rc = netconfig_class(file, "UnCLIPTextProjModel", err)) ||
        (rc = netconfig_size(file, "clip_extra_context_tokens", EXTRA_TOKENS_MAX,
                             &config->clip_extra_context_tokens, err)) ||
        (rc = netconfig_size(file, "clip_embeddings_dim", NETCONFIG_WIDTH_MAX,
                             &config->clip_embeddings_dim, err)) ||
        (rc = netconfig_size(file, "time_embed_dim", NETCONFIG_WIDTH_MAX, &config->time_embed_dim,
                             err)) ||
        (rc = netconfig_size(file, "cross_attention_dim", NETCONFIG_WIDTH_MAX,
                             &config->cross_attention_dim, err)))
        return rc;
    if (!config->time_embed_dim || !config->cross_attention_dim)
        return err_set(err, ERR_INVALID_MODEL,
                       "%s: time_embed_dim and cross_attention_dim have no defaults, set both",
                       file->what);
    return 0;
}

static int load_weights(struct text_proj *proj, struct nn *nn, struct weights *weights,
                        struct err *err)
{
    int64_t d = proj->config.clip_embeddings_dim, t = proj->config.time_embed_dim;
    int64_t c = proj->config.cross_attention_dim, e = proj->config.clip_extra_context_tokens;
    proj->learned_classifier_free_guidance_embeddings = xmalloc((size_t)d * sizeof(float));
    int rc;
    if ((rc = weights_take_f32(weights, "learned_classifier_free_guidance_embeddings", 1, &d,
                               proj->learned_classifier_free_guidance_embeddings, err)) ||
        (rc = linear_load(&proj->embedding_proj, nn, weights, "embedding_proj", d, t, true, err)) ||
        (rc = linear_load(&proj->clip_image_embeddings_project_to_time_embeddings, nn, weights,
                          "clip_image_embeddings_project_to_time_embeddings", d, t, true, err)) ||
        (rc = linear_load(&proj->clip_extra_context_tokens_proj, nn, weights,
                          "clip_extra_context_tokens_proj", d, c * e, true, err)) ||
        (rc = linear_load(&proj->encoder_hidden_states_proj, nn, weights,
                          "encoder_hidden_states_proj", d, c, true, err)) ||
        (rc = layer_norm_load(&proj->text_encoder_hidden_states_norm, nn, weights,
                              "text_encoder_hidden_states_norm", c, NORM_EPS, err)))
        return rc;
    return weights_finish(weights, err);
}

int text_proj_load(struct text_proj *proj, struct nn *nn, const char *folder, struct err *err)
{
    memset(proj, 0, sizeof *proj);
    struct netconfig file = {0};
    struct weights *weights = NULL;
    char *path = xasprintf("%s/" NETCONFIG_DIFFUSERS_WEIGHTS, folder);
    int rc;
    if ((rc = netconfig_open(&file, folder, err)) == 0 &&
        (rc = read_config(&proj->config, &file, err)) == 0 &&
        (rc = weights_open(&weights, path, err)) == 0)
        rc = load_weights(proj, nn, weights, err);
    weights_close(weights);
    netconfig_close(&file);
    free(path);
    if (rc)
        text_proj_release(proj);
    return rc;
}

void text_proj_release(struct text_proj *proj)
{
    free(proj->learned_classifier_free_guidance_embeddings);
    linear_release(&proj->embedding_proj);
    linear_release(&proj->clip_image_embeddings_project_to_time_embeddings);
    linear_release(&proj->clip_extra_context_tokens_proj);
    linear_release(&proj->encoder_hidden_states_proj);
    layer_norm_release(&proj->text_encoder_hidden_states_norm);
    memset(proj, 0, sizeof *proj);
}

/* [n, c · e], channel-major, → [n, e, c]: token j has value c · e + j of each channel c. */
static struct tensor extra_tokens(struct nn *nn, struct tensor x, int64_t c, int64_t e)
{
    struct tensor out = NN_NEW(nn, x.dtype, x.dim[0], e, c);
    for (int64_t i = 0; i < x.dim[0] && !tensor_empty(out); i++)
        for (int64_t j = 0; j < e; j++)
            for (int64_t k = 0; k < c; k++) {
                int64_t to = (i * e + j) * c + k, from = (i * c + k) * e + j;
                if (x.dtype == DTYPE_F32)
                    ((float *)out.data)[to] = ((const float *)x.data)[from];
                else
                    ((uint16_t *)out.data)[to] = ((const uint16_t *)x.data)[from];
            }
    return out;
}

struct text_proj_output text_proj_forward(struct nn *nn, struct text_proj *proj,
                                          struct tensor image_embed, struct tensor text_embed,
                                          struct tensor text_states)
{
    struct linear_fuse none = {0};
    struct text_proj_output out;
    size_t scope = nn_enter(nn);
    struct tensor text_time = nn_linear(nn, &proj->embedding_proj, text_embed, none); /* [n, T] */
    struct tensor time = nn_linear(nn, &proj->clip_image_embeddings_project_to_time_embeddings,
                                   image_embed, (struct linear_fuse){.residual = text_time});
    out.time = nn_leave(nn, scope, time);

    scope = nn_enter(nn);
    struct tensor extra = nn_linear(nn, &proj->clip_extra_context_tokens_proj, image_embed, none);
    if (!tensor_empty(extra))
        extra = extra_tokens(nn, extra, proj->config.cross_attention_dim,
                             proj->config.clip_extra_context_tokens);
    struct tensor text = nn_linear(nn, &proj->encoder_hidden_states_proj, text_states, none);
    text = nn_layer_norm(nn, &proj->text_encoder_hidden_states_norm, text); /* [n, l, C] */
    out.context = nn_leave(nn, scope, nn_concat_rows(nn, extra, text));
    return out;
}
