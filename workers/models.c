/* SPDX-License-Identifier: Apache-2.0 */
/* Lazily loaded models; see models.h. Names come from tasks and were checked to be plain names. */
#include "workers/models.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/memory.h"
#include "workers/fingerprint.h"

struct named_model {
    char *name, *path;                  /* owned */
    struct stage_model *model;          /* owned; NULL until it is needed */
    char fingerprint[DIGEST_TEXT_SIZE]; /* "" until it is needed */
};

struct models {
    char *folder;
    enum stage stage;
    struct nn *nn;
    struct named_model **list;
    size_t count;
};

void models_open(struct models **out, const char *folder, enum stage stage, struct nn *nn)
{
    struct models *models = xcalloc(1, sizeof(*models));
    models->folder = xstrdup(folder);
    models->stage = stage;
    models->nn = nn;
    *out = models;
}

void models_close(struct models *models)
{
    if (!models)
        return;
    for (size_t i = 0; i < models->count; i++) {
        stage_close(models->list[i]->model);
        free(models->list[i]->name);
        free(models->list[i]->path);
        free(models->list[i]);
    }
    free(models->list);
    free(models->folder);
    free(models);
}

static struct named_model *add(struct models *models, const char *name, char *path)
{
    struct named_model *named = xcalloc(1, sizeof(*named));
    named->name = xstrdup(name);
    named->path = path;
    models->list = xrealloc(models->list, (models->count + 1) * sizeof(*models->list));
    return models->list[models->count++] = named;
}

static int find(struct models *models, const char *name, struct named_model **out, struct err *err)
{
    struct stat about;
    for (size_t i = 0; i < models->count; i++)
        if (strcmp(models->list[i]->name, name) == 0) {
            *out = models->list[i];
            return 0;
        }
    char *path = xasprintf("%s/%s", models->folder, name);
    if (stat(path, &about) || !S_ISDIR(about.st_mode)) {
        free(path);
        return err_set(err, ERR_UNKNOWN_MODEL, "no model '%s' in '%s'", name, models->folder);
    }
    *out = add(models, name, path);
    return 0;
}

int models_get(struct models *models, const char *name, struct stage_model **model, struct err *err)
{
    struct named_model *named;
    int rc = find(models, name, &named, err);
    if (!rc && !named->model)
        rc = stage_open(&named->model, models->stage, named->path, models->nn, err);
    if (!rc)
        *model = named->model;
    return rc;
}

static int fingerprint(const struct models *models, struct named_model *named, struct err *err)
{
    static const char *const text_parts[] = {"tokenizer",       "text_encoder", "prior",
                                             "prior_scheduler", "ar_prior",     NULL};
    static const char *const picture_parts[] = {"feature_extractor", "image_encoder", NULL};
    const char *const *parts = models->stage == STAGE_IMAGE_ENCODE ? picture_parts : text_parts;
    struct digest *digest = digest_new();
    int rc = 0;
    digest_add_text(digest, dtype_name(nn_dtype(models->nn)));
    for (size_t i = 0; !rc && parts[i]; i++) {
        char *path = xasprintf("%s/%s", named->path, parts[i]);
        digest_add_text(digest, parts[i]);
        rc = fingerprint_folder(digest, path, err);
        free(path);
    }
    digest_finish(digest, named->fingerprint);
    if (rc)
        *named->fingerprint = '\0';
    return rc;
}

int models_fingerprint(struct models *models, const char *name, const char **text, struct err *err)
{
    struct named_model *named;
    int rc = find(models, name, &named, err);
    if (!rc && !*named->fingerprint)
        rc = fingerprint(models, named, err);
    if (!rc)
        *text = named->fingerprint;
    return rc;
}
