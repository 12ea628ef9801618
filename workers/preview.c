/* SPDX-License-Identifier: Apache-2.0 */
/* Previews: small and lossy, since they are looked at for a moment. */
#include "workers/preview.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"
#include "common/memory.h"

#define QUALITY  60
#define CHANNELS 3

/* The picture at PREVIEW_SIDE, if it is larger: floats, owned, or NULL where nothing is to do. */
static int shrink(const float *x0, int size, float **small, struct err *err)
{
    *small = NULL;
    if (size <= PREVIEW_SIDE)
        return 0;
    *small = xmalloc((size_t)PREVIEW_SIDE * PREVIEW_SIDE * CHANNELS * sizeof **small);
    int rc = image_resize_lanczos(x0, size, *small, PREVIEW_SIDE, err);
    if (rc)
        free(*small);
    return rc;
}

static int encode(const float *x0, int side, void **bytes, size_t *size, struct err *err)
{
    struct image image;
    int rc = image_from_float(&image, x0, side, err);
    if (rc)
        return rc;
    rc = image_encode(&image, IMAGE_WEBP, QUALITY, &(struct image_metadata){0}, bytes, size, err);
    image_release(&image);
    return rc;
}

int preview_show(struct redis *redis, const struct task *task, const float *x0, int size,
                 struct err *err)
{
    char place[JOB_ID_MAX + 16], key[REDIS_KEY_SIZE], ttl[16];
    float *small;
    void *bytes;
    size_t length;
    int rc = shrink(x0, size, &small, err);
    if (rc)
        return rc;
    rc = encode(small ? small : x0, small ? PREVIEW_SIDE : size, &bytes, &length, err);
    free(small);
    if (rc)
        return rc;
    snprintf(place, sizeof place, "%s/%d", task->job, task->image);
    snprintf(ttl, sizeof ttl, "%d", PREVIEW_TTL_S);
    struct redis_arg args[] = {REDIS_STRING("SET"),
                               REDIS_STRING(redis_key(REDIS_KEY_PREVIEW, place, key)),
                               {bytes, length},
                               REDIS_STRING("EX"),
                               REDIS_STRING(ttl)};
    rc = redis_command(redis, args, 5, NULL, err);
    free(bytes);
    return rc;
}
