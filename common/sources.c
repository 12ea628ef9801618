/* SPDX-License-Identifier: Apache-2.0 */
/* What pictures are made from, copied and as JSON. */
#include "common/sources.h"

#include <stdlib.h>

#include "common/err.h"
#include "common/memory.h"

static char *copy(const char *text)
{
    return text ? xstrdup(text) : NULL;
}

void sources_copy(struct sources *to, const struct sources *from)
{
    *to = *from;
    to->image = copy(from->image);
    to->mask = copy(from->mask);
    to->inputs = from->count ? xcalloc((size_t)from->count, sizeof *to->inputs) : NULL;
    for (int i = 0; i < from->count; i++)
        to->inputs[i] = (struct job_input){.image = copy(from->inputs[i].image),
                                           .text = copy(from->inputs[i].text),
                                           .weight = from->inputs[i].weight};
}

void sources_release(struct sources *sources)
{
    for (int i = 0; i < sources->count; i++) {
        free(sources->inputs[i].image);
        free(sources->inputs[i].text);
    }
    free(sources->inputs);
    free(sources->image);
    free(sources->mask);
    *sources = (struct sources){0};
}

void sources_free(struct sources *sources)
{
    if (sources)
        sources_release(sources);
    free(sources);
}

int sources_texts(const struct sources *sources)
{
    int texts = 0;
    for (int i = 0; sources && i < sources->count; i++)
        texts += sources->inputs[i].text != NULL;
    return texts;
}

json_t *inputs_to_json(const struct sources *sources)
{
    json_t *out = json_array();
    for (int i = 0; i < sources->count; i++) {
        const struct job_input *input = &sources->inputs[i];
        json_array_append_new(out, json_pack("{s:s, s:f}", input->image ? "image" : "text",
                                             input->image ? input->image : input->text, "weight",
                                             input->weight));
    }
    return out;
}

void inputs_read(struct sources *sources, const json_t *inputs)
{
    size_t i;
    const json_t *json;
    size_t count = json_array_size(inputs);
    BUG_ON(count > SOURCES_INPUTS_MAX);
    sources->inputs = count ? xcalloc(count, sizeof *sources->inputs) : NULL;
    sources->count = (int)count;
    json_array_foreach (inputs, i, json) {
        const json_t *weight = json_object_get(json, "weight");
        sources->inputs[i] = (struct job_input){
            .image = copy(json_string_value(json_object_get(json, "image"))),
            .text = copy(json_string_value(json_object_get(json, "text"))),
            .weight = weight ? json_number_value(weight) : 1,
        };
    }
}

json_t *output_form_to_json(const struct output_form *form)
{
    if (form->format == FORMAT_PNG && form->quality == 0)
        return NULL;
    json_t *out = json_pack("{s:s}", "format", format_name(form->format));
    if (form->quality > 0)
        json_object_set_new(out, "quality", json_integer(form->quality));
    return out;
}

void output_form_read(struct output_form *form, const json_t *json)
{
    const char *format = json_string_value(json_object_get(json, "format"));
    *form = (struct output_form){0};
    enum format found = FORMAT_PNG;
    BUG_ON(format && !format_parse(format, &found));
    form->format = found;
    form->quality = (unsigned)json_integer_value(json_object_get(json, "quality"));
}
