/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The view in Redis.
 *
 * A status is written whole by one script, which refuses to go back: never a lower rank of the same
 * job, never an older job of the same id. So writing one again, late, or from two coordinators at
 * once is harmless, and everything below may write too much but must not write too little.
 *
 * What makes a status be written:
 *  - Its job changed: the ledger lists it as unshown until Redis has taken it.
 *  - unclip:view, a hash of partition → mark, is not as we left it. A mark is a watermark w and a
 *    token of who wrote it. w says: all jobs of the partition that ended up to w are in Redis. It
 * is raised only when nothing is unshown. Each second the mark is read; where it is missing
 *    (FLUSHALL, an empty restart), another one (an old snapshot was loaded, or a coordinator that
 *    has lost the partition found Redis empty before we did), or not known yet (the partition was
 *    just assigned: the coordinator before us may have died between a commit and its view), the
 *    partition is written anew: its live jobs from the ledger, the ended ones since the watermark
 *    from unclip.results. Whoever begins that puts its own mark there, and only in place of the one
 *    that it has read: so no loss is ever taken for one's own doing.
 *  - Redis was away so long that VIEW_ENDED_MAX ended jobs waited for it. They are let go, and the
 *    watermark, which lags behind them, brings them back in the same way.
 *
 * The watermark is compared with a slack: clocks of coordinators differ, and one that has lost its
 * partition may raise it once more before it notices.
 */
#include "coordinator/view.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/log.h"
#include "common/memory.h"
#include "coordinator/queue_view.h"
#include "coordinator/records.h"
#include "coordinator/status.h"

#define MARK_SIZE  40 /* of "1769862896789 0123456789abcdef" */
#define STRING_(x) #x
#define STRING(x)  STRING_(x)

struct watch {
    bool kept;
    bool behind;          /* to be written anew, from `from` on */
    bool known;           /* Redis answered about it since it was assigned */
    int64_t from;         /* ended jobs since then may be missing */
    char mark[MARK_SIZE]; /* what Redis has; "": nothing that is a mark */
    int64_t watermark;    /* of the mark; 0 for none */
    int64_t ended;        /* the latest end that Redis shows */
};

struct view {
    struct view_options options;
    uint64_t token; /* of this coordinator's marks: another one for each process */
    struct watch watches[LEDGER_PARTITIONS_MAX];
    int64_t next_check_ms; /* monotonic */
    bool away;             /* said once */
};

/*
 * KEYS: the job's hash, the list of recent jobs.
 * ARGV: 1 id, 2 created_at in ms, 3 the same as text, 4 rank, 5 when it expires in ms (0: never),
 *       6 "name=rank," of all states, 7 stage, 8 step, 9 steps, 10 progress, 11… field, value, …
 * Returns 1, or 0 when Redis has something newer.
 * Workers write stage, step, steps and progress too, more finely: theirs stay while the stage is
 * the same, and progress never falls.
 */
static const char script[] =
    "local function rank(state)\n"
    "  for name, number in string.gmatch(ARGV[6], '([^=,]+)=(%d+)') do\n"
    "    if name == state then return tonumber(number) end\n"
    "  end\n"
    "  return -1\n"
    "end\n"
    "local old = redis.call('HMGET', KEYS[1], 'state', 'created_at', 'stage', 'progress')\n"
    "if old[1] and old[2] then\n"
    "  if old[2] > ARGV[3] then return 0 end\n"
    "  if old[2] < ARGV[3] then\n"
    "    redis.call('DEL', KEYS[1])\n"
    "    old = {}\n"
    "  elseif rank(old[1]) > tonumber(ARGV[4]) then\n"
    "    return 0\n"
    "  end\n"
    "end\n"
    "redis.call('HSET', KEYS[1], unpack(ARGV, 11))\n"
    "local ended = ARGV[5] ~= '0'\n"
    "if ended or old[3] ~= ARGV[7] then\n"
    "  redis.call('HSET', KEYS[1], 'stage', ARGV[7], 'step', ARGV[8], 'steps', ARGV[9])\n"
    "end\n"
    "if tonumber(old[4] or '') == nil or tonumber(old[4]) < tonumber(ARGV[10]) then\n"
    "  redis.call('HSET', KEYS[1], 'progress', ARGV[10])\n"
    "end\n"
    "if ended then redis.call('PEXPIREAT', KEYS[1], ARGV[5]) else redis.call('PERSIST', KEYS[1]) "
    "end\n"
    "redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])\n"
    "redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -" STRING(VIEW_JOBS_MAX) " - 1)\n"
                                                                        "return 1\n";

static const char ranks[] =
#define X(id, name, rank, final) name "=" #rank ","
    JOB_STATE_TABLE(X)
#undef X
    ;

struct view *view_new(const struct view_options *options)
{
    struct view *view = xcalloc(1, sizeof *view);
    view->options = *options;
    while (getrandom(&view->token, sizeof view->token, 0) != sizeof view->token)
        BUG_ON(errno != EINTR);
    return view;
}

void view_free(struct view *view)
{
    free(view);
}

void view_partition_add(struct view *view, int partition)
{
    view->watches[partition] = (struct watch){.kept = true, .behind = true};
    view->next_check_ms = 0;
}

void view_partition_drop(struct view *view, int partition)
{
    view->watches[partition] = (struct watch){0};
}

bool view_pending(const struct view *view)
{
    if (view->away)
        return false;
    for (int i = 0; i < LEDGER_PARTITIONS_MAX; i++)
        if (view->watches[i].kept && view->watches[i].behind)
            return true;
    return ledger_first_unshown(view->options.ledger) != NULL;
}

/* --- one status --- */

struct arguments {
    struct redis_arg list[16 + 2 * STATUS_FIELDS_MAX];
    size_t count;
};

static void add_argument(struct arguments *arguments, const char *text)
{
    BUG_ON(arguments->count == sizeof arguments->list / sizeof *arguments->list);
    arguments->list[arguments->count++] = REDIS_STRING(text);
}

/* Puts the script's call for `job` into the pipeline. */
static int queue_status(struct view *view, const struct live_job *job, struct err *err)
{
    struct status status;
    struct arguments call = {0};
    char key[REDIS_KEY_SIZE], recent[REDIS_KEY_SIZE], created[CLOCK_ISO_SIZE];
    char created_ms[24], expiry[24], rank[8], step[16], steps[16], progress[16];
    bool final = job_state_final(job->state);

    status_make(&status, job, view->options.rates);
    clock_iso8601(job->created_at_ms, created);
    snprintf(created_ms, sizeof created_ms, "%" PRId64, job->created_at_ms);
    snprintf(expiry, sizeof expiry, "%" PRId64,
             final ? job->finished_at_ms + view->options.ttl_ms : 0);
    snprintf(rank, sizeof rank, "%d", job_state_rank(job->state));
    snprintf(step, sizeof step, "%d", status.step);
    snprintf(steps, sizeof steps, "%d", status.steps);
    snprintf(progress, sizeof progress, "%.4f", status.progress);
    const char *fixed[] = {"EVAL",
                           script,
                           "2",
                           redis_key(REDIS_KEY_JOB, job->job.id, key),
                           redis_key(REDIS_KEY_JOBS, NULL, recent),
                           job->job.id,
                           created_ms,
                           created,
                           rank,
                           expiry,
                           ranks,
                           status.stage,
                           step,
                           steps,
                           progress};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        add_argument(&call, fixed[i]);
    for (size_t i = 0; i < status.count; i++) {
        add_argument(&call, status.names[i]);
        add_argument(&call, status.values[i]);
    }
    int rc = redis_queue(view->options.redis, call.list, call.count, err);
    status_release(&status);
    return rc;
}

static void note_ended(struct view *view, const struct live_job *job)
{
    struct watch *watch = &view->watches[job->home];
    if (job_state_final(job->state) && job->finished_at_ms > watch->ended)
        watch->ended = job->finished_at_ms;
}

/* --- the unshown ones --- */

static int write_slice(struct view *view, struct err *err)
{
    struct ledger *ledger = view->options.ledger;
    struct live_job *job = ledger_first_unshown(ledger);
    size_t count = 0;

    for (; job && count < VIEW_SLICE; job = job->next_unshown, count++) {
        int rc = queue_status(view, job, err);
        if (rc < 0)
            return rc;
    }
    int rc = count ? redis_flush(view->options.redis, err) : 0;
    while (rc == 0 && count--) {
        note_ended(view, ledger_first_unshown(ledger));
        ledger_shown(ledger, ledger_first_unshown(ledger));
    }
    return rc;
}

/* Redis has been away for long: the oldest ended jobs are left to the replay. */
static void let_go(struct view *view)
{
    struct ledger *ledger = view->options.ledger;
    struct live_job *job = ledger_first_unshown(ledger), *next;

    for (; job && ledger_unshown_ended(ledger) > VIEW_ENDED_MAX; job = next) {
        next = job->next_unshown;
        if (!job_state_final(job->state))
            continue;
        view->watches[job->home].known = false;
        view->watches[job->home].behind = true;
        view->next_check_ms = 0;
        ledger_shown(ledger, job);
    }
}

/* --- marks --- */

/*
 * KEYS: unclip:view. ARGV: 1 partition, 2 the mark that must be there, or empty, 3 the new one.
 * What is no mark counts as none.
 */
static const char mark_script[] =
    "local old = redis.call('HGET', KEYS[1], ARGV[1])\n"
    "local mark = '^%d+ ' .. string.rep('%x', 16) .. '$'\n"
    "if not old or #old > 35 or not string.match(old, mark) then old = '' end\n"
    "if old ~= ARGV[2] then return 0 end\n"
    "redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])\n"
    "return 1\n";

static bool mark_valid(const char *text)
{
    size_t digits = strspn(text, "0123456789"), hex = 0;
    if (digits < 1 || digits > 18 || text[digits] != ' ')
        return false;
    while (isxdigit((unsigned char)text[digits + 1 + hex]))
        hex++;
    return hex == 16 && !text[digits + 1 + hex];
}

/*
 * Puts our mark with that watermark in the place of the one that we know. Not when that has
 * changed: Redis may have lost it meanwhile, and nobody would ever notice what else it has lost.
 * Returns 1, 0 when it has changed, or an error.
 */
static int mark_replace(struct view *view, int partition, int64_t watermark, struct err *err)
{
    struct watch *watch = &view->watches[partition];
    char key[REDIS_KEY_SIZE], field[16], mark[MARK_SIZE];
    struct redis_reply *reply = NULL;

    snprintf(field, sizeof field, "%d", partition);
    snprintf(mark, sizeof mark, "%" PRId64 " %016" PRIx64, watermark, view->token);
    const struct redis_arg args[] = {REDIS_STRING(redis_key(REDIS_KEY_VIEW, NULL, key)),
                                     REDIS_STRING(field), REDIS_STRING(watch->mark),
                                     REDIS_STRING(mark)};
    int rc = redis_script(view->options.redis, mark_script, args, 4, 1, &reply, err);
    if (rc < 0)
        return rc;
    rc = reply->integer == 1;
    redis_reply_free(reply);
    if (rc) {
        memcpy(watch->mark, mark, sizeof mark);
        watch->watermark = watermark;
    } else {
        view->next_check_ms = 0;
    }
    return rc;
}

static int watermark_raise(struct view *view, int partition, struct err *err)
{
    int rc = mark_replace(view, partition, view->watches[partition].ended, err);
    return rc < 0 ? rc : 0;
}

/* The mark by which it is noticed that Redis was emptied, or that another coordinator wrote, while
   the partition is being written anew. */
static int watermark_begin(struct view *view, int partition, struct err *err)
{
    return mark_replace(view, partition, view->watches[partition].watermark, err);
}

/* Only when all that has ended is shown. */
static int watermarks_raise(struct view *view, struct err *err)
{
    int rc = 0;
    for (int i = 0; i < LEDGER_PARTITIONS_MAX && rc == 0; i++) {
        const struct watch *watch = &view->watches[i];
        if (watch->kept && watch->known && !watch->behind && watch->ended > watch->watermark)
            rc = watermark_raise(view, i, err);
    }
    return rc;
}

/* `found`: what Redis has; "" for nothing. */
static void mark_take(struct watch *watch, const char *found)
{
    if (!mark_valid(found))
        found = "";
    if (watch->known && !watch->behind && *found && strcmp(found, watch->mark) == 0)
        return;
    snprintf(watch->mark, sizeof watch->mark, "%s", found);
    watch->watermark = strtoll(found, NULL, 10);
    watch->from = watch->watermark > VIEW_SLACK_MS ? watch->watermark - VIEW_SLACK_MS : 0;
    watch->behind = true;
    watch->known = true;
}

static int check(struct view *view, struct err *err)
{
    char key[REDIS_KEY_SIZE];
    struct redis_reply *reply = NULL;
    int rc = redis_commandf(view->options.redis, &reply, err, "HGETALL %s",
                            redis_key(REDIS_KEY_VIEW, NULL, key));
    if (rc < 0)
        return rc;
    for (int i = 0; i < LEDGER_PARTITIONS_MAX; i++) {
        char field[16];
        if (!view->watches[i].kept)
            continue;
        snprintf(field, sizeof field, "%d", i);
        const char *found = redis_reply_field(reply, field);
        mark_take(&view->watches[i], found ? found : "");
    }
    redis_reply_free(reply);
    return 0;
}

/* --- writing a partition anew --- */

struct rewriting {
    struct view *view;
    int partition;
    int64_t now_ms;
    size_t count, queued;
};

static int rewrite_result(void *context, const struct kafka_record *record, struct err *err)
{
    struct rewriting *rewriting = context;
    struct view *view = rewriting->view;
    struct live_job *job = NULL;
    struct err why;

    if (!record->value)
        return 0;
    if (result_decode(&job, rewriting->partition, record, &why) < 0) {
        log_error("%s/%d@%lld: %s", record->topic, record->partition, (long long)record->offset,
                  why.text);
        return 0;
    }
    int rc = 0;
    if (job->finished_at_ms >= view->watches[job->home].from &&
        job->finished_at_ms + view->options.ttl_ms > rewriting->now_ms) {
        rc = queue_status(view, job, err);
        rewriting->count++;
        rewriting->queued++;
    }
    if (rc == 0 && rewriting->queued == VIEW_SLICE) {
        rewriting->queued = 0;
        rc = redis_flush(view->options.redis, err);
    }
    if (rc == 0)
        note_ended(view, job);
    live_job_free(job);
    return rc;
}

/* NEEDSWORK: a log of millions of results takes seconds here, in which the coordinator serves
   nothing else: should the replay be cut in slices, or unclip.results be kept by time too? */
static int rewrite(struct view *view, int partition, struct err *err)
{
    struct watch *watch = &view->watches[partition];
    struct rewriting rewriting = {
        .view = view,
        .partition = partition,
        .now_ms = clock_wall_ms(view->options.clock),
    };
    struct live_job *job = ledger_first(view->options.ledger, partition);
    int rc = watermark_begin(view, partition, err);

    if (rc <= 0) {
        watch->known = rc < 0 && watch->known; /* to be looked at again first */
        return rc;
    }
    for (; job; job = job->next)
        ledger_mark_unshown(view->options.ledger, job);
    rc = view->options.replay(view->options.context, partition, rewrite_result, &rewriting, err);
    if (rc == 0 && rewriting.queued)
        rc = redis_flush(view->options.redis, err);
    if (rc < 0)
        return rc;
    watch->behind = false;
    if (rewriting.count)
        log_info("partition %d: wrote %zu statuses of ended jobs to Redis", partition,
                 rewriting.count);
    return 0;
}

static int rewrite_next(struct view *view, struct err *err)
{
    for (int i = 0; i < LEDGER_PARTITIONS_MAX; i++)
        if (view->watches[i].kept && view->watches[i].known && view->watches[i].behind)
            return rewrite(view, i, err);
    return 0;
}

/* --- all of it --- */

static int serve(struct view *view, struct err *err)
{
    int64_t now_ms = clock_monotonic_ms(view->options.clock);
    int rc = 0;

    if (now_ms >= view->next_check_ms) {
        if ((rc = check(view, err)) < 0 ||
            (rc = queue_view_write(view->options.redis, view->options.ledger, view->options.rates,
                                   err)) < 0)
            return rc;
        view->next_check_ms = now_ms + VIEW_CHECK_MS;
    }
    if ((rc = rewrite_next(view, err)) < 0 || (rc = write_slice(view, err)) < 0)
        return rc;
    return ledger_first_unshown(view->options.ledger) ? 0 : watermarks_raise(view, err);
}

void view_serve(struct view *view)
{
    struct err err;
    int rc = serve(view, &err);

    if (rc < 0 && !view->away)
        log_warn("statuses wait: %s", err.text);
    if (rc == 0 && view->away)
        log_info("statuses are written again");
    view->away = rc < 0;
    let_go(view);
}
