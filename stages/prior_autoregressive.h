/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The autoregressive prior (paper, section 2.2): an image embedding as codes, sampled one after the
 * other (networks/ar_prior.h). Equal to sample() of training/unclip_training/evaluation/priors.py:
 * a draw takes one number from its generator for how well picture and text fit, from the better
 * half (torch.randint), and one uniform number for each code (torch.rand). Guidance is of the
 * logits; steps, sampler and eta mean nothing.
 */
#ifndef UNCLIP_STAGES_PRIOR_AUTOREGRESSIVE_H
#define UNCLIP_STAGES_PRIOR_AUTOREGRESSIVE_H

#include "stages/networks/ar_prior.h"
#include "stages/prior_draw.h"

/* Bytes of one forward pass's sequences: more draws go in several passes. */
#define PRIOR_AUTOREGRESSIVE_BYTES (256u << 20)

struct prior_autoregressive {
    struct nn *nn; /* borrowed */
    struct ar_prior prior;
};

/* Loads ar_prior/. ERR_UNSUPPORTED when the model has none. On error nothing is left to release. */
int prior_autoregressive_load(struct prior_autoregressive *autoregressive, const char *model_path,
                              struct nn *nn, struct err *err);
void prior_autoregressive_release(struct prior_autoregressive *autoregressive);

/* Gives each live draw its image_embed. As stage_run(). */
int prior_autoregressive_run(struct prior_autoregressive *autoregressive, struct prior_draw *draws,
                             size_t count, const struct stage_settings *settings,
                             const struct stage_watch *watch, struct err *err);

#endif
