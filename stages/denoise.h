/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop that prior, decoder and upsamplers share: draw noise, then step by step let the network
 * predict and the scheduler take a step (UnCLIPPipeline.__call__, diffusers 0.33.1). An item that
 * fails or is stopped leaves the batch; the others go on and get the same bytes as without it.
 */
#ifndef UNCLIP_STAGES_DENOISE_H
#define UNCLIP_STAGES_DENOISE_H

#include "stages/scheduler.h"
#include "stages/stage.h"

/* One item's state in the loop. Buffers are the loop's; values = pixels · channels each. */
struct latent {
    struct item *item;
    size_t index;     /* of the item in the batch: where `predict` keeps what it needs for it */
    float *x;         /* [pixels, channels]: noisy, and at the end the result */
    float *noise;     /* [pixels, channels] */
    float *output;    /* [pixels, channels]: what the network predicts */
    float *variance;  /* the same; NULL unless scheduler_needs_variance() */
    float *predicted; /* of the last step; NULL unless scheduler_needs_history() */
    void *deep;       /* [deep_bytes]: `predict` keeps there what later steps use again; or NULL */
};

struct denoiser {
    const struct scheduler *scheduler; /* with its steps set */
    size_t pixels;                     /* S · S; D for an embedding, which has one channel */
    size_t channels;                   /* draws are in the order [channels, pixels], as torch's */
    size_t latents_a_pass;             /* most latents in one call of predict */
    size_t deep_bytes;                 /* of latent->deep; 0: nothing is used again */
    /* Fills output and variance of the latents from their x, for step i. */
    int (*predict)(void *context, struct latent *const *latents, size_t count, int i,
                   struct err *err);
    /* Gives a finished latent's x to its item; may take the buffer by setting it to NULL. */
    void (*finish)(void *context, struct latent *latent);
    void *context;
};

/* Runs all steps for the items that have not failed. As stage_run(). */
int denoise(const struct denoiser *denoiser, struct item *const *items, size_t count,
            const struct stage_watch *watch, struct err *err);

/* Sets the scheduler to what the settings say. As scheduler_set_sampling(). */
int denoise_set_sampling(struct scheduler *scheduler, const struct stage_settings *settings,
                         bool ends_at_zero, struct err *err);
/* Classifier-free guidance, in place: uncond + scale (cond - uncond). */
void denoise_guide(float *cond, const float *uncond, size_t count, float scale);
/* Whether the unconditional half is needed. */
bool denoise_guided(const struct stage_settings *settings);

/* Pixels of one forward pass that a U-Net's working memory is meant for. */
#define DENOISE_PIXELS_A_PASS (512u * 512u)
size_t denoise_latents_a_pass(size_t pixels, bool guided);

#endif
