/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedding cache in Redis: a prompt's embedding and token states, by a SHA-256 of model and
 * text; a prior's image embedding, by a SHA-256 of model, text, seed and settings; a picture's, by
 * a SHA-256 of model and pixels. `model` is the model's fingerprint with the compute dtype
 * (models.h), so that neither a retrained model nor another number format ever gets the wrong
 * entry. Values are safetensors; one that cannot be read counts as missing.
 *
 * All functions return 0, or -ERR_REDIS when Redis is away: then nothing was found or kept.
 */
#ifndef UNCLIP_WORKERS_CACHE_H
#define UNCLIP_WORKERS_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/job.h"
#include "common/redis.h"
#include "stages/stage.h"

struct cache {
    struct redis *redis; /* borrowed */
    int64_t ttl_s;
};

/* Fills in text_embed, text_states, text_mask and tokens_dropped, when all rows are there. The rows
   are kept apart, so that the empty negative prompt is shared by all. */
int cache_get_text(const struct cache *cache, const char *model, struct item *item, bool *hit,
                   struct err *err);
int cache_put_text(const struct cache *cache, const char *model, const struct item *item,
                   struct err *err);
/* Fills in image_embed, and the generator as the prior left it. The embeddings of several texts are
   not kept. */
int cache_get_prior(const struct cache *cache, const char *model, const struct task *task,
                    struct item *item, bool *hit, struct err *err);
int cache_put_prior(const struct cache *cache, const char *model, const struct task *task,
                    const struct item *item, struct err *err);
/* *embed is owned, [*dim]; NULL when there is none. */
int cache_get_image(const struct cache *cache, const char *model, const struct item_input *input,
                    float **embed, int *dim, struct err *err);
/* `embed` [dim] is of the input's pixels. */
int cache_put_image(const struct cache *cache, const char *model, const struct item_input *input,
                    const float *embed, int dim, struct err *err);

#endif
