/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging to stderr, one line a message: `2026-01-31T12:34:56.789Z info worker decoder-0: text`.
 * Only main loops log; library code fills a `struct err` instead. Thread-safe.
 */
#ifndef UNCLIP_COMMON_LOG_H
#define UNCLIP_COMMON_LOG_H

#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `who` names the process in each line ("worker decoder-0"); it is copied. */
void log_init(const char *who, enum log_level level);
bool log_level_parse(const char *name, enum log_level *level);

void log_at(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...) log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...) log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
