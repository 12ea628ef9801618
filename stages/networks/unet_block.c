/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One level of the U-Net; see unet_block.h. Each tensor is given back as soon as nothing needs it,
 * since a single one has 128 MiB at 1024 pixels, 32 channels and f32.
 */
#include "stages/networks/unet_block.h"

#include <stdlib.h>

#include "common/memory.h"
#include "stages/networks/rows.h"

static int load_resnets(struct unet_block *block, struct nn *nn, struct weights *weights,
                        const char *prefix, const struct unet_config *config,
                        const struct unet_block_shape *shape, struct err *err)
{
    block->layers = shape->layers;
    block->resnets = xcalloc((size_t)shape->layers, sizeof *block->resnets);
    int rc = 0;
    for (int i = 0; i < shape->layers && rc == 0; i++)
        rc = resnet_block_load(&block->resnets[i], nn, weights, NAME("%s.resnets.%d", prefix, i),
                               config, shape->ic[i], shape->oc, RESAMPLE_NONE, err);
    return rc;
}

static int load_attentions(struct unet_block *block, struct nn *nn, struct weights *weights,
                           const char *prefix, const struct unet_config *config,
                           const struct unet_block_shape *shape, struct err *err)
{
    block->attention_layers = shape->attention_layers;
    block->attentions = xcalloc((size_t)shape->attention_layers + 1, sizeof *block->attentions);
    int rc = 0;
    for (int i = 0; i < shape->attention_layers && rc == 0; i++)
        rc = added_kv_attention_load(&block->attentions[i], nn, weights,
                                     NAME("%s.attentions.%d", prefix, i), config, shape->oc,
                                     shape->head_dim, err);
    return rc;
}

int unet_block_load(struct unet_block *block, struct nn *nn, struct weights *weights,
                    const char *prefix, const struct unet_config *config,
                    const struct unet_block_shape *shape, struct err *err)
{
    int rc = load_resnets(block, nn, weights, prefix, config, shape, err);
    if (rc == 0)
        rc = load_attentions(block, nn, weights, prefix, config, shape, err);
    if (rc || !shape->sampler)
        return rc;
    block->has_sampler = true;
    return resnet_block_load(&block->sampler, nn, weights, NAME("%s.%s.0", prefix, shape->sampler),
                             config, shape->oc, shape->oc, shape->resample, err);
}

void unet_block_release(struct unet_block *block)
{
    for (int i = 0; i < block->layers; i++)
        resnet_block_release(&block->resnets[i]);
    for (int i = 0; i < block->attention_layers; i++)
        added_kv_attention_release(&block->attentions[i]);
    resnet_block_release(&block->sampler);
    free(block->resnets);
    free(block->attentions);
    *block = (struct unet_block){0};
}

void unet_push_skip(struct unet_pass *pass, struct tensor h)
{
    BUG_ON(pass->skip_count == UNET_SKIPS_MAX);
    pass->skips[pass->skip_count++] = h;
}

/* h with the last skip beside it: [n, h, w, a + b]. Both are given back. */
static struct tensor concat_skip(struct unet_pass *pass, struct tensor h)
{
    BUG_ON(pass->skip_count == 0);
    struct tensor *skip = &pass->skips[--pass->skip_count];
    nn_advance(pass->nn, &h, nn_concat_channels(pass->nn, h, *skip));
    nn_drop(pass->nn, skip);
    return h;
}

/* What each sample keeps for this attention, side by side: [n, l, 2 · channels]. */
static struct tensor gather_kept(struct nn *nn, const struct added_kv_attention *attention,
                                 const struct unet_condition *condition, int64_t n)
{
    struct tensor out = NN_NEW(nn, nn_dtype(nn), n, condition->kept_length, attention->add_kv.oc);
    added_kv_attention_move(attention, out, condition->kept, false);
    return out;
}

/* Attention i of the block, where its kind has one. Takes h. */
static struct tensor attend(struct unet_pass *pass, struct unet_block *block, int i,
                            struct tensor h)
{
    if (i >= block->attention_layers)
        return h;
    struct nn *nn = pass->nn;
    struct added_kv_attention *attention = &block->attentions[i];
    const struct unet_condition *condition = pass->condition;
    size_t scope = nn_enter(nn);
    struct tensor added = condition->kept
                              ? gather_kept(nn, attention, condition, h.dim[0])
                              : added_kv_attention_read(nn, attention, condition->context);
    struct tensor out =
        added_kv_attention_forward(nn, attention, h, added, condition->context_bias);
    nn_advance(nn, &h, nn_leave(nn, scope, out));
    return h;
}

struct tensor unet_down_forward(struct unet_pass *pass, struct unet_block *block, struct tensor h)
{
    for (int i = 0; i < block->layers; i++) {
        h = resnet_block_forward(pass->nn, &block->resnets[i], h, pass->time);
        h = attend(pass, block, i, h);
        unet_push_skip(pass, h);
    }
    if (block->has_sampler) {
        h = resnet_block_forward(pass->nn, &block->sampler, h, pass->time);
        unet_push_skip(pass, h);
    }
    return h;
}

struct tensor unet_mid_forward(struct unet_pass *pass, struct unet_block *block, struct tensor h)
{
    h = resnet_block_forward(pass->nn, &block->resnets[0], h, pass->time);
    for (int i = 1; i < block->layers; i++) {
        h = attend(pass, block, i - 1, h);
        nn_advance(pass->nn, &h, resnet_block_forward(pass->nn, &block->resnets[i], h, pass->time));
    }
    return h;
}

struct tensor unet_up_layers(struct unet_pass *pass, struct unet_block *block, int from, int to,
                             struct tensor h)
{
    for (int i = from; i < to; i++) {
        h = concat_skip(pass, h);
        nn_advance(pass->nn, &h, resnet_block_forward(pass->nn, &block->resnets[i], h, pass->time));
        h = attend(pass, block, i, h);
    }
    return h;
}

struct tensor unet_up_forward(struct unet_pass *pass, struct unet_block *block, struct tensor h)
{
    h = unet_up_layers(pass, block, 0, block->layers, h);
    if (block->has_sampler)
        nn_advance(pass->nn, &h, resnet_block_forward(pass->nn, &block->sampler, h, pass->time));
    return h;
}
