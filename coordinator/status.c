/* SPDX-License-Identifier: Apache-2.0 */
/* A job as text, field by field. */
#include "coordinator/status.h"

#include <stdbool.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/memory.h"
#include "coordinator/records.h"

static void put(struct status *status, const char *name, char *value)
{
    BUG_ON(status->count == STATUS_FIELDS_MAX);
    status->names[status->count] = name;
    status->values[status->count++] = value;
}

static void put_text(struct status *status, const char *name, const char *text)
{
    put(status, name, xstrdup(text ? text : ""));
}

static void put_int(struct status *status, const char *name, int64_t number)
{
    put(status, name, xasprintf("%lld", (long long)number));
}

static void put_time(struct status *status, const char *name, int64_t at_ms)
{
    char text[CLOCK_ISO_SIZE] = "";
    if (at_ms > 0)
        clock_iso8601(at_ms, text);
    put_text(status, name, text);
}

static void put_json(struct status *status, const char *name, json_t *json)
{
    put(status, name, json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15)));
    json_decref(json);
}

static json_t *results_json(const struct live_job *job)
{
    json_t *out = json_array();
    for (int i = 0; job->pictures && i < job->job.n; i++)
        json_array_append_new(out, job->pictures[i].uri ? json_string(job->pictures[i].uri)
                                                        : json_null());
    return out;
}

/* Owned; empty where no picture has one. */
static json_t *scores_json(const struct live_job *job)
{
    json_t *out = json_array();
    bool any = false;
    for (int i = 0; job->pictures && i < job->job.n; i++) {
        const struct picture *picture = &job->pictures[i];
        json_array_append_new(out, picture->has_score ? json_real(picture->score) : json_null());
        any |= picture->has_score;
    }
    if (!any)
        json_array_clear(out);
    return out;
}

/* Empty where the job could not be read, or was refused before it got one. */
static void put_known(struct status *status, const char *name, int64_t number, bool known)
{
    if (known)
        put_int(status, name, number);
    else
        put_text(status, name, "");
}

static void put_request(struct status *status, const struct job *job, bool readable)
{
    put_text(status, "type", readable ? job_type_name(job->type) : "");
    put_text(status, "model", job->model);
    put_text(status, "prompt", job->prompt);
    put_known(status, "size", job->size, job->size > 0);
    put_known(status, "seed", job->seed, readable && job->seed >= 0);
    put_text(status, "class", readable ? task_class_name(job->task_class) : "");
    put_text(status, "client", job->client);
}

/* What a reader makes the position and the ETA of, with unclip:queue (docs/protocol.md). */
static void put_queue(struct status *status, const struct live_job *job, const struct rates *rates)
{
    int64_t ticket = job->state == JOB_ACCEPTED ? job->ticket.round
                     : job->state == JOB_QUEUED ? job->ticket.number
                                                : -1;
    int hop = live_job_hop(job);
    double work =
        rates && hop >= 0 && !job_state_final(job->state) ? rates_work(rates, &job->job, hop) : -1;
    put_known(status, "queue_ticket", ticket, job->ticket.entered && ticket >= 0);
    put_known(status, "work_ms", (int64_t)(work + 0.5), work >= 0);
}

static void place_make(struct status *status, const struct live_job *job)
{
    int hop = live_job_hop(job);

    status->progress = live_job_progress(job);
    status->stage = "";
    if (hop < 0)
        return;
    status->stage = stage_name(job->job.route[hop].stage);
    status->steps = job->job.route[hop].steps;
    if (live_job_count(job, PICTURE_STORED) == job->job.n)
        status->step = status->steps;
}

static void put_tries(struct status *status, const struct live_job *job)
{
    int attempts = 0;
    int64_t next = 0;

    for (int i = 0; job->pictures && i < job->job.n; i++) {
        const struct picture *picture = &job->pictures[i];
        attempts += picture->attempt;
        if (picture->retry_at_ms > 0 && (next == 0 || picture->retry_at_ms < next))
            next = picture->retry_at_ms;
    }
    put_int(status, "attempts", attempts);
    put_time(status, "retry_at", job_state_final(job->state) ? 0 : next);
}

void status_make(struct status *status, const struct live_job *job, const struct rates *rates)
{
    *status = (struct status){0};
    put_text(status, "state", job_state_name(job->state));
    put_request(status, &job->job, job->readable);
    put_time(status, "created_at", job->created_at_ms);
    put_time(status, "updated_at", job->updated_at_ms);
    put_time(status, "finished_at", job->finished_at_ms);
    put_int(status, "images_total", job->readable ? job->job.n : 0);
    put_int(status, "images_done", live_job_count(job, PICTURE_STORED));
    put_int(status, "images_failed", live_job_count(job, PICTURE_FAILED));
    put_json(status, "results", results_json(job));
    put_json(status, "scores", scores_json(job));
    put_json(status, "best", best_json(job));
    put_json(status, "route", route_json(&job->job));
    put_json(status, "timings", timings_json(job));
    put_json(status, "notices", notices_json(job));
    put_text(status, "error_code", job->error_code);
    put_text(status, "error_message", job->error_message);
    put_tries(status, job);
    put_int(status, "partition", job->home);
    put_queue(status, job, rates);
    place_make(status, job);
}

void status_release(struct status *status)
{
    for (size_t i = 0; i < status->count; i++)
        free(status->values[i]);
    status->count = 0;
}
