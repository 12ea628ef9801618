/* SPDX-License-Identifier: Apache-2.0 */
/* The U-Net; see unet.h. */
#include "stages/networks/unet.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/rows.h"

/* ---- loading ---- */

static int load_down(struct unet *unet, int level, struct nn *nn, struct weights *weights,
                     struct err *err)
{
    const struct unet_config *config = &unet->config;
    const int64_t *channels = config->block_out_channels;
    struct unet_block_shape shape = {
        .layers = (int)config->layers_per_block[level],
        .oc = channels[level],
        .head_dim = config->attention_head_dim[level],
        .sampler = level < config->levels - 1 ? "downsamplers" : NULL,
        .resample = RESAMPLE_DOWN,
    };
    for (int i = 0; i < shape.layers; i++)
        shape.ic[i] = i == 0 && level > 0 ? channels[level - 1] : channels[level];
    if (config->down_attention[level])
        shape.attention_layers = shape.layers;
    return unet_block_load(&unet->down_blocks[level], nn, weights, NAME("down_blocks.%d", level),
                           config, &shape, err);
}

static int load_mid(struct unet *unet, struct nn *nn, struct weights *weights, struct err *err)
{
    const struct unet_config *config = &unet->config;
    int last = config->levels - 1;
    struct unet_block_shape shape = {
        .layers = (int)config->mid_resnets,
        .ic = {config->block_out_channels[last], config->block_out_channels[last]},
        .oc = config->block_out_channels[last],
        .attention_layers = config->mid_attention ? 1 : 0,
        .head_dim = config->attention_head_dim[last],
    };
    return unet_block_load(&unet->mid_block, nn, weights, "mid_block", config, &shape, err);
}

/* Up block 0 stands at the lowest level. Its skips are what the level's down block left behind, and
   last what entered that. */
static int load_up(struct unet *unet, int up, struct nn *nn, struct weights *weights,
                   struct err *err)
{
    const struct unet_config *config = &unet->config;
    const int64_t *channels = config->block_out_channels;
    int last = config->levels - 1, level = last - up;
    struct unet_block_shape shape = {
        .layers = (int)config->layers_per_block[level] + 1,
        .oc = channels[level],
        .head_dim = config->attention_head_dim[up],
        .sampler = up < last ? "upsamplers" : NULL,
        .resample = RESAMPLE_UP,
    };
    for (int i = 0; i < shape.layers; i++) {
        bool entered = i == shape.layers - 1 && level > 0;
        shape.ic[i] = (i == 0 && up > 0 ? channels[level + 1] : channels[level]) +
                      (entered ? channels[level - 1] : channels[level]);
    }
    if (config->up_attention[up])
        shape.attention_layers = shape.layers;
    return unet_block_load(&unet->up_blocks[up], nn, weights, NAME("up_blocks.%d", up), config,
                           &shape, err);
}

static int load_ends(struct unet *unet, struct nn *nn, struct weights *weights, struct err *err)
{
    const struct unet_config *config = &unet->config;
    int64_t c = config->block_out_channels[0];
    int k_in = (int)config->conv_in_kernel, k_out = (int)config->conv_out_kernel;
    unet->time_embedding = (struct timestep_embedding){.act = config->act_time,
                                                       .flip_sin_to_cos = config->flip_sin_to_cos,
                                                       .freq_shift = (float)config->freq_shift};
    int rc;
    if ((rc = conv2d_load(&unet->conv_in, nn, weights, "conv_in", config->in_channels, c, k_in, 1,
                          k_in / 2, true, err)) ||
        (rc = timestep_embedding_load(&unet->time_embedding, nn, weights, "time_embedding", c,
                                      config->time_embed_dim, config->time_embed_dim, err)) ||
        (rc = group_norm_load(&unet->conv_norm_out, nn, weights, "conv_norm_out", c,
                              (int)config->norm_num_groups, (float)config->norm_eps, err)) ||
        (rc = conv2d_load(&unet->conv_out, nn, weights, "conv_out", c, config->out_channels, k_out,
                          1, k_out / 2, true, err)))
        return rc;
    return 0;
}

/* Block k of all, in the order of the forward pass; NULL behind the last. */
static struct unet_block *block_at(struct unet *unet, int k)
{
    int levels = unet->config.levels;
    if (k < levels)
        return &unet->down_blocks[k];
    if (k == levels)
        return &unet->mid_block;
    return k <= 2 * levels ? &unet->up_blocks[k - levels - 1] : NULL;
}

/* Gives each attention its place in what is kept of a context. */
static void place_kept(struct unet *unet)
{
    for (int k = 0; block_at(unet, k); k++) {
        struct unet_block *block = block_at(unet, k);
        for (int i = 0; i < block->attention_layers; i++) {
            block->attentions[i].kept_at = unet->kept_channels;
            unet->kept_channels += block->attentions[i].add_kv.oc;
        }
    }
}

static int load_weights(struct unet *unet, struct nn *nn, struct weights *weights, struct err *err)
{
    int rc = load_ends(unet, nn, weights, err);
    for (int i = 0; i < unet->config.levels && rc == 0; i++)
        rc = load_down(unet, i, nn, weights, err);
    if (rc == 0)
        rc = load_mid(unet, nn, weights, err);
    for (int i = 0; i < unet->config.levels && rc == 0; i++)
        rc = load_up(unet, i, nn, weights, err);
    place_kept(unet);
    return rc ? rc : weights_finish(weights, err);
}

int unet_load(struct unet *unet, enum unet_class unet_class, struct nn *nn, const char *folder,
              struct err *err)
{
    memset(unet, 0, sizeof *unet);
    struct netconfig file = {0};
    struct weights *weights = NULL;
    char *path = xasprintf("%s/" NETCONFIG_DIFFUSERS_WEIGHTS, folder);
    int rc;
    if ((rc = netconfig_open(&file, folder, err)) == 0 &&
        (rc = unet_config_read(&unet->config, unet_class, &file, err)) == 0 &&
        (rc = weights_open(&weights, path, err)) == 0)
        rc = load_weights(unet, nn, weights, err);
    weights_close(weights);
    netconfig_close(&file);
    free(path);
    if (rc)
        unet_release(unet);
    return rc;
}

void unet_release(struct unet *unet)
{
    conv2d_release(&unet->conv_in);
    timestep_embedding_release(&unet->time_embedding);
    for (int i = 0; i < UNET_LEVELS_MAX; i++) {
        unet_block_release(&unet->down_blocks[i]);
        unet_block_release(&unet->up_blocks[i]);
    }
    unet_block_release(&unet->mid_block);
    group_norm_release(&unet->conv_norm_out);
    conv2d_release(&unet->conv_out);
    memset(unet, 0, sizeof *unet);
}

bool unet_size_fits(const struct unet *unet, int64_t size)
{
    return size > 0 && size % (1 << (unet->config.levels - 1)) == 0;
}

/* ---- the context ---- */

size_t unet_kept_bytes(const struct nn *nn, const struct unet *unet, int64_t l)
{
    return (size_t)(l * unet->kept_channels) * dtype_size(nn_dtype(nn));
}

static void keep_context(struct nn *nn, struct added_kv_attention *attention, struct tensor context,
                         void *const *kept)
{
    size_t scope = nn_enter(nn);
    added_kv_attention_move(attention, added_kv_attention_read(nn, attention, context), kept, true);
    nn_leave_all(nn, scope);
}

void unet_read_context(struct nn *nn, struct unet *unet, struct tensor context, void *const *kept)
{
    for (int k = 0; block_at(unet, k); k++) {
        struct unet_block *block = block_at(unet, k);
        for (int i = 0; i < block->attention_layers; i++)
            keep_context(nn, &block->attentions[i], context, kept);
    }
}

/* ---- forward ---- */

static struct tensor time_forward(struct nn *nn, struct unet *unet, float timestep, int64_t n,
                                  const struct unet_condition *condition)
{
    size_t scope = nn_enter(nn);
    struct tensor time = timestep_embedding_forward(nn, &unet->time_embedding, timestep, n);
    if (unet->config.class_embedding)
        time = nn_add(nn, time, condition->class_embed);
    return nn_leave(nn, scope, nn_act(nn, time, unet->config.act));
}

/* All but the last up block's last layers: h and the skips → its input. Takes h. */
static struct tensor deep_forward(struct unet_pass *pass, struct unet *unet, struct tensor h)
{
    int last = unet->config.levels - 1;
    for (int i = 0; i <= last; i++)
        h = unet_down_forward(pass, &unet->down_blocks[i], h);
    h = unet_mid_forward(pass, &unet->mid_block, h);
    for (int i = 0; i < last; i++)
        h = unet_up_forward(pass, &unet->up_blocks[i], h);
    return unet_up_layers(pass, &unet->up_blocks[last], 0, unet->up_blocks[last].layers - 1, h);
}

struct tensor unet_deep_new(struct nn *nn, const struct unet *unet, int64_t n, int64_t size)
{
    return NN_NEW(nn, nn_dtype(nn), n, size, size, unet->config.block_out_channels[0]);
}

size_t unet_deep_bytes(const struct nn *nn, const struct unet *unet, int64_t size)
{
    return (size_t)(size * size * unet->config.block_out_channels[0]) * dtype_size(nn_dtype(nn));
}

static struct tensor copy(struct nn *nn, struct tensor from, struct tensor to)
{
    if (nn_failed(nn))
        return to;
    BUG_ON(tensor_count(from) != tensor_count(to) || from.dtype != to.dtype);
    memcpy(to.data, from.data, (size_t)tensor_count(to) * dtype_size(to.dtype));
    return to;
}

struct tensor unet_forward_deep(struct nn *nn, struct unet *unet, struct tensor sample,
                                float timestep, const struct unet_condition *condition,
                                const struct unet_deep *deep)
{
    size_t scope = nn_enter(nn);
    struct unet_block *top = &unet->up_blocks[unet->config.levels - 1];
    struct unet_pass pass = {.nn = nn, .condition = condition};
    pass.time = time_forward(nn, unet, timestep, sample.dim[0], condition);

    struct tensor h = nn_conv2d(nn, &unet->conv_in, sample, (struct conv_fuse){0});
    unet_push_skip(&pass, h);
    if (deep && deep->known)
        h = copy(nn, deep->h, NN_NEW(nn, h.dtype, h.dim[0], h.dim[1], h.dim[2], h.dim[3]));
    else
        h = deep_forward(&pass, unet, h);
    if (deep && !deep->known)
        copy(nn, h, deep->h);
    h = unet_up_layers(&pass, top, top->layers - 1, top->layers, h);

    nn_advance(nn, &h,
               nn_group_norm(nn, &unet->conv_norm_out, h,
                             (struct norm_fuse){.act = unet->config.act_out}));
    nn_advance(nn, &h, nn_conv2d(nn, &unet->conv_out, h, (struct conv_fuse){0}));
    return nn_leave(nn, scope, h); /* [n, h, w, out_channels] */
}

struct tensor unet_forward(struct nn *nn, struct unet *unet, struct tensor sample, float timestep,
                           const struct unet_condition *condition)
{
    return unet_forward_deep(nn, unet, sample, timestep, condition, NULL);
}
