/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries of the embedding cache in Redis. First byte `p`: a prior's entry is what follows; else
 * two rows of a text's: the first one's size, two bytes, then both. An entry that counts is one
 * that the next stage takes from a task record.
 */
#include "tests/fuzz/fuzz.h"
#include "workers/cache.h"
#include "workers/task_codec.h"

static struct input entries[2];
static int asked;

int __wrap_redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                         struct redis_reply **reply, struct err *err);

int __wrap_redis_command(struct redis *redis, const struct redis_arg *args, size_t count,
                         struct redis_reply **reply, struct err *err)
{
    struct input entry = entries[asked++ % 2];
    (void)redis, (void)args, (void)count, (void)err;
    *reply = xcalloc(1, sizeof **reply);
    **reply = (struct redis_reply){
        .kind = REDIS_BYTES, .bytes = (const char *)entry.data, .size = entry.size};
    return 0;
}

/* What a worker writes for the next stage, which reads it. */
static void hand_on(const struct item *item, unsigned groups)
{
    struct item next;
    struct err err;
    void *bytes;
    size_t size;
    item_init(&next, "", "", 0);
    BUG_ON(tensors_encode(item, groups, &bytes, &size, &err) != 0);
    BUG_ON(tensors_decode(&next, groups, bytes, size, &err) != 0);
    item_release(&next);
    free(bytes);
}

static void get_text(const struct cache *cache)
{
    struct item item;
    struct err err;
    bool hit = false;
    item_init(&item, "a red heart", "", 43);
    BUG_ON(cache_get_text(cache, "model", &item, &hit, &err) != 0);
    BUG_ON(item.tokens_dropped < 0);
    if (hit)
        hand_on(&item, TENSORS_RNG | TENSORS_TEXT);
    else
        BUG_ON(item.text_embed || item.text_states || item.text_mask);
    item_release(&item);
}

static void get_prior(const struct cache *cache)
{
    struct task task = {.hops = 1, .route = {{STAGE_PRIOR, 5, 2}}};
    struct item item;
    struct err err;
    bool hit = false;
    task.prompt = xstrdup("a red heart");
    task.negative_prompt = xstrdup("");
    item_init(&item, task.prompt, task.negative_prompt, 43);
    item.embed_dim = 3;
    BUG_ON(cache_get_prior(cache, "model", &task, &item, &hit, &err) != 0);
    if (hit)
        hand_on(&item, TENSORS_RNG | TENSORS_IMAGE_EMBED);
    BUG_ON(item.embed_dim != 3 || hit != (item.image_embed != NULL));
    item_release(&item);
    task_release(&task);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct cache cache = {NULL, 3600};
    struct input input = {data, size};
    uint8_t kind = take_byte(&input);
    size_t first = take_byte(&input);
    asked = 0;
    if (kind == 'p') {
        entries[0] = (struct input){data + (size > 0), size - (size > 0)};
        get_prior(&cache);
        return 0;
    }
    first = first << 8 | take_byte(&input);
    first = first < input.size ? first : input.size;
    entries[0] = (struct input){input.data, first};
    entries[1] = (struct input){input.data + first, input.size - first};
    get_text(&cache);
    return 0;
}
