/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks, items and records for the workers' tests. Include after cmocka.h. */
#ifndef UNCLIP_TESTS_WORKER_FIXTURE_H
#define UNCLIP_TESTS_WORKER_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/memory.h"
#include "workers/task_codec.h"

#define FIXTURE_D 6
#define FIXTURE_L 3
#define FIXTURE_W 5

/* The route of a picture of 1024 px from a text has all stages but image-encode. */
#define FIXTURE_HOPS STAGE_IMAGE_ENCODE

static inline struct task fixture_task(enum stage stage)
{
    struct task task = {.job = "my-heart",
                        .image = 1,
                        .images = 2,
                        .home = 3,
                        .model = "emoji",
                        .size = 256,
                        .seed = 43,
                        .hops = FIXTURE_HOPS,
                        .created_at_ms = 1000,
                        .enqueued_at_ms = 2000};
    task.prompt = xstrdup("a red heart");
    task.negative_prompt = xstrdup("");
    for (int i = 0; i < FIXTURE_HOPS; i++)
        task.route[i] = (struct hop){.stage = (enum stage)i,
                                     .steps = stage_has_steps((enum stage)i) ? 25 : 0,
                                     .guidance = 2};
    task.hop = (int)stage;
    return task;
}

/* The same of a picture that is made from one and gets a score: image-encode, first and last. */
static inline struct task fixture_scored_task(int hop)
{
    struct task task = fixture_task(STAGE_TEXT_ENCODE);
    task.type = JOB_VARIATION;
    task.hops = 3;
    task.route[0] = task.route[2] = (struct hop){.stage = STAGE_IMAGE_ENCODE};
    task.route[1] = (struct hop){.stage = STAGE_DECODER, .steps = 25, .guidance = 2};
    task.hop = hop;
    return task;
}

static inline float *fixture_floats(size_t count, float first)
{
    float *numbers = malloc(count * sizeof(*numbers));
    for (size_t i = 0; i < count; i++)
        numbers[i] = first + 0.125f * (float)i;
    return numbers;
}

/* An item with every tensor; prompts are borrowed. */
static inline void fixture_item(struct item *item, const char *prompt, const char *negative)
{
    item_init(item, prompt, negative, 43);
    item->embed_dim = FIXTURE_D;
    item->text_len = FIXTURE_L;
    item->text_width = FIXTURE_W;
    item->text_embed = fixture_floats(2 * FIXTURE_D, 1);
    item->text_states = fixture_floats(2 * FIXTURE_L * FIXTURE_W, 2);
    item->text_mask = calloc(2, FIXTURE_L);
    item->text_mask[0] = item->text_mask[1] = item->text_mask[FIXTURE_L] = 1;
    item->tokens_dropped = 2;
    item->image_embed = fixture_floats(FIXTURE_D, 3);
    item->image_size = 2;
    item->image = fixture_floats(2 * 2 * 3, -0.5f);
    rng_random(&item->rng);
}

/* A record as kafka_poll() would give it; the header list is static. */
static inline struct kafka_record fixture_record(const char *task_json)
{
    static struct kafka_header header;
    header = (struct kafka_header){TASK_HEADER, task_json, task_json ? strlen(task_json) : 0};
    return (struct kafka_record){.topic = "unclip.tasks.prior",
                                 .partition = 1,
                                 .offset = 7,
                                 .key = "my-heart/1",
                                 .key_size = 10,
                                 .headers = &header,
                                 .header_count = task_json ? 1 : 0};
}

#endif
