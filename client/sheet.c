/* SPDX-License-Identifier: Apache-2.0 */
/* Contact sheets and animations; see sheet.h. */
#include "client/sheet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/artifact.h"
#include "common/picture.h"

#define GAP 2 /* pixels */

static const struct image_metadata metadata = {.tool = PICTURE_TOOL};

static enum image_format format_of(const char *path)
{
    const char *dot = strrchr(path, '.');
    if (dot && strcmp(dot, ".jpg") == 0)
        return IMAGE_JPEG;
    return dot ? image_format_from_name(dot + 1) : IMAGE_FORMAT_COUNT;
}

int sheet_check(const struct sheet_wish *wish, struct err *err)
{
    if (wish->grid && format_of(wish->grid) == IMAGE_FORMAT_COUNT)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "--grid is '%s', it must end in .png, .webp, .jpeg or .avif", wish->grid);
    if (wish->animation && format_of(wish->animation) != IMAGE_WEBP)
        return err_set(err, ERR_INVALID_ARGUMENT, "--animation is '%s', it must end in .webp",
                       wish->animation);
    return 0;
}

int sheet_add_file(struct sheet *sheet, const void *bytes, size_t size, struct err *err)
{
    BUG_ON(sheet->count == JOB_IMAGES_MAX);
    struct image *image = &sheet->pictures[sheet->count];
    int rc = image_decode(image, bytes, size, err);
    if (rc == 0) {
        image_flatten(image);
        sheet->count++;
    }
    return rc;
}

int sheet_add_floats(struct sheet *sheet, const float *pixels, int size, struct err *err)
{
    BUG_ON(sheet->count == JOB_IMAGES_MAX);
    int rc = image_from_float(&sheet->pictures[sheet->count], pixels, size, err);
    sheet->count += rc == 0;
    return rc;
}

static int square(int count)
{
    int columns = 1;
    while (columns * columns < count)
        columns++;
    return columns;
}

/* Takes the bytes. */
static int put(const char *path, void *bytes, size_t size, struct err *err)
{
    int rc = artifact_write(path, bytes, size, err);
    if (rc == 0)
        fprintf(stderr, "%s\n", path);
    free(bytes);
    return rc;
}

static int write_grid(const struct sheet *sheet, const struct sheet_wish *wish, struct err *err)
{
    struct image grid;
    void *bytes;
    size_t size;
    int columns = wish->columns > 0 ? (int)wish->columns : square(sheet->count);
    int rc = image_grid(sheet->pictures, sheet->count, columns, GAP, &grid, err);
    if (rc < 0)
        return rc;
    rc = image_encode(&grid, format_of(wish->grid), 0, &metadata, &bytes, &size, err);
    image_release(&grid);
    return rc == 0 ? put(wish->grid, bytes, size, err) : rc;
}

static int write_animation(const struct sheet *sheet, const struct sheet_wish *wish,
                           struct err *err)
{
    void *bytes;
    size_t size;
    int frame_ms = wish->frame_ms > 0 ? (int)wish->frame_ms : SHEET_FRAME_MS;
    int rc =
        image_animation(sheet->pictures, sheet->count, frame_ms, 0, &metadata, &bytes, &size, err);
    return rc == 0 ? put(wish->animation, bytes, size, err) : rc;
}

int sheet_write(const struct sheet *sheet, const struct sheet_wish *wish, struct err *err)
{
    int rc = 0;
    if (wish->grid && sheet->count > 0)
        rc = write_grid(sheet, wish, err);
    if (rc == 0 && wish->animation && sheet->count > 0)
        rc = write_animation(sheet, wish, err);
    return rc;
}

void sheet_release(struct sheet *sheet)
{
    for (int i = 0; i < sheet->count; i++)
        image_release(&sheet->pictures[i]);
    sheet->count = 0;
}
