/* SPDX-License-Identifier: Apache-2.0 */
/* The file:// store: whole files or none, names and links that stay inside, URIs both ways. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/memory.h"
#include "common/storage.h"

static char folder[64]; /* holds the store, and things beside it */
static char *root;      /* of the store: folder/a b/stör% */
static struct storage *storage;

static int set_up(void **state)
{
    (void)state;
    struct err err;
    strcpy(folder, "/tmp/unclip-storage-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    root = xasprintf("%s/a b/stör%%", folder);
    return storage_open(&storage, root, &err);
}

static int tear_down(void **state)
{
    (void)state;
    storage_close(storage);
    char *command = xasprintf("rm -r '%s'", folder);
    int result = system(command);
    free(command);
    free(root);
    return result;
}

static char *write_text(const char *name, const char *text) /* owned */
{
    struct err err;
    char *uri;
    if (storage_write(storage, name, text, strlen(text), &uri, &err) != 0)
        fail_msg("%s", err.text);
    return uri;
}

static void assert_reads(const char *uri, const char *text)
{
    struct err err;
    void *bytes;
    size_t size;
    if (storage_read(storage, uri, 1000, &bytes, &size, &err) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(bytes, text, size);
    free(bytes);
}

static int entries_of(const char *path)
{
    DIR *open = opendir(path);
    assert_non_null(open);
    int count = -2; /* . and .. */
    while (readdir(open))
        count++;
    closedir(open);
    return count;
}

static void write_and_read(void **state)
{
    (void)state;
    char *uri = write_text("my-heart/0.png", "first"), *expected, *job;
    expected = xasprintf("file://%s/a%%20b/st%%C3%%B6r%%25/my-heart/0.png", folder);
    assert_string_equal(uri, expected);
    assert_reads(uri, "first");
    char *again = write_text("my-heart/0.png", "second, longer");
    assert_string_equal(again, uri);
    assert_reads(uri, "second, longer");
    job = xasprintf("%s/my-heart", root);
    assert_int_equal(entries_of(job), 1); /* no temporary file is left */
    free(uri);
    free(again);
    free(expected);
    free(job);
    uri = write_text("odd %41 ?#é", "");
    assert_reads(uri, "");
    free(uri);
}

static void uri_without_writing(void **state)
{
    (void)state;
    struct err err;
    char *uri, *written;
    assert_int_equal(storage_uri(storage, "a b/0.png", &uri, &err), 0);
    assert_int_equal(entries_of(root), 0);
    written = write_text("a b/0.png", "x");
    assert_string_equal(uri, written);
    assert_int_equal(storage_uri(storage, "a/../b", &uri, &err), -ERR_INVALID_ARGUMENT);
    free(uri);
    free(written);
}

static void remove_twice(void **state)
{
    (void)state;
    struct err err;
    void *bytes;
    size_t size;
    char *uri = write_text("a/b/c", "x");
    assert_int_equal(storage_remove(storage, uri, &err), 0);
    assert_int_equal(storage_read(storage, uri, 10, &bytes, &size, &err), -ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/a/b/c': No such file or directory"));
    assert_int_equal(storage_remove(storage, uri, &err), 0);
    free(uri);
    char *elsewhere = xasprintf("file://%s/a%%20b/st%%C3%%B6r%%25/none/x", folder);
    assert_int_equal(storage_remove(storage, elsewhere, &err), 0);
    free(elsewhere);
}

static void bad_names(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",  "/",     "/a",      "a/",   "a//b", "..",    "../a", "a/..",  "a/../b",
        ".", "a/./b", ".hidden", "a/.b", "a\nb", "a\x1f", "\x7f", "a/\tb",
    };
    struct err err;
    char *uri, *long_name = xmalloc(5000);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_int_equal(storage_write(storage, names[i], "x", 1, &uri, &err),
                         -ERR_INVALID_ARGUMENT);
    memset(long_name, 'a', 5000);
    long_name[256] = '\0';
    assert_int_equal(storage_write(storage, long_name, "x", 1, &uri, &err), -ERR_INVALID_ARGUMENT);
    memset(long_name, 'a', 5000);
    for (int i = 100; i < 4999; i += 100)
        long_name[i] = '/';
    long_name[4999] = '\0';
    assert_int_equal(storage_write(storage, long_name, "x", 1, &uri, &err), -ERR_INVALID_ARGUMENT);
    free(long_name);
    assert_int_equal(entries_of(root), 0);
}

static void bad_uris(void **state)
{
    (void)state;
    static const char *const forms[] = {
        "",
        "x",
        "%s/x",
        "http://host/x",
        "file://host%s/x",
        "file://%s",
        "file://%s/",
        "file://%s/../x",
        "file://%s/%2e%2e/x",
        "file://%s/..%2fx",
        "file://%s/a%00b",
        "file://%s/a%",
        "file://%s/a%4",
        "file://%s/a%zz",
        "file://%sx/y",
        "file:///etc/passwd",
        "file://%s/.x",
    };
    char encoded[100];
    snprintf(encoded, sizeof encoded, "%s/a%%20b/st%%C3%%B6r%%25", folder);
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct err err;
        void *bytes;
        size_t size;
        char *hole = strstr(forms[i], "%s"), uri[300];
        snprintf(uri, sizeof uri, "%.*s%s%s", hole ? (int)(hole - forms[i]) : 300, forms[i],
                 hole ? encoded : "", hole ? hole + 2 : "");
        assert_int_equal(storage_read(storage, uri, 10, &bytes, &size, &err),
                         -ERR_INVALID_ARGUMENT);
        assert_int_equal(storage_remove(storage, uri, &err), -ERR_INVALID_ARGUMENT);
    }
}

static void links_do_not_lead_out(void **state)
{
    (void)state;
    struct err err;
    char *uri = write_text("job/0.png", "inside"), *link = xasprintf("%s/out", root);
    assert_int_equal(symlink(folder, link), 0);
    char *other;
    assert_int_equal(storage_write(storage, "out/x", "x", 1, &other, &err), -ERR_IO);
    free(link);
    link = xasprintf("%s/job/1.png", root);
    assert_int_equal(symlink("/etc/hostname", link), 0);
    char *linked = xasprintf("%.*s1.png", (int)strlen(uri) - 5, uri);
    void *bytes;
    size_t size;
    assert_int_equal(storage_read(storage, linked, 1000, &bytes, &size, &err), -ERR_IO);
    other = write_text("job/1.png", "mine"); /* replaces the link itself */
    assert_reads(other, "mine");
    struct stat status;
    assert_int_equal(lstat(link, &status), 0);
    assert_true(S_ISREG(status.st_mode));
    free(uri);
    free(link);
    free(linked);
    free(other);
}

static void limits_of_reading(void **state)
{
    (void)state;
    struct err err;
    void *bytes;
    size_t size;
    char *uri = write_text("a/b", "12345");
    assert_int_equal(storage_read(storage, uri, 4, &bytes, &size, &err), -ERR_TOO_LARGE);
    assert_non_null(strstr(err.text, "has 5 bytes, at most 4 are allowed"));
    uri[strlen(uri) - 2] = '\0'; /* the folder */
    assert_int_equal(storage_read(storage, uri, 4, &bytes, &size, &err), -ERR_INVALID_ARGUMENT);
    free(uri);
}

static void folders_that_cannot_be(void **state)
{
    (void)state;
    struct err err;
    struct storage *other;
    char *uri = write_text("file", "x"), *below = xasprintf("%s/file/below", root);
    assert_int_equal(storage_open(&other, below, &err), -ERR_IO);
    assert_non_null(strstr(err.text, "cannot make the folder '"));
    below[strlen(below) - strlen("/below")] = '\0';
    assert_int_equal(storage_open(&other, below, &err), -ERR_IO);
    assert_non_null(strstr(err.text, "cannot open the folder '"));
    assert_int_equal(storage_open(&other, "", &err), -ERR_IO);
    char *name = NULL;
    assert_int_equal(storage_write(storage, "file/0.png", "x", 1, &name, &err), -ERR_IO);
    free(uri);
    free(below);
    storage_close(NULL);
}

#define WRITERS 4
#define ROUNDS  50
#define BODY    100000

/* All write the same name, each a body of its own letter. */
static void *keep_writing(void *arg)
{
    char *body = xmalloc(BODY);
    memset(body, *(const char *)arg, BODY);
    for (int i = 0; i < ROUNDS; i++) {
        struct err err;
        char *uri;
        if (storage_write(storage, "shared/x", body, BODY, &uri, &err) != 0)
            abort();
        free(uri);
    }
    free(body);
    return NULL;
}

static void readers_never_see_a_part(void **state)
{
    (void)state;
    static char letters[] = "abcd";
    struct err err;
    pthread_t threads[WRITERS];
    char *uri = write_text("shared/x", "a"), *shared = xasprintf("%s/shared", root);
    pid_t child = fork();
    int first = child == 0 ? 2 : 0;
    for (int i = first; i < first + 2; i++)
        pthread_create(&threads[i], NULL, keep_writing, &letters[i]);
    for (int i = 0; i < 10 * ROUNDS && child != 0; i++) {
        char *bytes;
        size_t size;
        assert_int_equal(storage_read(storage, uri, BODY, (void **)&bytes, &size, &err), 0);
        assert_true(size == BODY || size == 1);
        assert_true(bytes[0] == bytes[size - 1]);
        free(bytes);
    }
    for (int i = first; i < first + 2; i++)
        pthread_join(threads[i], NULL);
    if (child == 0)
        _exit(0);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(entries_of(shared), 1);
    free(uri);
    free(shared);
}

int main(void)
{
#define WITH_STORE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        WITH_STORE(write_and_read),
        WITH_STORE(uri_without_writing),
        WITH_STORE(remove_twice),
        WITH_STORE(bad_names),
        WITH_STORE(bad_uris),
        WITH_STORE(links_do_not_lead_out),
        WITH_STORE(limits_of_reading),
        WITH_STORE(folders_that_cannot_be),
        WITH_STORE(readers_never_see_a_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
