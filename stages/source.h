/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The picture that an item starts from or keeps, as a stage of some size sees it, and putting it
 * back under the mask.
 *
 * A pixel of a smaller stage is a cell of the source's pixels. Its picture is the mean of those
 * that are kept, so that nothing of what is to be painted over shows in what stays; where none is
 * kept, the mean of all. Its share to be painted is the mean of the mask, so it is kept (0) only
 * where all of the cell is. A larger stage sees the picture bicubically enlarged and the mask's
 * pixels as squares. At the source's own size the values are the source's: finished pictures
 * (image_from_float()) get its bytes back.
 */
#ifndef UNCLIP_STAGES_SOURCE_H
#define UNCLIP_STAGES_SOURCE_H

#include "stages/stage.h"

struct source_view {
    size_t pixels;  /* S * S */
    float *picture; /* [S][S][3], in [-1, 1] */
    float *paint;   /* [S][S]: 0 kept, 1 painted anew, between: that share; NULL without mask */
};

/*
 * The item's source and mask at `size` pixels a side. Errors: ERR_INVALID_RECORD when the item has
 * no source, ERR_OUT_OF_MEMORY; the view is then released.
 */
int source_view_init(struct source_view *view, const struct item *item, int size, struct err *err);
void source_view_release(struct source_view *view); /* zeroed is fine */
/* image [S][S][3] becomes paint * image + (1 - paint) * picture; kept pixels are exactly the
   source's. Without mask the image stays as it is. */
void source_view_keep(const struct source_view *view, float *image);

/* source_view_keep() of the item's own image. Nothing happens without a mask; fails the item. */
void item_keep_source(struct item *item);

#endif
