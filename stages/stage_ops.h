/* SPDX-License-Identifier: Apache-2.0 */
/* Private to stages/: what a stage gives to the table in stage.c. */
#ifndef UNCLIP_STAGES_STAGE_OPS_H
#define UNCLIP_STAGES_STAGE_OPS_H

#include "stages/stage.h"

/* Functions as their namesakes in stage.h, with the stage's own state in the place of the model. */
struct stage_ops {
    int (*open)(void **state, const char *model_path, struct nn *nn, struct err *err);
    void (*close)(void *state); /* NULL is fine */
    int (*run)(void *state, struct item *const *items, size_t count,
               const struct stage_settings *settings, const struct stage_watch *watch,
               struct err *err);
};
extern const struct stage_ops text_encode_ops;
extern const struct stage_ops prior_ops;
extern const struct stage_ops image_encode_ops;
extern const struct stage_ops decoder_ops;
extern const struct stage_ops upsampler_1_ops;
extern const struct stage_ops upsampler_2_ops;

/* Whether the item is still to be worked on: it has not failed. */
bool item_live(const struct item *item);
/* Fails the item, and only it, unless it has the text tensors of these sizes: ERR_INVALID_RECORD.
 */
bool item_check_text(struct item *item, int64_t embed_dim, int64_t text_len, int64_t text_width);
/* Makes *pixels [size, size, 3], clamped to [-1, 1], the item's picture; *pixels becomes NULL. */
void item_take_image(struct item *item, float **pixels, int size);
/* Rows of an item's text tensors: the conditional and the unconditional half of guidance. */
enum { ITEM_ROW_PROMPT, ITEM_ROW_NEGATIVE, ITEM_ROWS };

#endif
