/* SPDX-License-Identifier: Apache-2.0 */
/* The compute thread; see compute.h. */
#include "workers/compute.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault.h"
#include "common/log.h"
#include "common/memory.h"
#include "stages/intake.h"
#include "workers/cache.h"
#include "workers/output.h"
#include "workers/pictures.h"
#include "workers/preview.h"
#include "workers/progress.h"

struct compute {
    struct compute_options options;
    struct output output;
    struct cache cache;
    struct pictures pictures;
    struct redis *redis; /* owned; the compute thread's */
    bool redis_away;     /* said so */

    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct work *inbox;  /* guarded by lock: submitted */
    struct work *outbox; /* guarded by lock: finished */
    bool quit;           /* guarded by lock */
};

/* --- batches --- */

struct work *work_new(size_t capacity)
{
    struct work *work = xcalloc(1, sizeof(*work));
    work->parcels = xcalloc(capacity + 1, sizeof(*work->parcels));
    return work;
}

void work_free(struct work *work)
{
    if (!work)
        return;
    for (size_t i = 0; i < work->count; i++)
        parcel_free(work->parcels[i]);
    free(work->parcels);
    free(work);
}

size_t work_lesson(const struct work *work)
{
    size_t tasks = 0;
    bool bulk = false;
    for (size_t i = 0; i < work->count; i++) {
        const struct parcel *parcel = work->parcels[i];
        if (!parcel->computed)
            continue;
        if (parcel->outcome != OUTCOME_FINISHED)
            return 0;
        tasks++;
        bulk |= parcel->task.task_class == CLASS_BULK;
    }
    return bulk ? tasks : 0;
}

/* The parcels of a batch that are still to be computed. Arrays run in parallel. */
struct pass {
    struct compute *compute;
    struct parcel **parcels;
    const struct task **tasks;
    struct item **items;
    size_t count;
    struct progress progress;
};

static void pass_init(struct pass *pass, struct compute *compute, size_t capacity)
{
    *pass = (struct pass){.compute = compute,
                          .parcels = xcalloc(capacity + 1, sizeof(*pass->parcels)),
                          .tasks = xcalloc(capacity + 1, sizeof(*pass->tasks)),
                          .items = xcalloc(capacity + 1, sizeof(*pass->items))};
}

static void pass_add(struct pass *pass, struct parcel *parcel)
{
    pass->parcels[pass->count] = parcel;
    pass->tasks[pass->count] = &parcel->task;
    pass->items[pass->count++] = &parcel->item;
}

/* Leaves out those that are decided. */
static void pass_narrow(struct pass *pass)
{
    size_t count = pass->count;
    pass->count = 0;
    for (size_t i = 0; i < count; i++)
        if (pass->parcels[i]->outcome == OUTCOME_OPEN)
            pass_add(pass, pass->parcels[i]);
}

static void pass_release(struct pass *pass)
{
    free(pass->parcels);
    free(pass->tasks);
    free(pass->items);
}

/* --- Redis, which may be away --- */

/* After a call that may have used it: a call that had nothing to ask says nothing. */
static void note_redis(struct compute *compute, int rc, const struct err *err)
{
    if (rc && rc != -ERR_REDIS)
        log_warn("an embedding or a preview was not kept: %s", err->text);
    else if (rc && !compute->redis_away)
        log_warn("going on without Redis: %s", err->text);
    if (!rc && compute->redis_away && redis_reachable(compute->redis)) {
        log_info("Redis is back");
        compute->redis_away = false;
    }
    compute->redis_away |= rc == -ERR_REDIS;
}

/* --- reading the tensors --- */

static void receive(struct compute *compute, const struct work *work, struct pass *pass)
{
    for (size_t i = 0; i < work->count; i++) {
        struct parcel *parcel = work->parcels[i];
        struct err err = {0};
        if (parcel->outcome == OUTCOME_OPEN &&
            (fault_at(FAULT_BEFORE_COMPUTE, parcel->task.job, &err) ||
             parcel_read(parcel, compute->options.storage, &err)))
            parcel_fail(parcel, &err);
        if (parcel->outcome == OUTCOME_OPEN)
            pass_add(pass, parcel);
    }
}

/* --- cancelled and expired jobs --- */

/* Whether the picture is not wanted any more; of one that has expired the parcel's error tells. */
static bool unwanted(const struct pass *pass, size_t i, int64_t now_ms)
{
    struct parcel *parcel = pass->parcels[i];
    if (parcel->task.deadline_ms > 0 && parcel->task.deadline_ms <= now_ms) {
        err_set(&parcel->err, ERR_EXPIRED, "the job's deadline has passed");
        return true;
    }
    return progress_stopped(&pass->progress, i) ||
           atomic_load_explicit(&parcel->abandoned, memory_order_relaxed);
}

/* Writes the progress and marks what is to be given up. Also the watch between two steps. */
static void on_step(void *context, int step, int steps)
{
    struct pass *pass = context;
    struct err err = {0};
    int64_t now_ms = clock_wall_ms(pass->compute->options.clock);
    note_redis(pass->compute, progress_step(&pass->progress, step, steps, &err), &err);
    for (size_t i = 0; i < pass->count && step > 0; i++)
        fault_at(FAULT_IN_COMPUTE, pass->tasks[i]->job, NULL);
    for (size_t i = 0; i < pass->count; i++)
        if (unwanted(pass, i, now_ms))
            pass->items[i]->stop = true;
}

static void on_preview(void *context, size_t item, const float *x0, int size)
{
    struct pass *pass = context;
    struct err err = {0};
    note_redis(pass->compute, preview_show(pass->compute->redis, pass->tasks[item], x0, size, &err),
               &err);
}

/* Before anything is computed, and before each task's pictures are read. */
static void drop_unwanted(struct pass *pass)
{
    if (pass->count == 0)
        return;
    progress_init(&pass->progress, pass->compute->redis, pass->compute->options.clock, pass->tasks,
                  pass->count);
    on_step(pass, 0, task_hop(pass->tasks[0])->steps);
    progress_release(&pass->progress);
    for (size_t i = 0; i < pass->count; i++)
        if (pass->items[i]->stop)
            pass->parcels[i]->outcome = OUTCOME_DROPPED;
    pass_narrow(pass);
}

/* --- the cache --- */

static bool stage_cached(enum stage stage)
{
    return stage == STAGE_TEXT_ENCODE || stage == STAGE_PRIOR || stage == STAGE_IMAGE_ENCODE;
}

/* NULL when the model cannot be told apart: then nothing is cached, and computing says why. */
static const char *fingerprint(struct pass *pass)
{
    const struct compute_options *options = &pass->compute->options;
    const char *text;
    struct err err = {0};
    if (!stage_cached(options->stage) || pass->count == 0 ||
        models_fingerprint(options->models, pass->tasks[0]->model, &text, &err))
        return NULL;
    return text;
}

static void look_up(struct pass *pass, const char *model)
{
    struct compute *compute = pass->compute;
    bool text = compute->options.stage == STAGE_TEXT_ENCODE;
    for (size_t i = 0; i < pass->count; i++) {
        struct err err = {0};
        bool hit = false;
        int rc = text ? cache_get_text(&compute->cache, model, pass->items[i], &hit, &err)
                      : cache_get_prior(&compute->cache, model, pass->tasks[i], pass->items[i],
                                        &hit, &err);
        note_redis(compute, rc, &err);
        if (rc)
            return;
        pass->parcels[i]->cache_hit = hit;
        if (hit)
            pass->parcels[i]->outcome = OUTCOME_FINISHED;
    }
}

static void keep(struct pass *pass, const char *model)
{
    struct compute *compute = pass->compute;
    bool text = compute->options.stage == STAGE_TEXT_ENCODE;
    for (size_t i = 0; i < pass->count; i++) {
        struct err err = {0};
        if (pass->parcels[i]->outcome != OUTCOME_FINISHED)
            continue;
        int rc =
            text ? cache_put_text(&compute->cache, model, pass->items[i], &err)
                 : cache_put_prior(&compute->cache, model, pass->tasks[i], pass->items[i], &err);
        note_redis(compute, rc, &err);
        if (rc)
            return;
    }
}

/* --- the pass --- */

static void judge(struct parcel *parcel)
{
    const struct item *item = &parcel->item;
    if (item->err.code == ERR_CANCELLED)
        parcel->outcome = OUTCOME_DROPPED;
    else if (item->err.code)
        parcel_fail(parcel, &item->err);
    else
        parcel->outcome = OUTCOME_FINISHED;
}

static void run(struct pass *pass)
{
    const struct compute_options *options = &pass->compute->options;
    const struct hop *hop = task_hop(pass->tasks[0]);
    struct stage_settings settings = stage_settings_of(hop);
    struct stage_watch watch = {.step = on_step, .preview = on_preview, .context = pass};
    struct err err = {0};
    progress_init(&pass->progress, pass->compute->redis, options->clock, pass->tasks, pass->count);
    int rc = shard_run(options->shard, pass->tasks[0]->model, pass->items, pass->count, &settings,
                       &watch, &err);
    progress_release(&pass->progress);
    for (size_t i = 0; i < pass->count; i++) {
        struct parcel *parcel = pass->parcels[i];
        parcel->computed = true;
        if (rc)
            parcel_fail(parcel, &err);
        else
            judge(parcel);
    }
}

static void copy_text(struct parcel *parcel, const struct parcel *from)
{
    struct err err = {0};
    parcel->outcome = from->outcome;
    parcel->err = from->err;
    parcel->cache_hit = true;
    if (from->outcome == OUTCOME_FINISHED && item_copy_text(&parcel->item, &from->item, &err))
        parcel_fail(parcel, &err);
}

/* The pictures of one job have one prompt: it is computed once. `first[i]` is where. */
static size_t find_texts(struct pass *all, struct pass *distinct, size_t *first)
{
    for (size_t i = 0; i < all->count; i++) {
        for (first[i] = 0; !item_same_text(all->items[first[i]], all->items[i]); first[i]++)
            ;
        if (first[i] == i)
            pass_add(distinct, all->parcels[i]);
    }
    return distinct->count;
}

static void run_texts(struct pass *pass)
{
    struct pass distinct;
    size_t *first = xcalloc(pass->count, sizeof(*first));
    pass_init(&distinct, pass->compute, pass->count);
    find_texts(pass, &distinct, first);
    run(&distinct);
    for (size_t i = 0; i < pass->count; i++)
        if (first[i] != i)
            copy_text(pass->parcels[i], pass->parcels[first[i]]);
    free(first);
    pass_release(&distinct);
}

/* --- pictures --- */

/* Embeddings that the cache has. */
static void look_up_pictures(struct pass *pass, const char *model)
{
    struct compute *compute = pass->compute;
    for (size_t i = 0; i < pass->count; i++) {
        struct err err = {0};
        int missing = 0;
        int rc = pictures_look_up(&compute->pictures, model, pass->items[i], &missing, &err);
        note_redis(compute, rc, &err);
        if (rc)
            return;
        pass->parcels[i]->cache_hit = pass->items[i]->input_count > 0 && missing == 0;
    }
}

static void keep_pictures(struct pass *pass, const char *model)
{
    struct compute *compute = pass->compute;
    int rc = 0;
    for (size_t i = 0; i < pass->count && !rc; i++) {
        struct err err = {0};
        if (pass->parcels[i]->outcome == OUTCOME_FINISHED) {
            rc = pictures_keep(&compute->pictures, model, pass->items[i], &err);
            note_redis(compute, rc, &err);
        }
    }
}

/* Servers may be slow: by now what was wanted when the batch began may be so no more. */
static void drop_before_reading(struct compute *compute, struct parcel *parcel)
{
    struct pass one;
    if (!intake_needed(&parcel->task))
        return;
    pass_init(&one, compute, 1);
    pass_add(&one, parcel);
    drop_unwanted(&one);
    pass_release(&one);
}

/* As many of all[*next …] as may be held at a time. */
static void take_pictures(struct pass *all, struct pass *some, size_t *next)
{
    struct compute *compute = all->compute;
    size_t pixels = 0;
    some->count = 0;
    while (*next < all->count && pixels < PICTURES_PASS_PIXELS) {
        struct parcel *parcel = all->parcels[(*next)++];
        drop_before_reading(compute, parcel);
        if (parcel->outcome == OUTCOME_OPEN)
            pixels += pictures_take(&compute->pictures, parcel);
        if (parcel->outcome == OUTCOME_OPEN)
            pass_add(some, parcel);
    }
}

static void run_pictures(struct pass *pass, const char *model)
{
    struct pass some;
    pass_init(&some, pass->compute, pass->count);
    for (size_t next = 0; next < pass->count;) {
        take_pictures(pass, &some, &next);
        if (some.count == 0)
            continue;
        if (model)
            look_up_pictures(&some, model);
        run(&some);
        if (model)
            keep_pictures(&some, model);
        for (size_t i = 0; i < some.count; i++) {
            if (pass->compute->options.probe)
                probe_check(pass->compute->options.probe, some.parcels[i]);
            intake_forget(some.items[i]);
            if (some.parcels[i]->cache_hit)
                some.parcels[i]->computed = false;
        }
    }
    pictures_clear(&pass->compute->pictures);
    pass_release(&some);
}

/* --- what the stages do --- */

static void advance(struct pass *pass, struct work *work)
{
    const char *model = fingerprint(pass);
    if (pass->compute->options.stage == STAGE_IMAGE_ENCODE) {
        work->passes = pass->count > 0;
        run_pictures(pass, model);
        return;
    }
    if (model)
        look_up(pass, model);
    pass_narrow(pass);
    if (pass->count == 0)
        return;
    work->passes = 1;
    if (pass->compute->options.stage == STAGE_TEXT_ENCODE)
        run_texts(pass);
    else
        run(pass);
    if (model)
        keep(pass, model);
}

/* --- a batch from start to end --- */

static void report(struct compute *compute, struct work *work, int64_t began_ms)
{
    struct clock *clock = compute->options.clock;
    int64_t now = clock_wall_ms(clock);
    for (size_t i = 0; i < work->count; i++) {
        struct parcel *parcel = work->parcels[i];
        double waited = (double)(began_ms - parcel->task.enqueued_at_ms);
        parcel->queue_ms = parcel->has_task && waited > 0 ? waited : 0;
        parcel->compute_ms = work->compute_ms / (double)work->count;
        parcel->batch = (int)work->count;
        output_report(&compute->output, parcel, now);
    }
}

static void process(struct compute *compute, struct work *work)
{
    struct clock *clock = compute->options.clock;
    int64_t began = clock_monotonic_ms(clock), began_wall = clock_wall_ms(clock);
    struct pass pass;
    pass_init(&pass, compute, work->count);
    receive(compute, work, &pass);
    drop_unwanted(&pass);
    advance(&pass, work);
    pass_release(&pass);
    int64_t now = clock_wall_ms(clock);
    for (size_t i = 0; i < work->count; i++)
        output_product(&compute->output, work->parcels[i], now);
    for (size_t i = 0; i < work->count; i++)
        output_retry(&compute->output, work->parcels[i]);
    work->compute_ms = (double)(clock_monotonic_ms(clock) - began);
    report(compute, work, began_wall);
}

/* --- the thread --- */

static struct work *await(struct compute *compute)
{
    pthread_mutex_lock(&compute->lock);
    while (!compute->inbox && !compute->quit)
        pthread_cond_wait(&compute->changed, &compute->lock);
    struct work *work = compute->inbox;
    pthread_mutex_unlock(&compute->lock);
    return work;
}

static void deliver(struct compute *compute, struct work *work)
{
    pthread_mutex_lock(&compute->lock);
    compute->inbox = NULL;
    compute->outbox = work;
    pthread_mutex_unlock(&compute->lock);
    compute->options.wake(compute->options.context);
}

static void *thread_main(void *context)
{
    struct compute *compute = context;
    struct work *work;
    while ((work = await(compute))) {
        process(compute, work);
        deliver(compute, work);
    }
    return NULL;
}

int compute_start(struct compute **out, const struct compute_options *options, struct err *err)
{
    struct compute *compute = xcalloc(1, sizeof(*compute));
    compute->options = *options;
    compute->output = (struct output){.stage = options->stage,
                                      .worker = options->worker,
                                      .homes = options->homes,
                                      .storage = options->storage};
    int rc = redis_open(&compute->redis, options->redis, options->clock, err);
    if (rc) {
        free(compute);
        return rc;
    }
    compute->cache = (struct cache){.redis = compute->redis, .ttl_s = options->cache_ttl_s};
    compute->pictures =
        (struct pictures){.fetch = {.storage = options->storage, .allowed = options->fetch},
                          .cache = &compute->cache,
                          .clock = options->clock};
    pthread_mutex_init(&compute->lock, NULL);
    pthread_cond_init(&compute->changed, NULL);
    if (pthread_create(&compute->thread, NULL, thread_main, compute)) {
        redis_close(compute->redis);
        free(compute);
        return err_set(err, ERR_INTERNAL, "cannot start the compute thread");
    }
    *out = compute;
    return 0;
}

void compute_stop(struct compute *compute)
{
    if (!compute)
        return;
    pthread_mutex_lock(&compute->lock);
    compute->quit = true;
    pthread_cond_signal(&compute->changed);
    pthread_mutex_unlock(&compute->lock);
    pthread_join(compute->thread, NULL);
    work_free(compute->outbox);
    redis_close(compute->redis);
    pthread_mutex_destroy(&compute->lock);
    pthread_cond_destroy(&compute->changed);
    free(compute);
}

void compute_submit(struct compute *compute, struct work *work)
{
    pthread_mutex_lock(&compute->lock);
    BUG_ON(compute->inbox || compute->outbox);
    compute->inbox = work;
    pthread_cond_signal(&compute->changed);
    pthread_mutex_unlock(&compute->lock);
}

struct work *compute_take(struct compute *compute)
{
    pthread_mutex_lock(&compute->lock);
    struct work *work = compute->outbox;
    compute->outbox = NULL;
    pthread_mutex_unlock(&compute->lock);
    return work;
}
