/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Redis against a real server on a free port, which the tests start, kill and start again. Time is
 * a fake clock: a back-off ends when a test moves it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/redis.h"
#include "tests/unit/redis_server.h"

static struct {
    struct redis_server server;
    struct clock clock;
    struct redis *redis;
} self;

static int try_connect(void)
{
    struct sockaddr_in address = loopback(self.server.port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int result = connect(fd, (struct sockaddr *)&address, sizeof address);
    close(fd);
    return result;
}

static void kill_server(void)
{
    redis_server_stop(&self.server);
    assert_int_equal(try_connect(), -1);
}

static int set_up(void **state)
{
    (void)state;
    struct err err;
    clock_fake_init(&self.clock, 1000000);
    redis_server_start(&self.server);
    return redis_open(&self.redis, self.server.address, &self.clock, &err);
}

static int tear_down(void **state)
{
    (void)state;
    redis_close(self.redis);
    kill_server();
    return 0;
}

static void assert_answers(void)
{
    struct err err;
    struct redis_reply *reply;
    if (redis_commandf(self.redis, &reply, &err, "PING") != 0)
        fail_msg("%s", err.text);
    assert_string_equal(reply->bytes, "PONG");
    redis_reply_free(reply);
    assert_true(redis_reachable(self.redis));
}

static void assert_away(const char *why)
{
    struct err err;
    assert_int_equal(redis_commandf(self.redis, NULL, &err, "PING"), -ERR_REDIS);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in: %s", why, err.text);
    assert_false(redis_reachable(self.redis));
}

static void bad_addresses(void **state)
{
    (void)state;
    static const char *const bad[] = {"",        "localhost", ":6379",   "a:",     "a:0",
                                      "a:65536", "a:-1",      "a:6379x", "a: 6379"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct redis *redis;
        struct err err;
        assert_int_equal(redis_open(&redis, bad[i], clock_system(), &err), -ERR_INVALID_ARGUMENT);
    }
    struct redis *redis;
    struct err err;
    assert_int_equal(redis_open(&redis, "[::1]:1", clock_system(), &err), 0);
    assert_int_equal(redis_commandf(redis, NULL, &err, "PING"), -ERR_REDIS);
    redis_close(redis);
    redis_close(NULL);
    assert_true(strchr(redis_library_version(), '.') != NULL);
}

static void replies_of_all_kinds(void **state)
{
    (void)state;
    struct err err;
    struct redis_reply *reply;
    assert_false(redis_reachable(self.redis));
    assert_answers();
    assert_int_equal(redis_commandf(self.redis, &reply, &err, "GET none"), 0);
    assert_int_equal(reply->kind, REDIS_NIL);
    redis_reply_free(reply);
    assert_int_equal(redis_commandf(self.redis, &reply, &err, "INCRBY count %lld", -5000000000LL),
                     0);
    assert_int_equal(reply->kind, REDIS_INTEGER);
    assert_int_equal(reply->integer, -5000000000LL);
    redis_reply_free(reply);
    assert_int_equal(redis_commandf(self.redis, &reply, &err, "EVAL %s 0",
                                    "return {1, 'two', {'three', false}}"),
                     0);
    assert_int_equal(reply->kind, REDIS_ARRAY);
    assert_int_equal(reply->count, 3);
    assert_string_equal(reply->items[1].bytes, "two");
    assert_string_equal(reply->items[2].items[0].bytes, "three");
    assert_int_equal(reply->items[2].items[1].kind, REDIS_NIL);
    redis_reply_free(reply);
    redis_reply_free(NULL);
}

static void hashes_by_field(void **state)
{
    (void)state;
    struct err err;
    struct redis_reply *reply;
    assert_int_equal(redis_commandf(self.redis, NULL, &err, "HSET h%s state %s note %s", "1",
                                    "running", "two words, 猫"),
                     0);
    assert_int_equal(redis_commandf(self.redis, &reply, &err, "HGETALL h1"), 0);
    assert_string_equal(redis_reply_field(reply, "state"), "running");
    assert_string_equal(redis_reply_field(reply, "note"), "two words, 猫");
    assert_null(redis_reply_field(reply, "running"));
    redis_reply_free(reply);
    assert_int_equal(redis_commandf(self.redis, &reply, &err, "HGETALL none"), 0);
    assert_null(redis_reply_field(reply, "state"));
    redis_reply_free(reply);
}

static void binary_values(void **state)
{
    (void)state;
    struct err err;
    struct redis_reply *reply;
    unsigned char bytes[100000];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    assert_int_equal(
        redis_commandf(self.redis, NULL, &err, "SET key %b", (void *)bytes, sizeof bytes), 0);
    const struct redis_arg get[] = {REDIS_STRING("GET"), REDIS_STRING("key")};
    assert_int_equal(redis_command(self.redis, get, 2, &reply, &err), 0);
    assert_int_equal(reply->size, sizeof bytes);
    assert_memory_equal(reply->bytes, bytes, sizeof bytes);
    assert_int_equal(reply->bytes[reply->size], 0);
    redis_reply_free(reply);
    const struct redis_arg set[] = {REDIS_STRING("SET"), REDIS_STRING("key"), {NULL, 0}};
    assert_int_equal(redis_command(self.redis, set, 3, NULL, &err), 0);
    assert_int_equal(redis_command(self.redis, get, 2, &reply, &err), 0);
    assert_int_equal(reply->kind, REDIS_BYTES);
    assert_int_equal(reply->size, 0);
    redis_reply_free(reply);
}

static void error_texts_are_the_servers(void **state)
{
    (void)state;
    struct err err;
    struct redis_reply *reply = NULL;
    assert_int_equal(redis_commandf(self.redis, NULL, &err, "SET s x"), 0);
    assert_int_equal(redis_commandf(self.redis, &reply, &err, "HGET s f"), -ERR_REDIS);
    assert_string_equal(err.text,
                        "redis: WRONGTYPE Operation against a key holding the wrong kind of value");
    assert_null(reply);
    assert_true(redis_reachable(self.redis));
    assert_answers();
}

static void queue_text(const char *a, const char *b, const char *c)
{
    struct err err;
    const struct redis_arg args[] = {REDIS_STRING(a), REDIS_STRING(b), REDIS_STRING(c)};
    assert_int_equal(redis_queue(self.redis, args, 3, &err), 0);
}

static void pipelines(void **state)
{
    (void)state;
    struct err err;
    struct redis_reply *reply;
    assert_int_equal(redis_flush(self.redis, &err), 0);
    for (int i = 0; i < 2000; i++)
        queue_text("INCRBY", "sum", "2");
    assert_int_equal(redis_flush(self.redis, &err), 0);
    queue_text("SET", "s", "x");
    queue_text("INCRBY", "s", "1"); /* the first error */
    queue_text("HGET", "s", "f");
    queue_text("INCRBY", "sum", "1"); /* is carried out all the same */
    assert_int_equal(redis_flush(self.redis, &err), -ERR_REDIS);
    assert_string_equal(err.text, "redis: ERR value is not an integer or out of range");
    assert_int_equal(redis_flush(self.redis, &err), 0);
    assert_int_equal(redis_commandf(self.redis, &reply, &err, "GET sum"), 0);
    assert_string_equal(reply->bytes, "4001");
    redis_reply_free(reply);
}

static void scripts(void **state)
{
    (void)state;
    static const char script[] = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    static const char broken[] = "return redis.call('NONSENSE')";
    struct err err;
    struct redis_reply *reply;
    const struct redis_arg args[] = {REDIS_STRING("n"), REDIS_STRING("3")};
    for (int i = 1; i <= 4; i++) {
        if (i == 3) /* the server forgets */
            assert_int_equal(redis_commandf(self.redis, NULL, &err, "SCRIPT FLUSH"), 0);
        assert_int_equal(redis_script(self.redis, script, args, 2, 1, &reply, &err), 0);
        assert_int_equal(reply->integer, 3 * i);
        redis_reply_free(reply);
    }
    assert_int_equal(redis_script(self.redis, broken, NULL, 0, 0, NULL, &err), -ERR_REDIS);
    assert_non_null(strstr(err.text, "redis: ERR Unknown Redis command"));
    assert_true(redis_reachable(self.redis));
}

/* Refused connections: each try doubles the wait, to 5 s at most, and none is made meanwhile. */
static void back_off(void **state)
{
    (void)state;
    static const int64_t waits[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    kill_server();
    for (size_t i = 0; i < sizeof waits / sizeof *waits; i++) {
        char left[64];
        assert_away(": Connection refused");
        snprintf(left, sizeof left, "Connection refused; next try in %lld ms", (long long)waits[i]);
        assert_away(left);
        self.clock.now_ms += waits[i] - 1;
        assert_away("next try in 1 ms");
        self.clock.now_ms += 1;
    }
    redis_server_start(&self.server);
    assert_answers();
    kill_server();
    assert_away("127.0.0.1:"); /* the wait begins anew at 100 ms */
    assert_away("next try in 100 ms");
}

static void waiting_server_is_not_asked(void **state)
{
    (void)state;
    kill_server();
    assert_away("Connection refused");
    redis_server_start(&self.server);
    assert_away("next try in 100 ms");
    self.clock.now_ms += 100;
    assert_answers();
}

/* A server that was restarted while nobody asked costs no command. */
static void restart_between_commands(void **state)
{
    (void)state;
    assert_answers();
    kill_server();
    redis_server_start(&self.server);
    assert_answers();
}

static void lost_queue(void **state)
{
    (void)state;
    struct err err;
    struct redis_reply *reply;
    assert_answers();
    kill_server();
    queue_text("SET", "s", "x");
    assert_int_equal(redis_flush(self.redis, &err), -ERR_REDIS);
    redis_server_start(&self.server);
    self.clock.now_ms += 100;
    assert_int_equal(redis_flush(self.redis, &err), 0);
    assert_int_equal(redis_commandf(self.redis, &reply, &err, "GET s"), 0);
    assert_int_equal(reply->kind, REDIS_NIL);
    redis_reply_free(reply);
}

/* The server dies while it holds the command: no SIGPIPE, no second sending. */
static void killed_within_a_command(void **state)
{
    (void)state;
    struct err err;
    assert_answers();
    assert_int_equal(redis_commandf(self.redis, NULL, &err, "SHUTDOWN NOSAVE"), -ERR_REDIS);
    assert_non_null(strstr(err.text, "Server closed the connection"));
    redis_server_stop(&self.server);
    redis_server_start(&self.server);
    self.clock.now_ms += 100;
    assert_answers();
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A server that does not answer costs the command limit once, and then nothing. */
static void silent_server(void **state)
{
    (void)state;
    assert_answers();
    kill(self.server.process, SIGSTOP);
    double before = seconds();
    assert_away("no answer in 500 ms");
    assert_away("next try in 100 ms");
    double took = seconds() - before;
    assert_true(took > 0.45 && took < 60);
    kill(self.server.process, SIGCONT);
    self.clock.now_ms += 100;
    assert_answers();
}

/* A host that takes no connection: its queue is full, and more are dropped in silence. */
static void unreachable_server(void **state)
{
    (void)state;
    enum { FILLERS = 8 };
    kill_server();
    struct sockaddr_in address = loopback(self.server.port);
    int one = 1, fillers[FILLERS], listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 0), 0);
    for (int i = 0; i < FILLERS; i++) {
        fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)connect(fillers[i], (struct sockaddr *)&address, sizeof address);
    }
    double before = seconds();
    assert_away("127.0.0.1:");
    double took = seconds() - before;
    assert_true(took > 0.25 && took < 60);
    for (int i = 0; i < FILLERS; i++)
        close(fillers[i]);
    close(listener);
}

/* Ends each connection (FIN) and then resets it, once it has read something: what a write in
   progress meets then is EPIPE. */
static void *slam_doors(void *arg)
{
    int listener = *(int *)arg, fd;
    char bytes[64];
    struct linger at_once = {1, 0};
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        if (read(fd, bytes, sizeof bytes) > 0) {
            shutdown(fd, SHUT_WR);
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        }
        close(fd);
    }
    return NULL;
}

static void rude_server(void **state)
{
    (void)state;
    kill_server();
    struct sockaddr_in address = loopback(self.server.port);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 5), 0);
    pthread_t thread;
    pthread_create(&thread, NULL, slam_doors, &listener);
    signal(SIGPIPE, SIG_DFL); /* whatever the test was started with */
    struct err err;
    size_t size = 32 << 20; /* more than the sockets hold: the write meets the reset */
    char *bytes = calloc(1, size);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(redis_commandf(self.redis, NULL, &err, "SET k %b", bytes, size),
                         -ERR_REDIS);
        self.clock.now_ms += 5000;
    }
    free(bytes);
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(listener);
}

int main(void)
{
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_addresses),
        WITH_SERVER(replies_of_all_kinds),
        WITH_SERVER(hashes_by_field),
        WITH_SERVER(binary_values),
        WITH_SERVER(error_texts_are_the_servers),
        WITH_SERVER(pipelines),
        WITH_SERVER(scripts),
        WITH_SERVER(back_off),
        WITH_SERVER(waiting_server_is_not_asked),
        WITH_SERVER(restart_between_commands),
        WITH_SERVER(lost_queue),
        WITH_SERVER(killed_within_a_command),
        WITH_SERVER(silent_server),
        WITH_SERVER(unreachable_server),
        WITH_SERVER(rude_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
