/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec of task records. One table says which tensors there are, of which group, dtype and
 * shape; reading and writing both walk it. A shape is given by the item's sizes, each of which is
 * taken from the first tensor that has it and must be the same in all others.
 */
#include "workers/task_codec.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

/* Sizes that a shape can name, beside literal numbers. */
enum { SIZE_D = -1, SIZE_L = -2, SIZE_W = -3, SIZE_S = -4, SIZE_R = -5, SIZE_X = -6, SIZE_T = -7 };

static const struct layout {
    const char *name;
    enum tensors group;
    enum dtype dtype;
    int rank;
    int dim[3];
    size_t field; /* offset of the buffer's pointer in struct item; SIZE_MAX: the generator */
    bool flags;   /* bytes that are 0 or 1 */
} layouts[] = {
#define FIELD(name) offsetof(struct item, name)
    {"rng", TENSORS_RNG, DTYPE_U8, 1, {RNG_BYTES}, SIZE_MAX, false},
    {"text_embed", TENSORS_TEXT, DTYPE_F32, 2, {SIZE_R, SIZE_D}, FIELD(text_embed), false},
    {"text_states",
     TENSORS_TEXT,
     DTYPE_F32,
     3,
     {SIZE_R, SIZE_L, SIZE_W},
     FIELD(text_states),
     false},
    {"text_mask", TENSORS_TEXT, DTYPE_U8, 2, {SIZE_R, SIZE_L}, FIELD(text_mask), true},
    {"texts_embeds",
     TENSORS_TEXTS_EMBEDS,
     DTYPE_F32,
     2,
     {SIZE_X, SIZE_D},
     FIELD(texts_embeds),
     false},
    {"image_embed", TENSORS_IMAGE_EMBED, DTYPE_F32, 1, {SIZE_D}, FIELD(image_embed), false},
    {"invert_embed", TENSORS_INVERT_EMBED, DTYPE_F32, 1, {SIZE_D}, FIELD(invert_embed), false},
    {"source", TENSORS_SOURCE, DTYPE_U8, 3, {SIZE_T, SIZE_T, 3}, FIELD(source), false},
    {"mask", TENSORS_MASK, DTYPE_U8, 2, {SIZE_T, SIZE_T}, FIELD(mask), false},
    {"image", TENSORS_IMAGE, DTYPE_F32, 3, {SIZE_S, SIZE_S, 3}, FIELD(image), false},
#undef FIELD
};
#define LAYOUTS (sizeof(layouts) / sizeof(*layouts))

/* --- which there are --- */

static bool comes_before(const struct task *task, int hop, enum stage stage)
{
    for (int i = 0; i < hop; i++)
        if (task->route[i].stage == stage)
            return true;
    return false;
}

/* What a stage that makes pictures begins with or keeps: an edit to its end, others as long as a
   stage is still to begin with the source. */
static unsigned source_groups(const struct task *task, int hop)
{
    if (task->type == JOB_EDIT)
        return TENSORS_SOURCE | TENSORS_MASK;
    for (int i = hop; i < task->hops; i++)
        if (task->route[i].start != START_NOISE)
            return TENSORS_SOURCE;
    return 0;
}

/* The finished picture is judged by its prompt; an upscale's, which has none, is only looked at. */
static unsigned score_groups(const struct task *task)
{
    bool scored = task->route[task->hops - 1].stage == STAGE_IMAGE_ENCODE;
    return scored && task->type != JOB_UPSCALE ? TENSORS_TEXT : 0;
}

static unsigned intake_groups(const struct task *task, int hop)
{
    unsigned groups = TENSORS_RNG;
    if (comes_before(task, hop, STAGE_DECODER) || comes_before(task, hop, STAGE_UPSAMPLER_1) ||
        comes_before(task, hop, STAGE_UPSAMPLER_2))
        return TENSORS_IMAGE | score_groups(task);
    if (comes_before(task, hop, STAGE_TEXT_ENCODE))
        groups |= TENSORS_TEXT;
    if (comes_before(task, hop, STAGE_PRIOR))
        groups |= sources_texts(&task->sources) > 0 ? TENSORS_TEXTS_EMBEDS : TENSORS_IMAGE_EMBED;
    return groups;
}

unsigned tensors_needed(const struct task *task, int hop)
{
    if (hop == 0) /* nothing was made yet; the generator is the seed's */
        return 0;
    switch (task->route[hop].stage) {
    case STAGE_TEXT_ENCODE:
        return 0;
    case STAGE_PRIOR:
        return TENSORS_RNG | TENSORS_TEXT;
    case STAGE_IMAGE_ENCODE:
        return intake_groups(task, hop);
    case STAGE_DECODER:
        return TENSORS_RNG | TENSORS_TEXT | TENSORS_IMAGE_EMBED | source_groups(task, hop) |
               (task->type == JOB_TEXT_DIFF ? TENSORS_INVERT_EMBED : 0);
    case STAGE_UPSAMPLER_1:
    case STAGE_UPSAMPLER_2:
        return TENSORS_RNG | TENSORS_IMAGE | source_groups(task, hop) | score_groups(task);
    case STAGE_COUNT:
        break;
    }
    BUG("no such stage");
}

int task_decode(struct task *task, const struct kafka_record *record, enum stage stage, int homes,
                struct err *err)
{
    const struct kafka_header *header = kafka_record_header(record, TASK_HEADER);
    if (!header || !header->value)
        return err_set(err, ERR_INVALID_RECORD, "no header '" TASK_HEADER "'");
    int rc = task_parse(task, header->value, header->size, err);
    if (rc)
        return rc;
    enum stage at = task_hop(task)->stage;
    if (at != stage)
        rc = err_set(err, ERR_INVALID_RECORD, "a task at '%s' came to '%s'", stage_name(at),
                     stage_name(stage));
    else if (task->home >= homes)
        rc = err_set(err, ERR_INVALID_RECORD, "'/home' is %d of %d partitions", task->home, homes);
    if (rc)
        task_release(task);
    return rc;
}

char *task_hop_name(const struct task *task, int hop)
{
    enum stage stage = task->route[hop].stage;
    if (comes_before(task, hop, stage))
        return xasprintf("%s/%d.%s.%d", task->job, task->image, stage_name(stage), hop);
    return xasprintf("%s/%d.%s", task->job, task->image, stage_name(stage));
}

char *task_tensors_name(const struct task *task, int hop)
{
    char *place = task_hop_name(task, hop);
    char *name = xasprintf("%s.safetensors", place);
    free(place);
    return name;
}

int task_decode_ref(const struct task *task, const struct kafka_record *record,
                    const struct storage *storage, char **uri, struct err *err)
{
    const struct kafka_header *header = kafka_record_header(record, TASK_REF_HEADER);
    char *own;
    *uri = NULL;
    if (!header)
        return 0;
    char *name = task_tensors_name(task, task->hop);
    int rc = storage_uri(storage, name, &own, err);
    free(name);
    if (rc)
        return rc;
    if (header->size == strlen(own) && memcmp(header->value, own, header->size) == 0) {
        *uri = own;
        return 0;
    }
    free(own);
    return err_set(err, ERR_INVALID_RECORD,
                   "header '" TASK_REF_HEADER "' is not the URI of this task's tensors");
}

static int *size_field(struct item *item, int which)
{
    switch (which) {
    case SIZE_D:
        return &item->embed_dim;
    case SIZE_L:
        return &item->text_len;
    case SIZE_W:
        return &item->text_width;
    case SIZE_R:
        return &item->text_rows;
    case SIZE_X:
        return &item->text_count;
    case SIZE_T:
        return &item->source_size;
    default:
        return &item->image_size;
    }
}

static void **buffer_field(struct item *item, const struct layout *layout)
{
    return (void **)(void *)((char *)item + layout->field);
}

/* --- reading --- */

static int refuse(const struct layout *layout, const char *why, struct err *err)
{
    return err_set(err, ERR_INVALID_RECORD, "tensor '%s' %s", layout->name, why);
}

static int check_dim(struct item *item, const struct layout *layout, int axis, int64_t got,
                     struct err *err)
{
    int wanted = layout->dim[axis];
    if (wanted > 0)
        return got == wanted ? 0 : refuse(layout, "has the wrong shape", err);
    int *size = size_field(item, wanted);
    bool side = wanted == SIZE_S || wanted == SIZE_T;
    if (got < 1 || got > (side ? TASK_SIDE_MAX : TASK_DIM_MAX))
        return refuse(layout, "has a size out of bounds", err);
    if (*size && got != *size)
        return refuse(layout, "does not fit the others", err);
    *size = (int)got;
    return 0;
}

static int check_entry(struct item *item, const struct layout *layout,
                       const struct safetensors_entry *entry, struct err *err)
{
    if (!entry)
        return refuse(layout, "is missing", err);
    if (entry->dtype != layout->dtype)
        return refuse(layout, "has the wrong dtype", err);
    if (entry->rank != layout->rank)
        return refuse(layout, "has the wrong shape", err);
    for (int axis = 0; axis < layout->rank; axis++) {
        int rc = check_dim(item, layout, axis, entry->dim[axis], err);
        if (rc)
            return rc;
    }
    return 0;
}

static int check_values(const struct layout *layout, const void *data, size_t bytes,
                        struct err *err)
{
    const float *numbers = data;
    const uint8_t *flags = data;
    for (size_t i = 0; layout->dtype == DTYPE_F32 && i < bytes / sizeof(float); i++)
        if (!isfinite(numbers[i]))
            return refuse(layout, "holds a number that is not finite", err);
    for (size_t i = 0; layout->flags && i < bytes; i++)
        if (flags[i] > 1)
            return refuse(layout, "holds something other than 0 and 1", err);
    return 0;
}

static int take_tensor(struct item *item, const struct layout *layout,
                       const struct safetensors_entry *entry, struct err *err)
{
    int rc = check_entry(item, layout, entry, err);
    if (rc)
        return rc;
    if (layout->field == SIZE_MAX)
        return rng_parse(&item->rng, entry->data, entry->bytes, err);
    void *copy = malloc(entry->bytes);
    if (!copy)
        return err_set(err, ERR_OUT_OF_MEMORY, "no memory for tensor '%s'", layout->name);
    memcpy(copy, entry->data, entry->bytes);
    void **buffer = buffer_field(item, layout);
    free(*buffer);
    *buffer = copy;
    return check_values(layout, copy, entry->bytes, err);
}

static int take_tensors(struct item *item, unsigned groups, const struct safetensors *file,
                        struct err *err)
{
    size_t taken = 0;
    for (size_t i = 0; i < LAYOUTS; i++) {
        if (!(layouts[i].group & groups))
            continue;
        int rc = take_tensor(item, &layouts[i], safetensors_find(file, layouts[i].name), err);
        if (rc)
            return rc;
        taken++;
    }
    if (safetensors_count(file) != taken)
        return err_set(err, ERR_INVALID_RECORD, "%zu tensors where %zu are expected",
                       safetensors_count(file), taken);
    return 0;
}

int tensors_decode(struct item *item, unsigned groups, const void *bytes, size_t size,
                   struct err *err)
{
    struct safetensors *file;
    if (size == 0 && groups == 0)
        return 0;
    int rc = safetensors_parse(&file, bytes, size, err);
    if (rc)
        return rc;
    rc = take_tensors(item, groups, file, err);
    safetensors_free(file);
    return rc;
}

/* --- writing --- */

unsigned tensors_present(const struct item *item)
{
    unsigned groups = TENSORS_RNG;
    for (size_t i = 0; i < LAYOUTS; i++)
        if (layouts[i].field != SIZE_MAX &&
            *(void *const *)(const void *)((const char *)item + layouts[i].field))
            groups |= layouts[i].group;
    return groups;
}

static int make_entry(const struct item *item, const struct layout *layout,
                      struct safetensors_entry *entry, uint8_t *rng, struct err *err)
{
    struct item *sizes = (struct item *)(uintptr_t)item; /* only read */
    *entry = (struct safetensors_entry){
        .name = layout->name, .dtype = layout->dtype, .rank = layout->rank, .data = rng};
    for (int axis = 0; axis < layout->rank; axis++) {
        int dim = layout->dim[axis];
        entry->dim[axis] = dim > 0 ? dim : *size_field(sizes, dim);
    }
    if (layout->field == SIZE_MAX)
        rng_store(&item->rng, rng);
    else
        entry->data = *buffer_field(sizes, layout);
    return entry->data ? 0 : refuse(layout, "was never made", err);
}

int tensors_encode(const struct item *item, unsigned groups, void **bytes, size_t *size,
                   struct err *err)
{
    struct safetensors_entry entries[LAYOUTS];
    uint8_t rng[RNG_BYTES];
    size_t count = 0;
    for (size_t i = 0; i < LAYOUTS; i++) {
        if (!(layouts[i].group & groups))
            continue;
        int rc = make_entry(item, &layouts[i], &entries[count++], rng, err);
        if (rc)
            return rc;
    }
    return safetensors_encode(entries, count, NULL, 0, bytes, size, err);
}
