/* SPDX-License-Identifier: Apache-2.0 */
/* Hops as JSON. */
#include "common/hop.h"

#include <math.h>
#include <string.h>

#include "common/err.h"

static void put_int(json_t *out, const char *key, unsigned value)
{
    if (value > 0)
        json_object_set_new(out, key, json_integer(value));
}

double hop_number(float number)
{
    return nearbyint((double)number * 1e4) / 1e4;
}

static void put_real(json_t *out, const char *key, float value)
{
    if (value > 0)
        json_object_set_new(out, key, json_real(hop_number(value)));
}

static void put_name(json_t *out, const char *key, const char *name, bool is_default)
{
    if (!is_default)
        json_object_set_new(out, key, json_string(name));
}

json_t *hop_to_json(const struct hop *hop)
{
    json_t *out = json_pack("{s:s, s:i, s:f}", "stage", stage_name(hop->stage), "steps",
                            (int)hop->steps, "guidance", hop_number(hop->guidance));
    put_name(out, "sampler", sampler_name(hop->sampler), hop->sampler == 0);
    put_real(out, "eta", hop->eta);
    put_int(out, "reuse", hop->reuse);
    put_real(out, "threshold", hop->threshold);
    put_name(out, "prior", prior_kind_name(hop->prior), hop->prior == 0);
    put_int(out, "candidates", hop->candidates);
    put_name(out, "start", start_name(hop->start), hop->start == 0);
    put_real(out, "strength", hop->strength);
    put_int(out, "resample", hop->resample);
    return out;
}

static int int_of(const json_t *json, const char *key)
{
    return (int)json_integer_value(json_object_get(json, key));
}

static double real_of(const json_t *json, const char *key)
{
    return json_number_value(json_object_get(json, key));
}

static const char *name_of(const json_t *json, const char *key)
{
    return json_string_value(json_object_get(json, key));
}

void hop_read(struct hop *hop, const json_t *json)
{
    const char *sampler = name_of(json, "sampler"), *prior = name_of(json, "prior");
    const char *start = name_of(json, "start");
    enum stage at;
    enum sampler walk = SAMPLER_DDPM;
    enum prior_kind kind = PRIOR_DIFFUSION;
    enum start from = START_NOISE;
    BUG_ON(!stage_parse(name_of(json, "stage"), &at));
    BUG_ON(sampler && !sampler_parse(sampler, &walk));
    BUG_ON(prior && !prior_kind_parse(prior, &kind));
    BUG_ON(start && !start_parse(start, &from));
    int reuse = int_of(json, "reuse"), candidates = int_of(json, "candidates");
    *hop = (struct hop){
        .stage = at,
        .sampler = walk,
        .prior = kind,
        .start = from,
        .steps = (short)int_of(json, "steps"),
        .guidance = (float)real_of(json, "guidance"),
        .eta = (float)real_of(json, "eta"),
        .reuse = reuse > 1 ? (unsigned)reuse : 0,
        .threshold = (float)real_of(json, "threshold"),
        .candidates = candidates > 1 ? (unsigned)candidates : 0,
        .strength = (float)real_of(json, "strength"),
        .resample = (unsigned)int_of(json, "resample"),
    };
}

bool hop_equal(const struct hop *a, const struct hop *b)
{
    return a->stage == b->stage && a->steps == b->steps && a->guidance == b->guidance &&
           a->sampler == b->sampler && a->eta == b->eta && a->reuse == b->reuse &&
           a->threshold == b->threshold && a->prior == b->prior && a->candidates == b->candidates &&
           a->start == b->start && a->strength == b->strength && a->resample == b->resample;
}
