/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration: which source wins, what is refused and how, what is left for the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/memory.h"

static char file[] = "/tmp/unclip-config-XXXXXX";

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemp(file);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(file);
}

static void write_file(const char *text)
{
    FILE *out = fopen(file, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

/* Whatever the tests were started with. */
static int clear_environment(void **state)
{
    (void)state;
    for (char **entry = environ; *entry;) {
        size_t length = strcspn(*entry, "=");
        char *name = xasprintf("%.*s", (int)length, *entry);
        bool ours = strncmp(name, "UNCLIP_", 7) == 0;
        if (ours)
            unsetenv(name);
        entry = ours ? environ : entry + 1;
        free(name);
    }
    return 0;
}

#define WORDS_MAX 16
struct words {
    char *argv[WORDS_MAX + 1];
    int argc;
};

/* A writable argv of string literals, which config_load() only borrows. */
static struct words words_of(const char *const *list)
{
    struct words words = {{NULL}, 0};
    for (; list[words.argc]; words.argc++)
        words.argv[words.argc] = (char *)(uintptr_t)list[words.argc];
    return words;
}
#define WORDS(...) words_of((const char *const[]){"program", __VA_ARGS__, NULL})

static void load(struct config *config, enum config_program program, struct words *words)
{
    struct err err;
    if (config_load(config, program, &words->argc, words->argv, &err) != 0)
        fail_msg("%s", err.text);
}

static const char *origin_of(const struct config *config, const char *key)
{
    size_t row = 0;
#define X(field, name, ...)                                                                        \
    if (strcmp(key, name) == 0)                                                                    \
        return config->origin[row];                                                                \
    row++;
    CONFIG_TABLE(X)
#undef X
    return NULL;
}

static void defaults(void **state)
{
    (void)state;
    struct config config;
    struct words words = WORDS(NULL);
    load(&config, CONFIG_WORKER, &words);
    assert_string_equal(config.kafka, "127.0.0.1:9092");
    assert_string_equal(config.model, "emoji");
    assert_int_equal(config.batch, 8);
    assert_int_equal(config.cache_ttl_s, 604800);
    assert_int_equal(config.kafka_setting_count, 0);
    assert_string_equal(origin_of(&config, "batch"), "default");
    assert_false(config.dump);
    config_release(&config);
    config_release(&config);
}

static void each_source_beats_the_one_before(void **state)
{
    (void)state;
    struct config config;
    char place[64];
    write_file("# a comment\n\n  batch = 2 # of the file\nlinger-ms=20\r\nkafka = file:1\n"
               "threads\t=\t3\nkafka.a = 1\nkafka.b = x=y # z\nkafka.c = p#q\n");
    struct words words = WORDS("--config", file);
    load(&config, CONFIG_WORKER, &words);
    assert_int_equal(words.argc, 1);
    assert_int_equal(config.batch, 2);
    assert_int_equal(config.linger_ms, 20);
    assert_int_equal(config.threads, 3);
    assert_string_equal(config.kafka, "file:1");
    snprintf(place, sizeof place, "%s:3", file);
    assert_string_equal(origin_of(&config, "batch"), place);
    assert_int_equal(config.kafka_setting_count, 3);
    assert_string_equal(config.kafka_settings[1].value, "x=y");
    assert_string_equal(config.kafka_settings[2].value, "p#q");
    config_release(&config);

    setenv("UNCLIP_CONFIG", file, 1);
    setenv("UNCLIP_BATCH", "4", 1);
    setenv("UNCLIP_LINGER_MS", "", 1); /* an empty one is none */
    setenv("UNCLIP_SET", "kafka.a=2 kafka.d=4", 1);
    words = WORDS("--kafka=flag:2");
    load(&config, CONFIG_WORKER, &words);
    assert_int_equal(config.batch, 4);
    assert_int_equal(config.linger_ms, 20);
    assert_string_equal(config.kafka, "flag:2");
    assert_string_equal(origin_of(&config, "batch"), "environment");
    assert_string_equal(origin_of(&config, "kafka"), "flag");
    assert_int_equal(config.kafka_setting_count, 4);
    assert_string_equal(config.kafka_settings[0].value, "2");
    config_release(&config);

    words = WORDS("--set", "kafka.a=3", "--set=kafka.e=", "--batch", "5", "--batch=6");
    load(&config, CONFIG_WORKER, &words);
    assert_int_equal(config.batch, 6);
    assert_string_equal(config.kafka_settings[0].value, "3");
    assert_string_equal(config.kafka_settings[4].key, "e");
    assert_string_equal(config.kafka_settings[4].value, "");
    config_release(&config);
}

static void other_words_are_left(void **state)
{
    (void)state;
    struct config config;
    struct words words = WORDS("submit", "--n", "3", "--kafka", "a:1", "a red heart", "--batch",
                               "2", "-o", "--dump-config", "--", "--kafka", "b:1");
    load(&config, CONFIG_CLIENT, &words);
    static const char *const left[] = {"program",     "submit",  "--n", "3",
                                       "a red heart", "--batch", "2",   "-o",
                                       "--",          "--kafka", "b:1"};
    assert_int_equal(words.argc, sizeof left / sizeof *left);
    for (int i = 0; i < words.argc; i++)
        assert_string_equal(words.argv[i], left[i]);
    assert_null(words.argv[words.argc]);
    assert_string_equal(config.kafka, "a:1");
    assert_int_equal(config.batch, 8); /* a setting of workers */
    assert_true(config.dump);
    config_release(&config);
}

static void assert_refused(struct words words, const char *why)
{
    struct config config;
    struct err err;
    assert_int_equal(config_load(&config, CONFIG_WORKER, &words.argc, words.argv, &err),
                     -ERR_INVALID_ARGUMENT);
    if (!strstr(err.text, why))
        fail_msg("'%s' is not in: %s", why, err.text);
}

static void bad_flags(void **state)
{
    (void)state;
    assert_refused(WORDS("--batch", "3000"),
                   "--batch is '3000', it must be an integer from 1 to 1024 (tasks)");
    assert_refused(WORDS("--batch=0"), "--batch is '0'");
    assert_refused(WORDS("--batch", "8x"), "--batch is '8x'");
    assert_refused(WORDS("--batch", " 8"), "--batch is ' 8'");
    assert_refused(WORDS("--batch", "+8"), "--batch is '+8'");
    assert_refused(WORDS("--batch", "0x8"), "--batch is '0x8'");
    assert_refused(WORDS("--batch="), "--batch is ''");
    assert_refused(WORDS("--batch", "99999999999999999999"), "--batch is '99999999999999999999'");
    assert_refused(WORDS("--batch"), "--batch needs a value: tasks");
    assert_refused(WORDS("--kafka", ""), "--kafka is empty, it must be host:port,…");
    assert_refused(WORDS("--dtype", "f16"), "--dtype is 'f16', it must be auto|f32|bf16");
    assert_refused(WORDS("--dtype", "f3"), "--dtype is 'f3'");
    assert_refused(WORDS("--dtype", "f32|bf16x"), "--dtype is");
    assert_refused(WORDS("--set", "batch=3"), "--set is 'batch=3', it must be kafka.KEY=VALUE");
    assert_refused(WORDS("--set", "kafka.=3"), "--set is 'kafka.=3'");
    assert_refused(WORDS("--set", "kafka.a"), "--set is 'kafka.a'");
    assert_refused(WORDS("--set"), "--set needs a value: kafka.KEY=VALUE");
    assert_refused(WORDS("--config"), "--config needs a value: file");
}

static void bad_environment(void **state)
{
    (void)state;
    setenv("UNCLIP_BATCH", "many", 1);
    assert_refused(WORDS(NULL), "UNCLIP_BATCH is 'many', it must be an integer from 1 to 1024");
    unsetenv("UNCLIP_BATCH");
    setenv("UNCLIP_SET", "kafka.a=1 b=2", 1);
    assert_refused(WORDS(NULL), "UNCLIP_SET is 'b=2', it must be kafka.KEY=VALUE");
}

static void bad_files(void **state)
{
    (void)state;
    struct words words = WORDS("--config", file);
    write_file("batch = 2\nbatches = 3\n");
    assert_refused(words, ":2: unknown key 'batches'");
    write_file("batch = 2\n\nbatch = 3\n");
    assert_refused(words, ":3: 'batch' is set twice, before in ");
    write_file("kafka.a = 2\nkafka.a = 3\n");
    assert_refused(words, ":2: 'kafka.a' is set twice");
    write_file("batch\n");
    assert_refused(words, ":1: 'batch' is not 'key = value'");
    write_file("batch = 10000\n");
    assert_refused(words, ":1: 'batch' is '10000', it must be an integer from 1 to 1024 (tasks)");
    write_file("kafka =\n");
    assert_refused(words, ":1: 'kafka' is empty");
    char line[6000];
    memset(line, 'a', sizeof line);
    line[sizeof line - 1] = '\0';
    write_file(line);
    assert_refused(words, ":1: the line is longer than 4094 bytes");
    struct config config;
    struct err err;
    words = WORDS("--config", "/no/such");
    assert_int_equal(config_load(&config, CONFIG_WORKER, &words.argc, words.argv, &err), -ERR_IO);
    assert_string_equal(err.text,
                        "cannot open the config file '/no/such': No such file or directory");
}

/* What config_dump() or config_help() writes. */
static char *written(const struct config *config, enum config_program program)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (config)
        config_dump(config, program, out);
    else
        config_help(program, out);
    fclose(out);
    return text;
}

/* A dump is a config file that gives the same again. */
static void dump_is_a_config_file(void **state)
{
    (void)state;
    struct config config, again;
    struct words words = WORDS("--batch", "3", "--set", "kafka.a=b c");
    load(&config, CONFIG_WORKER, &words);
    char *text = written(&config, CONFIG_WORKER);
    assert_non_null(strstr(text, "batch = 3  # flag\n"));
    assert_non_null(strstr(text, "kafka = 127.0.0.1:9092  # default\n"));
    assert_non_null(strstr(text, "kafka.a = b c\n"));
    assert_null(strstr(text, "status-ttl")); /* the coordinator's */
    write_file(text);
    words = WORDS("--config", file);
    load(&again, CONFIG_WORKER, &words);
    assert_int_equal(again.batch, 3);
    assert_string_equal(again.kafka_settings[0].value, "b c");
    free(text);
    config_release(&config);
    config_release(&again);
}

static void dump_hides_secrets(void **state)
{
    (void)state;
    struct config config;
    struct words words = WORDS("--set", "kafka.sasl.password=hunter2");
    load(&config, CONFIG_WORKER, &words);
    char *text = written(&config, CONFIG_WORKER);
    assert_null(strstr(text, "hunter2"));
    assert_non_null(strstr(text, "kafka.sasl.password = (hidden)\n"));
    free(text);
    config_release(&config);
}

static void help_has_every_setting_of_the_program(void **state)
{
    (void)state;
    char *worker = written(NULL, CONFIG_WORKER), *client = written(NULL, CONFIG_CLIENT);
    assert_non_null(strstr(worker, "  --batch tasks               most tasks in one forward pass "
                                   "(8)\n"));
    assert_non_null(strstr(worker, "  --kafka host:port,…         Kafka bootstrap servers (127."));
    assert_null(strstr(client, "--batch"));
    assert_non_null(strstr(client, "--partitions"));
    assert_non_null(strstr(client, "--dump-config"));
    free(worker);
    free(client);
}

int main(void)
{
#define CLEAN(test) cmocka_unit_test_setup_teardown(test, clear_environment, clear_environment)
    const struct CMUnitTest tests[] = {
        CLEAN(defaults),
        CLEAN(each_source_beats_the_one_before),
        CLEAN(other_words_are_left),
        CLEAN(bad_flags),
        CLEAN(bad_environment),
        CLEAN(bad_files),
        CLEAN(dump_is_a_config_file),
        CLEAN(dump_hides_secrets),
        CLEAN(help_has_every_setting_of_the_program),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
