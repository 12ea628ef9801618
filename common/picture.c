/* SPDX-License-Identifier: Apache-2.0 */
/* A finished picture as a file: pixels from image.c, words from job.c. */
#include "common/picture.h"

#include <stdlib.h>

#include "common/image.h"

int picture_encode(const struct task *task, const float *pixels, int size, void **bytes,
                   size_t *byte_count, struct err *err)
{
    struct image image = {0};
    int rc = image_from_float(&image, pixels, size, err);

    if (rc < 0)
        return rc;
    char *parameters = task_infotext(task);
    char *request = task_request_json(task);
    struct image_metadata metadata = {.parameters = parameters,
                                      .job = request,
                                      .description = task->prompt,
                                      .tool = PICTURE_TOOL};
    rc = image_encode_png(&image, &metadata, bytes, byte_count, err);
    free(request);
    free(parameters);
    image_release(&image);
    return rc;
}
