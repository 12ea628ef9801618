/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sharding over MPI. What passes between rank 0 and another one for a batch:
 *
 *     0 → r  TAG_WORK    model, settings, threads, and the rank's items (bytes of task_codec.h)
 *     0 → r  TAG_STOP    the index of an item to give up; at the end of the batch, END
 *     r → 0  TAG_RESULT  each item's outcome and tensors
 *
 * A rank that waits looks for messages at growing intervals instead of spinning: the ranks share
 * their host's cores. While it waits it also looks whether its peers on the host still live, since
 * Open MPI does not notice a killed process that it shares memory with.
 */
#include "workers/shard.h"

#include <errno.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"
#include "workers/task_codec.h"

#define TAG_WORK     1
#define TAG_STOP     2
#define TAG_RESULT   3
#define END          (-1)
#define NAP_MIN_US   50
#define NAP_MAX_US   2000
#define PEER_LOOK_US 100000 /* between two looks at the peers */
#define HOST_SIZE    64

struct peer {
    char host[HOST_SIZE];
    int64_t pid;
};

struct shard {
    int rank, size;
    bool mpi;           /* started by mpirun */
    bool one_host;      /* all ranks are on it, and can lend each other threads */
    struct peer *peers; /* [size] */
    struct models *models;
    struct nn *nn;
    enum stage stage;
    int threads; /* of this rank, when all of them work */
};

/* A growing (writing) or shrinking (reading) message. */
struct message {
    char *bytes;
    size_t size, at;
};

/* --- messages --- */

static void put(struct message *message, const void *bytes, size_t size)
{
    message->bytes = xrealloc(message->bytes, message->size + size + 1);
    memcpy(message->bytes + message->size, bytes, size);
    message->size += size;
}

static void put_number(struct message *message, int64_t number)
{
    put(message, &number, sizeof(number));
}

static void put_block(struct message *message, const void *bytes, size_t size)
{
    put_number(message, (int64_t)size);
    put(message, bytes, size);
}

/* Both ends are this program: a short message is a bug. */
static const void *get(struct message *message, size_t size)
{
    BUG_ON(size > message->size - message->at);
    message->at += size;
    return message->bytes + message->at - size;
}

static int64_t get_number(struct message *message)
{
    int64_t number;
    memcpy(&number, get(message, sizeof(number)), sizeof(number));
    return number;
}

static const void *get_block(struct message *message, size_t *size)
{
    *size = (size_t)get_number(message);
    return get(message, *size);
}

static char *get_text(struct message *message)
{
    size_t size;
    const char *bytes = get_block(message, &size);
    char *text = xmalloc(size + 1);
    memcpy(text, bytes, size);
    text[size] = '\0';
    return text;
}

/* --- waiting --- */

static void nap(int *us)
{
    nanosleep(&(struct timespec){.tv_nsec = *us * 1000L}, NULL);
    *us = *us * 2 < NAP_MAX_US ? *us * 2 : NAP_MAX_US;
}

static void check_peers(const struct shard *shard)
{
    const struct peer *self = &shard->peers[shard->rank];
    for (int r = 0; r < shard->size; r++) {
        const struct peer *peer = &shard->peers[r];
        if (strcmp(peer->host, self->host) != 0 || kill((pid_t)peer->pid, 0) == 0 || errno != ESRCH)
            continue;
        log_error("rank %d (process %lld) has died: this rank stops too", r, (long long)peer->pid);
        _exit(1);
    }
}

/* Waits for a message from `rank` and takes it. */
static void receive(const struct shard *shard, int rank, int tag, struct message *message)
{
    int there = 0, size = 0, us = NAP_MIN_US, since_look = 0;
    MPI_Status status;
    for (;;) {
        MPI_Iprobe(rank, tag, MPI_COMM_WORLD, &there, &status);
        if (there)
            break;
        since_look += us;
        if (since_look >= PEER_LOOK_US) {
            check_peers(shard);
            since_look = 0;
        }
        nap(&us);
    }
    MPI_Get_count(&status, MPI_BYTE, &size);
    *message = (struct message){.bytes = xmalloc((size_t)size + 1), .size = (size_t)size};
    MPI_Recv(message->bytes, size, MPI_BYTE, rank, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

/* --- starting and ending --- */

static void meet_peers(struct shard *shard)
{
    struct peer self = {.pid = getpid()};
    gethostname(self.host, sizeof(self.host) - 1);
    MPI_Allgather(&self, sizeof(self), MPI_BYTE, shard->peers, sizeof(self), MPI_BYTE,
                  MPI_COMM_WORLD);
    shard->one_host = true;
    for (int r = 0; r < shard->size; r++)
        shard->one_host &= strcmp(shard->peers[r].host, self.host) == 0;
}

static int mpi_start(struct shard *shard, int *argc, char ***argv, struct err *err)
{
    int provided = MPI_THREAD_SINGLE;
    MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_ARE_FATAL);
    MPI_Comm_rank(MPI_COMM_WORLD, &shard->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &shard->size);
    shard->mpi = true;
    if (provided < MPI_THREAD_SERIALIZED)
        return err_set(err, ERR_INTERNAL, "this MPI cannot be used from a second thread");
    shard->peers = xcalloc((size_t)shard->size, sizeof(*shard->peers));
    meet_peers(shard);
    return 0;
}

int shard_open(struct shard **out, int *argc, char ***argv, struct err *err)
{
    struct shard *shard = xcalloc(1, sizeof(*shard));
    shard->size = 1;
    bool under_mpirun = getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMI_SIZE") || getenv("PMIX_RANK");
    int rc = under_mpirun ? mpi_start(shard, argc, argv, err) : 0;
    *out = shard;
    return rc;
}

void shard_close(struct shard *shard)
{
    if (!shard)
        return;
    for (int r = 1; shard->rank == 0 && r < shard->size; r++)
        MPI_Send("", 0, MPI_BYTE, r, TAG_WORK, MPI_COMM_WORLD);
    if (shard->mpi)
        MPI_Finalize();
    free(shard->peers);
    free(shard);
}

int shard_rank(const struct shard *shard)
{
    return shard->rank;
}

int shard_size(const struct shard *shard)
{
    return shard->size;
}

void shard_use(struct shard *shard, struct models *models, struct nn *nn, enum stage stage)
{
    shard->models = models;
    shard->nn = nn;
    shard->stage = stage;
    shard->threads = nn_threads(nn);
}

const char *shard_library_version(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int size = 0;
    MPI_Get_library_version(text, &size);
    text[strcspn(text, ",\n")] = '\0';
    return text;
}

static int run_here(struct shard *shard, const char *name, struct item *const *items, size_t count,
                    const struct stage_settings *settings, const struct stage_watch *watch,
                    struct err *err)
{
    struct stage_model *model;
    int rc = models_get(shard->models, name, &model, err);
    return rc ? rc : stage_run(model, items, count, settings, watch, err);
}

/* --- the other ranks --- */

/* What a rank got to do. */
struct part {
    struct shard *shard;
    char *model;
    struct stage_settings settings;
    char **texts; /* [2 * count]: prompt and negative prompt of each item */
    struct item *items;
    struct item **pointers;
    size_t count;
    bool ended; /* rank 0 said that no more stops will come */
};

/* What beside its texts a stage looks at. */
static void put_item_fields(struct message *message, const struct item *item)
{
    put_number(message, item->type);
    put_number(message, item->text_count);
    put_number(message, item->text_rows);
    put_number(message, item->preview);
    put_number(message, (int64_t)item->noise_seed);
    put(message, &item->noise_place, sizeof(item->noise_place));
}

static void item_read(struct item *item, struct message *message, struct err *err)
{
    size_t size;
    item->type = (enum job_type)get_number(message);
    item->text_count = (int)get_number(message);
    item->text_rows = (int)get_number(message);
    item->preview = (int)get_number(message);
    item->noise_seed = (uint64_t)get_number(message);
    memcpy(&item->noise_place, get(message, sizeof(item->noise_place)), sizeof(item->noise_place));
    unsigned groups = (unsigned)get_number(message);
    const void *bytes = get_block(message, &size);
    tensors_decode(item, groups, bytes, size, err);
}

static void part_read(struct part *part, struct message *message, struct err *err)
{
    part->model = get_text(message);
    nn_set_threads(part->shard->nn, (int)get_number(message));
    memcpy(&part->settings, get(message, sizeof(part->settings)), sizeof(part->settings));
    part->count = (size_t)get_number(message);
    part->texts = xcalloc(2 * part->count, sizeof(*part->texts));
    part->items = xcalloc(part->count, sizeof(*part->items));
    part->pointers = xcalloc(part->count, sizeof(*part->pointers));
    for (size_t i = 0; i < part->count; i++) {
        part->texts[2 * i] = get_text(message);
        part->texts[2 * i + 1] = get_text(message);
        item_init(&part->items[i], part->texts[2 * i], part->texts[2 * i + 1], 0);
        item_read(&part->items[i], message, err);
        part->pointers[i] = &part->items[i];
    }
}

static void part_release(struct part *part)
{
    for (size_t i = 0; i < part->count; i++) {
        item_release(&part->items[i]);
        free(part->texts[2 * i]);
        free(part->texts[2 * i + 1]);
    }
    free(part->items);
    free(part->pointers);
    free(part->texts);
    free(part->model);
}

static void take_stop(struct part *part)
{
    int index;
    MPI_Recv(&index, 1, MPI_INT, 0, TAG_STOP, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (index == END)
        part->ended = true;
    else
        part->items[index].stop = true;
}

static void take_stops(void *context, int step, int steps)
{
    int there = 1;
    (void)step, (void)steps;
    while (MPI_Iprobe(0, TAG_STOP, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE), there)
        take_stop(context);
}

/* What the stage leaves in an item for the later ones. */
static unsigned tensors_made(const struct item *item, enum stage stage)
{
    unsigned made =
        stage == STAGE_PRIOR ? TENSORS_IMAGE_EMBED | TENSORS_TEXTS_EMBEDS : TENSORS_IMAGE;
    return tensors_present(item) & (made | TENSORS_RNG);
}

static void put_result(struct message *message, const struct item *item, enum stage stage)
{
    struct err err = item->err;
    void *bytes = NULL;
    size_t size = 0;
    if (!err.code)
        tensors_encode(item, tensors_made(item, stage), &bytes, &size, &err);
    put_number(message, err.code);
    put_block(message, err.text, strlen(err.text));
    put_number(message, item->resized);
    put_number(message, tensors_made(item, stage));
    put_block(message, bytes, size);
    free(bytes);
}

static void work(struct shard *shard, struct message *order)
{
    struct part part = {.shard = shard};
    struct err err = {0};
    part_read(&part, order, &err);
    struct stage_watch watch = {.step = take_stops, .context = &part};
    if (!err.code)
        run_here(shard, part.model, part.pointers, part.count, &part.settings, &watch, &err);
    struct message result = {0};
    put_number(&result, err.code);
    put_block(&result, err.text, strlen(err.text));
    for (size_t i = 0; i < part.count; i++)
        put_result(&result, &part.items[i], shard->stage);
    MPI_Send(result.bytes, (int)result.size, MPI_BYTE, 0, TAG_RESULT, MPI_COMM_WORLD);
    while (!part.ended)
        take_stop(&part);
    free(result.bytes);
    part_release(&part);
}

void shard_serve(struct shard *shard)
{
    for (;;) {
        struct message order;
        receive(shard, 0, TAG_WORK, &order);
        if (order.size > 0)
            work(shard, &order);
        free(order.bytes);
        if (order.size == 0)
            return;
    }
}

/* --- rank 0 --- */

/* A batch on its way through the ranks; rank r has items[first[r] .. first[r + 1]). */
struct spread {
    struct shard *shard;
    struct item *const *items;
    size_t count;
    int ranks;     /* that work */
    size_t *first; /* [ranks + 1] */
    bool *told;    /* [count]: its rank knows that it is to stop */
    const struct stage_watch *watch;
};

static int put_item(struct message *message, const struct item *item, struct err *err)
{
    void *bytes = NULL;
    size_t size = 0;
    unsigned groups = tensors_present(item);
    int rc = tensors_encode(item, groups, &bytes, &size, err);
    put_block(message, item->prompt, strlen(item->prompt));
    put_block(message, item->negative_prompt, strlen(item->negative_prompt));
    put_item_fields(message, item);
    put_number(message, groups);
    put_block(message, bytes, size);
    free(bytes);
    return rc;
}

static int order_make(const struct spread *spread, int rank, const char *model, int threads,
                      const struct stage_settings *settings, struct message *order, struct err *err)
{
    int rc = 0;
    put_block(order, model, strlen(model));
    put_number(order, threads);
    put(order, settings, sizeof(*settings));
    put_number(order, (int64_t)(spread->first[rank + 1] - spread->first[rank]));
    for (size_t i = spread->first[rank]; !rc && i < spread->first[rank + 1]; i++)
        rc = put_item(order, spread->items[i], err);
    return rc;
}

/* Nothing is sent before every order could be made. */
static int orders_send(const struct spread *spread, const char *model, int threads,
                       const struct stage_settings *settings, struct err *err)
{
    struct message *orders = xcalloc((size_t)spread->ranks, sizeof(*orders));
    int rc = 0;
    for (int r = 1; !rc && r < spread->ranks; r++)
        rc = order_make(spread, r, model, threads, settings, &orders[r], err);
    for (int r = 1; !rc && r < spread->ranks; r++)
        MPI_Send(orders[r].bytes, (int)orders[r].size, MPI_BYTE, r, TAG_WORK, MPI_COMM_WORLD);
    for (int r = 1; r < spread->ranks; r++)
        free(orders[r].bytes);
    free(orders);
    return rc;
}

/* After rank 0's own step: the caller's watch, then the stops that it set for other ranks' items.
 */
static void on_step(void *context, int step, int steps)
{
    struct spread *spread = context;
    if (spread->watch)
        spread->watch->step(spread->watch->context, step, steps);
    for (int r = 1; r < spread->ranks; r++)
        for (size_t i = spread->first[r]; i < spread->first[r + 1]; i++) {
            int index = (int)(i - spread->first[r]);
            if (!spread->items[i]->stop || spread->told[i])
                continue;
            spread->told[i] = true;
            MPI_Send(&index, 1, MPI_INT, r, TAG_STOP, MPI_COMM_WORLD);
        }
}

/* Of rank 0's own items, the first of the batch; the other ranks' pictures have none. */
static void on_preview(void *context, size_t item, const float *x0, int size)
{
    const struct spread *spread = context;
    if (spread->watch && spread->watch->preview)
        spread->watch->preview(spread->watch->context, item, x0, size);
}

static void get_err(struct message *message, struct err *err)
{
    enum err_code code = (enum err_code)get_number(message);
    char *text = get_text(message);
    if (code)
        err_set(err, code, "%s", text);
    free(text);
}

static void get_result(struct message *message, struct item *item)
{
    struct err err = {0};
    size_t size;
    get_err(message, &err);
    item->resized = get_number(message) != 0;
    unsigned groups = (unsigned)get_number(message);
    const void *bytes = get_block(message, &size);
    item->image_size = 0; /* the result's may differ */
    if (!err.code)
        tensors_decode(item, groups, bytes, size, &err);
    if (err.code)
        item->err = err;
}

static void gather(const struct spread *spread, int rank)
{
    struct message result;
    struct err err = {0};
    int end = END;
    receive(spread->shard, rank, TAG_RESULT, &result);
    MPI_Send(&end, 1, MPI_INT, rank, TAG_STOP, MPI_COMM_WORLD);
    get_err(&result, &err);
    for (size_t i = spread->first[rank]; i < spread->first[rank + 1]; i++) {
        get_result(&result, spread->items[i]);
        if (err.code)
            spread->items[i]->err = err;
    }
    free(result.bytes);
}

static void divide(struct spread *spread)
{
    spread->first = xcalloc((size_t)spread->ranks + 1, sizeof(*spread->first));
    spread->told = xcalloc(spread->count, sizeof(*spread->told));
    for (int r = 0; r <= spread->ranks; r++)
        spread->first[r] = spread->count * (size_t)r / (size_t)spread->ranks;
}

static int spread_run(struct spread *spread, const char *model,
                      const struct stage_settings *settings, struct err *err)
{
    struct shard *shard = spread->shard;
    int threads = shard->one_host ? shard->threads * shard->size / spread->ranks : shard->threads;
    int rc = orders_send(spread, model, threads, settings, err);
    if (rc)
        return rc;
    struct stage_watch watch = {.step = on_step, .preview = on_preview, .context = spread};
    struct err own = {0};
    nn_set_threads(shard->nn, threads);
    run_here(shard, model, spread->items, spread->first[1], settings, &watch, &own);
    for (size_t i = 0; own.code && i < spread->first[1]; i++)
        spread->items[i]->err = own;
    for (int r = 1; r < spread->ranks; r++)
        gather(spread, r);
    return 0;
}

int shard_run(struct shard *shard, const char *model, struct item *const *items, size_t count,
              const struct stage_settings *settings, const struct stage_watch *watch,
              struct err *err)
{
    struct spread spread = {.shard = shard, .items = items, .count = count, .watch = watch};
    bool light = shard->stage == STAGE_TEXT_ENCODE || shard->stage == STAGE_IMAGE_ENCODE;
    if (shard->size == 1 || count == 0 || light) /* those are not worth the way */
        return run_here(shard, model, items, count, settings, watch, err);
    spread.ranks = count < (size_t)shard->size ? (int)count : shard->size;
    divide(&spread);
    int rc = spread_run(&spread, model, settings, err);
    free(spread.first);
    free(spread.told);
    return rc;
}
