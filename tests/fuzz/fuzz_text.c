/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small texts: UTF-8, ids, places and times, names and URIs of the artifact store, and what is
 * shown on a terminal. Each reads the whole input.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "client/artifact.h"
#include "client/letter.h"
#include "client/text.h"
#include "common/clock.h"
#include "common/storage.h"
#include "common/utf8.h"
#include "coordinator/records.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_store.h"

static void check_utf8(struct input input)
{
    char *clean = utf8_clean(input.data, input.size);
    const char *bytes = (const char *)input.data;
    size_t step = input.size ? utf8_step(bytes, input.size) : 0;
    BUG_ON(step > 4 || step > input.size);
    BUG_ON(!utf8_valid(clean, strlen(clean)));
    if (utf8_valid(bytes, input.size) && (!input.size || !memchr(bytes, 0, input.size)))
        BUG_ON(strlen(clean) != input.size ||
               (input.size && memcmp(clean, bytes, input.size) != 0));
    free(clean);
}

/* Nothing that steers a terminal comes out. */
static void check_shown(const char *text)
{
    char *shown = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&shown, &size);
    BUG_ON(!out);
    text_print(text, false, out);
    fclose(out);
    BUG_ON(!utf8_valid(shown, size));
    for (size_t i = 0; i < size; i++)
        BUG_ON((unsigned char)shown[i] < 0x20 || shown[i] == 0x7f);
    free(shown);
    out = open_memstream(&shown, &size);
    text_quote(text, out);
    fclose(out);
    BUG_ON(size == 0);
    free(shown);
    char *trimmed = xstrdup(text);
    text_trim_kafka(trimmed);
    BUG_ON(strlen(trimmed) > strlen(text));
    free(trimmed);
}

static void check_numbers(const char *text)
{
    struct place place, same;
    char again[PLACE_SIZE], iso[CLOCK_ISO_SIZE];
    int64_t at_ms;
    if (place_parse(text, &place)) {
        place_text(place, again);
        BUG_ON(!place_parse(again, &same) || same.partition != place.partition ||
               same.offset != place.offset);
    }
    (void)time_parse(text, &at_ms);
    at_ms = iso8601_parse(text);
    if (at_ms >= 0) {
        clock_iso8601(at_ms, iso);
        BUG_ON(iso8601_parse(iso) != at_ms);
    }
}

static void check_store(const char *text)
{
    char *uri = NULL, *path = NULL;
    void *bytes = NULL;
    size_t size;
    struct err err = {0};
    int rc = storage_uri(store, text, &uri, &err);
    if (rc < 0)
        check_refusal(rc, &err);
    else {
        BUG_ON(artifact_path(uri, &path, &err) != 0);
        BUG_ON(strncmp(path, folder, strlen(folder)) != 0 || strstr(path, "/../"));
        BUG_ON(storage_read(store, uri, 1000, &bytes, &size, &err) != -ERR_NOT_FOUND &&
               err.code != ERR_IO);
        free(path);
    }
    free(uri);
    path = NULL;
    if ((rc = artifact_path(text, &path, &err)) < 0)
        check_refusal(rc, &err);
    free(path);
    rc = storage_read(store, text, 1000, &bytes, &size, &err);
    BUG_ON(rc == 0); /* the store is empty: that would have been a file outside of it */
    check_refusal(rc, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    char *text = text_of_input(input);
    (void)job_id_valid((const char *)data, size);
    check_utf8(input);
    check_shown(text);
    check_numbers(text);
    check_store(text);
    free(text);
    return 0;
}
