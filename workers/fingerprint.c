/* SPDX-License-Identifier: Apache-2.0 */
/* Fingerprints of folders; see fingerprint.h. Training changes every page of the weights. */
#include "workers/fingerprint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/memory.h"

static int add_range(struct digest *digest, FILE *file, int64_t from, int64_t size)
{
    uint8_t page[FINGERPRINT_PAGE];
    if (fseeko(file, from, SEEK_SET))
        return -1;
    while (size > 0) {
        size_t want = size < FINGERPRINT_PAGE ? (size_t)size : FINGERPRINT_PAGE;
        if (fread(page, 1, want, file) != want)
            return -1;
        digest_add(digest, page, want);
        size -= (int64_t)want;
    }
    return 0;
}

static int add_content(struct digest *digest, FILE *file, int64_t size)
{
    if (size <= FINGERPRINT_WHOLE_MAX)
        return add_range(digest, file, 0, size);
    for (int64_t i = 0; i < FINGERPRINT_SAMPLES; i++) { /* the first and the last page among them */
        int64_t from = (size - FINGERPRINT_PAGE) * i / (FINGERPRINT_SAMPLES - 1);
        if (add_range(digest, file, from, FINGERPRINT_PAGE))
            return -1;
    }
    return 0;
}

static int add_file(struct digest *digest, const char *path, const char *name, struct err *err)
{
    struct stat about;
    FILE *file = fopen(path, "rb");
    if (!file)
        return err_set(err, ERR_IO, "cannot open '%s': %s", path, strerror(errno));
    int rc = fstat(fileno(file), &about);
    if (!rc && S_ISREG(about.st_mode)) {
        digest_add_text(digest, name);
        digest_add_number(digest, about.st_size);
        rc = add_content(digest, file, about.st_size);
    }
    fclose(file);
    return rc ? err_set(err, ERR_IO, "cannot read '%s'", path) : 0;
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

int fingerprint_folder(struct digest *digest, const char *path, struct err *err)
{
    struct dirent **entries;
    int count = scandir(path, &entries, visible, by_bytes);
    if (count < 0 && errno == ENOENT)
        return 0;
    if (count < 0)
        return err_set(err, ERR_IO, "cannot list '%s': %s", path, strerror(errno));
    int rc = 0;
    for (int i = 0; i < count; i++) {
        char *file = xasprintf("%s/%s", path, entries[i]->d_name);
        rc = rc ? rc : add_file(digest, file, entries[i]->d_name, err);
        free(file);
        free(entries[i]);
    }
    free(entries);
    return rc;
}
