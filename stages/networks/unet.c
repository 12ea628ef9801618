/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The U-Net; see unet.h. What the way down leaves behind (`struct skips`) is taken off again on the
 * way up, last first; each tensor is given back as soon as nothing needs it, since a single one has
 * 128 MiB at 1024 pixels, 32 channels and f32.
 */
#include "stages/networks/unet.h"

#include <stdlib.h>
#include <string.h>

#include "stages/networks/rows.h"

#define SKIPS_MAX (1 + UNET_LEVELS_MAX * (UNET_LAYERS_MAX + 1))

/* ---- loading ---- */

static int load_sampler(struct unet_block *block, struct nn *nn, struct weights *weights,
                        const char *prefix, const char *name, const struct unet_config *config,
                        int64_t channels, enum resample resample, struct err *err)
{
    block->has_sampler = true;
    return resnet_block_load(&block->sampler, nn, weights, NAME("%s.%s.0", prefix, name), config,
                             channels, channels, resample, err);
}

static int load_attentions(struct unet_block *block, int count, struct nn *nn,
                           struct weights *weights, const char *prefix,
                           const struct unet_config *config, int64_t channels, int64_t head_dim,
                           struct err *err)
{
    block->attention_layers = count;
    block->attentions = xcalloc((size_t)count, sizeof *block->attentions);
    int rc = 0;
    for (int i = 0; i < count && rc == 0; i++)
        rc = added_kv_attention_load(&block->attentions[i], nn, weights,
                                     NAME("%s.attentions.%d", prefix, i), config, channels,
                                     head_dim, err);
    return rc;
}

/* ic[i] is what residual block i takes in: it depends on what is concatenated. */
static int load_resnets(struct unet_block *block, int count, struct nn *nn, struct weights *weights,
                        const char *prefix, const struct unet_config *config, const int64_t *ic,
                        int64_t oc, struct err *err)
{
    block->layers = count;
    block->resnets = xcalloc((size_t)count, sizeof *block->resnets);
    int rc = 0;
    for (int i = 0; i < count && rc == 0; i++)
        rc = resnet_block_load(&block->resnets[i], nn, weights, NAME("%s.resnets.%d", prefix, i),
                               config, ic[i], oc, RESAMPLE_NONE, err);
    return rc;
}

static int load_down(struct unet *unet, int level, struct nn *nn, struct weights *weights,
                     struct err *err)
{
    const struct unet_config *config = &unet->config;
    struct unet_block *block = &unet->down_blocks[level];
    struct netconfig_name prefix = netconfig_name("down_blocks.%d", level);
    int64_t oc = config->block_out_channels[level];
    int layers = (int)config->layers_per_block[level];
    int64_t ic[UNET_LAYERS_MAX + 1];
    for (int i = 0; i < layers; i++)
        ic[i] = i == 0 ? config->block_out_channels[level ? level - 1 : 0] : oc;

    int rc = load_resnets(block, layers, nn, weights, prefix.text, config, ic, oc, err);
    if (rc == 0 && config->down_attention[level])
        rc = load_attentions(block, layers, nn, weights, prefix.text, config, oc,
                             config->attention_head_dim[level], err);
    if (rc == 0 && level < config->levels - 1)
        rc = load_sampler(block, nn, weights, prefix.text, "downsamplers", config, oc,
                          RESAMPLE_DOWN, err);
    return rc;
}

static int load_mid(struct unet *unet, struct nn *nn, struct weights *weights, struct err *err)
{
    const struct unet_config *config = &unet->config;
    int last = config->levels - 1;
    int64_t c = config->block_out_channels[last];
    int rc = load_resnets(&unet->mid_block, (int)config->mid_resnets, nn, weights, "mid_block",
                          config, (int64_t[]){c, c}, c, err);
    if (rc == 0 && config->mid_attention)
        rc = load_attentions(&unet->mid_block, 1, nn, weights, "mid_block", config, c,
                             config->attention_head_dim[last], err);
    return rc;
}

/* Up block 0 stands at the lowest level; its skips come from the level's own down block, the last
   one from what entered that. */
static int load_up(struct unet *unet, int up, struct nn *nn, struct weights *weights,
                   struct err *err)
{
    const struct unet_config *config = &unet->config;
    struct unet_block *block = &unet->up_blocks[up];
    struct netconfig_name prefix = netconfig_name("up_blocks.%d", up);
    int last = config->levels - 1, level = last - up;
    int64_t oc = config->block_out_channels[level];
    int64_t before = config->block_out_channels[up ? level + 1 : last];
    int64_t entered = config->block_out_channels[level ? level - 1 : 0];
    int layers = (int)config->layers_per_block[level] + 1;
    int64_t ic[UNET_LAYERS_MAX + 1];
    for (int i = 0; i < layers; i++)
        ic[i] = (i == 0 ? before : oc) + (i == layers - 1 ? entered : oc);

    int rc = load_resnets(block, layers, nn, weights, prefix.text, config, ic, oc, err);
    if (rc == 0 && config->up_attention[up])
        rc = load_attentions(block, layers, nn, weights, prefix.text, config, oc,
                             config->attention_head_dim[up], err);
    if (rc == 0 && up < last)
        rc = load_sampler(block, nn, weights, prefix.text, "upsamplers", config, oc, RESAMPLE_UP,
                          err);
    return rc;
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
        (rc = timestep_embedding_load(&unet->time_embedding, nn, weights, c, config->time_embed_dim,
                                      config->time_embed_dim, err)) ||
        (rc = group_norm_load(&unet->conv_norm_out, nn, weights, "conv_norm_out", c,
                              (int)config->norm_num_groups, (float)config->norm_eps, err)) ||
        (rc = conv2d_load(&unet->conv_out, nn, weights, "conv_out", c, config->out_channels, k_out,
                          1, k_out / 2, true, err)))
        return rc;
    return 0;
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

static void block_release(struct unet_block *block)
{
    for (int i = 0; block->resnets && i < block->layers; i++)
        resnet_block_release(&block->resnets[i]);
    for (int i = 0; block->attentions && i < block->attention_layers; i++)
        added_kv_attention_release(&block->attentions[i]);
    resnet_block_release(&block->sampler);
    free(block->resnets);
    free(block->attentions);
}

void unet_release(struct unet *unet)
{
    conv2d_release(&unet->conv_in);
    timestep_embedding_release(&unet->time_embedding);
    for (int i = 0; i < UNET_LEVELS_MAX; i++) {
        block_release(&unet->down_blocks[i]);
        block_release(&unet->up_blocks[i]);
    }
    block_release(&unet->mid_block);
    group_norm_release(&unet->conv_norm_out);
    conv2d_release(&unet->conv_out);
    memset(unet, 0, sizeof *unet);
}

bool unet_size_fits(const struct unet *unet, int64_t size)
{
    return size > 0 && size % (1 << (unet->config.levels - 1)) == 0;
}

/* ---- forward ---- */

/* What all blocks of one pass share. */
struct pass {
    struct nn *nn;
    struct tensor time; /* [n, time_embed_dim], activated */
    const struct unet_condition *condition;
    struct tensor skips[SKIPS_MAX];
    int skip_count;
};

static void push(struct pass *pass, struct tensor h)
{
    BUG_ON(pass->skip_count == SKIPS_MAX);
    pass->skips[pass->skip_count++] = h;
}

/* h with what the way down left behind, which is given back: [n, h, w, a + b]. Takes h. */
static struct tensor concat_skip(struct pass *pass, struct tensor h)
{
    struct tensor *skip = &pass->skips[--pass->skip_count];
    struct tensor joined = nn_concat_channels(pass->nn, h, *skip);
    nn_drop(pass->nn, &h);
    nn_drop(pass->nn, skip);
    return joined;
}

static struct tensor time_forward(struct nn *nn, struct unet *unet, float timestep, int64_t n,
                                  const struct unet_condition *condition)
{
    size_t scope = nn_enter(nn);
    struct tensor time = timestep_embedding_forward(nn, &unet->time_embedding, timestep, n);
    if (unet->config.class_embedding)
        time = nn_add(nn, time, condition->class_embed);
    return nn_leave(nn, scope, nn_act(nn, time, unet->config.act));
}

/* Attention i of the block, where its kind has one. Takes h. */
static struct tensor attend(struct pass *pass, struct unet_block *block, int i, struct tensor h)
{
    if (i < block->attention_layers)
        nn_advance(pass->nn, &h,
                   added_kv_attention_forward(pass->nn, &block->attentions[i], h,
                                              pass->condition->context,
                                              pass->condition->context_bias));
    return h;
}

/* h stays, as the skip that it is. */
static struct tensor down_forward(struct pass *pass, struct unet_block *block, struct tensor h)
{
    for (int i = 0; i < block->layers; i++) {
        h = resnet_block_forward(pass->nn, &block->resnets[i], h, pass->time);
        h = attend(pass, block, i, h);
        push(pass, h);
    }
    if (block->has_sampler) {
        h = resnet_block_forward(pass->nn, &block->sampler, h, pass->time);
        push(pass, h);
    }
    return h;
}

/* h stays, as the last skip. */
static struct tensor mid_forward(struct pass *pass, struct unet_block *block, struct tensor h)
{
    h = resnet_block_forward(pass->nn, &block->resnets[0], h, pass->time);
    for (int i = 1; i < block->layers; i++) {
        h = attend(pass, block, i - 1, h);
        nn_advance(pass->nn, &h, resnet_block_forward(pass->nn, &block->resnets[i], h, pass->time));
    }
    return h;
}

/* Takes h. */
static struct tensor up_forward(struct pass *pass, struct unet_block *block, struct tensor h)
{
    for (int i = 0; i < block->layers; i++) {
        h = concat_skip(pass, h);
        nn_advance(pass->nn, &h, resnet_block_forward(pass->nn, &block->resnets[i], h, pass->time));
        h = attend(pass, block, i, h);
    }
    if (block->has_sampler)
        nn_advance(pass->nn, &h, resnet_block_forward(pass->nn, &block->sampler, h, pass->time));
    return h;
}

struct tensor unet_forward(struct nn *nn, struct unet *unet, struct tensor sample, float timestep,
                           const struct unet_condition *condition)
{
    size_t scope = nn_enter(nn);
    struct pass pass = {.nn = nn, .condition = condition};
    pass.time = time_forward(nn, unet, timestep, sample.dim[0], condition);

    struct tensor h = nn_conv2d(nn, &unet->conv_in, sample, (struct conv_fuse){0});
    push(&pass, h);
    for (int i = 0; i < unet->config.levels; i++)
        h = down_forward(&pass, &unet->down_blocks[i], h);
    h = mid_forward(&pass, &unet->mid_block, h);
    for (int i = 0; i < unet->config.levels; i++)
        h = up_forward(&pass, &unet->up_blocks[i], h);

    nn_advance(nn, &h,
               nn_group_norm(nn, &unet->conv_norm_out, h,
                             (struct norm_fuse){.act = unet->config.act_out}));
    nn_advance(nn, &h, nn_conv2d(nn, &unet->conv_out, h, (struct conv_fuse){0}));
    return nn_leave(nn, scope, h); /* [n, h, w, out_channels] */
}
