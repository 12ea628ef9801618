/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The embedding cache. One entry of the text cache is one row of the item's text tensors. The
 * prompt's row tells how many tokens did not fit; the other rows do not know that of themselves, so
 * they never replace an entry, and as a prompt's row they count as missing.
 */
#include "workers/cache.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/digest.h"
#include "common/safetensors.h"
#include "workers/task_codec.h"

#define DROPPED_KEY    "tokens_dropped"
#define FIRST_TEXT_ROW 2 /* of item.texts; before it stand the prompt and the negative prompt */

/* --- Redis --- */

static int fetch(const struct cache *cache, const char *key, struct redis_reply **reply,
                 struct err *err)
{
    struct redis_arg args[] = {REDIS_STRING("GET"), REDIS_STRING(key)};
    return redis_command(cache->redis, args, 2, reply, err);
}

static int keep(const struct cache *cache, const char *key, const void *bytes, size_t size,
                bool replace, struct err *err)
{
    char ttl[24];
    snprintf(ttl, sizeof(ttl), "%lld", (long long)cache->ttl_s);
    struct redis_arg args[] = {REDIS_STRING("SET"), REDIS_STRING(key), {bytes, size},
                               REDIS_STRING("EX"),  REDIS_STRING(ttl), REDIS_STRING("NX")};
    return redis_command(cache->redis, args, replace ? 5 : 6, NULL, err);
}

/* --- text --- */

static const char *row_text(const struct item *item, int row)
{
    return row == 0   ? item->prompt
           : row == 1 ? item->negative_prompt
                      : item->texts[row - FIRST_TEXT_ROW];
}

/* What is done with a text that is too long tells entries apart, too. */
static void text_key(const char *model, const struct item *item, int row, char out[REDIS_KEY_SIZE])
{
    char hash[DIGEST_TEXT_SIZE];
    struct digest *digest = digest_new();
    digest_add_text(digest, model);
    digest_add_text(digest, row_text(item, row));
    digest_add_text(digest, overflow_name(item->overflow));
    digest_finish(digest, hash);
    redis_key(REDIS_KEY_EMBED_TEXT, hash, out);
}

static bool entry_is(const struct safetensors_entry *entry, enum dtype dtype, int rank)
{
    return entry && entry->dtype == dtype && entry->rank == rank;
}

static bool size_agrees(int *size, int64_t got, int limit)
{
    if (got < 1 || got > limit || (*size && *size != got))
        return false;
    *size = (int)got;
    return true;
}

/* Whether the row's shapes are sound and equal the other rows'; notes them in the item. */
static bool row_sizes(struct item *item, const struct safetensors_entry *embed,
                      const struct safetensors_entry *states, const struct safetensors_entry *mask)
{
    return entry_is(embed, DTYPE_F32, 1) && entry_is(states, DTYPE_F32, 2) &&
           entry_is(mask, DTYPE_U8, 1) &&
           size_agrees(&item->embed_dim, embed->dim[0], TASK_DIM_MAX) &&
           size_agrees(&item->text_len, states->dim[0], TASK_DIM_MAX) &&
           size_agrees(&item->text_width, states->dim[1], TASK_DIM_MAX) &&
           size_agrees(&item->text_len, mask->dim[0], TASK_DIM_MAX);
}

static bool text_alloc(struct item *item, size_t embed, size_t states, size_t mask)
{
    size_t rows = (size_t)item->text_rows;
    if (!item->text_embed)
        item->text_embed = malloc(rows * embed);
    if (!item->text_states)
        item->text_states = malloc(rows * states);
    if (!item->text_mask)
        item->text_mask = malloc(rows * mask);
    return item->text_embed && item->text_states && item->text_mask;
}

static bool all_finite(const float *numbers, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof(float); i++)
        if (!isfinite(numbers[i]))
            return false;
    return true;
}

static bool all_flags(const uint8_t *mask, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (mask[i] > 1)
            return false;
    return true;
}

static bool take_dropped(struct item *item, const char *text)
{
    char *end = NULL;
    long dropped = text ? strtol(text, &end, 10) : -1;
    if (!end || end == text || *end || dropped < 0 || dropped > JOB_PROMPT_MAX * 4)
        return false;
    item->tokens_dropped = (int)dropped;
    return true;
}

static bool take_row(struct item *item, int row, const struct safetensors *file)
{
    const struct safetensors_entry *embed = safetensors_find(file, "text_embed");
    const struct safetensors_entry *states = safetensors_find(file, "text_states");
    const struct safetensors_entry *mask = safetensors_find(file, "text_mask");
    if (!row_sizes(item, embed, states, mask) ||
        (row == 0 && !take_dropped(item, safetensors_metadata(file, DROPPED_KEY))) ||
        !text_alloc(item, embed->bytes, states->bytes, mask->bytes))
        return false;
    char *embed_row = (char *)item->text_embed + (size_t)row * embed->bytes;
    char *states_row = (char *)item->text_states + (size_t)row * states->bytes;
    memcpy(embed_row, embed->data, embed->bytes);
    memcpy(states_row, states->data, states->bytes);
    memcpy(item->text_mask + (size_t)row * mask->bytes, mask->data, mask->bytes);
    return all_finite((const float *)(void *)embed_row, embed->bytes) &&
           all_finite((const float *)(void *)states_row, states->bytes) &&
           all_flags(mask->data, mask->bytes);
}

static int get_row(const struct cache *cache, const char *model, struct item *item, int row,
                   bool *hit, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct redis_reply *reply;
    struct safetensors *file;
    text_key(model, item, row, key);
    *hit = false;
    int rc = fetch(cache, key, &reply, err);
    if (rc)
        return rc;
    if (reply->kind == REDIS_BYTES && !safetensors_parse(&file, reply->bytes, reply->size, NULL)) {
        *hit = take_row(item, row, file);
        safetensors_free(file);
    }
    redis_reply_free(reply);
    return 0;
}

static void text_forget(struct item *item)
{
    free(item->text_embed);
    free(item->text_states);
    free(item->text_mask);
    item->text_embed = item->text_states = NULL;
    item->text_mask = NULL;
    item->embed_dim = item->text_len = item->text_width = item->tokens_dropped = 0;
}

int cache_get_text(const struct cache *cache, const char *model, struct item *item, bool *hit,
                   struct err *err)
{
    int rc = 0;
    *hit = true;
    for (int row = 0; row < item->text_rows && !rc && *hit; row++)
        rc = get_row(cache, model, item, row, hit, err);
    if (rc || !*hit) {
        *hit = false;
        text_forget(item);
    }
    return rc;
}

static int put_row(const struct cache *cache, const char *model, const struct item *item, int row,
                   struct err *err)
{
    int64_t d = item->embed_dim, l = item->text_len, w = item->text_width;
    struct safetensors_entry entries[] = {{.name = "text_embed",
                                           .dtype = DTYPE_F32,
                                           .rank = 1,
                                           .dim = {d},
                                           .data = item->text_embed + row * d},
                                          {.name = "text_states",
                                           .dtype = DTYPE_F32,
                                           .rank = 2,
                                           .dim = {l, w},
                                           .data = item->text_states + row * l * w},
                                          {.name = "text_mask",
                                           .dtype = DTYPE_U8,
                                           .rank = 1,
                                           .dim = {l},
                                           .data = item->text_mask + row * l}};
    char key[REDIS_KEY_SIZE], dropped[16];
    void *bytes;
    size_t size;
    snprintf(dropped, sizeof(dropped), "%d", item->tokens_dropped);
    struct safetensors_metadata_pair note = {DROPPED_KEY, dropped};
    int rc = safetensors_encode(entries, 3, &note, row == 0, &bytes, &size, err);
    if (rc)
        return rc;
    text_key(model, item, row, key);
    rc = keep(cache, key, bytes, size, row == 0, err);
    free(bytes);
    return rc;
}

int cache_put_text(const struct cache *cache, const char *model, const struct item *item,
                   struct err *err)
{
    int rc = 0;
    for (int row = 0; row < item->text_rows && !rc; row++)
        rc = put_row(cache, model, item, row, err);
    return rc;
}

/* --- prior --- */

static void prior_key(const char *model, const struct task *task, char out[REDIS_KEY_SIZE])
{
    char hash[DIGEST_TEXT_SIZE], guidance[32], eta[32], threshold[32];
    const struct hop *hop = task_hop(task);
    struct digest *digest = digest_new();
    snprintf(guidance, sizeof(guidance), "%.17g", hop_number(hop->guidance));
    snprintf(eta, sizeof(eta), "%.17g", hop_number(hop->eta));
    snprintf(threshold, sizeof(threshold), "%.17g", hop_number(hop->threshold));
    digest_add_text(digest, model);
    digest_add_text(digest, task->prompt);
    digest_add_text(digest, task->negative_prompt);
    digest_add_number(digest, task->seed);
    digest_add_number(digest, hop->steps);
    digest_add_text(digest, guidance);
    digest_add_text(digest, sampler_name(hop->sampler));
    digest_add_text(digest, eta);
    digest_add_text(digest, threshold);
    digest_add_text(digest, prior_kind_name(hop->prior));
    digest_add_number(digest, hop->candidates > 1 ? hop->candidates : 1);
    digest_add_text(digest, overflow_name(task->overflow));
    digest_finish(digest, hash);
    redis_key(REDIS_KEY_EMBED_PRIOR, hash, out);
}

/* Into a scratch item first: the real one keeps its generator when the entry is damaged. */
static bool take_prior(struct item *item, const void *bytes, size_t size)
{
    struct item entry;
    item_init(&entry, "", "", 0);
    bool good = !tensors_decode(&entry, TENSORS_RNG | TENSORS_IMAGE_EMBED, bytes, size, NULL) &&
                entry.embed_dim == item->embed_dim;
    if (good) {
        free(item->image_embed);
        item->image_embed = entry.image_embed;
        item->rng = entry.rng;
        entry.image_embed = NULL;
    }
    item_release(&entry);
    return good;
}

int cache_get_prior(const struct cache *cache, const char *model, const struct task *task,
                    struct item *item, bool *hit, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct redis_reply *reply;
    *hit = false;
    if (item->text_rows > FIRST_TEXT_ROW)
        return 0;
    prior_key(model, task, key);
    int rc = fetch(cache, key, &reply, err);
    if (rc)
        return rc;
    *hit = reply->kind == REDIS_BYTES && take_prior(item, reply->bytes, reply->size);
    redis_reply_free(reply);
    return 0;
}

int cache_put_prior(const struct cache *cache, const char *model, const struct task *task,
                    const struct item *item, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    void *bytes;
    size_t size;
    if (item->text_rows > FIRST_TEXT_ROW)
        return 0;
    int rc = tensors_encode(item, TENSORS_RNG | TENSORS_IMAGE_EMBED, &bytes, &size, err);
    if (rc)
        return rc;
    prior_key(model, task, key);
    rc = keep(cache, key, bytes, size, true, err);
    free(bytes);
    return rc;
}

/* --- pictures --- */

static void image_key(const char *model, const struct item_input *input, char out[REDIS_KEY_SIZE])
{
    char hash[DIGEST_TEXT_SIZE];
    struct digest *digest = digest_new();
    digest_add_text(digest, model);
    digest_add_number(digest, input->width);
    digest_add_number(digest, input->height);
    digest_add(digest, input->pixels, (size_t)input->width * (size_t)input->height * 3);
    digest_finish(digest, hash);
    redis_key(REDIS_KEY_EMBED_IMAGE, hash, out);
}

static float *take_image(const void *bytes, size_t size, int *dim)
{
    struct item entry;
    item_init(&entry, "", "", 0);
    float *embed = NULL;
    if (tensors_decode(&entry, TENSORS_IMAGE_EMBED, bytes, size, NULL) == 0) {
        embed = entry.image_embed;
        *dim = entry.embed_dim;
        entry.image_embed = NULL;
    }
    item_release(&entry);
    return embed;
}

int cache_get_image(const struct cache *cache, const char *model, const struct item_input *input,
                    float **embed, int *dim, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct redis_reply *reply;
    image_key(model, input, key);
    *embed = NULL;
    int rc = fetch(cache, key, &reply, err);
    if (rc)
        return rc;
    if (reply->kind == REDIS_BYTES)
        *embed = take_image(reply->bytes, reply->size, dim);
    redis_reply_free(reply);
    return 0;
}

int cache_put_image(const struct cache *cache, const char *model, const struct item_input *input,
                    const float *embed, int dim, struct err *err)
{
    struct item entry = {.embed_dim = dim,
                         .image_embed = (float *)(uintptr_t)embed}; /* only read */
    char key[REDIS_KEY_SIZE];
    void *bytes;
    size_t size;
    int rc = tensors_encode(&entry, TENSORS_IMAGE_EMBED, &bytes, &size, err);
    if (rc)
        return rc;
    image_key(model, input, key);
    rc = keep(cache, key, bytes, size, true, err);
    free(bytes);
    return rc;
}
