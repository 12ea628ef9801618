/* SPDX-License-Identifier: Apache-2.0 */
/* CLIP's image encoder; see clip_vision.h. */
#include "stages/networks/clip_vision.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/netconfig.h"

#define CHANNELS_MAX 16

static int read_config(struct clip_vision_config *config, const struct netconfig *file,
                       struct err *err)
{
    *config = (struct clip_vision_config){
        .hidden_size = 768,
        .intermediate_size = 3072,
        .projection_dim = 512,
        .num_hidden_layers = 12,
        .num_attention_heads = 12,
        .num_channels = 3,
        .image_size = 224,
        .patch_size = 32,
        .layer_norm_eps = 1e-5,
    };
    const char *act = "quick_gelu";
    int rc;
    if ((rc =
             netconfig_size(file, "hidden_size", NETCONFIG_WIDTH_MAX, &config->hidden_size, err)) ||
        (rc = netconfig_size(file, "intermediate_size", NETCONFIG_WIDTH_MAX,
                             &config->intermediate_size, err)) ||
        (rc = netconfig_size(file, "projection_dim", NETCONFIG_WIDTH_MAX, &config->projection_dim,
                             err)) ||
        (rc = netconfig_size(file, "num_hidden_layers", NETCONFIG_LAYERS_MAX,
                             &config->num_hidden_layers, err)) ||
        (rc = netconfig_size(file, "num_attention_heads", NETCONFIG_HEADS_MAX,
                             &config->num_attention_heads, err)) ||
        (rc = netconfig_size(file, "num_channels", CHANNELS_MAX, &config->num_channels, err)) ||
        (rc = netconfig_size(file, "image_size", NETCONFIG_SIDE_MAX, &config->image_size, err)) ||
        (rc = netconfig_size(file, "patch_size", config->image_size, &config->patch_size, err)) ||
        (rc = jsonx_double(file->json, "layer_norm_eps", &config->layer_norm_eps, file->what,
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

static int load_weights(struct clip_vision *clip, struct nn *nn, struct weights *weights,
                        struct err *err)
{
    const struct clip_vision_config *config = &clip->config;
    int64_t width = config->hidden_size;
    int64_t grid = config->image_size / config->patch_size;
    struct transformer_shape shape = {
        .width = width,
        .hidden = config->intermediate_size,
        .heads = (int)config->num_attention_heads,
        .head_dim = (int)(width / config->num_attention_heads),
        .eps = (float)config->layer_norm_eps,
        .act = config->hidden_act,
    };
    int patch = (int)config->patch_size;
    weights_ignore_suffix(weights, "position_ids");
    int rc;
    if ((rc = embedding_load(&clip->class_embedding, nn, weights,
                             "vision_model.embeddings.class_embedding", 1, (int64_t[]){width},
                             err)) ||
        (rc = embedding_load(&clip->position_embedding, nn, weights,
                             "vision_model.embeddings.position_embedding.weight", 2,
                             (int64_t[]){1 + grid * grid, width}, err)) ||
        (rc = conv2d_load(&clip->patch_embedding, nn, weights,
                          "vision_model.embeddings.patch_embedding", config->num_channels, width,
                          patch, patch, 0, false, err)) ||
        (rc = layer_norm_load(&clip->pre_layrnorm, nn, weights, "vision_model.pre_layrnorm", width,
                              shape.eps, err)) ||
        (rc = transformer_load(&clip->layers, (int)config->num_hidden_layers, nn, weights,
                               "vision_model.encoder.layers", &TRANSFORMER_NAMES_CLIP, &shape,
                               err)) ||
        (rc = layer_norm_load(&clip->post_layernorm, nn, weights, "vision_model.post_layernorm",
                              width, shape.eps, err)) ||
        (rc = linear_load(&clip->visual_projection, nn, weights, "visual_projection", width,
                          config->projection_dim, false, err)))
        return rc;
    return weights_finish(weights, err);
}

int clip_vision_load(struct clip_vision *clip, struct nn *nn, const char *folder, struct err *err)
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
        clip_vision_release(clip);
    return rc;
}

void clip_vision_release(struct clip_vision *clip)
{
    embedding_release(&clip->class_embedding);
    embedding_release(&clip->position_embedding);
    conv2d_release(&clip->patch_embedding);
    layer_norm_release(&clip->pre_layrnorm);
    transformer_release(clip->layers, (int)clip->config.num_hidden_layers);
    layer_norm_release(&clip->post_layernorm);
    linear_release(&clip->visual_projection);
    memset(clip, 0, sizeof *clip);
}

struct tensor clip_vision_forward(struct nn *nn, struct clip_vision *clip, struct tensor pixels)
{
    size_t scope = nn_enter(nn);
    int64_t n = pixels.dim[0], width = clip->config.hidden_size;
    int64_t patches = clip->position_embedding.rows - 1;

    struct tensor h = nn_conv2d(nn, &clip->patch_embedding, pixels, (struct conv_fuse){0});
    h = TENSOR_RESHAPE(h, n, patches, width);
    nn_advance(nn, &h, nn_concat_rows(nn, nn_repeat(nn, &clip->class_embedding, n, 1), h));
    nn_advance(nn, &h, nn_add(nn, h, nn_repeat(nn, &clip->position_embedding, n, 1 + patches)));
    nn_advance(nn, &h, nn_layer_norm(nn, &clip->pre_layrnorm, h)); /* [n, 1 + patches, W] */
    h = transformer_forward(nn, clip->layers, (int)clip->config.num_hidden_layers, h,
                            (struct tensor){0});

    int64_t *first = xcalloc((size_t)n, sizeof *first);
    struct tensor pooled = nn_pick_rows(nn, h, first); /* [n, W]: the class token */
    free(first);
    nn_advance(nn, &pooled, nn_layer_norm(nn, &clip->post_layernorm, pooled));
    return nn_leave(nn, scope,
                    nn_linear(nn, &clip->visual_projection, pooled, (struct linear_fuse){0}));
}
