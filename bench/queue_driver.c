/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The load and the clock of ./bench/queue. Each command measures one thing and prints one JSON
 * object of numbers. Times are this process's monotonic clock, between its own sending and its own
 * reading with read_committed.
 */
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/queue_bus.h"
#include "common/clock.h"
#include "common/job.h"
#include "common/kafka.h"
#include "common/memory.h"
#include "workers/task_codec.h"

#define PATIENCE_MS   120000
#define BURST_LINGER  5 /* ms: a client that sends many gathers them */
#define TASK_HOMES    8 /* partitions that made-up tasks claim to come from */
#define FLOOR_BYTES   512
#define TAKEOVER_LEAD 3 /* records that a worker hands on before it is killed */

struct bench {
    const char *brokers;
    char run[64]; /* makes this run's ids its own */
    int argc;     /* what follows the command's name */
    char **argv;
};

_Noreturn static void die(const char *why)
{
    fprintf(stderr, "unclip-bench-queue: %s\n", why);
    exit(1);
}

static int number(const struct bench *bench, int at)
{
    char *end = NULL;
    long value = at < bench->argc ? strtol(bench->argv[at], &end, 10) : 0;
    if (!end || *end || value < 1 || value > 10000000)
        die("a number is missing or out of range; see the head of bench/queue");
    return (int)value;
}

static void print(json_t *object)
{
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(6));
    puts(text);
    free(text);
    json_decref(object);
}

/* --- numbers --- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int count, double q)
{
    int at = (int)(q * count);
    return sorted[at < count ? at : count - 1];
}

/* Sorts `ms`. */
static json_t *distribution(double *ms, int count)
{
    qsort(ms, (size_t)count, sizeof(*ms), compare);
    return json_pack("{s:i, s:f, s:f, s:f, s:f}", "count", count, "p50_ms", quantile(ms, count, .5),
                     "p90_ms", quantile(ms, count, .9), "p99_ms", quantile(ms, count, .99),
                     "max_ms", ms[count - 1]);
}

/* --- jobs --- */

static void job_id(const struct bench *bench, int i, char *out, size_t size)
{
    snprintf(out, size, "%s-%d", bench->run, i);
}

/* The number in a key of this run, "RUN-NUMBER" or "RUN-NUMBER/IMAGE"; -1 for any other. */
static int index_of(const struct bench *bench, const char *key, int count)
{
    size_t length = strlen(bench->run);
    if (strncmp(key, bench->run, length) != 0 || key[length] != '-')
        return -1;
    long i = strtol(key + length + 1, NULL, 10);
    return i < count ? (int)i : -1;
}

/* Five stages; no two prompts are the same, so that no cache has them. */
static void send_job(const struct bench *bench, struct bus_producer *producer, int i,
                     const char *task_class)
{
    char id[BUS_KEY_SIZE], body[512];
    job_id(bench, i, id, sizeof(id));
    int size = snprintf(body, sizeof(body),
                        "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a small red fox in "
                        "fresh snow at dusk, soft light, number %d of %s\",\"size\":1024,"
                        "\"seed\":%d,\"class\":\"%s\",\"client\":\"client-%d\"}",
                        i, bench->run, i, task_class, i % 20);
    bus_send(producer, topic_name(TOPIC_JOBS), id, body, (size_t)size, NULL);
}

/* --- latency --- */

/* One sample's way: sent at sent[i], back after ms[i]; < 0 until then. */
struct samples {
    const struct bench *bench;
    int count, back;
    double *sent, *ms;
};

static void samples_init(struct samples *samples, const struct bench *bench, int count)
{
    *samples = (struct samples){.bench = bench,
                                .count = count,
                                .sent = xcalloc((size_t)count, sizeof(double)),
                                .ms = xcalloc((size_t)count, sizeof(double))};
    for (int i = 0; i < count; i++)
        samples->ms[i] = -1;
}

static void samples_release(struct samples *samples)
{
    free(samples->sent);
    free(samples->ms);
}

static void samples_take(struct samples *samples, struct bus_tail *tail, int timeout_ms)
{
    struct bus_record record;
    if (!bus_tail_next(tail, timeout_ms, &record))
        return;
    int i = index_of(samples->bench, record.key, samples->count);
    if (i < 0 || samples->ms[i] >= 0)
        return;
    samples->ms[i] = bus_now_ms() - samples->sent[i];
    samples->back++;
}

static void samples_rest(struct samples *samples, struct bus_tail *tail)
{
    double deadline = bus_now_ms() + PATIENCE_MS;
    while (samples->back < samples->count) {
        if (bus_now_ms() > deadline)
            die("not all of it came back in time");
        samples_take(samples, tail, 100);
    }
}

typedef void (*send_one)(const struct bench *bench, struct bus_producer *producer, int i);

static void send_interactive(const struct bench *bench, struct bus_producer *producer, int i)
{
    send_job(bench, producer, i, "interactive");
}

static void send_plain(const struct bench *bench, struct bus_producer *producer, int i)
{
    char key[BUS_KEY_SIZE], value[FLOOR_BYTES] = {0};
    job_id(bench, i, key, sizeof(key));
    bus_send(producer, topic_name(TOPIC_DEAD_LETTER), key, value, sizeof(value), NULL);
}

/* COUNT at RATE a second, evenly, whether or not the one before is back. */
static json_t *latency(const struct bench *bench, const char *sink, send_one send)
{
    int count = number(bench, 0), rate = number(bench, 1);
    struct samples samples;
    struct bus_tail *tail = bus_tail_open(bench->brokers, sink);
    struct bus_producer *producer = bus_producer_open(bench->brokers, 0);
    samples_init(&samples, bench, count);
    double next = bus_now_ms();
    for (int i = 0; i < count; i++, next += 1000.0 / rate) {
        double left;
        while ((left = next - bus_now_ms()) > 0)
            samples_take(&samples, tail, left > 1 ? (int)left : 1);
        samples.sent[i] = bus_now_ms();
        send(bench, producer, i);
    }
    samples_rest(&samples, tail);
    json_t *answer = distribution(samples.ms, count);
    samples_release(&samples);
    bus_producer_close(producer);
    bus_tail_close(tail);
    return answer;
}

static void do_latency(const struct bench *bench)
{
    print(latency(bench, topic_name(TOPIC_RESULTS), send_interactive));
}

/* --- throughput --- */

/* COUNT as fast as they go; the time ends with the last one's return. */
static json_t *burst(const struct bench *bench, const char *sink, send_one send)
{
    int count = number(bench, 0);
    struct samples samples;
    struct bus_tail *tail = bus_tail_open(bench->brokers, sink);
    struct bus_producer *producer = bus_producer_open(bench->brokers, BURST_LINGER);
    samples_init(&samples, bench, count);
    double began = bus_now_ms();
    for (int i = 0; i < count; i++) {
        samples.sent[i] = bus_now_ms();
        send(bench, producer, i);
    }
    bus_flush(producer);
    double sent = bus_now_ms();
    samples_rest(&samples, tail);
    double s = (bus_now_ms() - began) / 1000;
    samples_release(&samples);
    bus_producer_close(producer);
    bus_tail_close(tail);
    return json_pack("{s:i, s:f, s:f, s:f}", "count", count, "seconds", s, "per_s", count / s,
                     "sent_per_s", count / (sent - began) * 1000);
}

static void send_bulk(const struct bench *bench, struct bus_producer *producer, int i)
{
    send_job(bench, producer, i, "bulk");
}

static void do_pipeline(const struct bench *bench)
{
    print(burst(bench, topic_name(TOPIC_RESULTS), send_bulk));
}

/* Sent and acknowledged, and then taken: the coordinator has logged the job's first state. */
static void do_submit(const struct bench *bench)
{
    print(burst(bench, topic_name(TOPIC_STATE), send_bulk));
}

static void do_floor(const struct bench *bench)
{
    json_t *answer = latency(bench, topic_name(TOPIC_DEAD_LETTER), send_plain);
    struct bench again = *bench;
    strcat(again.run, "b");
    json_object_set_new(answer, "burst", burst(&again, topic_name(TOPIC_DEAD_LETTER), send_plain));
    print(answer);
}

/* --- one worker --- */

static enum stage stage_of(const struct bench *bench)
{
    enum stage stage;
    if (bench->argc < 1 || !stage_parse(bench->argv[0], &stage) || stage == STAGE_UPSAMPLER_2)
        die("which stage? Any but the last one");
    return stage;
}

static void item_fill(struct item *item)
{
    item_init(item, "", "", 1);
    item->embed_dim = item->text_width = 8;
    item->text_len = 1;
    item->image_size = 8;
    item->text_embed = xcalloc(16, sizeof(float));
    item->text_states = xcalloc(16, sizeof(float));
    item->text_mask = xcalloc(2, 1);
    item->image_embed = xcalloc(8, sizeof(float));
    item->image = xcalloc(8 * 8 * 3, sizeof(float));
}

/* What the record of a text-to-image task has at `stage`. */
static unsigned groups_of(enum stage stage)
{
    return stage == STAGE_TEXT_ENCODE ? 0
           : stage == STAGE_PRIOR     ? TENSORS_RNG | TENSORS_TEXT
           : stage == STAGE_DECODER   ? TENSORS_RNG | TENSORS_TEXT | TENSORS_IMAGE_EMBED
                                      : TENSORS_RNG | TENSORS_IMAGE;
}

static void tensors_of(enum stage stage, void **bytes, size_t *size)
{
    struct item item;
    struct err err;
    item_fill(&item);
    if (tensors_encode(&item, groups_of(stage), bytes, size, &err))
        die(err.text);
    item_release(&item);
}

/* The route of a picture of 1024 px, at `stage`. */
static char *task_text(const struct bench *bench, enum stage stage, int i)
{
    char prompt[128];
    snprintf(prompt, sizeof(prompt), "a small red fox in fresh snow, number %d of %s", i,
             bench->run);
    int64_t now_ms = clock_wall_ms(clock_system());
    struct task task = {.images = 1,
                        .home = i % TASK_HOMES,
                        .model = "emoji",
                        .prompt = prompt,
                        .negative_prompt = (char[]){""},
                        .seed = i,
                        .size = 1024,
                        .created_at_ms = now_ms,
                        .enqueued_at_ms = now_ms};
    job_id(bench, i, task.job, sizeof(task.job));
    for (enum stage s = 0; s < STAGE_COUNT; s++) {
        if (s == STAGE_IMAGE_ENCODE) /* pictures from text do without */
            continue;
        if (s == stage)
            task.hop = task.hops;
        task.route[task.hops++] = (struct hop){.stage = s,
                                               .steps = stage_has_steps(s) ? 4 : 0,
                                               .guidance = stage_has_guidance(s) ? 2 : 0};
    }
    return task_to_json(&task);
}

/* Tasks of no job, straight into the stage's topic. */
static void flood(const struct bench *bench, enum stage stage, int count)
{
    struct bus_producer *producer = bus_producer_open(bench->brokers, BURST_LINGER);
    void *bytes;
    size_t size;
    tensors_of(stage, &bytes, &size);
    for (int i = 0; i < count; i++) {
        char id[BUS_KEY_SIZE], key[BUS_KEY_SIZE + 4], *text = task_text(bench, stage, i);
        job_id(bench, i, id, sizeof(id));
        snprintf(key, sizeof(key), "%s/0", id);
        bus_send(producer, topic_tasks(stage, CLASS_INTERACTIVE), key, bytes, size, text);
        free(text);
    }
    bus_flush(producer);
    free(bytes);
    bus_producer_close(producer);
}

static pid_t spawn(char **command)
{
    if (!*command)
        die("which worker? Its command follows --");
    pid_t pid = fork();
    if (pid < 0)
        die("cannot fork");
    if (pid == 0) {
        execvp(command[0], command);
        _exit(127);
    }
    return pid;
}

static void end(pid_t pid, int how)
{
    int status;
    kill(pid, how);
    if (waitpid(pid, &status, 0) != pid || (how == SIGTERM && status != 0))
        die("the worker did not end well");
}

static char **command_of(const struct bench *bench)
{
    int at = 0;
    while (at < bench->argc && strcmp(bench->argv[at], "--") != 0)
        at++;
    if (at >= bench->argc)
        die("which worker? Its command follows --");
    return bench->argv + at + 1;
}

/* The next record of this run; its index. */
static int next_index(const struct bench *bench, struct bus_tail *tail, int count)
{
    double deadline = bus_now_ms() + PATIENCE_MS;
    struct bus_record record;
    while (bus_now_ms() < deadline) {
        int i = bus_tail_next(tail, 100, &record) ? index_of(bench, record.key, count) : -1;
        if (i >= 0)
            return i;
    }
    die("the worker has handed nothing on in time");
}

/* STAGE COUNT -- COMMAND: the worker finds COUNT tasks; its rate from its first commit to its last.
 */
static void do_worker(const struct bench *bench)
{
    enum stage stage = stage_of(bench);
    int count = number(bench, 1), seen = 0, first = 0;
    char **command = command_of(bench);
    flood(bench, stage, count);
    struct bus_tail *tail =
        bus_tail_open(bench->brokers, topic_tasks((enum stage)(stage + 1), CLASS_INTERACTIVE));
    double began = 0, now = 0;
    pid_t worker = spawn(command);
    for (; seen < count; seen++) {
        next_index(bench, tail, count);
        now = bus_now_ms();
        if (seen == 0)
            began = now;
        first += now - began < 1; /* came with the first commit */
    }
    end(worker, SIGTERM);
    bus_tail_close(tail);
    double s = (now - began) / 1000;
    print(json_pack("{s:i, s:f, s:f}", "count", count, "seconds", s, "per_s",
                    s > 0 ? (count - first) / s : 0));
}

/* STAGE ROUNDS -- COMMAND: kill -9 in mid work, and the time from the next start of the same slot
   to the first commit that is seen. */
static void do_takeover(const struct bench *bench)
{
    enum stage stage = stage_of(bench);
    int rounds = number(bench, 1), count = 5000 * (rounds + 1);
    char **command = command_of(bench);
    double *ms = xcalloc((size_t)rounds, sizeof(*ms));
    flood(bench, stage, count);
    struct bus_tail *tail =
        bus_tail_open(bench->brokers, topic_tasks((enum stage)(stage + 1), CLASS_INTERACTIVE));
    pid_t worker = spawn(command);
    for (int i = 0; i < TAKEOVER_LEAD; i++)
        next_index(bench, tail, count);
    for (int round = 0; round < rounds; round++) {
        end(worker, SIGKILL);
        bus_tail_skip(tail);
        double began = bus_now_ms();
        worker = spawn(command);
        next_index(bench, tail, count);
        ms[round] = bus_now_ms() - began;
    }
    end(worker, SIGTERM);
    bus_tail_close(tail);
    print(distribution(ms, rounds));
    free(ms);
}

/* --- lag --- */

/* Of all stages' groups, in offsets: records and the markers of transactions. */
static void do_lag(const struct bench *bench)
{
    struct config config = {.kafka = (char *)(uintptr_t)bench->brokers};
    struct kafka_client *client;
    struct err err;
    int64_t all = 0, lag;
    if (kafka_client_open(&client, &config, &err))
        die(err.text);
    for (int i = 0; i < STAGE_COUNT * CLASS_COUNT; i++) {
        enum stage stage = (enum stage)(i / CLASS_COUNT);
        enum task_class task_class = (enum task_class)(i % CLASS_COUNT);
        if (kafka_client_lag(client, topic_tasks_group(stage, task_class),
                             topic_tasks(stage, task_class), 10000, &lag, &err))
            die(err.text);
        all += lag;
    }
    kafka_client_close(client);
    print(json_pack("{s:I}", "lag", (json_int_t)all));
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const struct bench *bench);
    } commands[] = {{"latency", do_latency}, {"pipeline", do_pipeline}, {"submit", do_submit},
                    {"floor", do_floor},     {"worker", do_worker},     {"takeover", do_takeover},
                    {"lag", do_lag}};
    struct bench bench = {.brokers = getenv("UNCLIP_KAFKA"), .argc = argc - 2, .argv = argv + 2};
    if (argc < 2 || !bench.brokers)
        die("needs a command, and UNCLIP_KAFKA; ./bench/queue is what to run");
    snprintf(bench.run, sizeof(bench.run) - 1, "bench-%d-%lld", (int)getpid(),
             (long long)clock_wall_ms(clock_system()));
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            commands[i].run(&bench);
            return 0;
        }
    die("no such command");
}
