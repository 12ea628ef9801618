/* SPDX-License-Identifier: Apache-2.0 */
/* Completing jobs from model cards. */
#include "coordinator/planner.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

int64_t planner_seed(void)
{
    uint32_t seed = 0;
    while (getrandom(&seed, sizeof seed, 0) != sizeof seed)
        BUG_ON(errno != EINTR);
    return seed;
}

void planner_init(struct planner *planner, const char *models, const char *default_model)
{
    *planner = (struct planner){
        .models = models,
        .default_model = default_model,
        .seed = planner_seed,
    };
}

void planner_release(struct planner *planner)
{
    for (size_t i = 0; i < planner->count; i++)
        model_card_release(&planner->cards[i]);
    planner->count = 0;
}

static const struct model_card *card_keep(struct planner *planner, const struct model_card *card)
{
    size_t place = planner->count;
    if (place == PLANNER_CARDS_MAX) {
        place = planner->oldest;
        planner->oldest = (place + 1) % PLANNER_CARDS_MAX;
        model_card_release(&planner->cards[place]);
    } else {
        planner->count++;
    }
    planner->cards[place] = *card;
    return &planner->cards[place];
}

static int card_find(struct planner *planner, const char *name, const struct model_card **out,
                     struct err *err)
{
    struct model_card card;

    for (size_t i = 0; i < planner->count; i++)
        if (strcmp(planner->cards[i].name, name) == 0) {
            *out = &planner->cards[i];
            return 0;
        }
    int rc = model_card_load(&card, planner->models, name, err);
    if (rc == 0)
        *out = card_keep(planner, &card);
    return rc;
}

int planner_complete(struct planner *planner, struct job *job, struct err *err)
{
    const struct model_card *card;

    if (!*job->model)
        snprintf(job->model, sizeof job->model, "%s", planner->default_model);
    int rc = card_find(planner, job->model, &card, err);
    job->probe = planner->probe;
    if (rc == 0)
        rc = job_plan(job, card, err);
    if (rc == 0 && job->seed < 0)
        job->seed = planner->seed();
    return rc;
}
