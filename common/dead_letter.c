/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters. Every byte of the refused record may be hostile: sizes are cut, text is checked. In
 * JSON one byte becomes at most six ("\\u0001"; U+FFFD for a bad byte is three), so that bounds on
 * what is kept bound the record too.
 */
#include "common/dead_letter.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/clock.h"
#include "common/memory.h"
#include "common/protocol.h"
#include "common/utf8.h"

#define SWELL   6
#define OWN_MAX 256  /* bytes of a worker's, topic's or stage's name or a job's id */
#define FRAME   2048 /* field names, numbers, quotes and commas: some 600 bytes with 32 headers */

static_assert(SWELL * (DEAD_LETTER_VALUE_MAX + DEAD_LETTER_HEADERS_SIZE + DEAD_LETTER_KEY_MAX +
                       sizeof(((struct err *)0)->text) + 4 * OWN_MAX) +
                      FRAME + DEAD_LETTER_KEY_MAX <
                  KAFKA_RECORD_MAX,
              "a dead letter fits in a record, with its key, whatever the bytes");

static json_t *clean_text(const void *bytes, size_t size)
{
    char *clean = utf8_clean(bytes, size);
    json_t *value = json_string(clean);
    free(clean);
    return value;
}

static json_t *base64(const void *bytes, size_t size)
{
    size_t length;
    char *text = base64_encode(bytes, size, &length);
    json_t *value = json_stringn(text, length);
    free(text);
    return value;
}

/* At most `limit` bytes, and not in the middle of a character. */
static size_t cut(const char *text, size_t size, size_t limit)
{
    if (size <= limit)
        return size;
    size_t at = limit;
    while (at > 0 && limit - at < 4 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    return at;
}

static json_t *name_or_null(const char *text)
{
    return text ? clean_text(text, cut(text, strlen(text), OWN_MAX)) : json_null();
}

static void add_value(json_t *out, const struct kafka_record *record, bool *truncated)
{
    const char *text = record->value;

    if (!text) {
        json_object_set_new(out, "value", json_null());
        return;
    }
    *truncated |= record->value_size > DEAD_LETTER_VALUE_MAX;
    size_t size = cut(text, record->value_size, DEAD_LETTER_VALUE_MAX);
    if (utf8_valid(text, size) && !memchr(text, 0, size)) {
        json_object_set_new(out, "value", json_stringn(text, size));
        return;
    }
    if (record->value_size > DEAD_LETTER_VALUE_MAX)
        size = DEAD_LETTER_VALUE_MAX;
    json_object_set_new(out, "value", json_null());
    json_object_set_new(out, "value_base64", base64(text, size));
}

/* The length of what is kept of `text`: at most `limit` bytes, and at most *room, which it takes.
 */
static size_t take(const char *text, size_t size, size_t limit, size_t *room, bool *truncated)
{
    size_t kept = text ? cut(text, size, limit < *room ? limit : *room) : 0;
    *truncated |= text && kept < size;
    *room -= kept;
    return kept;
}

static json_t *headers_of(const struct kafka_record *record, bool *truncated)
{
    json_t *out = json_object();
    size_t count = record->header_count, room = DEAD_LETTER_HEADERS_SIZE;

    if (count > DEAD_LETTER_HEADERS_MAX) {
        count = DEAD_LETTER_HEADERS_MAX;
        *truncated = true;
    }
    for (size_t i = 0; i < count; i++) {
        const struct kafka_header *header = &record->headers[i];
        size_t size =
            take(header->name, strlen(header->name), DEAD_LETTER_HEADER_NAME_MAX, &room, truncated);
        char *name = utf8_clean(header->name, size);
        size = take(header->value, header->size, DEAD_LETTER_HEADER_MAX, &room, truncated);
        json_object_set_new(out, name, clean_text(header->value, size));
        free(name);
    }
    return out;
}

static json_t *source_of(const struct kafka_record *record)
{
    return json_pack("{s:o, s:i, s:I}", "topic", name_or_null(record->topic), "partition",
                     (int)record->partition, "offset", (json_int_t)record->offset);
}

static json_t *key_of(const struct kafka_record *record, bool *truncated)
{
    if (!record->key)
        return json_null();
    *truncated |= record->key_size > DEAD_LETTER_KEY_MAX;
    return clean_text(record->key, cut(record->key, record->key_size, DEAD_LETTER_KEY_MAX));
}

static char *letter_json(const struct dead_letter *letter)
{
    char at[CLOCK_ISO_SIZE];
    bool truncated = false;
    json_t *out = json_object();

    clock_iso8601(letter->at_ms, at);
    json_object_set_new(out, "version", json_integer(PROTOCOL_VERSION));
    json_object_set_new(out, "at", json_string(at));
    json_object_set_new(out, "error_code", json_string(err_name(letter->err->code)));
    json_object_set_new(out, "error_message",
                        clean_text(letter->err->text, strlen(letter->err->text)));
    json_object_set_new(out, "source", source_of(letter->record));
    json_object_set_new(out, "worker", name_or_null(letter->worker));
    json_object_set_new(out, "job", name_or_null(letter->job));
    json_object_set_new(out, "stage", name_or_null(letter->stage));
    json_object_set_new(out, "key", key_of(letter->record, &truncated));
    if (letter->with_value)
        add_value(out, letter->record, &truncated);
    else
        json_object_set_new(out, "value", json_null());
    json_object_set_new(out, "headers", headers_of(letter->record, &truncated));
    json_object_set_new(out, "truncated", json_boolean(truncated));
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    BUG_ON(!text);
    return text;
}

char *dead_letter_make(const struct dead_letter *letter, struct kafka_output *out)
{
    const struct kafka_record *record = letter->record;
    bool key_fits = record->key_size <= DEAD_LETTER_KEY_MAX;
    char *text = letter_json(letter);

    *out = (struct kafka_output){
        .topic = topic_name(TOPIC_DEAD_LETTER),
        .partition = KAFKA_ANY_PARTITION,
        .key = key_fits ? record->key : NULL,
        .key_size = key_fits ? record->key_size : 0,
        .value = text,
        .value_size = strlen(text),
    };
    return text;
}
