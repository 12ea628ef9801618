/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading a U-Net's config.json; see unet_config.h. Keys that steer only kinds of block which are
 * refused anyway (use_linear_projection, downsample_padding, …) or training (dropout) are not
 * looked at, as in the reference.
 */
#include "stages/networks/unet_config.h"

#include <string.h>

/* What a class does not share with the other: its default, where the file has no such key. */
struct unet_traits {
    const char *class_name;
    int64_t in_channels, out_channels;
    const struct netconfig_fixed *fixed;
};

static const struct netconfig_fixed fixed_2d[] = {
    {"center_input_sample", "false"},
    {"time_embedding_type", "\"positional\""},
    {"mid_block_scale_factor", "1"},
    {"add_attention", "false", .required = true},
    {"class_embed_type", "null"},
    {"num_class_embeds", "null"},
    {NULL, NULL},
};

static const struct netconfig_fixed fixed_condition[] = {
    {"center_input_sample", "false"},
    {"time_embedding_type", "\"positional\""},
    {"mid_block_scale_factor", "1"},
    {"num_class_embeds", "null"},
    {"only_cross_attention", "false"},
    {"mid_block_only_cross_attention", "false"},
    {"cross_attention_norm", "null"},
    {"num_attention_heads", "null"},
    {"encoder_hid_dim", "null"},
    {"encoder_hid_dim_type", "null"},
    {"addition_embed_type", "null"},
    {"resnet_skip_time_act", "false"},
    {"resnet_out_scale_factor", "1"},
    {"time_embedding_act_fn", "null"},
    {"timestep_post_act", "null"},
    {"time_cond_proj_dim", "null"},
    {"attention_type", "\"default\""},
    {"class_embeddings_concat", "false"},
    {NULL, NULL},
};

static const struct unet_traits traits[] = {
    [UNET_2D] = {"UNet2DModel", 3, 3, fixed_2d},
    [UNET_2D_CONDITION] = {"UNet2DConditionModel", 4, 4, fixed_condition},
};

static int unsupported_block(const struct netconfig *file, const char *key, int i,
                             const json_t *value, struct err *err)
{
    const char *name = json_is_string(value) ? json_string_value(value) : "no text";
    return err_set(err, ERR_UNSUPPORTED, "%s: %s[%d] is '%.80s', which is not supported",
                   file->what, key, i, name);
}

/* A list of `levels` names, each `plain`, or `attention` where that is not NULL. */
static int read_blocks(const struct netconfig *file, const char *key, int levels, const char *plain,
                       const char *attention, bool *has_attention, struct err *err)
{
    const json_t *list = json_object_get(file->json, key);
    if (!json_is_array(list) || json_array_size(list) != (size_t)levels)
        return err_set(err, ERR_UNSUPPORTED, "%s: %s is not a list of %d names", file->what, key,
                       levels);
    for (int i = 0; i < levels; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        const char *name = json_is_string(value) ? json_string_value(value) : "";
        has_attention[i] = attention && strcmp(name, attention) == 0;
        if (!has_attention[i] && strcmp(name, plain) != 0)
            return unsupported_block(file, key, i, value, err);
    }
    return 0;
}

static int read_mid_block(struct unet_config *config, enum unet_class unet_class,
                          const struct netconfig *file, struct err *err)
{
    bool condition = unet_class == UNET_2D_CONDITION;
    const json_t *value = json_object_get(file->json, "mid_block_type");
    const char *name = condition ? "UNetMidBlock2DCrossAttn" : "UNetMidBlock2D";
    if (value)
        name = json_is_string(value) ? json_string_value(value) : "null";
    config->mid_attention = condition && strcmp(name, "UNetMidBlock2DSimpleCrossAttn") == 0;
    config->mid_resnets = condition && !config->mid_attention ? 1 : 2;
    if (!config->mid_attention && strcmp(name, "UNetMidBlock2D") != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: mid_block_type is '%.80s', which is not supported", file->what, name);
    return 0;
}

/* block_out_channels decides the number of levels. */
static int read_levels(struct unet_config *config, enum unet_class unet_class,
                       const struct netconfig *file, struct err *err)
{
    const json_t *channels = json_object_get(file->json, "block_out_channels");
    size_t levels = json_array_size(channels);
    if (levels < 1 || levels > UNET_LEVELS_MAX)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: block_out_channels is not a list of 1 to %d sizes", file->what,
                       UNET_LEVELS_MAX);
    config->levels = (int)levels;
    for (size_t i = 0; i < levels; i++) {
        config->layers_per_block[i] = 2;
        config->attention_head_dim[i] = 8;
    }
    bool condition = unet_class == UNET_2D_CONDITION;
    int rc;
    if ((rc = netconfig_levels(file, "block_out_channels", config->levels, UNET_CHANNELS_MAX,
                               config->block_out_channels, err)) ||
        (rc = netconfig_levels(file, "layers_per_block", config->levels, UNET_LAYERS_MAX,
                               config->layers_per_block, err)) ||
        (rc = netconfig_levels(file, "attention_head_dim", config->levels, UNET_CHANNELS_MAX,
                               config->attention_head_dim, err)) ||
        (rc = read_blocks(file, "down_block_types", config->levels, "ResnetDownsampleBlock2D",
                          condition ? "SimpleCrossAttnDownBlock2D" : NULL, config->down_attention,
                          err)) ||
        (rc =
             read_blocks(file, "up_block_types", config->levels, "ResnetUpsampleBlock2D",
                         condition ? "SimpleCrossAttnUpBlock2D" : NULL, config->up_attention, err)))
        return rc;
    return read_mid_block(config, unet_class, file, err);
}

static int read_acts(struct unet_config *config, enum unet_class unet_class,
                     const struct netconfig *file, struct err *err)
{
    const char *act = "silu";
    int rc = jsonx_string(file->json, "act_fn", &act, file->what, err);
    if (rc)
        return rc;
    if ((rc = act_parse(act, &config->act, err)))
        return err_prefix(err, "%s: act_fn: ", file->what), rc;
    bool condition = unet_class == UNET_2D_CONDITION;
    config->act_time = config->act_out = condition ? config->act : ACT_SILU;
    return 0;
}

static int read_time(struct unet_config *config, const struct netconfig *file, struct err *err)
{
    const char *scale_shift = "default";
    config->time_embed_dim = 4 * config->block_out_channels[0];
    config->flip_sin_to_cos = true;
    int rc;
    if ((rc = netconfig_size(file, "time_embedding_dim", NETCONFIG_WIDTH_MAX,
                             &config->time_embed_dim, err)) ||
        (rc = jsonx_bool(file->json, "flip_sin_to_cos", &config->flip_sin_to_cos, file->what,
                         err)) ||
        (rc = jsonx_double(file->json, "freq_shift", &config->freq_shift, file->what, err)) ||
        (rc = jsonx_string(file->json, "resnet_time_scale_shift", &scale_shift, file->what, err)))
        return rc;
    config->scale_shift = strcmp(scale_shift, "scale_shift") == 0;
    if (!config->scale_shift && strcmp(scale_shift, "default") != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: resnet_time_scale_shift is '%.80s', which is not supported", file->what,
                       scale_shift);
    return 0;
}

static int read_norm(struct unet_config *config, const struct netconfig *file, struct err *err)
{
    config->norm_num_groups = 32;
    config->norm_eps = 1e-5;
    if (json_is_null(json_object_get(file->json, "norm_num_groups")))
        return err_set(err, ERR_UNSUPPORTED, "%s: norm_num_groups is null, which is not supported",
                       file->what);
    int rc;
    if ((rc = netconfig_size(file, "norm_num_groups", UNET_CHANNELS_MAX, &config->norm_num_groups,
                             err)) ||
        (rc = jsonx_double(file->json, "norm_eps", &config->norm_eps, file->what, err)))
        return rc;
    for (int i = 0; i < config->levels; i++)
        if (config->block_out_channels[i] % config->norm_num_groups)
            return err_set(err, ERR_INVALID_MODEL,
                           "%s: block_out_channels[%d] is not a multiple of norm_num_groups",
                           file->what, i);
    return 0;
}

/* The heads must fill the channels of every block that has attention. */
static int check_heads(const struct unet_config *config, const struct netconfig *file,
                       struct err *err)
{
    int last = config->levels - 1;
    for (int i = 0; i <= last; i++) {
        int64_t dim = config->attention_head_dim[i];
        bool down = config->down_attention[i] && config->block_out_channels[i] % dim;
        bool up = config->up_attention[i] && config->block_out_channels[last - i] % dim;
        bool mid = config->mid_attention && i == last && config->block_out_channels[last] % dim;
        if (down || up || mid)
            return err_set(err, ERR_INVALID_MODEL,
                           "%s: attention_head_dim %lld does not divide its block's channels",
                           file->what, (long long)dim);
    }
    return 0;
}

static int read_condition(struct unet_config *config, const struct netconfig *file, struct err *err)
{
    const char *type = NULL;
    config->cross_attention_dim = 1280;
    int rc;
    if ((rc = netconfig_size(file, "cross_attention_dim", NETCONFIG_WIDTH_MAX,
                             &config->cross_attention_dim, err)) ||
        (rc = netconfig_size(file, "conv_in_kernel", UNET_KERNEL_MAX, &config->conv_in_kernel,
                             err)) ||
        (rc = netconfig_size(file, "conv_out_kernel", UNET_KERNEL_MAX, &config->conv_out_kernel,
                             err)) ||
        (rc = jsonx_string(file->json, "class_embed_type", &type, file->what, err)))
        return rc;
    config->class_embedding = type != NULL;
    if (type && strcmp(type, "identity") != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: class_embed_type is '%.80s', which is not supported", file->what, type);
    if (config->conv_in_kernel % 2 == 0 || config->conv_out_kernel % 2 == 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: conv_in_kernel or conv_out_kernel is even, which is not supported",
                       file->what);
    return check_heads(config, file, err);
}

int unet_config_read(struct unet_config *config, enum unet_class unet_class,
                     const struct netconfig *file, struct err *err)
{
    const struct unet_traits *own = &traits[unet_class];
    *config = (struct unet_config){.in_channels = own->in_channels,
                                   .out_channels = own->out_channels,
                                   .conv_in_kernel = 3,
                                   .conv_out_kernel = 3};
    int rc;
    if ((rc = netconfig_class(file, own->class_name, err)) ||
        (rc = netconfig_check(file, own->fixed, err)) ||
        (rc = netconfig_size(file, "sample_size", NETCONFIG_SIDE_MAX, &config->sample_size, err)) ||
        (rc = netconfig_size(file, "in_channels", UNET_CHANNELS_MAX, &config->in_channels, err)) ||
        (rc =
             netconfig_size(file, "out_channels", UNET_CHANNELS_MAX, &config->out_channels, err)) ||
        (rc = read_levels(config, unet_class, file, err)) ||
        (rc = read_acts(config, unet_class, file, err)) || (rc = read_time(config, file, err)) ||
        (rc = read_norm(config, file, err)))
        return rc;
    return unet_class == UNET_2D_CONDITION ? read_condition(config, file, err) : 0;
}
