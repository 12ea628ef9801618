/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures in data URLs; see inputs.h. */
#include "coordinator/inputs.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/fetch.h"
#include "common/memory.h"

#define FIELD_SIZE 32

/* One place of a job that may have a picture's address. */
struct place {
    char **address;         /* NULL: no more places */
    char field[FIELD_SIZE]; /* as a JSON pointer, for messages */
    char name[FIELD_SIZE];  /* of the object in the store, without folder and extension */
};

/* The places in order: the inputs, the picture, the mask. */
static struct place place_at(struct sources *sources, int index)
{
    struct place place = {0};
    if (index < sources->count) {
        place.address = &sources->inputs[index].image;
        snprintf(place.field, sizeof place.field, "/inputs/%d/image", index);
        snprintf(place.name, sizeof place.name, "input-%d", index);
    } else if (index < sources->count + 2) {
        bool mask = index > sources->count;
        place.address = mask ? &sources->mask : &sources->image;
        snprintf(place.field, sizeof place.field, mask ? "/mask" : "/image");
        snprintf(place.name, sizeof place.name, mask ? "mask" : "image");
    }
    return place;
}

static bool has_data(const struct place *place)
{
    return *place->address && fetch_is_data(*place->address);
}

static int store_one(struct storage *storage, const struct job *job, const struct place *place,
                     struct err *err)
{
    void *bytes;
    size_t size;
    const char *extension;
    char *uri;
    int rc = fetch_data(*place->address, &bytes, &size, &extension, err);
    if (rc == 0) {
        char *name = xasprintf("%s/%s.%s", job->id, place->name, extension);
        rc = storage_write(storage, name, bytes, size, &uri, err);
        free(name);
        free(bytes);
    }
    if (rc != 0) {
        err_prefix(err, "'%s'", place->field);
        return rc;
    }
    free(*place->address);
    *place->address = uri;
    return 0;
}

int inputs_store(struct storage *storage, struct job *job, struct err *err)
{
    struct place place;
    int rc = 0;
    for (int i = 0; rc == 0 && (place = place_at(job->sources, i)).address; i++)
        if (has_data(&place))
            rc = store_one(storage, job, &place, err);
    return rc;
}

void inputs_hide(struct job *job)
{
    struct place place;
    for (int i = 0; (place = place_at(job->sources, i)).address; i++)
        if (has_data(&place)) {
            free(*place.address);
            *place.address = xstrdup("data:,");
        }
}
