/* SPDX-License-Identifier: Apache-2.0 */
/* A job into unclip.jobs, and on request its way until its pictures are here. */
#include <stdlib.h>
#include <string.h>

#include "client/artifact.h"
#include "client/making.h"
#include "client/record.h"
#include "client/status_hash.h"
#include "client/watch.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/image.h"
#include "common/memory.h"
#include "common/storage.h"

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
static int submit(const struct config *config, const struct request *request, struct err *err)
{
    struct job job = {0};
    json_t *record = NULL;
    int rc =
        request_json(request, setting_given(config, "model") ? config->model : NULL, &record, err);
    if (rc == 0)
        rc = request_check(record, &job, err);
    if (rc == 0)
        rc = check_size(config, &job, err);
    if (rc == 0) {
        char *text = json_dumps(record, JSON_COMPACT);
        rc = record_send(config, request->id, KAFKA_ANY_PARTITION, text, err);
        free(text);
    }
    job_release(&job);
    json_decref(record);
    return rc;
}

/* --- afterwards --- */

/* What brings results here. */
struct delivery {
    const struct config *config; /* borrowed, as is the next */
    const struct making *making;
    struct storage *storage; /* owned: a bucket, opened when it is needed */
    struct sheet sheet;
};

static int fetch(struct delivery *self, const char *uri, void **bytes, size_t *size,
                 struct err *err)
{
    char *path = NULL;
    int rc = 0;
    if (strncmp(uri, "s3://", 5) != 0) {
        rc = artifact_path(uri, &path, err);
        if (rc == 0)
            rc = artifact_read(path, IMAGE_FILE_MAX, bytes, size, err);
        free(path);
        return rc;
    }
    if (!self->storage && (rc = http_setup(err)) == 0)
        rc = storage_open(&self->storage, self->config->artifacts, err);
    return rc == 0 ? storage_read(self->storage, uri, IMAGE_FILE_MAX, bytes, size, err) : rc;
}

/* As DIR/ID-INDEX.EXT, where the extension is the stored one's. */
static int save(const char *folder, const char *uri, const char *id, size_t index,
                const void *bytes, size_t size, struct err *err)
{
    const char *name = strrchr(uri, '/'), *dot = name ? strrchr(name, '.') : NULL;
    char *to = xasprintf("%s/%s-%zu%s", folder, id, index, dot ? dot : "");
    int rc = artifact_write(to, bytes, size, err);
    if (rc == 0)
        fprintf(stderr, "%s\n", to);
    free(to);
    return rc;
}

static int deliver_one(struct delivery *self, const char *uri, const char *id, size_t index,
                       struct err *err)
{
    const struct making *making = self->making;
    void *bytes = NULL;
    size_t size;
    int rc = fetch(self, uri, &bytes, &size, err);
    if (rc == 0 && making->out)
        rc = save(making->out, uri, id, index, bytes, size, err);
    if (rc == 0 && (making->sheet.grid || making->sheet.animation))
        rc = sheet_add_file(&self->sheet, bytes, size, err);
    free(bytes);
    return rc;
}

/* Copies them, or says where they are. */
static int deliver(struct delivery *self, const json_t *status, struct err *err)
{
    const struct making *making = self->making;
    bool copies = making->out || making->sheet.grid || making->sheet.animation;
    const json_t *results = json_object_get(status, "results");
    int indices[JOB_IMAGES_MAX], count = status_wanted(status, indices);
    int rc = making->out ? folder_make(making->out, err) : 0;

    for (int i = 0; i < count && rc == 0; i++) {
        size_t index = (size_t)indices[i];
        const char *uri = json_string_value(json_array_get(results, index));
        if (copies)
            rc = deliver_one(self, uri, status_text(status, "id"), index, err);
        else
            fprintf(stderr, "%s\n", uri);
    }
    return rc == 0 ? sheet_write(&self->sheet, &making->sheet, err) : rc;
}

static enum exit_code bring(const struct invocation *invocation, const json_t *status)
{
    struct delivery *self = xcalloc(1, sizeof *self);
    struct err err;
    enum exit_code code = EXIT_OK;
    self->config = invocation->config;
    self->making = invocation->values;
    if (deliver(self, status, &err) < 0)
        code = complain_of(invocation, &err);
    storage_close(self->storage);
    sheet_release(&self->sheet);
    free(self);
    return code;
}

static void report(const json_t *status)
{
    size_t i;
    const json_t *notice;

    json_array_foreach (json_object_get(status, "notices"), i, notice)
        fprintf(stderr, "note: %s\n", json_string_value(notice));
}

/* The job has ended. */
static enum exit_code conclude(const struct invocation *invocation, const json_t *status)
{
    const struct making *making = invocation->values;
    report(status);
    enum exit_code code = making->request.type == JOB_SCORE ? EXIT_OK : bring(invocation, status);
    if (status_state(status) != JOB_SUCCEEDED) {
        complain(invocation, "the job %s: %s", status_text(status, "state"),
                 status_text(status, "error_message"));
        code = EXIT_FAILED;
    }
    if (making->json)
        json_dumpf(status, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15)), puts("");
    else if (making->request.type == JOB_SCORE)
        making_print_ranking(invocation, json_object_get(status, "scores"));
    return code;
}

static enum exit_code await(const struct invocation *invocation, const char *id)
{
    struct redis *redis = NULL;
    struct err err;
    json_t *status = NULL;
    enum exit_code code;

    if (redis_open(&redis, invocation->config->redis, clock_system(), &err) < 0 ||
        watch_job(redis, id, stderr, -1, &status, &err) < 0) {
        complain(invocation, "job '%s' was sent, but its status cannot be read: %s", id, err.text);
        code = EXIT_UNREACHABLE;
    } else {
        code = conclude(invocation, status);
    }
    json_decref(status);
    redis_close(redis);
    return code;
}

enum exit_code submit_run(const struct invocation *invocation, struct making *making)
{
    char id[JOB_ID_NEW_SIZE];
    struct err err;

    job_id_new(clock_wall_ms(clock_system()), id);
    if (!making->request.id)
        making->request.id = id;
    if (image_setup("unclip", &err) < 0 || submit(invocation->config, &making->request, &err) < 0)
        return complain_of(invocation, &err);
    if (!making->json)
        printf("%s\n", making->request.id);
    else if (!making->wait)
        printf("{\"id\": \"%s\"}\n", making->request.id);
    fflush(stdout);
    return making->wait ? await(invocation, making->request.id) : EXIT_OK;
}
