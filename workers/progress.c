/* SPDX-License-Identifier: Apache-2.0 */
/* Progress writing; see progress.h. */
#include "workers/progress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"

/*
 * KEYS: status hashes. ARGV: stage, step, steps, time, then for each hash how many of its pictures
 * follow, and so many (picture, progress) pairs. Answers the jobs' states, '' for an unknown one or
 * one whose hash fails, and at the end what the first failure was, if there was one. A job's
 * progress is the mean of its pictures', and its place is that of the picture that is furthest
 * behind.
 */
static const char script[] =
    "local function show(key, first, last)\n"
    "    local state = redis.call('HGET', key, 'state')\n"
    "    if not state or state == 'succeeded' or state == 'failed' or state == 'cancelled'\n"
    "        or state == 'expired' then return state or '' end\n"
    "    local total = tonumber(redis.call('HGET', key, 'images_total')) or 0\n"
    "    if not (total >= 1 and total <= 64) then return state end\n"
    "    local fields = {}\n"
    "    for i = 0, total - 1 do fields[i + 1] = 'progress:' .. i end\n"
    "    local values = redis.call('HMGET', key, unpack(fields))\n"
    "    for i = 1, total do values[i] = tonumber(values[i]) or 0 end\n"
    "    local mine = 2\n"
    "    for a = first, last, 2 do\n"
    "        local i, now = tonumber(ARGV[a]) + 1, tonumber(ARGV[a + 1])\n"
    "        if i <= total then\n"
    "            if now > values[i] then\n"
    "                values[i] = now\n"
    "                redis.call('HSET', key, fields[i], ARGV[a + 1])\n"
    "            end\n"
    "            if now >= values[i] and now < mine then mine = now end\n"
    "        end\n"
    "    end\n"
    "    local sum, least = 0, 1\n"
    "    for i = 1, total do\n"
    "        sum = sum + values[i]\n"
    "        if values[i] < least then least = values[i] end\n"
    "    end\n"
    "    if mine <= least then\n"
    "        redis.call('HSET', key, 'stage', ARGV[1], 'step', ARGV[2], 'steps', ARGV[3])\n"
    "    end\n"
    "    local old = tonumber(redis.call('HGET', key, 'progress')) or 0\n"
    "    if sum / total > old then\n"
    "        redis.call('HSET', key, 'progress', string.format('%.4f', sum / total))\n"
    "    end\n"
    "    redis.call('HSET', key, 'updated_at', ARGV[4])\n"
    "    return state\n"
    "end\n"
    "local states, at, trouble = {}, 5, nil\n"
    "for k = 1, #KEYS do\n"
    "    local last = at + 2 * tonumber(ARGV[at])\n"
    "    local ok, state = pcall(show, KEYS[k], at + 1, last)\n"
    "    states[k] = ok and state or ''\n"
    "    if not ok and not trouble then\n"
    "        trouble = KEYS[k] .. ': ' .. (type(state) == 'table' and state.err or state)\n"
    "    end\n"
    "    at = last + 1\n"
    "end\n"
    "states[#KEYS + 1] = trouble\n"
    "return states\n";

struct progress_job {
    const char *id; /* borrowed from a task */
    int64_t written_ms;
    bool due; /* it is written now */
    bool stopped;
};

static struct progress_job *job_of(const struct progress *progress, const char *id)
{
    for (size_t i = 0; i < progress->job_count; i++)
        if (strcmp(progress->jobs[i].id, id) == 0)
            return &progress->jobs[i];
    return NULL;
}

void progress_init(struct progress *progress, struct redis *redis, struct clock *clock,
                   const struct task *const *tasks, size_t count)
{
    *progress = (struct progress){.redis = redis,
                                  .clock = clock,
                                  .tasks = xcalloc(count + 1, sizeof(*progress->tasks)),
                                  .count = count,
                                  .jobs = xcalloc(count + 1, sizeof(*progress->jobs))};
    for (size_t i = 0; i < count; i++) {
        progress->tasks[i] = tasks[i];
        if (!job_of(progress, tasks[i]->job))
            progress->jobs[progress->job_count++] = (struct progress_job){.id = tasks[i]->job};
    }
}

void progress_release(struct progress *progress)
{
    free(progress->tasks);
    free(progress->jobs);
    *progress = (struct progress){0};
}

#define FIXED_ARGS  4 /* stage, step, steps, time */
#define NUMBER_SIZE 16

/* One call of the script. Keys and numbers are what `args` point to. */
struct command {
    struct redis_arg *args;
    size_t count;
    char (*keys)[REDIS_KEY_SIZE];
    char (*numbers)[NUMBER_SIZE];
    size_t keys_used, numbers_used;
    char time[CLOCK_ISO_SIZE];
};

static void command_init(struct command *command, const struct progress *progress)
{
    size_t jobs = progress->job_count, pairs = progress->count;
    *command = (struct command){
        .args = xcalloc(FIXED_ARGS + 2 * (jobs + pairs), sizeof(*command->args)),
        .keys = xcalloc(jobs + 1, sizeof(*command->keys)),
        .numbers = xcalloc(FIXED_ARGS + jobs + 2 * pairs, sizeof(*command->numbers))};
    clock_iso8601(clock_wall_ms(progress->clock), command->time);
}

static void command_release(struct command *command)
{
    free(command->args);
    free(command->keys);
    free(command->numbers);
}

static void add_text(struct command *command, const char *text)
{
    command->args[command->count++] = REDIS_STRING(text);
}

static void add_int(struct command *command, int number)
{
    char *text = command->numbers[command->numbers_used++];
    snprintf(text, NUMBER_SIZE, "%d", number);
    add_text(command, text);
}

static void add_share(struct command *command, double share)
{
    char *text = command->numbers[command->numbers_used++];
    snprintf(text, NUMBER_SIZE, "%.4f", share);
    add_text(command, text);
}

static void add_job(struct command *command, const struct progress *progress,
                    const struct progress_job *job, int step)
{
    int images = 0;
    for (size_t i = 0; i < progress->count; i++)
        images += strcmp(progress->tasks[i]->job, job->id) == 0;
    add_int(command, images);
    for (size_t i = 0; i < progress->count; i++) {
        const struct task *task = progress->tasks[i];
        if (strcmp(task->job, job->id) != 0)
            continue;
        add_int(command, task->image);
        add_share(command, task_progress(task, step));
    }
}

static void build(struct command *command, const struct progress *progress, int step, int steps)
{
    for (size_t i = 0; i < progress->job_count; i++)
        if (progress->jobs[i].due)
            add_text(command, redis_key(REDIS_KEY_JOB, progress->jobs[i].id,
                                        command->keys[command->keys_used++]));
    add_text(command, stage_name(task_hop(progress->tasks[0])->stage));
    add_int(command, step);
    add_int(command, steps);
    add_text(command, command->time);
    for (size_t i = 0; i < progress->job_count; i++)
        if (progress->jobs[i].due)
            add_job(command, progress, &progress->jobs[i], step);
}

static bool state_stops(const struct redis_reply *reply)
{
    enum job_state state;
    return reply->kind == REDIS_BYTES && job_state_parse(reply->bytes, &state) &&
           (state == JOB_CANCELLED || state == JOB_EXPIRED);
}

static int take_states(struct progress *progress, const struct redis_reply *reply, struct err *err)
{
    size_t at = 0;
    for (size_t i = 0; i < progress->job_count && at < reply->count; i++)
        if (progress->jobs[i].due)
            progress->jobs[i].stopped |= state_stops(&reply->items[at++]);
    if (at < reply->count && reply->items[at].kind == REDIS_BYTES)
        return err_set(err, ERR_REDIS, "redis: %s", reply->items[at].bytes);
    return 0;
}

static int write_jobs(struct progress *progress, int step, int steps, struct err *err)
{
    struct command command;
    struct redis_reply *reply;
    command_init(&command, progress);
    build(&command, progress, step, steps);
    int rc = redis_script(progress->redis, script, command.args, command.count, command.keys_used,
                          &reply, err);
    command_release(&command);
    if (rc)
        return rc;
    rc = take_states(progress, reply, err);
    redis_reply_free(reply);
    return rc;
}

int progress_step(struct progress *progress, int step, int steps, struct err *err)
{
    int64_t now = clock_monotonic_ms(progress->clock);
    bool always = step == 0 || step >= steps, any = false;
    for (size_t i = 0; i < progress->job_count; i++) {
        struct progress_job *job = &progress->jobs[i];
        job->due = always || now - job->written_ms >= PROGRESS_INTERVAL_MS;
        if (job->due)
            job->written_ms = now;
        any |= job->due;
    }
    return any ? write_jobs(progress, step, steps, err) : 0;
}

bool progress_stopped(const struct progress *progress, size_t index)
{
    return job_of(progress, progress->tasks[index]->job)->stopped;
}
