/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compute thread while a slow server is asked for the pictures of a batch: what is not wanted
 * any more by then is not read. The server itself makes the batch's second task unwanted while it
 * is asked for the first one's picture, which it does not have.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/http.h"
#include "common/image.h"
#include "redis_fixture.h"
#include "worker_fixture.h"
#include "workers/compute.h"

#define NOW_MS 100000

static struct redis_fixture redis;
static struct clock now;
static char folder[] = "/tmp/unclip-compute.XXXXXX";
static struct storage *storage;
static struct models *models;
static sem_t done;

/* --- the server, which answers 404 --- */

static struct {
    int listener, port;
    pthread_t thread;
    void (*meanwhile)(struct parcel *second); /* what happens while it is asked */
    struct parcel *second;
    atomic_int asked;
} server;

static void *serve(void *unused)
{
    static const char answer[] = "HTTP/1.1 404 Gone\r\nContent-Length: 0\r\n\r\n";
    (void)unused;
    for (int fd; (fd = accept(server.listener, NULL, NULL)) >= 0; close(fd)) {
        char seen[2048] = "";
        size_t size = 0;
        while (size < sizeof seen - 1 && !strstr(seen, "\r\n\r\n")) {
            ssize_t got = recv(fd, seen + size, sizeof seen - 1 - size, 0);
            if (got <= 0)
                break;
            size += (size_t)got;
        }
        server.asked++;
        server.meanwhile(server.second);
        send(fd, answer, strlen(answer), MSG_NOSIGNAL);
    }
    return NULL;
}

static void start_server(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    server.listener = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(server.listener, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server.listener, 8), 0);
    getsockname(server.listener, (struct sockaddr *)&address, &size);
    server.port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static int start(void **state)
{
    (void)state;
    static const char *const proxies[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                          "ALL_PROXY"};
    struct err err = {0};
    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++)
        unsetenv(proxies[i]);
    redis_start(&redis);
    assert_non_null(mkdtemp(folder));
    assert_int_equal(image_setup("test_compute", &err), 0);
    assert_int_equal(http_setup(&err), 0);
    assert_int_equal(storage_open(&storage, folder, &err), 0);
    models_open(&models, folder, STAGE_IMAGE_ENCODE, NULL); /* it has none */
    assert_int_equal(sem_init(&done, 0, 0), 0);
    start_server();
    return 0;
}

static int stop(void **state)
{
    (void)state;
    char command[128];
    shutdown(server.listener, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.listener);
    sem_destroy(&done);
    models_close(models);
    storage_close(storage);
    redis_stop(&redis);
    snprintf(command, sizeof(command), "rm -rf '%s'", folder);
    return system(command);
}

/* --- batches --- */

/* A variation, whose picture is at the server. The record is borrowed. */
static struct parcel *make(const char *job)
{
    static struct kafka_record record;
    record = fixture_record("{}");
    struct parcel *parcel = xcalloc(1, sizeof(*parcel));
    parcel->record = &record;
    parcel->has_task = true;
    parcel->task = fixture_scored_task(0);
    snprintf(parcel->task.job, sizeof(parcel->task.job), "%s", job);
    parcel->task.sources.image = xasprintf("http://127.0.0.1:%d/%s", server.port, job);
    parcel->task.sources.side = 64;
    parcel->task.deadline_ms = NOW_MS + 1000;
    item_begin(&parcel->item, &parcel->task);
    return parcel;
}

static void wake(void *unused)
{
    (void)unused;
    sem_post(&done);
}

static struct work *compute(struct work *work)
{
    char *fetch = xasprintf("127.0.0.1:%d", server.port);
    struct compute_options options = {.stage = STAGE_IMAGE_ENCODE,
                                      .worker = "image-encode-0",
                                      .redis = redis.server.address,
                                      .cache_ttl_s = 100,
                                      .fetch = fetch,
                                      .homes = 8,
                                      .storage = storage,
                                      .models = models,
                                      .clock = &now,
                                      .wake = wake};
    struct compute *thread;
    struct err err = {0};
    clock_fake_init(&now, NOW_MS);
    assert_int_equal(compute_start(&thread, &options, &err), 0);
    compute_submit(thread, work);
    while (sem_wait(&done))
        ;
    work = compute_take(thread);
    compute_stop(thread);
    free(fetch);
    return work;
}

static enum outcome second_of_two(void (*meanwhile)(struct parcel *), int *asked)
{
    struct work *work = work_new(2);
    work->parcels[work->count++] = make("first");
    work->parcels[work->count++] = make("second");
    server.second = work->parcels[1];
    server.meanwhile = meanwhile;
    server.asked = 0;
    work = compute(work);
    *asked = server.asked;
    assert_int_equal(work->parcels[0]->outcome, OUTCOME_FAILED);
    assert_int_equal(work->parcels[0]->err.code, ERR_NOT_FOUND);
    enum outcome outcome = work->parcels[1]->outcome;
    for (size_t i = 0; i < work->count; i++)
        work->parcels[i]->record = NULL;
    work_free(work);
    redis_empty(&redis);
    return outcome;
}

/* --- what may happen meanwhile --- */

static void nothing(struct parcel *second)
{
    (void)second;
}

static void cancel(struct parcel *second)
{
    (void)second;
    redis_put(&redis, "unclip:job:second", "state", "cancelled");
}

static void expire(struct parcel *second)
{
    now.now_ms = second->task.deadline_ms;
}

static void lose(struct parcel *second)
{
    atomic_store(&second->abandoned, true);
}

static void what_is_wanted_is_read(void **state)
{
    (void)state;
    int asked;
    assert_int_equal(second_of_two(nothing, &asked), OUTCOME_FAILED);
    assert_int_equal(asked, 2);
}

static void what_is_not_wanted_is_not_read(void **state)
{
    (void)state;
    static void (*const reasons[])(struct parcel *) = {cancel, expire, lose};
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        int asked;
        assert_int_equal(second_of_two(reasons[i], &asked), OUTCOME_DROPPED);
        assert_int_equal(asked, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wanted_is_read),
        cmocka_unit_test(what_is_not_wanted_is_not_read),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
