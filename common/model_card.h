/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model directory says of itself, without its weights: which parts it has, the lengths and
 * sizes that a job must fit, and the settings it works best with. The coordinator plans with it.
 *
 * Parts come from model_index.json (diffusers' layout). Recommended settings come from the optional
 * `unclip.json` beside it: {"steps": {"prior": 25, …}, "guidance": {"prior": 2, …}}; without it the
 * defaults are diffusers' (25, 25, 7; guidance 4 and 8), and 7 for a network of upsampler-2.
 */
#ifndef UNCLIP_COMMON_MODEL_CARD_H
#define UNCLIP_COMMON_MODEL_CARD_H

#include <stdbool.h>

#include "common/err.h"
#include "common/protocol.h"

#define MODEL_NAME_MAX 64         /* pattern as for job ids */
#define MODEL_JSON_MAX (1u << 20) /* bytes of a config file */

struct model_card {
    char name[MODEL_NAME_MAX + 1];
    char *path;             /* owned */
    int decoder_size;       /* pixels a side, 64 for Karlo */
    int upsampler_1_size;   /* 256 */
    bool has_upsampler_2;   /* super_res_1024_first/_last/_scheduler are there; else Lanczos */
    bool has_image_encoder; /* image_encoder/ is there */
    bool has_ar_prior;      /* ar_prior/ is there: the autoregressive prior */
    int upsampler_2_size;   /* 1024: four times upsampler_1_size where the model has none */
    int steps[STAGE_COUNT]; /* recommended; 0 for stages without steps */
    double guidance[STAGE_COUNT]; /* recommended; 0 where a stage takes none */
};

/* Reads models_folder/name. Errors: ERR_UNKNOWN_MODEL, ERR_INVALID_MODEL (naming file and key). */
int model_card_load(struct model_card *card, const char *models_folder, const char *name,
                    struct err *err);
/* The same for a directory given by path: its last component is the name, with - in place of what a
   name may not have. */
int model_card_load_path(struct model_card *card, const char *path, struct err *err);
void model_card_release(struct model_card *card);

#endif
