/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP against a server of our own on the loopback: what is fetched, and what is refused. The
 * server answers by the path it is asked for (see `pages`), one connection after the other.
 */
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

#include "common/http.h"

#define LIMIT 1000

static struct {
    int listener, port;
    pthread_t thread;
    char seen[4096]; /* the last request */
    char here[64];   /* "127.0.0.1:PORT" */
} server;

/* --- the server --- */

static const struct {
    const char *path, *answer; /* %s: the server's host and port */
} pages[] = {
    {"/picture", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"e1\"\r\n\r\nbytes"},
    {"/empty", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
    {"/moved", "HTTP/1.1 302 Found\r\nLocation: http://%s/picture\r\nContent-Length: 0\r\n\r\n"},
    {"/relative", "HTTP/1.1 301 Moved\r\nLocation: /picture\r\nContent-Length: 0\r\n\r\n"},
    {"/loop", "HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n"},
    {"/metadata", "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\n"
                  "Content-Length: 0\r\n\r\n"},
    {"/loopback", "HTTP/1.1 307 Found\r\nLocation: http://localhost/\r\nContent-Length: 0\r\n\r\n"},
    {"/file", "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"},
    {"/large", "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"},
    {"/gone", "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"},
    {"/forbidden", "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"},
    {"/busy", "HTTP/1.1 429 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"},
    {"/broken", "HTTP/1.1 503 Broken\r\nContent-Length: 0\r\n\r\n"},
    {"/short", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nonly this"},
    {"/garbage", "\001\002\003 what is this\r\n\r\n"},
};

static void send_all(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        text += sent;
        size -= (size_t)sent;
    }
}

/* More than anybody should take, without saying how much. */
static void send_endless(int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";
    char block[512];
    memset(block, 'x', sizeof block);
    send_all(fd, head, sizeof head - 1);
    for (int i = 0; i < 1000; i++)
        send_all(fd, block, sizeof block);
}

static void answer(int fd)
{
    char path[256] = "", text[512];
    size_t size = 0;
    memset(server.seen, 0, sizeof server.seen);
    while (size < sizeof server.seen - 1 && !strstr(server.seen, "\r\n\r\n")) {
        ssize_t got = recv(fd, server.seen + size, sizeof server.seen - 1 - size, 0);
        if (got <= 0)
            return;
        size += (size_t)got;
    }
    sscanf(server.seen, "%*s %255s", path);
    if (strcmp(path, "/endless") == 0)
        send_endless(fd);
    if (strcmp(path, "/silent") == 0) /* until the other side gives up */
        while (recv(fd, text, sizeof text, 0) > 0)
            ;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (strcmp(path, pages[i].path) == 0) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(text, sizeof text, pages[i].answer, server.here);
#pragma GCC diagnostic pop
            send_all(fd, text, strlen(text));
        }
    if (strncmp(path, "http://", 7) == 0) /* as a proxy */
        send_all(fd, pages[0].answer, strlen(pages[0].answer));
}

static void *serve(void *unused)
{
    (void)unused;
    for (int fd; (fd = accept(server.listener, NULL, NULL)) >= 0; close(fd))
        answer(fd);
    return NULL;
}

static int set_up(void **state)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct err err;
    (void)state;
    unsetenv("http_proxy");
    unsetenv("https_proxy");
    unsetenv("HTTPS_PROXY");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    server.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(server.listener, (struct sockaddr *)&address, size) || listen(server.listener, 16) ||
        getsockname(server.listener, (struct sockaddr *)&address, &size))
        return -1;
    server.port = ntohs(address.sin_port);
    snprintf(server.here, sizeof server.here, "127.0.0.1:%d", server.port);
    return http_setup(&err) || pthread_create(&server.thread, NULL, serve, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    shutdown(server.listener, SHUT_RDWR);
    close(server.listener);
    return pthread_join(server.thread, NULL);
}

/* --- what is asked --- */

static int fetch(const char *url, const char *allow, char *out, struct err *err)
{
    void *bytes = NULL;
    size_t size = 0;
    *err = (struct err){0};
    int rc = http_fetch(url, allow, LIMIT, &bytes, &size, err);
    if (!rc && out)
        snprintf(out, LIMIT, "%.*s", (int)size, (char *)bytes);
    if (rc)
        assert_null(bytes);
    free(bytes);
    return rc;
}

static int fetch_page(const char *path, char *out, struct err *err)
{
    char url[128];
    snprintf(url, sizeof url, "http://%s%s", server.here, path);
    return fetch(url, server.here, out, err);
}

static void expect_page(const char *path, const char *body)
{
    char out[LIMIT];
    struct err err;
    if (fetch_page(path, out, &err))
        fail_msg("%s: %s", path, err.text);
    assert_string_equal(out, body);
}

static void expect_error(const char *path, enum err_code code, const char *word)
{
    struct err err;
    assert_int_equal(fetch_page(path, NULL, &err), -(int)code);
    if (!strstr(err.text, word))
        fail_msg("%s: '%s' does not say '%s'", path, err.text, word);
}

static void expect_refused(const char *url)
{
    struct err err;
    int rc = fetch(url, "", NULL, &err);
    if (rc != -ERR_REFUSED)
        fail_msg("%s gives %d: %s", url, rc, err.text);
}

static void test_pages(void **state)
{
    (void)state;
    expect_page("/picture", "bytes");
    assert_non_null(strstr(server.seen, "User-Agent: unclip/"));
    assert_null(strcasestr(server.seen, "cookie"));
    assert_null(strcasestr(server.seen, "accept-encoding"));
    expect_page("/empty", "");
    expect_page("/moved", "bytes");
    expect_page("/relative", "bytes");
}

static void test_answers(void **state)
{
    (void)state;
    expect_error("/gone", ERR_NOT_FOUND, "410");
    expect_error("/forbidden", ERR_REFUSED, "403");
    expect_error("/busy", ERR_FETCH, "429");
    expect_error("/broken", ERR_FETCH, "503");
    expect_error("/short", ERR_FETCH, "");
    expect_error("/garbage", ERR_FETCH, "");
    expect_error("/large", ERR_TOO_LARGE, "1000");
    expect_error("/endless", ERR_TOO_LARGE, "1000");
}

static void test_redirects(void **state)
{
    (void)state;
    expect_error("/loop", ERR_REFUSED, "redirected more than 3 times");
    expect_error("/metadata", ERR_REFUSED, "169.254.169.254");
    expect_error("/loopback", ERR_REFUSED, "no public address");
    expect_error("/file", ERR_REFUSED, "file");
}

static void test_urls(void **state)
{
    static const char *const refused[] = {"",
                                          "cat.png",
                                          "file:///etc/passwd",
                                          "ftp://192.0.2.1/x",
                                          "gopher://1.1.1.1/x",
                                          "dict://1.1.1.1/x",
                                          "javascript:alert(1)",
                                          "http://",
                                          "http://user@1.1.1.1/",
                                          "http://user:word@1.1.1.1/",
                                          "http://1.1.1.1:22/",
                                          "https://1.1.1.1:6379/",
                                          "https://1.1.1.1:80/",
                                          "http://127.0.0.1/",
                                          "http://localhost/",
                                          "http://127.1/",
                                          "http://0x7f000001/",
                                          "http://2130706433/",
                                          "http://017700000001/",
                                          "http://0/",
                                          "http://[::1]/",
                                          "http://[::ffff:127.0.0.1]/",
                                          "http://[::ffff:10.0.0.1]/",
                                          "http://169.254.169.254/latest/meta-data",
                                          "http://10.0.0.1/",
                                          "http://192.168.1.1/",
                                          "http://172.16.0.1/",
                                          "http://100.64.0.1/",
                                          "http://[fd00:ec2::254]/",
                                          "http://[fe80::1]/",
                                          "http://255.255.255.255/",
                                          "http://224.0.0.1/",
                                          "http://exa mple/",
                                          "http://1.1.1.1\r\nX: y/"};
    char long_url[HTTP_URL_MAX + 2];
    struct err err;
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        expect_refused(refused[i]);
    memset(long_url, 'a', sizeof long_url - 1);
    long_url[sizeof long_url - 1] = '\0';
    assert_int_equal(fetch(long_url, "", NULL, &err), -ERR_TOO_LARGE);
}

static void test_exceptions_are_exact(void **state)
{
    char url[128], allow[128];
    struct err err;
    (void)state;
    snprintf(url, sizeof url, "http://%s/picture", server.here);
    expect_refused(url);
    snprintf(allow, sizeof allow, "127.0.0.1:1%d,localhost:%d,127.0.0.1", server.port, server.port);
    assert_int_equal(fetch(url, allow, NULL, &err), -ERR_REFUSED);
    snprintf(allow, sizeof allow, "other:80,%s", server.here);
    assert_int_equal(fetch(url, allow, NULL, &err), 0);
}

/* An exception is for the host that was asked, not for where its answers lead. */
static void test_exceptions_stay_at_home(void **state)
{
    char url[128], allow[128];
    struct err err;
    (void)state;
    snprintf(url, sizeof url, "http://localhost:%d/moved", server.port);
    snprintf(allow, sizeof allow, "localhost:%d,%s", server.port, server.here);
    assert_int_equal(fetch(url, allow, NULL, &err), -ERR_REFUSED);
    snprintf(url, sizeof url, "http://localhost:%d/picture", server.port);
    assert_int_equal(fetch(url, allow, NULL, &err), 0);
}

static void test_nobody_listens(void **state)
{
    struct err err;
    (void)state;
    assert_int_equal(fetch("http://127.0.0.1:1/", "127.0.0.1:1", NULL, &err), -ERR_FETCH);
}

static void test_proxy(void **state)
{
    char proxy[128], out[LIMIT];
    struct err err;
    (void)state;
    snprintf(proxy, sizeof proxy, "http://%s", server.here);
    setenv("http_proxy", proxy, 1);
    assert_int_equal(fetch("http://pictures.invalid/cat.png", "", out, &err), 0);
    assert_string_equal(out, "bytes");
    assert_non_null(strstr(server.seen, "GET http://pictures.invalid/cat.png"));
    expect_refused("http://10.0.0.1/");
    expect_refused("http://[::1]/");
    expect_refused("http://localhost/");
    setenv("http_proxy", "http://proxy.invalid:3128", 1);
    assert_int_equal(fetch("http://10.0.0.1/", "", out, &err), -ERR_FETCH);
    assert_non_null(strstr(err.text, "proxy.invalid"));
    setenv("http_proxy", proxy, 1);
    expect_page("/picture", "bytes"); /* what is excepted needs none */
    assert_non_null(strstr(server.seen, "GET /picture"));
    unsetenv("http_proxy");
}

static void test_send(void **state)
{
    char url[128];
    struct http_answer answer;
    struct err err = {0};
    (void)state;
    snprintf(url, sizeof url, "http://%s/picture", server.here);
    struct http_request request = {.method = "PUT",
                                   .url = url,
                                   .headers = {"X-One: 1", "X-Two: 2"},
                                   .body = "hello",
                                   .body_size = 5,
                                   .answer_max = LIMIT};
    assert_int_equal(http_send(&request, &answer, &err), 0);
    assert_int_equal(answer.status, 200);
    assert_string_equal(answer.body, "bytes");
    assert_string_equal(answer.etag, "\"e1\"");
    http_answer_release(&answer);
    assert_non_null(strstr(server.seen, "PUT /picture HTTP/1.1"));
    assert_non_null(strstr(server.seen, "X-One: 1\r\n"));
    assert_non_null(strstr(server.seen, "X-Two: 2\r\n"));
    assert_non_null(strstr(server.seen, "Content-Length: 5\r\n"));
    request.guarded = true;
    assert_int_equal(http_send(&request, &answer, &err), -ERR_REFUSED);
    assert_null(answer.body);
}

static void test_send_takes_any_status(void **state)
{
    char url[128];
    struct http_answer answer;
    struct err err = {0};
    (void)state;
    snprintf(url, sizeof url, "http://%s/busy", server.here);
    struct http_request request = {.method = "POST", .url = url, .answer_max = LIMIT};
    assert_int_equal(http_send(&request, &answer, &err), 0);
    assert_int_equal(answer.status, 429);
    assert_int_equal(answer.retry_after_s, 7);
    http_answer_release(&answer);
}

static void test_time_is_limited(void **state)
{
    char url[128];
    struct http_answer answer;
    struct err err = {0};
    (void)state;
    snprintf(url, sizeof url, "http://%s/silent", server.here);
    struct http_request request = {
        .method = "GET", .url = url, .answer_max = LIMIT, .timeout_ms = 200};
    assert_int_equal(http_send(&request, &answer, &err), -ERR_TIMEOUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_redirects),
        cmocka_unit_test(test_urls),
        cmocka_unit_test(test_exceptions_are_exact),
        cmocka_unit_test(test_exceptions_stay_at_home),
        cmocka_unit_test(test_nobody_listens),
        cmocka_unit_test(test_proxy),
        cmocka_unit_test(test_send),
        cmocka_unit_test(test_send_takes_any_status),
        cmocka_unit_test(test_time_is_limited),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
