/* SPDX-License-Identifier: Apache-2.0 */
/* What a process says when it dies. Include after cmocka.h. */
#ifndef UNCLIP_TESTS_CHILD_H
#define UNCLIP_TESTS_CHILD_H

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `act` in a child; returns its wait status, and what it wrote to stderr. */
static inline int in_child(void (*act)(void), char *said, size_t size)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        act();
        _exit(0);
    }
    close(ends[1]);
    size_t done = 0;
    ssize_t got;
    while (done < size - 1 && (got = read(ends[0], said + done, size - 1 - done)) > 0)
        done += (size_t)got;
    said[done] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

#endif
