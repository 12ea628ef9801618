/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A U-Net in the denoising loop, its deep part computed in every step or shared between a few. What
 * is shared is kept with each latent, so that it is that latent's own in any company.
 */
#ifndef UNCLIP_STAGES_UNET_STEP_H
#define UNCLIP_STAGES_UNET_STEP_H

#include "stages/denoise.h"
#include "stages/networks/unet.h"

struct unet_step {
    struct nn *nn;
    struct unet *unet;
    int i;     /* of the steps that are taken */
    int reuse; /* steps 0, reuse, 2 reuse, … compute the deep part; <= 1: all do, and keep nothing
                */
    float timestep;
    struct latent *const *latents; /* of this pass */
    size_t count;
};
/* sample has one row for each latent, or groups of so many rows, which each latent has a row in. As
   unet_forward(). */
struct tensor unet_step_forward(const struct unet_step *step, struct tensor sample,
                                const struct unet_condition *condition);
/* denoiser->deep_bytes, where a latent has `rows` rows of `size` pixels a side. */
size_t unet_step_bytes(const struct nn *nn, const struct unet *unet, int reuse, int64_t rows,
                       int64_t size);

#endif
