/* SPDX-License-Identifier: Apache-2.0 */
/* Task records: round trips, and the refusal of every kind of damage. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "common/safetensors.h"
#include "worker_fixture.h"

#define ALL (TENSORS_RNG | TENSORS_TEXT | TENSORS_IMAGE_EMBED | TENSORS_IMAGE)

static void *encode(const struct item *item, unsigned groups, size_t *size)
{
    void *bytes;
    struct err err = {0};
    assert_int_equal(tensors_encode(item, groups, &bytes, size, &err), 0);
    return bytes;
}

static void assert_same(const struct item *a, const struct item *b)
{
    assert_memory_equal(a->text_embed, b->text_embed, 2 * FIXTURE_D * sizeof(float));
    assert_memory_equal(a->text_states, b->text_states, 2 * FIXTURE_L * FIXTURE_W * sizeof(float));
    assert_memory_equal(a->text_mask, b->text_mask, 2 * FIXTURE_L);
    assert_memory_equal(a->image_embed, b->image_embed, FIXTURE_D * sizeof(float));
    assert_memory_equal(a->image, b->image, 2 * 2 * 3 * sizeof(float));
    assert_int_equal(a->embed_dim, b->embed_dim);
    assert_int_equal(a->text_len, b->text_len);
    assert_int_equal(a->text_width, b->text_width);
    assert_int_equal(a->image_size, b->image_size);
}

static void round_trip(void **state)
{
    (void)state;
    struct item item, back;
    struct err err = {0};
    size_t size;
    fixture_item(&item, "a", "b");
    void *bytes = encode(&item, ALL, &size);
    item_init(&back, "a", "b", 0);
    assert_int_equal(tensors_decode(&back, ALL, bytes, size, &err), 0);
    assert_same(&item, &back);
    assert_int_equal(rng_random(&item.rng), rng_random(&back.rng));
    free(bytes);
    item_release(&item);
    item_release(&back);
}

static void each_stage_gets_what_it_needs(void **state)
{
    (void)state;
    static const size_t counts[FIXTURE_HOPS] = {0, 4, 5, 2, 2};
    struct item item;
    struct task task = fixture_task(STAGE_TEXT_ENCODE);
    fixture_item(&item, "a", "b");
    for (int s = 0; s < FIXTURE_HOPS; s++) {
        struct safetensors *file;
        size_t size;
        void *bytes = encode(&item, tensors_needed(&task, s), &size);
        assert_int_equal(safetensors_parse(&file, bytes, size, NULL), 0);
        assert_int_equal(safetensors_count(file), counts[s]);
        safetensors_free(file);
        free(bytes);
    }
    item_release(&item);
    task_release(&task);
}

static void names_tell_hops_apart(void **state)
{
    (void)state;
    static const char *const wanted[] = {"my-heart/1.image-encode", "my-heart/1.decoder",
                                         "my-heart/1.image-encode.2"};
    struct task task = fixture_scored_task(0);
    for (int hop = 0; hop < task.hops; hop++) {
        char *name = task_hop_name(&task, hop), *tensors = task_tensors_name(&task, hop);
        assert_string_equal(name, wanted[hop]);
        assert_memory_equal(tensors, name, strlen(name));
        assert_string_equal(tensors + strlen(name), ".safetensors");
        free(name);
        free(tensors);
    }
    task_release(&task);
}

/* An upscale's finished picture is looked at without a text, which the others have. */
static void a_judged_picture_has_its_text(void **state)
{
    (void)state;
    struct task task = fixture_scored_task(0);
    task.route[1].stage = STAGE_UPSAMPLER_1;
    for (int upscale = 0; upscale < 2; upscale++) {
        unsigned text = upscale ? 0 : TENSORS_TEXT;
        task.type = upscale ? JOB_UPSCALE : JOB_VARIATION;
        assert_int_equal(tensors_needed(&task, 1), TENSORS_RNG | TENSORS_IMAGE | text);
        assert_int_equal(tensors_needed(&task, 2), TENSORS_IMAGE | text);
    }
    task_release(&task);
}

static void nothing_is_needed_to_encode_text(void **state)
{
    (void)state;
    struct item item;
    struct err err = {0};
    item_init(&item, "a", "", 1);
    assert_int_equal(tensors_decode(&item, 0, NULL, 0, &err), 0);
    assert_int_equal(tensors_decode(&item, TENSORS_RNG, NULL, 0, &err), -ERR_INVALID_RECORD);
    item_release(&item);
}

static void tensor_that_was_never_made(void **state)
{
    (void)state;
    struct item item;
    struct err err = {0};
    void *bytes;
    size_t size;
    item_init(&item, "a", "", 1);
    assert_int_equal(tensors_encode(&item, TENSORS_RNG | TENSORS_IMAGE, &bytes, &size, &err),
                     -ERR_INVALID_RECORD);
    assert_non_null(strstr(err.text, "'image'"));
    item_release(&item);
}

/* Encodes `entries` as they are and expects the refusal to say `why`. */
static void refused(const struct safetensors_entry *entries, size_t count, unsigned groups,
                    const char *why)
{
    struct item item;
    struct err err = {0};
    void *bytes;
    size_t size;
    assert_int_equal(safetensors_encode(entries, count, NULL, 0, &bytes, &size, &err), 0);
    item_init(&item, "a", "", 1);
    assert_int_equal(tensors_decode(&item, groups, bytes, size, &err), -ERR_INVALID_RECORD);
    if (!strstr(err.text, why))
        fail_msg("'%s' does not say '%s'", err.text, why);
    item_release(&item);
    free(bytes);
}

static void wrong_tensors(void **state)
{
    (void)state;
    static float zeros[2 * 20000];
    static const uint8_t flags[8] = {1, 1, 0, 0, 1, 0, 0, 2};
    float bad[12] = {0};
    struct safetensors_entry embed = {
        .name = "image_embed", .dtype = DTYPE_F32, .rank = 1, .dim = {4}, .data = zeros};
    struct safetensors_entry image = {
        .name = "image", .dtype = DTYPE_F32, .rank = 3, .dim = {2, 2, 3}, .data = zeros};

    refused(NULL, 0, TENSORS_IMAGE_EMBED, "is missing");
    struct safetensors_entry two[] = {embed, image};
    refused(two, 2, TENSORS_IMAGE_EMBED, "2 tensors where 1");
    embed.dtype = DTYPE_I32;
    refused(&embed, 1, TENSORS_IMAGE_EMBED, "wrong dtype");
    embed.dtype = DTYPE_F32;
    embed.rank = 2, embed.dim[1] = 1;
    refused(&embed, 1, TENSORS_IMAGE_EMBED, "wrong shape");
    embed.rank = 1, embed.dim[0] = 0;
    refused(&embed, 1, TENSORS_IMAGE_EMBED, "size out of bounds");
    embed.dim[0] = TASK_DIM_MAX + 1;
    refused(&embed, 1, TENSORS_IMAGE_EMBED, "size out of bounds");
    image.dim[1] = 1;
    refused(&image, 1, TENSORS_IMAGE, "does not fit");
    image.dim[1] = 2, image.dim[2] = 4;
    refused(&image, 1, TENSORS_IMAGE, "wrong shape");
    image.dim[2] = 3, image.data = bad;
    bad[7] = NAN;
    refused(&image, 1, TENSORS_IMAGE, "not finite");
    bad[7] = -INFINITY;
    refused(&image, 1, TENSORS_IMAGE, "not finite");
    struct safetensors_entry text[] = {
        {.name = "text_embed", .dtype = DTYPE_F32, .rank = 2, .dim = {2, 4}, .data = zeros},
        {.name = "text_states", .dtype = DTYPE_F32, .rank = 3, .dim = {2, 4, 3}, .data = zeros},
        {.name = "text_mask", .dtype = DTYPE_U8, .rank = 2, .dim = {2, 4}, .data = flags}};
    refused(text, 3, TENSORS_TEXT, "other than 0 and 1");
    text[2].dim[1] = 3;
    refused(text, 3, TENSORS_TEXT, "does not fit");
    text[0].dim[0] = 1;
    refused(text, 3, TENSORS_TEXT, "does not fit");
}

static void wrong_generator(void **state)
{
    (void)state;
    static uint8_t bytes[RNG_BYTES];
    memset(bytes, 255, sizeof(bytes));
    struct safetensors_entry rng = {
        .name = "rng", .dtype = DTYPE_U8, .rank = 1, .dim = {RNG_BYTES}, .data = bytes};
    refused(&rng, 1, TENSORS_RNG, "");
    rng.dim[0] = RNG_BYTES - 1;
    refused(&rng, 1, TENSORS_RNG, "wrong shape");
}

/* Every shorter record, and every record with one byte changed, is refused or harmless. */
static void damaged_bytes(void **state)
{
    (void)state;
    struct item item;
    struct err err = {0};
    size_t size;
    fixture_item(&item, "a", "b");
    uint8_t *bytes = encode(&item, ALL & ~TENSORS_RNG, &size);
    for (size_t cut = 0; cut < size; cut++) {
        struct item back;
        uint8_t *copy = malloc(cut + 1);
        memcpy(copy, bytes, cut);
        item_init(&back, "a", "b", 0);
        assert_int_not_equal(tensors_decode(&back, ALL & ~TENSORS_RNG, copy, cut, &err), 0);
        item_release(&back);
        free(copy);
    }
    for (size_t at = 0; at < size; at++)
        for (int bit = 0; bit < 8; bit++) {
            struct item back;
            bytes[at] ^= (uint8_t)(1 << bit);
            item_init(&back, "a", "b", 0);
            tensors_decode(&back, ALL & ~TENSORS_RNG, bytes, size, &err);
            item_release(&back);
            bytes[at] ^= (uint8_t)(1 << bit);
        }
    free(bytes);
    item_release(&item);
}

/* --- the header --- */

static int decode_task(const char *json, enum stage stage, int homes, struct err *err)
{
    struct kafka_record record = fixture_record(json);
    struct task task;
    memset(err, 0, sizeof(*err));
    int rc = task_decode(&task, &record, stage, homes, err);
    if (!rc)
        task_release(&task);
    return rc;
}

static void task_header(void **state)
{
    (void)state;
    struct err err;
    struct task task = fixture_task(STAGE_PRIOR);
    char *json = task_to_json(&task);
    assert_int_equal(decode_task(json, STAGE_PRIOR, 8, &err), 0);
    assert_int_equal(decode_task(json, STAGE_DECODER, 8, &err), -ERR_INVALID_RECORD);
    assert_non_null(strstr(err.text, "'prior' came to 'decoder'"));
    assert_int_equal(decode_task(json, STAGE_PRIOR, 3, &err), -ERR_INVALID_RECORD);
    assert_non_null(strstr(err.text, "home"));
    assert_int_equal(decode_task(NULL, STAGE_PRIOR, 8, &err), -ERR_INVALID_RECORD);
    assert_int_equal(decode_task("", STAGE_PRIOR, 8, &err), -ERR_INVALID_RECORD);
    assert_int_equal(decode_task("{}", STAGE_PRIOR, 8, &err), -ERR_INVALID_RECORD);
    assert_int_equal(decode_task("nonsense", STAGE_PRIOR, 8, &err), -ERR_INVALID_RECORD);
    free(json);
    task_release(&task);
}

/* The first stage of any route gets a record without tensors. */
static void nothing_comes_to_the_first_stage(void **state)
{
    (void)state;
    struct task task = fixture_task(STAGE_TEXT_ENCODE);
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        task.route[0].stage = (enum stage)stage;
        assert_int_equal(tensors_needed(&task, 0), 0);
    }
    task_release(&task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(each_stage_gets_what_it_needs),
        cmocka_unit_test(names_tell_hops_apart),
        cmocka_unit_test(a_judged_picture_has_its_text),
        cmocka_unit_test(nothing_is_needed_to_encode_text),
        cmocka_unit_test(tensor_that_was_never_made),
        cmocka_unit_test(wrong_tensors),
        cmocka_unit_test(wrong_generator),
        cmocka_unit_test(damaged_bytes),
        cmocka_unit_test(task_header),
        cmocka_unit_test(nothing_comes_to_the_first_stage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
