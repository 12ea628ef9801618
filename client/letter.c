/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters: reading, showing, and making records of them again. */
#include "client/letter.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/text.h"
#include "common/base64.h"
#include "common/job.h"
#include "common/json.h"
#include "common/memory.h"
#include "common/schema.h"

#define REASON_COLUMNS 80
#define LOST           "\xef\xbf\xbd" /* U+FFFD, in place of bytes that were not text */

/* --- places and times --- */

bool place_parse(const char *text, struct place *place)
{
    int used = 0;
    if (text[strspn(text, "0123456789:")] || strlen(text) >= PLACE_SIZE)
        return false;
    return sscanf(text, "%9" SCNd32 ":%18" SCNd64 "%n", &place->partition, &place->offset, &used) ==
               2 &&
           text[used] == 0;
}

const char *place_text(struct place place, char text[PLACE_SIZE])
{
    snprintf(text, PLACE_SIZE, "%" PRId32 ":%" PRId64, place.partition, place.offset);
    return text;
}

bool time_parse(const char *text, int64_t *at_ms)
{
    struct tm day = {0}, second = {0};
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &second);
    if (!end || *end) {
        end = strptime(text, "%Y-%m-%d", &day);
        second = day;
    }
    if (!end || *end)
        return false;
    *at_ms = (int64_t)timegm(&second) * 1000;
    return true;
}

/* --- reading --- */

int letter_read(struct letter *letter, const struct kafka_record *record, struct err *err)
{
    struct err why;
    json_t *json = NULL;
    if (!record->value ||
        schema_validate("dead-letter", record->value, record->value_size, &why) < 0 ||
        jsonx_parse(&json, record->value, record->value_size, &why) < 0)
        return err_set(err, ERR_INVALID_RECORD, "%d:%lld is no dead letter: %s",
                       (int)record->partition, (long long)record->offset,
                       record->value ? why.text : "it has no value");
    *letter = (struct letter){{record->partition, record->offset}, json};
    return 0;
}

void letter_release(struct letter *letter)
{
    json_decref(letter->json);
    letter->json = NULL;
}

static const char *text_of(const json_t *object, const char *field)
{
    return json_string_value(json_object_get(object, field));
}

const char *letter_text(const struct letter *letter, const char *field)
{
    const char *text = text_of(letter->json, field);
    return text ? text : "";
}

bool letter_matches(const struct letter *letter, const char *job, const char *code)
{
    return (!job || strcmp(letter_text(letter, "job"), job) == 0) &&
           (!code || strcmp(letter_text(letter, "error_code"), code) == 0);
}

/* --- showing --- */

static void put_row(const char *const columns[6], FILE *out)
{
    static const int least[] = {10, 20, 16, 28, 11};
    for (int i = 0; i < 5; i++) {
        text_column(columns[i], least[i], 0, out);
        fputc(' ', out);
    }
    text_column(columns[5], 0, REASON_COLUMNS, out);
    fputc('\n', out);
}

void letter_heading(FILE *out)
{
    put_row((const char *const[6]){"place", "time", "code", "job", "stage", "reason"}, out);
}

static const char *or_dash(const char *text)
{
    return *text ? text : "-";
}

void letter_row(const struct letter *letter, FILE *out)
{
    char place[PLACE_SIZE], at[20]; /* to the second */
    snprintf(at, sizeof at, "%s", letter_text(letter, "at"));
    put_row((const char *const[6]){place_text(letter->place, place), at,
                                   letter_text(letter, "error_code"),
                                   or_dash(letter_text(letter, "job")),
                                   or_dash(letter_text(letter, "stage")),
                                   letter_text(letter, "error_message")},
            out);
}

json_t *letter_json(const struct letter *letter, bool whole)
{
    char place[PLACE_SIZE];
    json_t *out = json_object();
    json_object_set_new(out, "place", json_string(place_text(letter->place, place)));
    json_object_update(out, letter->json);
    if (!whole) {
        json_object_del(out, "value");
        json_object_del(out, "value_base64");
        json_object_del(out, "headers");
    }
    return out;
}

/* --- sending again --- */

/* The job's id without the suffix of an earlier retry; *retried tells whether there was one. */
static int base_length(const char *job, bool *retried)
{
    const char *suffix = NULL, *next = job;
    int used = 0;
    while ((next = strstr(next, ".retry-")))
        suffix = next++;
    *retried = suffix && sscanf(suffix, ".retry-%*9[0-9]-%*18[0-9]%n", &used) == 0 && used > 0 &&
               suffix[used] == 0;
    return *retried ? (int)(suffix - job) : (int)strlen(job);
}

/* `image` below 0: of the whole job. */
static int id_make(const struct letter *letter, const char *job, int image, struct resend *resend,
                   struct err *err)
{
    bool retried;
    char part[16] = "";
    int length = base_length(job, &retried);
    if (image >= 0 && !retried)
        snprintf(part, sizeof part, ".%d", image);
    int size = snprintf(resend->id, sizeof resend->id, "%.*s%s.retry-%d-%lld", length, job, part,
                        (int)letter->place.partition, (long long)letter->place.offset);
    if (size < (int)sizeof resend->id)
        return 0;
    resend->id[0] = 0;
    return err_set(err, ERR_TOO_LARGE, "the id '%s' is too long to be given a suffix", job);
}

/* A job record under the new id; `body` is the old one, without an id. */
static void new_job(struct resend *resend, const json_t *body)
{
    resend->topic = xstrdup(topic_name(TOPIC_JOBS));
    resend->key = xstrdup(resend->id);
    resend->value = json_dumps(body, JSON_COMPACT);
    BUG_ON(!resend->value);
    resend->output = (struct kafka_output){
        .topic = resend->topic,
        .partition = KAFKA_ANY_PARTITION,
        .key = resend->key,
        .key_size = strlen(resend->key),
        .value = resend->value,
        .value_size = strlen(resend->value),
    };
}

static int task_resend(const struct letter *letter, const char *header, struct resend *resend,
                       struct err *err)
{
    struct task task;
    struct err why;
    if (!header || task_parse(&task, header, strlen(header), &why) < 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "its task cannot be read, so there is nothing to send");
    int rc = id_make(letter, task.job, task.image, resend, err);
    if (rc == 0) {
        char *request = task_request_json(&task, false);
        json_t *body = NULL;
        if (jsonx_parse(&body, request, strlen(request), NULL) < 0)
            BUG("a request that was just written cannot be read");
        if (task.task_class == CLASS_BULK)
            json_object_set_new(body, "class", json_string(task_class_name(CLASS_BULK)));
        new_job(resend, body);
        json_decref(body);
        free(request);
    }
    task_release(&task);
    return rc;
}

/* The refused record's bytes. Left NULL where it had none. */
static int value_take(const struct letter *letter, struct resend *resend, struct err *err)
{
    const char *encoded = text_of(letter->json, "value_base64");
    const json_t *value = json_object_get(letter->json, "value");
    if (encoded) {
        resend->value = base64_decode(encoded, strlen(encoded), &resend->output.value_size);
        if (!resend->value)
            return err_set(err, ERR_INVALID_RECORD, "its value is not base 64");
    } else if (json_is_string(value)) {
        resend->value = xstrdup(json_string_value(value));
        resend->output.value_size = json_string_length(value);
    }
    resend->output.value = resend->value;
    return 0;
}

static int headers_take(const struct letter *letter, struct resend *resend, struct err *err)
{
    const char *name;
    json_t *value;
    size_t count = 0;
    resend->texts = json_incref(json_object_get(letter->json, "headers"));
    resend->headers = xcalloc(json_object_size(resend->texts) + 1, sizeof *resend->headers);
    json_object_foreach (resend->texts, name, value) {
        if (strstr(name, LOST) || strstr(json_string_value(value), LOST))
            return err_set(err, ERR_UNSUPPORTED, "its headers were not text and are not all there");
        resend->headers[count++] =
            (struct kafka_header){name, json_string_value(value), json_string_length(value)};
    }
    resend->output.headers = resend->headers;
    resend->output.header_count = count;
    return 0;
}

static int same_again(const struct letter *letter, struct resend *resend, struct err *err)
{
    const json_t *source = json_object_get(letter->json, "source");
    const json_t *key = json_object_get(letter->json, "key");
    resend->topic = xstrdup(text_of(source, "topic"));
    resend->output.topic = resend->topic;
    resend->output.partition = (int32_t)json_integer_value(json_object_get(source, "partition"));
    if (json_is_string(key)) {
        if (strstr(json_string_value(key), LOST))
            return err_set(err, ERR_UNSUPPORTED, "its key was not text and is not all there");
        resend->key = xstrdup(json_string_value(key));
        resend->output.key = resend->key;
        resend->output.key_size = json_string_length(key);
    }
    int rc = value_take(letter, resend, err);
    return rc ? rc : headers_take(letter, resend, err);
}

static int job_resend(const struct letter *letter, struct resend *resend, struct err *err)
{
    const char *value = text_of(letter->json, "value"), *job = letter_text(letter, "job");
    json_t *body = NULL;
    int rc;
    if (!*job)
        return same_again(letter, resend, err);
    if (!value || jsonx_parse(&body, value, strlen(value), NULL) < 0 || !json_is_object(body))
        rc = err_set(err, ERR_UNSUPPORTED, "it is not a JSON object and would be refused again");
    else if (text_of(body, "type") && strcmp(text_of(body, "type"), job_type_name(JOB_CANCEL)) == 0)
        rc = same_again(letter, resend, err);
    else if ((rc = id_make(letter, job, -1, resend, err)) == 0) {
        json_object_del(body, "id");
        new_job(resend, body);
    }
    json_decref(body);
    return rc;
}

static int plan(const struct letter *letter, struct resend *resend, struct err *err)
{
    const char *topic = text_of(json_object_get(letter->json, "source"), "topic");
    const char *task = text_of(json_object_get(letter->json, "headers"), "task");
    if (json_is_true(json_object_get(letter->json, "truncated")))
        return err_set(err, ERR_TOO_LARGE, "only a part of the record was kept");
    if (strncmp(topic, TOPIC_TASKS_PREFIX, strlen(TOPIC_TASKS_PREFIX)) == 0)
        return task_resend(letter, task, resend, err);
    if (strcmp(topic, topic_name(TOPIC_JOBS)) == 0)
        return job_resend(letter, resend, err);
    if (strcmp(topic, topic_name(TOPIC_EVENTS)) == 0) /* with a task: its tries are used up */
        return task ? task_resend(letter, task, resend, err) : same_again(letter, resend, err);
    return err_set(err, ERR_UNSUPPORTED, "it came from '%s', which takes no records from outside",
                   topic);
}

int letter_resend(const struct letter *letter, struct resend *resend, struct err *err)
{
    *resend = (struct resend){0};
    int rc = plan(letter, resend, err);
    if (rc < 0)
        resend_release(resend);
    return rc;
}

void resend_release(struct resend *resend)
{
    free(resend->topic);
    free(resend->key);
    free(resend->value);
    free(resend->headers);
    json_decref(resend->texts);
    *resend = (struct resend){0};
}
