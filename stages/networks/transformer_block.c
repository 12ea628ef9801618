/* SPDX-License-Identifier: Apache-2.0 */
/* The pre-norm transformer block; see transformer_block.h. */
#include "stages/networks/transformer_block.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/netconfig.h"
#include "stages/networks/rows.h"

const struct transformer_names TRANSFORMER_NAMES_CLIP = {
    .norm1 = "layer_norm1",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .out = "self_attn.out_proj",
    .norm2 = "layer_norm2",
    .fc1 = "mlp.fc1",
    .fc2 = "mlp.fc2",
};

const struct transformer_names TRANSFORMER_NAMES_DIFFUSERS = {
    .norm1 = "norm1",
    .q = "attn1.to_q",
    .k = "attn1.to_k",
    .v = "attn1.to_v",
    .out = "attn1.to_out.0",
    .norm2 = "norm3",
    .fc1 = "ff.net.0.proj",
    .fc2 = "ff.net.2",
};

const struct transformer_names TRANSFORMER_NAMES_JOINED = {
    .norm1 = "norm1",
    .q = "qkv",
    .out = "out",
    .norm2 = "norm2",
    .fc1 = "up",
    .fc2 = "down",
};

static int load_qkv(struct transformer_block *block, struct nn *nn, struct weights *weights,
                    const char *prefix, const struct transformer_names *names, int64_t width,
                    struct err *err)
{
    struct netconfig_name q = netconfig_name("%s.%s", prefix, names->q);
    if (!names->k)
        return linear_load(&block->qkv, nn, weights, q.text, width,
                           3 * (int64_t)block->heads * block->head_dim, true, err);
    struct netconfig_name k = netconfig_name("%s.%s", prefix, names->k);
    struct netconfig_name v = netconfig_name("%s.%s", prefix, names->v);
    int64_t inner = (int64_t)block->heads * block->head_dim;
    return linear_load_joined(&block->qkv, nn, weights,
                              (const char *const[]){q.text, k.text, v.text, NULL}, width,
                              (const int64_t[]){inner, inner, inner}, true, err);
}

int transformer_block_load(struct transformer_block *block, struct nn *nn, struct weights *weights,
                           const char *prefix, const struct transformer_names *names,
                           const struct transformer_shape *shape, struct err *err)
{
    block->heads = shape->heads;
    block->head_dim = shape->head_dim;
    block->act = shape->act;
    int64_t inner = (int64_t)shape->heads * shape->head_dim;
    int rc;
    if ((rc = layer_norm_load(&block->norm1, nn, weights, NAME("%s.%s", prefix, names->norm1),
                              shape->width, shape->eps, err)) ||
        (rc = load_qkv(block, nn, weights, prefix, names, shape->width, err)) ||
        (rc = linear_load(&block->out, nn, weights, NAME("%s.%s", prefix, names->out), inner,
                          shape->width, true, err)) ||
        (rc = layer_norm_load(&block->norm2, nn, weights, NAME("%s.%s", prefix, names->norm2),
                              shape->width, shape->eps, err)) ||
        (rc = linear_load(&block->fc1, nn, weights, NAME("%s.%s", prefix, names->fc1), shape->width,
                          shape->hidden, true, err)) ||
        (rc = linear_load(&block->fc2, nn, weights, NAME("%s.%s", prefix, names->fc2),
                          shape->hidden, shape->width, true, err)))
        return rc;
    return 0;
}

void transformer_block_release(struct transformer_block *block)
{
    layer_norm_release(&block->norm1);
    linear_release(&block->qkv);
    linear_release(&block->out);
    layer_norm_release(&block->norm2);
    linear_release(&block->fc1);
    linear_release(&block->fc2);
}

/* Query, key and value side by side: [n, l, 3 inner]. */
static struct tensor joined_qkv(struct nn *nn, struct transformer_block *block, struct tensor x)
{
    struct tensor h = nn_layer_norm(nn, &block->norm1, x); /* [n, l, width] */
    nn_advance(nn, &h, nn_linear(nn, &block->qkv, h, (struct linear_fuse){0}));
    return h;
}

/* Queries of the one, keys and values of the other from channel `offset` on: [n, l, inner]. */
static struct tensor attend(struct nn *nn, const struct transformer_block *block,
                            struct tensor queries, struct tensor keys, int64_t offset,
                            struct tensor mask)
{
    return nn_attention(nn, (struct attention_args){
                                .q = queries,
                                .k = keys,
                                .v = keys,
                                .k_offset = offset,
                                .v_offset = offset + (int64_t)block->heads * block->head_dim,
                                .heads = block->heads,
                                .head_dim = block->head_dim,
                                .scale = 1.0f / sqrtf((float)block->head_dim),
                                .mask = mask,
                            });
}

/* What follows the attention. Takes h. */
static struct tensor add_to_stream(struct nn *nn, struct transformer_block *block, struct tensor x,
                                   struct tensor h)
{
    nn_advance(nn, &h, nn_linear(nn, &block->out, h, (struct linear_fuse){.residual = x}));
    struct tensor sum = h; /* [n, l, width] */

    h = nn_layer_norm(nn, &block->norm2, sum);
    nn_advance(nn, &h, nn_linear(nn, &block->fc1, h, (struct linear_fuse){.act = block->act}));
    nn_advance(nn, &h, nn_linear(nn, &block->fc2, h, (struct linear_fuse){.residual = sum}));
    return h;
}

struct tensor transformer_block_forward(struct nn *nn, struct transformer_block *block,
                                        struct tensor x, struct tensor mask)
{
    size_t scope = nn_enter(nn);
    int64_t inner = (int64_t)block->heads * block->head_dim;
    struct tensor h = joined_qkv(nn, block, x);
    nn_advance(nn, &h, attend(nn, block, h, h, inner, mask));
    return nn_leave(nn, scope, add_to_stream(nn, block, x, h));
}

/* Copies the keys and values of qkv [n, l, 3 inner] to rows at … of seen [n, s, 2 inner]. */
static void keep_seen(struct nn *nn, struct tensor seen, int64_t at, struct tensor qkv)
{
    if (nn_failed(nn))
        return;
    int64_t n = qkv.dim[0], l = qkv.dim[1], s = seen.dim[1], inner = seen.dim[2] / 2;
    BUG_ON(seen.dim[0] != n || qkv.dim[2] != 3 * inner || at < 0 || at + l > s);
    size_t element = dtype_size(seen.dtype), bytes = 2 * (size_t)inner * element;
    for (int64_t i = 0; i < n; i++)
        for (int64_t row = 0; row < l; row++)
            memcpy((char *)seen.data + (size_t)(i * s + at + row) * bytes,
                   (char *)qkv.data + (size_t)((i * l + row) * 3 + 1) * (size_t)inner * element,
                   bytes);
}

struct tensor transformer_block_extend(struct nn *nn, struct transformer_block *block,
                                       struct tensor x, struct tensor seen, int64_t at,
                                       struct tensor mask)
{
    size_t scope = nn_enter(nn);
    struct tensor h = joined_qkv(nn, block, x);
    keep_seen(nn, seen, at, h);
    nn_advance(nn, &h, attend(nn, block, h, seen, 0, mask));
    return nn_leave(nn, scope, add_to_stream(nn, block, x, h));
}

int transformer_load(struct transformer_block **blocks, int count, struct nn *nn,
                     struct weights *weights, const char *prefix,
                     const struct transformer_names *names, const struct transformer_shape *shape,
                     struct err *err)
{
    *blocks = xcalloc((size_t)count, sizeof **blocks);
    int rc = 0;
    for (int i = 0; i < count && rc == 0; i++)
        rc = transformer_block_load(*blocks + i, nn, weights, NAME("%s.%d", prefix, i), names,
                                    shape, err);
    return rc;
}

void transformer_release(struct transformer_block *blocks, int count)
{
    for (int i = 0; blocks && i < count; i++)
        transformer_block_release(&blocks[i]);
    free(blocks);
}

struct tensor transformer_forward(struct nn *nn, struct transformer_block *blocks, int count,
                                  struct tensor x, struct tensor mask)
{
    for (int i = 0; i < count; i++)
        nn_advance(nn, &x, transformer_block_forward(nn, &blocks[i], x, mask));
    return x;
}
