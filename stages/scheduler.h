/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UnCLIPScheduler (diffusers 0.33.1, schedulers/scheduling_unclip.py), all its prediction and
 * variance types: the DDPM step of the unCLIP pipelines. Tables are computed as torch does (f32).
 */
#ifndef UNCLIP_STAGES_SCHEDULER_H
#define UNCLIP_STAGES_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

enum prediction_type { PREDICTION_EPSILON, PREDICTION_SAMPLE };
enum variance_type { VARIANCE_FIXED_SMALL_LOG, VARIANCE_LEARNED_RANGE };

#define SCHEDULER_TRAIN_STEPS_MAX 100000

struct scheduler {
    int train_steps; /* 1000 */
    enum prediction_type prediction;
    enum variance_type variance;
    bool clip_sample;
    float clip_range;
    float *betas;      /* [train_steps] */
    float *alphas_bar; /* [train_steps]: cumulative products */
    int *timesteps;    /* [steps], falling; set by scheduler_set_steps() */
    int steps;
};

/* From scheduler_config.json. Errors: ERR_IO, ERR_INVALID_MODEL, ERR_UNSUPPORTED naming the key. */
int scheduler_load(struct scheduler *scheduler, const char *path, struct err *err);
void scheduler_release(struct scheduler *scheduler);
/*
 * From 1 to train_steps, else ERR_INVALID_ARGUMENT. N = 1 (a division by zero in diffusers) takes
 * timestep train_steps - 1 alone and ends, as every last step does, at the predicted picture.
 */
int scheduler_set_steps(struct scheduler *scheduler, int steps, struct err *err);
/* Whether step i (0-based) adds noise: all but the last. The caller draws `noise` for it, in order.
 */
bool scheduler_needs_noise(const struct scheduler *scheduler, int i);
/*
 * One step: model_output and sample [count] → prev [count] (may be sample itself). variance is the
 * model's second half [count] for VARIANCE_LEARNED_RANGE, else NULL; noise [count] or NULL.
 * Channel-order-agnostic: all arrays are in one and the same layout. predicted (may be NULL)
 * receives the clipped picture of this step.
 */
void scheduler_step(const struct scheduler *scheduler, int i, const float *model_output,
                    const float *variance, const float *sample, const float *noise, float *prev,
                    float *predicted, size_t count);

#endif
