/* SPDX-License-Identifier: Apache-2.0 */
/* A real Redis server on a free port for a test group. Include after cmocka.h. */
#ifndef UNCLIP_TESTS_REDIS_FIXTURE_H
#define UNCLIP_TESTS_REDIS_FIXTURE_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/redis.h"

struct redis_server {
    pid_t process;
    char address[32];
    struct redis *redis;
};

static inline int redis_free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

/* Debian's redis-tools has the server under the name redis-check-rdb; argv[0] says what it is. */
static inline void redis_exec(int port, int output)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", port);
    const char *const argv[] = {"redis-server", "--port",       text, "--bind",
                                "127.0.0.1",    "--save",       "",   "--dir",
                                "/tmp",         "--appendonly", "no", NULL};
    dup2(output, STDOUT_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp("redis-server", (char *const *)(uintptr_t)argv);
    execvp("redis-check-rdb", (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* Waits for the server's own word that it is ready. */
static inline void redis_start(struct redis_server *server)
{
    int ends[2], port = redis_free_port();
    char line[512] = "";
    struct err err = {0};
    assert_int_equal(pipe(ends), 0);
    server->process = fork();
    if (server->process == 0)
        redis_exec(port, ends[1]);
    close(ends[1]);
    FILE *output = fdopen(ends[0], "r");
    while (!strstr(line, "Ready to accept connections"))
        if (!fgets(line, sizeof(line), output))
            fail_msg("the Redis server did not start");
    snprintf(server->address, sizeof(server->address), "127.0.0.1:%d", port);
    assert_int_equal(redis_open(&server->redis, server->address, clock_system(), &err), 0);
}

static inline void redis_stop(struct redis_server *server)
{
    redis_close(server->redis);
    kill(server->process, SIGKILL);
    waitpid(server->process, NULL, 0);
}

/* The reply's text, "" for none; valid until the next call. */
static inline const char *redis_ask(struct redis_server *server, const char *command,
                                    const char *key, const char *field)
{
    static char text[4096];
    struct redis_arg args[] = {REDIS_STRING(command), REDIS_STRING(key),
                               REDIS_STRING(field ? field : "")};
    struct redis_reply *reply;
    struct err err = {0};
    assert_int_equal(redis_command(server->redis, args, field ? 3 : 2, &reply, &err), 0);
    snprintf(text, sizeof(text), "%s", reply->kind == REDIS_BYTES ? reply->bytes : "");
    if (reply->kind == REDIS_INTEGER)
        snprintf(text, sizeof(text), "%lld", (long long)reply->integer);
    redis_reply_free(reply);
    return text;
}

static inline void redis_put(struct redis_server *server, const char *key, const char *field,
                             const char *value)
{
    struct redis_arg args[] = {REDIS_STRING("HSET"), REDIS_STRING(key), REDIS_STRING(field),
                               REDIS_STRING(value)};
    struct err err = {0};
    assert_int_equal(redis_command(server->redis, args, 4, NULL, &err), 0);
}

static inline void redis_empty(struct redis_server *server)
{
    struct redis_arg args[] = {REDIS_STRING("FLUSHALL")};
    struct err err = {0};
    assert_int_equal(redis_command(server->redis, args, 1, NULL, &err), 0);
}

#endif
