/* SPDX-License-Identifier: Apache-2.0 */
/* Dead letters. Every byte of the refused record may be hostile: sizes are cut, text is checked. */
#include "common/dead_letter.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/memory.h"
#include "common/protocol.h"
#include "common/utf8.h"

static json_t *clean_text(const void *bytes, size_t size)
{
    char *clean = utf8_clean(bytes, size);
    json_t *value = json_string(clean);
    free(clean);
    return value;
}

static json_t *text_or_null(const char *text)
{
    return text ? json_string(text) : json_null();
}

static json_t *base64(const unsigned char *bytes, size_t size)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *out = xmalloc((size + 2) / 3 * 4 + 1);
    size_t used = 0;
    for (size_t i = 0; i < size; i += 3) {
        unsigned long group = (unsigned long)bytes[i] << 16;
        if (i + 1 < size)
            group |= (unsigned long)bytes[i + 1] << 8;
        if (i + 2 < size)
            group |= bytes[i + 2];
        out[used++] = digits[group >> 18];
        out[used++] = digits[group >> 12 & 63];
        out[used++] = i + 1 < size ? digits[group >> 6 & 63] : '=';
        out[used++] = i + 2 < size ? digits[group & 63] : '=';
    }
    json_t *value = json_stringn(out, used);
    free(out);
    return value;
}

/* At most `limit` bytes, and not in the middle of a character. */
static size_t cut(const char *text, size_t size, size_t limit)
{
    if (size <= limit)
        return size;
    size_t at = limit;
    while (at > limit - 4 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    return at;
}

static void add_value(json_t *out, const struct kafka_record *record)
{
    const char *text = record->value;
    bool truncated = record->value_size > DEAD_LETTER_VALUE_MAX;

    json_object_set_new(out, "truncated", json_boolean(truncated));
    if (!text) {
        json_object_set_new(out, "value", json_null());
        return;
    }
    size_t size = cut(text, record->value_size, DEAD_LETTER_VALUE_MAX);
    if (utf8_valid(text, size) && !memchr(text, 0, size)) {
        json_object_set_new(out, "value", json_stringn(text, size));
        return;
    }
    size = truncated ? DEAD_LETTER_VALUE_MAX : record->value_size;
    json_object_set_new(out, "value", json_null());
    json_object_set_new(out, "value_base64", base64((const unsigned char *)text, size));
}

static json_t *headers_of(const struct kafka_record *record)
{
    json_t *out = json_object();
    size_t count = record->header_count;

    if (count > DEAD_LETTER_HEADERS_MAX)
        count = DEAD_LETTER_HEADERS_MAX;
    for (size_t i = 0; i < count; i++) {
        const struct kafka_header *header = &record->headers[i];
        if (!utf8_valid(header->name, strlen(header->name)))
            continue;
        size_t size = header->value ? cut(header->value, header->size, DEAD_LETTER_HEADER_MAX) : 0;
        json_object_set_new(out, header->name, clean_text(header->value, size));
    }
    return out;
}

static json_t *source_of(const struct kafka_record *record)
{
    return json_pack("{s:s, s:i, s:I}", "topic", record->topic, "partition", (int)record->partition,
                     "offset", (json_int_t)record->offset);
}

static json_t *key_of(const struct kafka_record *record)
{
    if (!record->key)
        return json_null();
    return clean_text(record->key, cut(record->key, record->key_size, DEAD_LETTER_KEY_MAX));
}

char *dead_letter_json(const struct dead_letter *letter)
{
    char at[CLOCK_ISO_SIZE];
    json_t *out = json_object();

    clock_iso8601(letter->at_ms, at);
    json_object_set_new(out, "version", json_integer(PROTOCOL_VERSION));
    json_object_set_new(out, "at", json_string(at));
    json_object_set_new(out, "error_code", json_string(err_name(letter->err->code)));
    json_object_set_new(out, "error_message",
                        clean_text(letter->err->text, strlen(letter->err->text)));
    json_object_set_new(out, "source", source_of(letter->record));
    json_object_set_new(out, "worker", json_string(letter->worker));
    json_object_set_new(out, "job", text_or_null(letter->job));
    json_object_set_new(out, "stage", text_or_null(letter->stage));
    json_object_set_new(out, "key", key_of(letter->record));
    if (letter->with_value)
        add_value(out, letter->record);
    else
        json_object_set_new(out, "value", json_null());
    json_object_set_new(out, "headers", headers_of(letter->record));
    char *text = json_dumps(out, JSON_COMPACT);
    json_decref(out);
    BUG_ON(!text);
    return text;
}
