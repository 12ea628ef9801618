/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a picture is made from beside its prompt, and the form that results get: the members that
 * jobs and tasks share. JSON forms: schemas/common.schema.json.
 *
 *   inputs   interpolate: what is mixed; embed, score: what is encoded; text-diff: the captions,
 *            from and to
 *   image    variation, text-diff: the picture; edit: the picture that is kept outside the mask;
 *            upscale: the small picture; interpolate: a picture to begin with
 */
#ifndef UNCLIP_COMMON_SOURCES_H
#define UNCLIP_COMMON_SOURCES_H

#include <jansson.h>

#include "common/protocol.h"

#define SOURCES_INPUTS_MAX 64 /* of a job */
#define TASK_INPUTS_MAX    8  /* of a picture, as the schema says */

struct job_input {
    char *image; /* owned: address of a picture; or NULL */
    char *text;  /* owned; or NULL: one of the two is there */
    double weight;
};

struct sources {
    struct job_input *inputs; /* owned */
    int count;
    char *image; /* owned address, or NULL */
    char *mask;  /* the same */
    enum mask_mode mask_mode;
    int feather;      /* pixels */
    int side;         /* of a task: pixels a side that the image is brought to */
    double theta;     /* of text-diff: 0..1 */
    bool noise_moves; /* of a job with frames: their noise goes from its seed's to the next one's */
    double noise_place; /* how far it is there, 0..1: of one picture */
};

/* Copies all. */
void sources_copy(struct sources *to, const struct sources *from);
void sources_release(struct sources *sources);
void sources_free(struct sources *sources); /* NULL is fine, here and below */
/* How many of the inputs are texts. */
int sources_texts(const struct sources *sources);

/* `inputs` as JSON; owned. */
json_t *inputs_to_json(const struct sources *sources);
/* Take what a schema has checked: the array `inputs`; NULL is none. */
void inputs_read(struct sources *sources, const json_t *inputs);

struct output_form {
    enum format format : 8;
    unsigned quality : 8; /* 1..100; 0: the format's default */
};
/* {"format", "quality"}; owned. NULL where it is all default. */
json_t *output_form_to_json(const struct output_form *form);
void output_form_read(struct output_form *form, const json_t *json); /* NULL is the default */

#endif
