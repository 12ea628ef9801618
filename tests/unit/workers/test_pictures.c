/* SPDX-License-Identifier: Apache-2.0 */
/* Pictures that tasks name: read once a batch, their embeddings kept by their pixels, on a real
   Redis and store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/image.h"
#include "redis_fixture.h"
#include "stages/intake.h"
#include "worker_fixture.h"
#include "workers/pictures.h"

static struct redis_fixture server;
static struct cache cache;
static struct pictures pictures;
static char folder[] = "/tmp/unclip-pictures.XXXXXX";

static int start(void **state)
{
    (void)state;
    struct err err = {0};
    redis_start(&server);
    cache = (struct cache){.redis = server.redis, .ttl_s = 1000};
    assert_non_null(mkdtemp(folder));
    assert_int_equal(image_setup("test_pictures", &err), 0);
    assert_int_equal(storage_open(&pictures.fetch.storage, folder, &err), 0);
    pictures.fetch.allowed = "off";
    pictures.cache = &cache;
    pictures.clock = clock_system();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    char command[128];
    pictures_clear(&pictures);
    storage_close(pictures.fetch.storage);
    redis_stop(&server);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

static int empty(void **state)
{
    (void)state;
    redis_empty(&server);
    pictures_clear(&pictures);
    return 0;
}

/* A picture of one colour in the store; its URI, owned. */
static char *put_picture(const char *name, int width, int height, int value)
{
    struct image image;
    struct image_metadata none = {0};
    struct err err = {0};
    void *bytes;
    size_t size;
    char *uri;
    assert_int_equal(image_alloc(&image, width, height, &err), 0);
    memset(image.pixels, value, (size_t)width * (size_t)height * 3);
    assert_int_equal(image_encode_png(&image, &none, &bytes, &size, &err), 0);
    assert_int_equal(storage_write(pictures.fetch.storage, name, bytes, size, &uri, &err), 0);
    image_release(&image);
    free(bytes);
    return uri;
}

/* At its image-encode hop. `uri` is copied. */
static struct parcel *make(enum job_type type, const char *uri)
{
    struct parcel *parcel = xcalloc(1, sizeof(*parcel));
    parcel->has_task = true;
    parcel->task = fixture_task(STAGE_TEXT_ENCODE);
    parcel->task.type = type;
    parcel->task.hops = 2;
    parcel->task.hop = 1;
    parcel->task.route[1] = (struct hop){.stage = STAGE_IMAGE_ENCODE};
    parcel->task.sources.side = 64;
    if (type == JOB_VARIATION) {
        parcel->task.sources.image = xstrdup(uri);
    } else {
        parcel->task.sources.inputs = xcalloc(1, sizeof(*parcel->task.sources.inputs));
        parcel->task.sources.inputs[0] = (struct job_input){.image = xstrdup(uri), .weight = 1};
        parcel->task.sources.count = 1;
    }
    item_begin(&parcel->item, &parcel->task);
    return parcel;
}

static void a_batch_reads_a_picture_once(void **state)
{
    (void)state;
    char *uri = put_picture("job/a.png", 5, 4, 9);
    struct parcel *first = make(JOB_VARIATION, uri), *second = make(JOB_VARIATION, uri);
    assert_int_equal(pictures_take(&pictures, first), 20);
    assert_int_equal(storage_remove(pictures.fetch.storage, uri, NULL), 0);
    assert_int_equal(pictures_take(&pictures, second), 20);
    assert_int_equal(second->outcome, OUTCOME_OPEN);
    assert_int_equal(second->item.inputs[0].pixels[0], 9);
    parcel_free(second);
    pictures_clear(&pictures);
    second = make(JOB_VARIATION, uri);
    assert_int_equal(pictures_take(&pictures, second), 0);
    assert_int_equal(second->outcome, OUTCOME_FAILED);
    assert_int_equal(second->err.code, ERR_NOT_FOUND);
    parcel_free(first);
    parcel_free(second);
    free(uri);
}

static void a_score_names_the_judged_picture(void **state)
{
    (void)state;
    char *uri = put_picture("job/a.png", 3, 3, 7), wanted[DIGEST_TEXT_SIZE];
    void *bytes;
    size_t size;
    struct parcel *parcel = make(JOB_SCORE, uri);
    pictures_take(&pictures, parcel);
    assert_int_equal(parcel->outcome, OUTCOME_OPEN);
    assert_string_equal(parcel->uri, uri);
    assert_int_equal(storage_read(pictures.fetch.storage, uri, 10000, &bytes, &size, NULL), 0);
    digest_of(bytes, size, wanted);
    assert_string_equal(parcel->sha256, wanted);
    parcel_free(parcel);
    free(bytes);
    free(uri);
    /* an event has no room for it */
    parcel = make(JOB_SCORE, "data:image/png;base64,AAAA");
    pictures_take(&pictures, parcel);
    assert_int_equal(parcel->err.code, ERR_INVALID_RECORD);
    parcel_free(parcel);
}

/* A task may name more than a job may: what the parcel keeps of them does not grow. */
static void a_score_keeps_the_first_picture_alone(void **state)
{
    (void)state;
    enum { COUNT = ITEM_INPUTS_MAX };
    char *uri = put_picture("job/a.png", 3, 3, 7), *other = put_picture("job/b.png", 3, 3, 8);
    struct parcel *parcel = make(JOB_SCORE, uri);
    struct sources *sources = &parcel->task.sources;
    sources->inputs = xrealloc(sources->inputs, COUNT * sizeof(*sources->inputs));
    for (; sources->count < COUNT; sources->count++)
        sources->inputs[sources->count] = (struct job_input){.image = xstrdup(other), .weight = 1};
    pictures_take(&pictures, parcel);
    assert_int_equal(parcel->outcome, OUTCOME_OPEN);
    assert_string_equal(parcel->uri, uri);
    assert_int_equal(parcel->memory_count, 1);
    parcel_free(parcel);
    free(uri);
    free(other);
}

/* What was decoded before an input that fails is not held until the batch ends. */
static void a_failure_holds_no_pixels(void **state)
{
    (void)state;
    char *uri = put_picture("job/a.png", 5, 4, 9);
    struct parcel *parcel = make(JOB_EMBED, uri);
    struct sources *sources = &parcel->task.sources;
    sources->inputs = xrealloc(sources->inputs, 2 * sizeof(*sources->inputs));
    sources->inputs[1] = (struct job_input){.image = xstrdup("file:///nowhere"), .weight = 1};
    sources->count = 2;
    assert_int_equal(pictures_take(&pictures, parcel), 0);
    assert_int_equal(parcel->outcome, OUTCOME_FAILED);
    assert_int_equal(parcel->item.input_count, 2);
    assert_null(parcel->item.inputs[0].pixels);
    parcel_free(parcel);
    free(uri);
}

static int64_t half_a_minute_later(struct clock *clock)
{
    return clock->now_ms += PICTURES_TASK_MS / 2;
}

/* Each reading takes half of what a task may: two inputs may, and the third is not read. */
static void slow_servers_end_a_task(void **state)
{
    (void)state;
    struct clock slow = {half_a_minute_later, half_a_minute_later, 0};
    char *uri = put_picture("job/a.png", 5, 4, 9);
    pictures.clock = &slow;
    for (int count = 2; count <= 3; count++) {
        struct parcel *parcel = make(JOB_EMBED, uri);
        struct sources *sources = &parcel->task.sources;
        sources->inputs = xrealloc(sources->inputs, 3 * sizeof(*sources->inputs));
        for (; sources->count < count; sources->count++)
            sources->inputs[sources->count] =
                (struct job_input){.image = xstrdup(uri), .weight = 1};
        pictures_take(&pictures, parcel);
        assert_int_equal(parcel->outcome, count == 2 ? OUTCOME_OPEN : OUTCOME_FAILED);
        assert_int_equal(parcel->err.code, count == 2 ? 0 : ERR_TIMEOUT);
        parcel_free(parcel);
    }
    pictures.clock = clock_system();
    free(uri);
}

static void only_its_own_hop_reads(void **state)
{
    (void)state;
    struct parcel *parcel = make(JOB_VARIATION, "file:///nowhere");
    parcel->task.hop = 0;
    assert_int_equal(pictures_take(&pictures, parcel), 0);
    assert_int_equal(parcel->outcome, OUTCOME_OPEN);
    parcel_free(parcel);
}

static int missing_of(const char *model, struct parcel *parcel)
{
    int missing = -1;
    assert_int_equal(pictures_look_up(&pictures, model, &parcel->item, &missing, NULL), 0);
    return missing;
}

static void embeddings_are_kept_by_pixels_and_model(void **state)
{
    (void)state;
    char *uri = put_picture("job/a.png", 6, 2, 50), *turned = put_picture("job/b.png", 2, 6, 50);
    struct parcel *parcel = make(JOB_VARIATION, uri);
    pictures_take(&pictures, parcel);
    assert_int_equal(missing_of("m", parcel), 1);
    parcel->item.embed_dim = FIXTURE_D; /* as the stage leaves it */
    parcel->item.image_embed = fixture_floats(FIXTURE_D, 3);
    assert_int_equal(pictures_keep(&pictures, "m", &parcel->item, NULL), 0);

    struct parcel *again = make(JOB_EMBED, uri);
    pictures_take(&pictures, again);
    assert_int_equal(missing_of("other", again), 1);
    assert_int_equal(missing_of("m", again), 0);
    assert_null(again->item.inputs[0].pixels);
    assert_int_equal(again->item.embed_dim, FIXTURE_D);
    assert_memory_equal(again->item.inputs[0].embed, parcel->item.image_embed,
                        FIXTURE_D * sizeof(float));
    parcel_free(again);

    again = make(JOB_VARIATION, turned); /* the same bytes of pixels, in another shape */
    pictures_take(&pictures, again);
    assert_int_equal(missing_of("m", again), 1);
    parcel_free(again);

    again = make(JOB_VARIATION, uri); /* a task whose text is of another width */
    again->item.embed_dim = FIXTURE_D + 1;
    pictures_take(&pictures, again);
    assert_int_equal(missing_of("m", again), 1);
    assert_non_null(again->item.inputs[0].pixels);
    parcel_free(again);
    parcel_free(parcel);
    free(uri);
    free(turned);
}

static void without_redis_nothing_is_found(void **state)
{
    (void)state;
    struct cache nowhere = {.ttl_s = 1};
    struct err err = {0};
    int missing;
    char *uri = put_picture("job/a.png", 2, 2, 1);
    assert_int_equal(redis_open(&nowhere.redis, "127.0.0.1:1", clock_system(), &err), 0);
    pictures.cache = &nowhere;
    struct parcel *parcel = make(JOB_VARIATION, uri);
    pictures_take(&pictures, parcel);
    assert_int_equal(pictures_look_up(&pictures, "m", &parcel->item, &missing, &err), -ERR_REDIS);
    assert_non_null(parcel->item.inputs[0].pixels);
    pictures.cache = &cache;
    redis_close(nowhere.redis);
    parcel_free(parcel);
    free(uri);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(a_batch_reads_a_picture_once, empty),
        cmocka_unit_test_teardown(a_score_names_the_judged_picture, empty),
        cmocka_unit_test_teardown(a_score_keeps_the_first_picture_alone, empty),
        cmocka_unit_test_teardown(a_failure_holds_no_pixels, empty),
        cmocka_unit_test_teardown(slow_servers_end_a_task, empty),
        cmocka_unit_test_teardown(only_its_own_hop_reads, empty),
        cmocka_unit_test_teardown(embeddings_are_kept_by_pixels_and_model, empty),
        cmocka_unit_test_teardown(without_redis_nothing_is_found, empty),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
