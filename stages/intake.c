/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures into items; see intake.h. */
#include "stages/intake.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHANNELS 3
#define GREY     128

struct intake {
    struct item *item;
    const struct task *task;
    intake_read *read;
    void *context;
    size_t pixels; /* of the inputs so far */
};

bool intake_needed(const struct task *task)
{
    for (int i = 0; i < task->hop; i++) {
        enum stage stage = task->route[i].stage;
        if (stage == STAGE_DECODER || stage == STAGE_UPSAMPLER_1 || stage == STAGE_UPSAMPLER_2)
            return false;
    }
    return task_hop(task)->stage == STAGE_IMAGE_ENCODE;
}

static bool needs_source(const struct task *task)
{
    bool needed = task->type == JOB_EDIT || task->type == JOB_UPSCALE;
    for (int i = task->hop; i < task->hops; i++)
        needed |= task->route[i].start != START_NOISE;
    return needed;
}

/* Whether the picture itself is encoded. */
static bool is_input(const struct task *task)
{
    return task->type == JOB_VARIATION || task->type == JOB_TEXT_DIFF;
}

static size_t area(const struct image *image)
{
    return (size_t)image->width * (size_t)image->height;
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a picture");
}

static int load(const struct intake *in, const char *address, struct image *image, struct err *err)
{
    void *bytes;
    size_t size;
    int rc = in->read(in->context, address, &bytes, &size, err);
    if (rc)
        return rc;
    rc = image_decode(image, bytes, size, err);
    free(bytes);
    return rc;
}

/* --- inputs --- */

/* Takes the picture's pixels. */
static int put_input(struct intake *in, int index, struct image *image, struct err *err)
{
    in->pixels += area(image);
    if (in->pixels > INTAKE_PIXELS_MAX)
        return err_set(err, ERR_TOO_LARGE,
                       "the pictures have more than %u pixels together, which are allowed",
                       INTAKE_PIXELS_MAX);
    struct item_input *input = &in->item->inputs[index];
    input->pixels = image->pixels;
    input->width = image->width;
    input->height = image->height;
    image->pixels = NULL;
    return 0;
}

static int take_input(struct intake *in, int index, struct err *err)
{
    const struct job_input *from = &in->task->sources.inputs[index];
    struct item_input *input = &in->item->inputs[index];
    struct image image = {0};
    *input = (struct item_input){.weight = from->weight, .is_text = from->text != NULL};
    if (input->is_text)
        return 0;
    int rc = load(in, from->image, &image, err);
    if (rc == 0) {
        image_flatten(&image);
        rc = put_input(in, index, &image, err);
    }
    image_release(&image);
    if (rc && err)
        err_prefix(err, "input %d", index);
    return rc;
}

static int take_inputs(struct intake *in, struct err *err)
{
    const struct task *task = in->task;
    bool own = task->type == JOB_INTERPOLATE || !job_makes_pictures(task->type);
    if (own && task->sources.count < 1)
        return err_set(err, ERR_INVALID_RECORD, "the task has no inputs");
    int rc = 0;
    for (int i = 0; own && rc == 0 && i < task->sources.count; i++) {
        in->item->input_count = i + 1;
        rc = take_input(in, i, err);
    }
    return rc;
}

/* --- the square --- */

/* [side][side][channels], owned; NULL without memory. */
static uint8_t *fit(const uint8_t *square, int from, int channels, int side,
                    enum image_filter filter, struct err *err)
{
    uint8_t *out = malloc((size_t)side * (size_t)side * (size_t)channels);
    if (!out)
        no_memory(err);
    else if (image_resize_bytes(square, from, channels, out, side, filter, err)) {
        free(out);
        out = NULL;
    }
    return out;
}

static int make_source(struct item *item, const struct image *picture, int side, struct err *err)
{
    struct image square = {0};
    int rc = image_crop_square(picture, &square, err);
    if (rc)
        return rc;
    free(item->source);
    item->source = fit(square.pixels, square.width, CHANNELS, side, IMAGE_LANCZOS, err);
    item->source_size = side;
    image_release(&square);
    return item->source ? 0 : -ERR_OUT_OF_MEMORY;
}

/* --- the mask --- */

/* Leaves in `alpha` what is painted: 255 where a pixel is transparent. */
static void paint_transparent(struct image *image)
{
    for (size_t i = 0; i < area(image); i++)
        image->alpha[i] = (uint8_t)(UINT8_MAX - image->alpha[i]);
}

/* The same by whiteness: Rec. 601's luma, of what can be seen. */
static int paint_white(struct image *image, struct err *err)
{
    size_t count = area(image);
    bool opaque = image->alpha == NULL;
    if (opaque && !(image->alpha = malloc(count)))
        return no_memory(err);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *rgb = image->pixels + CHANNELS * i;
        int luma = (77 * rgb[0] + 150 * rgb[1] + 29 * rgb[2] + 128) >> 8;
        int seen = opaque ? UINT8_MAX : image->alpha[i];
        image->alpha[i] = (uint8_t)((luma * seen + UINT8_MAX / 2) / UINT8_MAX);
    }
    return 0;
}

/* The same proportions, to a pixel. */
static bool same_shape(const struct image *mask, const struct image *picture)
{
    long long across = (long long)mask->width * picture->height;
    long long down = (long long)mask->height * picture->width;
    int longest = picture->width > picture->height ? picture->width : picture->height;
    return llabs(across - down) < longest ||
           (mask->width == picture->width && mask->height == picture->height);
}

static int no_hole(struct err *err)
{
    return err_set(err, ERR_INVALID_JOB,
                   "the mask selects nothing: no pixel of it says that it is to be painted");
}

/* Reads what the task names into `mask`, with what is painted in its `alpha`. */
static int read_mask(const struct intake *in, const struct image *picture, struct image *mask,
                     struct err *err)
{
    const struct sources *sources = &in->task->sources;
    int rc = load(in, sources->mask, mask, err);
    if (rc == 0 && !same_shape(mask, picture))
        rc = err_set(err, ERR_INVALID_JOB,
                     "it has %dx%d pixels, the picture %dx%d: they must have the same shape",
                     mask->width, mask->height, picture->width, picture->height);
    if (rc == 0 && sources->mask_mode == MASK_WHITE)
        rc = paint_white(mask, err);
    else if (rc == 0 && !mask->alpha)
        rc = no_hole(err);
    else if (rc == 0)
        paint_transparent(mask);
    if (rc && err)
        err_prefix(err, "the mask");
    return rc;
}

/*
 * Fades the mask over `width` pixels from the kept ones inwards. distance [side][side] is to the
 * nearest pixel that is kept, by two passes over neighbours (chamfer: a diagonal is sqrt(2)).
 */
static void relax(float *distance, int side, int x, int y, int dx, int dy)
{
    int u = x + dx, v = y + dy;
    if (u < 0 || v < 0 || u >= side || v >= side)
        return;
    float *here = &distance[(size_t)y * (size_t)side + (size_t)x];
    float step = dx && dy ? (float)M_SQRT2 : 1;
    *here = fminf(*here, distance[(size_t)v * (size_t)side + (size_t)u] + step);
}

static void measure(float *distance, int side)
{
    for (int pass = 0; pass < 2; pass++)
        for (int at = 0; at < side * side; at++) {
            int i = pass ? side * side - 1 - at : at, back = pass ? 1 : -1;
            for (int d = -1; d <= 1; d++)
                relax(distance, side, i % side, i / side, d, back);
            relax(distance, side, i % side, i / side, back, 0);
        }
}

static int feather(uint8_t *mask, int side, int width, struct err *err)
{
    size_t count = (size_t)side * (size_t)side;
    float *distance = width > 0 ? malloc(count * sizeof *distance) : NULL;
    if (width <= 0)
        return 0;
    if (!distance)
        return no_memory(err);
    for (size_t i = 0; i < count; i++)
        distance[i] = mask[i] ? INFINITY : 0;
    measure(distance, side);
    for (size_t i = 0; i < count; i++)
        mask[i] = (uint8_t)lrintf(mask[i] * fminf(1, distance[i] / (float)(width + 1)));
    free(distance);
    return 0;
}

static bool paints(const uint8_t *mask, int side)
{
    for (size_t i = 0; i < (size_t)side * (size_t)side; i++)
        if (mask[i])
            return true;
    return false;
}

/* `plane` has in its alpha what is painted. */
static int make_mask(struct item *item, const struct image *plane, const struct sources *sources,
                     struct err *err)
{
    struct image square = {0};
    int side = sources->side, rc = image_crop_square(plane, &square, err);
    if (rc)
        return rc;
    free(item->mask);
    item->mask = fit(square.alpha, square.width, 1, side, IMAGE_TRIANGLE, err);
    image_release(&square);
    if (!item->mask)
        return -ERR_OUT_OF_MEMORY;
    if (!paints(item->mask, side))
        return no_hole(err);
    return feather(item->mask, side, sources->feather, err);
}

static int take_other_mask(struct intake *in, const struct image *picture, struct err *err)
{
    struct image mask = {0};
    int rc = read_mask(in, picture, &mask, err);
    if (rc == 0)
        rc = make_mask(in->item, &mask, &in->task->sources, err);
    image_release(&mask);
    return rc;
}

/* --- an edit's picture --- */

static void grey_out(struct image *image)
{
    for (size_t i = 0; i < area(image); i++)
        if (image->alpha[i] == 0)
            memset(image->pixels + CHANNELS * i, GREY, CHANNELS);
}

/* The picture's own transparency is the mask. */
static int take_own_mask(struct intake *in, struct image *picture, struct err *err)
{
    const struct sources *sources = &in->task->sources;
    if (sources->mask_mode == MASK_WHITE)
        return err_set(err, ERR_INVALID_JOB, "the mask mode 'white' needs a mask");
    if (!picture->alpha)
        return err_set(err, ERR_INVALID_JOB,
                       "there is no mask, and no pixel of the picture is transparent: nothing is "
                       "to be painted");
    grey_out(picture);
    paint_transparent(picture);
    return make_mask(in->item, picture, sources, err);
}

static int take_mask(struct intake *in, struct image *picture, struct err *err)
{
    if (!in->task->sources.mask)
        return take_own_mask(in, picture, err);
    image_flatten(picture);
    return take_other_mask(in, picture, err);
}

/* --- the picture --- */

static int use_picture(struct intake *in, struct image *picture, struct err *err)
{
    const struct task *task = in->task;
    int rc = 0;
    if (task->type == JOB_EDIT)
        rc = take_mask(in, picture, err);
    else
        image_flatten(picture);
    if (rc == 0 && needs_source(task))
        rc = make_source(in->item, picture, task->sources.side, err);
    if (rc == 0 && is_input(task)) {
        in->item->inputs[0] = (struct item_input){.weight = 1};
        in->item->input_count = 1;
        rc = put_input(in, 0, picture, err);
    }
    return rc;
}

static int take_picture(struct intake *in, struct err *err)
{
    const struct task *task = in->task;
    struct image picture = {0};
    if (!needs_source(task) && !is_input(task))
        return 0;
    if (!task->sources.image || task->sources.side < 1)
        return err_set(err, ERR_INVALID_RECORD, "the task names no picture");
    int rc = load(in, task->sources.image, &picture, err);
    if (rc && err)
        err_prefix(err, "the picture");
    if (rc == 0)
        rc = use_picture(in, &picture, err);
    image_release(&picture);
    return rc;
}

int intake_fill(struct item *item, const struct task *task, intake_read *read, void *context,
                struct err *err)
{
    struct intake in = {.item = item, .task = task, .read = read, .context = context};
    int rc = take_inputs(&in, err);
    return rc ? rc : take_picture(&in, err);
}

void intake_forget(struct item *item)
{
    for (int i = 0; i < ITEM_INPUTS_MAX; i++) {
        free(item->inputs[i].pixels);
        item->inputs[i].pixels = NULL;
    }
}
