/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records out of parcels. A picture and a task by reference have names made of job, image and stage
 * (task_hop_name()) alone, so that writing one again after a crash puts the same bytes in the same
 * place.
 */
#include "workers/output.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/dead_letter.h"
#include "common/digest.h"
#include "common/embedding.h"
#include "common/fault.h"
#include "common/json.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/picture.h"

#define ATTEMPT_MAX 1000 /* as in the schemas */

static void add(struct parcel *parcel, const struct kafka_output *output)
{
    BUG_ON(parcel->output_count == PARCEL_OUTPUTS_MAX);
    parcel->outputs[parcel->output_count++] = *output;
}

/* --- what the route ends with --- */

static void remember_picture(struct parcel *parcel, char *uri, const void *bytes, size_t size)
{
    parcel->uri = parcel_keep(parcel, uri);
    digest_of(bytes, size, parcel->sha256);
}

static int store(const struct output *output, const struct parcel *parcel, const char *name,
                 const void *bytes, size_t size, char **uri, struct err *err)
{
    int rc = fault_at(FAULT_BEFORE_STORE, parcel->task.job, err);
    return rc ? rc : storage_write(output->storage, name, bytes, size, uri, err);
}

static int encode_embedding(const struct parcel *parcel, void **bytes, size_t *size,
                            struct err *err)
{
    const float *embed = item_embedding(&parcel->item);
    if (!embed)
        return err_set(err, ERR_INVALID_RECORD, "the route ends without an embedding");
    return embedding_encode(&parcel->task, embed, parcel->item.embed_dim, bytes, size, err);
}

static int encode_product(const struct output *output, const struct parcel *parcel, void **bytes,
                          size_t *size, struct err *err)
{
    const struct item *item = &parcel->item;
    if (parcel->task.type == JOB_EMBED)
        return encode_embedding(parcel, bytes, size, err);
    if (!item->image)
        return err_set(err, ERR_INVALID_RECORD, "the route ends at '%s', which makes no picture",
                       stage_name(output->stage));
    return picture_encode(&parcel->task, item->image, item->image_size, bytes, size, err);
}

/* Of a score job nothing is stored: its result is the judged picture. */
static int store_product(const struct output *output, struct parcel *parcel, struct err *err)
{
    void *bytes;
    size_t size;
    if (parcel->task.type == JOB_SCORE)
        return parcel->uri ? 0
                           : err_set(err, ERR_INVALID_RECORD, "the route ends without a picture");
    int rc = encode_product(output, parcel, &bytes, &size, err);
    if (rc)
        return rc;
    char *uri, *name = xasprintf("%s/%d.%s", parcel->task.job, parcel->task.image,
                                 format_name(parcel->task.output.format));
    rc = store(output, parcel, name, bytes, size, &uri, err);
    fault_at(FAULT_PICTURE_STORED, parcel->task.job, NULL);
    if (!rc)
        remember_picture(parcel, uri, bytes, size);
    free(name);
    free(bytes);
    return rc;
}

/* --- the next task --- */

/* Key and headers: the limit is of the whole record. */
static size_t record_size(const struct kafka_output *record)
{
    size_t size = record->key_size;
    for (size_t i = 0; i < record->header_count; i++)
        size += strlen(record->headers[i].name) + record->headers[i].size;
    return size;
}

/* The tensors go into the record, or into the store with their URI in the header `ref`. */
static int place_tensors(const struct output *output, struct parcel *parcel,
                         struct kafka_output *record, struct err *err)
{
    int next = parcel->task.hop + 1;
    void *bytes;
    size_t size;
    unsigned groups = tensors_needed(&parcel->task, next);
    int rc = tensors_encode(&parcel->item, groups, &bytes, &size, err);
    if (rc)
        return rc;
    parcel_keep(parcel, bytes);
    if (record_size(record) + size <= KAFKA_RECORD_MAX) {
        record->value = bytes;
        record->value_size = size;
        return 0;
    }
    char *uri, *name = task_tensors_name(&parcel->task, next);
    rc = store(output, parcel, name, bytes, size, &uri, err);
    free(name);
    if (rc)
        return rc;
    parcel_keep(parcel, uri);
    parcel->headers[record->header_count++] =
        (struct kafka_header){TASK_REF_HEADER, uri, strlen(uri)};
    record->value = "";
    return 0;
}

static int make_task(const struct output *output, struct parcel *parcel, int64_t now_ms,
                     struct err *err)
{
    struct task next = parcel->task;
    next.hop++;
    next.enqueued_at_ms = now_ms;
    char *json = parcel_keep(parcel, task_to_json(&next));
    char *key = parcel_keep(parcel, xasprintf("%s/%d", next.job, next.image));
    parcel->headers[0] = (struct kafka_header){TASK_HEADER, json, strlen(json)};
    struct kafka_output record = {.topic = topic_tasks(task_hop(&next)->stage, next.task_class),
                                  .partition = KAFKA_ANY_PARTITION,
                                  .key = key,
                                  .key_size = strlen(key),
                                  .headers = parcel->headers,
                                  .header_count = 1};
    int rc = place_tensors(output, parcel, &record, err);
    if (!rc)
        add(parcel, &record);
    return rc;
}

void output_product(const struct output *output, struct parcel *parcel, int64_t now_ms)
{
    struct err err = {0};
    if (parcel->outcome != OUTCOME_FINISHED)
        return;
    int rc = task_last_hop(&parcel->task) ? store_product(output, parcel, &err)
                                          : make_task(output, parcel, now_ms, &err);
    if (rc)
        parcel_fail(parcel, &err);
}

/* --- another try --- */

/* The task's own tensors, as they came: in the store already, or put there. */
static int keep_tensors(const struct output *output, struct parcel *parcel, struct err *err)
{
    const struct kafka_record *record = parcel->record;
    char *uri;
    int rc = task_decode_ref(&parcel->task, record, output->storage, &uri, err);
    if (!rc && !uri) {
        char *name = task_tensors_name(&parcel->task, parcel->task.hop);
        rc = store(output, parcel, name, record->value, record->value_size, &uri, err);
        free(name);
    }
    if (!rc)
        parcel->ref = parcel_keep(parcel, uri);
    return rc;
}

void output_retry(const struct output *output, struct parcel *parcel)
{
    struct err err = {0};
    if (parcel->outcome != OUTCOME_FAILED || !parcel->has_task || !err_retriable(parcel->err.code))
        return;
    parcel->outcome = OUTCOME_RETRY;
    if (tensors_needed(&parcel->task, parcel->task.hop) == 0)
        return;
    parcel->unkept = keep_tensors(output, parcel, &err) != 0;
    if (parcel->unkept)
        log_warn("%s/%d starts anew: its tensors cannot be kept: %s", parcel->task.job,
                 parcel->task.image, err.text);
}

/* --- the event --- */

static const char *event_type(const struct parcel *parcel)
{
    if (parcel->outcome == OUTCOME_FAILED)
        return "picture-failed";
    if (parcel->outcome == OUTCOME_RETRY)
        return "picture-retry";
    if (parcel->outcome == OUTCOME_DROPPED)
        return "picture-dropped";
    return task_last_hop(&parcel->task) ? "picture-finished" : "stage-finished";
}

static json_t *notices(const struct output *output, const struct parcel *parcel)
{
    const struct item *item = &parcel->item;
    json_t *list = json_array();
    if (output->stage == STAGE_TEXT_ENCODE && item->tokens_dropped > 0)
        json_array_append_new(
            list, json_sprintf("the prompt is too long for the model: its last %d tokens were %s",
                               item->tokens_dropped,
                               item->overflow == OVERFLOW_SPLIT ? "read apart" : "cut"));
    if (item->resized)
        json_array_append_new(
            list, json_sprintf("the model has no part that makes %d px: the picture was enlarged "
                               "to that without one",
                               item->image_size));
    if (parcel->concept)
        json_array_append_new(list, json_sprintf("a picture looks like '%s'%s", parcel->concept,
                                                 parcel->blurred ? " and was blurred" : ""));
    if (parcel->unkept)
        json_array_append_new(list, json_sprintf("a picture started anew: what %s got could not be "
                                                 "kept for another try",
                                                 stage_name(output->stage)));
    return list;
}

static json_t *event_head(const struct output *output, const char *type, const char *job, int image,
                          int hop, int64_t now_ms)
{
    char at[CLOCK_ISO_SIZE];
    clock_iso8601(now_ms, at);
    json_t *event =
        json_pack("{s:i, s:s, s:s, s:i, s:s, s:i, s:s, s:s}", "version", PROTOCOL_VERSION, "type",
                  type, "job", job, "image", image, "stage", stage_name(output->stage), "hop", hop,
                  "worker", output->worker, "at", at);
    BUG_ON(!event);
    return event;
}

static void put_picture(json_t *event, const struct parcel *parcel)
{
    json_object_set_new(event, "uri", json_string(parcel->uri));
    json_object_set_new(event, "sha256", json_string(parcel->sha256));
    if (job_makes_pictures(parcel->task.type)) {
        json_object_set_new(event, "width", json_integer(parcel->item.image_size));
        json_object_set_new(event, "height", json_integer(parcel->item.image_size));
    }
    if (parcel->item.has_score)
        json_object_set_new(event, "score", json_real(parcel->item.score));
}

static void put_error(json_t *event, const struct err *err)
{
    json_object_set_new(event, "error_code", json_string(err_name(err->code)));
    json_object_set_new(event, "error_message", json_string(err->text));
}

static json_t *event_json(const struct output *output, const struct parcel *parcel, int64_t now_ms)
{
    const struct task *task = &parcel->task;
    json_t *event =
        event_head(output, event_type(parcel), task->job, task->image, task->hop, now_ms);
    json_t *list = notices(output, parcel);
    json_object_set_new(event, "queue_ms", json_real(parcel->queue_ms));
    json_object_set_new(event, "compute_ms", json_real(parcel->compute_ms));
    json_object_set_new(event, "batch", json_integer(parcel->batch));
    if (parcel->outcome == OUTCOME_FINISHED && task_last_hop(task))
        put_picture(event, parcel);
    if (parcel->outcome != OUTCOME_FINISHED && parcel->err.code)
        put_error(event, &parcel->err);
    if (task->attempt > 0)
        json_object_set_new(event, "attempt", json_integer(task->attempt));
    if (parcel->ref)
        json_object_set_new(event, "ref", json_string(parcel->ref));
    if (json_array_size(list) > 0)
        json_object_set(event, "notices", list);
    json_decref(list);
    return event;
}

/* Takes the event. */
static void add_event(struct parcel *parcel, json_t *event, int home, const char *job)
{
    char *key = parcel_keep(parcel, xstrdup(job));
    char *value = parcel_keep(parcel, json_dumps(event, JSON_COMPACT | JSON_REAL_PRECISION(9)));
    BUG_ON(!value);
    json_decref(event);
    add(parcel, &(struct kafka_output){.topic = topic_name(TOPIC_EVENTS),
                                       .partition = home,
                                       .key = key,
                                       .key_size = strlen(key),
                                       .value = value,
                                       .value_size = strlen(value)});
}

/* --- what cannot be read --- */

static int small_int(const json_t *object, const char *key, int limit)
{
    const json_t *value = json_object_get(object, key);
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    return number >= 0 && number < limit ? (int)number : -1;
}

static bool ours(const struct output *output, const json_t *hop)
{
    const char *stage = json_string_value(json_object_get(hop, "stage"));
    return stage && strcmp(stage, stage_name(output->stage)) == 0;
}

/* Where our stage is in the route of a header that is no valid task: where the header says, if that
   can be, since a stage may stand in a route twice. 0 where it cannot be told. */
static int readable_hop(const struct output *output, const json_t *task)
{
    const json_t *route = json_object_get(task, "route");
    int told = small_int(task, "hop", ROUTE_MAX);
    if (told >= 0 && ours(output, json_array_get(route, (size_t)told)))
        return told;
    for (size_t i = 0; i < json_array_size(route) && i < ROUTE_MAX; i++)
        if (ours(output, json_array_get(route, i)))
            return (int)i;
    return told < 0 ? 0 : told;
}

/* The job's id in a header that is JSON, though no valid task; else NULL. */
static const char *readable_job(const json_t *task)
{
    const char *job = json_string_value(json_object_get(task, "job"));
    return job && job_id_valid(job, strlen(job)) ? job : NULL;
}

/* A task that cannot be read still tells its job, if it says whose picture it is. Its attempt goes
   along, or a picture that was tried again would take the event for a late one. */
static void report_unreadable(const struct output *output, struct parcel *parcel,
                              const json_t *task, int64_t now_ms)
{
    const char *job = readable_job(task);
    int image = small_int(task, "image", JOB_IMAGES_MAX);
    int home = small_int(task, "home", output->homes);
    int attempt = small_int(task, "attempt", ATTEMPT_MAX + 1);
    if (!job || image < 0 || home < 0)
        return;
    json_t *event =
        event_head(output, "picture-failed", job, image, readable_hop(output, task), now_ms);
    put_error(event, &parcel->err);
    if (attempt > 0)
        json_object_set_new(event, "attempt", json_integer(attempt));
    add_event(parcel, event, home, job);
}

/* --- the dead letter --- */

static void add_letter(const struct output *output, struct parcel *parcel, const char *job,
                       int64_t now_ms)
{
    struct dead_letter letter = {.at_ms = now_ms,
                                 .err = &parcel->err,
                                 .record = parcel->record,
                                 .worker = output->worker,
                                 .job = job,
                                 .stage = stage_name(output->stage),
                                 .with_value = !parcel->has_task};
    struct kafka_output record;
    parcel_keep(parcel, dead_letter_make(&letter, &record));
    add(parcel, &record);
}

static json_t *unreadable_task(const struct parcel *parcel)
{
    const struct kafka_header *header = kafka_record_header(parcel->record, TASK_HEADER);
    json_t *task = NULL;
    struct err ignored;
    if (!header || !header->value || jsonx_parse(&task, header->value, header->size, &ignored))
        return NULL;
    return task;
}

void output_report(const struct output *output, struct parcel *parcel, int64_t now_ms)
{
    if (parcel->has_task) {
        if (parcel->outcome == OUTCOME_FAILED)
            add_letter(output, parcel, parcel->task.job, now_ms);
        add_event(parcel, event_json(output, parcel, now_ms), parcel->task.home, parcel->task.job);
        return;
    }
    json_t *task = unreadable_task(parcel);
    add_letter(output, parcel, readable_job(task), now_ms);
    report_unreadable(output, parcel, task, now_ms);
    json_decref(task);
}
