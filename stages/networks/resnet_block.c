/* SPDX-License-Identifier: Apache-2.0 */
/* The U-Net's residual block; see resnet_block.h. */
#include "stages/networks/resnet_block.h"

#include "stages/networks/rows.h"

int resnet_block_load(struct resnet_block *block, struct nn *nn, struct weights *weights,
                      const char *prefix, const struct unet_config *config, int64_t ic, int64_t oc,
                      enum resample resample, struct err *err)
{
    int groups = (int)config->norm_num_groups;
    float eps = (float)config->norm_eps;
    block->has_shortcut = ic != oc;
    block->scale_shift = config->scale_shift;
    block->resample = resample;
    block->act = config->act;
    int rc;
    if ((rc = group_norm_load(&block->norm1, nn, weights, NAME("%s.norm1", prefix), ic, groups, eps,
                              err)) ||
        (rc = conv2d_load(&block->conv1, nn, weights, NAME("%s.conv1", prefix), ic, oc, 3, 1, 1,
                          true, err)) ||
        (rc = linear_load(&block->time_emb_proj, nn, weights, NAME("%s.time_emb_proj", prefix),
                          config->time_embed_dim, block->scale_shift ? 2 * oc : oc, true, err)) ||
        (rc = group_norm_load(&block->norm2, nn, weights, NAME("%s.norm2", prefix), oc, groups, eps,
                              err)) ||
        (rc = conv2d_load(&block->conv2, nn, weights, NAME("%s.conv2", prefix), oc, oc, 3, 1, 1,
                          true, err)) ||
        (block->has_shortcut &&
         (rc = conv2d_load(&block->conv_shortcut, nn, weights, NAME("%s.conv_shortcut", prefix), ic,
                           oc, 1, 1, 0, true, err))))
        return rc;
    return 0;
}

void resnet_block_release(struct resnet_block *block)
{
    group_norm_release(&block->norm1);
    conv2d_release(&block->conv1);
    linear_release(&block->time_emb_proj);
    group_norm_release(&block->norm2);
    conv2d_release(&block->conv2);
    conv2d_release(&block->conv_shortcut);
}

static struct tensor resample(struct nn *nn, enum resample how, struct tensor x)
{
    return how == RESAMPLE_DOWN ? nn_avg_pool_2x(nn, x) : nn_upsample_nearest_2x(nn, x);
}

struct tensor resnet_block_forward(struct nn *nn, struct resnet_block *block, struct tensor x,
                                   struct tensor time)
{
    size_t scope = nn_enter(nn);
    struct tensor none = {0};
    struct tensor t = nn_linear(nn, &block->time_emb_proj, time, (struct linear_fuse){0});

    struct tensor h = nn_group_norm(nn, &block->norm1, x, (struct norm_fuse){.act = block->act});
    if (block->resample != RESAMPLE_NONE) {
        nn_advance(nn, &h, resample(nn, block->resample, h));
        x = resample(nn, block->resample, x);
    }
    nn_advance(nn, &h,
               nn_conv2d(nn, &block->conv1, h,
                         (struct conv_fuse){.add_channels = block->scale_shift ? none : t}));
    nn_advance(nn, &h,
               nn_group_norm(nn, &block->norm2, h,
                             (struct norm_fuse){.scale_shift = block->scale_shift ? t : none,
                                                .act = block->act}));
    if (block->has_shortcut)
        x = nn_conv2d(nn, &block->conv_shortcut, x, (struct conv_fuse){0});
    h = nn_conv2d(nn, &block->conv2, h, (struct conv_fuse){.residual = x}); /* [n, h, w, oc] */
    return nn_leave(nn, scope, h);
}
