/* SPDX-License-Identifier: Apache-2.0 */
/* Many deliveries at once on several threads: each comes back, once, with what came of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/http.h"
#include "common/memory.h"
#include "webhooks/sender.h"

#define DELIVERIES 60

static int setup(void **state)
{
    (void)state;
    return http_setup(NULL);
}

static struct delivery *make(int number, const char *place)
{
    static const char body[] = "{\"state\":\"failed\"}";
    struct delivery *delivery = xcalloc(1, sizeof *delivery);
    delivery->record = xcalloc(1, sizeof *delivery->record);
    delivery->record->value = body;
    delivery->record->value_size = strlen(body);
    delivery->record->offset = number;
    delivery->state = DELIVERY_SENDING;
    delivery->url = xasprintf("http://%s/hook", place);
    delivery->host = xstrdup(place);
    delivery->job = xasprintf("job-%d", number);
    return delivery;
}

static void count_wake(void *context)
{
    atomic_fetch_add((atomic_int *)context, 1);
}

/* A port of this host at which nobody listens: it is bound, by *fd, and no more. */
static int closed_port(int *fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(*fd >= 0);
    assert_int_equal(bind(*fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(getsockname(*fd, (struct sockaddr *)&address, &size), 0);
    return ntohs(address.sin_port);
}

/* Takes all that is back; `seen` has a mark for each offset. */
static int take_all(struct sender *sender, bool *seen)
{
    struct sent sent;
    int count = 0;
    for (; sender_take(sender, &sent); count++) {
        int64_t number = sent.delivery->record->offset;
        assert_in_range(number, 0, DELIVERIES - 1);
        assert_false(seen[number]);
        seen[number] = true;
        /* every third one goes where it may not */
        assert_int_equal(sent.rc, number % 3 == 0 ? -ERR_REFUSED : -ERR_FETCH);
        assert_int_equal(sent.err.code, -sent.rc);
        assert_int_equal(sent.status, 0);
        delivery_free(sent.delivery);
    }
    return count;
}

static void test_many(void **state)
{
    struct secrets secrets;
    struct sender *sender;
    struct err err;
    atomic_int wakes = 0;
    bool seen[DELIVERIES] = {false};
    char place[32];
    int fd, taken = 0;
    (void)state;
    snprintf(place, sizeof place, "127.0.0.1:%d", closed_port(&fd));
    assert_int_equal(secrets_open(&secrets, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &err), 0);
    const struct sender_options options = {
        .secrets = &secrets,
        .allowed = place,
        .timeout_ms = 5000,
        .threads = 6,
        .clock = clock_system(),
        .wake = count_wake,
        .context = &wakes,
    };
    assert_int_equal(sender_open(&sender, &options, &err), 0);
    for (int i = 0; i < DELIVERIES; i++) {
        sender_give(sender, make(i, i % 3 == 0 ? "example.com" : place));
        taken += take_all(sender, seen);
    }
    sender_stop(sender); /* after the last one is sent */
    taken += take_all(sender, seen);
    assert_int_equal(taken, DELIVERIES);
    assert_int_equal(atomic_load(&wakes), DELIVERIES);
    sender_free(sender);
    secrets_release(&secrets);
    close(fd);
}

/* Threads that have had nothing to do end, too. */
static void test_idle(void **state)
{
    const struct sender_options options = {.allowed = "off", .threads = 3, .wake = count_wake};
    struct sender *sender;
    struct err err;
    (void)state;
    assert_int_equal(sender_open(&sender, &options, &err), 0);
    sender_stop(sender);
    assert_false(sender_take(sender, &(struct sent){0}));
    sender_free(sender);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_idle),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
