/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs from options. Bounds are the schema's; those in the tables only make better messages. */
#include "client/request.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define AT(member) offsetof(struct request, member)

const struct option request_options[] = {
    {"n", 'n', OPTION_INTEGER, "N", 1, JOB_IMAGES_MAX, "1", AT(n), "pictures"},
    {"size", 's', OPTION_INTEGER, "PIXELS", 1, 8192, "the model's largest", AT(size),
     "what the model makes: 64, 256 or 1024"},
    {"seed", 0, OPTION_INTEGER, "N", 0, (double)JOB_SEED_MAX, "random", AT(seed),
     "of the first picture; picture I has N + I"},
    {"negative-prompt", 0, OPTION_TEXT, "TEXT", 0, 0, NULL, AT(negative_prompt),
     "what the pictures should not show"},
    {0},
};

#define STEPS(name, stage)                                                                         \
    {                                                                                              \
        "steps-" name, 0, OPTION_INTEGER, "N", 1, JOB_STEPS_MAX, "the model's", AT(steps[stage]),  \
            "denoising steps of " name                                                             \
    }
#define GUIDANCE(name, stage)                                                                      \
    {                                                                                              \
        "guidance-" name, 0, OPTION_NUMBER, "X", 0, 100, "the model's", AT(guidance[stage]),       \
            "guidance scale of " name "; 1 or less: none"                                          \
    }

#define SAMPLER(name, stage)                                                                       \
    {                                                                                              \
        "sampler-" name, 0, OPTION_TEXT, "NAME", 0, 0, "ddpm", AT(sampler[stage]),                 \
            "sampler of " name ": ddpm, ddim or dpm-solver++"                                              \
    }
#define ETA(name, stage)                                                                           \
    {                                                                                              \
        "eta-" name, 0, OPTION_NUMBER, "X", 0, 1, "0", AT(eta[stage]),                             \
            "noise in the steps of ddim in " name                                                  \
    }
#define REUSE(name, stage)                                                                         \
    {                                                                                              \
        "reuse-" name, 0, OPTION_INTEGER, "K", 1, 100, "1", AT(reuse[stage]),                      \
            "compute the deep part of " name " in every K-th step"                                 \
    }

const struct option sampling_options[] = {
    STEPS("prior", STAGE_PRIOR),
    STEPS("decoder", STAGE_DECODER),
    STEPS("upsampler-1", STAGE_UPSAMPLER_1),
    STEPS("upsampler-2", STAGE_UPSAMPLER_2),
    GUIDANCE("prior", STAGE_PRIOR),
    GUIDANCE("decoder", STAGE_DECODER),
    {0},
};

const struct option faster_options[] = {
    SAMPLER("prior", STAGE_PRIOR),
    SAMPLER("decoder", STAGE_DECODER),
    SAMPLER("upsampler-1", STAGE_UPSAMPLER_1),
    SAMPLER("upsampler-2", STAGE_UPSAMPLER_2),
    ETA("prior", STAGE_PRIOR),
    ETA("decoder", STAGE_DECODER),
    ETA("upsampler-1", STAGE_UPSAMPLER_1),
    ETA("upsampler-2", STAGE_UPSAMPLER_2),
    REUSE("decoder", STAGE_DECODER),
    REUSE("upsampler-1", STAGE_UPSAMPLER_1),
    REUSE("upsampler-2", STAGE_UPSAMPLER_2),
    {0},
};

void request_init(struct request *request)
{
    *request = (struct request){.n = 1, .seed = -1};
    for (int i = 0; i < STAGE_COUNT; i++)
        request->guidance[i] = request->eta[i] = -1;
}

static void set_text(json_t *record, const char *key, const char *text)
{
    if (text)
        json_object_set_new(record, key, json_string(text));
}

/* Takes the object; one that is empty says nothing. */
static void set_object(json_t *record, const char *key, json_t *object)
{
    if (json_object_size(object))
        json_object_set(record, key, object);
    json_decref(object);
}

static void set_settings(json_t *record, const struct request *request)
{
    json_t *steps = json_object(), *guidance = json_object(), *sampler = json_object();
    json_t *eta = json_object(), *reuse = json_object();
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        const char *name = stage_name(stage);
        if (request->steps[stage] > 0)
            json_object_set_new(steps, name, json_integer(request->steps[stage]));
        if (request->guidance[stage] >= 0)
            json_object_set_new(guidance, name, json_real(request->guidance[stage]));
        set_text(sampler, name, request->sampler[stage]);
        if (request->eta[stage] >= 0)
            json_object_set_new(eta, name, json_real(request->eta[stage]));
        if (request->reuse[stage] > 0)
            json_object_set_new(reuse, name, json_integer(request->reuse[stage]));
    }
    set_object(record, "steps", steps);
    set_object(record, "guidance", guidance);
    set_object(record, "sampler", sampler);
    set_object(record, "eta", eta);
    set_object(record, "reuse", reuse);
}

json_t *request_json(const struct request *request, const char *prompt, const char *model)
{
    json_t *record = json_pack("{s:i, s:s}", "version", PROTOCOL_VERSION, "type",
                               job_type_name(JOB_TEXT_TO_IMAGE));
    set_text(record, "id", request->id);
    set_text(record, "prompt", prompt);
    set_text(record, "negative_prompt", request->negative_prompt);
    json_object_set_new(record, "n", json_integer(request->n));
    if (request->size > 0)
        json_object_set_new(record, "size", json_integer(request->size));
    if (request->seed >= 0)
        json_object_set_new(record, "seed", json_integer(request->seed));
    set_text(record, "model", model);
    set_text(record, "class", request->task_class);
    set_text(record, "client", request->client);
    if (request->deadline_s > 0)
        json_object_set_new(record, "deadline_s", json_integer(request->deadline_s));
    set_settings(record, request);
    return record;
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
