/* SPDX-License-Identifier: Apache-2.0 */
/* The table of stages, and items; see stage.h. */
#include "stages/stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/job.h"
#include "common/memory.h"
#include "stages/stage_ops.h"

static const struct stage_ops *const table[STAGE_COUNT] = {
    [STAGE_TEXT_ENCODE] = &text_encode_ops,   [STAGE_PRIOR] = &prior_ops,
    [STAGE_IMAGE_ENCODE] = &image_encode_ops, [STAGE_DECODER] = &decoder_ops,
    [STAGE_UPSAMPLER_1] = &upsampler_1_ops,   [STAGE_UPSAMPLER_2] = &upsampler_2_ops,
};

struct stage_model {
    const struct stage_ops *ops;
    void *state; /* owned by ops */
};

struct stage_settings stage_settings_of(const struct hop *hop)
{
    return (struct stage_settings){
        .steps = hop->steps,
        .guidance = hop_number(hop->guidance),
        .sampler = hop->sampler,
        .eta = hop_number(hop->eta),
        .reuse = (int)hop->reuse,
        .threshold = hop_number(hop->threshold),
        .prior = hop->prior,
        .candidates = (int)hop->candidates,
        .start = hop->start,
        .strength = hop_number(hop->strength),
        .resample = (int)hop->resample,
    };
}

int stage_open(struct stage_model **out, enum stage stage, const char *model_path, struct nn *nn,
               struct err *err)
{
    struct stage_model *model = xcalloc(1, sizeof *model);
    model->ops = table[stage];
    int rc = model->ops->open(&model->state, model_path, nn, err);
    if (rc) {
        free(model);
        return rc;
    }
    *out = model;
    return 0;
}

void stage_close(struct stage_model *model)
{
    if (!model)
        return;
    model->ops->close(model->state);
    free(model);
}

int stage_run(struct stage_model *model, struct item *const *items, size_t count,
              const struct stage_settings *settings, const struct stage_watch *watch,
              struct err *err)
{
    return model->ops->run(model->state, items, count, settings, watch, err);
}

void item_init(struct item *item, const char *prompt, const char *negative_prompt, uint64_t seed)
{
    memset(item, 0, sizeof *item);
    item->prompt = prompt;
    item->negative_prompt = negative_prompt;
    item->text_rows = ITEM_ROWS;
    rng_seed(&item->rng, seed);
}

void item_begin(struct item *item, const struct task *task)
{
    const struct sources *sources = &task->sources;
    item_init(item, task->prompt, task->negative_prompt, (uint64_t)task->seed);
    item->type = task->type;
    item->overflow = task->overflow;
    item->theta = sources->theta;
    item->noise_seed = (uint64_t)task->seed + 1;
    item->noise_place = sources->noise_place;
    item->preview = task->preview;
    BUG_ON(sources->count > ITEM_INPUTS_MAX);
    for (int i = 0; i < sources->count; i++)
        if (sources->inputs[i].text)
            item->texts[item->text_count++] = sources->inputs[i].text;
    for (int i = 0; i < task->hop; i++)
        if (task->route[i].stage == STAGE_IMAGE_ENCODE)
            return; /* it has taken the texts in */
    item->text_rows += item->text_count;
}

void item_release(struct item *item)
{
    free(item->text_embed);
    free(item->text_states);
    free(item->text_mask);
    free(item->texts_embeds);
    free(item->image_embed);
    free(item->invert_embed);
    for (int i = 0; i < ITEM_INPUTS_MAX; i++) {
        free(item->inputs[i].pixels);
        free(item->inputs[i].embed);
    }
    free(item->source);
    free(item->mask);
    free(item->image);
    memset(item, 0, sizeof *item);
}

bool item_same_text(const struct item *a, const struct item *b)
{
    bool same = strcmp(a->prompt, b->prompt) == 0 &&
                strcmp(a->negative_prompt, b->negative_prompt) == 0 && a->overflow == b->overflow &&
                a->text_rows == b->text_rows;
    for (int i = 0; same && i < a->text_rows - ITEM_ROWS; i++)
        same = strcmp(a->texts[i], b->texts[i]) == 0;
    return same;
}

static bool copy_buffer(void *to, const void *from, size_t size)
{
    void **buffer = to;
    *buffer = malloc(size);
    if (*buffer)
        memcpy(*buffer, from, size);
    return *buffer != NULL;
}

int item_copy_text(struct item *to, const struct item *from, struct err *err)
{
    size_t rows = (size_t)from->text_rows, d = (size_t)from->embed_dim;
    size_t l = (size_t)from->text_len, w = (size_t)from->text_width;
    to->text_rows = from->text_rows;
    to->embed_dim = from->embed_dim;
    to->text_len = from->text_len;
    to->text_width = from->text_width;
    to->tokens_dropped = from->tokens_dropped;
    if (copy_buffer(&to->text_embed, from->text_embed, rows * d * sizeof(float)) &&
        copy_buffer(&to->text_states, from->text_states, rows * l * w * sizeof(float)) &&
        copy_buffer(&to->text_mask, from->text_mask, rows * l))
        return 0;
    return err_set(err, ERR_OUT_OF_MEMORY, "no memory for an embedding");
}

const float *item_embedding(const struct item *item)
{
    if (item->text_count == 0)
        return item->image_embed;
    return item->text_embed && item->text_rows > ITEM_ROWS
               ? item->text_embed + (size_t)ITEM_ROWS * (size_t)item->embed_dim
               : NULL;
}

bool item_live(const struct item *item)
{
    return item->err.code == ERR_OK;
}

bool item_check_text(struct item *item, int64_t embed_dim, int64_t text_len, int64_t text_width)
{
    if (!item->text_embed || !item->text_states || !item->text_mask || item->text_len < 1)
        err_set(&item->err, ERR_INVALID_RECORD, "the task has no text embedding");
    else if (item->embed_dim != embed_dim || item->text_len != text_len ||
             item->text_width != text_width)
        err_set(&item->err, ERR_INVALID_RECORD,
                "the task's text is %d, %d x %d numbers, the model's %lld, %lld x %lld",
                item->embed_dim, item->text_len, item->text_width, (long long)embed_dim,
                (long long)text_len, (long long)text_width);
    return item_live(item);
}

void item_take_image(struct item *item, float **pixels, int size)
{
    size_t count = (size_t)size * (size_t)size * 3;
    for (size_t i = 0; i < count; i++)
        (*pixels)[i] = fminf(fmaxf((*pixels)[i], -1), 1);
    free(item->image);
    item->image = *pixels;
    item->image_size = size;
    item->resized = false;
    *pixels = NULL;
}
