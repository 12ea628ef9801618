/* SPDX-License-Identifier: Apache-2.0 */
/* A U-Net in the denoising loop; see unet_step.h. */
#include "stages/unet_step.h"

#include <string.h>

size_t unet_step_bytes(const struct nn *nn, const struct unet *unet, int reuse, int64_t rows,
                       int64_t size)
{
    return reuse > 1 ? (size_t)rows * unet_deep_bytes(nn, unet, size) : 0;
}

/* Row r of the pass is row r / count of latent r % count, from or to what that one keeps. */
static void move_deep(const struct unet_step *step, const struct unet_deep *deep)
{
    if (nn_failed(step->nn))
        return;
    size_t rows = (size_t)deep->h.dim[0];
    size_t bytes = unet_deep_bytes(step->nn, step->unet, deep->h.dim[1]);
    for (size_t row = 0; row < rows; row++) {
        char *kept = (char *)step->latents[row % step->count]->deep + row / step->count * bytes;
        char *in_pass = (char *)deep->h.data + row * bytes;
        memcpy(deep->known ? in_pass : kept, deep->known ? kept : in_pass, bytes);
    }
}

struct tensor unet_step_forward(const struct unet_step *step, struct tensor sample,
                                const struct unet_condition *condition)
{
    if (step->reuse <= 1)
        return unet_forward(step->nn, step->unet, sample, step->timestep, condition);
    struct unet_deep deep = {
        .h = unet_deep_new(step->nn, step->unet, sample.dim[0], sample.dim[1]),
        .known = step->i % step->reuse != 0,
    };
    if (deep.known)
        move_deep(step, &deep);
    struct tensor out =
        unet_forward_deep(step->nn, step->unet, sample, step->timestep, condition, &deep);
    if (!deep.known)
        move_deep(step, &deep);
    return out;
}
