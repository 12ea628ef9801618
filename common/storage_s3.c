/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The artifact store in a bucket of S3, or of a server that speaks it. libcurl signs the requests
 * (Signature Version 4). The SHA-256 of every upload is part of its signature, so that the server
 * refuses a damaged one; it is tried again when the server is busy. An upload is whole or not
 * there. What is larger than PART_BYTES goes up in parts. Source: Amazon S3 API Reference.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/digest.h"
#include "common/http.h"
#include "common/memory.h"
#include "common/storage_ops.h"

#define PART_BYTES     (64u << 20)
#define ANSWER_MAX     (64u << 10) /* of everything but an object */
#define TRIES          4
#define FIRST_WAIT_MS  200          /* doubled after each try */
#define BYTES_A_SECOND (256u << 10) /* slower than this is too slow: it makes the time limit */
#define UPLOAD_ID_MAX  1024
#define PARTS_MAX      10000

struct bucket {
    char *base;  /* owned: URL that a name is appended to, with the prefix, ends with / */
    char *root;  /* owned: URL of the bucket itself */
    char *place; /* owned, for messages: "bucket/prefix" */
    char *sigv4; /* owned: "aws:amz:REGION:s3" */
    char *user;  /* owned: "KEY:SECRET" */
    char *token; /* owned header; NULL: none */
};

/* --- opening --- */

static const char *setting(const char *name, const char *other, const char *fallback)
{
    const char *value = getenv(name);
    if ((!value || !*value) && other)
        value = getenv(other);
    return value && *value ? value : fallback;
}

/* Path style for a named server; AWS itself has the bucket in the host, unless it has dots. */
static char *bucket_url(const char *name, const char *region)
{
    const char *endpoint = setting("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", NULL);
    if (endpoint) {
        int length = (int)strlen(endpoint);
        while (length > 0 && endpoint[length - 1] == '/')
            length--;
        return xasprintf("%.*s/%s", length, endpoint, name);
    }
    return strchr(name, '.') ? xasprintf("https://s3.%s.amazonaws.com/%s", region, name)
                             : xasprintf("https://%s.s3.%s.amazonaws.com", name, region);
}

/* AWS's rule: 3 to 63 of a-z 0-9 . - */
static bool bucket_name_valid(const char *name)
{
    size_t length = strlen(name);
    return length >= 3 && length <= 63 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") == length;
}

static void bucket_close(void *state)
{
    struct bucket *bucket = state;
    free(bucket->base);
    free(bucket->root);
    free(bucket->place);
    free(bucket->sigv4);
    free(bucket->user);
    free(bucket->token);
    free(bucket);
}

/* --- requests --- */

struct body {
    const void *bytes; /* NULL: none */
    size_t size;
    const char *type;
};

static int send_once(const struct bucket *bucket, const char *method, const char *url,
                     const struct body *body, size_t answer_max, struct http_answer *answer,
                     struct err *err)
{
    char hex[DIGEST_TEXT_SIZE], content[128], type[128];
    const void *bytes = body && body->bytes ? body->bytes : "";
    size_t size = body ? body->size : 0, count = 0;
    digest_of(bytes, size, hex);
    struct http_request request = {.method = method,
                                   .url = url,
                                   .body = body ? bytes : NULL,
                                   .body_size = size,
                                   .answer_max = answer_max,
                                   .sigv4 = bucket->sigv4,
                                   .user = bucket->user};
    snprintf(content, sizeof content, "x-amz-content-sha256: %s", hex);
    request.headers[count++] = content;
    if (body) {
        snprintf(type, sizeof type, "Content-Type: %s", body->type);
        request.headers[count++] = type;
    }
    if (bucket->token)
        request.headers[count++] = bucket->token;
    /* a server that stalls is given up long before this */
    size_t moved = size > answer_max ? size : answer_max;
    request.timeout_ms = HTTP_TIMEOUT_MS + (long)(moved / BYTES_A_SECOND) * 1000;
    request.patient = true;
    return http_send(&request, answer, err);
}

static bool worth_another(int rc, const struct http_answer *answer)
{
    return rc == -ERR_FETCH || rc == -ERR_TIMEOUT ||
           (rc == 0 && (answer->status == 429 || answer->status == 408 || answer->status == 500 ||
                        (answer->status > 501 && answer->status < 600)));
}

static void wait_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Any status is an answer; a busy or silent server is asked again, a few times. */
static int ask(const struct bucket *bucket, const char *method, const char *url,
               const struct body *body, size_t answer_max, struct http_answer *answer,
               struct err *err)
{
    for (int try = 1;; try++) {
        struct err why = {0};
        int rc = send_once(bucket, method, url, body, answer_max, answer, &why);
        bool again = worth_another(rc, answer) && try < TRIES;
        if (!again && rc)
            return err_set(err, rc == -ERR_TOO_LARGE ? ERR_TOO_LARGE : ERR_IO,
                           "the artifact store 's3://%s': %s", bucket->place, why.text);
        if (!again)
            return 0;
        http_answer_release(answer);
        wait_ms(FIRST_WAIT_MS << (try - 1));
    }
}

/* The text of <tag> in an answer; "" where it has none. */
static const char *xml_text(const char *xml, const char *tag, char *out, size_t size)
{
    char open[64];
    snprintf(open, sizeof open, "<%s>", tag);
    const char *begin = xml ? strstr(xml, open) : NULL;
    const char *end = begin ? strchr(begin + strlen(open), '<') : NULL;
    *out = '\0';
    if (end)
        snprintf(out, size, "%.*s", (int)(end - begin - (ptrdiff_t)strlen(open)),
                 begin + strlen(open));
    return out;
}

/* What the server says of it, as an error; only what is read can be not there. */
static int refusal(const struct bucket *bucket, const char *verb, const char *name,
                   const struct http_answer *answer, struct err *err)
{
    char code[64], message[200];
    xml_text(answer->body, "Code", code, sizeof code);
    xml_text(answer->body, "Message", message, sizeof message);
    bool missing = answer->status == 404 && strcmp(verb, "open") == 0;
    return err_set(err, missing ? ERR_NOT_FOUND : ERR_IO, "cannot %s 's3://%s/%s': HTTP %ld %s %s",
                   verb, bucket->place, name, answer->status, code, message);
}

static char *object_url(const struct bucket *bucket, const char *name)
{
    char *encoded = storage_encode(name);
    char *url = xasprintf("%s%s", bucket->base, encoded);
    free(encoded);
    return url;
}

/* --- writing --- */

static const char *content_type(const char *name)
{
    static const char *const types[][2] = {
        {".png", "image/png"},   {".webp", "image/webp"},       {".jpeg", "image/jpeg"},
        {".avif", "image/avif"}, {".json", "application/json"},
    };
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (strcmp(dot, types[i][0]) == 0)
            return types[i][1];
    return "application/octet-stream";
}

static int put(const struct bucket *bucket, const char *name, const char *url,
               const struct body *body, char *etag, struct err *err)
{
    struct http_answer answer;
    int rc = ask(bucket, "PUT", url, body, ANSWER_MAX, &answer, err);
    if (rc)
        return rc;
    if (answer.status != 200)
        rc = refusal(bucket, "write", name, &answer, err);
    else if (etag)
        strcpy(etag, answer.etag);
    http_answer_release(&answer);
    return rc;
}

/* Asks for an upload in parts. *id is owned. */
static int begin_upload(const struct bucket *bucket, const char *name, const char *url, char **id,
                        struct err *err)
{
    struct body body = {.type = content_type(name)};
    struct http_answer answer;
    char *begin = xasprintf("%s?uploads=", url), text[UPLOAD_ID_MAX];
    int rc = ask(bucket, "POST", begin, &body, ANSWER_MAX, &answer, err);
    free(begin);
    if (rc)
        return rc;
    if (answer.status == 200 && *xml_text(answer.body, "UploadId", text, sizeof text))
        *id = storage_encode(text);
    else
        rc = refusal(bucket, "write", name, &answer, err);
    http_answer_release(&answer);
    return rc;
}

static int put_parts(const struct bucket *bucket, const char *name, const char *url, const char *id,
                     const char *bytes, size_t size, FILE *list, struct err *err)
{
    int rc = 0;
    for (size_t at = 0, part = 1; at < size && rc == 0; at += PART_BYTES, part++) {
        size_t rest = size - at;
        struct body body = {.bytes = bytes + at,
                            .size = rest < PART_BYTES ? rest : PART_BYTES,
                            .type = "application/octet-stream"};
        char etag[sizeof((struct http_answer *)0)->etag];
        char *to = xasprintf("%s?partNumber=%zu&uploadId=%s", url, part, id);
        rc = put(bucket, name, to, &body, etag, err);
        if (!rc)
            fprintf(list, "<Part><PartNumber>%zu</PartNumber><ETag>%s</ETag></Part>", part, etag);
        free(to);
    }
    return rc;
}

/* The server may say 200 and then, in the body, that it failed. */
static int end_upload(const struct bucket *bucket, const char *name, const char *url,
                      const char *id, const char *list, struct err *err)
{
    struct body body = {.bytes = list, .size = strlen(list), .type = "application/xml"};
    struct http_answer answer;
    char *to = xasprintf("%s?uploadId=%s", url, id);
    int rc = ask(bucket, "POST", to, &body, ANSWER_MAX, &answer, err);
    free(to);
    if (rc)
        return rc;
    if (answer.status != 200 || !strstr(answer.body, "CompleteMultipartUploadResult"))
        rc = refusal(bucket, "write", name, &answer, err);
    http_answer_release(&answer);
    return rc;
}

static void abort_upload(const struct bucket *bucket, const char *url, const char *id)
{
    struct http_answer answer;
    char *to = xasprintf("%s?uploadId=%s", url, id);
    if (ask(bucket, "DELETE", to, NULL, ANSWER_MAX, &answer, NULL) == 0)
        http_answer_release(&answer);
    free(to);
}

static int write_parts(const struct bucket *bucket, const char *name, const char *url,
                       const void *bytes, size_t size, struct err *err)
{
    char *id, *text = NULL;
    size_t length;
    if (size / PART_BYTES >= PARTS_MAX)
        return err_set(err, ERR_TOO_LARGE, "'%s' has more than %d parts", name, PARTS_MAX);
    int rc = begin_upload(bucket, name, url, &id, err);
    if (rc)
        return rc;
    FILE *list = open_memstream(&text, &length);
    BUG_ON(!list);
    fputs("<CompleteMultipartUpload>", list);
    rc = put_parts(bucket, name, url, id, bytes, size, list, err);
    fputs("</CompleteMultipartUpload>", list);
    BUG_ON(fclose(list) != 0);
    if (!rc)
        rc = end_upload(bucket, name, url, id, text, err);
    if (rc)
        abort_upload(bucket, url, id);
    free(text);
    free(id);
    return rc;
}

static int bucket_write(void *state, const char *name, const void *bytes, size_t size,
                        struct err *err)
{
    const struct bucket *bucket = state;
    struct body body = {.bytes = bytes, .size = size, .type = content_type(name)};
    char *url = object_url(bucket, name);
    int rc = size > PART_BYTES ? write_parts(bucket, name, url, bytes, size, err)
                               : put(bucket, name, url, &body, NULL, err);
    free(url);
    return rc;
}

/* --- reading and removing --- */

static int bucket_read(void *state, const char *name, size_t max_size, void **bytes, size_t *size,
                       struct err *err)
{
    const struct bucket *bucket = state;
    struct http_answer answer;
    size_t limit = max_size > ANSWER_MAX ? max_size : ANSWER_MAX; /* errors have a body too */
    char *url = object_url(bucket, name);
    int rc = ask(bucket, "GET", url, NULL, limit, &answer, err);
    free(url);
    if (rc)
        return rc;
    if (answer.status == 200 && answer.size > max_size)
        rc = err_set(err, ERR_TOO_LARGE, "'s3://%s/%s' has %zu bytes, at most %zu are allowed",
                     bucket->place, name, answer.size, max_size);
    else if (answer.status != 200)
        rc = refusal(bucket, "open", name, &answer, err);
    if (!rc) {
        *bytes = answer.body;
        *size = answer.size;
        answer.body = NULL;
    }
    http_answer_release(&answer);
    return rc;
}

static int bucket_remove(void *state, const char *name, struct err *err)
{
    const struct bucket *bucket = state;
    struct http_answer answer;
    char *url = object_url(bucket, name);
    int rc = ask(bucket, "DELETE", url, NULL, ANSWER_MAX, &answer, err);
    free(url);
    if (rc)
        return rc;
    if (answer.status != 204 && answer.status != 200 && answer.status != 404)
        rc = refusal(bucket, "remove", name, &answer, err);
    http_answer_release(&answer);
    return rc;
}

/* Whether the bucket is there and ours to use. */
static int check(const struct bucket *bucket, struct err *err)
{
    struct http_answer answer;
    int rc = ask(bucket, "HEAD", bucket->root, NULL, ANSWER_MAX, &answer, err);
    if (rc)
        return rc;
    if (answer.status == 404)
        rc = err_set(err, ERR_INVALID_ARGUMENT, "there is no bucket for 's3://%s'", bucket->place);
    else if (answer.status != 200)
        rc = err_set(err, ERR_INVALID_ARGUMENT,
                     "the bucket of 's3://%s' may not be used (HTTP %ld): check its region and the "
                     "credentials",
                     bucket->place, answer.status);
    http_answer_release(&answer);
    return rc;
}

static int bucket_open(void **state, const char *place, char **root, struct err *err)
{
    const char *key = setting("AWS_ACCESS_KEY_ID", NULL, NULL);
    const char *secret = setting("AWS_SECRET_ACCESS_KEY", NULL, NULL);
    const char *token = setting("AWS_SESSION_TOKEN", NULL, NULL);
    const char *region = setting("AWS_REGION", "AWS_DEFAULT_REGION", "us-east-1");
    char *name = xstrdup(place), *prefix = strchr(name, '/');
    if (prefix)
        *prefix++ = '\0';
    if (!bucket_name_valid(name) || (prefix && !*prefix)) {
        free(name);
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "'s3://%s' is not s3://bucket or "
                       "s3://bucket/prefix",
                       place);
    }
    if (!key || !secret) {
        free(name);
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "'s3://%s' needs AWS_ACCESS_KEY_ID and "
                       "AWS_SECRET_ACCESS_KEY",
                       place);
    }
    struct bucket *bucket = xcalloc(1, sizeof *bucket);
    char *path = storage_encode(prefix ? prefix : "");
    bucket->root = bucket_url(name, region);
    bucket->base = xasprintf("%s/%s%s", bucket->root, path, prefix ? "/" : "");
    bucket->place = xstrdup(place);
    bucket->sigv4 = xasprintf("aws:amz:%s:s3", region);
    bucket->user = xasprintf("%s:%s", key, secret);
    bucket->token = token ? xasprintf("x-amz-security-token: %s", token) : NULL;
    free(path);
    free(name);
    int rc = check(bucket, err);
    if (rc) {
        bucket_close(bucket);
        return rc;
    }
    *root = xstrdup(place);
    *state = bucket;
    return 0;
}

const struct storage_ops storage_s3_ops = {
    .scheme = "s3://",
    .open = bucket_open,
    .close = bucket_close,
    .write = bucket_write,
    .read = bucket_read,
    .remove = bucket_remove,
};
