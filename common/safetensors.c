/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and writing safetensors (safetensors.h). The header's JSON is jansson's to parse; every
 * fact in it is then checked against the bytes that are really there, before the first entry is
 * handed out. Entries are kept in the order of their data; `by_name` is the index for lookups.
 */
#include "common/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memory.h"

#define LENGTH_BYTES 8 /* the u64 before the header */
#define ALIGNMENT    8 /* to which the header is padded */
#define METADATA     "__metadata__"

struct safetensors {
    struct safetensors_entry *entries; /* in the order of their data */
    size_t count;
    const struct safetensors_entry **by_name; /* sorted */
    json_t *header;                           /* owns the names and the metadata */
    const json_t *metadata;                   /* into header, or NULL */
    void *mapping;                            /* NULL when the caller's buffer is borrowed */
    size_t mapping_size;
    struct timespec changed; /* of what is mapped */
};

/* What a file is checked against while its header is read. */
struct reader {
    struct safetensors *file;
    const unsigned char *data; /* behind the header */
    size_t data_size;
    enum err_code code; /* of every error in this file */
    struct err *err;
};

static const struct {
    const char *name;
    size_t size;
} dtypes[DTYPE_COUNT] = {
#define X(id, name, size) [id] = {name, size},
    DTYPE_TABLE(X)
#undef X
};

const char *dtype_name(enum dtype dtype)
{
    BUG_ON((unsigned)dtype >= DTYPE_COUNT);
    return dtypes[dtype].name;
}

size_t dtype_size(enum dtype dtype)
{
    BUG_ON((unsigned)dtype >= DTYPE_COUNT);
    return dtypes[dtype].size;
}

static int read_dtype(struct reader *reader, struct safetensors_entry *entry, const json_t *value)
{
    const char *name = json_string_value(value);
    if (!name)
        return err_set(reader->err, reader->code, "tensor '%.100s' has no dtype", entry->name);
    for (int i = 0; i < DTYPE_COUNT; i++) {
        if (strcmp(name, dtypes[i].name) == 0) {
            entry->dtype = (enum dtype)i;
            return 0;
        }
    }
    return err_set(reader->err, reader->code, "tensor '%.100s' has the unknown dtype '%.40s'",
                   entry->name, name);
}

/* Fills in rank, dim and bytes. */
static int read_shape(struct reader *reader, struct safetensors_entry *entry, const json_t *value)
{
    size_t rank = json_array_size(value); /* 0 for what is no array */
    if (!json_is_array(value) || rank > SAFETENSORS_RANK_MAX)
        return err_set(reader->err, reader->code,
                       "tensor '%.100s' has no shape, or one of more than %d dimensions",
                       entry->name, SAFETENSORS_RANK_MAX);
    int64_t bytes = (int64_t)dtype_size(entry->dtype);
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(value, i);
        entry->dim[i] = json_integer_value(dim);
        if (!json_is_integer(dim) || entry->dim[i] < 0 ||
            __builtin_mul_overflow(bytes, entry->dim[i], &bytes))
            return err_set(reader->err, reader->code, "tensor '%.100s' has an impossible shape",
                           entry->name);
    }
    entry->rank = (int)rank;
    entry->bytes = (size_t)bytes;
    return 0;
}

static int read_offsets(struct reader *reader, struct safetensors_entry *entry, const json_t *value)
{
    const json_t *first = json_array_get(value, 0);
    const json_t *second = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return err_set(reader->err, reader->code, "tensor '%.100s' has no pair of data_offsets",
                       entry->name);
    int64_t begin = json_integer_value(first), end = json_integer_value(second);
    if (begin < 0 || end < begin || (uint64_t)end > reader->data_size)
        return err_set(reader->err, reader->code,
                       "tensor '%.100s' has data_offsets [%lld, %lld] outside of the %zu bytes "
                       "of data",
                       entry->name, (long long)begin, (long long)end, reader->data_size);
    if ((uint64_t)(end - begin) != entry->bytes)
        return err_set(reader->err, reader->code,
                       "tensor '%.100s' has %lld bytes of data where its shape needs %zu",
                       entry->name, (long long)(end - begin), entry->bytes);
    entry->data = reader->data + begin;
    return 0;
}

static int read_entry(struct reader *reader, const char *name, const json_t *value)
{
    struct safetensors_entry *entry = &reader->file->entries[reader->file->count];
    entry->name = name;
    if (json_object_size(value) != 3)
        return err_set(reader->err, reader->code,
                       "tensor '%.100s' is not an object of dtype, shape and data_offsets", name);
    int rc = read_dtype(reader, entry, json_object_get(value, "dtype"));
    if (rc == 0)
        rc = read_shape(reader, entry, json_object_get(value, "shape"));
    if (rc == 0)
        rc = read_offsets(reader, entry, json_object_get(value, "data_offsets"));
    if (rc == 0)
        reader->file->count++;
    return rc;
}

static int read_metadata(struct reader *reader, const json_t *metadata)
{
    if (!json_is_object(metadata))
        return err_set(reader->err, reader->code, "'" METADATA "' is not an object");
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)metadata, key, value) {
        if (!json_is_string(value))
            return err_set(reader->err, reader->code, "metadata '%.100s' is not a string", key);
    }
    reader->file->metadata = metadata;
    return 0;
}

static int read_entries(struct reader *reader)
{
    struct safetensors *file = reader->file;
    size_t members = json_object_size(file->header);
    if (members > SAFETENSORS_TENSORS_MAX)
        return err_set(reader->err, reader->code, "header names %zu tensors, more than %d", members,
                       SAFETENSORS_TENSORS_MAX);
    file->entries = xcalloc(members + 1, sizeof(*file->entries));
    const char *key;
    json_t *value;
    json_object_foreach (file->header, key, value) {
        int rc = strcmp(key, METADATA) == 0 ? read_metadata(reader, value)
                                            : read_entry(reader, key, value);
        if (rc)
            return rc;
    }
    return 0;
}

static int compare_places(const void *a, const void *b)
{
    const struct safetensors_entry *x = a, *y = b;
    const char *x_data = x->data, *y_data = y->data;
    if (x_data != y_data)
        return x_data < y_data ? -1 : 1;
    if (x->bytes != y->bytes) /* empty tensors stand before the one that begins where they are */
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Every byte of data belongs to exactly one tensor. */
static int check_places(struct reader *reader)
{
    struct safetensors *file = reader->file;
    qsort(file->entries, file->count, sizeof(*file->entries), compare_places);
    const unsigned char *place = reader->data;
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_entry *entry = &file->entries[i];
        if (entry->data != place)
            return err_set(reader->err, reader->code, "tensor '%.100s' %s", entry->name,
                           (const unsigned char *)entry->data < place
                               ? "overlaps another one"
                               : "leaves a gap in the data before it");
        place += entry->bytes;
    }
    if (place != reader->data + reader->data_size)
        return err_set(reader->err, reader->code, "%zu bytes of data belong to no tensor",
                       (size_t)(reader->data + reader->data_size - place));
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    const struct safetensors_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static void index_names(struct safetensors *file)
{
    file->by_name = xcalloc(file->count + 1, sizeof(*file->by_name));
    for (size_t i = 0; i < file->count; i++)
        file->by_name[i] = &file->entries[i];
    qsort(file->by_name, file->count, sizeof(*file->by_name), compare_names);
}

static int read_json(struct reader *reader, const unsigned char *text, size_t size)
{
    json_error_t error;
    if (size == 0 || text[0] != '{')
        return err_set(reader->err, reader->code, "header is not a JSON object");
    reader->file->header = json_loadb((const char *)text, size, JSON_REJECT_DUPLICATES, &error);
    if (!reader->file->header)
        return err_set(reader->err, reader->code, "header is not valid JSON: %.120s (byte %d)",
                       error.text, error.position);
    return 0;
}

static int read_file(struct safetensors *file, const unsigned char *bytes, size_t size,
                     enum err_code code, struct err *err)
{
    if (size < LENGTH_BYTES)
        return err_set(err, code, "%zu bytes are too few for a safetensors file", size);
    uint64_t header_size = 0;
    for (int i = 0; i < LENGTH_BYTES; i++)
        header_size |= (uint64_t)bytes[i] << (8 * i);
    if (header_size > SAFETENSORS_HEADER_MAX || header_size > size - LENGTH_BYTES)
        return err_set(err, code,
                       "header of %llu bytes is longer than the file or the limit of %u bytes",
                       (unsigned long long)header_size, SAFETENSORS_HEADER_MAX);
    struct reader reader = {
        .file = file,
        .data = bytes + LENGTH_BYTES + header_size,
        .data_size = size - LENGTH_BYTES - (size_t)header_size,
        .code = code,
        .err = err,
    };
    int rc = read_json(&reader, bytes + LENGTH_BYTES, (size_t)header_size);
    if (rc == 0)
        rc = read_entries(&reader);
    if (rc == 0)
        rc = check_places(&reader);
    if (rc == 0)
        index_names(file);
    return rc;
}

int safetensors_parse(struct safetensors **out, const void *bytes, size_t size, struct err *err)
{
    struct safetensors *file = xcalloc(1, sizeof(*file));
    int rc = read_file(file, bytes, size, ERR_INVALID_RECORD, err);
    if (rc) {
        safetensors_free(file);
        return rc;
    }
    *out = file;
    return 0;
}

/* Maps the whole of fd; an empty file maps nothing. */
static int map(struct safetensors *file, int fd, const char *path, struct err *err)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return err_set(err, ERR_IO, "cannot read '%s': %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return err_set(err, ERR_IO, "'%s' is not a file", path);
    if (status.st_size == 0)
        return 0;
    void *mapping = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED)
        return err_set(err, ERR_IO, "cannot map '%s': %s", path, strerror(errno));
    file->mapping = mapping;
    file->mapping_size = (size_t)status.st_size;
    file->changed = status.st_mtim;
    return 0;
}

static int open_mapped(struct safetensors *file, const char *path, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    int rc = map(file, fd, path, err);
    close(fd);
    if (rc)
        return rc;
    rc = read_file(file, file->mapping, file->mapping_size, ERR_INVALID_MODEL, err);
    return rc ? err_prefix(err, "'%s'", path) : 0;
}

int safetensors_open(struct safetensors **out, const char *path, struct err *err)
{
    struct safetensors *file = xcalloc(1, sizeof(*file));
    int rc = open_mapped(file, path, err);
    if (rc) {
        safetensors_free(file);
        return rc;
    }
    *out = file;
    return 0;
}

void safetensors_free(struct safetensors *file)
{
    if (!file)
        return;
    if (file->mapping)
        munmap(file->mapping, file->mapping_size);
    json_decref(file->header);
    free(file->entries);
    free(file->by_name);
    free(file);
}

struct safetensors_source safetensors_source(const struct safetensors *file)
{
    return (struct safetensors_source){
        .bytes = file->mapping, .size = file->mapping_size, .changed = file->changed};
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensors_entry *safetensors_at(const struct safetensors *file, size_t index)
{
    BUG_ON(index >= file->count);
    return &file->entries[index];
}

const struct safetensors_entry *safetensors_find(const struct safetensors *file, const char *name)
{
    struct safetensors_entry wanted = {.name = name};
    const struct safetensors_entry *key = &wanted;
    const struct safetensors_entry **found =
        bsearch(&key, file->by_name, file->count, sizeof(*file->by_name), compare_names);
    return found ? *found : NULL;
}

const char *safetensors_metadata(const struct safetensors *file, const char *key)
{
    return json_string_value(json_object_get(file->metadata, key));
}

static size_t entry_bytes(const struct safetensors_entry *entry)
{
    BUG_ON(entry->rank < 0 || entry->rank > SAFETENSORS_RANK_MAX);
    size_t bytes = dtype_size(entry->dtype);
    for (int i = 0; i < entry->rank; i++)
        BUG_ON(entry->dim[i] < 0 || __builtin_mul_overflow(bytes, (size_t)entry->dim[i], &bytes));
    return bytes;
}

/* Adds one tensor to the header; NULL-proof, since jansson's functions are. */
static int add_entry(json_t *header, const struct safetensors_entry *entry, size_t offset)
{
    BUG_ON(json_object_get(header, entry->name) != NULL);
    json_t *shape = json_array();
    for (int i = 0; i < entry->rank; i++)
        json_array_append_new(shape, json_integer(entry->dim[i]));
    json_t *value =
        json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(entry->dtype), "shape", shape,
                  "data_offsets", (json_int_t)offset, (json_int_t)(offset + entry_bytes(entry)));
    return json_object_set_new(header, entry->name, value);
}

/* The header as an owned JSON object, or NULL where a name or text is not UTF-8. */
static json_t *build_header(const struct safetensors_entry *entries, size_t count,
                            const struct safetensors_metadata_pair *metadata, size_t metadata_count,
                            size_t *data_size)
{
    json_t *header = json_object();
    json_t *texts = json_object();
    int rc = 0;
    for (size_t i = 0; i < metadata_count; i++)
        rc |= json_object_set_new(texts, metadata[i].key, json_string(metadata[i].value));
    if (metadata_count)
        rc |= json_object_set(header, METADATA, texts);
    json_decref(texts);
    *data_size = 0;
    for (size_t i = 0; i < count; i++) {
        rc |= add_entry(header, &entries[i], *data_size);
        *data_size += entry_bytes(&entries[i]);
    }
    if (rc == 0)
        return header;
    json_decref(header);
    return NULL;
}

static void write_record(unsigned char *out, const char *text, size_t text_size, size_t header_size,
                         const struct safetensors_entry *entries, size_t count)
{
    for (int i = 0; i < LENGTH_BYTES; i++)
        out[i] = (unsigned char)(header_size >> (8 * i));
    memcpy(out + LENGTH_BYTES, text, text_size);
    memset(out + LENGTH_BYTES + text_size, ' ', header_size - text_size);
    unsigned char *place = out + LENGTH_BYTES + header_size;
    for (size_t i = 0; i < count; i++) {
        size_t size = entry_bytes(&entries[i]);
        if (size)
            memcpy(place, entries[i].data, size);
        place += size;
    }
}

int safetensors_encode(const struct safetensors_entry *entries, size_t count,
                       const struct safetensors_metadata_pair *metadata, size_t metadata_count,
                       void **bytes, size_t *size, struct err *err)
{
    size_t data_size;
    json_t *header = build_header(entries, count, metadata, metadata_count, &data_size);
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text)
        return err_set(err, ERR_INTERNAL, "a tensor's name or a metadata text is not UTF-8");
    size_t text_size = strlen(text);
    size_t header_size = (text_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    int rc = 0;
    unsigned char *record = NULL;
    if (header_size > SAFETENSORS_HEADER_MAX)
        rc = err_set(err, ERR_TOO_LARGE, "a record's header of %zu bytes is over the limit of %u",
                     header_size, SAFETENSORS_HEADER_MAX);
    else if (!(record = malloc(LENGTH_BYTES + header_size + data_size)))
        rc = err_set(err, ERR_OUT_OF_MEMORY, "no memory for a record of %zu bytes", data_size);
    if (rc == 0) {
        write_record(record, text, text_size, header_size, entries, count);
        *bytes = record;
        *size = LENGTH_BYTES + header_size + data_size;
    }
    free(text);
    return rc;
}
