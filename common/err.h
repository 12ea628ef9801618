/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors. A command returns 0, or a negative `enum err_code`, and takes a `struct err *` last. The
 * place that detects an error fills it in with err_set(); callers only propagate; only main loops
 * log. A `struct err` is untouched on success. Every code is declared once, in the table below,
 * which also decides whether a task that failed with it is worth another try.
 */
#ifndef UNCLIP_COMMON_ERR_H
#define UNCLIP_COMMON_ERR_H

#include <stdbool.h>

/*  X(identifier, name in records and statuses, retriable, meaning) */
#define ERR_TABLE(X)                                                                               \
    X(ERR_INVALID_JOB, "invalid_job", false, "the job record is not valid by its schema")          \
    X(ERR_INVALID_JSON, "invalid_json", false, "the bytes are not JSON")                           \
    X(ERR_INVALID_RECORD, "invalid_record", false, "a task or event record cannot be read")        \
    X(ERR_INVALID_ARGUMENT, "invalid_argument", false, "a flag or parameter is out of bounds")     \
    X(ERR_UNKNOWN_MODEL, "unknown_model", false, "no such model directory")                        \
    X(ERR_INVALID_MODEL, "invalid_model", false, "a model file is damaged or of an unknown kind")  \
    X(ERR_PROMPT_TOO_LONG, "prompt_too_long", false, "the prompt exceeds the limit")               \
    X(ERR_INVALID_IMAGE, "invalid_image", false, "a picture cannot be decoded or is too large")    \
    X(ERR_TOO_LARGE, "too_large", false, "a size from outside exceeds its named limit")            \
    X(ERR_UNSUPPORTED, "unsupported", false, "asks for what this build or model cannot do")        \
    X(ERR_CONFLICT, "conflict", false, "the id is taken by a job with another body")               \
    X(ERR_NOT_FOUND, "not_found", false, "no such job, key or file")                               \
    X(ERR_REFUSED, "url_refused", false, "a URL may not be fetched, or its server says no")        \
    X(ERR_FETCH, "fetch_failed", true, "another server did not answer, or said to come again")     \
    X(ERR_CANCELLED, "cancelled", false, "the job was cancelled")                                  \
    X(ERR_EXPIRED, "expired", false, "the job's deadline has passed")                              \
    X(ERR_DENIED, "content_denied", false, "a text or a picture of the job is not allowed here")   \
    X(ERR_QUOTA_EXCEEDED, "quota_exceeded", true, "as many jobs wait as may, of all or a client's")  \
    X(ERR_COMPUTE, "compute_failed", false, "the model's computation failed or is not finite")     \
    X(ERR_WORKER_DIED, "worker_died", false, "the task ended its worker, again and again")         \
    X(ERR_OUT_OF_MEMORY, "out_of_memory", true, "an allocation of a tensor or picture failed")     \
    X(ERR_IO, "io_error", true, "a file could not be read or written")                             \
    X(ERR_KAFKA, "kafka_error", true, "Kafka refused or did not answer")                           \
    X(ERR_REDIS, "redis_error", true, "Redis refused or did not answer")                           \
    X(ERR_TIMEOUT, "timeout", true, "no answer in time")                                           \
    X(ERR_INTERNAL, "internal", false, "a bug in unclip")

enum err_code {
    ERR_OK = 0,
#define X(id, name, retriable, meaning) id,
    ERR_TABLE(X)
#undef X
        ERR_CODE_COUNT
};

struct err {
    enum err_code code;  /* ERR_OK: no error */
    const char *where;   /* "file.c:123" of the detector, static storage */
    char text[480];      /* lower case, no full stop, quotes the subject */
};

#define ERR_STRING_(x) #x
#define ERR_STRING(x) ERR_STRING_(x)
#define ERR_HERE __FILE__ ":" ERR_STRING(__LINE__)

/* Fills *err (NULL is allowed) and returns -code, for `return err_set(err, ERR_IO, "…")`. */
#define err_set(err, code, ...) err_set_at((err), (code), ERR_HERE, __VA_ARGS__)
int err_set_at(struct err *err, enum err_code code, const char *where, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Puts "prefix: " before the text, for a caller that knows the subject's name. Returns -code. */
int err_prefix(struct err *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

const char *err_name(enum err_code code);               /* "invalid_job"; "ok" for ERR_OK */
enum err_code err_from_name(const char *name);          /* ERR_INTERNAL when unknown */
bool err_retriable(enum err_code code);

/* A programming error: prints file, line and the expression, then aborts; also in release builds. */
#define BUG_ON(expression)                                                                         \
    do {                                                                                           \
        if (__builtin_expect(!!(expression), 0))                                                   \
            err_bug(ERR_HERE, #expression);                                                        \
    } while (0)
#define BUG(text) err_bug(ERR_HERE, text)
void err_bug(const char *where, const char *expression) __attribute__((noreturn));

#endif
