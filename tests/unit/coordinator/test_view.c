/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The view on a real Redis, which this test starts, stops and empties. The log of results is the
 * test's own; time is moved by hand.
 */
#include "common/clock.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/redis.h"
#include "coordinator/view.h"
#include "fixture.h"
#include "tests/unit/redis_server.h"

#define HEARTS  "{\"version\":1,\"type\":\"text-to-image\",\"prompt\":\"a red heart\",\"n\":2}"
#define LOG_MAX 64
#define TTL_MS  (100 * 365 * 86400000LL) /* the server's clock is the real one */

/* One record of unclip.results. */
struct logged {
    char *key, *value; /* owned */
};

struct world {
    struct fixture f;
    struct clock clock;
    struct redis *redis;
    struct view *view;
    struct logged log[LOG_MAX];
    size_t logged, replays;
    struct redis_server server;
};

/* --- the world --- */

static int replay(void *context, int partition, view_each_fn *each, void *each_context,
                  struct err *err)
{
    struct world *w = context;
    int rc = 0;
    w->replays++;
    for (size_t i = 0; i < w->logged && rc == 0; i++)
        rc = each(each_context,
                  &(struct kafka_record){.topic = topic_name(TOPIC_RESULTS),
                                         .partition = partition,
                                         .key = w->log[i].key,
                                         .key_size = strlen(w->log[i].key),
                                         .value = w->log[i].value,
                                         .value_size = strlen(w->log[i].value)},
                  err);
    return rc;
}

static int replay_nothing(void *context, int partition, view_each_fn *each, void *each_context,
                          struct err *err)
{
    (void)context, (void)partition, (void)each, (void)each_context, (void)err;
    return 0;
}

/* A coordinator starts on what Kafka and Redis hold. */
static void coordinator_start(struct world *w)
{
    fixture_init(&w->f);
    w->view = view_new(&(struct view_options){.redis = w->redis,
                                              .ledger = w->f.ledger,
                                              .rates = &w->f.rates,
                                              .clock = &w->clock,
                                              .ttl_ms = TTL_MS,
                                              .replay = replay,
                                              .context = w});
    view_partition_add(w->view, HOME);
}

static void coordinator_stop(struct world *w)
{
    view_free(w->view);
    fixture_release(&w->f);
}

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    struct err err;
    redis_server_start(&w->server);
    clock_fake_init(&w->clock, NOW);
    assert_int_equal(redis_open(&w->redis, w->server.address, &w->clock, &err), 0);
    coordinator_start(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    coordinator_stop(w);
    redis_close(w->redis);
    redis_server_stop(&w->server);
    for (size_t i = 0; i < w->logged; i++) {
        free(w->log[i].key);
        free(w->log[i].value);
    }
    free(w);
    return 0;
}

/* As the loop does: settle, commit (the results go into the log), show. */
static void commit(struct world *w)
{
    struct fixture *f = &w->f;
    handle_settle(&f->handler);
    for (size_t i = 0; i < f->records; i++) {
        const struct kafka_output *output = NULL;
        if (outputs_to(&f->outboxes[i], topic_name(TOPIC_RESULTS), &output)) {
            assert_true(w->logged < LOG_MAX);
            w->log[w->logged++] = (struct logged){strndup(output->key, output->key_size),
                                                  strndup(output->value, output->value_size)};
        }
        outbox_release(&f->outboxes[i]);
    }
    f->records = 0;
}

/* Time passes, and the view does all that it can. */
static void pass(struct world *w, int64_t ms)
{
    w->clock.now_ms += ms;
    w->f.now_ms = w->clock.now_ms;
    for (int i = 0; i < 20; i++)
        view_serve(w->view);
}

static char *field(struct world *w, const char *id, const char *name)
{
    struct redis_reply *reply = NULL;
    struct err err;
    char key[REDIS_KEY_SIZE];
    assert_int_equal(redis_commandf(w->redis, &reply, &err, "HGET %s %s",
                                    redis_key(REDIS_KEY_JOB, id, key), name),
                     0);
    char *text = xstrdup(reply->kind == REDIS_BYTES ? reply->bytes : "(nil)");
    redis_reply_free(reply);
    return text;
}

static void assert_field(struct world *w, const char *id, const char *name, const char *wanted)
{
    char *text = field(w, id, name);
    assert_string_equal(text, wanted);
    free(text);
}

static void run_command(struct world *w, const char *command)
{
    struct err err;
    struct redis_arg words[16];
    char *copy = xstrdup(command), *rest = copy, *word;
    size_t count = 0;
    while ((word = strsep(&rest, " ")))
        words[count++] = REDIS_STRING(word);
    assert_int_equal(redis_command(w->redis, words, count, NULL, &err), 0);
    free(copy);
}

/* A coordinator that has lost the partition, and not heard of it, knows of no job and serves Redis.
 */
static void zombie_serves(struct world *w)
{
    struct ledger *ledger = ledger_new();
    struct rates rates = {0};
    ledger_partition_add(ledger, HOME);
    struct view *zombie = view_new(&(struct view_options){.redis = w->redis,
                                                          .ledger = ledger,
                                                          .rates = &rates,
                                                          .clock = &w->clock,
                                                          .ttl_ms = TTL_MS,
                                                          .replay = replay_nothing});
    view_partition_add(zombie, HOME);
    for (int i = 0; i < 5; i++)
        view_serve(zombie);
    view_free(zombie);
    ledger_free(ledger);
}

static void end_one(struct world *w, const char *id)
{
    send_job(&w->f, id, HEARTS);
    send_event(&w->f, "picture-failed", id, 0, STAGE_TEXT_ENCODE, FAILED);
    send_event(&w->f, "picture-failed", id, 1, STAGE_TEXT_ENCODE, FAILED);
    commit(w);
}

/* --- tests --- */

static void test_a_job_is_shown(void **state)
{
    struct world *w = *state;
    send_job(&w->f, "heart", HEARTS);
    commit(w);
    pass(w, 1);
    assert_field(w, "heart", "state", "queued");
    assert_field(w, "heart", "stage", "text-encode");
    assert_field(w, "heart", "images_total", "2");
    assert_field(w, "heart", "results", "[null,null]");
    assert_field(w, "heart", "finished_at", "");
    assert_field(w, "heart", "partition", "3");
    finish_stage(&w->f, "heart", 0, STAGE_TEXT_ENCODE);
    commit(w);
    pass(w, 1);
    assert_field(w, "heart", "state", "running");
    assert_field(w, "heart", "stage", "text-encode"); /* the other picture's */
    finish_stage(&w->f, "heart", 1, STAGE_TEXT_ENCODE);
    commit(w);
    pass(w, 1);
    assert_field(w, "heart", "stage", "prior");
    assert_field(w, "heart", "steps", "25");
    assert_field(w, "nobody", "state", "(nil)");
}

static void assert_queue(struct world *w, const char *name, const char *wanted)
{
    struct redis_reply *reply = NULL;
    struct err err;
    assert_int_equal(redis_commandf(w->redis, &reply, &err, "HGET unclip:queue %s", name), 0);
    assert_string_equal(reply->kind == REDIS_BYTES ? reply->bytes : "(nil)", wanted);
    redis_reply_free(reply);
}

/* Another coordinator, whose partitions let so many pictures in at a time. */
static void start_bounded(struct world *w, int in_flight)
{
    coordinator_stop(w);
    coordinator_start(w);
    ledger_partition_drop(w->f.ledger, HOME);
    ledger_bound(w->f.ledger,
                 &(struct admission_bounds){{in_flight, in_flight}, 100, 100, SIZE_MAX});
    ledger_partition_add(w->f.ledger, HOME);
}

static void test_the_queue_is_shown(void **state)
{
    struct world *w = *state;
    start_bounded(w, 1);
    send_job(&w->f, "a", HEARTS);
    send_job(&w->f, "b", HEARTS);
    send_job(&w->f, "c", HEARTS);
    commit(w);
    pass(w, 2000);
    assert_queue(w, "3:interactive:waiting", "5");
    assert_queue(w, "3:interactive:clients", "1");
    assert_queue(w, "3:interactive:in_flight", "1");
    assert_queue(w, "3:interactive:ended", "0");
    assert_queue(w, "3:interactive:interval_ms", "");
    assert_queue(w, "3:bulk:waiting", "0");
    assert_queue(w, "3:interactive:round", "1");
    assert_field(w, "a", "queue_ticket", "0");
    assert_field(w, "a", "work_ms", "");
    assert_field(w, "b", "queue_ticket", "2");
    assert_field(w, "c", "queue_ticket", "4");
    finish_stage(&w->f, "a", 0, STAGE_TEXT_ENCODE);
    send_event(&w->f, "picture-failed", "a", 0, STAGE_PRIOR, FAILED);
    commit(w);
    pass(w, 1000);
    assert_field(w, "a", "queue_ticket", "");
    assert_queue(w, "3:interactive:ended", "1");
    assert_queue(w, "3:interactive:interval_ms", "2000");
    run_command(w, "FLUSHALL");
    pass(w, 1000);
    pass(w, 1000);
    assert_queue(w, "3:interactive:waiting", "4");
    assert_queue(w, "no_worker", "text-encode,prior,decoder,upsampler-1,upsampler-2,image-encode");
    run_command(w, "HSET unclip:worker:prior-0 stage prior");
    run_command(w, "HSET unclip:worker:prior-1 stage prior");
    run_command(w, "SADD unclip:workers prior-0 prior-1 decoder-0");
    pass(w, 1000);
    assert_queue(w, "no_worker", "text-encode,decoder,upsampler-1,upsampler-2,image-encode");
    run_command(w, "DEL unclip:worker:prior-0");
    pass(w, 1000);
    assert_queue(w, "no_worker", "text-encode,decoder,upsampler-1,upsampler-2,image-encode");
    run_command(w, "DEL unclip:worker:prior-1");
    pass(w, 1000);
    assert_queue(w, "no_worker", "text-encode,prior,decoder,upsampler-1,upsampler-2,image-encode");
}

static void test_workers_progress_stays(void **state)
{
    struct world *w = *state;
    send_job(&w->f, "heart", HEARTS);
    finish_stage(&w->f, "heart", 0, STAGE_TEXT_ENCODE);
    finish_stage(&w->f, "heart", 1, STAGE_TEXT_ENCODE);
    commit(w);
    pass(w, 1);
    run_command(w, "HSET unclip:job:heart stage prior step 7 steps 25 progress 0.5");
    ledger_mark_unshown(w->f.ledger, find(&w->f, "heart"));
    pass(w, 1);
    assert_field(w, "heart", "step", "7");
    assert_field(w, "heart", "progress", "0.5");
    send_job(&w->f, "heart", "{\"version\":1,\"type\":\"cancel\"}");
    commit(w);
    pass(w, 1);
    assert_field(w, "heart", "state", "cancelled");
    assert_field(w, "heart", "progress", "0.5");
}

static void test_ended_jobs_expire(void **state)
{
    struct world *w = *state;
    struct redis_reply *reply = NULL;
    struct err err;
    end_one(w, "heart");
    pass(w, 1);
    assert_field(w, "heart", "state", "failed");
    assert_int_equal(redis_commandf(w->redis, &reply, &err, "PEXPIRETIME unclip:job:heart"), 0);
    assert_int_equal(reply->integer, NOW + TTL_MS);
    redis_reply_free(reply);
}

static void test_rank_never_falls(void **state)
{
    struct world *w = *state;
    send_job(&w->f, "heart", HEARTS);
    commit(w);
    run_command(w, "HSET unclip:job:heart state running created_at 2026-01-31T12:34:56.784Z");
    pass(w, 1);
    assert_field(w, "heart", "state", "running");
    assert_field(w, "heart", "prompt", "(nil)");
}

static void test_a_new_life_replaces_the_old(void **state)
{
    struct world *w = *state;
    run_command(w, "HSET unclip:job:heart state failed created_at 2026-01-01T00:00:00.000Z old 1");
    send_job(&w->f, "heart", HEARTS);
    commit(w);
    pass(w, 1);
    assert_field(w, "heart", "state", "queued");
    assert_field(w, "heart", "old", "(nil)");
    run_command(w, "HSET unclip:job:heart state queued created_at 2027-01-01T00:00:00.000Z");
    finish_stage(&w->f, "heart", 0, STAGE_TEXT_ENCODE);
    commit(w);
    pass(w, 1);
    assert_field(w, "heart", "state", "queued"); /* a later job of the same id */
}

static void test_flushall(void **state)
{
    struct world *w = *state;
    end_one(w, "ended");
    send_job(&w->f, "live", HEARTS);
    commit(w);
    pass(w, 1);
    pass(w, VIEW_CHECK_MS);
    run_command(w, "FLUSHALL");
    assert_field(w, "ended", "state", "(nil)");
    pass(w, VIEW_CHECK_MS);
    assert_field(w, "ended", "state", "failed");
    assert_field(w, "live", "state", "queued");
    size_t replays = w->replays;
    pass(w, VIEW_CHECK_MS);
    assert_int_equal(w->replays, replays);
}

/* A job that ends between the loss and its discovery must not hide the loss. */
static void test_flushall_is_not_papered_over(void **state)
{
    struct world *w = *state;
    end_one(w, "before");
    pass(w, VIEW_CHECK_MS);
    run_command(w, "FLUSHALL");
    w->clock.now_ms += 10;
    w->f.now_ms += 10;
    end_one(w, "after");
    pass(w, 10);
    pass(w, VIEW_CHECK_MS);
    assert_field(w, "before", "state", "failed");
    assert_field(w, "after", "state", "failed");
}

/* Nor may another coordinator, which finds Redis empty first and has nothing to write. */
static void test_a_zombie_does_not_hide_a_loss(void **state)
{
    struct world *w = *state;
    send_job(&w->f, "live", HEARTS);
    commit(w);
    pass(w, 1);
    run_command(w, "FLUSHALL");
    zombie_serves(w);
    pass(w, VIEW_CHECK_MS);
    assert_field(w, "live", "state", "queued");
    end_one(w, "ended");
    pass(w, VIEW_CHECK_MS);
    run_command(w, "FLUSHALL");
    zombie_serves(w);
    pass(w, VIEW_CHECK_MS);
    assert_field(w, "live", "state", "queued");
    assert_field(w, "ended", "state", "failed");
    size_t replays = w->replays;
    pass(w, VIEW_CHECK_MS);
    assert_int_equal(w->replays, replays);
}

/* Marks of before there were tokens, and what is none at all, are written over. */
static void test_odd_marks(void **state)
{
    static const char *const marks[] = {"1769862896789", "x", "-5 0123456789abcdef",
                                        "99999999999999999999 0123456789abcdef"};
    struct world *w = *state;
    send_job(&w->f, "live", HEARTS);
    commit(w);
    pass(w, 1);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        struct err err;
        run_command(w, "DEL unclip:job:live");
        assert_int_equal(redis_commandf(w->redis, NULL, &err, "HSET unclip:view 3 %s", marks[i]),
                         0);
        pass(w, VIEW_CHECK_MS);
        assert_field(w, "live", "state", "queued");
        size_t replays = w->replays;
        pass(w, VIEW_CHECK_MS);
        assert_int_equal(w->replays, replays);
    }
}

static void test_redis_away(void **state)
{
    struct world *w = *state;
    pass(w, 1);
    redis_server_stop(&w->server);
    end_one(w, "during");
    pass(w, 10);
    redis_server_start(&w->server); /* empty */
    pass(w, 10000);
    assert_field(w, "during", "state", "failed");
    assert_null(ledger_first_unshown(w->f.ledger));
}

/* The one before died between its commit and its view. */
static void test_the_next_coordinator_shows_it(void **state)
{
    struct world *w = *state;
    end_one(w, "shown");
    pass(w, VIEW_CHECK_MS);
    end_one(w, "not-shown");
    coordinator_stop(w);
    coordinator_start(w);
    assert_field(w, "not-shown", "state", "(nil)");
    pass(w, 1);
    assert_field(w, "not-shown", "state", "failed");
    assert_field(w, "shown", "state", "failed");
}

static void test_too_many_to_keep(void **state)
{
    struct world *w = *state;
    end_one(w, "logged"); /* by which the replay is seen */
    pass(w, 1);
    redis_server_stop(&w->server);
    for (int i = 0; i <= VIEW_ENDED_MAX; i++) {
        struct job job = {0};
        snprintf(job.id, sizeof job.id, "many-%d", i);
        struct live_job *live = ledger_add(w->f.ledger, HOME, &job, false, 0, NOW);
        job_set_state(w->f.ledger, live, JOB_FAILED, NOW, "a test");
    }
    pass(w, 10);
    assert_int_equal(ledger_unshown_ended(w->f.ledger), VIEW_ENDED_MAX);
    size_t replays = w->replays;
    redis_server_start(&w->server);
    w->clock.now_ms += 10000;
    for (int i = 0; i < 100; i++)
        view_serve(w->view);
    assert_int_equal(ledger_unshown_ended(w->f.ledger), 0);
    assert_int_equal(w->replays, replays + 1);
    assert_field(w, "logged", "state", "failed");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_a_job_is_shown),
        TEST(test_the_queue_is_shown),
        TEST(test_workers_progress_stays),
        TEST(test_ended_jobs_expire),
        TEST(test_rank_never_falls),
        TEST(test_a_new_life_replaces_the_old),
        TEST(test_flushall),
        TEST(test_flushall_is_not_papered_over),
        TEST(test_a_zombie_does_not_hide_a_loss),
        TEST(test_odd_marks),
        TEST(test_redis_away),
        TEST(test_the_next_coordinator_shows_it),
        TEST(test_too_many_to_keep),
    };
    log_init("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
