/* SPDX-License-Identifier: Apache-2.0 */
/* Standard Webhooks signatures; see sign.h. */
#include "webhooks/sign.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base64.h"
#include "common/digest.h"
#include "common/memory.h"

#define PREFIX "whsec_"
#define BLANKS " \t\r\n"

/* --- secrets --- */

static void wipe(void *bytes, size_t size)
{
    if (bytes)
        explicit_bzero(bytes, size);
    free(bytes);
}

/* `number` counts from 1. */
static int secret_parse(struct secret *secret, const char *word, size_t length, size_t number,
                        struct err *err)
{
    size_t prefix = strlen(PREFIX);
    if (length < prefix || memcmp(word, PREFIX, prefix) != 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "secret %zu does not begin with " PREFIX, number);
    secret->bytes = base64_decode(word + prefix, length - prefix, &secret->size);
    if (!secret->bytes)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "secret %zu is not base 64 with its padding after " PREFIX, number);
    if (secret->size >= SECRET_MIN_SIZE && secret->size <= SECRET_MAX_SIZE)
        return 0;
    err_set(err, ERR_INVALID_ARGUMENT, "secret %zu has %zu bytes, it must have %d to %d", number,
            secret->size, SECRET_MIN_SIZE, SECRET_MAX_SIZE);
    wipe(secret->bytes, secret->size);
    secret->bytes = NULL;
    return -ERR_INVALID_ARGUMENT;
}

static int secrets_parse(struct secrets *secrets, const char *text, struct err *err)
{
    int rc = 0;
    for (text += strspn(text, BLANKS); *text && !rc; text += strspn(text, BLANKS)) {
        size_t length = strcspn(text, BLANKS);
        if (secrets->count == SECRETS_MAX)
            rc = err_set(err, ERR_INVALID_ARGUMENT, "there are more than %d secrets", SECRETS_MAX);
        else
            rc =
                secret_parse(&secrets->keys[secrets->count], text, length, secrets->count + 1, err);
        secrets->count += !rc;
        text += length;
    }
    if (!rc && secrets->count == 0)
        rc = err_set(err, ERR_INVALID_ARGUMENT, "there is no secret");
    if (rc)
        secrets_release(secrets);
    return rc;
}

static int secrets_read(struct secrets *secrets, const char *path, struct err *err)
{
    char text[SECRET_FILE_MAX + 1];
    FILE *in = fopen(path, "re");
    if (!in)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    size_t size = fread(text, 1, sizeof text, in);
    int rc = 0;
    if (ferror(in))
        rc = err_set(err, ERR_IO, "cannot read '%s'", path);
    else if (size > SECRET_FILE_MAX)
        rc = err_set(err, ERR_INVALID_ARGUMENT, "'%s' has more than %d bytes", path,
                     SECRET_FILE_MAX);
    fclose(in);
    if (!rc) {
        text[size] = '\0';
        rc = secrets_parse(secrets, text, err);
    }
    explicit_bzero(text, sizeof text);
    return rc;
}

int secrets_open(struct secrets *secrets, const char *setting, struct err *err)
{
    *secrets = (struct secrets){0};
    return setting[0] == '@' ? secrets_read(secrets, setting + 1, err)
                             : secrets_parse(secrets, setting, err);
}

void secrets_release(struct secrets *secrets)
{
    for (size_t i = 0; i < secrets->count; i++)
        wipe(secrets->keys[i].bytes, secrets->keys[i].size);
    *secrets = (struct secrets){0};
}

/* --- signatures --- */

void webhook_id(const char *job, char out[WEBHOOK_ID_SIZE])
{
    char digest[DIGEST_TEXT_SIZE];
    digest_of(job, strlen(job), digest);
    snprintf(out, WEBHOOK_ID_SIZE, "msg_%.32s", digest);
}

static char *signature(const struct secret *secret, const void *bytes, size_t size)
{
    unsigned char mac[DIGEST_HMAC_SIZE];
    digest_hmac(secret->bytes, secret->size, bytes, size, mac);
    return base64_encode(mac, sizeof mac, NULL);
}

char *webhook_sign(const struct secrets *secrets, const char *id, int64_t timestamp_s,
                   const void *body, size_t size)
{
    char *head = xasprintf("%s.%lld.", id, (long long)timestamp_s), *all = xstrdup("");
    size_t length = strlen(head);
    char *signed_bytes = xmalloc(length + size);
    memcpy(signed_bytes, head, length);
    memcpy(signed_bytes + length, body, size);
    for (size_t i = 0; i < secrets->count; i++) {
        char *one = signature(&secrets->keys[i], signed_bytes, length + size);
        char *longer = xasprintf("%s%sv1,%s", all, i ? " " : "", one);
        free(one);
        free(all);
        all = longer;
    }
    free(signed_bytes);
    free(head);
    return all;
}
