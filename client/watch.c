/* SPDX-License-Identifier: Apache-2.0 */
/* unclip watch: polls the status hash. */
#include "client/watch.h"

#include <stdlib.h>
#include <time.h>

#include "client/command.h"
#include "client/progress.h"
#include "client/status_hash.h"
#include "common/clock.h"

#define POLL_MS     200
#define PATIENCE_MS 5000 /* a job that was just sent is not there at once */
#define HINT_MS     5000

struct watcher {
    struct redis *redis;
    const char *id;
    struct progress_screen screen;
    int64_t began_ms;
    int patience_ms;
    bool seen;   /* the job */
    bool hinted; /* that something is awaited */
};

static void hint(struct watcher *watcher, const char *text)
{
    if (!watcher->hinted)
        fprintf(stderr, "unclip: %s\n", text);
    watcher->hinted = true;
    watcher->screen.lines = 0; /* bars go on below it */
}

/* What a look that failed means: 0 to go on, or the error. */
static int consider(struct watcher *watcher, int rc, const struct err *why, struct err *err)
{
    int64_t waited = clock_monotonic_ms(clock_system()) - watcher->began_ms;

    if (rc == -ERR_REDIS && watcher->seen) {
        hint(watcher, "Redis does not answer; waiting for it");
        return 0;
    }
    if (rc == -ERR_NOT_FOUND && watcher->patience_ms < 0 && waited > HINT_MS)
        hint(watcher, "no coordinator has taken the job yet; waiting for one");
    if (rc == -ERR_NOT_FOUND && (watcher->patience_ms < 0 || waited < watcher->patience_ms))
        return 0;
    *err = *why;
    return rc;
}

/* *status is the job's, or NULL when it could not be had this time. */
static int look(struct watcher *watcher, json_t **status, struct err *err)
{
    struct progress progress;
    struct err why;

    *status = NULL;
    int rc = status_fetch(watcher->redis, watcher->id, status, &why);
    if (rc < 0)
        return consider(watcher, rc, &why, err);
    watcher->seen = true;
    watcher->hinted = false;
    progress_from_status(&progress, *status);
    progress_show(&watcher->screen, &progress, clock_monotonic_ms(clock_system()));
    return 0;
}

int watch_job(struct redis *redis, const char *id, FILE *out, int patience_ms, json_t **status,
              struct err *err)
{
    struct watcher watcher = {
        .redis = redis,
        .id = id,
        .began_ms = clock_monotonic_ms(clock_system()),
        .patience_ms = patience_ms,
    };
    const struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
    int rc;

    progress_open(&watcher.screen, out);
    while ((rc = look(&watcher, status, err)) == 0) {
        if (*status && job_state_final(status_state(*status)))
            break;
        json_decref(*status);
        nanosleep(&pause, NULL);
    }
    progress_close(&watcher.screen);
    return rc;
}

static enum exit_code run(const struct invocation *invocation)
{
    struct redis *redis = NULL;
    struct err err;
    json_t *status = NULL;
    enum exit_code code;

    if (redis_open(&redis, invocation->config->redis, clock_system(), &err) < 0 ||
        watch_job(redis, invocation->operands[0], stdout, PATIENCE_MS, &status, &err) < 0)
        code = complain_of(invocation, &err);
    else
        code = status_state(status) == JOB_SUCCEEDED ? EXIT_OK : EXIT_FAILED;
    if (status && code == EXIT_FAILED)
        complain(invocation, "the job %s: %s", status_text(status, "state"),
                 status_text(status, "error_message"));
    json_decref(status);
    redis_close(redis);
    return code;
}

static const struct option_group groups[] = {{0}};

const struct command watch_command = {
    .name = "watch",
    .operands = "ID",
    .least = 1,
    .most = 1,
    .summary = "show a job's progress until it ends",
    .details = "On a terminal a bar for each stage, elsewhere a line for each change.\n",
    .groups = groups,
    .settings = {"redis"},
    .run = run,
};
