/* SPDX-License-Identifier: Apache-2.0 */
/* The faults that UNCLIP_FAULT asks for: read once at the start, counted at each passing. */
#include "common/fault.h"

#include <stdlib.h>

#define FAULT_VARIABLE "UNCLIP_FAULT"

#if !UNCLIP_FAULTS

int fault_open(enum fault_program program, struct err *err)
{
    const char *value = getenv(FAULT_VARIABLE);
    (void)program;
    if (!value || !*value)
        return 0;
    return err_set(err, ERR_INVALID_ARGUMENT,
                   FAULT_VARIABLE " is set to '%s', but this is a release build, which has no "
                                  "faults: unset it",
                   value);
}

#else

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"

#define FAULTS_MAX                           16

enum action { ACTION_KILL, ACTION_EXIT, ACTION_SLEEP, ACTION_ERROR };

struct fault {
    enum fault_point point;
    enum action action;
    long sleep_ms;
    enum err_code code;
    char *subject; /* owned; NULL: any */
    int nth;
    bool onwards;
    atomic_int passed;
};

static const struct {
    const char *name;
    enum fault_program programs;
    bool errors;
} points[FAULT_COUNT] = {
#define X(id, name, programs, errors, where) [id] = {name, programs, errors},
    FAULT_TABLE(X)
#undef X
};

static struct fault faults[FAULTS_MAX]; /* written by fault_open() alone */
static size_t fault_count;

/* --- reading the variable --- */

static const char *program_name(enum fault_program program)
{
    return program == FAULT_WORKER ? "worker" : "coordinator";
}

/* "worker.before_commit". *mine is false for the other program's points. */
static bool point_parse(struct fault *fault, char *text, enum fault_program program, bool *mine)
{
    char *name = strchr(text, '.');
    if (!name)
        return false;
    *name++ = 0;
    *mine = strcmp(text, program_name(program)) == 0;
    enum fault_program of = *mine ? program : FAULT_BOTH ^ program;
    if (!*mine && strcmp(text, program_name(of)) != 0)
        return false;
    for (int i = 0; i < FAULT_COUNT; i++)
        if (strcmp(points[i].name, name) == 0 && (points[i].programs & of)) {
            fault->point = (enum fault_point)i;
            return true;
        }
    return false;
}

static bool number_parse(const char *text, long least, long *number, char **end)
{
    *number = strtol(text, end, 10);
    return *end != text && *number >= least && *number <= 3600000;
}

/* "kill@JOB", "sleep-500", "error-out_of_memory" */
static bool action_parse(struct fault *fault, char *text)
{
    char *subject = strchr(text, '@'), *end;
    if (subject) {
        *subject++ = 0;
        if (!*subject)
            return false;
        fault->subject = xstrdup(subject);
    }
    fault->code = ERR_IO;
    if (strcmp(text, "kill") == 0)
        fault->action = ACTION_KILL;
    else if (strcmp(text, "exit") == 0)
        fault->action = ACTION_EXIT;
    else if (strcmp(text, "error") == 0)
        fault->action = ACTION_ERROR;
    else if (strncmp(text, "sleep-", 6) == 0) {
        fault->action = ACTION_SLEEP;
        return number_parse(text + 6, 1, &fault->sleep_ms, &end) && !*end;
    } else if (strncmp(text, "error-", 6) == 0) {
        fault->action = ACTION_ERROR;
        fault->code = err_from_name(text + 6);
        return fault->code != ERR_OK && strcmp(err_name(fault->code), text + 6) == 0;
    } else {
        return false;
    }
    return true;
}

static bool nth_parse(struct fault *fault, const char *text)
{
    long nth = 1;
    char *end;
    fault->nth = 1;
    if (!text)
        return true;
    if (!number_parse(text, 1, &nth, &end))
        return false;
    fault->nth = (int)nth;
    fault->onwards = *end == '+';
    return !end[fault->onwards ? 1 : 0];
}

static int fault_parse(char *text, enum fault_program program, struct err *err)
{
    struct fault fault = {0};
    char *whole = xstrdup(text), *at = NULL;
    char *point = strtok_r(text, ":", &at), *action = strtok_r(NULL, ":", &at);
    char *nth = strtok_r(NULL, ":", &at);
    bool mine = false;
    int rc = 0;

    if (!point || !point_parse(&fault, point, program, &mine) || !action ||
        !action_parse(&fault, action) || !nth_parse(&fault, nth) || strtok_r(NULL, ":", &at))
        rc = err_set(err, ERR_INVALID_ARGUMENT,
                     FAULT_VARIABLE ": '%s' is not POINT:ACTION[@JOB][:NTH[+]] of a known point",
                     whole);
    else if (fault.action == ACTION_ERROR && !points[fault.point].errors)
        rc = err_set(err, ERR_INVALID_ARGUMENT, FAULT_VARIABLE ": '%s' cannot return an error",
                     whole);
    else if (mine && fault_count == FAULTS_MAX)
        rc = err_set(err, ERR_INVALID_ARGUMENT, FAULT_VARIABLE ": more than %d faults", FAULTS_MAX);
    else if (mine)
        faults[fault_count++] = fault;
    if (rc || !mine)
        free(fault.subject);
    free(whole);
    return rc;
}

int fault_open(enum fault_program program, struct err *err)
{
    const char *value = getenv(FAULT_VARIABLE);
    char *text = xstrdup(value ? value : ""), *at = NULL;
    int rc = 0;

    while (fault_count)
        free(faults[--fault_count].subject);
    for (char *one = strtok_r(text, ",", &at); one && !rc; one = strtok_r(NULL, ",", &at))
        rc = fault_parse(one, program, err);
    free(text);
    return rc;
}

/* --- acting --- */

static void pause_ms(long ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (nanosleep(&left, &left))
        ;
}

/* A child wakes us: everything stops, librdkafka's threads too. */
static void stop_process(long ms)
{
    pid_t self = getpid(), child = fork();
    if (child < 0) {
        pause_ms(ms);
    } else if (child == 0) {
        pause_ms(ms);
        kill(self, SIGCONT);
        _exit(0);
    } else {
        raise(SIGSTOP);
        waitpid(child, NULL, 0);
    }
}

static bool due(struct fault *fault, enum fault_point point, const char *subject)
{
    if (fault->point != point ||
        (fault->subject && (!subject || strcmp(fault->subject, subject) != 0)))
        return false;
    int passed = atomic_fetch_add(&fault->passed, 1) + 1;
    return fault->onwards ? passed >= fault->nth : passed == fault->nth;
}

static int act(const struct fault *fault, struct err *err)
{
    const char *name = points[fault->point].name;
    log_warn("fault at %s", name);
    switch (fault->action) {
    case ACTION_KILL:
        raise(SIGKILL);
        break;
    case ACTION_EXIT:
        _exit(1);
    case ACTION_SLEEP:
        stop_process(fault->sleep_ms);
        break;
    case ACTION_ERROR:
        return err_set(err, fault->code, "fault at %s", name);
    }
    return 0;
}

int fault_at(enum fault_point point, const char *subject, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < fault_count; i++) /* each counts every passing */
        if (due(&faults[i], point, subject) && !rc)
            rc = act(&faults[i], err);
    return rc;
}

#endif
