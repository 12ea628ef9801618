/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The diffusion prior (paper, section 2.2): a text's embedding and states → a CLIP image embedding,
 * as UnCLIPPipeline samples it. Draws: latents [1, D], then noise per step.
 */
#ifndef UNCLIP_STAGES_PRIOR_DIFFUSION_H
#define UNCLIP_STAGES_PRIOR_DIFFUSION_H

#include "stages/networks/prior_transformer.h"
#include "stages/prior_draw.h"
#include "stages/scheduler.h"

struct prior_diffusion {
    struct nn *nn; /* borrowed */
    struct prior_transformer prior;
    struct scheduler scheduler;
};

/* Loads prior/ and prior_scheduler/. On error the struct may be released. */
int prior_diffusion_load(struct prior_diffusion *diffusion, const char *model_path, struct nn *nn,
                         struct err *err);
void prior_diffusion_release(struct prior_diffusion *diffusion); /* accepts a zeroed struct */

/* Gives each live draw its image_embed. As stage_run(). */
int prior_diffusion_run(struct prior_diffusion *diffusion, struct prior_draw *draws, size_t count,
                        const struct stage_settings *settings, const struct stage_watch *watch,
                        struct err *err);

#endif
