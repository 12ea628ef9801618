/* SPDX-License-Identifier: Apache-2.0 */
/* What is in a model directory, part by part, and what is wrong with it. */
#ifndef UNCLIP_CLIENT_MODEL_REPORT_H
#define UNCLIP_CLIENT_MODEL_REPORT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"
#include "common/model_card.h"

#define MODEL_PARTS_MAX    16
#define MODEL_PROBLEMS_MAX 32

struct part_report {
    const char *name;    /* static */
    char class_name[64]; /* "" when the index does not tell */
    bool needed;         /* without it the model serves nothing */
    bool there;
    int64_t parameters; /* of its weights; 0 where it has none */
    int64_t bytes;      /* of its files */
    char dtypes[48];    /* "F32" or "F16, F32" */
};

struct model_report {
    char *path; /* owned */
    struct part_report parts[MODEL_PARTS_MAX];
    int count;
    struct model_card card;
    bool card_good;
    char *problems[MODEL_PROBLEMS_MAX]; /* owned sentences */
    int problem_count;
};

/* Looks at configs and at the headers of the weights; never fails, the problems say it. */
void model_report_make(struct model_report *report, const char *path);
void model_report_release(struct model_report *report);
void model_report_problem(struct model_report *report, const char *text);
bool model_report_good(const struct model_report *report);

json_t *model_report_json(const struct model_report *report); /* owned */
void model_report_print(const struct model_report *report, FILE *out);

#endif
