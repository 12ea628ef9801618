/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder's attention; see added_kv_attention.h. */
#include "stages/networks/added_kv_attention.h"

#include <math.h>
#include <string.h>

#include "stages/networks/rows.h"

/* Attention()'s own default: the blocks do not hand norm_eps on. */
#define GROUP_NORM_EPS 1e-5f

/* Key and value of one input as one product. */
static int load_kv(struct linear *kv, struct nn *nn, struct weights *weights, const char *prefix,
                   const char *key, const char *value, int64_t ic, int64_t channels,
                   struct err *err)
{
    struct netconfig_name k = netconfig_name("%s.%s", prefix, key);
    struct netconfig_name v = netconfig_name("%s.%s", prefix, value);
    return linear_load_joined(kv, nn, weights, (const char *const[]){k.text, v.text, NULL}, ic,
                              (const int64_t[]){channels, channels}, true, err);
}

int added_kv_attention_load(struct added_kv_attention *attention, struct nn *nn,
                            struct weights *weights, const char *prefix,
                            const struct unet_config *config, int64_t channels, int64_t head_dim,
                            struct err *err)
{
    attention->head_dim = (int)head_dim;
    attention->heads = (int)(channels / head_dim);
    int rc;
    if ((rc = group_norm_load(&attention->group_norm, nn, weights, NAME("%s.group_norm", prefix),
                              channels, (int)config->norm_num_groups, GROUP_NORM_EPS, err)) ||
        (rc = linear_load(&attention->to_q, nn, weights, NAME("%s.to_q", prefix), channels,
                          channels, true, err)) ||
        (rc = load_kv(&attention->to_kv, nn, weights, prefix, "to_k", "to_v", channels, channels,
                      err)) ||
        (rc = load_kv(&attention->add_kv, nn, weights, prefix, "add_k_proj", "add_v_proj",
                      config->cross_attention_dim, channels, err)) ||
        (rc = linear_load(&attention->to_out, nn, weights, NAME("%s.to_out.0", prefix), channels,
                          channels, true, err)))
        return rc;
    return 0;
}

void added_kv_attention_release(struct added_kv_attention *attention)
{
    group_norm_release(&attention->group_norm);
    linear_release(&attention->to_q);
    linear_release(&attention->to_kv);
    linear_release(&attention->add_kv);
    linear_release(&attention->to_out);
}

/* [n, 1, l + pixels]: the context's bias, then nothing for the pixels. */
static struct tensor key_bias(struct nn *nn, struct tensor bias, int64_t pixels)
{
    if (tensor_empty(bias))
        return bias;
    int64_t n = bias.dim[0], l = bias.dim[1];
    struct tensor mask = NN_NEW(nn, DTYPE_F32, n, 1, l + pixels);
    if (tensor_empty(mask))
        return mask;
    memset(mask.data, 0, (size_t)tensor_count(mask) * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        memcpy((float *)mask.data + i * (l + pixels), (const float *)bias.data + i * l,
               (size_t)l * sizeof(float));
    return mask;
}

struct tensor added_kv_attention_read(struct nn *nn, struct added_kv_attention *attention,
                                      struct tensor context)
{
    return nn_linear(nn, &attention->add_kv, context, (struct linear_fuse){0});
}

void added_kv_attention_move(const struct added_kv_attention *attention, struct tensor added,
                             void *const *kept, bool keep)
{
    if (tensor_empty(added))
        return;
    size_t channel = (size_t)added.dim[1] * dtype_size(added.dtype); /* of all tokens */
    nn_move_kept(added, kept, (size_t)attention->kept_at * channel, (size_t)added.dim[2] * channel,
                 keep);
}

struct tensor added_kv_attention_forward(struct nn *nn, struct added_kv_attention *attention,
                                         struct tensor x, struct tensor added, struct tensor bias)
{
    struct linear_fuse none = {0};
    size_t scope = nn_enter(nn);
    int64_t n = x.dim[0], pixels = x.dim[1] * x.dim[2], channels = x.dim[3];
    struct tensor residual = TENSOR_RESHAPE(x, n, pixels, channels);

    struct tensor h = nn_group_norm(nn, &attention->group_norm, residual, (struct norm_fuse){0});
    struct tensor q = nn_linear(nn, &attention->to_q, h, none);    /* [n, pixels, c] */
    nn_advance(nn, &h, nn_linear(nn, &attention->to_kv, h, none)); /* [n, pixels, 2c] */
    struct tensor kv = nn_concat_rows(nn, added, h);               /* [n, l + pixels, 2c] */
    nn_advance(nn, &h,
               nn_attention(nn, (struct attention_args){
                                    .q = q,
                                    .k = kv,
                                    .v = kv,
                                    .v_offset = channels,
                                    .heads = attention->heads,
                                    .head_dim = attention->head_dim,
                                    .scale = 1.0f / sqrtf((float)attention->head_dim),
                                    .mask = key_bias(nn, bias, pixels),
                                })); /* [n, pixels, c] */
    h = nn_linear(nn, &attention->to_out, h, (struct linear_fuse){.residual = residual});
    return nn_leave(nn, scope, TENSOR_RESHAPE(h, x.dim[0], x.dim[1], x.dim[2], x.dim[3]));
}
