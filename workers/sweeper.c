/* SPDX-License-Identifier: Apache-2.0 */
/* The removing thread; see sweeper.h. */
#include "workers/sweeper.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/memory.h"

struct sweeper {
    struct storage *storage;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    char *waiting[SWEEPER_MAX]; /* guarded by lock: a ring of owned URIs */
    size_t head, count;         /* guarded by lock */
    bool quit;                  /* guarded by lock */
};

/* The next URI, owned; NULL at the end. */
static char *next(struct sweeper *sweeper)
{
    char *uri = NULL;
    pthread_mutex_lock(&sweeper->lock);
    while (sweeper->count == 0 && !sweeper->quit)
        pthread_cond_wait(&sweeper->changed, &sweeper->lock);
    if (sweeper->count > 0) {
        uri = sweeper->waiting[sweeper->head];
        sweeper->head = (sweeper->head + 1) % SWEEPER_MAX;
        sweeper->count--;
    }
    pthread_mutex_unlock(&sweeper->lock);
    return uri;
}

/* The process is to end, and does not wait for a store that does not answer. */
static bool give_up(struct sweeper *sweeper)
{
    size_t left = 0;
    pthread_mutex_lock(&sweeper->lock);
    for (; sweeper->quit && sweeper->count > 0; sweeper->count--, left++) {
        free(sweeper->waiting[sweeper->head]);
        sweeper->head = (sweeper->head + 1) % SWEEPER_MAX;
    }
    bool quit = sweeper->quit;
    pthread_mutex_unlock(&sweeper->lock);
    if (left > 0)
        log_warn("the tensors of %zu more tasks stay behind", left);
    return quit;
}

static void *thread_main(void *context)
{
    struct sweeper *sweeper = context;
    char *uri;
    bool over = false;
    while (!over && (uri = next(sweeper))) {
        struct err err = {0};
        if (storage_remove(sweeper->storage, uri, &err)) {
            log_warn("a task's tensors stay behind: %s", err.text);
            over = give_up(sweeper);
        }
        free(uri);
    }
    return NULL;
}

int sweeper_start(struct sweeper **out, struct storage *storage, struct err *err)
{
    struct sweeper *sweeper = xcalloc(1, sizeof(*sweeper));
    sweeper->storage = storage;
    pthread_mutex_init(&sweeper->lock, NULL);
    pthread_cond_init(&sweeper->changed, NULL);
    if (pthread_create(&sweeper->thread, NULL, thread_main, sweeper)) {
        pthread_mutex_destroy(&sweeper->lock);
        pthread_cond_destroy(&sweeper->changed);
        free(sweeper);
        return err_set(err, ERR_INTERNAL, "cannot start the sweeper's thread");
    }
    *out = sweeper;
    return 0;
}

void sweeper_add(struct sweeper *sweeper, char *uri)
{
    pthread_mutex_lock(&sweeper->lock);
    bool room = sweeper->count < SWEEPER_MAX;
    if (room)
        sweeper->waiting[(sweeper->head + sweeper->count++) % SWEEPER_MAX] = uri;
    pthread_cond_signal(&sweeper->changed);
    pthread_mutex_unlock(&sweeper->lock);
    if (room)
        return;
    log_warn("a task's tensors stay behind: the store is too slow to remove '%s'", uri);
    free(uri);
}

void sweeper_stop(struct sweeper *sweeper)
{
    if (!sweeper)
        return;
    pthread_mutex_lock(&sweeper->lock);
    sweeper->quit = true;
    pthread_cond_signal(&sweeper->changed);
    pthread_mutex_unlock(&sweeper->lock);
    pthread_join(sweeper->thread, NULL);
    pthread_mutex_destroy(&sweeper->lock);
    pthread_cond_destroy(&sweeper->changed);
    free(sweeper);
}
