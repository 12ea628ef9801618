/* SPDX-License-Identifier: Apache-2.0 */
/* The probe on finished pictures; see probe.h. */
#include "workers/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/image.h"
#include "common/memory.h"
#include "common/safetensors.h"
#include "stages/mix.h"

#define CHANNELS 3

enum action { ACTION_REFUSE, ACTION_BLUR, ACTION_FLAG };

struct concept {
    char *name;   /* owned */
    float *embed; /* [dim], owned */
    double threshold;
};

struct probe {
    struct concept concepts[PROBE_CONCEPTS_MAX];
    size_t count;
    int dim;
    enum action action;
};

/* --- reading --- */

static int check_name(const char *name, struct err *err)
{
    size_t length = strlen(name);
    bool printable = length > 0;
    for (size_t i = 0; i < length; i++)
        printable &= (unsigned char)name[i] >= ' ' && name[i] != '\x7f';
    if (!printable)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "a concept has a name that is empty or cannot be printed");
    if (length > PROBE_NAME_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT, "a concept has a name of %zu bytes, %d may be",
                       length, PROBE_NAME_MAX);
    return 0;
}

static int read_threshold(double *out, const char *name, const char *text, struct err *err)
{
    char *end;
    if (!text)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "concept '%s' has no threshold: the metadata has no key of its name", name);
    *out = strtod(text, &end);
    if (end == text || *end || !(*out >= 0 && *out <= 1))
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the threshold of concept '%s' is no number from 0 to 1", name);
    return 0;
}

static bool is_finite(const float *numbers, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(numbers[i]))
            return false;
    return true;
}

/* That the tensor may be an embedding, and is as long as those before it. */
static int check_shape(const struct probe *probe, const struct safetensors_entry *entry,
                       struct err *err)
{
    if (entry->dtype != DTYPE_F32 || entry->rank != 1 || entry->dim[0] < 1 ||
        entry->dim[0] > PROBE_DIM_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "concept '%s' is no embedding: one axis of 1 to %d numbers, F32",
                       entry->name, PROBE_DIM_MAX);
    if (probe->dim && entry->dim[0] != probe->dim)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "concept '%s' has %lld numbers, those before it have %d", entry->name,
                       (long long)entry->dim[0], probe->dim);
    return 0;
}

static int add_concept(struct probe *probe, const struct safetensors_entry *entry,
                       const char *threshold, struct err *err)
{
    double least = 0;
    int rc = check_name(entry->name, err);
    if (!rc)
        rc = check_shape(probe, entry, err);
    if (!rc)
        rc = read_threshold(&least, entry->name, threshold, err);
    if (rc)
        return rc;
    probe->dim = (int)entry->dim[0];
    struct concept *concept = &probe->concepts[probe->count++];
    concept->name = xstrdup(entry->name);
    concept->embed = xmalloc(entry->bytes);
    memcpy(concept->embed, entry->data, entry->bytes);
    concept->threshold = least;
    if (!is_finite(concept->embed, probe->dim) ||
        mix_cosine(concept->embed, concept->embed, probe->dim) < 0.5) /* it has no direction */
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "concept '%s' is all zeros, or has a number that is not finite",
                       entry->name);
    return 0;
}

static int read_concepts(struct probe *probe, const struct safetensors *file, struct err *err)
{
    size_t count = safetensors_count(file);
    int rc = 0;
    if (count < 1 || count > PROBE_CONCEPTS_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT, "it has %zu concepts, 1 to %d may be", count,
                       PROBE_CONCEPTS_MAX);
    for (size_t i = 0; !rc && i < count; i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        rc = add_concept(probe, entry, safetensors_metadata(file, entry->name), err);
    }
    return rc;
}

static enum action action_of(const char *name)
{
    return strcmp(name, "blur") == 0   ? ACTION_BLUR
           : strcmp(name, "flag") == 0 ? ACTION_FLAG
                                       : ACTION_REFUSE;
}

int probe_open(struct probe **out, const struct config *config, struct err *err)
{
    struct safetensors *file;
    *out = NULL;
    if (strcmp(config->concepts, "none") == 0)
        return 0;
    int rc = safetensors_open(&file, config->concepts, err);
    if (rc)
        return err_prefix(err, "concepts");
    struct probe *probe = xcalloc(1, sizeof *probe);
    probe->action = action_of(config->concept_action);
    rc = read_concepts(probe, file, err);
    safetensors_free(file);
    if (rc) {
        probe_free(probe);
        return err_prefix(err, "concepts '%s'", config->concepts);
    }
    *out = probe;
    return 0;
}

void probe_free(struct probe *probe)
{
    if (!probe)
        return;
    for (size_t i = 0; i < probe->count; i++) {
        free(probe->concepts[i].name);
        free(probe->concepts[i].embed);
    }
    free(probe);
}

/* --- looking --- */

static bool is_finished(const struct parcel *parcel)
{
    const struct task *task = &parcel->task;
    return parcel->outcome == OUTCOME_FINISHED && task_last_hop(task) && task->type != JOB_EMBED &&
           task->type != JOB_SCORE;
}

/* *found is the concept most above its threshold; NULL: the picture reaches none. */
static int find(const struct probe *probe, const struct parcel *parcel,
                const struct concept **found, struct err *err)
{
    const struct item *item = &parcel->item;
    const float *embed = item->inputs[0].embed;
    double best = 0;
    *found = NULL;
    if (!embed || !item->image)
        return err_set(err, ERR_INVALID_RECORD, "the picture has no embedding to look at");
    if (item->embed_dim != probe->dim)
        return err_set(err, ERR_INVALID_MODEL,
                       "the concepts have %d numbers, embeddings of the model '%s' have %d",
                       probe->dim, parcel->task.model, item->embed_dim);
    if (!is_finite(embed, probe->dim))
        return err_set(err, ERR_COMPUTE, "the picture's embedding is not finite");
    for (size_t i = 0; i < probe->count; i++) {
        const struct concept *concept = &probe->concepts[i];
        double above = mix_cosine(embed, concept->embed, probe->dim) - concept->threshold;
        if (above >= best) {
            best = above;
            *found = concept;
        }
    }
    return 0;
}

/* Nothing but a few patches of colour stays. */
static int blur(struct item *item, struct err *err)
{
    int size = item->image_size, eighth = (size + 7) / 8;
    int side = eighth < PROBE_BLUR_SIDE ? eighth : PROBE_BLUR_SIDE;
    float small[PROBE_BLUR_SIDE * PROBE_BLUR_SIDE * CHANNELS];
    int rc = image_resize_lanczos(item->image, size, small, side, err);
    return rc ? rc : image_resize_lanczos(small, side, item->image, size, err);
}

static int act(const struct probe *probe, struct parcel *parcel, struct err *err)
{
    const struct concept *concept;
    int rc = find(probe, parcel, &concept, err);
    if (rc || !concept)
        return rc;
    if (probe->action == ACTION_REFUSE)
        return err_set(err, ERR_DENIED, "the picture looks like '%s', which is not allowed here",
                       concept->name);
    if (probe->action == ACTION_BLUR && (rc = blur(&parcel->item, err)))
        return rc;
    parcel->concept = concept->name;
    parcel->blurred = probe->action == ACTION_BLUR;
    return 0;
}

void probe_check(const struct probe *probe, struct parcel *parcel)
{
    struct err err = {0};
    if (is_finished(parcel) && act(probe, parcel, &err))
        parcel_fail(parcel, &err);
}
