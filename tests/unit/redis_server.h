/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real Redis server on a free port, which keeps nothing: stopped and started again it is empty,
 * at the same address. It dies with the test. Include after cmocka.h.
 */
#ifndef UNCLIP_TESTS_REDIS_SERVER_H
#define UNCLIP_TESTS_REDIS_SERVER_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Begins as zeros. */
struct redis_server {
    int port;         /* 0 until the first start */
    char address[32]; /* "127.0.0.1:6379", as redis_open() takes it */
    pid_t process;    /* 0: not running */
};

static inline struct sockaddr_in loopback(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* One that can be bound now, and that no outgoing connection is given while the server is away:
   they are below Linux's range for those. */
static inline int free_port(void)
{
    enum { LOWEST = 20000, PORTS = 12000 };
    static unsigned tried;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (unsigned start = (unsigned)now.tv_nsec / 1000 + (unsigned)getpid() * 7919;; tried++) {
        int port = LOWEST + (int)((start + tried) % PORTS), fd = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in address = loopback(port);
        bool free = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
        close(fd);
        if (free)
            return port;
        assert_true(tried < PORTS);
    }
}

/* Debian's redis-tools has the server under the name redis-check-rdb; argv[0] says what it is. */
static inline void redis_server_exec(int port, int output)
{
    char text[16];
    snprintf(text, sizeof text, "%d", port);
    const char *const argv[] = {"redis-server", "--port",       text, "--bind",
                                "127.0.0.1",    "--save",       "",   "--dir",
                                "/tmp",         "--appendonly", "no", NULL};
    char *const *arguments = (char *const *)(uintptr_t)argv;
    dup2(output, STDOUT_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execvp("redis-server", arguments);
    execvp("redis-check-rdb", arguments);
    _exit(127);
}

/* Returns when the server itself says that it is ready; false when it ends without. */
static inline bool redis_server_try(struct redis_server *server)
{
    int ends[2];
    char line[500];
    bool ready = false;
    assert_int_equal(pipe(ends), 0);
    server->process = fork();
    if (server->process == 0)
        redis_server_exec(server->port, ends[1]);
    close(ends[1]);
    FILE *said = fdopen(ends[0], "r");
    while (!ready && fgets(line, sizeof line, said))
        ready = strstr(line, "Ready to accept connections") != NULL;
    fclose(said);
    if (!ready)
        waitpid(server->process, NULL, 0);
    return ready;
}

/* Fails the test when there is no server in the end. At its first start another process may be
   quicker to take the port. */
static inline void redis_server_start(struct redis_server *server)
{
    bool first = server->port == 0, ready = false;
    for (int tries = first ? 5 : 1; tries > 0 && !ready; tries--) {
        if (first)
            server->port = free_port();
        ready = redis_server_try(server);
    }
    snprintf(server->address, sizeof server->address, "127.0.0.1:%d", server->port);
    if (!ready)
        fail_msg("no redis-server could be started at %s", server->address);
}

/* At once, without a farewell; does nothing when it is not running. */
static inline void redis_server_stop(struct redis_server *server)
{
    if (server->process > 0) {
        kill(server->process, SIGKILL);
        waitpid(server->process, NULL, 0);
    }
    server->process = 0;
}

#endif
