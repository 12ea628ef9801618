/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A network's weights: one safetensors file, mapped, in which every tensor must be used exactly
 * once and every needed one must be there with its shape. f32, f16 and bf16 are read; layers pack
 * what they need into their own memory, and the mapping is let go when loading is done.
 *
 * An I8 tensor NAME [oc, …] of rank 1 or more has a companion NAME.scale, F32 [oc]: its values are
 * the integers times the scale of their output. They are made floats while they are read, so
 * layers and kernels know nothing of it (written by training/convert --dtype int8).
 */
#ifndef UNCLIP_STAGES_NN_WEIGHTS_H
#define UNCLIP_STAGES_NN_WEIGHTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/safetensors.h"

struct weights; /* opaque */
struct store;   /* store.h */

int weights_open(struct weights **out, const char *path, struct err *err);
void weights_close(struct weights *weights); /* NULL is fine */

bool weights_have(const struct weights *weights, const char *name);
/*
 * Marks `name` as used and checks its shape (a dim of -1 accepts any size). Twice is an error, as
 * are a missing tensor, another shape, a dtype that is neither float nor I8, and an I8 tensor
 * without its scale: ERR_INVALID_MODEL with file, name, and both shapes. The entry is borrowed
 * until weights_close(); weights_read() makes floats of it.
 */
int weights_take(struct weights *weights, const char *name, int rank, const int64_t *dim,
                 const struct safetensors_entry **entry, struct err *err);
/* The same, converted to f32 into `out` (count elements, the caller's). */
int weights_take_f32(struct weights *weights, const char *name, int rank, const int64_t *dim,
                     float *out, struct err *err);
/* Reads count elements of a taken entry, from index first on, as f32; the range is inside it. */
void weights_read(const struct weights *weights, const struct safetensors_entry *entry,
                  size_t first, size_t count, float *out);
/* Its file of packed weights in `folder`, opened when first asked for; borrowed. NULL for none. */
struct store *weights_store(struct weights *weights, const char *folder, enum dtype dtype,
                            void (*note)(const char *text));
/* Marks integer buffers that checkpoints carry along (…position_ids) as used when present. */
void weights_ignore_suffix(struct weights *weights, const char *suffix);
/* ERR_INVALID_MODEL naming the first tensor that nothing used. */
int weights_finish(struct weights *weights, struct err *err);

/* Converts count elements of any float dtype to f32. */
void convert_to_f32(float *dst, const void *src, enum dtype dtype, size_t count);
void convert_f32_to_bf16(uint16_t *dst, const float *src, size_t count); /* to nearest even */

#endif
