/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finished pictures held against concepts: a picture whose CLIP embedding is as near to a concept's
 * as its threshold says is refused, blurred, or made with a notice. The concepts are the
 * operator's, one safetensors file: a tensor [D] f32 for each, all of one D, and under the same
 * name in the metadata its threshold, a cosine from 0 to 1 (docs/safety.md). Read-only once opened.
 */
#ifndef UNCLIP_WORKERS_PROBE_H
#define UNCLIP_WORKERS_PROBE_H

#include "common/config.h"
#include "common/err.h"
#include "workers/parcel.h"

#define PROBE_CONCEPTS_MAX 1000
#define PROBE_DIM_MAX      4096 /* numbers of an embedding */
#define PROBE_NAME_MAX     100  /* bytes */
#define PROBE_BLUR_SIDE    8    /* what a blurred picture is shrunk to, and at most an 8th */

struct probe; /* opaque */

/*
 * By the settings concepts and concept-action; *out is NULL where there is no file. Errors: those
 * of safetensors_open(); ERR_INVALID_ARGUMENT of a file without a concept, with too many, or with
 * one whose name, numbers or threshold are of no use.
 */
int probe_open(struct probe **out, const struct config *config, struct err *err);
void probe_free(struct probe *probe); /* NULL is fine */

/*
 * Looks at a finished parcel at the end of a route that makes a picture; others are not touched.
 * item.inputs[0].embed [D] is the picture's embedding. The concept most above its threshold
 * decides: the parcel fails with ERR_DENIED, or has its `concept`, and perhaps another item.image.
 * A picture that cannot be held against the concepts fails too: ERR_INVALID_RECORD without an
 * embedding, ERR_INVALID_MODEL where the concepts are another model's, ERR_COMPUTE.
 */
void probe_check(const struct probe *probe, struct parcel *parcel);

#endif
