/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON of events, states and results. Reading back goes through the schemas as everything from
 * outside does: whoever may write to these topics could write anything.
 */
#include "coordinator/records.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

static const char *const event_names[EVENT_COUNT] = {
    [EVENT_STAGE_FINISHED] = "stage-finished", [EVENT_PICTURE_FINISHED] = "picture-finished",
    [EVENT_PICTURE_FAILED] = "picture-failed", [EVENT_PICTURE_DROPPED] = "picture-dropped",
    [EVENT_PICTURE_RETRY] = "picture-retry",
};

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static int int_of(const json_t *object, const char *key)
{
    return (int)json_integer_value(json_object_get(object, key));
}

/* Parses bytes that `schema` must allow. */
static int checked_parse(json_t **out, const char *schema, const void *bytes, size_t size,
                         struct err *err)
{
    struct err why;
    if (!bytes)
        return err_set(err, ERR_INVALID_RECORD, "the record has no value");
    if (schema_validate(schema, bytes, size, &why) < 0 || jsonx_parse(out, bytes, size, &why) < 0)
        return err_set(err, why.code == ERR_UNSUPPORTED ? why.code : ERR_INVALID_RECORD,
                       "not a valid %s record: %s", schema, why.text);
    return 0;
}

static enum event_type event_type_of(const char *name)
{
    for (int i = 0; i < EVENT_COUNT; i++)
        if (strcmp(event_names[i], name) == 0)
            return (enum event_type)i;
    BUG("the schema allows an event that the table does not have");
}

int event_parse(struct event *event, const void *bytes, size_t size, struct err *err)
{
    json_t *json = NULL;
    int rc = checked_parse(&json, "event", bytes, size, err);
    if (rc < 0)
        return rc;
    *event = (struct event){
        .type = event_type_of(text_of(json, "type")),
        .job = text_of(json, "job"),
        .image = int_of(json, "image"),
        .hop = int_of(json, "hop"),
        .attempt = int_of(json, "attempt"),
        .worker = text_of(json, "worker"),
        .compute_ms = json_number_value(json_object_get(json, "compute_ms")),
        .uri = text_of(json, "uri"),
        .sha256 = text_of(json, "sha256"),
        .width = int_of(json, "width"),
        .height = int_of(json, "height"),
        .has_score = json_object_get(json, "score") != NULL,
        .score = json_number_value(json_object_get(json, "score")),
        .error_code = text_of(json, "error_code"),
        .error_message = text_of(json, "error_message"),
        .ref = text_of(json, "ref"),
        .notices = json_object_get(json, "notices"),
        .json = json,
    };
    BUG_ON(!stage_parse(text_of(json, "stage"), &event->stage));
    return 0;
}

void event_release(struct event *event)
{
    json_decref(event->json);
    *event = (struct event){0};
}

static json_t *time_json(int64_t at_ms)
{
    char text[CLOCK_ISO_SIZE];
    clock_iso8601(at_ms, text);
    return json_string(text);
}

static json_t *text_json(const char *text)
{
    return json_string(text ? text : "");
}

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text)
        json_object_set_new(object, key, json_string(text));
}

json_t *notices_json(const struct live_job *job)
{
    return job->notices ? json_incref(job->notices) : json_array();
}

/* A stage took part when a picture has it behind itself, or when it cost time and then failed. */
static bool took_part(const struct live_job *job, int hop)
{
    for (int i = 0; job->pictures && i < job->job.n; i++)
        if (job->pictures[i].hops > hop)
            return true;
    return live_job_stage_ms(job, job->job.route[hop].stage) > 0;
}

json_t *timings_json(const struct live_job *job)
{
    json_t *out = json_object();
    for (int hop = 0; hop < job->job.hops; hop++) {
        enum stage stage = job->job.route[hop].stage;
        if (took_part(job, hop))
            json_object_set_new(out, stage_name(stage), json_real(live_job_stage_ms(job, stage)));
    }
    return out;
}

/* What a picture on its way remembers of its tries. */
static void set_tries(json_t *out, const struct picture *picture, int hops)
{
    json_t *tries = json_array();
    for (int i = 0; i < hops; i++)
        json_array_append_new(tries, json_integer(picture->tries[i]));
    json_object_set_new(out, "attempt", json_integer(picture->attempt));
    json_object_set_new(out, "tries", tries);
    if (picture->retry_at_ms > 0)
        json_object_set_new(out, "retry_at", time_json(picture->retry_at_ms));
    set_text(out, "ref", picture->ref);
}

static void tries_read(struct picture *picture, const json_t *json)
{
    size_t i;
    const json_t *tries;
    const char *at = text_of(json, "retry_at"), *ref = text_of(json, "ref");

    picture->attempt = int_of(json, "attempt");
    json_array_foreach (json_object_get(json, "tries"), i, tries)
        picture->tries[i] = (unsigned char)json_integer_value(tries);
    picture->retry_at_ms = at && picture->state == PICTURE_PENDING ? iso8601_parse(at) : 0;
    picture->ref = ref ? xstrdup(ref) : NULL;
    if (picture->retry_at_ms > 0 && !ref)
        picture->hops = 0;
}

static json_t *image_json(const struct live_job *job, int index)
{
    const struct picture *picture = &job->pictures[index];
    json_t *out = json_pack("{s:i, s:I, s:s, s:i}", "index", index, "seed",
                            (json_int_t)job_seed(&job->job, index), "state",
                            picture_state_name(picture->state), "hop", picture->hops);

    if (picture->attempt > 0 && !job_state_final(job->state))
        set_tries(out, picture, job->job.hops);
    set_text(out, "uri", picture->uri);
    set_text(out, "sha256", picture->sha256);
    if (picture->width > 0) {
        json_object_set_new(out, "width", json_integer(picture->width));
        json_object_set_new(out, "height", json_integer(picture->height));
    }
    if (picture->has_score)
        json_object_set_new(out, "score", json_real(picture->score));
    set_text(out, "error_code", picture->error_code);
    set_text(out, "error_message", picture->error_message);
    return out;
}

static json_t *images_json(const struct live_job *job)
{
    json_t *out = json_array();
    for (int i = 0; job->pictures && i < job->job.n; i++)
        json_array_append_new(out, image_json(job, i));
    return out;
}

struct ranked {
    double score;
    int index;
};

static int by_falling_score(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->index - y->index;
}

json_t *best_json(const struct live_job *job)
{
    struct ranked ranked[JOB_IMAGES_MAX];
    int count = 0;
    for (int i = 0; job->pictures && i < job->job.n; i++)
        if (job->pictures[i].state == PICTURE_STORED && job->pictures[i].has_score)
            ranked[count++] = (struct ranked){job->pictures[i].score, i};
    qsort(ranked, (size_t)count, sizeof *ranked, by_falling_score);
    if (job->job.keep > 0 && count > job->job.keep)
        count = job->job.keep;
    json_t *out = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(out, json_integer(ranked[i].index));
    return out;
}

json_t *route_json(const struct job *job)
{
    json_t *out = json_array();
    for (int i = 0; i < job->hops; i++)
        json_array_append_new(out, hop_to_json(&job->route[i]));
    return out;
}

/* What states and results have in common. */
static json_t *common_json(const struct live_job *job)
{
    json_t *out = json_object();
    json_object_set_new(out, "version", json_integer(PROTOCOL_VERSION));
    json_object_set_new(out, "id", json_string(job->job.id));
    json_object_set_new(out, "state", json_string(job_state_name(job->state)));
    json_object_set_new(out, "created_at", time_json(job->created_at_ms));
    json_object_set_new(out, "request", job->readable ? job_to_json(&job->job) : json_null());
    json_object_set_new(out, "route", route_json(&job->job));
    json_object_set_new(out, "images", images_json(job));
    json_object_set_new(out, "timings", timings_json(job));
    json_object_set_new(out, "notices", notices_json(job));
    json_object_set_new(out, "error_code", text_json(job->error_code));
    json_object_set_new(out, "error_message", text_json(job->error_message));
    return out;
}

static char *dump(json_t *json)
{
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15));
    BUG_ON(!text);
    json_decref(json);
    return text;
}

char *state_encode(const struct live_job *job)
{
    BUG_ON(job_state_final(job->state) || !job->readable);
    json_t *out = common_json(job);
    json_object_set_new(out, "updated_at", time_json(job->updated_at_ms));
    json_object_set_new(out, "offset", json_integer(job->offset));
    json_object_set_new(out, "admitted", json_integer(job->admitted));
    return dump(out);
}

char *result_encode(const struct live_job *job)
{
    BUG_ON(!job_state_final(job->state));
    json_t *out = common_json(job);
    json_object_set_new(out, "type",
                        job->readable ? json_string(job_type_name(job->job.type)) : json_null());
    json_object_set_new(out, "finished_at", time_json(job->finished_at_ms));
    json_t *best = best_json(job);
    if (json_array_size(best) > 0)
        json_object_set(out, "best", best);
    json_decref(best);
    return dump(out);
}

/* --- reading back --- */

static char *copy_of(const json_t *object, const char *key)
{
    const char *text = text_of(object, key);
    return text && *text ? xstrdup(text) : NULL;
}

/* What no coordinator writes, though the schema allows it. */
static int image_check(const struct live_job *job, int index, const json_t *json, struct err *err)
{
    const struct picture *picture = &job->pictures[index];
    bool pending = picture->state == PICTURE_PENDING;
    if (int_of(json, "hop") > job->job.hops - pending)
        return err_set(err, ERR_INVALID_RECORD, "picture %d of job '%s' is %s after hop %d of %d",
                       index, job->job.id, picture_state_name(picture->state), int_of(json, "hop"),
                       job->job.hops);
    if (pending && text_of(json, "retry_at") && picture->retry_at_ms <= 0)
        return err_set(err, ERR_INVALID_RECORD, "picture %d of job '%s' waits until '%s'", index,
                       job->job.id, text_of(json, "retry_at"));
    return 0;
}

/* `seen`: a bit for each index that was there. */
static int image_read(struct live_job *job, const json_t *json, uint64_t *seen, struct err *err)
{
    int index = int_of(json, "index");
    if (!job->pictures || index >= job->job.n)
        return err_set(err, ERR_INVALID_RECORD, "job '%s' has no picture %d", job->job.id, index);
    struct picture *picture = &job->pictures[index];
    if (*seen >> index & 1)
        return err_set(err, ERR_INVALID_RECORD, "picture %d of job '%s' is there twice", index,
                       job->job.id);
    *seen |= UINT64_C(1) << index;
    if (!picture_state_parse(text_of(json, "state"), &picture->state))
        BUG("the schema allows a picture's state that the table does not have");
    picture->hops = int_of(json, "hop");
    tries_read(picture, json);
    picture->uri = copy_of(json, "uri");
    picture->sha256 = copy_of(json, "sha256");
    picture->width = int_of(json, "width");
    picture->height = int_of(json, "height");
    picture->has_score = json_object_get(json, "score") != NULL;
    picture->score = json_number_value(json_object_get(json, "score"));
    picture->error_code = copy_of(json, "error_code");
    picture->error_message = copy_of(json, "error_message");
    return image_check(job, index, json, err);
}

static void route_read(struct job *job, const json_t *json)
{
    size_t i;
    const json_t *hop;

    job->hops = 0;
    json_array_foreach (json, i, hop)
        hop_read(&job->route[job->hops++], hop);
}

/* The request as a job: parsed like any job record. A refused job has none. */
static int request_read(struct job *job, const json_t *json, const struct kafka_record *record,
                        struct err *err)
{
    char *text = json_dumps(json_object_get(json, "request"), JSON_COMPACT);
    if (!text)
        return err_set(err, ERR_INVALID_RECORD, "the request cannot be written as JSON");
    int rc = job_parse(job, record->key, record->key_size, text, strlen(text), record->topic,
                       record->partition, record->offset, err);
    free(text);
    return rc;
}

static bool is_key(const struct kafka_record *record, const char *id)
{
    return record->key && record->key_size == strlen(id) &&
           memcmp(record->key, id, record->key_size) == 0;
}

static int job_read(struct live_job **out, int home, const json_t *json,
                    const struct kafka_record *record, struct err *err)
{
    struct job job = {0};
    bool readable = json_is_object(json_object_get(json, "request"));
    int rc = readable ? request_read(&job, json, record, err) : 0;

    if (rc == 0 && readable && job.type == JOB_CANCEL)
        rc = err_set(err, ERR_INVALID_RECORD, "the request of '%s' is no picture job", job.id);
    if (rc == 0 && !readable && json_array_size(json_object_get(json, "images")) > 0)
        rc = err_set(err, ERR_INVALID_RECORD, "there are pictures without a request");
    if (rc == 0 && readable && !is_key(record, job.id))
        rc = err_set(err, ERR_INVALID_RECORD, "the key is not the id '%s'", job.id);
    if (rc < 0) {
        job_release(&job);
        return rc;
    }
    if (!readable)
        snprintf(job.id, sizeof job.id, "%s", text_of(json, "id"));
    route_read(&job, json_object_get(json, "route"));
    *out = live_job_new(&job, readable, home);
    if (json_array_size(json_object_get(json, "images")) > 0)
        live_job_start(*out);
    return 0;
}

static int images_read(struct live_job *job, const json_t *images, struct err *err)
{
    size_t i;
    const json_t *image;
    uint64_t seen = 0;
    json_array_foreach (images, i, image) {
        int rc = image_read(job, image, &seen, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void fields_read(struct live_job *job, const json_t *json)
{
    size_t i;
    const json_t *notice, *ms, *timings = json_object_get(json, "timings");

    BUG_ON(!job_state_parse(text_of(json, "state"), &job->state));
    job->error_code = copy_of(json, "error_code");
    job->error_message = copy_of(json, "error_message");
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++)
        if ((ms = json_object_get(timings, stage_name(stage))))
            live_job_spent(job, stage, json_number_value(ms));
    json_array_foreach (json_object_get(json, "notices"), i, notice)
        live_job_notice(job, json_string_value(notice));
}

/* A record of before there was admission says nothing of it: its pictures have their tasks. */
static int admission_read(struct live_job *job, const json_t *json, struct err *err)
{
    const json_t *admitted = json_object_get(json, "admitted");

    job->offset = json_integer_value(json_object_get(json, "offset"));
    job->admitted = admitted ? (int)json_integer_value(admitted) : job->pictures ? job->job.n : 0;
    bool waits = job->state == JOB_ACCEPTED;
    if (job->job.seed < 0 || (job->job.size <= 0 && job_makes_pictures(job->job.type)) ||
        !*job->job.model)
        return err_set(err, ERR_INVALID_RECORD, "the request of '%s' is not complete", job->job.id);
    if (job->admitted > job->job.n || waits != (job->admitted == 0) || waits != !job->pictures)
        return err_set(err, ERR_INVALID_RECORD, "%d pictures of the %s job '%s' are admitted",
                       job->admitted, job_state_name(job->state), job->job.id);
    for (int i = job->admitted; job->pictures && i < job->job.n; i++) {
        const struct picture *picture = &job->pictures[i];
        if (picture->state != PICTURE_PENDING || picture->hops || picture->attempt ||
            picture->retry_at_ms || picture->ref)
            return err_set(err, ERR_INVALID_RECORD,
                           "picture %d of job '%s' has begun but is not admitted", i, job->job.id);
    }
    return 0;
}

static int times_read(struct live_job *job, const json_t *json, struct err *err)
{
    const char *finished = text_of(json, "finished_at"), *updated = text_of(json, "updated_at");
    job->created_at_ms = iso8601_parse(text_of(json, "created_at"));
    job->finished_at_ms = finished ? iso8601_parse(finished) : 0;
    job->updated_at_ms = iso8601_parse(finished ? finished : updated);
    if (job->created_at_ms < 0 || job->finished_at_ms < 0 || job->updated_at_ms < 0)
        return err_set(err, ERR_INVALID_RECORD, "job '%s' has times that are none", job->job.id);
    return 0;
}

static int record_read(struct live_job **out, const char *schema, int home,
                       const struct kafka_record *record, struct err *err)
{
    json_t *json = NULL;
    struct live_job *job = NULL;
    int rc = checked_parse(&json, schema, record->value, record->value_size, err);

    if (rc == 0)
        rc = job_read(&job, home, json, record, err);
    if (rc == 0)
        rc = images_read(job, json_object_get(json, "images"), err);
    if (rc == 0) {
        fields_read(job, json);
        rc = job_state_final(job->state) ? 0 : admission_read(job, json, err);
    }
    if (rc == 0)
        rc = times_read(job, json, err);
    if (rc == 0) {
        job->digest = record_digest(record);
        *out = job;
        job = NULL;
    }
    live_job_free(job);
    json_decref(json);
    return rc;
}

int state_decode(struct live_job **out, int home, const struct kafka_record *record,
                 struct err *err)
{
    return record_read(out, "state", home, record, err);
}

int result_decode(struct live_job **out, int home, const struct kafka_record *record,
                  struct err *err)
{
    return record_read(out, "result", home, record, err);
}

/* --- digests and times --- */

/* FNV-1a, 64 bits: tells a repetition from a mistake; nothing is trusted to it. */
static uint64_t fnv1a(const void *bytes, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * 0x100000001b3u;
    return hash;
}

uint64_t body_digest(const void *bytes, size_t size)
{
    json_t *json = NULL;
    char *canonical = NULL;

    if (bytes && size <= SCHEMA_RECORD_MAX && jsonx_parse(&json, bytes, size, NULL) == 0) {
        json_object_del(json, "id");
        canonical = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY);
    }
    uint64_t digest = canonical ? fnv1a(canonical, strlen(canonical)) : fnv1a(bytes, size);
    free(canonical);
    json_decref(json);
    return digest;
}

char *digest_text(uint64_t digest)
{
    return xasprintf("%016" PRIx64, digest);
}

uint64_t record_digest(const struct kafka_record *record)
{
    const struct kafka_header *header = kafka_record_header(record, RECORD_DIGEST_HEADER);
    char text[17] = "";
    if (header && header->size == 16)
        memcpy(text, header->value, 16);
    return strtoull(text, NULL, 16);
}

int64_t iso8601_parse(const char *text)
{
    struct tm tm = {0};
    const char *end = text ? strptime(text, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    int ms = 0, used = 0;
    if (!end || sscanf(end, ".%3dZ%n", &ms, &used) != 1 || used != 5 || end[used] || ms < 0)
        return -1;
    int64_t at_ms = (int64_t)timegm(&tm) * 1000 + ms;
    return at_ms >= 0 && at_ms < CLOCK_ISO_END_MS ? at_ms : -1; /* a leap second may pass it */
}
