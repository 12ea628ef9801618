/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stage text-encode: an item's texts through tokenizer and CLIP's text encoder. As in
 * the pipeline, the encoder sees no mask; the mask goes on to prior and decoder. A text that is
 * read in parts (OVERFLOW_SPLIT) gets the mean of their embeddings and states, and the mask of the
 * longest.
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
    item->text_embed = calloc(rows * (size_t)config->projection_dim, sizeof(float));
    item->text_states = calloc(rows * l * w, sizeof(float));
    item->text_mask = calloc(rows, l);
    if (!item->text_embed || !item->text_states || !item->text_mask)
        err_set(&item->err, ERR_OUT_OF_MEMORY, "cannot hold the text of %zu x %zu numbers", l, w);
    return item_live(item);
}

/* A part of one of an item's texts; as a rule the whole of it. */
struct row {
    struct item *item;
    int row;
    int part, parts;
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

/* The part's ids [L] and mask [L]. */
static int tokenize(const struct text_encode *stage, const struct row *row, int32_t *ids,
                    uint8_t *mask, int *dropped, struct err *err)
{
    const char *text = text_of(row);
    int rc =
        tokenizer_encode(stage->tokenizer, text, strlen(text), row->part, ids, mask, dropped, err);
    for (int64_t i = 0; i < stage->length && rc == 0; i++)
        if (ids[i] < 0 || ids[i] >= stage->clip.config.vocab_size)
            rc = err_set(err, ERR_INVALID_MODEL,
                         "the tokenizer gives token %d, the text encoder knows %lld", ids[i],
                         (long long)stage->clip.config.vocab_size);
    return rc;
}

/* Adds the part's share: of a text in one part it is the whole, bit by bit. */
static void add_share(struct tensor from, int64_t at, float *to, int64_t count, int parts,
                      float *scratch)
{
    tensor_get(from, at, parts == 1 ? to : scratch, count);
    for (int64_t i = 0; i < count && parts > 1; i++)
        to[i] += scratch[i] / (float)parts;
}

static int run_pass(struct text_encode *stage, const struct row *rows, size_t count, int32_t *ids,
                    uint8_t *mask, struct err *err)
{
    const struct clip_text_config *config = &stage->clip.config;
    int64_t l = stage->length, d = config->projection_dim, lw = l * config->hidden_size;
    float *scratch = xmalloc((size_t)(d > lw ? d : lw) * sizeof *scratch);
    int rc = 0, ignored;
    for (size_t i = 0; i < count && rc == 0; i++) {
        uint8_t *all = rows[i].item->text_mask + rows[i].row * l;
        rc = tokenize(stage, &rows[i], ids + (int64_t)i * l, mask, &ignored, err);
        for (int64_t k = 0; k < l && rc == 0; k++)
            all[k] |= mask[k];
    }
    if (rc == 0) {
        size_t scope = nn_enter(stage->nn);
        struct clip_text_output out =
            clip_text_forward(stage->nn, &stage->clip, ids, (int64_t)count, l);
        for (int64_t i = 0; i < (int64_t)count; i++) {
            struct item *item = rows[i].item;
            int row = rows[i].row, parts = rows[i].parts;
            add_share(out.embed, i * d, item->text_embed + row * d, d, parts, scratch);
            add_share(out.states, i * lw, item->text_states + row * lw, lw, parts, scratch);
        }
        nn_leave_all(stage->nn, scope);
        rc = nn_finish(stage->nn, err);
    }
    free(scratch);
    return rc;
}

/* In how many parts the text is read; fails the item when it must not be cut. */
static int count_parts(const struct text_encode *stage, const struct row *row, int32_t *ids,
                       uint8_t *mask, struct err *err)
{
    struct item *item = row->item;
    int dropped = 0, room = (int)stage->length - 2;
    if (tokenize(stage, row, ids, mask, &dropped, err))
        return 0;
    if (row->row == ITEM_ROW_PROMPT)
        item->tokens_dropped = dropped;
    if (dropped > 0 && item->overflow == OVERFLOW_REFUSE)
        err_set(&item->err, ERR_INVALID_JOB,
                "'%.40s…' is too long for the model: %d tokens, it reads %d", text_of(row),
                room + dropped, room);
    return item->overflow == OVERFLOW_SPLIT ? 1 + (dropped + room - 1) / room : 1;
}

struct rows {
    struct row *list; /* owned */
    size_t count, room;
};

static void rows_add(struct rows *rows, const struct row *row)
{
    if (rows->count == rows->room) {
        rows->room = rows->room ? 2 * rows->room : 64;
        rows->list = xrealloc(rows->list, rows->room * sizeof *rows->list);
    }
    rows->list[rows->count++] = *row;
}

/* The parts of all texts of the items that can be held. */
static int list_rows(const struct text_encode *stage, struct item *const *items, size_t count,
                     struct rows *rows, int32_t *ids, uint8_t *mask, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!item_live(items[i]) || !allocate(stage, items[i]))
            continue;
        for (int row = 0; row < items[i]->text_rows; row++) {
            struct row next = {.item = items[i], .row = row};
            next.parts = count_parts(stage, &next, ids, mask, err);
            if (next.parts == 0)
                return -(int)err->code;
            for (; next.part < next.parts; next.part++)
                rows_add(rows, &next);
        }
    }
    return 0;
}

static int text_encode_run(void *state, struct item *const *items, size_t count,
                           const struct stage_settings *settings, const struct stage_watch *watch,
                           struct err *err)
{
    (void)settings; /* nothing to set, and no steps to watch */
    (void)watch;
    struct text_encode *stage = state;
    struct rows rows = {0};
    int32_t *ids = xmalloc(ROWS_A_PASS * (size_t)stage->length * sizeof *ids);
    uint8_t *mask = xmalloc((size_t)stage->length);
    int rc = list_rows(stage, items, count, &rows, ids, mask, err);
    for (size_t next = 0; next < rows.count && rc == 0; next += ROWS_A_PASS) {
        size_t left = rows.count - next;
        rc = run_pass(stage, rows.list + next, left < ROWS_A_PASS ? left : ROWS_A_PASS, ids, mask,
                      err);
    }
    free(mask);
    free(ids);
    free(rows.list);
    return rc;
}

const struct stage_ops text_encode_ops = {text_encode_open, text_encode_close, text_encode_run};
