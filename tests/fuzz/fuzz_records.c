/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a coordinator reads, by the first byte:
 *
 *  e      an event
 *  s, r   a record of unclip.state, of unclip.results: a line for the header `digest`, one for the
 *         key, then the value. What is read is the same when it is written and read again.
 *  other  records of unclip.jobs and unclip.events, one a line: `j` or `e`, the key, a tab, the
 * value. All of them go through one coordinator, whose every output must be valid by its schema.
 */
#include "common/log.h"
#include "common/schema.h"
#include "coordinator/handle.h"
#include "coordinator/records.h"
#include "coordinator/status.h"
#include "tests/fuzz/fuzz.h"

#define HOME 3
#define NOW  1769862896789LL

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_init("fuzz", LOG_LEVEL_ERROR);
    return 0;
}

/* --- one record --- */

static void read_event(struct input input)
{
    struct event event;
    struct err err = {0};
    int rc = event_parse(&event, input.data, input.size, &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    BUG_ON(!event.job || !event.worker || event.image < 0 || event.image >= JOB_IMAGES_MAX);
    BUG_ON(event.type == EVENT_PICTURE_FINISHED && (!event.uri || !event.sha256));
    BUG_ON(event.type == EVENT_PICTURE_FAILED && (!event.error_code || !event.error_message));
    event_release(&event);
}

typedef int decode_fn(struct live_job **out, int home, const struct kafka_record *record,
                      struct err *err);

static char *encode(const struct live_job *job)
{
    return job_state_final(job->state) ? result_encode(job) : state_encode(job);
}

static void check_job(struct live_job *job, decode_fn *decode, struct kafka_record *record)
{
    struct status status;
    struct live_job *again = NULL;
    struct err err;
    BUG_ON(decode == state_decode && job_state_final(job->state));
    BUG_ON(!(live_job_progress(job) >= 0 && live_job_progress(job) <= 1));
    status_make(&status, job, NULL);
    status_release(&status);
    char *text = encode(job);
    BUG_ON(schema_validate(decode == state_decode ? "state" : "result", text, strlen(text), &err));
    record->value = text;
    record->value_size = strlen(text);
    BUG_ON(decode(&again, HOME, record, &err) != 0);
    char *second = encode(again);
    BUG_ON(strcmp(text, second) != 0);
    live_job_free(again);
    free(second);
    free(text);
}

static void read_job(struct input input, decode_fn *decode, const char *topic)
{
    struct input digest = take_line(&input), key = take_line(&input);
    const struct kafka_header header = {RECORD_DIGEST_HEADER, digest.data, digest.size};
    struct kafka_record record = {.topic = topic,
                                  .partition = HOME,
                                  .offset = 77,
                                  .timestamp_ms = NOW,
                                  .key = key.size ? key.data : NULL,
                                  .key_size = key.size,
                                  .value = input.data,
                                  .value_size = input.size,
                                  .headers = &header,
                                  .header_count = 1};
    struct live_job *job = NULL;
    struct err err = {0};
    int rc = decode(&job, HOME, &record, &err);
    if (rc < 0)
        check_refusal(rc, &err);
    else
        check_job(job, decode, &record);
    live_job_free(job);
}

/* --- a coordinator --- */

static int64_t seed(void)
{
    return 4242;
}

static const char *schema_of(const char *topic)
{
    if (strcmp(topic, topic_name(TOPIC_STATE)) == 0)
        return "state";
    if (strcmp(topic, topic_name(TOPIC_RESULTS)) == 0)
        return "result";
    return strcmp(topic, topic_name(TOPIC_DEAD_LETTER)) == 0 ? "dead-letter" : NULL;
}

static void check_output(const struct kafka_output *output)
{
    const char *schema = schema_of(output->topic);
    struct err err;
    if (schema && output->value)
        BUG_ON(schema_validate(schema, output->value, output->value_size, &err) != 0);
    for (size_t i = 0; i < output->header_count; i++) {
        const struct kafka_header *header = &output->headers[i];
        if (strcmp(header->name, TASK_HEADER) == 0)
            BUG_ON(schema_validate("task", header->value, header->size, &err) != 0);
    }
}

static void commit(struct handler *handler, struct outbox *outbox)
{
    struct live_job *job;
    handle_settle(handler);
    for (size_t i = 0; i < outbox->count; i++)
        check_output(&outbox->outputs[i]);
    outbox_release(outbox);
    while ((job = ledger_first_unshown(handler->ledger))) {
        struct status status;
        status_make(&status, job, handler->rates);
        status_release(&status);
        ledger_shown(handler->ledger, job);
    }
}

static void serve_line(struct handler *handler, struct input line, int64_t number)
{
    uint8_t topic = take_byte(&line);
    const uint8_t *tab = line.size ? memchr(line.data, '\t', line.size) : NULL;
    size_t key = tab ? (size_t)(tab - line.data) : 0;
    struct outbox outbox = {0};
    struct kafka_record record = {
        .topic = topic_name(topic == 'e' ? TOPIC_EVENTS : TOPIC_JOBS),
        .partition = HOME,
        .offset = number,
        .timestamp_ms = NOW + number,
        .key = key ? line.data : NULL,
        .key_size = key,
        .value = tab ? tab + 1 : line.data,
        .value_size = line.size - (tab ? key + 1 : 0),
    };
    handle_record(handler, &record, NOW + 1000 * number, &outbox);
    commit(handler, &outbox);
    if (topic & 1) { /* `e`: time goes on, past what waits */
        handle_due(handler, NOW + 100000 * number, &outbox);
        commit(handler, &outbox);
    }
}

static void serve(struct input input)
{
    struct rates rates = {0};
    struct retry retry = {.limit = 2, .base_ms = 1000, .max_ms = 60000, .state = 1};
    static struct planner planner; /* its model cards are read once */
    struct handler handler = {ledger_new(), &planner, "coordinator-0", &retry, &rates};
    int64_t number = 0;
    if (!planner.seed)
        planner_init(&planner, SOURCE_DIR "/models", "emoji");
    planner.seed = seed;
    ledger_partition_add(handler.ledger, HOME);
    while (input.size)
        serve_line(&handler, take_line(&input), ++number);
    ledger_free(handler.ledger);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    switch (take_byte(&input)) {
    case 'e':
        read_event(input);
        break;
    case 's':
        read_job(input, state_decode, topic_name(TOPIC_STATE));
        break;
    case 'r':
        read_job(input, result_decode, topic_name(TOPIC_RESULTS));
        break;
    default:
        serve(input);
    }
    return 0;
}
