/* SPDX-License-Identifier: Apache-2.0 */
/* What comes of a task: each record is valid by its schema and goes where it belongs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include <jansson.h>
#include <math.h>

#include "common/image.h"
#include "common/memory.h"
#include "common/safetensors.h"
#include "common/schema.h"
#include "worker_fixture.h"
#include "workers/output.h"

static struct output output = {.worker = "prior-0", .homes = 8};
static char folder[] = "/tmp/unclip-output.XXXXXX";

static int start(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(image_setup("test_output", &err), 0);
    assert_non_null(mkdtemp(folder));
    return storage_open(&output.storage, folder, &err);
}

static int stop(void **state)
{
    (void)state;
    char command[128];
    storage_close(output.storage);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* A parcel without a Kafka message behind it; `record` is borrowed. */
static struct parcel *make(enum stage stage, int hops)
{
    static struct kafka_record record;
    record = fixture_record("{}");
    struct parcel *parcel = xcalloc(1, sizeof(*parcel));
    parcel->record = &record;
    parcel->has_task = true;
    parcel->task = fixture_task(stage);
    parcel->task.hops = hops;
    fixture_item(&parcel->item, parcel->task.prompt, "");
    parcel->item.tokens_dropped = 0;
    parcel->outcome = OUTCOME_FINISHED;
    parcel->batch = 1;
    output.stage = stage;
    return parcel;
}

static void done(struct parcel *parcel)
{
    parcel->record = NULL;
    parcel_free(parcel);
}

static struct parcel *run(struct parcel *parcel)
{
    output_product(&output, parcel, 5000);
    output_retry(&output, parcel);
    output_report(&output, parcel, 5000);
    return parcel;
}

/* The output's JSON, checked against its schema. Owned. */
static json_t *read_json(const struct kafka_output *record, const char *schema)
{
    struct err err = {0};
    if (schema_validate(schema, record->value, record->value_size, &err))
        fail_msg("%s: %s: %.*s", schema, err.text, (int)record->value_size,
                 (const char *)record->value);
    return json_loadb(record->value, record->value_size, 0, NULL);
}

static const char *text(const json_t *json, const char *key)
{
    const char *value = json_string_value(json_object_get(json, key));
    return value ? value : "";
}

static json_t *event_of(struct parcel *parcel, size_t index, const char *type)
{
    const struct kafka_output *record = &parcel->outputs[index];
    assert_string_equal(record->topic, "unclip.events");
    assert_int_equal(record->partition, 3);
    assert_int_equal(record->key_size, strlen("my-heart"));
    json_t *event = read_json(record, "event");
    assert_string_equal(text(event, "type"), type);
    assert_string_equal(text(event, "worker"), "prior-0");
    return event;
}

static void next_task(void **state)
{
    (void)state;
    struct task next;
    struct item item;
    struct err err = {0};
    struct parcel *parcel = run(make(STAGE_PRIOR, FIXTURE_HOPS));
    assert_int_equal(parcel->output_count, 2);
    const struct kafka_output *record = &parcel->outputs[0];
    assert_string_equal(record->topic, "unclip.tasks.decoder");
    assert_int_equal(record->partition, KAFKA_ANY_PARTITION);
    assert_memory_equal(record->key, "my-heart/1", record->key_size);
    assert_int_equal(record->header_count, 1);
    assert_int_equal(task_parse(&next, record->headers[0].value, record->headers[0].size, &err), 0);
    assert_int_equal(next.hop, STAGE_DECODER);
    assert_int_equal(next.enqueued_at_ms, 5000);
    assert_int_equal(next.created_at_ms, 1000);
    item_init(&item, "", "", 1);
    assert_int_equal(tensors_decode(&item, tensors_needed(&next, next.hop), record->value,
                                    record->value_size, &err),
                     0);
    json_decref(event_of(parcel, 1, "stage-finished"));
    item_release(&item);
    task_release(&next);
    done(parcel);
}

static void bulk_stays_bulk(void **state)
{
    (void)state;
    struct parcel *parcel = make(STAGE_PRIOR, FIXTURE_HOPS);
    parcel->task.task_class = CLASS_BULK;
    run(parcel);
    assert_string_equal(parcel->outputs[0].topic, "unclip.tasks.decoder.bulk");
    done(parcel);
}

static void large_tensors_go_by_reference(void **state)
{
    (void)state;
    struct parcel *parcel = make(STAGE_UPSAMPLER_1, FIXTURE_HOPS);
    struct item item;
    struct err err = {0};
    void *bytes;
    size_t size;
    free(parcel->item.image);
    parcel->item.image_size = 512;
    parcel->item.image = calloc(512 * 512 * 3, sizeof(float));
    run(parcel);
    const struct kafka_output *record = &parcel->outputs[0];
    assert_non_null(record->value);
    assert_int_equal(record->value_size, 0);
    assert_int_equal(record->header_count, 2);
    assert_string_equal(record->headers[1].name, "ref");
    char *uri = strndup(record->headers[1].value, record->headers[1].size);
    assert_int_equal(storage_read(output.storage, uri, TASK_BYTES_MAX, &bytes, &size, &err), 0);
    item_init(&item, "", "", 1);
    assert_int_equal(tensors_decode(&item, TENSORS_RNG | TENSORS_IMAGE, bytes, size, &err), 0);
    assert_int_equal(item.image_size, 512);
    item_release(&item);
    free(bytes);
    free(uri);
    done(parcel);
}

/* The limit is of key and headers, too: a long prompt leaves less room for tensors. */
static void long_headers_count(void **state)
{
    (void)state;
    enum { SIDE = 276, PROMPT = 20000 }; /* the tensors are some 5 KB below the limit */
    for (int longer = 0; longer < 2; longer++) {
        struct parcel *parcel = make(STAGE_DECODER, FIXTURE_HOPS);
        free(parcel->item.image);
        parcel->item.image_size = SIDE;
        parcel->item.image = calloc((size_t)SIDE * SIDE * 3, sizeof(float));
        if (longer) {
            free(parcel->task.prompt);
            parcel->task.prompt = xcalloc(PROMPT + 1, 1);
            memset(parcel->task.prompt, 'a', PROMPT);
        }
        output_product(&output, parcel, 5000);
        const struct kafka_output *record = &parcel->outputs[0];
        size_t size = record->key_size + record->value_size;
        for (size_t i = 0; i < record->header_count; i++)
            size += strlen(record->headers[i].name) + record->headers[i].size;
        assert_true(size <= KAFKA_RECORD_MAX);
        assert_int_equal(record->header_count, longer ? 2 : 1);
        done(parcel);
    }
}

/* Where a stage stands twice in the route, each has an object of its own. */
static void each_hop_has_its_own_object(void **state)
{
    (void)state;
    struct err err = {0};
    char *own;
    struct parcel *parcel = make(STAGE_DECODER, FIXTURE_HOPS);
    task_release(&parcel->task);
    parcel->task = fixture_scored_task(1);
    free(parcel->item.image);
    parcel->item.image_size = 512;
    parcel->item.image = calloc(512 * 512 * 3, sizeof(float));
    run(parcel);
    const struct kafka_output *record = &parcel->outputs[0];
    assert_int_equal(record->header_count, 2);
    assert_int_equal(
        storage_uri(output.storage, "my-heart/1.image-encode.2.safetensors", &own, &err), 0);
    assert_int_equal(record->headers[1].size, strlen(own));
    assert_memory_equal(record->headers[1].value, own, strlen(own));
    free(own);
    done(parcel);
}

static void picture_at_the_end(void **state)
{
    (void)state;
    char sha256[DIGEST_TEXT_SIZE];
    struct err err = {0};
    struct image image;
    void *bytes;
    size_t size;
    struct parcel *parcel = make(STAGE_DECODER, STAGE_DECODER + 1);
    parcel->item.resized = true;
    run(parcel);
    assert_int_equal(parcel->output_count, 1);
    json_t *event = event_of(parcel, 0, "picture-finished");
    assert_int_equal(json_array_size(json_object_get(event, "notices")), 1);
    assert_int_equal(
        storage_read(output.storage, text(event, "uri"), IMAGE_FILE_MAX, &bytes, &size, &err), 0);
    digest_of(bytes, size, sha256);
    assert_string_equal(text(event, "sha256"), sha256);
    assert_int_equal(image_decode(&image, bytes, size, &err), 0);
    assert_int_equal(image.width, 2);
    assert_int_equal(json_integer_value(json_object_get(event, "width")), 2);
    image_release(&image);
    free(bytes);
    json_decref(event);
    done(parcel);
}

static void dropped_tokens_are_told(void **state)
{
    (void)state;
    struct parcel *parcel = make(STAGE_TEXT_ENCODE, FIXTURE_HOPS);
    parcel->item.tokens_dropped = 7;
    run(parcel);
    json_t *event = event_of(parcel, 1, "stage-finished");
    const json_t *notice = json_array_get(json_object_get(event, "notices"), 0);
    assert_non_null(strstr(json_string_value(notice), "7 tokens"));
    json_decref(event);
    done(parcel);
}

/* The event of a finished picture, whose parcel stores one thing as NAME. Owned. */
static json_t *finished(struct parcel *parcel, const char *name, void **bytes, size_t *size)
{
    char *uri;
    struct err err = {0};
    run(parcel);
    assert_int_equal(parcel->outcome, OUTCOME_FINISHED);
    json_t *event = event_of(parcel, 0, "picture-finished");
    assert_int_equal(storage_uri(output.storage, name, &uri, &err), 0);
    assert_string_equal(text(event, "uri"), uri);
    assert_int_equal(storage_read(output.storage, uri, 1 << 20, bytes, size, &err), 0);
    free(uri);
    return event;
}

static void pictures_have_the_form_that_is_asked_for(void **state)
{
    (void)state;
    static const enum format formats[] = {FORMAT_PNG, FORMAT_WEBP, FORMAT_JPEG, FORMAT_AVIF};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        void *bytes;
        size_t size;
        char name[40];
        struct image image;
        struct err err;
        struct parcel *parcel = make(STAGE_UPSAMPLER_1, STAGE_UPSAMPLER_1 + 1);
        parcel->task.output = (struct output_form){.format = formats[i], .quality = 80};
        parcel->item.score = 31.25;
        parcel->item.has_score = true;
        snprintf(name, sizeof name, "my-heart/1.%s", format_name(formats[i]));
        json_t *event = finished(parcel, name, &bytes, &size);
        assert_int_equal(json_integer_value(json_object_get(event, "width")), 2);
        assert_true(json_real_value(json_object_get(event, "score")) == 31.25);
        assert_int_equal(image_decode(&image, bytes, size, &err), 0);
        assert_int_equal(image.width, 2);
        assert_non_null(memmem(bytes, size, "trainedAlgorithmicMedia", 23));
        assert_non_null(memmem(bytes, size, "a red heart", 11));
        image_release(&image);
        json_decref(event);
        free(bytes);
        done(parcel);
    }
}

static struct parcel *make_embed(enum format format)
{
    struct parcel *parcel = make(STAGE_IMAGE_ENCODE, 1);
    parcel->task.hop = 0;
    parcel->task.route[0] = (struct hop){.stage = STAGE_IMAGE_ENCODE};
    parcel->task.type = parcel->item.type = JOB_EMBED;
    parcel->task.output.format = format;
    return parcel;
}

static void embeddings_are_safetensors(void **state)
{
    (void)state;
    void *bytes;
    size_t size;
    struct safetensors *file;
    struct parcel *parcel = make_embed(FORMAT_SAFETENSORS);
    json_t *event = finished(parcel, "my-heart/1.safetensors", &bytes, &size);
    assert_null(json_object_get(event, "width"));
    assert_null(json_object_get(event, "score"));
    assert_int_equal(safetensors_parse(&file, bytes, size, NULL), 0);
    const struct safetensors_entry *entry = safetensors_find(file, "embedding");
    assert_non_null(entry);
    assert_int_equal(entry->rank, 1);
    assert_int_equal(entry->dim[0], FIXTURE_D);
    assert_memory_equal(entry->data, parcel->item.image_embed, FIXTURE_D * sizeof(float));
    safetensors_free(file);
    json_decref(event);
    free(bytes);
    done(parcel);
}

/* Of a text: the row behind the prompts'. As numpy's own header says it. */
static void embeddings_are_npy(void **state)
{
    (void)state;
    void *bytes;
    size_t size;
    struct parcel *parcel = make_embed(FORMAT_NPY);
    free(parcel->item.text_embed);
    parcel->item.text_embed = fixture_floats(3 * FIXTURE_D, 1);
    parcel->item.text_count = 1;
    parcel->item.text_rows = 3;
    json_t *event = finished(parcel, "my-heart/1.npy", &bytes, &size);
    static const char head[] =
        "\x93NUMPY\x01\0\x76\0{'descr': '<f4', 'fortran_order': False, 'shape': (6,), } ";
    assert_int_equal(size, 128 + FIXTURE_D * sizeof(float));
    assert_memory_equal(bytes, head, sizeof head - 1);
    assert_int_equal(((char *)bytes)[127], '\n');
    assert_memory_equal((char *)bytes + 128, parcel->item.text_embed + 2 * FIXTURE_D,
                        FIXTURE_D * sizeof(float));
    json_decref(event);
    free(bytes);
    done(parcel);
}

static void an_embedding_needs_its_form_and_numbers(void **state)
{
    (void)state;
    struct parcel *parcel = run(make_embed(FORMAT_PNG));
    assert_int_equal(parcel->err.code, ERR_INVALID_RECORD);
    done(parcel);
    parcel = make_embed(FORMAT_NPY);
    parcel->item.image_embed[2] = NAN;
    run(parcel);
    assert_int_equal(parcel->err.code, ERR_COMPUTE);
    done(parcel);
    parcel = make_embed(FORMAT_NPY);
    parcel->item.text_count = 1; /* its text is not there */
    run(parcel);
    assert_int_equal(parcel->err.code, ERR_INVALID_RECORD);
    done(parcel);
    parcel = make(STAGE_UPSAMPLER_1, STAGE_UPSAMPLER_1 + 1);
    parcel->task.output.format = FORMAT_NPY;
    run(parcel);
    assert_int_equal(parcel->err.code, ERR_INVALID_RECORD);
    done(parcel);
}

/* Nothing is stored of a score: it names the picture that it judged. */
static void a_score_is_told_in_its_event(void **state)
{
    (void)state;
    struct parcel *parcel = make_embed(FORMAT_PNG);
    parcel->task.type = parcel->item.type = JOB_SCORE;
    parcel->item.score = -3.5;
    parcel->item.has_score = true;
    parcel->uri = "https://example.org/a.png";
    digest_of("a", 1, parcel->sha256);
    run(parcel);
    json_t *event = event_of(parcel, 0, "picture-finished");
    assert_string_equal(text(event, "uri"), "https://example.org/a.png");
    assert_string_equal(text(event, "sha256"), parcel->sha256);
    assert_true(json_real_value(json_object_get(event, "score")) == -3.5);
    assert_null(json_object_get(event, "width"));
    json_decref(event);
    done(parcel);
}

static void failures_go_to_the_dead_letters(void **state)
{
    (void)state;
    struct parcel *parcel = make(STAGE_PRIOR, FIXTURE_HOPS);
    struct err err = {0};
    err_set(&err, ERR_COMPUTE, "not finite");
    parcel_fail(parcel, &err);
    run(parcel);
    assert_int_equal(parcel->output_count, 2);
    assert_string_equal(parcel->outputs[0].topic, "unclip.dead-letter");
    json_t *letter = read_json(&parcel->outputs[0], "dead-letter");
    assert_string_equal(text(letter, "error_code"), "compute_failed");
    assert_string_equal(text(letter, "job"), "my-heart");
    assert_string_equal(text(letter, "stage"), "prior");
    assert_true(json_is_null(json_object_get(letter, "value")));
    json_t *event = event_of(parcel, 1, "picture-failed");
    assert_string_equal(text(event, "error_message"), "not finite");
    json_decref(letter);
    json_decref(event);
    done(parcel);
}

static struct parcel *fail_for_now(enum stage stage)
{
    struct parcel *parcel = make(stage, FIXTURE_HOPS);
    struct err err = {0};
    err_set(&err, ERR_OUT_OF_MEMORY, "no memory");
    parcel_fail(parcel, &err);
    parcel->task.attempt = 2;
    return parcel;
}

/* What another try may mend keeps its tensors, byte by byte, and is told as an event alone. */
static void tries_again(void **state)
{
    (void)state;
    struct err err = {0};
    void *bytes;
    size_t size;
    struct parcel *parcel = fail_for_now(STAGE_PRIOR);
    struct kafka_record record = *parcel->record;
    record.value = "tensors";
    record.value_size = 7;
    parcel->record = &record;
    run(parcel);
    assert_int_equal(parcel->outcome, OUTCOME_RETRY);
    assert_int_equal(parcel->output_count, 1);
    json_t *event = event_of(parcel, 0, "picture-retry");
    assert_string_equal(text(event, "error_code"), "out_of_memory");
    assert_int_equal(json_integer_value(json_object_get(event, "attempt")), 2);
    assert_int_equal(storage_read(output.storage, text(event, "ref"), 100, &bytes, &size, &err), 0);
    assert_int_equal(size, 7);
    assert_memory_equal(bytes, "tensors", 7);
    parcel_clear(parcel, NULL); /* nothing to remove */
    free(bytes);
    assert_int_equal(storage_read(output.storage, text(event, "ref"), 100, &bytes, &size, &err), 0);
    free(bytes);
    json_decref(event);
    done(parcel);
}

/* The first stage needs none, and where the store is what failed the picture starts anew. */
static void tries_again_without_tensors(void **state)
{
    (void)state;
    struct err err = {0};
    struct parcel *parcel = run(fail_for_now(STAGE_TEXT_ENCODE));
    json_t *event = event_of(parcel, 0, "picture-retry");
    assert_null(json_object_get(event, "ref"));
    assert_null(json_object_get(event, "notices"));
    json_decref(event);
    done(parcel);

    struct storage *storage = output.storage;
    char away[] = "/tmp/unclip-output.XXXXXX";
    assert_non_null(mkdtemp(away));
    assert_int_equal(storage_open(&output.storage, away, &err), 0);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s' && touch '%s'", away, away);
    assert_int_equal(system(command), 0);
    parcel = run(fail_for_now(STAGE_PRIOR));
    event = event_of(parcel, 0, "picture-retry");
    assert_null(json_object_get(event, "ref"));
    assert_int_equal(json_array_size(json_object_get(event, "notices")), 1);
    json_decref(event);
    done(parcel);
    storage_close(output.storage);
    output.storage = storage;
    assert_int_equal(unlink(away), 0);
}

/* An error's text is cut at its size, which may be within a character. */
static void messages_cut_within_a_character(void **state)
{
    (void)state;
    for (int lead = 0; lead < 3; lead++) {
        struct parcel *parcel = make(STAGE_PRIOR, FIXTURE_HOPS);
        struct err err = {0};
        char hearts[3 * sizeof(err.text) + 1] = "";
        for (size_t i = 0; i < sizeof(err.text); i++)
            strcpy(hearts + 3 * i, "\u2665");
        err_set(&err, ERR_COMPUTE, "%.*s%s", lead, "ab", hearts);
        parcel_fail(parcel, &err);
        run(parcel);
        json_t *event = event_of(parcel, 1, "picture-failed");
        assert_non_null(strstr(text(event, "error_message"), "\u2665\u2665"));
        json_decref(event);
        done(parcel);
    }
}

/* A route that ends where there is no picture, or skips a stage, fails that task alone. */
static void bad_routes_fail(void **state)
{
    (void)state;
    struct parcel *parcel = make(STAGE_PRIOR, STAGE_PRIOR + 1);
    free(parcel->item.image);
    parcel->item.image = NULL;
    run(parcel);
    assert_int_equal(parcel->outcome, OUTCOME_FAILED);
    assert_int_equal(parcel->output_count, 2);
    done(parcel);
    parcel = make(STAGE_PRIOR, FIXTURE_HOPS);
    free(parcel->item.image_embed);
    parcel->item.image_embed = NULL;
    run(parcel);
    assert_int_equal(parcel->outcome, OUTCOME_FAILED);
    assert_string_equal(parcel->outputs[0].topic, "unclip.dead-letter");
    done(parcel);
}

static void dropped_pictures_are_told(void **state)
{
    (void)state;
    struct parcel *parcel = make(STAGE_PRIOR, FIXTURE_HOPS);
    parcel->outcome = OUTCOME_DROPPED;
    run(parcel);
    assert_int_equal(parcel->output_count, 1);
    json_decref(event_of(parcel, 0, "picture-dropped"));
    done(parcel);
}

/* Reports a record whose header `task` is `header`; returns how many outputs. */
static size_t refuse(const char *header, struct parcel **out)
{
    static struct kafka_record record;
    struct err err = {0};
    record = fixture_record(header);
    record.value = "\xff\x00", record.value_size = 2;
    struct parcel *parcel = xcalloc(1, sizeof(*parcel));
    parcel->record = &record;
    err_set(&err, ERR_INVALID_RECORD, "no task");
    parcel_fail(parcel, &err);
    output.stage = STAGE_PRIOR;
    run(parcel);
    json_t *letter = read_json(&parcel->outputs[0], "dead-letter");
    assert_string_equal(text(letter, "value_base64"), "/wA=");
    json_decref(letter);
    *out = parcel;
    return parcel->output_count;
}

static void unreadable_tasks(void **state)
{
    (void)state;
    static const char *const silent[] = {
        NULL,
        "",
        "nonsense",
        "[]",
        "{\"job\":\"my-heart\",\"image\":1}",
        "{\"job\":\"my-heart\",\"image\":1,\"home\":8}",
        "{\"job\":\"my-heart\",\"image\":1,\"home\":-1}",
        "{\"job\":\"my-heart\",\"image\":64,\"home\":3}",
        "{\"job\":\"../etc\",\"image\":1,\"home\":3}",
        "{\"job\":7,\"image\":1,\"home\":3}",
    };
    struct parcel *parcel;
    for (size_t i = 0; i < sizeof(silent) / sizeof(*silent); i++) {
        assert_int_equal(refuse(silent[i], &parcel), 1);
        done(parcel);
    }
    assert_int_equal(refuse("{\"job\":\"my-heart\",\"image\":1,\"home\":3}", &parcel), 2);
    json_t *event = event_of(parcel, 1, "picture-failed");
    assert_string_equal(text(event, "error_code"), "invalid_record");
    assert_null(json_object_get(event, "attempt"));
    json_decref(event);
    done(parcel);
}

/* What it tells is of the attempt and the hop that it was: any other is ignored as late, and the
   picture would wait for ever. */
static void unreadable_tasks_that_were_tried_again(void **state)
{
    static const struct {
        const char *more;
        int attempt, hop;
    } cases[] = {
        {",\"attempt\":2,\"hop\":7,\"route\":[{\"stage\":\"text-encode\"},{\"stage\":\"prior\"}]",
         2, 1},
        /* a stage that stands twice: the one that it is at */
        {",\"attempt\":1,\"hop\":2,"
         "\"route\":[{\"stage\":\"prior\"},{\"stage\":\"decoder\"},{\"stage\":\"prior\"}]",
         1, 2},
        {",\"attempt\":1,\"hop\":1,"
         "\"route\":[{\"stage\":\"prior\"},{\"stage\":\"decoder\"},{\"stage\":\"prior\"}]",
         1, 0},
        {",\"attempt\":1,\"hop\":3,\"route\":[7,{},{\"stage\":\"prior\"}]", 1, 2},
        {",\"attempt\":1000,\"hop\":3,\"route\":\"prior\"", 1000, 3},
        {",\"attempt\":1001,\"hop\":7", 0, 0},
        {",\"attempt\":\"2\",\"hop\":-1", 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct parcel *parcel;
        char header[300];
        snprintf(header, sizeof(header), "{\"job\":\"my-heart\",\"image\":1,\"home\":3%s}",
                 cases[i].more);
        assert_int_equal(refuse(header, &parcel), 2);
        json_t *event = event_of(parcel, 1, "picture-failed");
        assert_int_equal(json_integer_value(json_object_get(event, "attempt")), cases[i].attempt);
        assert_int_equal(json_integer_value(json_object_get(event, "hop")), cases[i].hop);
        json_decref(event);
        done(parcel);
    }
}

/* Headers that swell in JSON are cut to what a record may hold. */
static void letters_always_fit(void **state)
{
    (void)state;
    enum { COUNT = 32, SIZE = 16000 };
    static struct kafka_header headers[COUNT];
    static char value[SIZE];
    struct parcel *parcel = make(STAGE_PRIOR, FIXTURE_HOPS);
    struct kafka_record record = *parcel->record;
    struct err err = {0};
    memset(value, 1, sizeof(value));
    for (int i = 0; i < COUNT; i++)
        headers[i] = (struct kafka_header){xasprintf("header-%d", i), value, SIZE};
    record.headers = headers;
    record.header_count = COUNT;
    parcel->record = &record;
    err_set(&err, ERR_COMPUTE, "not finite");
    parcel_fail(parcel, &err);
    run(parcel);
    assert_true(parcel->outputs[0].value_size < KAFKA_RECORD_MAX);
    json_decref(read_json(&parcel->outputs[0], "dead-letter"));
    for (int i = 0; i < COUNT; i++)
        free((char *)(uintptr_t)headers[i].name);
    done(parcel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(next_task),
        cmocka_unit_test(bulk_stays_bulk),
        cmocka_unit_test(large_tensors_go_by_reference),
        cmocka_unit_test(long_headers_count),
        cmocka_unit_test(each_hop_has_its_own_object),
        cmocka_unit_test(picture_at_the_end),
        cmocka_unit_test(dropped_tokens_are_told),
        cmocka_unit_test(pictures_have_the_form_that_is_asked_for),
        cmocka_unit_test(embeddings_are_safetensors),
        cmocka_unit_test(embeddings_are_npy),
        cmocka_unit_test(an_embedding_needs_its_form_and_numbers),
        cmocka_unit_test(a_score_is_told_in_its_event),
        cmocka_unit_test(failures_go_to_the_dead_letters),
        cmocka_unit_test(tries_again),
        cmocka_unit_test(tries_again_without_tensors),
        cmocka_unit_test(messages_cut_within_a_character),
        cmocka_unit_test(bad_routes_fail),
        cmocka_unit_test(dropped_pictures_are_told),
        cmocka_unit_test(unreadable_tasks),
        cmocka_unit_test(unreadable_tasks_that_were_tried_again),
        cmocka_unit_test(letters_always_fit),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
