/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging. Each message is one write(2) of at most LINE_SIZE bytes, which a pipe or a file opened
 * for appending takes whole: lines of threads and of processes that share stderr never mix.
 */
#include "common/log.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"

#define LINE_SIZE PIPE_BUF

static const char *const level_names[] = {
    [LOG_LEVEL_ERROR] = "error",
    [LOG_LEVEL_WARN] = "warn",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_DEBUG] = "debug",
};
#define LEVEL_COUNT (int)(sizeof level_names / sizeof *level_names)

static char process[64] = "unclip"; /* written by log_init() before threads start */
static atomic_int least_severe = LOG_LEVEL_INFO;

void log_init(const char *who, enum log_level level)
{
    snprintf(process, sizeof process, "%s", who);
    atomic_store(&least_severe, (int)level);
}

bool log_level_parse(const char *name, enum log_level *level)
{
    for (int i = 0; i < LEVEL_COUNT; i++)
        if (strcmp(level_names[i], name) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    return false;
}

/* A message stays one line whatever it quotes; a cut one ends with "…". */
static size_t finish_line(char *line, size_t start, size_t length)
{
    static const char cut[] = "…";
    if (length > LINE_SIZE - 1) {
        length = LINE_SIZE - sizeof cut;
        while (length > start && ((unsigned char)line[length] & 0xc0) == 0x80)
            length--;
        memcpy(line + length, cut, sizeof cut - 1);
        length += sizeof cut - 1;
    }
    for (size_t i = start; i < length; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = ' ';
    line[length++] = '\n';
    return length;
}

static void write_line(const char *line, size_t size)
{
    ssize_t done;
    do {
        done = write(STDERR_FILENO, line, size);
    } while (done < 0 && errno == EINTR);
}

void log_at(enum log_level level, const char *format, ...)
{
    if ((int)level > atomic_load(&least_severe))
        return;
    int error = errno; /* logging changes nothing for the caller */
    char line[LINE_SIZE + 1], now[CLOCK_ISO_SIZE];
    clock_iso8601(clock_wall_ms(clock_system()), now);
    int head = snprintf(line, sizeof line, "%s %s %s: ", now, level_names[level], process);
    va_list args;
    va_start(args, format);
    int body = vsnprintf(line + head, sizeof line - (size_t)head, format, args);
    va_end(args);
    if (body >= 0)
        write_line(line, finish_line(line, (size_t)head, (size_t)head + (size_t)body));
    errno = error;
}
