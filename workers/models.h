/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The models of one stage: each is loaded when a task first names it, and kept. Used by one thread
 * at a time, the compute thread.
 */
#ifndef UNCLIP_WORKERS_MODELS_H
#define UNCLIP_WORKERS_MODELS_H

#include "stages/nn/nn.h"
#include "stages/stage.h"

struct models; /* opaque */

/* `folder` holds model directories; it is copied. `nn` is borrowed until models_close(). */
void models_open(struct models **out, const char *folder, enum stage stage, struct nn *nn);
void models_close(struct models *models);

/* *model is borrowed until models_close(). Errors: ERR_UNKNOWN_MODEL, and stage_open()'s. A model
   that could not be loaded is tried again when a task next names it. */
int models_get(struct models *models, const char *name, struct stage_model **model,
               struct err *err);

/*
 * What makes this model's embeddings other than another one's: a SHA-256 of the small files that
 * the text encoder and the prior are made of (for image-encode: the image encoder), of samples of
 * their weights, and of the compute dtype. *text is borrowed until models_close(). Errors:
 * ERR_UNKNOWN_MODEL, ERR_IO.
 */
int models_fingerprint(struct models *models, const char *name, const char **text, struct err *err);

#endif
