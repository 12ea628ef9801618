/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop that prior, decoder and upsamplers share: draw noise, then step by step let the network
 * predict and the scheduler take a step (UnCLIPPipeline.__call__, diffusers 0.33.1). An item that
 * fails or is stopped leaves the batch; the others go on and get the same bytes as without it.
 *
 * Pictures may begin at something else than noise (settings->start), each at the stage's size.
 * START_INVERSION walks the item's source back to noise by DDIM, without guidance, with at most
 * INVERSION_PASSES forward passes a step. START_PICTURE takes the source under the noise of the
 * step that int(steps * strength) steps remain from, as diffusers' img2img pipelines (SDEdit, arXiv
 * 2108.01073); with all of the steps it is noise alone, with none the source itself.
 *
 * An item with a mask is inpainted (RePaint, arXiv 2201.09865): what each step has made of the kept
 * pixels is replaced by the source under the next level's noise; and each step but the last is
 * taken settings->resample times more, with a jump back by fresh noise in between (jumps of length
 * 1). Deviations from the paper and diffusers' RePaintScheduler: any sampler makes the painted
 * part; its noise and the source's are drawn apart. A pixel of a feathered edge, to the share p
 * painted anew, counts as kept in the first 1 - p of the steps and as painted in the others (as
 * arXiv 2306.00950 has it: mixing two noisy samples would lose noise), and at the end is p of what
 * was made and 1 - p of the source.
 *
 * Draws from an item's generator, in this order: noise to begin with (not for START_INVERSION);
 * then for each step, and each time that it is taken: the sampler's noise, if
 * scheduler_needs_noise(); with a mask, if it is not the last step, the noise of the source; then
 * that of the jump back, if the step is taken again.
 */
#ifndef UNCLIP_STAGES_DENOISE_H
#define UNCLIP_STAGES_DENOISE_H

#include "stages/scheduler.h"
#include "stages/source.h"
#include "stages/stage.h"

/* Most passes of the network in a step of an inversion, and the move of a value that ends it. */
#define INVERSION_PASSES 6
#define INVERSION_NEAR   1e-5f

/* One item's state in the loop. Buffers are the loop's; values = pixels · channels each. */
struct latent {
    struct item *item;
    size_t index;     /* of the item in the batch: where `predict` keeps what it needs for it */
    float *x;         /* [pixels, channels]: noisy, and at the end the result */
    float *noise;     /* [pixels, channels] */
    float *output;    /* [pixels, channels]: what the network predicts */
    float *variance;  /* the same; NULL unless scheduler_needs_variance() */
    float *predicted; /* of the last step; NULL unless scheduler_needs_history() or previewed */
    struct source_view source; /* zeroed where the item needs none */
    void *deep; /* [deep_bytes]: `predict` keeps there what later steps use again; or NULL */
};

/* What one call of predict is about. */
struct denoise_pass {
    struct latent *const *latents;
    size_t count;
    int i;          /* of the scheduler's steps */
    bool inverting; /* on the way from the source to noise: no guidance, nothing is used again */
};

struct denoiser {
    const struct scheduler *scheduler; /* with its steps set */
    const struct stage_settings *settings;
    int side; /* S of a picture [S, S, 3]; 0: an embedding, which has no source and no preview */
    bool noise_moves;      /* item->noise_place counts */
    size_t pixels;         /* S · S; D for an embedding, which has one channel */
    size_t channels;       /* draws are in the order [channels, pixels], as torch's */
    size_t latents_a_pass; /* most latents in one call of predict */
    size_t deep_bytes;     /* of latent->deep; 0: nothing is used again */
    const size_t *places;  /* of the items in stage_run()'s batch; NULL: the same */
    /* Fills output and variance (not when inverting) of the latents from their x. */
    int (*predict)(void *context, const struct denoise_pass *pass, struct err *err);
    /* Gives a finished latent's x to its item; may take the buffer by setting it to NULL. */
    void (*finish)(void *context, struct latent *latent);
    void *context;
};

/* Runs all steps for the items that have not failed. As stage_run(). */
int denoise(const struct denoiser *denoiser, struct item *const *items, size_t count,
            const struct stage_watch *watch, struct err *err);

/* Sets the scheduler to what the settings say. As scheduler_set_sampling(); ERR_INVALID_ARGUMENT
   too for START_INVERSION with another sampler than ddim. */
int denoise_set_sampling(struct scheduler *scheduler, const struct stage_settings *settings,
                         bool ends_at_zero, struct err *err);
/* Classifier-free guidance, in place: uncond + scale (cond - uncond). */
void denoise_guide(float *cond, const float *uncond, size_t count, float scale);
/* Whether the unconditional half is needed. */
bool denoise_guided(const struct stage_settings *settings);

/*
 * Whether the `bytes` that a stage would read of the texts once for all steps may be kept for each
 * of `count` latents; else they are read again in each step, with the same result.
 */
#define DENOISE_KEPT_BYTES_MAX ((size_t)1 << 30)
bool denoise_keeps(const struct stage_settings *settings, size_t count, size_t bytes);

/* Pixels of one forward pass that a U-Net's working memory is meant for. */
#define DENOISE_PIXELS_A_PASS (512u * 512u)
size_t denoise_latents_a_pass(size_t pixels, bool guided);

#endif
