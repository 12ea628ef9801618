/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stages that compute nothing, for measuring the queue alone. `unclip-bench-worker` is
 * unclip-worker with these in the place of text_encode.c, prior.c, decoder.c and upsampler.c: the
 * linker takes the tables below before it looks into stages' library. Each stage leaves zeros where
 * the next one, or the picture's file, wants numbers, as few as the records allow.
 */
#include <stdlib.h>

#include "stages/stage_ops.h"

enum { EMBED_DIM = 8, TEXT_LEN = 1, TEXT_WIDTH = 8, SIDE = 8 };

static int open_nothing(void **state, const char *model_path, struct nn *nn, struct err *err)
{
    (void)model_path, (void)nn, (void)err;
    *state = NULL;
    return 0;
}

static void close_nothing(void *state)
{
    (void)state;
}

static bool zeros(void *out, size_t count, size_t size)
{
    void **buffer = out;
    free(*buffer);
    *buffer = calloc(count, size);
    return *buffer != NULL;
}

static bool make_text(struct item *item)
{
    item->embed_dim = EMBED_DIM;
    item->text_len = TEXT_LEN;
    item->text_width = TEXT_WIDTH;
    return zeros(&item->text_embed, 2 * EMBED_DIM, sizeof(float)) &&
           zeros(&item->text_states, 2 * TEXT_LEN * TEXT_WIDTH, sizeof(float)) &&
           zeros(&item->text_mask, 2 * TEXT_LEN, 1);
}

static bool make_embedding(struct item *item)
{
    return zeros(&item->image_embed, (size_t)item->embed_dim, sizeof(float));
}

static bool make_image(struct item *item)
{
    item->image_size = SIDE;
    return zeros(&item->image, SIDE * SIDE * 3, sizeof(float));
}

static int each(bool (*make)(struct item *item), struct item *const *items, size_t count,
                struct err *err)
{
    for (size_t i = 0; i < count; i++)
        if (!make(items[i]))
            return err_set(err, ERR_OUT_OF_MEMORY, "no memory for nothing");
    return 0;
}

/* X(stage_ops of a stage, what it makes) */
#define STAGES(X)                                                                                  \
    X(text_encode_ops, make_text)                                                                  \
    X(prior_ops, make_embedding)                                                                   \
    X(decoder_ops, make_image)                                                                     \
    X(upsampler_1_ops, make_image)                                                                 \
    X(upsampler_2_ops, make_image)

#define X(ops, make)                                                                               \
    static int run_##ops(void *state, struct item *const *items, size_t count,                     \
                         const struct stage_settings *settings, const struct stage_watch *watch,   \
                         struct err *err)                                                          \
    {                                                                                              \
        (void)state, (void)settings, (void)watch;                                                  \
        return each(make, items, count, err);                                                      \
    }                                                                                              \
    const struct stage_ops ops = {open_nothing, close_nothing, run_##ops};
STAGES(X)
#undef X
