/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The six stages behind one interface: a stage takes the pictures on their way (items), computes
 * its part for all of them in one batch and leaves the result in them. unclip-worker runs one
 * stage; `unclip generate` runs all of them in one process. No queue, no network, no clock in here.
 *
 *   text-encode   prompt, negative_prompt, texts → text_embed, text_states, text_mask; no draws
 *   prior         text_* → image_embed               (draws: latents [1,D], then noise per step);
 *                 with texts: texts_embeds, of each text, in its place
 *   image-encode  inputs, source, text_*, texts_embeds → image_embed, invert_embed; of an upscale:
 *                 source → image. At the end of a route: image, text_embed → score. No draws.
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
#include "common/hop.h"
#include "common/protocol.h"
#include "stages/nn/nn.h"
#include "stages/rng.h"

#define ITEM_INPUTS_MAX 8

/* A picture or text that goes into an image embedding. The texts are in the order of item.texts. */
struct item_input {
    uint8_t *pixels; /* [height][width][3] sRGB, owned; NULL: a text, or `embed` is known */
    int width, height;
    float *embed; /* [D], owned: of the picture */
    bool is_text;
    double weight;
};

/*
 * One picture on its way. Buffers are owned by the item (malloc'd) and appear as stages make them;
 * item_release() frees them. Row 0 of the text tensors is the prompt's, row 1 the negative
 * prompt's, and those after them are of `texts`.
 */
struct item {
    enum job_type type;
    const char *prompt;                 /* borrowed */
    const char *negative_prompt;        /* borrowed; "" for none */
    const char *texts[ITEM_INPUTS_MAX]; /* borrowed: captions and texts to be mixed */
    int text_count;
    enum overflow overflow;
    struct rng rng; /* seeded by item_init(); its state travels with the task */

    int embed_dim;      /* D: width of CLIP's shared space */
    int text_rows;      /* R: 2 + text_count; 2 after image-encode */
    int text_len;       /* L: tokens */
    int text_width;     /* W: width of the token states */
    float *text_embed;  /* [R][D] */
    float *text_states; /* [R][L][W] */
    uint8_t *text_mask; /* [R][L], 1 = token */
    int tokens_dropped; /* of the prompt: beyond the model's length; what became of them: overflow
                         */

    float *texts_embeds; /* [R - 2][D]: image embeddings that the prior made of the texts */
    float *image_embed;  /* [D] */
    float *invert_embed; /* [D]: of the source, where the inversion is not to use image_embed */

    struct item_input inputs[ITEM_INPUTS_MAX];
    int input_count;
    double theta; /* of a text diff */
    uint64_t
        noise_seed; /* the decoder's first noise is noise_place, 0..1, of the way to its noise */
    double noise_place;
    int source_size; /* T */
    uint8_t *source; /* [T][T][3] sRGB: the picture to begin with, or to keep */
    uint8_t *mask;   /* [T][T]: 255 is painted anew, 0 is kept; NULL: no edit */
    int preview;     /* steps of decoder and upsamplers between previews; 0: none */
    double score;    /* 100 times the cosine of picture and prompt */
    bool has_score;

    int image_size; /* S */
    float *image;   /* [S][S][3], in [-1, 1] */
    bool resized;   /* the last enlargement was a plain Lanczos resize */

    struct err err; /* this item alone failed; its buffers are not valid */
    bool stop;      /* set by the watcher: give this item up between two steps */
};
void item_init(struct item *item, const char *prompt, const char *negative_prompt, uint64_t seed);
struct task;
/* The item of a task that is at its hop; the strings are the task's. */
void item_begin(struct item *item, const struct task *task);
void item_release(struct item *item);
/* What an embed task is for, [embed_dim], borrowed: of its text, else of its picture; NULL: none.
 */
const float *item_embedding(const struct item *item);
/* Whether their texts are the same and are read alike, so that so are their text tensors. */
bool item_same_text(const struct item *a, const struct item *b);
/* Copies the text tensors, which `to` has not yet, from an item of the same text.
   ERR_OUT_OF_MEMORY. */
int item_copy_text(struct item *to, const struct item *from, struct err *err);

/* How a stage is to work, as the task's hop says it (common/hop.h). */
struct stage_settings {
    int steps;       /* denoising steps; ignored by stages without */
    double guidance; /* classifier-free guidance scale; <= 1: the unconditional half is not run */
    enum sampler sampler;
    double eta; /* 0..1, of SAMPLER_DDIM */
    int reuse;  /* the deep part of a U-Net is computed in every reuse-th step; <= 1: in each */
    double threshold;      /* dynamic thresholding's share of values that are kept; 0: none */
    enum prior_kind prior; /* these two are the prior's */
    int candidates;        /* <= 1: one */
    enum start start;      /* these three are the decoder's and the upsamplers' */
    double strength;
    int resample;
    size_t kept_bytes_max; /* of what is read of the texts once for all steps, where it fits; 0: the
                              default, which no hop changes (denoise_keeps()) */
};
struct stage_settings stage_settings_of(const struct hop *hop);

/*
 * step is called after each step, and after each of those that inversion and resampling add: the
 * share of the work that is done, in units of steps. It may set item->stop of any item.
 * preview, where not NULL, is called after every item->preview-th step of decoder and upsamplers
 * with the picture that the network then predicts: x0 [size][size][3] in [-1, 1], borrowed for the
 * call. `item` is the index in stage_run()'s batch.
 */
struct stage_watch {
    void (*step)(void *context, int step, int steps);
    void *context;
    void (*preview)(void *context, size_t item, const float *x0, int size);
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
