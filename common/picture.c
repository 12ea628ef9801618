/* SPDX-License-Identifier: Apache-2.0 */
/* A finished picture as a file: pixels from image.c, words from job.c. */
#include "common/picture.h"

#include <stdlib.h>

#include "common/image.h"

int picture_encode(const struct task *task, const float *pixels, int size, void **bytes,
                   size_t *byte_count, struct err *err)
{
    struct image image = {0};
    const char *name = format_name(task->output.format);
    enum image_format format = image_format_from_name(name);

    if (format == IMAGE_FORMAT_COUNT)
        return err_set(err, ERR_INVALID_RECORD, "the output is '%s', which holds no picture", name);
    int rc = image_from_float(&image, pixels, size, err);

    if (rc < 0)
        return rc;
    char *parameters = task_infotext(task);
    char *request = task_request_json(task, true);
    struct image_metadata metadata = {.parameters = parameters,
                                      .job = request,
                                      .description = task->prompt,
                                      .tool = PICTURE_TOOL};
    rc = image_encode(&image, format, task->output.quality, &metadata, bytes, byte_count, err);
    free(request);
    free(parameters);
    image_release(&image);
    return rc;
}
