/* SPDX-License-Identifier: Apache-2.0 */
/* Which model directory `--model` and `--models` mean to a command that works in this process. */
#ifndef UNCLIP_CLIENT_LOCAL_MODEL_H
#define UNCLIP_CLIENT_LOCAL_MODEL_H

#include "common/config.h"
#include "common/err.h"
#include "common/model_card.h"
#include "stages/nn/nn.h"

/* `name` is a directory when it has a slash, else one of the folder `models`. Owned. */
char *local_model_path(const char *models, const char *name);
int local_model_open(struct model_card *card, const struct config *config, struct err *err);
/* The compute context that --dtype and --threads ask for. */
int local_nn_open(struct nn **out, const struct config *config, struct err *err);

#endif
