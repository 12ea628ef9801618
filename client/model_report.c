/* SPDX-License-Identifier: Apache-2.0 */
/* A model directory, part by part. Whether the shapes fit together only loading tells (--load). */
#include "client/model_report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/memory.h"
#include "common/safetensors.h"

enum part_kind { PART_NETWORK, PART_SCHEDULER, PART_TOKENIZER, PART_FEATURES };

/* In the order of the pipeline. */
static const struct {
    const char *name;
    enum part_kind kind;
    bool needed;
} parts[] = {
    {"tokenizer", PART_TOKENIZER, true},
    {"text_encoder", PART_NETWORK, true},
    {"prior", PART_NETWORK, true},
    {"prior_scheduler", PART_SCHEDULER, true},
    {"ar_prior", PART_NETWORK, false},
    {"text_proj", PART_NETWORK, true},
    {"decoder", PART_NETWORK, true},
    {"decoder_scheduler", PART_SCHEDULER, true},
    {"super_res_first", PART_NETWORK, true},
    {"super_res_last", PART_NETWORK, true},
    {"super_res_scheduler", PART_SCHEDULER, true},
    {"super_res_1024_first", PART_NETWORK, false},
    {"super_res_1024_last", PART_NETWORK, false},
    {"super_res_1024_scheduler", PART_SCHEDULER, false},
    {"feature_extractor", PART_FEATURES, false},
    {"image_encoder", PART_NETWORK, false},
};
#define PARTS (int)(sizeof parts / sizeof *parts)
_Static_assert(sizeof parts / sizeof *parts <= MODEL_PARTS_MAX, "more parts than places");

void model_report_problem(struct model_report *report, const char *text)
{
    if (report->problem_count < MODEL_PROBLEMS_MAX)
        report->problems[report->problem_count++] = xstrdup(text);
}

static void problem_of(struct model_report *report, char *text)
{
    model_report_problem(report, text);
    free(text);
}

bool model_report_good(const struct model_report *report)
{
    return report->problem_count == 0;
}

static bool is_folder(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

/* Its size, or -1 when it is no file. */
static int64_t file_size(const char *folder, const char *name)
{
    char *path = xasprintf("%s/%s", folder, name);
    struct stat status;
    int64_t size = stat(path, &status) == 0 && S_ISREG(status.st_mode) ? status.st_size : -1;
    free(path);
    return size;
}

/* --- one part --- */

/* A file that must be there and, when it is JSON, readable. */
static void need_file(struct model_report *report, struct part_report *part, const char *folder,
                      const char *name)
{
    int64_t size = file_size(folder, name);
    char *path = xasprintf("%s/%s", folder, name);
    json_t *json = NULL;
    struct err err;

    if (size < 0)
        problem_of(report, xasprintf("%s: the file '%s' is missing", part->name, path));
    else
        part->bytes += size;
    const char *ending = strrchr(name, '.');
    if (size >= 0 && ending && strcmp(ending, ".json") == 0 &&
        jsonx_read_file(&json, path, MODEL_JSON_MAX, &err) < 0)
        problem_of(report, xasprintf("%s: %s", part->name, err.text));
    json_decref(json);
    free(path);
}

static void add_dtype(struct part_report *part, enum dtype dtype)
{
    const char *name = dtype_name(dtype);
    size_t used = strlen(part->dtypes);

    for (const char *at = part->dtypes; (at = strstr(at, name)); at += strlen(name))
        if (at == part->dtypes || at[-1] == ' ')
            return;
    snprintf(part->dtypes + used, sizeof part->dtypes - used, "%s%s", used ? ", " : "", name);
}

static void count_tensors(struct part_report *part, const struct safetensors *file)
{
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        part->parameters += (int64_t)(entry->bytes / dtype_size(entry->dtype));
        part->bytes += (int64_t)entry->bytes;
        add_dtype(part, entry->dtype);
    }
}

static void need_weights(struct model_report *report, struct part_report *part, const char *folder)
{
    static const char *const names[] = {"model.safetensors", "diffusion_pytorch_model.safetensors"};
    struct safetensors *file = NULL;
    struct err err;
    int found = file_size(folder, names[0]) >= 0 ? 0 : 1;
    char *path = xasprintf("%s/%s", folder, names[found]);

    if (file_size(folder, names[found]) < 0)
        problem_of(report, xasprintf("%s: no weights: '%s' has neither %s nor %s", part->name,
                                     folder, names[0], names[1]));
    else if (safetensors_open(&file, path, &err) < 0)
        problem_of(report, xasprintf("%s: %s", part->name, err.text));
    else
        count_tensors(part, file);
    safetensors_free(file);
    free(path);
}

static void look_at(struct model_report *report, struct part_report *part, enum part_kind kind,
                    const char *folder)
{
    switch (kind) {
    case PART_NETWORK:
        need_file(report, part, folder, "config.json");
        need_weights(report, part, folder);
        break;
    case PART_SCHEDULER:
        need_file(report, part, folder, "scheduler_config.json");
        break;
    case PART_TOKENIZER:
        need_file(report, part, folder, "vocab.json");
        need_file(report, part, folder, "merges.txt");
        break;
    case PART_FEATURES:
        need_file(report, part, folder, "preprocessor_config.json");
        break;
    }
}

static void part_make(struct model_report *report, int index, const json_t *model_index)
{
    struct part_report *part = &report->parts[report->count++];
    char *folder = xasprintf("%s/%s", report->path, parts[index].name);
    const char *class_name =
        json_string_value(json_array_get(json_object_get(model_index, parts[index].name), 1));

    *part = (struct part_report){.name = parts[index].name, .needed = parts[index].needed};
    snprintf(part->class_name, sizeof part->class_name, "%s", class_name ? class_name : "");
    part->there = is_folder(folder);
    if (part->there)
        look_at(report, part, parts[index].kind, folder);
    else if (part->needed || class_name)
        problem_of(report, xasprintf("%s: the folder '%s' is missing", part->name, folder));
    if (part->there && !class_name && part->needed)
        problem_of(report, xasprintf("%s: model_index.json does not name it", part->name));
    free(folder);
}

/* --- the whole --- */

void model_report_make(struct model_report *report, const char *path)
{
    json_t *model_index = NULL;
    struct err err;
    char *file = xasprintf("%s/model_index.json", path);

    *report = (struct model_report){.path = xstrdup(path)};
    if (!is_folder(path))
        problem_of(report, xasprintf("there is no directory '%s'", path));
    else if (jsonx_read_file(&model_index, file, MODEL_JSON_MAX, &err) < 0)
        model_report_problem(report, err.text);
    else
        for (int i = 0; i < PARTS; i++)
            part_make(report, i, model_index);
    report->card_good =
        model_report_good(report) && model_card_load_path(&report->card, path, &err) == 0;
    if (!report->card_good && model_report_good(report))
        model_report_problem(report, err.text);
    json_decref(model_index);
    free(file);
}

void model_report_release(struct model_report *report)
{
    for (int i = 0; i < report->problem_count; i++)
        free(report->problems[i]);
    if (report->card_good)
        model_card_release(&report->card);
    free(report->path);
    *report = (struct model_report){0};
}

/* --- said --- */

static json_t *part_json(const struct part_report *part)
{
    return json_pack("{s:s, s:s, s:b, s:b, s:I, s:I, s:s}", "name", part->name, "class",
                     part->class_name, "needed", (int)part->needed, "there", (int)part->there,
                     "parameters", (json_int_t)part->parameters, "bytes", (json_int_t)part->bytes,
                     "dtype", part->dtypes);
}

static void put_card(json_t *out, const struct model_card *card)
{
    json_t *steps = json_object(), *guidance = json_object();

    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        if (card->steps[stage])
            json_object_set_new(steps, stage_name(stage), json_integer(card->steps[stage]));
        if (stage_has_guidance(stage))
            json_object_set_new(guidance, stage_name(stage), json_real(card->guidance[stage]));
    }
    json_object_set_new(out, "name", json_string(card->name));
    json_object_set_new(
        out, "sizes",
        json_pack("[i, i, i]", card->decoder_size, card->upsampler_1_size, card->upsampler_2_size));
    json_object_set_new(out, "has_upsampler_2", json_boolean(card->has_upsampler_2));
    json_object_set_new(out, "steps", steps);
    json_object_set_new(out, "guidance", guidance);
}

json_t *model_report_json(const struct model_report *report)
{
    json_t *list = json_array(), *problems = json_array();
    json_t *out = json_pack("{s:s, s:b, s:o, s:o}", "path", report->path, "serves",
                            (int)model_report_good(report), "problems", problems, "parts", list);

    for (int i = 0; i < report->count; i++)
        json_array_append_new(list, part_json(&report->parts[i]));
    for (int i = 0; i < report->problem_count; i++)
        json_array_append_new(problems, json_string(report->problems[i]));
    if (report->card_good)
        put_card(out, &report->card);
    return out;
}

static void format_count(int64_t count, char out[16], const char *unit)
{
    static const char *const prefixes[] = {"", "k", "M", "G", "T"};
    double value = (double)count;
    int prefix = 0;

    for (; value >= 999.5 && prefix < 4; prefix++)
        value /= 1000;
    if (count == 0 && !*unit)
        snprintf(out, 16, "-");
    else
        snprintf(out, 16, prefix ? "%.2f %s%s" : "%.0f %s%s", value, prefixes[prefix], unit);
}

static void print_part(const struct part_report *part, FILE *out)
{
    char parameters[16], bytes[16];

    format_count(part->parameters, parameters, "");
    format_count(part->bytes, bytes, "B");
    if (part->there)
        fprintf(out, "%-25s %-28s %10s %10s  %s\n", part->name, part->class_name, parameters, bytes,
                part->dtypes);
    else
        fprintf(out, "%-25s %s\n", part->name, part->needed ? "MISSING" : "not there");
}

static void print_card(const struct model_card *card, FILE *out)
{
    fprintf(out, "\nsizes      %d, %d and %d px%s\n", card->decoder_size, card->upsampler_1_size,
            card->upsampler_2_size,
            card->has_upsampler_2 ? "" : " (the last by a plain Lanczos resize)");
    const char *sign = "defaults   ";
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        if (!stage_has_steps(stage) || !card->steps[stage])
            continue;
        fprintf(out, "%s%s %d steps", sign, stage_name(stage), card->steps[stage]);
        if (stage_has_guidance(stage))
            fprintf(out, ", guidance %.4g", card->guidance[stage]);
        sign = "; ";
    }
    fputc('\n', out);
}

void model_report_print(const struct model_report *report, FILE *out)
{
    int64_t parameters = 0, bytes = 0;
    char a[16], b[16];

    fprintf(out, "%s\n\n%-25s %-28s %10s %10s  %s\n", report->path, "part", "class", "parameters",
            "size", "dtype");
    for (int i = 0; i < report->count; i++) {
        print_part(&report->parts[i], out);
        parameters += report->parts[i].parameters;
        bytes += report->parts[i].bytes;
    }
    format_count(parameters, a, "");
    format_count(bytes, b, "B");
    fprintf(out, "%-54s %10s %10s\n", "all", a, b);
    if (report->card_good)
        print_card(&report->card, out);
}
