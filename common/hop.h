/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One hop of a task's route: a stage, and how it is to work. JSON form: `hop` in
 * schemas/common.schema.json, in which all but stage, steps and guidance is left out where it is
 * the default.
 */
#ifndef UNCLIP_COMMON_HOP_H
#define UNCLIP_COMMON_HOP_H

#include <jansson.h>
#include <stdbool.h>

#include "common/protocol.h"

#define ROUTE_MAX (STAGE_COUNT + 1) /* image-encode may come twice: to take in, and to score */

/* Kept small: a coordinator holds the routes of all jobs that wait. Numbers keep four decimals. */
struct hop {
    enum stage stage : 8;
    short steps;     /* 0 where the stage has none */
    float guidance;  /* classifier-free guidance scale; 1 or less: none; 0 where there is none */
    float eta;       /* of SAMPLER_DDIM, else 0 */
    float threshold; /* dynamic thresholding's share of values that are kept; 0: static clipping */
    float strength;  /* of START_PICTURE: 0 is the picture itself, 1 noise alone */
    enum sampler sampler : 8;
    enum prior_kind prior : 8; /* of the prior, as is the next */
    unsigned candidates : 8;   /* embeddings made, of which the best one is taken; 0 is 1 */
    enum start start : 8;      /* of decoder and upsamplers */
    unsigned resample : 8;     /* of an edit: harmonising repetitions of each step; 0: none */
    unsigned
        reuse : 8; /* the deep part of a U-Net is computed in every reuse-th step; 0: in each */
};

/* A hop's number as it was written: 2.1, not the float next to it. */
double hop_number(float number);

/* hop_read() takes what a schema has checked. */
json_t *hop_to_json(const struct hop *hop);
void hop_read(struct hop *hop, const json_t *json);
/* Whether two tasks at these hops may share a forward pass. */
bool hop_equal(const struct hop *a, const struct hop *b);

#endif
