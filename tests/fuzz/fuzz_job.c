/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A record of unclip.jobs: the key is the first line, the value what follows. A job that is read
 * and planned is the same job when it is written and read again, and so is each of its tasks.
 */
#include "common/job.h"
#include "coordinator/records.h"
#include "tests/fuzz/fuzz.h"

static const struct model_card *card(void)
{
    static struct model_card card;
    struct err err;
    if (!card.path)
        BUG_ON(model_card_load(&card, SOURCE_DIR "/models", "emoji", &err) != 0);
    return &card;
}

static char *json_text(const struct job *job)
{
    json_t *json = job_to_json(job);
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(15));
    BUG_ON(!text);
    json_decref(json);
    return text;
}

static int parse(struct job *job, const char *id, const char *text, struct err *err)
{
    return job_parse(job, id, strlen(id), text, strlen(text), "unclip.jobs", 0, 1, err);
}

static void check_same(const struct job *job)
{
    char *text = json_text(job);
    struct job again;
    struct err err;
    BUG_ON(parse(&again, job->id, text, &err) != 0 || job_plan(&again, card(), &err) != 0);
    char *second = json_text(&again);
    BUG_ON(strcmp(text, second) != 0);
    job_release(&again);
    free(second);
    free(text);
}

static void check_task(const struct job *job, int image)
{
    struct task task, again;
    struct job alone;
    struct err err;
    task_from_job(&task, job, image, 3, 1000, 2000);
    char *text = task_to_json(&task), *info = task_infotext(&task);
    char *request = task_request_json(&task, true);
    BUG_ON(task_parse(&again, text, strlen(text), &err) != 0);
    char *second = task_to_json(&again);
    BUG_ON(strcmp(text, second) != 0);
    BUG_ON(parse(&alone, "another", request, &err) != 0 || alone.n != 1);
    BUG_ON(!(task_progress(&task, 1) >= 0 && task_progress(&task, 1) <= 1));
    job_release(&alone);
    task_release(&again);
    task_release(&task);
    free(second);
    free(request);
    free(info);
    free(text);
}

static void use(struct job *job)
{
    struct err err;
    BUG_ON(!job_id_valid(job->id, strlen(job->id)));
    if (job->type != JOB_TEXT_TO_IMAGE)
        return;
    BUG_ON(job->n < 1 || job->n > JOB_IMAGES_MAX);
    int rc = job_plan(job, card(), &err);
    if (rc < 0) {
        check_refusal(rc, &err);
        return;
    }
    if (job->seed < 0)
        job->seed = 42; /* as the coordinator's planner chooses one */
    BUG_ON(job_deadline_ms(job, 1000) < 0);
    check_same(job);
    check_task(job, 0);
    check_task(job, job->n - 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input value = {data, size}, key = take_line(&value);
    struct job job;
    struct err err = {0};
    int rc = job_parse(&job, key.size ? key.data : NULL, key.size, value.data, value.size,
                       "unclip.jobs", 7, 123456, &err);
    (void)body_digest(value.data, value.size);
    if (rc < 0) {
        check_refusal(rc, &err);
        BUG_ON(job.id[0] && !job_id_valid(job.id, strlen(job.id)));
        return 0;
    }
    use(&job);
    job_release(&job);
    return 0;
}
