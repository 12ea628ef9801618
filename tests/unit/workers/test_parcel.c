/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors by reference: a task reaches its own object in the artifact store, and no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "worker_fixture.h"
#include "workers/output.h"

#define OWN "my-heart/1.decoder.safetensors"

static char folder[64];
static struct storage *storage;

static int start(void **state)
{
    (void)state;
    struct err err = {0};
    strcpy(folder, "/tmp/unclip-parcel.XXXXXX");
    assert_non_null(mkdtemp(folder));
    return storage_open(&storage, folder, &err);
}

static int stop(void **state)
{
    (void)state;
    char command[128];
    storage_close(storage);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* Puts the decoder's tensors under `name`; the URI is owned. */
static char *put(const char *name)
{
    struct item item;
    struct err err = {0};
    void *bytes;
    char *uri;
    size_t size;
    fixture_item(&item, "a", "b");
    assert_int_equal(tensors_encode(&item, TENSORS_RNG | TENSORS_TEXT | TENSORS_IMAGE_EMBED, &bytes,
                                    &size, &err),
                     0);
    assert_int_equal(storage_write(storage, name, bytes, size, &uri, &err), 0);
    free(bytes);
    item_release(&item);
    return uri;
}

/* And waits until it is removed. */
static void clear(struct parcel *parcel)
{
    struct sweeper *sweeper;
    struct err err = {0};
    assert_int_equal(sweeper_start(&sweeper, storage, &err), 0);
    parcel_clear(parcel, sweeper);
    sweeper_stop(sweeper);
}

static bool there(const char *uri)
{
    struct err err = {0};
    void *bytes;
    size_t size;
    if (storage_read(storage, uri, TASK_BYTES_MAX, &bytes, &size, &err))
        return false;
    free(bytes);
    return true;
}

/* A record at `stage` with these bytes as its header `ref`, and its parcel. */
struct arrival {
    char *json;
    struct kafka_header headers[2];
    struct kafka_record record;
    struct parcel *parcel;
};

static void arrive(struct arrival *arrival, enum stage stage, const char *ref, size_t size)
{
    struct task task = fixture_task(stage);
    arrival->json = task_to_json(&task);
    arrival->record = fixture_record(arrival->json);
    arrival->headers[0] = arrival->record.headers[0];
    arrival->headers[1] = (struct kafka_header){TASK_REF_HEADER, ref, size};
    arrival->record.headers = arrival->headers;
    arrival->record.header_count = 2;
    arrival->record.value = "";
    arrival->parcel = parcel_new(&arrival->record, stage, 8);
    assert_true(arrival->parcel->has_task);
    task_release(&task);
}

static void leave(struct arrival *arrival)
{
    arrival->parcel->record = NULL;
    parcel_free(arrival->parcel);
    free(arrival->json);
}

/* Takes a decoder's task with this `ref` through a worker; it must fail and come to nothing. */
static void refused(const char *ref, size_t size)
{
    const struct output output = {
        .stage = STAGE_DECODER, .worker = "decoder-0", .homes = 8, .storage = storage};
    struct arrival arrival;
    struct err err = {0};
    arrive(&arrival, STAGE_DECODER, ref, size);
    struct parcel *parcel = arrival.parcel;
    if (parcel_read(parcel, storage, &err) != -ERR_INVALID_RECORD)
        fail_msg("'%.*s' was not refused", (int)size, ref ? ref : "");
    assert_null(parcel->item.text_embed);
    parcel_fail(parcel, &err);
    output_report(&output, parcel, 5000);
    assert_string_equal(parcel->outputs[0].topic, "unclip.dead-letter");
    clear(parcel);
    leave(&arrival);
}

static void foreign_objects_are_left_alone(void **state)
{
    (void)state;
    static const char *const names[] = {
        "other/0.png",
        "my-heart/1.png",
        "my-heart/0.decoder.safetensors",
        "my-heart/11.decoder.safetensors",
        "my-heart/1.prior.safetensors",
        "other/1.decoder.safetensors",
        "other/my-heart/1.decoder.safetensors",
    };
    char *own = put(OWN);
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
        char *uri = put(names[i]);
        refused(uri, strlen(uri));
        assert_true(there(uri));
        free(uri);
    }
    assert_true(there(own));
    free(own);
}

/* One way only to write the URI. */
static void spellings_are_refused(void **state)
{
    (void)state;
    char *own = put(OWN);
    size_t size = strlen(own);
    char *percent = xasprintf("%.*s%%73", (int)size - 1, own); /* the last s */
    char *twice = xasprintf("%s%s", own, own);
    char *outside = xasprintf("file:///elsewhere/%s", OWN);
    assert_true(there(percent));
    refused(percent, strlen(percent));
    refused(twice, strlen(twice));
    refused(outside, strlen(outside));
    refused(own, size + 1); /* a NUL at the end */
    refused(own, size - 1);
    refused("", 0);
    refused(NULL, 0);
    refused(OWN, strlen(OWN));
    assert_true(there(own));
    free(outside);
    free(twice);
    free(percent);
    free(own);
}

static void own_object_is_read_and_then_removed(void **state)
{
    (void)state;
    struct arrival arrival;
    struct err err = {0};
    char *own = put(OWN), *beside = put("my-heart/0.decoder.safetensors");
    arrive(&arrival, STAGE_DECODER, own, strlen(own));
    assert_int_equal(parcel_read(arrival.parcel, storage, &err), 0);
    assert_int_equal(arrival.parcel->item.embed_dim, FIXTURE_D);
    assert_true(there(own));
    clear(arrival.parcel);
    assert_false(there(own));
    assert_true(there(beside));
    leave(&arrival);
    arrive(&arrival, STAGE_DECODER, own, strlen(own));
    assert_int_equal(parcel_read(arrival.parcel, storage, &err), -ERR_NOT_FOUND);
    clear(arrival.parcel);
    leave(&arrival);
    free(beside);
    free(own);
}

/* What one worker writes, the next takes. */
static void written_references_are_accepted(void **state)
{
    (void)state;
    const struct output output = {
        .stage = STAGE_UPSAMPLER_1, .worker = "upsampler-1-0", .homes = 8, .storage = storage};
    struct arrival from, to;
    struct err err = {0};
    arrive(&from, STAGE_UPSAMPLER_1, "", 0);
    fixture_item(&from.parcel->item, from.parcel->task.prompt, "");
    free(from.parcel->item.image);
    from.parcel->item.image_size = 512;
    from.parcel->item.image = calloc(512 * 512 * 3, sizeof(float));
    from.parcel->outcome = OUTCOME_FINISHED;
    output_product(&output, from.parcel, 5000);
    assert_int_equal(from.parcel->outputs[0].header_count, 2);
    const struct kafka_header *ref = &from.parcel->outputs[0].headers[1];
    arrive(&to, STAGE_UPSAMPLER_2, ref->value, ref->size);
    assert_int_equal(parcel_read(to.parcel, storage, &err), 0);
    assert_int_equal(to.parcel->item.image_size, 512);
    clear(to.parcel);
    char *uri = strndup(ref->value, ref->size);
    assert_false(there(uri));
    free(uri);
    leave(&to);
    leave(&from);
}

/* A transaction's bytes are bounded, and each has one task at least. */
static void a_transaction_has_a_bound(void **state)
{
    (void)state;
    struct parcel parcels[4] = {{.output_count = 2}, {.output_count = 1}, {0}, {.output_count = 1}};
    struct parcel *list[] = {&parcels[0], &parcels[1], &parcels[2], &parcels[3]};
    parcels[0].outputs[0].value_size = 60;
    parcels[0].outputs[1].value_size = 40;
    parcels[1].outputs[0].value_size = 50;
    parcels[3].outputs[0].value_size = 1;
    assert_int_equal(parcels_within(list, 4, 1000), 4);
    assert_int_equal(parcels_within(list, 4, 151), 4);
    assert_int_equal(parcels_within(list, 4, 150), 3);
    assert_int_equal(parcels_within(list, 4, 149), 1);
    assert_int_equal(parcels_within(list, 4, 1), 1);
    assert_int_equal(parcels_within(list + 1, 3, 50), 2);
    assert_int_equal(parcels_within(list + 1, 1, 10), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_objects_are_left_alone),
        cmocka_unit_test(spellings_are_refused),
        cmocka_unit_test(own_object_is_read_and_then_removed),
        cmocka_unit_test(written_references_are_accepted),
        cmocka_unit_test(a_transaction_has_a_bound),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
