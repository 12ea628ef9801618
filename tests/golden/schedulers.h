/* SPDX-License-Identifier: Apache-2.0 */
/* Schedulers of the goldens' settings. */
#ifndef GOLDEN_SCHEDULERS_H
#define GOLDEN_SCHEDULERS_H

#include "exact.h"

#include <unistd.h>

#include "stages/scheduler.h"

static inline void golden_load_scheduler_text(struct scheduler *scheduler, const char *config)
{
    char path[] = "/tmp/unclip-scheduler-XXXXXX";
    struct err err;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, config, strlen(config)), strlen(config));
    close(fd);
    int result = scheduler_load(scheduler, path, &err);
    unlink(path);
    if (result != 0)
        fail_msg("%s", err.text);
}

static inline void golden_load_scheduler(struct scheduler *scheduler, const struct golden *golden,
                                         const char *variance_type)
{
    char config[512];
    snprintf(config, sizeof config,
             "{\"prediction_type\": \"%s\", \"variance_type\": \"%s\", \"clip_sample\": %s, "
             "\"clip_sample_range\": %s, \"num_train_timesteps\": %s}",
             golden_setting(golden, "prediction_type"), variance_type,
             golden_setting(golden, "clip_sample"), golden_setting(golden, "clip_sample_range"),
             golden_setting(golden, "num_train_timesteps"));
    golden_load_scheduler_text(scheduler, config);
}

static inline void golden_assert_timesteps(const struct scheduler *scheduler,
                                           const struct golden *golden, const char *name)
{
    const struct safetensors_entry *entry = golden_typed(golden, name, DTYPE_I64);
    const int64_t *want = entry->data;
    assert_int_equal(golden_count(entry), scheduler->steps);
    for (int i = 0; i < scheduler->steps; i++)
        assert_int_equal(scheduler->timesteps[i], want[i]);
}

#endif
