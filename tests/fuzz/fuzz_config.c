/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Settings: a line of flags with spaces between them, a line for UNCLIP_SET, a line for
 * UNCLIP_FAULT, and what follows is the file. What is loaded can be shown.
 */
#include <sys/mman.h>
#include <unistd.h>

#include "common/config.h"
#include "common/fault.h"
#include "common/redis.h"
#include "tests/fuzz/fuzz.h"

#define FLAGS_MAX 32

static int file;
static char path[64];
static FILE *nowhere;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    file = memfd_create("unclip.conf", 0);
    nowhere = fopen("/dev/null", "w");
    BUG_ON(file < 0 || !nowhere);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return 0;
}

static void write_file(struct input input)
{
    BUG_ON(ftruncate(file, 0) != 0);
    BUG_ON(pwrite(file, input.data, input.size, 0) != (ssize_t)input.size);
}

static void set(const char *name, struct input value)
{
    char *text = text_of_input(value);
    setenv(name, text, 1);
    free(text);
}

static void use(const struct config *config)
{
    struct redis *redis = NULL;
    struct err err = {0};
    config_dump(config, CONFIG_WORKER, nowhere);
    BUG_ON(config->batch < 1 || config->batch > 256 || config->threads < 0);
    BUG_ON(strcmp(config->dtype, "auto") != 0 && strcmp(config->dtype, "f32") != 0 &&
           strcmp(config->dtype, "bf16") != 0);
    for (size_t i = 0; i < config->kafka_setting_count; i++)
        BUG_ON(!config->kafka_settings[i].key[0] || !config->kafka_settings[i].value);
    int rc = redis_open(&redis, config->redis, clock_system(), &err);
    if (rc < 0)
        check_refusal(rc, &err);
    redis_close(redis);
}

static void load(struct input flags)
{
    char program[] = "fuzz", option[] = "--config";
    char *argv[FLAGS_MAX + 4] = {program, option, path}, *text = text_of_input(flags);
    int argc = 3, given;
    for (char *word = strtok(text, " "); word && argc < FLAGS_MAX + 3; word = strtok(NULL, " "))
        argv[argc++] = word;
    given = argc;
    struct config config;
    struct err err = {0};
    int rc = config_load(&config, CONFIG_WORKER, &argc, argv, &err);
    if (rc < 0)
        check_refusal(rc, &err);
    else {
        BUG_ON(argc < 1 || argc > given || argv[0] != program);
        use(&config);
        config_release(&config);
    }
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {data, size};
    struct input flags = take_line(&input);
    struct err err = {0};
    set("UNCLIP_SET", take_line(&input));
    set("UNCLIP_FAULT", take_line(&input));
    int rc = fault_open(FAULT_WORKER, &err);
    if (rc < 0)
        check_refusal(rc, &err);
    write_file(input);
    load(flags);
    return 0;
}
