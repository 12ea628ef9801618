/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unclip dlq: the dead letters. Each verb reads unclip.dead-letter from its beginning to where all
 * of its partitions ended at the start, so that what a replay brings back is not replayed in turn.
 * What a letter means and how its record is sent again: letter.c.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/letter.h"
#include "client/text.h"
#include "common/memory.h"

#define READ_MS   30000 /* a partition */
#define SEND_MS   10000
#define FOUND     1 /* ends a reading */
#define PLACES    1000
#define LIMIT_MAX 10000

struct values {
    const char *job, *code, *before;
    int64_t limit;
    bool json, all, yes;
};

static void defaults(void *values)
{
    ((struct values *)values)->limit = 20;
}

/* One run of a verb. */
struct session {
    const struct invocation *invocation;
    const struct values *values;
    int count;       /* of operands after the verb */
    char **operands; /* borrowed */
    struct kafka_client *client;
    int partitions;
    int unreadable; /* records that are no dead letters */
};

typedef int (*letter_fn)(void *context, const struct letter *letter, struct err *err);

/* --- reading --- */

struct reading {
    struct session *session;
    letter_fn each;
    void *context;
    int64_t *ends; /* by partition: where it ended before the first was read */
};

static int read_record(void *context, const struct kafka_record *record, struct err *err)
{
    struct reading *reading = context;
    const struct values *values = reading->session->values;
    struct letter letter;
    struct err why;
    if (record->offset >= reading->ends[record->partition])
        return FOUND;
    if (letter_read(&letter, record, &why) < 0) {
        reading->session->unreadable++;
        return 0;
    }
    int rc = letter_matches(&letter, values->job, values->code)
                 ? reading->each(reading->context, &letter, err)
                 : 0;
    letter_release(&letter);
    return rc;
}

/* All letters that match, partition by partition. */
static int read_letters(struct session *session, letter_fn each, void *context, struct err *err)
{
    const char *topic = topic_name(TOPIC_DEAD_LETTER);
    size_t count = (size_t)session->partitions;
    struct reading reading = {session, each, context, xcalloc(count, sizeof *reading.ends)};
    int rc = 0;
    for (int i = 0; i < session->partitions && rc >= 0; i++)
        rc = kafka_client_end(session->client, topic, i, SEND_MS, &reading.ends[i], err);
    for (int i = 0; i < session->partitions && rc >= 0; i++)
        rc = kafka_client_read(session->client, topic, i, READ_MS, read_record, &reading, err);
    free(reading.ends);
    return rc < 0 ? rc : 0;
}

struct search {
    struct place place;
    struct letter letter; /* json is NULL until it is found */
};

static int search_record(void *context, const struct kafka_record *record, struct err *err)
{
    struct search *search = context;
    if (record->offset < search->place.offset)
        return 0;
    if (record->offset > search->place.offset)
        return FOUND;
    int rc = letter_read(&search->letter, record, err);
    return rc < 0 ? rc : FOUND;
}

/* The letter at a place that a person wrote. letter_release() it. */
static int find(struct session *session, const char *text, struct letter *letter, struct err *err)
{
    struct search search = {0};
    if (!place_parse(text, &search.place))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is no place: PARTITION:OFFSET, as in list",
                       text);
    int rc = search.place.partition < session->partitions
                 ? kafka_client_read(session->client, topic_name(TOPIC_DEAD_LETTER),
                                     search.place.partition, READ_MS, search_record, &search, err)
                 : 0;
    if (rc < 0)
        return rc;
    if (!search.letter.json)
        return err_set(err, ERR_NOT_FOUND, "no dead letter at %s", text);
    *letter = search.letter;
    return 0;
}

static void put_json(const struct letter *letter, bool whole)
{
    json_t *json = letter_json(letter, whole);
    char *text = json_dumps(json, JSON_COMPACT);
    puts(text);
    free(text);
    json_decref(json);
}

/* --- list --- */

struct newest {
    struct letter *letters; /* at most twice the limit */
    size_t count, limit;
};

static int compare_age(const void *a, const void *b)
{
    const struct letter *x = a, *y = b;
    int order = strcmp(letter_text(y, "at"), letter_text(x, "at"));
    if (order != 0)
        return order;
    return (y->place.offset > x->place.offset) - (y->place.offset < x->place.offset);
}

/* Sorts, the newest first, and lets go what is over the limit. */
static void newest_prune(struct newest *newest)
{
    if (newest->count)
        qsort(newest->letters, newest->count, sizeof *newest->letters, compare_age);
    while (newest->count > newest->limit)
        letter_release(&newest->letters[--newest->count]);
}

static int keep_one(void *context, const struct letter *letter, struct err *err)
{
    struct newest *newest = context;
    (void)err;
    if (newest->count == 2 * newest->limit)
        newest_prune(newest);
    newest->letters[newest->count++] = (struct letter){letter->place, letter_json(letter, false)};
    return 0;
}

static void list_print(const struct newest *newest, bool json)
{
    if (!json && newest->count)
        letter_heading(stdout);
    for (size_t i = 0; i < newest->count; i++)
        if (json)
            put_json(&newest->letters[i], false);
        else
            letter_row(&newest->letters[i], stdout);
}

static int list(struct session *session, struct err *err)
{
    size_t limit = (size_t)session->values->limit;
    struct newest newest = {xcalloc(2 * limit, sizeof(struct letter)), 0, limit};
    int rc = read_letters(session, keep_one, &newest, err);
    newest_prune(&newest);
    if (rc == 0)
        list_print(&newest, session->values->json);
    if (rc == 0 && newest.count == 0)
        fprintf(stderr, "no dead letters\n");
    newest.limit = 0;
    newest_prune(&newest);
    free(newest.letters);
    return rc;
}

/* --- show --- */

static void print_whole(const struct letter *letter)
{
    json_t *json = letter_json(letter, true);
    char *text = json_dumps(json, JSON_INDENT(2));
    text_print(text, true, stdout);
    putchar('\n');
    free(text);
    json_decref(json);
}

static int show(struct session *session, struct err *err)
{
    struct letter letter;
    int rc = find(session, session->operands[0], &letter, err);
    if (rc < 0)
        return rc;
    if (session->values->json)
        put_json(&letter, true);
    else
        print_whole(&letter);
    letter_release(&letter);
    return 0;
}

/* --- replay --- */

struct replaying {
    struct session *session;
    int sent, refused;
};

static void say_sent(const struct session *session, const struct letter *letter,
                     const struct resend *resend)
{
    char place[PLACE_SIZE];
    place_text(letter->place, place);
    if (session->values->json && *resend->id)
        printf("{\"place\":\"%s\",\"id\":\"%s\"}\n", place, resend->id);
    else if (session->values->json)
        printf("{\"place\":\"%s\",\"id\":null}\n", place);
    else if (*resend->id)
        printf("%s  sent as job %s\n", place, resend->id);
    else
        printf("%s  sent back to %s [%d]\n", place, resend->topic, (int)resend->output.partition);
    fflush(stdout);
}

/* Errors: the servers'. A letter that cannot be sent again is said, counted and passed over. */
static int replay_one(void *context, const struct letter *letter, struct err *err)
{
    struct replaying *replaying = context;
    struct resend resend;
    struct err why;
    char place[PLACE_SIZE];
    if (letter_resend(letter, &resend, &why) < 0) {
        complain(replaying->session->invocation, "%s is not sent again: %s",
                 place_text(letter->place, place), why.text);
        replaying->refused++;
        return 0;
    }
    int rc = kafka_client_send(replaying->session->client, &resend.output, SEND_MS, err);
    if (rc == 0) {
        say_sent(replaying->session, letter, &resend);
        replaying->sent++;
    }
    resend_release(&resend);
    return rc;
}

static int replay_places(struct replaying *replaying, struct err *err)
{
    struct session *session = replaying->session;
    int rc = 0;
    for (int i = 0; i < session->count && rc == 0; i++) {
        struct letter letter;
        rc = find(session, session->operands[i], &letter, err);
        if (rc == 0) {
            rc = replay_one(replaying, &letter, err);
            letter_release(&letter);
        }
    }
    return rc;
}

static int replay(struct session *session, struct err *err)
{
    const struct values *values = session->values;
    struct replaying replaying = {.session = session};
    bool many = values->all || values->job;
    if (many == (session->count > 0) || (values->all && values->job))
        return err_set(err, ERR_INVALID_ARGUMENT, "replay needs PLACE…, --job ID or --all");
    if (!many && values->code)
        return err_set(err, ERR_INVALID_ARGUMENT, "--code goes with --job or --all");
    int rc =
        many ? read_letters(session, replay_one, &replaying, err) : replay_places(&replaying, err);
    if (rc == 0 && replaying.sent + replaying.refused == 0)
        return err_set(err, ERR_NOT_FOUND, "no dead letter matches");
    if (rc == 0 && replaying.refused)
        return err_set(err, ERR_UNSUPPORTED, "%d sent, %d not", replaying.sent, replaying.refused);
    return rc;
}

/* --- purge --- */

struct purging {
    int64_t before_ms;    /* INT64_MAX: all */
    struct place place;   /* partition -1: none was given */
    int64_t cut;          /* of the partition at hand: what is kept begins there */
    int64_t below, found; /* records below the cut, in this and in all partitions */
};

static int count_record(void *context, const struct kafka_record *record, struct err *err)
{
    struct purging *purging = context;
    bool keep = purging->place.partition >= 0 ? record->offset >= purging->place.offset
                                              : record->timestamp_ms >= purging->before_ms;
    (void)err;
    if (keep)
        return FOUND;
    purging->cut = record->offset + 1;
    purging->below++;
    return 0;
}

static int purge_partition(struct session *session, struct purging *purging, int partition,
                           struct err *err)
{
    const char *topic = topic_name(TOPIC_DEAD_LETTER);
    purging->cut = 0;
    purging->below = 0;
    int rc =
        kafka_client_read(session->client, topic, partition, READ_MS, count_record, purging, err);
    if (rc < 0 || purging->below == 0)
        return rc < 0 ? rc : 0;
    purging->found += purging->below;
    return session->values->yes
               ? kafka_client_delete(session->client, topic, partition, purging->cut, SEND_MS, err)
               : 0;
}

static int purge_bounds(const struct session *session, struct purging *purging, struct err *err)
{
    const char *before = session->values->before;
    *purging = (struct purging){.before_ms = INT64_MAX, .place.partition = -1};
    if (!before || place_parse(before, &purging->place))
        return 0;
    purging->place.partition = -1;
    if (time_parse(before, &purging->before_ms))
        return 0;
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "--before is '%s', neither a time like 2026-01-31T12:34:56Z nor a place "
                   "PARTITION:OFFSET",
                   before);
}

static int purge(struct session *session, struct err *err)
{
    struct purging purging;
    int rc = purge_bounds(session, &purging, err);
    if (rc == 0 && (session->values->job || session->values->code))
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "purge knows only --before: Kafka deletes from the beginning on");
    for (int i = 0; i < session->partitions && rc == 0; i++)
        if (purging.place.partition < 0 || purging.place.partition == i)
            rc = purge_partition(session, &purging, i, err);
    if (rc < 0)
        return rc;
    if (!session->values->yes && purging.found)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%lld letters would be deleted for good: say --yes",
                       (long long)purging.found);
    printf("%lld letters deleted\n", (long long)purging.found);
    return 0;
}

/* --- the command --- */

static const struct verb {
    const char *name;
    int least, most; /* operands after it */
    int (*run)(struct session *session, struct err *err);
} verbs[] = {
    {"list", 0, 0, list},
    {"show", 1, 1, show},
    {"replay", 0, PLACES, replay},
    {"purge", 0, 0, purge},
};

static const struct verb *verb_find(const char *name)
{
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(verbs[i].name, name) == 0)
            return &verbs[i];
    return NULL;
}

static int session_run(struct session *session, const struct verb *verb, struct err *err)
{
    int rc = kafka_client_open(&session->client, session->invocation->config, err);
    if (rc == 0)
        rc = kafka_client_partitions(session->client, topic_name(TOPIC_DEAD_LETTER), SEND_MS,
                                     &session->partitions, err);
    if (rc == 0)
        rc = verb->run(session, err);
    kafka_client_close(session->client);
    return rc;
}

static enum exit_code run(const struct invocation *invocation)
{
    const struct verb *verb = verb_find(invocation->operands[0]);
    struct session session = {.invocation = invocation,
                              .values = invocation->values,
                              .count = invocation->count - 1,
                              .operands = invocation->operands + 1};
    struct err err;
    if (!verb || session.count < verb->least || session.count > verb->most) {
        complain(invocation,
                 verb ? "'%s' with %d more words is not meant, see --help"
                      : "no verb '%s': list, show, replay or purge",
                 invocation->operands[0], session.count);
        return EXIT_MISUSE;
    }
    int rc = session_run(&session, verb, &err);
    if (session.unreadable)
        complain(invocation, "%d records are no dead letters, passed over", session.unreadable);
    return rc < 0 ? complain_of(invocation, &err) : EXIT_OK;
}

#define AT(member) offsetof(struct values, member)

static const struct option choice_options[] = {
    {"job", 0, OPTION_TEXT, "ID", 0, 0, NULL, AT(job), "list, replay: letters of that job"},
    {"code", 0, OPTION_TEXT, "CODE", 0, 0, NULL, AT(code),
     "list, replay: letters with that error code"},
    {"all", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(all), "replay: all of them"},
    {"before", 0, OPTION_TEXT, "WHEN", 0, 0, "all", AT(before),
     "purge: those before a UTC time, or a place in its partition"},
    {"yes", 'y', OPTION_FLAG, NULL, 0, 0, NULL, AT(yes), "purge: do it, not only count"},
    {0},
};
static const struct option output_options[] = {
    {"limit", 'n', OPTION_INTEGER, "N", 1, LIMIT_MAX, "20", AT(limit), "list: most letters"},
    {"json", 0, OPTION_FLAG, NULL, 0, 0, NULL, AT(json), "one JSON object a line"},
    {0},
};
static const struct option_group groups[] = {
    {"Which letters", choice_options}, {"Output", output_options}, {0}};

const struct command dlq_command = {
    .name = "dlq",
    .operands = "list | show PLACE | replay PLACE… | purge",
    .least = 1,
    .most = 1 + PLACES,
    .summary = "list, show, send again or delete the dead letters",
    .groups = groups,
    .values_size = sizeof(struct values),
    .defaults = defaults,
    .details =
        "PLACE is PARTITION:OFFSET, as list shows it; a time is 2026-01-31 or "
        "2026-01-31T12:34:56Z.\n"
        "replay sends what was refused again: a job, or the picture of a task that failed, as a "
        "new job with\nthe suffix .retry-PARTITION-OFFSET (its old id has ended); anything else "
        "goes back as it was to where\nit came from. The same letter gives the same id, so that a "
        "job that is sent again twice is made once.\n",
    .settings = {"kafka"},
    .run = run,
};
