/* SPDX-License-Identifier: Apache-2.0 */
/* The embedding cache on a real Redis: what goes in comes out, and nothing else does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "redis_fixture.h"
#include "worker_fixture.h"
#include "workers/cache.h"

static struct redis_fixture server;
static struct cache cache;

static int start(void **state)
{
    (void)state;
    redis_start(&server);
    cache = (struct cache){.redis = server.redis, .ttl_s = 1000};
    return 0;
}

static int stop(void **state)
{
    (void)state;
    redis_stop(&server);
    return 0;
}

static int empty(void **state)
{
    (void)state;
    redis_empty(&server);
    return 0;
}

static bool get_text(const char *model, struct item *item)
{
    struct err err = {0};
    bool hit = true;
    assert_int_equal(cache_get_text(&cache, model, item, &hit, &err), 0);
    return hit;
}

static bool has_text(const char *model, const char *prompt, const char *negative)
{
    struct item item;
    item_init(&item, prompt, negative, 1);
    bool hit = get_text(model, &item);
    assert_true(hit == (item.text_embed != NULL));
    item_release(&item);
    return hit;
}

static void put_text(const char *model, const char *prompt, const char *negative)
{
    struct item item;
    struct err err = {0};
    fixture_item(&item, prompt, negative);
    assert_int_equal(cache_put_text(&cache, model, &item, &err), 0);
    item_release(&item);
}

static void text_comes_back(void **state)
{
    (void)state;
    struct item item, back;
    fixture_item(&item, "a red heart", "");
    put_text("m", "a red heart", "");
    item_init(&back, "a red heart", "", 1);
    assert_true(get_text("m", &back));
    assert_int_equal(back.embed_dim, FIXTURE_D);
    assert_int_equal(back.text_len, FIXTURE_L);
    assert_int_equal(back.text_width, FIXTURE_W);
    assert_int_equal(back.tokens_dropped, 2);
    assert_memory_equal(back.text_embed, item.text_embed, 2 * FIXTURE_D * sizeof(float));
    assert_memory_equal(back.text_states, item.text_states,
                        2 * FIXTURE_L * FIXTURE_W * sizeof(float));
    assert_memory_equal(back.text_mask, item.text_mask, 2 * FIXTURE_L);
    item_release(&item);
    item_release(&back);
}

static void text_of_others_stays_apart(void **state)
{
    (void)state;
    put_text("m", "a red heart", "");
    assert_true(has_text("m", "a red heart", ""));
    assert_false(has_text("other", "a red heart", ""));
    assert_false(has_text("m", "a red hear", "t"));
    assert_false(has_text("m", "a blue heart", ""));
    assert_false(has_text("m", "a red heart", "ugly"));
}

/* The empty negative prompt is one entry for all; but as a prompt it would lack what it dropped. */
static void rows_are_shared(void **state)
{
    (void)state;
    put_text("m", "one", "");
    put_text("m", "two", "bad");
    assert_true(has_text("m", "one", "bad"));
    assert_true(has_text("m", "two", ""));
    assert_true(has_text("m", "two", "one"));
    assert_false(has_text("m", "bad", ""));
    put_text("m", "bad", "one"); /* as a negative prompt, "one" does not lose what it knows */
    assert_true(has_text("m", "bad", ""));
    assert_true(has_text("m", "one", ""));
}

/* Makes an item's texts those two. */
static void add_texts(struct item *item, const char *one, const char *other)
{
    item->texts[item->text_count++] = one;
    item->texts[item->text_count++] = other;
    item->text_rows += item->text_count;
}

static void further_texts_come_back(void **state)
{
    (void)state;
    struct item item, back;
    struct err err = {0};
    fixture_item(&item, "one", "");
    free(item.text_embed);
    free(item.text_states);
    free(item.text_mask);
    add_texts(&item, "two", "three");
    item.text_embed = fixture_floats(4 * FIXTURE_D, 1);
    item.text_states = fixture_floats(4 * FIXTURE_L * FIXTURE_W, 2);
    item.text_mask = calloc(4, FIXTURE_L);
    item.text_mask[3 * FIXTURE_L] = 1;
    assert_int_equal(cache_put_text(&cache, "m", &item, &err), 0);
    item_init(&back, "one", "", 1);
    add_texts(&back, "two", "three");
    assert_true(get_text("m", &back));
    assert_memory_equal(back.text_embed, item.text_embed, 4 * FIXTURE_D * sizeof(float));
    assert_memory_equal(back.text_states, item.text_states,
                        4 * FIXTURE_L * FIXTURE_W * sizeof(float));
    assert_memory_equal(back.text_mask, item.text_mask, 4 * FIXTURE_L);
    item_release(&back);
    item_init(&back, "one", "", 1);
    add_texts(&back, "two", "four");
    assert_false(get_text("m", &back));
    assert_null(back.text_embed);
    item_release(&back);
    item_release(&item);
}

static void text_of_another_overflow_stays_apart(void **state)
{
    (void)state;
    struct item item;
    put_text("m", "one", "");
    item_init(&item, "one", "", 1);
    item.overflow = OVERFLOW_SPLIT;
    assert_false(get_text("m", &item));
    item_release(&item);
}

static void entries_expire(void **state)
{
    (void)state;
    struct redis_arg args[] = {REDIS_STRING("RANDOMKEY")};
    struct redis_reply *reply;
    struct err err = {0};
    put_text("m", "one", "");
    assert_int_equal(redis_command(server.redis, args, 1, &reply, &err), 0);
    int ttl = atoi(redis_ask(&server, "TTL", reply->bytes, NULL));
    assert_in_range(ttl, 990, 1000);
    redis_reply_free(reply);
}

/* Overwrites every entry with `bytes`. */
static void damage(const void *bytes, size_t size)
{
    struct redis_arg keys[] = {REDIS_STRING("KEYS"), REDIS_STRING("*")};
    struct redis_reply *reply;
    struct err err = {0};
    assert_int_equal(redis_command(server.redis, keys, 2, &reply, &err), 0);
    for (size_t i = 0; i < reply->count; i++) {
        struct redis_arg set[] = {
            REDIS_STRING("SET"), {reply->items[i].bytes, reply->items[i].size}, {bytes, size}};
        assert_int_equal(redis_command(server.redis, set, 3, NULL, &err), 0);
    }
    redis_reply_free(reply);
}

/* What the next stage would refuse in a task record does not count here either. */
static void odd_text_is_missing(void **state)
{
    (void)state;
    struct item item;
    struct err err = {0};
    fixture_item(&item, "a red heart", "");
    item.text_mask[1] = 2;
    assert_int_equal(cache_put_text(&cache, "m", &item, &err), 0);
    assert_false(has_text("m", "a red heart", ""));
    item.text_mask[1] = 1;
    item.tokens_dropped = -1;
    assert_int_equal(cache_put_text(&cache, "m", &item, &err), 0);
    assert_false(has_text("m", "a red heart", ""));
    item.tokens_dropped = 0;
    assert_int_equal(cache_put_text(&cache, "m", &item, &err), 0);
    assert_true(has_text("m", "a red heart", ""));
    item_release(&item);
}

static bool get_prior(const char *model, const struct task *task, struct item *item)
{
    struct err err = {0};
    bool hit = true;
    assert_int_equal(cache_get_prior(&cache, model, task, item, &hit, &err), 0);
    return hit;
}

static void prior_comes_back_with_its_generator(void **state)
{
    (void)state;
    struct task task = fixture_task(STAGE_PRIOR);
    struct item item, back;
    struct err err = {0};
    fixture_item(&item, task.prompt, "");
    assert_int_equal(cache_put_prior(&cache, "m", &task, &item, &err), 0);
    item_init(&back, task.prompt, "", 43);
    back.embed_dim = FIXTURE_D;
    assert_true(get_prior("m", &task, &back));
    assert_memory_equal(back.image_embed, item.image_embed, FIXTURE_D * sizeof(float));
    assert_int_equal(rng_random(&back.rng), rng_random(&item.rng));
    item_release(&item);
    item_release(&back);
    task_release(&task);
}

static void prior_of_other_settings_stays_apart(void **state)
{
    (void)state;
    struct task task = fixture_task(STAGE_PRIOR);
    struct item item;
    struct err err = {0};
    fixture_item(&item, task.prompt, "");
    assert_int_equal(cache_put_prior(&cache, "m", &task, &item, &err), 0);
    assert_true(get_prior("m", &task, &item));
    assert_false(get_prior("other", &task, &item));
    task.seed++;
    assert_false(get_prior("m", &task, &item));
    task.seed--;
    task.route[1].steps++;
    assert_false(get_prior("m", &task, &item));
    task.route[1].steps--;
    task.route[1].sampler = SAMPLER_DDIM;
    assert_false(get_prior("m", &task, &item));
    assert_int_equal(cache_put_prior(&cache, "m", &task, &item, &err), 0);
    task.route[1].eta = 0.5;
    assert_false(get_prior("m", &task, &item));
    task.route[1].eta = 0;
    assert_true(get_prior("m", &task, &item));
    task.route[1].sampler = SAMPLER_DDPM;
    task.route[1].guidance += 1e-4f;
    assert_false(get_prior("m", &task, &item));
    item_release(&item);
    task_release(&task);
}

static void priors_of_other_kinds_stay_apart(void **state)
{
    (void)state;
    struct task task = fixture_task(STAGE_PRIOR);
    struct hop *hop = &task.route[1];
    struct item item;
    struct err err = {0};
    fixture_item(&item, task.prompt, "");
    for (int kind = 0; kind < PRIOR_COUNT; kind++)
        for (int candidates = 1; candidates <= 3; candidates++) {
            hop->prior = (enum prior_kind)kind;
            hop->candidates = candidates;
            assert_false(get_prior("m", &task, &item));
            assert_int_equal(cache_put_prior(&cache, "m", &task, &item, &err), 0);
            assert_true(get_prior("m", &task, &item));
        }
    hop->candidates = 1;
    assert_true(get_prior("m", &task, &item));
    hop->candidates = 0; /* is one, too */
    assert_true(get_prior("m", &task, &item));
    task.overflow = OVERFLOW_SPLIT;
    assert_false(get_prior("m", &task, &item));
    item_release(&item);
    task_release(&task);
}

/* Of several texts it makes several embeddings, which are not its image_embed. */
static void priors_of_several_texts_are_not_kept(void **state)
{
    (void)state;
    struct task task = fixture_task(STAGE_PRIOR);
    struct item item;
    struct err err = {0};
    fixture_item(&item, task.prompt, "");
    item.text_rows = 3;
    assert_int_equal(cache_put_prior(&cache, "m", &task, &item, &err), 0);
    item.text_rows = 2;
    assert_false(get_prior("m", &task, &item));
    assert_int_equal(cache_put_prior(&cache, "m", &task, &item, &err), 0);
    assert_true(get_prior("m", &task, &item));
    item.text_rows = 3;
    assert_false(get_prior("m", &task, &item));
    item.text_rows = 2;
    item_release(&item);
    task_release(&task);
}

static void damaged_entries_are_missing(void **state)
{
    (void)state;
    static const uint8_t none[] = {8, 0, 0, 0, 0, 0, 0, 0, '{', '}', ' ', ' ', ' ', ' ', ' ', ' '};
    struct task task = fixture_task(STAGE_PRIOR);
    struct item item;
    struct err err = {0};
    fixture_item(&item, task.prompt, "");
    assert_int_equal(cache_put_prior(&cache, "m", &task, &item, &err), 0);
    put_text("m", "one", "");
    damage("garbage", 7);
    assert_false(has_text("m", "one", ""));
    assert_false(get_prior("m", &task, &item));
    damage(none, sizeof(none));
    assert_false(has_text("m", "one", ""));
    assert_false(get_prior("m", &task, &item));
    assert_non_null(item.image_embed); /* the item is as it was */
    item_release(&item);
    task_release(&task);
}

static void redis_away(void **state)
{
    (void)state;
    struct cache nowhere = {.ttl_s = 10};
    struct item item;
    struct err err = {0};
    bool hit = true;
    assert_int_equal(redis_open(&nowhere.redis, "127.0.0.1:1", clock_system(), &err), 0);
    item_init(&item, "a", "", 1);
    assert_int_equal(cache_get_text(&nowhere, "m", &item, &hit, &err), -ERR_REDIS);
    assert_false(hit);
    item_release(&item);
    redis_close(nowhere.redis);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(text_comes_back, empty),
        cmocka_unit_test_teardown(text_of_others_stays_apart, empty),
        cmocka_unit_test_teardown(rows_are_shared, empty),
        cmocka_unit_test_teardown(further_texts_come_back, empty),
        cmocka_unit_test_teardown(text_of_another_overflow_stays_apart, empty),
        cmocka_unit_test_teardown(odd_text_is_missing, empty),
        cmocka_unit_test_teardown(entries_expire, empty),
        cmocka_unit_test_teardown(prior_comes_back_with_its_generator, empty),
        cmocka_unit_test_teardown(prior_of_other_settings_stays_apart, empty),
        cmocka_unit_test_teardown(priors_of_other_kinds_stay_apart, empty),
        cmocka_unit_test_teardown(priors_of_several_texts_are_not_kept, empty),
        cmocka_unit_test_teardown(damaged_entries_are_missing, empty),
        cmocka_unit_test_teardown(redis_away, empty),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
