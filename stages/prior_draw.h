/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Private to the stage prior: one image embedding to be made, for one row of an item's text. An
 * item has one draw for each embedding that it needs, times the candidates of each (prior.c); the
 * kinds of prior (prior_diffusion.h, prior_autoregressive.h) know draws alone.
 */
#ifndef UNCLIP_STAGES_PRIOR_DRAW_H
#define UNCLIP_STAGES_PRIOR_DRAW_H

#include "stages/stage.h"

struct prior_draw {
    struct item *of; /* borrowed: whose text it is */
    int row;         /* of the text tensors; ITEM_ROW_NEGATIVE is guidance's other half */
    /*
     * A shallow copy of the item, so that denoise() can work on it: it owns nothing but its
     * image_embed, and has its own generator, err and stop.
     */
    struct item item;
};

#endif
