/* SPDX-License-Identifier: Apache-2.0 */
/* unclip submit: a job into unclip.jobs, and on request its way until its pictures are here. */
#include <stdlib.h>
#include <string.h>

#include "client/artifact.h"
#include "client/command.h"
#include "client/request.h"
#include "client/status_hash.h"
#include "client/watch.h"
#include "common/clock.h"
#include "common/image.h"
#include "common/memory.h"

#define SEND_MS 10000

struct values {
    struct request request; /* first: the shared tables' offsets are into it */
    bool wait, json;
    const char *out;
};

static void defaults(void *values)
{
    request_init(&((struct values *)values)->request);
}

static int send_record(const struct config *config, const char *id, const char *text,
                       struct err *err)
{
    struct kafka_client *client = NULL;
    const struct kafka_output output = {
        .topic = topic_name(TOPIC_JOBS),
        .partition = KAFKA_ANY_PARTITION,
        .key = id,
        .key_size = strlen(id),
        .value = text,
        .value_size = strlen(text),
    };
    int rc = kafka_client_open(&client, config, err);
    if (rc == 0)
        rc = kafka_client_send(client, &output, SEND_MS, err);
    kafka_client_close(client);
    return rc;
}

/* Only where the model is here too: the cluster may have others. */
static int check_size(const struct config *config, const struct job *job, struct err *err)
{
    struct model_card card;

    if (model_card_load(&card, config->models, config->model, NULL) < 0)
        return 0;
    int rc = request_check_size(job, &card, err);
    model_card_release(&card);
    return rc;
}

/* Checks the job here, so that a mistake is told at once and in one sentence. */
static int submit(const struct config *config, const struct request *request, const char *prompt,
                  struct err *err)
{
    struct job job = {0};
    const char *model = setting_given(config, "model") ? config->model : NULL;
    json_t *record = request_json(request, prompt, model);
    char *text = json_dumps(record, JSON_COMPACT);
    int rc = record && text ? request_check(record, &job, err)
                            : err_set(err, ERR_INVALID_JOB, "the prompt is not valid UTF-8");

    if (rc == 0)
        rc = check_size(config, &job, err);
    if (rc == 0)
        rc = send_record(config, request->id, text, err);
    job_release(&job);
    free(text);
    json_decref(record);
    return rc;
}

/* --- afterwards --- */

static int copy_picture(const char *uri, const char *folder, const char *id, size_t index,
                        struct err *err)
{
    char *path = NULL;
    void *bytes = NULL;
    size_t size;
    int rc = artifact_path(uri, &path, err);

    if (rc == 0)
        rc = artifact_read(path, IMAGE_FILE_MAX, &bytes, &size, err);
    if (rc == 0) {
        char *to = xasprintf("%s/%s-%zu.png", folder, id, index);
        rc = artifact_write(to, bytes, size, err);
        if (rc == 0)
            fprintf(stderr, "%s\n", to);
        free(to);
    }
    free(bytes);
    free(path);
    return rc;
}

/* Copies them, or says where they are. */
static int deliver(const json_t *status, const char *folder, struct err *err)
{
    size_t i;
    const json_t *uri;
    int rc = folder ? folder_make(folder, err) : 0;

    json_array_foreach (json_object_get(status, "results"), i, uri) {
        if (rc < 0 || !json_is_string(uri))
            continue;
        if (folder)
            rc = copy_picture(json_string_value(uri), folder, status_text(status, "id"), i, err);
        else
            fprintf(stderr, "%s\n", json_string_value(uri));
    }
    return rc;
}

static void report(const json_t *status)
{
    size_t i;
    const json_t *notice;

    json_array_foreach (json_object_get(status, "notices"), i, notice)
        fprintf(stderr, "note: %s\n", json_string_value(notice));
}

static enum exit_code await(const struct invocation *invocation, const char *id)
{
    const struct values *values = invocation->values;
    struct redis *redis = NULL;
    struct err err;
    json_t *status = NULL;
    enum exit_code code = EXIT_OK;

    if (redis_open(&redis, invocation->config->redis, clock_system(), &err) < 0 ||
        watch_job(redis, id, stderr, -1, &status, &err) < 0) {
        complain(invocation, "job '%s' was sent, but its status cannot be read: %s", id, err.text);
        redis_close(redis);
        return EXIT_UNREACHABLE;
    }
    report(status);
    if (deliver(status, values->out, &err) < 0)
        code = complain_of(invocation, &err);
    if (status_state(status) != JOB_SUCCEEDED) {
        complain(invocation, "the job %s: %s", status_text(status, "state"),
                 status_text(status, "error_message"));
        code = EXIT_FAILED;
    }
    if (values->json)
        json_dumpf(status, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15)), puts("");
    json_decref(status);
    redis_close(redis);
    return code;
}

static enum exit_code run(const struct invocation *invocation)
{
    struct values *values = invocation->values;
    char id[JOB_ID_NEW_SIZE];
    struct err err;

    if (values->out && !values->wait) {
        complain(invocation, "-o needs --wait: the pictures are not there before the job ends");
        return EXIT_MISUSE;
    }
    job_id_new(clock_wall_ms(clock_system()), id);
    if (!values->request.id)
        values->request.id = id;
    if (submit(invocation->config, &values->request, invocation->operands[0], &err) < 0)
        return complain_of(invocation, &err);
    if (!values->json)
        printf("%s\n", values->request.id);
    else if (!values->wait)
        printf("{\"id\": \"%s\"}\n", values->request.id);
    fflush(stdout);
    return values->wait ? await(invocation, values->request.id) : EXIT_OK;
}

#define AT(member) offsetof(struct values, member)

static const struct option job_options[] = {
    {"id", 0, OPTION_TEXT, "ID", 0, 0, "a new one", AT(request.id),
     "the job's id; sending a job again under its id does nothing"},
    {"class", 0, OPTION_TEXT, "CLASS", 0, 0, "interactive", AT(request.task_class),
     "interactive, or bulk: yields to people who wait"},
    {"deadline", 0, OPTION_INTEGER, "SECONDS", 1, 31536000, "none", AT(request.deadline_s),
     "the job expires if it has not ended by then"},
    {"client", 0, OPTION_TEXT, "NAME", 0, 0, NULL, AT(request.client), "who asks"},
    {0},
};

static const struct option output_options[] = {
    {"wait", 'w', OPTION_FLAG, NULL, 0, 0, NULL, AT(wait), "show progress until the job ends"},
    {"out", 'o', OPTION_TEXT, "DIR", 0, 0, NULL, AT(out),
     "copy the pictures to DIR/ID-0.png, …; needs --wait"},
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(json),
     "print {\"id\": …}, or with --wait the last status"},
    {0},
};

static const struct option_group groups[] = {
    {"The pictures", request_options},
    {"How they are made", sampling_options},
    {"Faster, but not the same pictures (docs/jobs.md)", faster_options},
    {"The job", job_options},
    {"Output", output_options},
    {0},
};

const struct command submit_command = {
    .name = "submit",
    .operands = "PROMPT",
    .least = 1,
    .most = 1,
    .summary = "send a job to the cluster, print its id",
    .groups = groups,
    .values_size = sizeof(struct values),
    .defaults = defaults,
    .details =
        "A size that the model does not make is refused at once where the model is found under "
        "--models,\nelse by the cluster: then the job fails.\n",
    .settings = {"model", "models", "kafka", "redis"},
    .run = run,
};
