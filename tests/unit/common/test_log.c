/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: their form, their levels, and that writers who share a file never mix. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"
#include "common/utf8.h"

/* Sends stderr to a fresh file while the test writes, then reads it. */
struct capture {
    int saved, file;
};

static void capture_start(struct capture *capture)
{
    char name[] = "/tmp/unclip-log-XXXXXX";
    capture->file = mkstemp(name);
    assert_true(capture->file >= 0);
    unlink(name);
    assert_int_equal(fcntl(capture->file, F_SETFL, O_APPEND), 0);
    capture->saved = dup(STDERR_FILENO);
    dup2(capture->file, STDERR_FILENO);
}

static char *capture_end(struct capture *capture) /* owned */
{
    dup2(capture->saved, STDERR_FILENO);
    close(capture->saved);
    off_t size = lseek(capture->file, 0, SEEK_END);
    char *text = xmalloc((size_t)size + 1);
    assert_int_equal(pread(capture->file, text, (size_t)size, 0), size);
    text[size] = '\0';
    close(capture->file);
    return text;
}

/* "2026-01-31T12:34:56.789Z" */
static int is_time(const char *text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; i < sizeof form - 1; i++) {
        int digit = text[i] >= '0' && text[i] <= '9';
        if (form[i] == 'd' ? !digit : text[i] != form[i])
            return 0;
    }
    return 1;
}

static void lines_have_their_form(void **state)
{
    (void)state;
    struct capture capture;
    log_init("worker decoder-0", LOG_LEVEL_INFO);
    capture_start(&capture);
    errno = ENOENT;
    log_info("took %d tasks", 3);
    int error = errno;
    log_debug("not shown");
    log_error("two\nlines\x1b");
    char *text = capture_end(&capture);
    assert_int_equal(error, ENOENT);
    assert_true(is_time(text));
    char *second = strchr(text, '\n') + 1;
    assert_int_equal(strncmp(text + 24, " info worker decoder-0: took 3 tasks\n", 37), 0);
    assert_true(is_time(second));
    assert_string_equal(second + 24, " error worker decoder-0: two lines \n");
    free(text);
}

static void levels_parse(void **state)
{
    (void)state;
    enum log_level level;
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_true(log_level_parse("warn", &level));
    assert_int_equal(level, LOG_LEVEL_WARN);
    assert_false(log_level_parse("loud", &level));
    assert_false(log_level_parse("", &level));
}

static void long_messages_are_cut(void **state)
{
    (void)state;
    for (int shift = 0; shift < 4; shift++) {
        char message[6000];
        memset(message, 'x', sizeof message);
        for (size_t i = (size_t)shift; i + 4 < sizeof message; i += 4)
            memcpy(message + i, "😀", 4);
        message[sizeof message - 1] = '\0';
        struct capture capture;
        capture_start(&capture);
        log_warn("%s", message);
        char *text = capture_end(&capture);
        size_t size = strlen(text);
        assert_true(size <= 4096 && size > 4080);
        assert_true(utf8_valid(text, size));
        assert_string_equal(text + size - 4, "…\n");
        free(text);
    }
}

#define LINES 500

static void *write_lines(void *arg)
{
    const char *letter = arg;
    char message[300];
    memset(message, *letter, sizeof message);
    message[sizeof message - 1] = '\0';
    for (int i = 0; i < LINES; i++)
        log_info("%s", message);
    return NULL;
}

static void writers_never_mix(void **state)
{
    (void)state;
    static char letters[] = "abcd";
    struct capture capture;
    log_init("test", LOG_LEVEL_INFO);
    capture_start(&capture);
    pid_t child = fork();
    pthread_t threads[2];
    int base = child == 0 ? 2 : 0;
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, write_lines, &letters[base + i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    char *text = capture_end(&capture);
    int lines = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')); line = end + 1, lines++) {
        *end = '\0';
        const char *body = strstr(line, " info test: ");
        assert_non_null(body);
        body += strlen(" info test: ");
        assert_int_equal(strlen(body), 299);
        assert_int_equal(strspn(body, (char[]){*body, '\0'}), 299);
    }
    assert_int_equal(lines, 4 * LINES);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_have_their_form),
        cmocka_unit_test(levels_parse),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(writers_never_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
