/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exactly once on a real broker: worker processes copy records from one topic to another through
 * kafka_commit(), are killed and started again in the middle, and every record is in the output
 * once. A reader of that output that has nothing left to do has a lag of exactly 0. A replay waits
 * for what an earlier owner of the partition may still commit. The broker's address is argv[1] or
 * UNCLIP_KAFKA; topics are made anew for each run.
 */
#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/kafka.h"
#include "common/log.h"
#include "common/memory.h"

#define RECORDS    1500
#define PARTITIONS 4
#define BATCH      10
#define WORK_MS    20
#define COMMIT_MS  60000
#define PATIENCE_S 90

static char source[64], target[64], group[64];
static struct config config;
static volatile sig_atomic_t stopping;

static void die(const char *what, const struct err *err)
{
    fprintf(stderr, "%s: %s\n", what, err ? err->text : "");
    exit(1);
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static struct kafka *join(const char *slot)
{
    struct err err = {0};
    struct kafka *kafka;
    const char *lane[] = {source, NULL}, *outputs[] = {target, NULL};
    struct kafka_options options = {.config = &config,
                                    .lane_group = {group},
                                    .slot = slot,
                                    .lane_topics = {lane},
                                    .output_topics = outputs};
    if (kafka_open(&kafka, &options, &err))
        die("kafka_open", &err);
    return kafka;
}

/* --- the worker process --- */

static void on_stop(int number)
{
    (void)number;
    stopping = 1;
}

static void hand_on(struct kafka *kafka, struct kafka_record **records, size_t count)
{
    struct kafka_unit units[BATCH] = {0};
    struct kafka_output outputs[BATCH];
    struct err err = {0};
    for (size_t i = 0; i < count; i++) {
        outputs[i] = (struct kafka_output){.topic = target,
                                           .partition = KAFKA_ANY_PARTITION,
                                           .key = records[i]->key,
                                           .key_size = records[i]->key_size,
                                           .value = records[i]->value,
                                           .value_size = records[i]->value_size};
        units[i] =
            (struct kafka_unit){.record = records[i], .outputs = &outputs[i], .output_count = 1};
    }
    if (kafka_commit(kafka, units, count, COMMIT_MS, &err))
        die("kafka_commit", &err);
    for (size_t i = 0; i < count; i++)
        kafka_record_free(records[i]);
}

static void copy(const char *slot)
{
    struct kafka *kafka = join(slot);
    struct err err = {0};
    signal(SIGTERM, on_stop);
    while (!stopping) {
        struct kafka_record *records[BATCH];
        size_t count = 0;
        int rc;
        while (count < BATCH &&
               !(rc = kafka_poll(kafka, 0, count ? 5 : 100, &records[count], &err)) &&
               records[count])
            count++;
        if (err.code)
            die("kafka_poll", &err);
        if (count == 0) {
            kafka_commit_idle(kafka, 0);
            continue;
        }
        pause_ms(WORK_MS);
        hand_on(kafka, records, count);
    }
    kafka_close(kafka);
    exit(0);
}

static pid_t spawn(const char *slot)
{
    pid_t pid = fork();
    if (pid == 0) {
        log_init(slot, LOG_LEVEL_INFO);
        copy(slot);
    }
    return pid;
}

/* --- the test --- */

static void make_topics(struct kafka_client *client)
{
    struct err err = {0};
    struct kafka_topic_spec specs[] = {{source, PARTITIONS, 1, false},
                                       {target, PARTITIONS, 1, false}};
    if (kafka_client_create_topics(client, specs, 2, 30000, &err))
        die("create topics", &err);
    if (kafka_client_create_topics(client, specs, 2, 30000, &err))
        die("create topics again", &err);
    specs[0].partitions++;
    if (kafka_client_create_topics(client, specs, 1, 30000, &err) != -ERR_CONFLICT)
        die("a topic of another partition count was not refused", NULL);
}

static void send_range(struct kafka_client *client, int from, int to)
{
    struct err err = {0};
    for (int i = from; i < to; i++) {
        char key[16];
        int size = snprintf(key, sizeof(key), "%d", i);
        struct kafka_output output = {.topic = source,
                                      .partition = KAFKA_ANY_PARTITION,
                                      .key = key,
                                      .key_size = (size_t)size,
                                      .value = key,
                                      .value_size = (size_t)size};
        if (kafka_client_send(client, &output, 30000, &err))
            die("send", &err);
    }
}

static int note(void *context, const struct kafka_record *record, struct err *err)
{
    int *seen = context;
    (void)err;
    seen[atoi((const char *)record->value)]++;
    return 0;
}

/* How many distinct records the output has; counts each in seen[]. */
static int count_output(struct kafka *kafka, int *seen)
{
    struct err err = {0};
    int distinct = 0;
    memset(seen, 0, RECORDS * sizeof(*seen));
    for (int p = 0; p < PARTITIONS; p++)
        if (kafka_replay(kafka, target, p, 60000, note, seen, &err))
            die("replay", &err);
    for (int i = 0; i < RECORDS; i++)
        distinct += seen[i] > 0;
    return distinct;
}

static void await(struct kafka *kafka, int *seen, int wanted)
{
    struct err err = {0};
    for (int i = 0; i < PATIENCE_S * 5; i++) {
        if (count_output(kafka, seen) >= wanted)
            return;
        if (kafka_poll(kafka, -1, 200, NULL, &err))
            die("poll", &err);
    }
    die("the output is not complete in time", NULL);
}

static void finish(pid_t pid)
{
    int status;
    kill(pid, SIGTERM);
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        die("a worker did not leave in order", NULL);
}

static void kill_now(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* How far the group is behind the end of the output, transaction markers counted. */
static int64_t lag(const char *reader)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", config.kafka, NULL, 0);
    rd_kafka_conf_set(conf, "group.id", reader, NULL, 0);
    rd_kafka_t *consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, NULL, 0);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(PARTITIONS);
    rd_kafka_topic_partition_list_add_range(list, target, 0, PARTITIONS - 1);
    rd_kafka_resp_err_t code = rd_kafka_committed(consumer, list, 30000);
    int64_t sum = 0;
    for (int i = 0; i < list->cnt && !code; i++) {
        int64_t low, high;
        code = rd_kafka_query_watermark_offsets(consumer, target, i, &low, &high, 30000);
        sum += high - (list->elems[i].offset > 0 ? list->elems[i].offset : 0);
    }
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(consumer);
    if (code)
        die("committed offsets", NULL);
    return sum;
}

/* Reads the whole output in one more group, then idles. */
static void read_to_the_end(void)
{
    struct err err = {0};
    snprintf(group, sizeof(group), "reader-%d", getpid());
    memcpy(source, target, sizeof(source));
    struct kafka *kafka = join("reader-0");
    static struct kafka_unit units[RECORDS];
    for (size_t read = 0; read < RECORDS; read += units[read].record != NULL)
        if (kafka_poll(kafka, 0, 1000, &units[read].record, &err))
            die("poll", &err);
    if (kafka_commit(kafka, units, RECORDS, COMMIT_MS, &err))
        die("commit", &err);
    for (size_t i = 0; i < RECORDS; i++)
        kafka_record_free(units[i].record);
    for (int i = 0; i < PATIENCE_S && lag(group) > 0; i++) {
        kafka_commit_idle(kafka, 0);
        struct kafka_record *record;
        if (kafka_poll(kafka, 0, 100, &record, &err) || record)
            die("poll", &err);
    }
    kafka_close(kafka);
    if (lag(group) != 0)
        die("an idle reader is behind", NULL);
}

/* --- a new owner and the old one's transaction --- */

#define LATE_KEY "late"

static void check(rd_kafka_error_t *error, const char *what)
{
    if (error)
        die(what, &(struct err){.text = "librdkafka refused"});
}

/* The old owner: its offsets are accepted by the group, its record is not written yet. */
static rd_kafka_t *owner_begin(void)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    char id[80];
    snprintf(id, sizeof(id), "old-%s", group);
    rd_kafka_conf_set(conf, "bootstrap.servers", config.kafka, NULL, 0);
    rd_kafka_conf_set(conf, "transactional.id", id, NULL, 0);
    rd_kafka_t *owner = rd_kafka_new(RD_KAFKA_PRODUCER, conf, NULL, 0);
    rd_kafka_consumer_group_metadata_t *metadata = rd_kafka_consumer_group_metadata_new(group);
    rd_kafka_topic_partition_list_t *offsets = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(offsets, source, 0)->offset = 1;
    check(rd_kafka_init_transactions(owner, 30000), "init");
    check(rd_kafka_begin_transaction(owner), "begin");
    check(rd_kafka_send_offsets_to_transaction(owner, offsets, metadata, 30000), "offsets");
    rd_kafka_topic_partition_list_destroy(offsets);
    rd_kafka_consumer_group_metadata_destroy(metadata);
    return owner;
}

/* Its record, and the commit: the later, the better the chance that a hasty reader misses it. */
static void *owner_end(void *owner)
{
    pause_ms(1500);
    if (rd_kafka_producev(owner, RD_KAFKA_V_TOPIC(target), RD_KAFKA_V_PARTITION(0),
                          RD_KAFKA_V_VALUE((void *)(uintptr_t)LATE_KEY, strlen(LATE_KEY)),
                          RD_KAFKA_V_END))
        die("the old owner's record", NULL);
    check(rd_kafka_commit_transaction(owner, 30000), "the old owner's commit");
    return NULL;
}

static int note_late(void *context, const struct kafka_record *record, struct err *err)
{
    (void)err;
    if (record->value_size == strlen(LATE_KEY) && memcmp(record->value, LATE_KEY, 4) == 0)
        ++*(int *)context;
    return 0;
}

static void replay_waits(void)
{
    struct err err = {0};
    pthread_t thread;
    int late = 0;
    snprintf(group, sizeof(group), "owners-%d", getpid());
    rd_kafka_t *old = owner_begin();
    struct kafka *kafka = join("owner-0");
    while (!kafka_assigned(kafka))
        if (kafka_poll(kafka, -1, 100, NULL, &err))
            die("poll", &err);
    pthread_create(&thread, NULL, owner_end, old);
    if (kafka_replay(kafka, target, 0, 30000, note_late, &late, &err))
        die("replay", &err);
    pthread_join(thread, NULL);
    kafka_close(kafka);
    rd_kafka_destroy(old);
    if (late != 1)
        die("a replay did not wait for the owner before it", NULL);
}

int main(int argc, char **argv)
{
    struct err err = {0};
    static int seen[RECORDS];
    const char *brokers = argc > 1 ? argv[1] : getenv("UNCLIP_KAFKA");
    if (!brokers)
        die("usage: test_kafka_exactly_once HOST:PORT", NULL);
    config.kafka = xstrdup(brokers);
    log_init("test", LOG_LEVEL_INFO);
    snprintf(source, sizeof(source), "once-in-%d", getpid());
    snprintf(target, sizeof(target), "once-out-%d", getpid());
    snprintf(group, sizeof(group), "once-%d", getpid());
    struct kafka_client *client;
    if (kafka_client_open(&client, &config, &err))
        die("client", &err);
    make_topics(client);
    pid_t first = spawn("copy-0"), second = spawn("copy-1");
    send_range(client, 0, RECORDS);
    snprintf(group, sizeof(group), "watch-%d", getpid());
    struct kafka *watcher = join("watch-0");
    await(watcher, seen, RECORDS / 8);
    kill_now(first);
    await(watcher, seen, RECORDS / 4);
    snprintf(group, sizeof(group), "once-%d", getpid());
    first = spawn("copy-0");
    await(watcher, seen, RECORDS / 2);
    kill(second, SIGSTOP); /* longer than its session: it comes back as a zombie */
    for (int i = 0; i < 8; i++)
        await(watcher, seen, RECORDS / 2), pause_ms(1000);
    kill(second, SIGCONT);
    await(watcher, seen, RECORDS);
    finish(first);
    finish(second);
    await(watcher, seen, RECORDS);
    for (int i = 0; i < RECORDS; i++)
        if (seen[i] != 1) {
            fprintf(stderr, "record %d is %d times in the output\n", i, seen[i]);
            return 1;
        }
    kafka_close(watcher);
    read_to_the_end();
    replay_waits();
    kafka_client_close(client);
    config_release(&config);
    printf("%d records, each once\n", RECORDS);
    return 0;
}
