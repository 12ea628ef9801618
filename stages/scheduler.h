/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UnCLIPScheduler (diffusers 0.33.1, schedulers/scheduling_unclip.py), all its prediction and
 * variance types: the DDPM step of the unCLIP pipelines, and on the same betas two solvers that
 * need fewer steps. Tables are computed as torch does (f32).
 *
 *   ddpm          UnCLIPScheduler
 *   ddim          DDIMScheduler, timestep_spacing "trailing", use_clipped_model_output, eta
 *   dpm-solver++  DPMSolverMultistepScheduler: algorithm_type "dpmsolver++", solver_order 2,
 *                 solver_type "midpoint", lower_order_final, final_sigmas_type "zero", "trailing"
 *
 * A solver takes the predicted picture, clipped to clip_range where clip_sample says so, for what
 * the network has predicted, and works out the noise from it; the network's learned variance is
 * not used. Each step goes to the timestep of the next one, and the last to the predicted picture.
 * (diffusers' DDIM goes train_steps / steps down instead, which is the same only where that is
 * whole.)
 *
 * Dynamic thresholding (Imagen, arXiv 2205.11487, section 2.3; _threshold_sample in diffusers,
 * whose sample_max_value we don't have) takes the place of the clip: s is the `threshold` quantile
 * of a predicted picture's magnitudes, and where it is beyond clip_range the picture is clipped to
 * s and divided by s / clip_range.
 */
#ifndef UNCLIP_STAGES_SCHEDULER_H
#define UNCLIP_STAGES_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/protocol.h"

enum prediction_type { PREDICTION_EPSILON, PREDICTION_SAMPLE };
enum variance_type { VARIANCE_FIXED_SMALL_LOG, VARIANCE_LEARNED_RANGE };

#define SCHEDULER_TRAIN_STEPS_MAX 100000

/* How the way from noise to picture is walked. */
struct sampling {
    enum sampler sampler;
    int steps;
    double eta;        /* 0..1, of SAMPLER_DDIM: the share of ddpm's noise in each step */
    bool ends_at_zero; /* the last timestep is 0 with every sampler, as it is with ddpm */
    int first;         /* the first step that is taken, 0..steps: the sample begins at its noise */
    double threshold;  /* of dynamic thresholding, 0..1; 0: clip_sample's static clip */
};

struct scheduler {
    int train_steps; /* 1000 */
    enum prediction_type prediction;
    enum variance_type variance;
    bool clip_sample;
    float clip_range;
    float *betas;      /* [train_steps] */
    float *alphas_bar; /* [train_steps]: cumulative products */
    /* Set by scheduler_set_sampling(). */
    enum sampler sampler;
    float eta;
    float threshold;
    int *timesteps; /* [steps], falling */
    int steps, first;
};

/* From scheduler_config.json. Errors: ERR_IO, ERR_INVALID_MODEL, ERR_UNSUPPORTED naming the key. */
int scheduler_load(struct scheduler *scheduler, const char *path, struct err *err);
void scheduler_release(struct scheduler *scheduler);
/*
 * Steps from 1 to train_steps, else ERR_INVALID_ARGUMENT. 1 (for ddpm a division by zero in
 * diffusers) takes timestep train_steps - 1 alone and ends, as every last step does, at the
 * predicted picture.
 */
int scheduler_set_sampling(struct scheduler *scheduler, const struct sampling *sampling,
                           struct err *err);
/*
 * Whether step i (0-based) adds noise: with ddpm and with eta all but the last. The caller draws
 * `noise` for it, in order.
 */
bool scheduler_needs_noise(const struct scheduler *scheduler, int i);
/* Whether a step needs the network's variance, and whether it needs the last step's prediction. */
bool scheduler_needs_variance(const struct scheduler *scheduler);
bool scheduler_needs_history(const struct scheduler *scheduler);
/*
 * One step: model_output and sample [count] → prev [count] (may be sample itself). variance is the
 * model's second half [count] where scheduler_needs_variance(), else not looked at; noise [count]
 * or NULL. Channel-order-agnostic: all arrays are in one and the same layout. predicted receives
 * the clipped picture of this step; it may be NULL unless scheduler_needs_history(), when it holds
 * that of the step before.
 */
void scheduler_step(const struct scheduler *scheduler, int i, const float *model_output,
                    const float *variance, const float *sample, const float *noise, float *prev,
                    float *predicted, size_t count);
/*
 * The sample that step i begins with where the network is right: picture and noise [count] mixed as
 * that level has them (UnCLIPScheduler.add_noise) → sample (may be either). i = steps: the picture.
 */
void scheduler_noise(const struct scheduler *scheduler, int i, const float *picture,
                     const float *noise, float *sample, size_t count);
/*
 * RePaint's jump back (RePaintScheduler.undo_step, all its small steps in one): x [count] goes from
 * what step i has made to the level that step i begins with. i + 1 < steps.
 */
void scheduler_renoise(const struct scheduler *scheduler, int i, const float *noise, float *x,
                       size_t count);
/*
 * DDIM backwards, from a picture to the noise that DDIM with eta 0 makes it of
 * (DDIMInverseScheduler, "trailing", set_alpha_to_one false: the picture counts as timestep 0). For
 * a scheduler that is set to SAMPLER_DDIM; its eta does not matter here. Step i (0-based) goes to
 * scheduler_inversion_timestep(), which the network is told too; the last one ends at pure noise.
 * sample [count] → next [count] (may be sample itself). model_output is the network's for `sample`.
 */
int scheduler_inversion_timestep(const struct scheduler *scheduler, int i);
void scheduler_inversion_step(const struct scheduler *scheduler, int i, const float *model_output,
                              const float *sample, float *next, size_t count);
/*
 * The step solved instead of taken: guess [count], which begins as what scheduler_inversion_step()
 * makes of the last output, is moved towards the `next` from which DDIM comes to `sample`;
 * model_output is the network's for guess. Returns the largest move of a value, which tells when
 * it is near enough. Plain steps give a picture back at some 15 dB.
 */
float scheduler_inversion_refine(const struct scheduler *scheduler, int i,
                                 const float *model_output, const float *sample, float *guess,
                                 size_t count);

#endif
