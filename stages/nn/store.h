/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packed weights of one weights file, kept in a file of their own that is mapped: processes of
 * one host share a single copy, and start without reading, converting and packing.
 *
 *     header | index: an entry for each layer | the layers' packed weights, page by page
 *
 * A store is for one weights file (its path; size, time of change and a digest of samples of what
 * is mapped, not of what the path names by now), dtype, and device_identity() (the library's
 * version and instruction set, on which layouts depend). Header, index and each layer's bytes carry
 * a GMAC under a fixed key, which says that they are whole (it is no secret); a layer's is checked
 * when the layer is loaded. Whom to trust is the file's owner's and mode's to say: root or this
 * user, and nobody else may write it. What does not hold, or lacks a layer, is as good as absent,
 * and written anew:
 *
 *     store_open() ─▶ mapped: store_find() ─▶ the layer's weights are the mapping's
 *                └──▶ else:   store_expect() for each layer, then store_settled() once each has run
 *                             for the first time; after the last, all are written to a temporary
 *                             file, which takes the name when it is on the disk, and mapped
 *
 * One process writes (a lock beside the file). Others keep what they have packed themselves, or
 * take the file that they find written. Where nothing can be written, a note says so
 * (nn_keep_packed()) and all goes on without.
 */
#ifndef UNCLIP_STAGES_NN_STORE_H
#define UNCLIP_STAGES_NN_STORE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/safetensors.h"

struct layout; /* onednn.h */
struct packed; /* packed.h */
struct store;  /* opaque, counted: each user releases it */

typedef void (*store_note)(const char *text);

/* For the weights opened from `path`; NULL, after a note, where that is gone. note may be NULL. */
struct store *store_open(const char *folder, const char *path, const struct safetensors *weights,
                         enum dtype dtype, store_note note);
struct store *store_hold(struct store *store);
void store_release(struct store *store); /* NULL is fine */

/* A layer of the mapping, by its name, if it is there, whole, and like `plain`. layout is owned. */
struct store_layer {
    struct layout *layout;
    const void *data; /* borrowed from the store */
};
bool store_find(struct store *store, const char *name, const struct layout *plain,
                struct store_layer *layer);

/* This layer will be written, once all have settled. packed is borrowed until store_forget(). */
void store_expect(struct store *store, const char *name, struct packed *packed);
void store_settled(struct store *store);
void store_forget(struct store *store, const struct packed *packed);

#endif
