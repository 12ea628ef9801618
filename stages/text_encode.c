/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage text-encode: prompt and negative prompt through tokenizer and CLIP's text encoder. As in
 * the pipeline, the encoder sees no mask; the mask goes on to prior and decoder.
 */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/clip_text.h"
#include "stages/stage_ops.h"
#include "stages/tokenizer.h"

#define ITEMS_A_PASS 32 /* bounds the memory of one forward pass */

struct text_encode {
    struct nn *nn; /* borrowed */
    struct tokenizer *tokenizer;
    struct clip_text clip;
    int64_t length; /* L: tokens of a text */
};

static void text_encode_close(void *state)
{
    struct text_encode *stage = state;
    if (!stage)
        return;
    tokenizer_free(stage->tokenizer);
    clip_text_release(&stage->clip);
    free(stage);
}

static int text_encode_open(void **state, const char *model_path, struct nn *nn, struct err *err)
{
    struct text_encode *stage = xcalloc(1, sizeof *stage);
    char *tokenizer = xasprintf("%s/tokenizer", model_path);
    char *encoder = xasprintf("%s/text_encoder", model_path);
    stage->nn = nn;
    int rc;
    if ((rc = tokenizer_load(&stage->tokenizer, tokenizer, err)) == 0)
        rc = clip_text_load(&stage->clip, nn, encoder, err);
    if (rc == 0) {
        stage->length = tokenizer_max_length(stage->tokenizer);
        if (stage->length > stage->clip.config.max_position_embeddings)
            rc = err_set(err, ERR_INVALID_MODEL,
                         "the tokenizer makes %lld tokens, the text encoder takes %lld",
                         (long long)stage->length,
                         (long long)stage->clip.config.max_position_embeddings);
    }
    free(tokenizer);
    free(encoder);
    if (rc)
        text_encode_close(stage);
    else
        *state = stage;
    return rc;
}

/* One text's ids [L] and mask [L]. */
static int encode(struct text_encode *stage, const char *text, int32_t *ids, uint8_t *mask,
                  int *dropped, struct err *err)
{
    int rc = tokenizer_encode(stage->tokenizer, text, strlen(text), ids, mask, dropped, err);
    if (rc)
        return rc;
    for (int64_t i = 0; i < stage->length; i++)
        if (ids[i] < 0 || ids[i] >= stage->clip.config.vocab_size)
            return err_set(err, ERR_INVALID_MODEL,
                           "the tokenizer gives token %d, the text encoder knows %lld", ids[i],
                           (long long)stage->clip.config.vocab_size);
    return 0;
}

static bool allocate(const struct text_encode *stage, struct item *item)
{
    const struct clip_text_config *config = &stage->clip.config;
    size_t l = (size_t)stage->length, w = (size_t)config->hidden_size;
    free(item->text_embed);
    free(item->text_states);
    free(item->text_mask);
    item->embed_dim = (int)config->projection_dim;
    item->text_len = (int)l;
    item->text_width = (int)w;
    item->text_embed = malloc(ITEM_ROWS * (size_t)config->projection_dim * sizeof(float));
    item->text_states = malloc(ITEM_ROWS * l * w * sizeof(float));
    item->text_mask = malloc(ITEM_ROWS * l);
    if (!item->text_embed || !item->text_states || !item->text_mask)
        err_set(&item->err, ERR_OUT_OF_MEMORY, "cannot hold the text of %zu x %zu numbers", l, w);
    return item_live(item);
}

/* Tokens of both texts into ids [2][L] and the item's mask. */
static int tokenize(struct text_encode *stage, struct item *item, int32_t *ids, struct err *err)
{
    const char *negative = item->negative_prompt ? item->negative_prompt : "";
    int negative_dropped;
    int rc = encode(stage, item->prompt, ids, item->text_mask, &item->tokens_dropped, err);
    return rc ? rc
              : encode(stage, negative, ids + stage->length, item->text_mask + stage->length,
                       &negative_dropped, err);
}

static int run_pass(struct text_encode *stage, struct item *const *items, size_t count,
                    int32_t *ids, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = tokenize(stage, items[i], ids + i * ITEM_ROWS * (size_t)stage->length, err);
    if (rc)
        return rc;
    size_t scope = nn_enter(stage->nn);
    struct clip_text_output out = clip_text_forward(stage->nn, &stage->clip, ids,
                                                    (int64_t)(ITEM_ROWS * count), stage->length);
    for (size_t i = 0; i < count; i++) {
        int64_t embeds = ITEM_ROWS * items[i]->embed_dim;
        int64_t states = ITEM_ROWS * (int64_t)items[i]->text_len * items[i]->text_width;
        tensor_get(out.embed, (int64_t)i * embeds, items[i]->text_embed, embeds);
        tensor_get(out.states, (int64_t)i * states, items[i]->text_states, states);
    }
    nn_leave_all(stage->nn, scope);
    return nn_finish(stage->nn, err);
}

static int text_encode_run(void *state, struct item *const *items, size_t count,
                           const struct stage_settings *settings, const struct stage_watch *watch,
                           struct err *err)
{
    (void)settings; /* nothing to set, and no steps to watch */
    (void)watch;
    struct text_encode *stage = state;
    struct item *pass[ITEMS_A_PASS];
    int32_t *ids = xmalloc(ITEMS_A_PASS * ITEM_ROWS * (size_t)stage->length * sizeof *ids);
    int rc = 0;
    for (size_t next = 0; next < count && rc == 0;) {
        size_t in_pass = 0;
        for (; next < count && in_pass < ITEMS_A_PASS; next++)
            if (item_live(items[next]) && allocate(stage, items[next]))
                pass[in_pass++] = items[next];
        if (in_pass)
            rc = run_pass(stage, pass, in_pass, ids, err);
    }
    free(ids);
    return rc;
}

const struct stage_ops text_encode_ops = {text_encode_open, text_encode_close, text_encode_run};
