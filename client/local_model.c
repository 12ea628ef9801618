/* SPDX-License-Identifier: Apache-2.0 */
/* Models and compute contexts from settings. */
#include "client/local_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

char *local_model_path(const char *models, const char *name)
{
    return strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0
               ? xstrdup(name)
               : xasprintf("%s/%s", models, name);
}

int local_model_open(struct model_card *card, const struct config *config, struct err *err)
{
    char *path = local_model_path(config->models, config->model);
    int rc = model_card_load_path(card, path, err);
    free(path);
    return rc;
}

static void print_note(const char *text)
{
    fprintf(stderr, "note: %s\n", text);
}

int local_nn_open(struct nn **out, const struct config *config, struct err *err)
{
    enum dtype dtype;

    if (strcmp(config->dtype, "f32") == 0)
        dtype = DTYPE_F32;
    else if (strcmp(config->dtype, "bf16") == 0)
        dtype = DTYPE_BF16;
    else if (strcmp(config->dtype, "auto") == 0)
        dtype = nn_cpu_has_bf16() ? DTYPE_BF16 : DTYPE_F32;
    else
        return err_set(err, ERR_INVALID_ARGUMENT, "--dtype is '%s', it must be auto, f32 or bf16",
                       config->dtype);
    int rc = nn_open(out, dtype, (int)config->threads, err);
    if (rc == 0)
        nn_keep_packed(*out, config->packed, print_note);
    return rc;
}
