/* SPDX-License-Identifier: Apache-2.0 */
/* Model cards: model_index.json, the networks' config.json, unclip.json. */
#include "common/model_card.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/image.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

static const struct model_card defaults = {
    .steps = {[STAGE_PRIOR] = 25,
              [STAGE_DECODER] = 25,
              [STAGE_UPSAMPLER_1] = 7,
              [STAGE_UPSAMPLER_2] = 7},
    .guidance = {[STAGE_PRIOR] = 4, [STAGE_DECODER] = 8},
};

#define LANCZOS_FACTOR 4 /* of upsampler-2 where the model has no network for it */

static const char *const needed_parts[] = {
    "tokenizer", "text_encoder",      "text_proj",       "prior",          "prior_scheduler",
    "decoder",   "decoder_scheduler", "super_res_first", "super_res_last", "super_res_scheduler",
};
static const char *const upsampler_2_parts[] = {
    "super_res_1024_first",
    "super_res_1024_last",
    "super_res_1024_scheduler",
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* Reads card->path/file; *label is owned, for messages. A missing file is the model's fault. */
static int read_config(const struct model_card *card, const char *file, json_t **out, char **label,
                       struct err *err)
{
    *label = xasprintf("%s/%s", card->path, file);
    int result;
    if (access(*label, R_OK) != 0)
        result = err_set(err, ERR_INVALID_MODEL, "cannot read '%s': %s", *label, strerror(errno));
    else if ((result = jsonx_read_file(out, *label, MODEL_JSON_MAX, err)) == 0) {
        if (json_is_object(*out))
            return 0;
        json_decref(*out);
        result = err_set(err, ERR_INVALID_MODEL, "'%s' must be an object", *label);
    }
    free(*label);
    *label = NULL;
    return result;
}

/* diffusers lists a part as [library, class], and [null, null] where it is left out. */
static bool has_part(const json_t *index, const char *part)
{
    return json_is_string(json_array_get(json_object_get(index, part), 1));
}

/* Parts that diffusers' index of a text-to-image pipeline does not list. */
static bool has_folder(const struct model_card *card, const char *part)
{
    char *config = xasprintf("%s/%s/config.json", card->path, part);
    bool found = access(config, R_OK) == 0;
    free(config);
    return found;
}

static int read_index(struct model_card *card, struct err *err)
{
    json_t *index;
    char *label;
    int result = read_config(card, "model_index.json", &index, &label, err);
    if (result != 0)
        return result;
    for (size_t i = 0; i < COUNT(needed_parts) && result == 0; i++)
        if (!has_part(index, needed_parts[i]))
            result =
                err_set(err, ERR_INVALID_MODEL, "'%s' lacks the part '%s'", label, needed_parts[i]);
    card->has_upsampler_2 = true;
    for (size_t i = 0; i < COUNT(upsampler_2_parts); i++)
        card->has_upsampler_2 &= has_part(index, upsampler_2_parts[i]);
    json_decref(index);
    free(label);
    card->has_image_encoder = has_folder(card, "image_encoder");
    card->has_ar_prior = has_folder(card, "ar_prior");
    return result;
}

static int read_size(const struct model_card *card, const char *file, int *size, struct err *err)
{
    json_t *config;
    char *label;
    int result = read_config(card, file, &config, &label, err);
    if (result != 0)
        return result;
    int64_t value = 0;
    result = jsonx_int(config, "sample_size", 1, IMAGE_SIDE_MAX, &value, label, err);
    if (result == 0 && value == 0)
        result = err_set(err, ERR_INVALID_MODEL, "'%s' lacks 'sample_size'", label);
    *size = (int)value;
    json_decref(config);
    free(label);
    return result;
}

static int read_sizes(struct model_card *card, struct err *err)
{
    int result = read_size(card, "decoder/config.json", &card->decoder_size, err);
    if (result == 0)
        result = read_size(card, "super_res_first/config.json", &card->upsampler_1_size, err);
    if (result != 0)
        return result;
    card->upsampler_2_size = LANCZOS_FACTOR * card->upsampler_1_size;
    if (card->has_upsampler_2)
        result = read_size(card, "super_res_1024_first/config.json", &card->upsampler_2_size, err);
    if (result == 0 && (card->decoder_size >= card->upsampler_1_size ||
                        card->upsampler_1_size >= card->upsampler_2_size ||
                        card->upsampler_2_size > IMAGE_SIDE_MAX))
        result = err_set(err, ERR_INVALID_MODEL,
                         "'%s': the sizes %d, %d and %d must rise, to at most %d", card->path,
                         card->decoder_size, card->upsampler_1_size, card->upsampler_2_size,
                         IMAGE_SIDE_MAX);
    return result;
}

static void take_settings(struct model_card *card, const json_t *settings)
{
    const json_t *steps = json_object_get(settings, "steps");
    const json_t *guidance = json_object_get(settings, "guidance");
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        const char *name = stage_name((enum stage)stage);
        const json_t *value = json_object_get(steps, name);
        if (value)
            card->steps[stage] = (int)json_integer_value(value);
        if ((value = json_object_get(guidance, name)))
            card->guidance[stage] = json_number_value(value);
    }
}

static int read_settings(struct model_card *card, struct err *err)
{
    char *label = xasprintf("%s/unclip.json", card->path);
    bool absent = access(label, F_OK) != 0 && errno == ENOENT;
    free(label);
    if (absent)
        return 0;
    json_t *settings;
    int result = read_config(card, "unclip.json", &settings, &label, err);
    if (result != 0)
        return result;
    struct err why;
    char *text = json_dumps(settings, JSON_COMPACT);
    if (schema_validate("model", text, strlen(text), &why) != 0)
        result = err_set(err, ERR_INVALID_MODEL, "'%s': %s", label, why.text);
    else
        take_settings(card, settings);
    free(text);
    json_decref(settings);
    free(label);
    return result;
}

/* The name is in card->name already. Takes `path`. */
static int load(struct model_card *card, char *path, struct err *err)
{
    card->path = path;
    struct stat status;
    int result = 0;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode))
        result = err_set(err, ERR_UNKNOWN_MODEL, "there is no model directory '%s'", path);
    if (result == 0)
        result = read_index(card, err);
    if (result == 0)
        result = read_sizes(card, err);
    if (result == 0)
        result = read_settings(card, err);
    if (!card->has_upsampler_2)
        card->steps[STAGE_UPSAMPLER_2] = 0;
    if (result != 0)
        model_card_release(card);
    return result;
}

int model_card_load(struct model_card *card, const char *models_folder, const char *name,
                    struct err *err)
{
    *card = defaults;
    if (strlen(name) > MODEL_NAME_MAX || !job_id_valid(name, strlen(name)))
        return err_set(err, ERR_UNKNOWN_MODEL, "'%.100s' is not a model's name", name);
    strcpy(card->name, name);
    return load(card, xasprintf("%s/%s", models_folder, name), err);
}

/* The last component of the resolved path, made to fit the pattern of names. */
static void name_of(const char *path, char name[MODEL_NAME_MAX + 1])
{
    const char *slash = strrchr(path, '/');
    strncat(strcpy(name, ""), slash ? slash + 1 : path, MODEL_NAME_MAX);
    if (!job_id_valid(name, 1))
        name[0] = 'm';
    for (size_t i = 1; i < strlen(name); i++)
        if (!job_id_valid(name, i + 1))
            name[i] = '-';
}

int model_card_load_path(struct model_card *card, const char *path, struct err *err)
{
    *card = defaults;
    char *resolved = realpath(path, NULL);
    name_of(resolved ? resolved : path, card->name);
    free(resolved);
    return load(card, xstrdup(path), err);
}

void model_card_release(struct model_card *card)
{
    free(card->path);
    card->path = NULL;
}
