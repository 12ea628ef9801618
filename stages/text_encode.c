/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage text-encode: an item's texts through tokenizer and CLIP's text encoder. As in
 * the pipeline, the encoder sees no mask; the mask goes on to prior and decoder.
 */
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/networks/clip_text.h"
#include "stages/stage_ops.h"
#include "stages/tokenizer.h"

#define ROWS_A_PASS 64 /* bounds the memory of one forward pass */

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
    size_t rows = (size_t)item->text_rows;
    item->text_embed = malloc(rows * (size_t)config->projection_dim * sizeof(float));
    item->text_states = malloc(rows * l * w * sizeof(float));
    item->text_mask = malloc(rows * l);
    if (!item->text_embed || !item->text_states || !item->text_mask)
        err_set(&item->err, ERR_OUT_OF_MEMORY, "cannot hold the text of %zu x %zu numbers", l, w);
    return item_live(item);
}

/* One text of an item. */
struct row {
    struct item *item;
    int row;
};

static const char *text_of(const struct row *row)
{
    const struct item *item = row->item;
    if (row->row == ITEM_ROW_PROMPT)
        return item->prompt;
    if (row->row >= ITEM_ROWS)
        return item->texts[row->row - ITEM_ROWS];
    return item->negative_prompt ? item->negative_prompt : "";
}

/* Tokens of the text into ids [L] and the item's mask. */
static int tokenize(struct text_encode *stage, const struct row *row, int32_t *ids, struct err *err)
{
    int dropped;
    uint8_t *mask = row->item->text_mask + (int64_t)row->row * stage->length;
    int rc = encode(stage, text_of(row), ids, mask, &dropped, err);
    if (row->row == ITEM_ROW_PROMPT)
        row->item->tokens_dropped = dropped;
    return rc;
}

static int run_pass(struct text_encode *stage, const struct row *rows, size_t count, int32_t *ids,
                    struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < count && rc == 0; i++)
        rc = tokenize(stage, &rows[i], ids + i * (size_t)stage->length, err);
    if (rc)
        return rc;
    size_t scope = nn_enter(stage->nn);
    struct clip_text_output out =
        clip_text_forward(stage->nn, &stage->clip, ids, (int64_t)count, stage->length);
    for (size_t i = 0; i < count; i++) {
        struct item *item = rows[i].item;
        int64_t d = item->embed_dim, lw = (int64_t)item->text_len * item->text_width;
        tensor_get(out.embed, (int64_t)i * d, item->text_embed + rows[i].row * d, d);
        tensor_get(out.states, (int64_t)i * lw, item->text_states + rows[i].row * lw, lw);
    }
    nn_leave_all(stage->nn, scope);
    return nn_finish(stage->nn, err);
}

/* All texts of all items that can be held. Returns how many; *rows is owned. */
static size_t list_rows(const struct text_encode *stage, struct item *const *items, size_t count,
                        struct row **rows)
{
    size_t found = 0, room = 0;
    for (size_t i = 0; i < count; i++)
        room += (size_t)items[i]->text_rows;
    *rows = xcalloc(room + 1, sizeof **rows);
    for (size_t i = 0; i < count; i++) {
        if (!item_live(items[i]) || !allocate(stage, items[i]))
            continue;
        for (int row = 0; row < items[i]->text_rows; row++)
            (*rows)[found++] = (struct row){items[i], row};
    }
    return found;
}

static int text_encode_run(void *state, struct item *const *items, size_t count,
                           const struct stage_settings *settings, const struct stage_watch *watch,
                           struct err *err)
{
    (void)settings; /* nothing to set, and no steps to watch */
    (void)watch;
    struct text_encode *stage = state;
    struct row *rows;
    size_t found = list_rows(stage, items, count, &rows);
    int32_t *ids = xmalloc(ROWS_A_PASS * (size_t)stage->length * sizeof *ids);
    int rc = 0;
    for (size_t next = 0; next < found && rc == 0; next += ROWS_A_PASS)
        rc = run_pass(stage, rows + next, found - next < ROWS_A_PASS ? found - next : ROWS_A_PASS,
                      ids, err);
    free(ids);
    free(rows);
    return rc;
}

const struct stage_ops text_encode_ops = {text_encode_open, text_encode_close, text_encode_run};
