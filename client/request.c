/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs from options. What an option may hold is the schema's to say, which checks the record. */
#include "client/request.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void request_init(struct request *request)
{
    *request = (struct request){.seed = -1,
                                .feather = -1,
                                .resample = -1,
                                .preview = -1,
                                .theta = -1,
                                .strength = -1,
                                .noise_place = -1};
    for (int i = 0; i < STAGE_COUNT; i++)
        request->guidance[i] = request->eta[i] = request->threshold[i] = -1;
}

void request_release(struct request *request)
{
    sources_release(&request->sources);
}

int request_weigh(struct request *request, struct err *err)
{
    const char *at = request->weights;
    if (!at)
        return 0;
    for (int i = 0; i < request->sources.count; i++) {
        char *end;
        double weight = strtod(at, &end);
        if (end == at || *end != (i + 1 < request->sources.count ? ',' : 0))
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "--weight is '%s', it must be %d numbers with commas between",
                           request->weights, request->sources.count);
        request->sources.inputs[i].weight = weight;
        at = end + 1;
    }
    return 0;
}

/* --- the record --- */

/* A record that is being made. */
struct draft {
    json_t *record;
    const char *broken; /* the member that is not UTF-8, or NULL */
};

static void put_text(struct draft *draft, const char *key, const char *text)
{
    if (text && json_object_set_new(draft->record, key, json_string(text)) != 0)
        draft->broken = key;
}

static void put_integer(struct draft *draft, const char *key, int64_t value, int64_t least)
{
    if (value >= least)
        json_object_set_new(draft->record, key, json_integer(value));
}

static void put_number(struct draft *draft, const char *key, double value)
{
    if (value >= 0)
        json_object_set_new(draft->record, key, json_real(value));
}

/* Takes the object; one that is empty says nothing. */
static void put_object(struct draft *draft, const char *key, json_t *object)
{
    if (json_object_size(object))
        json_object_set(draft->record, key, object);
    json_decref(object);
}

/* {"prior": 25, …} of those that are given. */
static void put_integers(struct draft *draft, const char *key, const int64_t values[STAGE_COUNT])
{
    json_t *object = json_object();
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++)
        if (values[stage] > 0)
            json_object_set_new(object, stage_name(stage), json_integer(values[stage]));
    put_object(draft, key, object);
}

static void put_numbers(struct draft *draft, const char *key, const double values[STAGE_COUNT])
{
    json_t *object = json_object();
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++)
        if (values[stage] >= 0)
            json_object_set_new(object, stage_name(stage), json_real(values[stage]));
    put_object(draft, key, object);
}

static void put_samplers(struct draft *draft, const char *const values[STAGE_COUNT])
{
    struct draft samplers = {.record = json_object()};
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++)
        put_text(&samplers, stage_name(stage), values[stage]);
    if (samplers.broken)
        draft->broken = "sampler";
    put_object(draft, "sampler", samplers.record);
}

static void put_inputs(struct draft *draft, const struct request *request)
{
    json_t *inputs = json_array();
    for (int i = 0; i < request->sources.count; i++) {
        const struct job_input *input = &request->sources.inputs[i];
        struct draft one = {.record = json_object()};
        put_text(&one, "image", input->image);
        put_text(&one, "text", input->text);
        if (request->weights)
            put_number(&one, "weight", input->weight);
        if (one.broken)
            draft->broken = "inputs";
        json_array_append_new(inputs, one.record);
    }
    if (request->sources.count > 0)
        json_object_set(draft->record, "inputs", inputs);
    json_decref(inputs);
}

static void put_sources(struct draft *draft, const struct request *request)
{
    put_inputs(draft, request);
    put_text(draft, "image", request->sources.image);
    put_text(draft, "mask", request->sources.mask);
    put_text(draft, "mask_mode", request->mask_mode);
    put_text(draft, "noise", request->noise);
    put_number(draft, "noise_place", request->noise_place);
    put_integer(draft, "feather", request->feather, 0);
    put_text(draft, "from", request->from);
    put_text(draft, "to", request->to);
    put_integer(draft, "from", request->from_size, 1);
    put_number(draft, "theta", request->theta);
}

static void put_making(struct draft *draft, const struct request *request)
{
    put_text(draft, "overflow", request->overflow);
    put_text(draft, "prior", request->prior);
    put_integer(draft, "prior_candidates", request->candidates, 1);
    put_text(draft, "start", request->start);
    put_number(draft, "strength", request->strength);
    put_integer(draft, "resample", request->resample, 0);
    put_integer(draft, "stop_at", request->stop_at, 1);
    put_integer(draft, "best_of", request->best_of, 1);
    put_integer(draft, "preview", request->preview, 0);
    if (request->score)
        json_object_set_new(draft->record, "score", json_true());
    put_integers(draft, "steps", request->steps);
    put_numbers(draft, "guidance", request->guidance);
    put_samplers(draft, request->sampler);
    put_numbers(draft, "eta", request->eta);
    put_integers(draft, "reuse", request->reuse);
    put_numbers(draft, "threshold", request->threshold);
}

static void put_output(struct draft *draft, const struct request *request)
{
    struct draft output = {.record = json_object()};
    put_text(&output, "format", request->format);
    put_integer(&output, "quality", request->quality, 1);
    if (output.broken)
        draft->broken = "format";
    put_object(draft, "output", output.record);
}

int request_json(const struct request *request, const char *model, json_t **record, struct err *err)
{
    struct draft draft = {.record = json_pack("{s:i, s:s}", "version", PROTOCOL_VERSION, "type",
                                              job_type_name(request->type))};
    put_text(&draft, "id", request->id);
    put_text(&draft, "prompt", request->prompt);
    put_text(&draft, "negative_prompt", request->negative_prompt);
    put_sources(&draft, request);
    put_integer(&draft, "n", request->n, 1);
    put_integer(&draft, "frames", request->frames, 1);
    put_integer(&draft, "size", request->size, 1);
    put_integer(&draft, "seed", request->seed, 0);
    put_text(&draft, "model", model);
    put_text(&draft, "class", request->task_class);
    put_text(&draft, "client", request->client);
    put_text(&draft, "webhook", request->webhook);
    put_integer(&draft, "deadline_s", request->deadline_s, 1);
    put_making(&draft, request);
    put_output(&draft, request);
    if (draft.broken) {
        json_decref(draft.record);
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not valid UTF-8", draft.broken);
    }
    *record = draft.record;
    return 0;
}

int request_check(const json_t *record, struct job *job, struct err *err)
{
    char *text = json_dumps(record, JSON_COMPACT);
    int rc = job_parse(job, NULL, 0, text, strlen(text), "command-line", 0, 0, err);
    free(text);
    return rc;
}

int request_check_size(const struct job *job, const struct model_card *card, struct err *err)
{
    int small = card->decoder_size, middle = card->upsampler_1_size, large = card->upsampler_2_size;
    if (job->size <= 0 || job->size == small || job->size == middle || job->size == large)
        return 0;
    return err_set(err, ERR_INVALID_JOB,
                   "--size is %d, the model '%s' makes %d, %d or %d (--model names another)",
                   job->size, card->name, small, middle, large);
}

void job_id_make(int64_t now_ms, const unsigned char random[10], char id[JOB_ID_NEW_SIZE])
{
    static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz"; /* Crockford's base 32 */

    for (int i = 9; i >= 0; i--, now_ms >>= 5)
        id[i] = digits[now_ms & 31];
    for (int i = 0; i < 16; i++) { /* 80 bits, 5 a character */
        int bit = i * 5;
        unsigned pair = (unsigned)random[bit / 8] << 8 | (bit / 8 < 9 ? random[bit / 8 + 1] : 0u);
        id[10 + i] = digits[pair >> (11 - bit % 8) & 31];
    }
    id[26] = 0;
}

void job_id_new(int64_t now_ms, char id[JOB_ID_NEW_SIZE])
{
    unsigned char random[10];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        BUG("the system has no random bytes"); /* so few never come in pieces */
    job_id_make(now_ms, random, id);
}
