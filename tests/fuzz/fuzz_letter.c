/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters. First byte `l`: the value of a record of unclip.dead-letter, which is shown and
 * sent again. Else a refused record, of which a letter is made that must be valid and small enough:
 * its topic is named by that byte, then a line for the key, one for a header's name, one for its
 * value, and what follows is the value.
 */
#include "client/letter.h"
#include "common/dead_letter.h"
#include "common/job.h"
#include "common/schema.h"
#include "tests/fuzz/fuzz.h"

static FILE *nowhere;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    nowhere = fopen("/dev/null", "w");
    BUG_ON(!nowhere);
    return 0;
}

static void check_resend(const struct letter *letter)
{
    struct resend resend;
    struct err err = {0};
    int rc = letter_resend(letter, &resend, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    const struct kafka_output *output = &resend.output;
    BUG_ON(!output->topic || (output->key_size && !output->key));
    BUG_ON(resend.id[0] && strcmp(output->topic, topic_name(TOPIC_JOBS)) != 0);
    BUG_ON(resend.id[0] && strlen(resend.id) != output->key_size);
    resend_release(&resend);
}

static void use(const struct letter *letter)
{
    json_t *brief = letter_json(letter, false), *whole = letter_json(letter, true);
    letter_heading(nowhere);
    letter_row(letter, nowhere);
    (void)letter_matches(letter, "my-heart", "invalid_job");
    BUG_ON(json_object_size(brief) > json_object_size(whole));
    json_decref(brief);
    json_decref(whole);
    check_resend(letter);
}

static void read_letter(const void *value, size_t size)
{
    struct kafka_record record = {.topic = topic_name(TOPIC_DEAD_LETTER),
                                  .partition = 2,
                                  .offset = 1234,
                                  .value = value,
                                  .value_size = size};
    struct letter letter;
    struct err err = {0};
    int rc = letter_read(&letter, &record, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    use(&letter);
    letter_release(&letter);
}

static void make_letter(uint8_t from, struct input input)
{
    struct input key = take_line(&input), name = take_line(&input), text = take_line(&input);
    char *header_name = text_of_input(name), *reason = text_of_input(text);
    const struct kafka_header headers[] = {{header_name, text.data, text.size},
                                           {header_name, NULL, 0}};
    struct kafka_record record = {
        .topic = from & 1 ? topic_tasks((enum stage)(from >> 1) % STAGE_COUNT, CLASS_BULK)
                          : topic_name((enum topic)((from >> 1) % TOPIC_COUNT)),
        .key = key.size ? key.data : NULL,
        .key_size = key.size,
        .value = from & 128 ? NULL : input.data,
        .value_size = from & 128 ? 0 : input.size,
        .headers = headers,
        .header_count = from & 64 ? 2 : 1};
    struct err err;
    err_set(&err, ERR_INVALID_RECORD, "%s", reason);
    struct dead_letter letter = {.at_ms = 1769862896789LL,
                                 .err = &err,
                                 .record = &record,
                                 .worker = "decoder-0",
                                 .with_value = !(from & 32)};
    struct kafka_output out;
    char *value = dead_letter_make(&letter, &out);
    struct letter back;
    struct kafka_record made = {.topic = out.topic, .value = value, .value_size = out.value_size};
    BUG_ON(out.value_size + out.key_size > KAFKA_RECORD_MAX);
    BUG_ON(letter_read(&back, &made, &err) != 0);
    use(&back);
    letter_release(&back);
    free(value);
    free(reason);
    free(header_name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    uint8_t kind = take_byte(&input);
    if (kind == 'l')
        read_letter(input.data, input.size);
    else
        make_letter(kind, input);
    return 0;
}
