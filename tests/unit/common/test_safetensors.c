/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors format: round trips, one test for each kind of damage, and some thousand random
 * mutations of a valid file, under which reading must either fail or give entries whose every byte
 * can be touched.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/memory.h"
#include "common/safetensors.h"

/* A file from its header and so many bytes of data; owned. */
static unsigned char *build(const char *header, size_t header_size, size_t data_size, size_t *size)
{
    *size = 8 + header_size + data_size;
    unsigned char *bytes = xcalloc(1, *size + 1);
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)((uint64_t)header_size >> (8 * i));
    memcpy(bytes + 8, header, header_size);
    return bytes;
}

/* Parses from a buffer of exactly its size, so that a sanitizer sees one byte too many. */
static int parse_copy(const unsigned char *bytes, size_t size, struct err *err)
{
    unsigned char *copy = xmalloc(size ? size : 1);
    memcpy(copy, bytes, size);
    struct safetensors *file;
    int rc = safetensors_parse(&file, copy, size, err);
    if (rc == 0)
        safetensors_free(file);
    free(copy);
    return rc;
}

static void expect_damage(const char *header, size_t data_size, const char *message)
{
    size_t size;
    struct err err = {0};
    unsigned char *bytes = build(header, strlen(header), data_size, &size);
    int rc = parse_copy(bytes, size, &err);
    free(bytes);
    if (rc != -(int)ERR_INVALID_RECORD || !strstr(err.text, message))
        fail_msg("%s: gave %d '%s', not '%s'", header, rc, err.text, message);
}

static void test_round_trip(void **state)
{
    (void)state;
    static const float a[] = {1, 2, 3, 4, 5, 6};
    static const uint8_t c[] = {9, 8, 7};
    static const int64_t d = -5;
    struct safetensors_entry entries[] = {
        {.name = "weights/ä \"quoted\"", .dtype = DTYPE_F32, .rank = 2, .dim = {2, 3}, .data = a},
        {.name = "empty", .dtype = DTYPE_I64, .rank = 3, .dim = {2, 0, 5}},
        {.name = "bytes", .dtype = DTYPE_U8, .rank = 1, .dim = {3}, .data = c},
        {.name = "scalar", .dtype = DTYPE_I64, .rank = 0, .data = &d},
    };
    struct safetensors_metadata_pair metadata[] = {{"task", "{\"n\": 1}\n"}, {"x", ""}};
    void *bytes;
    size_t size;
    struct err err = {0};
    assert_int_equal(safetensors_encode(entries, 4, metadata, 2, &bytes, &size, &err), 0);
    assert_int_equal((*(unsigned char *)bytes) % 8, 0);
    struct safetensors *file;
    assert_int_equal(safetensors_parse(&file, bytes, size, &err), 0);
    assert_int_equal(safetensors_count(file), 4);
    for (size_t i = 0; i < 4; i++) {
        const struct safetensors_entry *entry = safetensors_find(file, entries[i].name);
        assert_non_null(entry);
        assert_int_equal(entry->dtype, entries[i].dtype);
        assert_int_equal(entry->rank, entries[i].rank);
        assert_memory_equal(entry->dim, entries[i].dim, sizeof(entry->dim));
        if (entry->bytes)
            assert_memory_equal(entry->data, entries[i].data, entry->bytes);
    }
    assert_int_equal(safetensors_find(file, "scalar")->bytes, 8);
    assert_int_equal(safetensors_find(file, "empty")->bytes, 0);
    assert_null(safetensors_find(file, "scala"));
    assert_string_equal(safetensors_at(file, 0)->name, entries[0].name); /* the order of the data */
    assert_string_equal(safetensors_at(file, 3)->name, "scalar");
    assert_string_equal(safetensors_metadata(file, "task"), "{\"n\": 1}\n");
    assert_string_equal(safetensors_metadata(file, "x"), "");
    assert_null(safetensors_metadata(file, "y"));
    safetensors_free(file);
    /* deterministic */
    void *again;
    size_t again_size;
    assert_int_equal(safetensors_encode(entries, 4, metadata, 2, &again, &again_size, &err), 0);
    assert_int_equal(size, again_size);
    assert_memory_equal(bytes, again, size);
    free(bytes);
    free(again);
}

static void test_empty_file(void **state)
{
    (void)state;
    void *bytes;
    size_t size;
    struct err err = {0};
    struct safetensors *file;
    assert_int_equal(safetensors_encode(NULL, 0, NULL, 0, &bytes, &size, &err), 0);
    assert_int_equal(safetensors_parse(&file, bytes, size, &err), 0);
    assert_int_equal(safetensors_count(file), 0);
    assert_null(safetensors_find(file, ""));
    assert_null(safetensors_metadata(file, "x"));
    safetensors_free(file);
    safetensors_free(NULL);
    free(bytes);
}

static void test_every_dtype(void **state)
{
    (void)state;
    static const uint64_t data[2] = {1, 2};
    for (int i = 0; i < DTYPE_COUNT; i++) {
        struct safetensors_entry entry = {
            .name = "x", .dtype = (enum dtype)i, .rank = 1, .dim = {2}, .data = data};
        void *bytes;
        size_t size;
        struct err err = {0};
        struct safetensors *file;
        assert_int_equal(safetensors_encode(&entry, 1, NULL, 0, &bytes, &size, &err), 0);
        assert_int_equal(safetensors_parse(&file, bytes, size, &err), 0);
        assert_int_equal(safetensors_find(file, "x")->dtype, i);
        assert_int_equal(safetensors_find(file, "x")->bytes, 2 * dtype_size((enum dtype)i));
        safetensors_free(file);
        free(bytes);
    }
    assert_string_equal(dtype_name(DTYPE_BF16), "BF16");
}

static void test_encode_refuses_broken_utf8(void **state)
{
    (void)state;
    static const float x = 1;
    struct safetensors_entry entry = {.name = "\xff", .dtype = DTYPE_F32, .data = &x};
    struct safetensors_metadata_pair metadata = {"key", "\xc3"};
    void *bytes;
    size_t size;
    struct err err = {0};
    assert_int_equal(safetensors_encode(&entry, 1, NULL, 0, &bytes, &size, &err),
                     -(int)ERR_INTERNAL);
    assert_int_equal(safetensors_encode(NULL, 0, &metadata, 1, &bytes, &size, &err),
                     -(int)ERR_INTERNAL);
}

static void test_lengths(void **state)
{
    (void)state;
    struct err err = {0};
    size_t size;
    unsigned char *bytes = build("{}", 2, 0, &size);
    for (size_t cut = 0; cut < size; cut++)
        assert_int_equal(parse_copy(bytes, cut, &err), -(int)ERR_INVALID_RECORD);
    assert_int_equal(parse_copy(bytes, size, &err), 0);
    memset(bytes, 0xff, 8); /* a header of 2^64 - 1 bytes */
    assert_int_equal(parse_copy(bytes, size, &err), -(int)ERR_INVALID_RECORD);
    assert_non_null(strstr(err.text, "longer than the file or the limit"));
    memset(bytes, 0, 8); /* of none */
    assert_int_equal(parse_copy(bytes, size, &err), -(int)ERR_INVALID_RECORD);
    free(bytes);
    /* over the limit, though the bytes are there */
    size_t long_header = SAFETENSORS_HEADER_MAX + 1u;
    char *spaces = xmalloc(long_header);
    memset(spaces, ' ', long_header);
    memcpy(spaces, "{}", 2);
    bytes = build(spaces, long_header, 0, &size);
    assert_int_equal(parse_copy(bytes, size, &err), -(int)ERR_INVALID_RECORD);
    free(bytes);
    bytes = build(spaces, long_header - 1, 0, &size);
    assert_int_equal(parse_copy(bytes, size, &err), 0);
    free(bytes);
    free(spaces);
}

static void test_damaged_json(void **state)
{
    (void)state;
    expect_damage("", 0, "not a JSON object");
    expect_damage("[]", 0, "not a JSON object");
    expect_damage(" {}", 0, "not a JSON object");
    expect_damage("{", 0, "not valid JSON");
    expect_damage("{} x", 0, "not valid JSON");
    expect_damage("{\"\\u0000\":1}", 0, "not valid JSON");
    expect_damage("{\"\xff\":1}", 0, "not valid JSON");
    expect_damage("{\"__metadata__\":1}", 0, "'__metadata__' is not an object");
    expect_damage("{\"__metadata__\":{\"a\":1}}", 0, "metadata 'a' is not a string");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                  "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
                  2, "duplicate object key");
    /* deeper than any parser should follow */
    size_t depth = 1 << 20, size;
    char *deep = xmalloc(depth);
    memset(deep, '[', depth);
    memcpy(deep, "{\"x\":", 5);
    unsigned char *bytes = build(deep, depth, 0, &size);
    struct err err = {0};
    assert_int_equal(parse_copy(bytes, size, &err), -(int)ERR_INVALID_RECORD);
    free(bytes);
    free(deep);
}

static void test_damaged_entries(void **state)
{
    (void)state;
    expect_damage("{\"x\":3}", 0, "is not an object of dtype, shape and data_offsets");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "is not an object");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"offsets\":[0,1]}}", 1,
                  "no pair of data_offsets");
    expect_damage("{\"x\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "no dtype");
    expect_damage("{\"x\":{\"dtype\":\"F7\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
                  "tensor 'x' has the unknown dtype 'F7'");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":{},\"data_offsets\":[0,1]}}", 1, "no shape");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1,
                  "more than 6 dimensions");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1,
                  "impossible shape");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1,
                  "impossible shape");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],"
                  "\"data_offsets\":[0,1]}}",
                  1, "not valid JSON");
    /* products that wrap round to the right size */
    expect_damage("{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],"
                  "\"data_offsets\":[0,4]}}",
                  4, "impossible shape");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],"
                  "\"data_offsets\":[0,0]}}",
                  0, "impossible shape");
}

static void test_damaged_places(void **state)
{
    (void)state;
#define U8(name, count, begin, end)                                                                \
    "\"" name "\":{\"dtype\":\"U8\",\"shape\":[" #count "],\"data_offsets\":[" #begin "," #end "]" \
    "}"
    expect_damage("{" U8("x", 4, 0, 4) "}", 3, "outside of the 3 bytes");
    expect_damage("{" U8("x", 4, -4, 0) "}", 4, "outside of the 4 bytes");
    expect_damage("{" U8("x", 4, 4, 0) "}", 4, "outside of the 4 bytes");
    expect_damage("{" U8("x", 4, 0, 9223372036854775807) "}", 4, "outside of the 4 bytes");
    expect_damage("{" U8("x", 3, 0, 4) "}", 4, "has 4 bytes of data where its shape needs 3");
    expect_damage("{" U8("x", 3, 0, 3) "}", 4, "1 bytes of data belong to no tensor");
    expect_damage("{" U8("x", 3, 1, 4) "}", 4, "leaves a gap");
    expect_damage("{" U8("x", 2, 0, 2) "," U8("y", 2, 3, 5) "}", 5, "'y' leaves a gap");
    expect_damage("{" U8("x", 2, 0, 2) "," U8("y", 2, 1, 3) "}", 3, "'y' overlaps another one");
    expect_damage("{" U8("x", 2, 0, 2) "," U8("y", 2, 0, 2) "}", 2, "overlaps another one");
    expect_damage("{}", 1, "1 bytes of data belong to no tensor");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1,
                  "no pair of data_offsets");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,1]}}", 1,
                  "no pair of data_offsets");
    expect_damage("{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,\"1\"]}}", 1,
                  "no pair of data_offsets");
#undef U8
}

static void test_too_many_tensors(void **state)
{
    (void)state;
    size_t capacity = (SAFETENSORS_TENSORS_MAX + 1) * 80, place = 1, size;
    char *header = xmalloc(capacity);
    header[0] = '{';
    for (int i = 0; i <= SAFETENSORS_TENSORS_MAX; i++)
        place +=
            (size_t)snprintf(header + place, capacity - place,
                             "\"%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},", i);
    header[place - 1] = '}';
    struct err err = {0};
    unsigned char *bytes = build(header, place, 0, &size);
    assert_int_equal(parse_copy(bytes, size, &err), -(int)ERR_INVALID_RECORD);
    assert_non_null(strstr(err.text, "more than 100000"));
    free(bytes);
    free(header);
}

/* A file with several tensors and metadata, as a task record has. */
static unsigned char *sample(size_t *size)
{
    static const float data[64] = {1};
    struct safetensors_entry entries[] = {
        {.name = "image_embedding", .dtype = DTYPE_F32, .rank = 1, .dim = {32}, .data = data},
        {.name = "mask", .dtype = DTYPE_BOOL, .rank = 1, .dim = {21}, .data = data},
        {.name = "states", .dtype = DTYPE_BF16, .rank = 2, .dim = {3, 7}, .data = data},
        {.name = "none", .dtype = DTYPE_F16, .rank = 1, .dim = {0}, .data = data},
    };
    struct safetensors_metadata_pair metadata[] = {{"task", "{\"job\":\"x\"}"}};
    void *bytes;
    struct err err = {0};
    assert_int_equal(safetensors_encode(entries, 4, metadata, 1, &bytes, size, &err), 0);
    return bytes;
}

static uint64_t random_state = 20260101;
static uint32_t random_below(uint32_t limit)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % limit);
}

static void mutate(unsigned char *bytes, size_t *size)
{
    static const char interesting[] = "0123456789{}[]\",:-.eE\\\xff ";
    switch (random_below(6)) {
    case 0: /* one bit */
        bytes[random_below((uint32_t)*size)] ^= (unsigned char)(1u << random_below(8));
        break;
    case 1: /* a byte that JSON cares for */
        bytes[8 + random_below((uint32_t)*size - 8)] =
            (unsigned char)interesting[random_below(sizeof(interesting) - 1)];
        break;
    case 2: /* the header's length */
        bytes[random_below(8)] = (unsigned char)random_below(256);
        break;
    case 3: /* cut short */
        *size -= random_below((uint32_t)*size - 16);
        break;
    case 4: { /* a piece moved */
        size_t count = random_below(40) + 1;
        size_t from = random_below((uint32_t)(*size - 8)), to = random_below((uint32_t)(*size - 8));
        size_t most = *size - (from > to ? from : to);
        memmove(bytes + to, bytes + from, count < most ? count : most);
        break;
    }
    default: /* a digit changed for another: offsets and shapes that nearly fit */
        for (int tries = 0; tries < 50; tries++) {
            unsigned char *byte = &bytes[8 + random_below((uint32_t)*size - 8)];
            if (*byte >= '0' && *byte <= '9') {
                *byte = (unsigned char)('0' + random_below(10));
                break;
            }
        }
    }
}

/* Reads every byte that the file hands out. */
static unsigned touch(const struct safetensors *file, const unsigned char *bytes, size_t size)
{
    unsigned sum = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_entry *entry = safetensors_at(file, i);
        const unsigned char *data = entry->data;
        assert_true(data >= bytes && entry->bytes <= (size_t)(bytes + size - data));
        for (size_t j = 0; j < entry->bytes; j++)
            sum += data[j];
        assert_ptr_equal(safetensors_find(file, entry->name), entry);
    }
    const char *task = safetensors_metadata(file, "task");
    return sum + (task ? (unsigned)strlen(task) : 0);
}

static void test_mutations(void **state)
{
    (void)state;
    size_t original_size;
    unsigned char *original = sample(&original_size);
    int accepted = 0, refused = 0;
    for (int i = 0; i < 20000; i++) {
        size_t size = original_size;
        unsigned char *bytes = xmalloc(size);
        memcpy(bytes, original, size);
        for (uint32_t times = random_below(4) + 1; times > 0; times--)
            if (size > 32)
                mutate(bytes, &size);
        unsigned char *exact = xmalloc(size);
        memcpy(exact, bytes, size);
        struct safetensors *file;
        struct err err = {0};
        int rc = safetensors_parse(&file, exact, size, &err);
        if (rc == 0) {
            touch(file, exact, size);
            safetensors_free(file);
            accepted++;
        } else {
            assert_int_equal(rc, -(int)ERR_INVALID_RECORD);
            assert_int_equal(err.code, ERR_INVALID_RECORD);
            assert_true(err.text[0] != '\0');
            refused++;
        }
        free(exact);
        free(bytes);
    }
    free(original);
    assert_true(accepted > 100 && refused > 1000); /* both ways were taken */
}

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void test_open(void **state)
{
    (void)state;
    char folder[] = "/tmp/unclip-test-XXXXXX", path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/x.safetensors", folder);
    struct safetensors *file;
    struct err err = {0};
    assert_int_equal(safetensors_open(&file, path, &err), -(int)ERR_IO);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(safetensors_open(&file, folder, &err), -(int)ERR_IO);
    assert_non_null(strstr(err.text, "is not a file"));
    write_file(path, "", 0);
    assert_int_equal(safetensors_open(&file, path, &err), -(int)ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, path));
    size_t size;
    unsigned char *bytes = sample(&size);
    write_file(path, bytes, size - 1);
    assert_int_equal(safetensors_open(&file, path, &err), -(int)ERR_INVALID_MODEL);
    assert_non_null(strstr(err.text, path));
    write_file(path, bytes, size);
    assert_int_equal(safetensors_open(&file, path, &err), 0);
    unlink(path);
    rmdir(folder);
    assert_true(*(const float *)safetensors_find(file, "image_embedding")->data == 1);
    safetensors_free(file);
    free(bytes);
}

/* The model that ships is the format's other writer. */
static void test_a_file_from_python(void **state)
{
    (void)state;
    struct safetensors *file;
    struct err err = {0};
    const char *path = SOURCE_DIR "/models/emoji/text_proj/diffusion_pytorch_model.safetensors";
    if (safetensors_open(&file, path, &err))
        fail_msg("%s", err.text);
    assert_true(safetensors_count(file) > 0);
    assert_string_equal(safetensors_metadata(file, "format"), "pt");
    safetensors_free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_every_dtype),
        cmocka_unit_test(test_encode_refuses_broken_utf8),
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_damaged_json),
        cmocka_unit_test(test_damaged_entries),
        cmocka_unit_test(test_damaged_places),
        cmocka_unit_test(test_too_many_tensors),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_a_file_from_python),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
