/* SPDX-License-Identifier: Apache-2.0 */
/* The status hash as JSON. */
#include "client/status_hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/progress.h"
#include "client/queue_place.h"
#include "client/text.h"
#include "common/clock.h"
#include "common/memory.h"
#include "common/utf8.h"

enum field_kind { FIELD_TEXT, FIELD_INTEGER, FIELD_NUMBER, FIELD_JSON };

/* In the order in which --json shows them. */
static const struct {
    const char *name;
    enum field_kind kind;
} fields[] = {
    {"state", FIELD_TEXT},          {"type", FIELD_TEXT},
    {"model", FIELD_TEXT},          {"prompt", FIELD_TEXT},
    {"size", FIELD_INTEGER},        {"seed", FIELD_INTEGER},
    {"class", FIELD_TEXT},          {"client", FIELD_TEXT},
    {"created_at", FIELD_TEXT},     {"updated_at", FIELD_TEXT},
    {"finished_at", FIELD_TEXT},    {"stage", FIELD_TEXT},
    {"step", FIELD_INTEGER},        {"steps", FIELD_INTEGER},
    {"progress", FIELD_NUMBER},     {"images_total", FIELD_INTEGER},
    {"images_done", FIELD_INTEGER}, {"images_failed", FIELD_INTEGER},
    {"results", FIELD_JSON},        {"scores", FIELD_JSON},
    {"best", FIELD_JSON},           {"route", FIELD_JSON},
    {"timings", FIELD_JSON},        {"notices", FIELD_JSON},
    {"error_code", FIELD_TEXT},     {"error_message", FIELD_TEXT},
    {"attempts", FIELD_INTEGER},    {"retry_at", FIELD_TEXT},
    {"partition", FIELD_INTEGER},   {"queue_ticket", FIELD_INTEGER},
    {"work_ms", FIELD_INTEGER},
};
#define X(...) +1
_Static_assert(sizeof fields / sizeof *fields == 1 JOB_FIELD_TABLE(X), "all, and the route");
#undef X

static json_t *clean_string(const char *text)
{
    char *clean = utf8_clean(text, strlen(text));
    json_t *value = json_string(clean);
    free(clean);
    return value;
}

/* Nothing is null; what is not of its kind is shown as the text that it is. */
static json_t *typed(enum field_kind kind, const char *text)
{
    char *end = NULL;
    json_t *value = NULL;

    if (!*text && kind != FIELD_TEXT)
        return json_null();
    if (kind == FIELD_INTEGER)
        value = json_integer(strtoll(text, &end, 10));
    else if (kind == FIELD_NUMBER)
        value = json_real(strtod(text, &end));
    else if (kind == FIELD_JSON)
        value = json_loads(text, JSON_DECODE_ANY, NULL);
    if (value && (!end || !*end))
        return value;
    json_decref(value);
    return clean_string(text);
}

json_t *status_from_reply(const char *id, const struct redis_reply *reply)
{
    json_t *out = json_pack("{s:s}", "id", id);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        const char *text = redis_reply_field(reply, fields[i].name);
        if (text)
            json_object_set_new(out, fields[i].name, typed(fields[i].kind, text));
    }
    return out;
}

int status_fetch(struct redis *redis, const char *id, json_t **out, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct redis_reply *reply = NULL;

    if (!job_id_valid(id, strlen(id)))
        return err_set(err, ERR_NOT_FOUND, "'%.130s' is not a job id", id);
    int rc = redis_commandf(redis, &reply, err, "HGETALL %s", redis_key(REDIS_KEY_JOB, id, key));
    if (rc < 0)
        return rc;
    if (reply->count == 0)
        rc = err_set(err, ERR_NOT_FOUND,
                     "no job '%s': it was never sent, or it ended so long ago that its status is "
                     "gone",
                     id);
    else
        *out = status_from_reply(id, reply);
    redis_reply_free(reply);
    if (rc == 0)
        rc = queue_place_fetch(redis, *out, clock_wall_ms(clock_system()), err);
    if (rc < 0) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

const char *status_text(const json_t *status, const char *field)
{
    const char *text = json_string_value(json_object_get(status, field));
    return text ? text : "";
}

int64_t status_int(const json_t *status, const char *field)
{
    return json_integer_value(json_object_get(status, field));
}

double status_number(const json_t *status, const char *field)
{
    return json_number_value(json_object_get(status, field));
}

enum job_state status_state(const json_t *status)
{
    enum job_state state = JOB_ACCEPTED;
    job_state_parse(status_text(status, "state"), &state);
    return state;
}

static bool is_stored(const json_t *status, json_int_t index)
{
    return index >= 0 && index < JOB_IMAGES_MAX &&
           json_is_string(json_array_get(json_object_get(status, "results"), (size_t)index));
}

int status_wanted(const json_t *status, int indices[JOB_IMAGES_MAX])
{
    const json_t *best = json_object_get(status, "best"), *index;
    size_t named = json_array_size(best), i;
    int count = 0;

    for (int k = 0; k < JOB_IMAGES_MAX; k++)
        if (is_stored(status, k))
            indices[count++] = k;
    if (named == 0 || named >= (size_t)count)
        return count;
    count = 0;
    json_array_foreach (best, i, index)
        if (json_is_integer(index) && is_stored(status, json_integer_value(index)))
            indices[count++] = (int)json_integer_value(index);
    return count;
}

/* --- for people --- */

static void print_place(const json_t *status, FILE *out)
{
    fprintf(out, "  progress   %.0f %%", status_number(status, "progress") * 100);
    if (*status_text(status, "stage")) {
        fputs(", ", out);
        text_print(status_text(status, "stage"), false, out);
    }
    if (status_int(status, "steps") > 0)
        fprintf(out, " step %lld of %lld", (long long)status_int(status, "step"),
                (long long)status_int(status, "steps"));
    fputc('\n', out);
}

static void print_queue(const json_t *status, FILE *out)
{
    const json_t *eta = json_object_get(status, "eta_ms");
    char text[24];

    if (json_is_integer(json_object_get(status, "queue_position")))
        fprintf(out, "  queue      %lld pictures ahead\n",
                (long long)status_int(status, "queue_position"));
    if (!eta)
        return;
    progress_duration((double)json_integer_value(eta) / 1000, text);
    fprintf(out, "  ETA        about %s\n", text);
}

static void print_row(const char *title, const char *text, FILE *out)
{
    if (!text || !*text)
        return;
    fprintf(out, "  %-10s ", title);
    text_print(text, false, out);
    fputc('\n', out);
}

/* With its score, where it has one. */
static void print_result(const json_t *status, size_t index, FILE *out)
{
    const json_t *score = json_array_get(json_object_get(status, "scores"), index);
    const char *uri = json_string_value(json_array_get(json_object_get(status, "results"), index));
    char title[16] = "";
    if (json_is_number(score))
        snprintf(title, sizeof title, "%.2f", json_number_value(score));
    print_row(title, uri, out);
}

static void print_pictures(const json_t *status, FILE *out)
{
    int indices[JOB_IMAGES_MAX], count = status_wanted(status, indices);

    fprintf(out, "  pictures   %lld of %lld done", (long long)status_int(status, "images_done"),
            (long long)status_int(status, "images_total"));
    if (status_int(status, "images_failed"))
        fprintf(out, ", %lld failed", (long long)status_int(status, "images_failed"));
    if (count > 0 && count < status_int(status, "images_done"))
        fprintf(out, "; the best %d:", count);
    fputc('\n', out);
    for (int i = 0; i < count; i++)
        print_result(status, (size_t)indices[i], out);
}

static void print_tries(const json_t *status, FILE *out)
{
    if (status_int(status, "attempts") > 0)
        fprintf(out, "  retries    %lld\n", (long long)status_int(status, "attempts"));
    print_row("next try", status_text(status, "retry_at"), out);
}

static void print_timings(const json_t *status, FILE *out)
{
    const json_t *timings = json_object_get(status, "timings");
    const char *sign = "  timings    ";
    for (enum stage stage = 0; stage < STAGE_COUNT; stage++) {
        const json_t *ms = json_object_get(timings, stage_name(stage));
        if (!ms)
            continue;
        fprintf(out, "%s%s %.2f s", sign, stage_name(stage), json_number_value(ms) / 1000);
        sign = ", ";
    }
    if (*sign == ',')
        fputc('\n', out);
}

static void print_words(const json_t *status, FILE *out)
{
    size_t i;
    const json_t *notice;
    json_array_foreach (json_object_get(status, "notices"), i, notice)
        print_row("note", json_string_value(notice), out);
    print_row("error", status_text(status, "error_message"), out);
    print_row("created", status_text(status, "created_at"), out);
    print_row("finished", status_text(status, "finished_at"), out);
}

static void print_settings(const json_t *status, FILE *out)
{
    if (!json_is_integer(json_object_get(status, "seed")))
        return;
    char *text = xasprintf("%s, %lld px, seed %lld, %s", status_text(status, "model"),
                           (long long)status_int(status, "size"),
                           (long long)status_int(status, "seed"), status_text(status, "class"));
    print_row("settings", text, out);
    free(text);
}

void status_print(const json_t *status, FILE *out)
{
    fprintf(out, "%s ", status_text(status, "id"));
    text_print(status_text(status, "state"), false, out);
    fputc('\n', out);
    print_row("prompt", status_text(status, "prompt"), out);
    print_settings(status, out);
    print_place(status, out);
    print_queue(status, out);
    print_row("waiting", status_text(status, "waiting"), out);
    print_pictures(status, out);
    print_tries(status, out);
    print_timings(status, out);
    print_words(status, out);
}
