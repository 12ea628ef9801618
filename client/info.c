/* SPDX-License-Identifier: Apache-2.0 */
/* unclip info: what a picture says of how it was made, and the command that makes it again. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/artifact.h"
#include "client/command.h"
#include "client/info.h"
#include "client/status_hash.h"
#include "client/text.h"
#include "common/image.h"
#include "common/json.h"
#include "common/memory.h"

struct values {
    bool json;
};

/* --- the command line --- */

static void put_value(FILE *out, const char *flag, const json_t *value)
{
    if (json_is_string(value) && *json_string_value(value)) {
        fprintf(out, " --%s ", flag);
        text_quote(json_string_value(value), out);
    } else if (json_is_integer(value)) {
        fprintf(out, " --%s %lld", flag, (long long)json_integer_value(value));
    } else if (json_is_real(value)) {
        fprintf(out, " --%s %.15g", flag, json_real_value(value));
    }
}

static void put_settings(FILE *out, const char *prefix, const json_t *values)
{
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        char flag[64];
        snprintf(flag, sizeof flag, "%s-%s", prefix, stage_name(stage));
        put_value(out, flag, json_object_get(values, stage_name(stage)));
    }
}

/* Options that are members of the record by the same name, but for - in the place of _. */
static void put_members(FILE *out, const json_t *request)
{
    static const char *const flags[] = {
        "negative-prompt",
        "seed",
        "size",
        "model",
        "overflow",
        "mask-mode",
        "feather",
        "noise-place",
        "theta",
        "start",
        "strength",
        "resample",
        "prior",
        "prior-candidates",
        "from",
        "to",
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s", flags[i]);
        for (char *at = key; *at; at++)
            *at = *at == '-' ? '_' : *at;
        put_value(out, flags[i], json_object_get(request, key));
    }
}

static void put_options(FILE *out, const json_t *request)
{
    static const char *const staged[] = {"steps", "guidance", "sampler",
                                         "eta",   "reuse",    "threshold"};
    const json_t *output = json_object_get(request, "output");
    put_members(out, request);
    for (size_t i = 0; i < sizeof staged / sizeof *staged; i++)
        put_settings(out, staged[i], json_object_get(request, staged[i]));
    put_value(out, "format", json_object_get(output, "format"));
    put_value(out, "quality", json_object_get(output, "quality"));
}

/* A picture that only the maker had is for the reader to fill in. */
static const char *picture_word(const json_t *address)
{
    const char *text = json_string_value(address);
    return text && strncmp(text, "http", 4) == 0 ? text : "PICTURE";
}

static void put_word(FILE *out, const char *word)
{
    fputc(' ', out);
    text_quote(word, out);
}

static void put_input(FILE *out, const json_t *input)
{
    const char *text = json_string_value(json_object_get(input, "text"));
    char *word =
        text ? xasprintf("text:%s", text) : xstrdup(picture_word(json_object_get(input, "image")));
    put_word(out, word);
    free(word);
}

static void put_weights(FILE *out, const json_t *inputs)
{
    size_t i;
    const json_t *input;
    json_array_foreach (inputs, i, input) {
        const json_t *weight = json_object_get(input, "weight");
        fprintf(out, "%s%.15g", i ? "," : " --weight ", weight ? json_number_value(weight) : 1.0);
    }
}

/* What stands before the options, of all kinds but text-to-image. */
static void put_sources(FILE *out, enum job_type type, const json_t *request)
{
    const json_t *inputs = json_object_get(request, "inputs");
    const json_t *image = json_object_get(request, "image"), *input;
    const char *prompt = status_text(request, "prompt");
    size_t i;
    json_array_foreach (inputs, i, input)
        put_input(out, input);
    if (type == JOB_INTERPOLATE)
        put_weights(out, inputs);
    if (image && type == JOB_INTERPOLATE)
        fprintf(out, " --image");
    if (image)
        put_word(out, picture_word(image));
    if (type != JOB_EDIT && *prompt)
        fprintf(out, " --prompt");
    if (*prompt && (type != JOB_EDIT || *prompt != '-'))
        put_word(out, prompt);
    if (json_object_get(request, "mask")) {
        fprintf(out, " --mask");
        put_word(out, picture_word(json_object_get(request, "mask")));
    }
}

/* A prompt that looks like an option goes last, after the end of the options. */
char *info_command_line(const json_t *request)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    const char *prompt = status_text(request, "prompt");
    enum job_type type = JOB_TEXT_TO_IMAGE;
    job_type_parse(status_text(request, "type"), &type);
    bool last = *prompt == '-' && (type == JOB_TEXT_TO_IMAGE || type == JOB_EDIT);

    BUG_ON(!out);
    fprintf(out, "unclip %s", type == JOB_TEXT_TO_IMAGE ? "generate" : job_type_name(type));
    if (type != JOB_TEXT_TO_IMAGE)
        put_sources(out, type, request);
    else if (!last)
        put_word(out, prompt);
    put_options(out, request);
    fputs(type == JOB_TEXT_TO_IMAGE ? " -o out" : " --local -o out", out);
    if (last) {
        fputs(" --", out);
        put_word(out, prompt);
    }
    BUG_ON(fclose(out) != 0);
    return text;
}

/* --- the picture --- */

struct picture_text {
    char *parameters; /* owned; NULL: not there */
    json_t *request;  /* owned; NULL: not there */
};

static void text_release(struct picture_text *text)
{
    free(text->parameters);
    json_decref(text->request);
}

static int text_read(struct picture_text *text, const char *path, struct err *err)
{
    void *bytes = NULL;
    size_t size;
    char *request = NULL;
    struct err why;
    int rc = artifact_read(path, IMAGE_FILE_MAX, &bytes, &size, err);

    if (rc < 0)
        return rc;
    if (image_png_text(bytes, size, "parameters", &text->parameters, &why) < 0 &&
        why.code != ERR_NOT_FOUND)
        rc = err_set(err, why.code, "'%s': %s", path, why.text);
    if (rc == 0 && image_png_text(bytes, size, "unclip", &request, &why) == 0 &&
        jsonx_parse(&text->request, request, strlen(request), &why) < 0)
        rc = err_set(err, ERR_INVALID_IMAGE, "'%s': the key 'unclip' is no JSON: %s", path,
                     why.text);
    if (rc == 0 && !text->parameters && !text->request)
        rc = err_set(err, ERR_NOT_FOUND, "'%s' does not say how it was made", path);
    free(request);
    free(bytes);
    return rc;
}

static void print_json(const struct picture_text *text)
{
    char *command = text->request ? info_command_line(text->request) : NULL;
    json_t *out = json_pack("{s:s?, s:O?, s:s?}", "parameters", text->parameters, "request",
                            text->request, "command", command);
    json_dumpf(out, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    puts("");
    json_decref(out);
    free(command);
}

static void print(const struct picture_text *text)
{
    if (text->parameters) {
        text_print(text->parameters, true, stdout);
        puts("");
    }
    if (!text->request)
        return;
    char *command = info_command_line(text->request);
    printf("\nto make it again:\n  %s\n", command);
    free(command);
}

static enum exit_code run(const struct invocation *invocation)
{
    const struct values *values = invocation->values;
    struct picture_text text = {0};
    struct err err;
    enum exit_code code = EXIT_OK;

    if (text_read(&text, invocation->operands[0], &err) < 0)
        code = complain_of(invocation, &err);
    else if (values->json)
        print_json(&text);
    else
        print(&text);
    text_release(&text);
    return code;
}

static const struct option options[] = {
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, offsetof(struct values, json), "as one JSON object"},
    {0},
};
static const struct option_group groups[] = {{"Output", options}, {0}};

const struct command info_command = {
    .name = "info",
    .operands = "PICTURE",
    .least = 1,
    .most = 1,
    .summary = "show how a picture was made, and the command to make it again",
    .groups = groups,
    .values_size = sizeof(struct values),
    .run = run,
};
