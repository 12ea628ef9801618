/* SPDX-License-Identifier: Apache-2.0 */
/* Which addresses are public: at least one of each special-purpose block, and its neighbours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "common/address.h"

static struct sockaddr_storage parsed(const char *text)
{
    struct sockaddr_storage storage = {0};
    struct sockaddr_in *v4 = (void *)&storage;
    struct sockaddr_in6 *v6 = (void *)&storage;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
        storage.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
        storage.ss_family = AF_INET6;
    else
        fail_msg("'%s' is no address", text);
    return storage;
}

static void check(const char *text, bool public)
{
    struct sockaddr_storage address = parsed(text);
    char shown[ADDRESS_TEXT_SIZE];
    if (address_public((struct sockaddr *)&address) != public)
        fail_msg("%s is %spublic", text, public ? "not " : "");
    assert_string_equal(address_text((struct sockaddr *)&address, shown), text);
}

static void test_closed(void **state)
{
    static const char *const closed[] = {"0.0.0.0",
                                         "0.1.2.3",
                                         "10.0.0.1",
                                         "10.255.255.255",
                                         "100.64.0.1",
                                         "100.127.255.255",
                                         "127.0.0.1",
                                         "127.255.255.254",
                                         "168.63.129.16",
                                         "169.254.169.254",
                                         "169.254.0.1",
                                         "172.16.0.1",
                                         "172.31.255.255",
                                         "192.0.0.8",
                                         "192.0.2.1",
                                         "192.88.99.1",
                                         "192.168.1.1",
                                         "198.18.0.1",
                                         "198.19.255.255",
                                         "198.51.100.7",
                                         "203.0.113.7",
                                         "224.0.0.1",
                                         "239.1.1.1",
                                         "240.0.0.1",
                                         "255.255.255.255",
                                         "::",
                                         "::1",
                                         "::ffff:127.0.0.1",
                                         "::ffff:10.0.0.1",
                                         "::ffff:169.254.169.254",
                                         "::127.0.0.1",
                                         "64:ff9b::7f00:1",
                                         "64:ff9b:1::1",
                                         "100::1",
                                         "2001::1",
                                         "2001:db8::1",
                                         "2001:10::1",
                                         "2002:7f00:1::1",
                                         "3fff::1",
                                         "3fff:fff::1",
                                         "fc00::1",
                                         "fd00:ec2::254",
                                         "fe80::1",
                                         "fec0::1",
                                         "ff02::1",
                                         "5f00::1"};
    (void)state;
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++)
        check(closed[i], false);
}

static void test_open(void **state)
{
    static const char *const open[] = {"1.1.1.1",         "9.255.255.255",   "11.0.0.1",
                                       "100.63.255.255",  "100.128.0.1",     "126.255.255.255",
                                       "128.0.0.1",       "168.63.129.15",   "169.253.255.255",
                                       "169.255.0.1",     "172.15.255.255",  "172.32.0.1",
                                       "192.0.1.1",       "192.167.255.255", "192.169.0.1",
                                       "198.17.255.255",  "198.20.0.1",      "223.255.255.255",
                                       "::ffff:1.1.1.1",  "2001:200::1",     "2001:4860:4860::8888",
                                       "2606:4700::1111", "2a00::1",         "3ffe::1",
                                       "3fff:1000::1"};
    (void)state;
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        check(open[i], true);
}

static void test_other_families(void **state)
{
    struct sockaddr address = {.sa_family = AF_UNIX};
    char shown[ADDRESS_TEXT_SIZE];
    (void)state;
    assert_false(address_public(&address));
    assert_string_equal(address_text(&address, shown), "?");
    assert_false(address_equal(&address, &address));
}

static void test_equal(void **state)
{
    struct sockaddr_storage a = parsed("127.0.0.1"), b = parsed("127.0.0.1"), c = parsed("::1");
    (void)state;
    assert_true(address_equal((struct sockaddr *)&a, (struct sockaddr *)&b));
    assert_false(address_equal((struct sockaddr *)&a, (struct sockaddr *)&c));
    ((struct sockaddr_in *)&b)->sin_port = htons(80);
    assert_false(address_equal((struct sockaddr *)&a, (struct sockaddr *)&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_other_families),
        cmocka_unit_test(test_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
