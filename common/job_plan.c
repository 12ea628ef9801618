/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs completed with a model's defaults, and the routes of their kinds. */
#include <string.h>

#include "common/job.h"

/* --- the size --- */

/* The last stage of a picture of `size`; STAGE_COUNT if none makes it. */
static enum stage maker_of(const struct model_card *card, int size)
{
    return size == card->decoder_size       ? STAGE_DECODER
           : size == card->upsampler_1_size ? STAGE_UPSAMPLER_1
           : size == card->upsampler_2_size ? STAGE_UPSAMPLER_2
                                            : STAGE_COUNT;
}

static int plan_size(struct job *job, const struct model_card *card, enum stage *last,
                     struct err *err)
{
    int size = job->size > 0 ? job->size : card->upsampler_2_size;
    const char *field = "size";
    *last = maker_of(card, size);
    if (*last != STAGE_COUNT && job->stop_at > 0) {
        *last = maker_of(card, job->stop_at);
        field = "stop_at";
        if (*last != STAGE_COUNT && job->stop_at > size)
            return err_set(err, ERR_INVALID_JOB, "'/stop_at' is %d, above '/size', which is %d",
                           job->stop_at, size);
    }
    if (*last == STAGE_COUNT)
        return err_set(err, ERR_INVALID_JOB, "'/%s' is %d, the model '%s' makes %d, %d or %d",
                       field, job->stop_at > 0 ? job->stop_at : size, card->name,
                       card->decoder_size, card->upsampler_1_size, card->upsampler_2_size);
    job->size = job->stop_at > 0 ? job->stop_at : size;
    job->stop_at = 0;
    return 0;
}

/* Where an upscale begins: the stage after the one that makes its `from`. */
static int plan_from(struct job *job, const struct model_card *card, enum stage last,
                     enum stage *first, struct err *err)
{
    int below = last == STAGE_UPSAMPLER_2 ? card->upsampler_1_size : card->decoder_size;
    if (last == STAGE_DECODER)
        return err_set(err, ERR_INVALID_JOB, "'/size' is %d, the smallest of the model '%s'",
                       job->size, card->name);
    if (job->from == 0)
        job->from = (short)below;
    enum stage made = maker_of(card, job->from);
    if (made == STAGE_COUNT || made >= last)
        return err_set(err, ERR_INVALID_JOB,
                       "'/from' is %d, a picture of %d is made from one of %d%s", job->from,
                       job->size, card->decoder_size,
                       last == STAGE_UPSAMPLER_2 ? " or of the size above" : "");
    *first = (enum stage)(made + 1);
    return 0;
}

/* --- the route --- */

static bool needs_prior(const struct job *job)
{
    return job->type == JOB_TEXT_TO_IMAGE || job->type == JOB_EDIT ||
           (job->type == JOB_INTERPOLATE && sources_texts(job->sources) > 0);
}

static void complete_hop(const struct job *job, struct hop *hop, const struct model_card *card)
{
    if (hop->steps == 0 || card->steps[hop->stage] == 0)
        hop->steps = (short)card->steps[hop->stage];
    if (hop->steps == 0)
        *hop = (struct hop){.stage = hop->stage};
    bool inverted = job->start == START_INVERSION && hop->stage == STAGE_DECODER;
    if (!stage_has_guidance(hop->stage))
        hop->guidance = 0;
    else if (hop->guidance < 0) /* guidance would lead away from what was inverted without it */
        hop->guidance = inverted ? 1 : (float)card->guidance[hop->stage];
    if (hop->stage == STAGE_PRIOR) {
        hop->prior = job->prior;
        hop->candidates = job->candidates > 1 ? (unsigned)job->candidates : 0;
    }
    if (hop->steps == 0 || hop->stage == STAGE_PRIOR)
        return;
    hop->resample = hop->stage == STAGE_DECODER ? (unsigned)job->resample : 0;
    if (job->start == START_INVERSION || hop->stage == STAGE_DECODER)
        hop->start = job->start;
    if (hop->start == START_INVERSION)
        hop->sampler = SAMPLER_DDIM;
    if (hop->start == START_PICTURE)
        hop->strength = job->strength;
}

/* The route while it is made. */
struct plan {
    struct job *job;
    const struct model_card *card;
    struct hop asked[STAGE_COUNT];
};

static void add_hop(struct plan *plan, enum stage stage)
{
    struct hop *hop = &plan->job->route[plan->job->hops++];
    *hop = plan->asked[stage];
    complete_hop(plan->job, hop, plan->card);
}

/* `first` to `last` are the stages that make the picture; none for embed and score. */
static void plan_route(struct job *job, const struct model_card *card, enum stage first,
                       enum stage last)
{
    struct plan plan = {.job = job, .card = card};
    memcpy(plan.asked, job->route, sizeof plan.asked);
    memset(job->route, 0, sizeof job->route);
    job->hops = 0;
    if (job->type != JOB_UPSCALE)
        add_hop(&plan, STAGE_TEXT_ENCODE);
    if (needs_prior(job))
        add_hop(&plan, STAGE_PRIOR);
    if (job->type != JOB_TEXT_TO_IMAGE)
        add_hop(&plan, STAGE_IMAGE_ENCODE);
    for (enum stage stage = first; job_makes_pictures(job->type) && stage <= last; stage++)
        add_hop(&plan, stage);
    if (job->score || (job->probe && job_makes_pictures(job->type)))
        add_hop(&plan, STAGE_IMAGE_ENCODE);
}

/* What of the job needs the image encoder. */
static const char *encoder_user(const struct job *job)
{
    return job->score                                    ? "score"
           : job->probe && job_makes_pictures(job->type) ? "probe"
                                                         : job_type_name(job->type);
}

static int check_parts(const struct job *job, const struct model_card *card, struct err *err)
{
    bool encodes = false;
    for (int i = 0; i < job->hops; i++)
        encodes |= job->route[i].stage == STAGE_IMAGE_ENCODE;
    if (encodes && !card->has_image_encoder && (job->type != JOB_UPSCALE || job->probe))
        return err_set(err, ERR_INVALID_JOB,
                       "the model '%s' has no image_encoder, which '%s' needs", card->name,
                       encoder_user(job));
    if (needs_prior(job) && job->prior == PRIOR_AUTOREGRESSIVE && !card->has_ar_prior)
        return err_set(err, ERR_INVALID_JOB, "the model '%s' has no autoregressive prior",
                       card->name);
    return 0;
}

int job_plan(struct job *job, const struct model_card *card, struct err *err)
{
    BUG_ON(job->type == JOB_CANCEL);
    enum stage first = STAGE_DECODER, last = STAGE_DECODER;
    int result = job_makes_pictures(job->type) ? plan_size(job, card, &last, err) : 0;
    if (result == 0 && job->type == JOB_UPSCALE)
        result = plan_from(job, card, last, &first, err);
    if (result != 0)
        return result;
    if (!job->model[0])
        strcpy(job->model, card->name);
    plan_route(job, card, first, last);
    return check_parts(job, card, err);
}

int64_t job_seed(const struct job *job, int image)
{
    return job->frames ? job->seed : job->seed + image;
}
