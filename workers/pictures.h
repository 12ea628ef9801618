/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pictures that tasks name, at the stage image-encode: read, decoded, and their embeddings
 * taken from the cache or put there. The compute thread's. A picture that many tasks of a batch
 * name is read once.
 */
#ifndef UNCLIP_WORKERS_PICTURES_H
#define UNCLIP_WORKERS_PICTURES_H

#include "common/clock.h"
#include "common/fetch.h"
#include "workers/cache.h"
#include "workers/parcel.h"

#define PICTURES_PASS_PIXELS IMAGE_PIXELS_MAX /* that are held before the encoder runs */
#define PICTURES_TASK_MS     60000            /* after which no further picture of a task is read */

struct pictures {
    struct fetch fetch;
    const struct cache *cache; /* borrowed */
    struct clock *clock;       /* borrowed */
    char *address;             /* owned: what was read last; NULL: nothing */
    void *bytes;               /* owned */
    size_t size;
};

/*
 * Fills the parcel's item (stages/intake.h), if its task is at the hop that takes pictures in; of a
 * score job also the parcel's uri and sha256, which are those of the judged picture (the first).
 * A failure makes it a failed parcel, which holds no pixels: ERR_TIMEOUT where its pictures take
 * too long together. Returns how many pixels wait for the encoder.
 */
size_t pictures_take(struct pictures *pictures, struct parcel *parcel);
/* Forgets what was read last: a batch is over. */
void pictures_clear(struct pictures *pictures);

/* Embeddings of the item's inputs from the cache; *missing counts those that are not there. Error:
   that Redis is away, here and below. */
int pictures_look_up(const struct pictures *pictures, const char *model, struct item *item,
                     int *missing, struct err *err);
/* Keeps those that were computed. */
int pictures_keep(const struct pictures *pictures, const char *model, const struct item *item,
                  struct err *err);

#endif
