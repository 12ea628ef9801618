/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The five stages behind one interface: a stage takes the pictures on their way (items), computes
 * its part for all of them in one batch and leaves the result in them. unclip-worker runs one
 * stage; `unclip generate` runs all of them in one process. No queue, no network, no clock in here.
 *
 *   text-encode   prompt, negative_prompt → text_embed, text_states, text_mask, image rng untouched
 *   prior         text_* → image_embed               (draws: latents [1,D], then noise per step)
 *   decoder       image_embed, text_* → image        (64 px; draws [1,3,S,S], then noise)
 *   upsampler-1   image 64 → image 256               (draws [1,3,S,S], then noise)
 *   upsampler-2   image 256 → image 1024             (the same; Lanczos where the model has none)
 *
 * Source: UnCLIPPipeline.__call__ (diffusers 0.33.1) and its order of draws; one generator a
 * picture.
 */
#ifndef UNCLIP_STAGES_STAGE_H
#define UNCLIP_STAGES_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/protocol.h"
#include "stages/nn/nn.h"
#include "stages/rng.h"

/*
 * One picture on its way. Buffers are owned by the item (malloc'd) and appear as stages make them;
 * item_release() frees them. Row 0 of the text tensors is the prompt's, row 1 the negative
 * prompt's.
 */
struct item {
    const char *prompt;          /* borrowed */
    const char *negative_prompt; /* borrowed; "" for none */
    struct rng rng;              /* seeded by item_init(); its state travels with the task */

    int embed_dim;      /* D: width of CLIP's shared space */
    int text_len;       /* L: tokens */
    int text_width;     /* W: width of the token states */
    float *text_embed;  /* [2][D] */
    float *text_states; /* [2][L][W] */
    uint8_t *text_mask; /* [2][L], 1 = token */
    int tokens_dropped; /* of the prompt: did not fit the model's length */

    float *image_embed; /* [D] */

    int image_size; /* S */
    float *image;   /* [S][S][3], in [-1, 1] */
    bool resized;   /* the last enlargement was a plain Lanczos resize */

    struct err err; /* this item alone failed; its buffers are not valid */
    bool stop;      /* set by the watcher: give this item up between two steps */
};
void item_init(struct item *item, const char *prompt, const char *negative_prompt, uint64_t seed);
void item_release(struct item *item);

struct stage_settings {
    int steps;       /* denoising steps; ignored by stages without */
    double guidance; /* classifier-free guidance scale; <= 1: the unconditional half is not run */
    enum sampler sampler;
    double eta; /* 0..1, of SAMPLER_DDIM */
    int reuse;  /* the deep part of a U-Net is computed in every reuse-th step; <= 1: in each */
};

struct hop;
/* What a task's hop says. */
struct stage_settings stage_settings_of(const struct hop *hop);

/* Called after each step. May set item->stop of any item. */
struct stage_watch {
    void (*step)(void *context, int step, int steps);
    void *context;
};

struct stage_model; /* opaque: a stage's networks with packed weights; used by one thread at a time
                     */

/* Loads what `stage` needs from a model directory. `nn` is borrowed until stage_close(). */
int stage_open(struct stage_model **out, enum stage stage, const char *model_path, struct nn *nn,
               struct err *err);
void stage_close(struct stage_model *model);

/*
 * Runs the items as one batch. An item's own failure is left in item->err, a stopped one gets
 * ERR_CANCELLED there; the return value is an error only when the whole batch failed. The bytes
 * that an item gets depend on nothing but the item, the settings and the dtype.
 */
int stage_run(struct stage_model *model, struct item *const *items, size_t count,
              const struct stage_settings *settings, const struct stage_watch *watch,
              struct err *err);

#endif
