/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of pictures: data URLs, the store, and which servers may be asked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base64.h"
#include "common/fetch.h"
#include "common/http.h"
#include "common/memory.h"

/* --- a server that says "bytes" to /picture, and 503 to all else --- */

static struct {
    int listener, port;
    pthread_t thread;
} server;

static void *serve(void *unused)
{
    static const char good[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes";
    static const char bad[] = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    (void)unused;
    for (int fd; (fd = accept(server.listener, NULL, NULL)) >= 0; close(fd)) {
        char seen[2048] = "";
        size_t size = 0;
        while (size < sizeof seen - 1 && !strstr(seen, "\r\n\r\n")) {
            ssize_t got = recv(fd, seen + size, sizeof seen - 1 - size, 0);
            if (got <= 0)
                break;
            size += (size_t)got;
        }
        const char *answer = strncmp(seen, "GET /picture ", 13) == 0 ? good : bad;
        send(fd, answer, strlen(answer), MSG_NOSIGNAL);
    }
    return NULL;
}

static char folder[] = "/tmp/unclip-fetch-XXXXXX";
static struct storage *store;

static int set_up(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct err err;
    (void)state;
    static const char *const proxies[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy",
                                          "ALL_PROXY"};
    for (size_t i = 0; i < sizeof proxies / sizeof *proxies; i++)
        unsetenv(proxies[i]);
    if (!mkdtemp(folder) || http_setup(&err) || storage_open(&store, folder, &err))
        return -1;
    server.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server.listener, (void *)&address, sizeof address) || listen(server.listener, 8))
        return -1;
    getsockname(server.listener, (void *)&address, &size);
    server.port = ntohs(address.sin_port);
    return pthread_create(&server.thread, NULL, serve, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    shutdown(server.listener, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.listener);
    storage_close(store);
    char *command = xasprintf("rm -r '%s'", folder);
    int rc = system(command);
    free(command);
    return rc;
}

static int try(const char *allowed, const char *address, struct err *err)
{
    struct fetch fetch = {.storage = store, .allowed = allowed};
    void *bytes = NULL;
    size_t size = 0;
    int rc = fetch_address(&fetch, address, &bytes, &size, err);
    if (rc == 0) {
        assert_int_equal(size, 5);
        assert_memory_equal(bytes, "bytes", 5);
    } else {
        assert_null(bytes);
        assert_int_equal(rc, -(int)err->code);
    }
    free(bytes);
    return rc;
}

static void expect(const char *allowed, const char *address, int wanted)
{
    struct err err = {0};
    int rc = try(allowed, address, &err);
    if (rc != wanted)
        print_error("%s with %s: %s\n", address, allowed, err.text);
    assert_int_equal(rc, wanted);
}

/* --- base 64 --- */

static void base64_there_and_back(void **state)
{
    (void)state;
    unsigned char bytes[40];
    for (size_t n = 0; n < sizeof bytes; n++) {
        size_t length, size;
        bytes[n] = (unsigned char)(n * 37 + 200);
        char *text = base64_encode(bytes, n, &length);
        assert_int_equal(length, (n + 2) / 3 * 4);
        unsigned char *back = base64_decode(text, length, &size);
        assert_non_null(back);
        assert_int_equal(size, n);
        assert_memory_equal(back, bytes, n);
        free(back);
        free(text);
    }
    char *known = base64_encode("bytes", 5, NULL);
    assert_string_equal(known, "Ynl0ZXM=");
    free(known);
}

static void base64_refuses_what_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {"a",     "ab",   "abc",      "ab=c",
                                      "=abc",  "a===", "====",     "ab c",
                                      "ab\nc", "ab-_", "YQ==YQ==", "\xff\xff\xff\xff"};
    size_t size;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_null(base64_decode(bad[i], strlen(bad[i]), &size));
}

/* --- data URLs --- */

static void data_urls_are_read(void **state)
{
    (void)state;
    expect("off", "data:image/png;base64,Ynl0ZXM=", 0);
    expect("off", "DATA:Image/JPEG;charset=utf-8;BASE64,Ynl0ZXM=", 0);
}

static void a_data_url_tells_its_extension(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
#define X(type, extension) {"data:" type ";base64,Ynl0ZXM=", extension},
        FETCH_TYPE_TABLE(X)
#undef X
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        void *bytes;
        size_t size;
        const char *extension;
        assert_int_equal(fetch_data(pairs[i][0], &bytes, &size, &extension, NULL), 0);
        assert_string_equal(extension, pairs[i][1]);
        free(bytes);
    }
}

static void broken_data_urls_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "data:",
        "data:,hello",
        "data:image/png",
        "data:image/png,Ynl0ZXM=",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,Ynl0ZXM",
        "data:image/png;base64,Ynl0 ZXM=",
        "data:image/png;base64,%59nl0ZXM",
        "data:image/svg+xml;base64,Ynl0ZXM=",
        "data:text/html;base64,Ynl0ZXM=",
        "data:;base64,Ynl0ZXM=",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect("public", bad[i], -ERR_INVALID_JOB);
}

static void a_large_data_url_is_not_decoded(void **state)
{
    (void)state;
    static const char head[] = "data:image/png;base64,";
    size_t length = FETCH_BYTES_MAX / 3 * 4 + 8;
    char *address = xmalloc(sizeof head + length);
    memcpy(address, head, sizeof head - 1);
    memset(address + sizeof head - 1, 'A', length);
    address[sizeof head - 1 + length] = '\0';
    expect("public", address, -ERR_TOO_LARGE);
    free(address);
}

/* --- the store --- */

static void own_artifacts_are_read(void **state)
{
    (void)state;
    char *uri;
    assert_int_equal(storage_write(store, "job-1/0.png", "bytes", 5, &uri, NULL), 0);
    expect("off", uri, 0);
    free(uri);
    assert_int_equal(storage_uri(store, "job-1/1.png", &uri, NULL), 0);
    expect("off", uri, -ERR_NOT_FOUND);
    free(uri);
}

static void nothing_outside_the_store_is_read(void **state)
{
    (void)state;
    char *out = xasprintf("file://%s/../etc/passwd", folder);
    char *coded = xasprintf("file://%s/%%2e%%2e/passwd", folder);
    expect("public", out, -ERR_REFUSED);
    expect("public", coded, -ERR_REFUSED);
    expect("public", "file:///etc/passwd", -ERR_REFUSED);
    expect("public", "s3://bucket/picture.png", -ERR_REFUSED);
    free(out);
    free(coded);
}

static void without_a_store_its_uris_are_refused(void **state)
{
    (void)state;
    struct fetch fetch = {.storage = NULL, .allowed = "public"};
    void *bytes;
    size_t size;
    assert_int_equal(fetch_address(&fetch, "file:///a/b.png", &bytes, &size, NULL), -ERR_REFUSED);
}

/* --- servers --- */

static void this_host_is_refused_unless_it_is_named(void **state)
{
    (void)state;
    char *url = xasprintf("http://127.0.0.1:%d/picture", server.port);
    char *named = xasprintf("127.0.0.1:%d", server.port);
    char *added = xasprintf("public,other:80,127.0.0.1:%d", server.port);
    expect("public", url, -ERR_REFUSED);
    expect("off", url, -ERR_REFUSED);
    expect("other:80", url, -ERR_REFUSED);
    expect("127.0.0.1", url, -ERR_REFUSED); /* its ports are 80 and 443 */
    expect(named, url, 0);
    expect(added, url, 0);
    free(url);
    free(named);
    free(added);
}

static void trouble_of_a_server_may_pass(void **state)
{
    (void)state;
    struct err err = {0};
    char *url = xasprintf("http://127.0.0.1:%d/busy", server.port);
    char *named = xasprintf("127.0.0.1:%d", server.port);
    assert_int_equal(try(named, url, &err), -ERR_FETCH);
    assert_true(err_retriable(err.code));
    assert_non_null(strstr(err.text, url));
    assert_int_equal(try("public", url, &err), -ERR_REFUSED);
    assert_false(err_retriable(err.code));
    free(url);
    free(named);
}

static void with_names_alone_others_are_refused(void **state)
{
    (void)state;
    expect("pictures.example:8080", "http://192.0.2.1/a.png", -ERR_REFUSED);
    expect("pictures.example:8080", "https://other.example/a.png", -ERR_REFUSED);
    expect("pictures.example:8080", "https://pictures.example:8080@other.example/", -ERR_REFUSED);
    expect("pictures.example", "http://pictures.example:81/", -ERR_REFUSED);
}

static void other_addresses_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"ftp://example.org/a.png",
                                      "gopher://example.org/",
                                      "/etc/passwd",
                                      "a.png",
                                      "",
                                      "http:/one-slash",
                                      "javascript:1",
                                      "http://",
                                      "http://10.0.0.1/",
                                      "http://[::1]/",
                                      "http://169.254.169.254/latest/meta-data",
                                      "http://user:word@93.184.216.34/"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect("public", bad[i], -ERR_REFUSED);
}

static void the_setting_is_checked(void **state)
{
    (void)state;
    static const char *const good[] = {"off", "public", "public,127.0.0.1:8000", "a.example",
                                       "[2001:db8::1]:80"};
    static const char *const bad[] = {"off,public", "http://a.example", "a,,b", "a, b"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_int_equal(fetch_check_allowed(good[i], NULL), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(fetch_check_allowed(bad[i], NULL), -ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(base64_there_and_back),
        cmocka_unit_test(base64_refuses_what_is_none),
        cmocka_unit_test(data_urls_are_read),
        cmocka_unit_test(a_data_url_tells_its_extension),
        cmocka_unit_test(broken_data_urls_are_refused),
        cmocka_unit_test(a_large_data_url_is_not_decoded),
        cmocka_unit_test(own_artifacts_are_read),
        cmocka_unit_test(nothing_outside_the_store_is_read),
        cmocka_unit_test(without_a_store_its_uris_are_refused),
        cmocka_unit_test(this_host_is_refused_unless_it_is_named),
        cmocka_unit_test(trouble_of_a_server_may_pass),
        cmocka_unit_test(with_names_alone_others_are_refused),
        cmocka_unit_test(other_addresses_are_refused),
        cmocka_unit_test(the_setting_is_checked),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
