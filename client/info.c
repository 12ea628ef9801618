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

static void put_options(FILE *out, const json_t *request)
{
    put_value(out, "negative-prompt", json_object_get(request, "negative_prompt"));
    put_value(out, "seed", json_object_get(request, "seed"));
    put_value(out, "size", json_object_get(request, "size"));
    put_value(out, "model", json_object_get(request, "model"));
    put_settings(out, "steps", json_object_get(request, "steps"));
    put_settings(out, "guidance", json_object_get(request, "guidance"));
    put_settings(out, "sampler", json_object_get(request, "sampler"));
    put_settings(out, "eta", json_object_get(request, "eta"));
    put_settings(out, "reuse", json_object_get(request, "reuse"));
    fputs(" -o out", out);
}

/* A prompt that looks like an option goes last, after the end of the options. */
char *info_command_line(const json_t *request)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    const char *prompt = status_text(request, "prompt");
    bool last = *prompt == '-';

    BUG_ON(!out);
    fputs("unclip generate", out);
    if (!last) {
        fputc(' ', out);
        text_quote(prompt, out);
    }
    put_options(out, request);
    if (last) {
        fputs(" -- ", out);
        text_quote(prompt, out);
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
