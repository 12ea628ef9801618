/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures of tasks; see pictures.h. */
#include "workers/pictures.h"

#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "stages/intake.h"

/* --- reading --- */

void pictures_clear(struct pictures *pictures)
{
    free(pictures->address);
    free(pictures->bytes);
    pictures->address = NULL;
    pictures->bytes = NULL;
    pictures->size = 0;
}

static int read_again(const struct pictures *pictures, void **bytes, size_t *size, struct err *err)
{
    *bytes = malloc(pictures->size + 1);
    if (!*bytes)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for a picture's file");
    memcpy(*bytes, pictures->bytes, pictures->size);
    *size = pictures->size;
    return 0;
}

static int read_picture(struct pictures *pictures, const char *address, void **bytes, size_t *size,
                        struct err *err)
{
    if (!pictures->address || strcmp(pictures->address, address) != 0) {
        pictures_clear(pictures);
        int rc = fetch_address(&pictures->fetch, address, &pictures->bytes, &pictures->size, err);
        if (rc)
            return rc;
        pictures->address = xstrdup(address);
    }
    return read_again(pictures, bytes, size, err);
}

struct reading {
    struct pictures *pictures;
    struct parcel *parcel;
    int64_t began_ms;
};

static int check_time(const struct reading *reading, struct err *err)
{
    int64_t took = clock_monotonic_ms(reading->pictures->clock) - reading->began_ms;
    if (took <= PICTURES_TASK_MS)
        return 0;
    return err_set(err, ERR_TIMEOUT, "the task's pictures took longer than %d s to read",
                   PICTURES_TASK_MS / 1000);
}

/* An intake_read(). What a score job judges is what its result names. */
static int read_for(void *context, const char *address, void **bytes, size_t *size, struct err *err)
{
    struct reading *reading = context;
    struct parcel *parcel = reading->parcel;
    bool judged = parcel->task.type == JOB_SCORE;
    if (judged && fetch_is_data(address))
        return err_set(err, ERR_INVALID_RECORD, "a picture to be judged is not in the store");
    int rc = check_time(reading, err);
    if (!rc)
        rc = read_picture(reading->pictures, address, bytes, size, err);
    if (rc || !judged || parcel->uri)
        return rc;
    parcel->uri = parcel_keep(parcel, xstrdup(address));
    digest_of(*bytes, *size, parcel->sha256);
    return 0;
}

static size_t pixels_of(const struct item *item)
{
    size_t pixels = 0;
    for (int i = 0; i < item->input_count; i++)
        if (item->inputs[i].pixels)
            pixels += (size_t)item->inputs[i].width * (size_t)item->inputs[i].height;
    return pixels;
}

size_t pictures_take(struct pictures *pictures, struct parcel *parcel)
{
    struct reading reading = {pictures, parcel, clock_monotonic_ms(pictures->clock)};
    struct err err = {0};
    if (!intake_needed(&parcel->task))
        return 0;
    if (intake_fill(&parcel->item, &parcel->task, read_for, &reading, &err)) {
        parcel_fail(parcel, &err);
        intake_forget(&parcel->item);
    }
    return pixels_of(&parcel->item);
}

/* --- the cache --- */

int pictures_look_up(const struct pictures *pictures, const char *model, struct item *item,
                     int *missing, struct err *err)
{
    int rc = 0;
    *missing = 0;
    for (int i = 0; !rc && i < item->input_count; i++) {
        struct item_input *input = &item->inputs[i];
        int dim = 0;
        if (!input->pixels)
            continue;
        rc = cache_get_image(pictures->cache, model, input, &input->embed, &dim, err);
        if (!rc && input->embed && item->embed_dim && dim != item->embed_dim) {
            free(input->embed);
            input->embed = NULL;
        }
        *missing += input->embed == NULL;
        if (input->embed) { /* that is all that is wanted of it */
            item->embed_dim = dim;
            free(input->pixels);
            input->pixels = NULL;
        }
    }
    return rc;
}

/* Where the stage has put the embedding of an input. */
static const float *embed_of(const struct item *item, const struct item_input *input)
{
    if (input->embed)
        return input->embed;
    return item->type == JOB_TEXT_DIFF                              ? item->invert_embed
           : item->type == JOB_VARIATION || item->type == JOB_EMBED ? item->image_embed
                                                                    : NULL;
}

int pictures_keep(const struct pictures *pictures, const char *model, const struct item *item,
                  struct err *err)
{
    int rc = 0;
    for (int i = 0; !rc && i < item->input_count; i++) {
        const struct item_input *input = &item->inputs[i];
        const float *embed = embed_of(item, input);
        if (input->pixels && embed)
            rc = cache_put_image(pictures->cache, model, input, embed, item->embed_dim, err);
    }
    return rc;
}
