/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Kafka thread's loop. One turn: take the finished batch from the compute thread, pull tasks,
 * give the next batch out (so that computing never waits for a commit), commit the finished one;
 * and when there was nothing to do, sleep until Kafka, the compute thread or the linger time wakes
 * us.
 *
 * While a batch computes, only tasks of the class that comes next are pulled, at most one batch of
 * them: whatever is not pulled goes to another worker when one joins.
 */
#include "workers/worker.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fault.h"
#include "common/image.h"
#include "common/kafka.h"
#include "common/log.h"
#include "common/memory.h"
#include "workers/batch.h"
#include "workers/compute.h"
#include "workers/counters.h"
#include "workers/deaths.h"
#include "workers/presence.h"
#include "workers/sweeper.h"

#define IDLE_MS 1000 /* longest sleep */
/* Of outputs in one transaction, or one task's: it is to end long before transaction.timeout.ms. */
#define COMMIT_BYTES_MAX (16 << 20)

struct worker {
    const struct config *config;
    enum stage stage;
    char name[64]; /* "decoder-0": the slot */
    struct clock *clock;
    struct kafka *kafka;
    struct probe *probe; /* NULL: none */
    struct storage *storage;
    struct sweeper *sweeper;
    struct redis *redis; /* the counters' and the presence's connection */
    struct presence presence;
    bool redis_away;
    struct deaths deaths; /* on the same connection */
    struct compute *compute;
    struct batcher batcher;
    struct work *busy; /* borrowed: in the compute thread's hands */
    int homes;
    size_t partitions; /* as last said */
    bool ready;        /* said so */
    int64_t load_ms;
    enum dtype dtype;
    int threads;
};

static volatile sig_atomic_t stops; /* how many SIGTERM or SIGINT have come */

static void on_stop(int number)
{
    (void)number;
    if (++stops > 1)
        _exit(1);
}

/* Only the main thread gets them: threads made before stops_unblock() inherit the block. */
static void stops_block(void)
{
    struct sigaction action = {.sa_handler = on_stop};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static void stops_unblock(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* --- pulling --- */

static bool parcel_gone(void *context, const void *payload)
{
    const struct worker *worker = context;
    const struct parcel *parcel = payload;
    return !kafka_record_current(worker->kafka, parcel->record);
}

/* After a rebalance: forget what waits, give up what is computed, of partitions that went away. */
static void drop_revoked(struct worker *worker)
{
    void **gone = xcalloc(worker->batcher.count, sizeof(*gone));
    size_t count = batcher_remove(&worker->batcher, parcel_gone, worker, gone);
    for (size_t i = 0; i < count; i++)
        parcel_free(gone[i]);
    free(gone);
    for (size_t i = 0; worker->busy && i < worker->busy->count; i++)
        if (parcel_gone(worker, worker->busy->parcels[i])) {
            atomic_store(&worker->busy->parcels[i]->abandoned, true);
            deaths_take_back(&worker->deaths, &worker->busy->parcels[i], 1);
        }
}

/* Asks of each newly pulled task whether its worker has died before. */
static void find_suspects(struct worker *worker)
{
    struct batcher *batcher = &worker->batcher;
    struct parcel **parcels = xcalloc(batcher->count, sizeof(struct parcel *));
    size_t count = 0;
    for (size_t i = 0; i < batcher->count; i++) {
        struct parcel *parcel = batcher->waiting[i].payload;
        if (!parcel->looked)
            parcels[count++] = parcel;
        parcel->looked = true;
    }
    deaths_look(&worker->deaths, parcels, count);
    for (size_t i = 0; count > 0 && i < batcher->count; i++) {
        const struct parcel *parcel = batcher->waiting[i].payload;
        batcher->waiting[i].alone = parcel->deaths > 0;
        if (parcel->outcome == OUTCOME_FAILED)
            batcher->waiting[i].task = NULL;
    }
    free(parcels);
}

static void add(struct worker *worker, struct kafka_record *record, enum task_class task_class)
{
    struct parcel *parcel = parcel_new(record, worker->stage, worker->homes);
    fault_at(FAULT_AFTER_PULL, parcel->has_task ? parcel->task.job : NULL, NULL);
    struct batch_entry entry = {.task = parcel->has_task ? &parcel->task : NULL,
                                .task_class = task_class,
                                .topic = record->topic,
                                .partition = record->partition,
                                .since_ms = clock_monotonic_ms(worker->clock),
                                .payload = parcel};
    batcher_add(&worker->batcher, &entry);
}

static int pull_class(struct worker *worker, enum task_class task_class, struct err *err)
{
    while (batcher_wants(&worker->batcher, task_class)) {
        struct kafka_record *record = NULL;
        int rc = kafka_poll(worker->kafka, (int)task_class, 0, &record, err);
        if (rc || !record)
            return rc;
        add(worker, record, task_class);
    }
    return 0;
}

static int pull(struct worker *worker, struct err *err)
{
    enum task_class first = batcher_prefers(&worker->batcher);
    enum task_class second = first == CLASS_BULK ? CLASS_INTERACTIVE : CLASS_BULK;
    int rc = stops ? 0 : pull_class(worker, first, err);
    if (!rc && !stops && !worker->busy)
        rc = pull_class(worker, second, err);
    return rc;
}

/* --- handing out --- */

/* Whether a batch was given to the compute thread. */
static bool dispatch(struct worker *worker)
{
    if (worker->busy || stops ||
        batcher_due(&worker->batcher, clock_monotonic_ms(worker->clock)) != 0)
        return false;
    void **taken = xcalloc(worker->batcher.capacity, sizeof(*taken));
    size_t count = batcher_take(&worker->batcher, taken);
    struct work *work = work_new(count);
    for (size_t i = 0; i < count; i++)
        work->parcels[work->count++] = taken[i];
    free(taken);
    worker->busy = work;
    deaths_count(&worker->deaths, work->parcels, work->count);
    compute_submit(worker->compute, work);
    return true;
}

static void learn(struct worker *worker, const struct work *work)
{
    size_t tasks = work_lesson(work);
    if (work->passes > 0)
        batcher_passed(&worker->batcher, (int64_t)work->compute_ms);
    if (tasks > 0)
        batcher_ran(&worker->batcher, tasks, (int64_t)work->compute_ms);
}

static void compute_done(void *context)
{
    kafka_wake(context);
}

/* --- committing --- */

static void count_parcel(struct counters *counters, const struct parcel *parcel)
{
    counters->tasks++;
    counters->failures += parcel->outcome == OUTCOME_FAILED;
    counters->cache_hits += parcel->cache_hit;
    counters->computed += parcel->computed;
}

static void count(struct worker *worker, const struct counters *counters)
{
    struct err err = {0};
    int rc = counters_add(counters, worker->redis, worker->stage, &err);
    if (rc && !worker->redis_away)
        log_warn("counters are not counted: %s", err.text);
    if (!rc && worker->redis_away)
        log_info("counters are counted again");
    worker->redis_away = rc != 0;
}

static void show_presence(struct worker *worker)
{
    struct err err = {0};
    if (worker->ready && presence_keep(&worker->presence, worker->partitions, &err) < 0)
        log_debug("no sign of life is given: %s", err.text);
}

static void say_retry(const struct parcel *parcel)
{
    log_warn("%s/%d is tried again: %s", parcel->task.job, parcel->task.image, parcel->err.text);
}

static void say_failed(const struct parcel *parcel)
{
    const struct kafka_record *record = parcel->record;
    if (parcel->has_task)
        log_warn("%s/%d failed: %s", parcel->task.job, parcel->task.image, parcel->err.text);
    else
        log_warn("record %lld of %s [%d] is refused: %s", (long long)record->offset, record->topic,
                 (int)record->partition, parcel->err.text);
}

/* What only a committed task may have done. */
static void settle(struct worker *worker, struct parcel *const *parcels, size_t count,
                   const struct kafka_unit *units, struct counters *counters)
{
    for (size_t i = 0; i < count; i++) {
        struct parcel *parcel = parcels[i];
        if (units[i].lost) {
            counters->wasted += parcel->computed;
            deaths_take_back(&worker->deaths, &parcels[i], 1);
            continue;
        }
        count_parcel(counters, parcel);
        presence_count(&worker->presence, 1);
        if (parcel->outcome == OUTCOME_FAILED)
            say_failed(parcel);
        if (parcel->outcome == OUTCOME_RETRY)
            say_retry(parcel);
        parcel_clear(parcel, worker->sweeper);
    }
    deaths_clear(&worker->deaths, parcels, count);
}

/* What we did not commit, and did not die of, is no death of ours. */
static void take_back(struct worker *worker, const struct work *work)
{
    if (work)
        deaths_take_back(&worker->deaths, work->parcels, work->count);
}

/* One transaction. */
static int commit_some(struct worker *worker, struct parcel *const *parcels, size_t count,
                       struct counters *counters, struct err *err)
{
    struct kafka_unit *units = xcalloc(count, sizeof(*units));
    for (size_t i = 0; i < count; i++)
        units[i] = (struct kafka_unit){.record = parcels[i]->record,
                                       .outputs = parcels[i]->outputs,
                                       .output_count = parcels[i]->output_count};
    fault_at(FAULT_BEFORE_BEGIN, NULL, NULL);
    int rc = kafka_commit(worker->kafka, units, count, KAFKA_PATIENCE_MS, err);
    fault_at(FAULT_AFTER_COMMIT, NULL, NULL);
    if (!rc)
        settle(worker, parcels, count, units, counters);
    free(units);
    return rc;
}

/* As many transactions as its bytes need. An output that is too large ends each worker that tries:
   that one counts. */
static int commit(struct worker *worker, struct work *work, struct err *err)
{
    struct counters counters = {.batches = (int64_t)work->passes,
                                .compute_ms = (int64_t)(work->compute_ms + 0.5)};
    size_t done = 0;
    int rc = 0;
    while (!rc && done < work->count) {
        struct parcel *const *parcels = work->parcels + done;
        size_t some = parcels_within(parcels, work->count - done, COMMIT_BYTES_MAX);
        rc = commit_some(worker, parcels, some, &counters, err);
        size_t guilty = rc == -ERR_TOO_LARGE ? some : 0;
        if (rc)
            deaths_take_back(&worker->deaths, parcels + guilty, work->count - done - guilty);
        done += some;
    }
    if (!rc)
        count(worker, &counters);
    work_free(work);
    return rc;
}

/* --- the loop --- */

static void say_ready(struct worker *worker)
{
    size_t partitions = kafka_partitions(worker->kafka);
    if (!kafka_assigned(worker->kafka) || (worker->ready && partitions == worker->partitions))
        return;
    if (worker->ready)
        log_info("%zu partitions", partitions);
    else
        log_info("ready: stage %s, slot %lld, %zu partitions, model %s, %s, %d threads, loaded in "
                 "%lld ms",
                 stage_name(worker->stage), (long long)worker->config->slot, partitions,
                 worker->config->model, worker->presence.dtype, worker->threads,
                 (long long)worker->load_ms);
    worker->ready = true;
    worker->partitions = partitions;
}

static int rest(struct worker *worker, struct err *err)
{
    int64_t due = worker->busy || stops
                      ? -1
                      : batcher_due(&worker->batcher, clock_monotonic_ms(worker->clock));
    if (due == 0)
        return 0;
    if (!worker->busy && due < 0)
        kafka_commit_idle(worker->kafka, KAFKA_QUIET_MS);
    return kafka_poll(worker->kafka, -1, due > 0 ? (int)due : IDLE_MS, NULL, err);
}

static int turn(struct worker *worker, struct err *err)
{
    struct work *done = worker->busy ? compute_take(worker->compute) : NULL;
    if (done) {
        worker->busy = NULL;
        learn(worker, done);
    }
    int rc = pull(worker, err);
    drop_revoked(worker);
    find_suspects(worker);
    bool dispatched = !rc && dispatch(worker);
    if (done && !rc)
        return commit(worker, done, err);
    take_back(worker, done);
    work_free(done);
    if (rc || dispatched)
        return rc;
    say_ready(worker);
    return rest(worker, err);
}

static int loop(struct worker *worker, struct err *err)
{
    int rc = 0;
    bool said = false;
    while (!rc && (!stops || worker->busy)) {
        rc = turn(worker, err);
        show_presence(worker);
        if (stops && !said)
            log_info("stopping%s", worker->busy ? " after the batch in hand" : "");
        said = stops > 0;
    }
    if (!rc)
        kafka_commit_idle(worker->kafka, 0);
    return rc;
}

/* --- starting and ending --- */

static int kafka_start(struct worker *worker, struct err *err)
{
    const char *lanes[CLASS_COUNT][2] = {{NULL}};
    const char *outputs[CLASS_COUNT * STAGE_COUNT + 3];
    size_t count = 0;
    struct kafka_options options = {
        .config = worker->config, .slot = worker->name, .output_topics = outputs};
    for (int c = 0; c < CLASS_COUNT; c++) {
        lanes[c][0] = topic_tasks(worker->stage, (enum task_class)c);
        options.lane_topics[c] = lanes[c];
        options.lane_group[c] = topic_tasks_group(worker->stage, (enum task_class)c);
        for (int s = STAGE_TEXT_ENCODE + 1; s < STAGE_COUNT; s++)
            outputs[count++] = topic_tasks((enum stage)s, (enum task_class)c);
    }
    outputs[count++] = topic_name(TOPIC_EVENTS);
    outputs[count++] = topic_name(TOPIC_DEAD_LETTER);
    outputs[count] = NULL;
    int rc = kafka_open(&worker->kafka, &options, err);
    if (!rc)
        worker->homes = kafka_topic_partitions(worker->kafka, topic_name(TOPIC_EVENTS));
    return rc;
}

static int start(struct worker *worker, struct shard *shard, struct models *models, struct err *err)
{
    const struct config *config = worker->config;
    int rc = worker->stage == STAGE_IMAGE_ENCODE ? probe_open(&worker->probe, config, err) : 0;
    if (rc || (rc = storage_open(&worker->storage, config->artifacts, err)) ||
        (rc = sweeper_start(&worker->sweeper, worker->storage, err)) ||
        (rc = redis_open(&worker->redis, config->redis, worker->clock, err)) ||
        (rc = kafka_start(worker, err)))
        return rc;
    worker->deaths = (struct deaths){.redis = worker->redis, .limit = (int)config->death_limit};
    worker->presence = (struct presence){.redis = worker->redis,
                                         .clock = worker->clock,
                                         .stage = worker->stage,
                                         .slot = worker->name,
                                         .model = config->model,
                                         .dtype = worker->dtype == DTYPE_BF16 ? "bf16" : "f32"};
    struct compute_options options = {.stage = worker->stage,
                                      .worker = worker->name,
                                      .redis = config->redis,
                                      .cache_ttl_s = config->cache_ttl_s,
                                      .fetch = config->fetch,
                                      .homes = worker->homes,
                                      .storage = worker->storage,
                                      .shard = shard,
                                      .models = models,
                                      .probe = worker->probe,
                                      .clock = worker->clock,
                                      .wake = compute_done,
                                      .context = worker->kafka};
    return compute_start(&worker->compute, &options, err);
}

/* What waits is not committed, and comes again to whoever gets the partition. */
static void stop(struct worker *worker)
{
    compute_stop(worker->compute);
    for (size_t i = 0; i < worker->batcher.count; i++)
        parcel_free(worker->batcher.waiting[i].payload);
    batcher_release(&worker->batcher);
    kafka_close(worker->kafka);
    presence_end(&worker->presence);
    redis_close(worker->redis);
    sweeper_stop(worker->sweeper);
    storage_close(worker->storage);
    probe_free(worker->probe);
}

/* Rank 0: the queue's side. */
static int lead(const struct config *config, enum stage stage, struct shard *shard,
                struct models *models, struct nn *nn, int64_t load_ms, struct err *err)
{
    struct worker worker = {.config = config,
                            .stage = stage,
                            .clock = clock_system(),
                            .load_ms = load_ms,
                            .dtype = nn_dtype(nn),
                            .threads = nn_threads(nn)};
    snprintf(worker.name, sizeof(worker.name), "%s-%lld", stage_name(stage),
             (long long)config->slot);
    batcher_init(&worker.batcher, (int)config->batch, shard_size(shard), config->linger_ms,
                 (int)config->bulk_share, config->bulk_batch_ms);
    int rc = start(&worker, shard, models, err);
    stops_unblock();
    if (!rc)
        rc = loop(&worker, err);
    if (rc) {
        take_back(&worker, worker.busy);
        return rc; /* the process ends, and with it the batch in hand */
    }
    stop(&worker);
    log_info("stopped");
    return 0;
}

static int choose_dtype(const char *name, enum dtype *dtype, struct err *err)
{
    if (strcmp(name, "auto") == 0)
        *dtype = nn_cpu_has_bf16() ? DTYPE_BF16 : DTYPE_F32;
    else if (strcmp(name, "f32") == 0)
        *dtype = DTYPE_F32;
    else if (strcmp(name, "bf16") == 0)
        *dtype = DTYPE_BF16;
    else
        return err_set(err, ERR_INVALID_ARGUMENT, "--dtype is '%s', not auto, f32 or bf16", name);
    return 0;
}

static void log_note(const char *text)
{
    log_warn("%s", text);
}

int worker_run(const struct config *config, enum stage stage, struct shard *shard, struct err *err)
{
    struct nn *nn = NULL;
    struct models *models = NULL;
    struct stage_model *model;
    enum dtype dtype = DTYPE_F32;
    int64_t began = clock_monotonic_ms(clock_system());
    stops_block();
    int rc = choose_dtype(config->dtype, &dtype, err);
    if (!rc)
        rc = nn_open(&nn, dtype, (int)config->threads, err);
    if (!rc) {
        nn_keep_packed(nn, config->packed, log_note);
        models_open(&models, config->models, stage, nn);
        shard_use(shard, models, nn, stage);
        rc = models_get(models, config->model, &model, err);
    }
    int64_t load_ms = clock_monotonic_ms(clock_system()) - began;
    if (!rc && shard_rank(shard) == 0)
        rc = lead(config, stage, shard, models, nn, load_ms, err);
    else if (!rc)
        shard_serve(shard);
    if (rc)
        return rc;
    models_close(models);
    nn_close(nn);
    return rc;
}
