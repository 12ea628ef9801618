/* SPDX-License-Identifier: Apache-2.0 */
/* Public addresses; see address.h. */
#include "common/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>

struct network4 {
    uint8_t address[4];
    int bits;
};

struct network6 {
    uint8_t address[16];
    int bits;
};

static const struct network4 closed4[] = {
    {{0}, 8},                 /* this network */
    {{10}, 8},                /* private */
    {{100, 64}, 10},          /* carrier-grade NAT */
    {{127}, 8},               /* loopback */
    {{168, 63, 129, 16}, 32}, /* Azure's platform, metadata among it */
    {{169, 254}, 16},         /* link-local, with the clouds' metadata */
    {{172, 16}, 12},          /* private */
    {{192, 0, 0}, 24},        /* protocol assignments */
    {{192, 0, 2}, 24},        /* documentation */
    {{192, 88, 99}, 24},      /* 6to4 relays */
    {{192, 168}, 16},         /* private */
    {{198, 18}, 15},          /* benchmarks */
    {{198, 51, 100}, 24},     /* documentation */
    {{203, 0, 113}, 24},      /* documentation */
    {{224}, 4},               /* multicast */
    {{240}, 4},               /* reserved, and broadcast */
};

/* Of global unicast, 2000::/3, which alone is open. */
static const struct network6 closed6[] = {
    {{0x20, 0x01}, 23},             /* protocol assignments: Teredo, benchmarks, ORCHID */
    {{0x20, 0x01, 0x0d, 0xb8}, 32}, /* documentation */
    {{0x20, 0x02}, 16},             /* 6to4: carries an IPv4 address */
    {{0x3f, 0xff}, 20},             /* documentation */
};
static const struct network6 global6 = {{0x20}, 3};
static const struct network6 mapped6 = {{[10] = 0xff, [11] = 0xff}, 96};

static bool within(const uint8_t *address, const uint8_t *network, int bits)
{
    int whole = bits / 8, rest = bits % 8;
    if (memcmp(address, network, (size_t)whole) != 0)
        return false;
    return rest == 0 || ((address[whole] ^ network[whole]) >> (8 - rest)) == 0;
}

static bool public4(const uint8_t *address)
{
    for (size_t i = 0; i < sizeof closed4 / sizeof *closed4; i++)
        if (within(address, closed4[i].address, closed4[i].bits))
            return false;
    return true;
}

static bool public6(const uint8_t *address)
{
    if (within(address, mapped6.address, mapped6.bits))
        return public4(address + 12);
    for (size_t i = 0; i < sizeof closed6 / sizeof *closed6; i++)
        if (within(address, closed6[i].address, closed6[i].bits))
            return false;
    return within(address, global6.address, global6.bits);
}

/* The address's bytes, or NULL for another family; and its port as it stands there. */
static const uint8_t *bytes_of(const struct sockaddr *address, size_t *size, in_port_t *port)
{
    const struct sockaddr_in *v4 = (const void *)address;
    const struct sockaddr_in6 *v6 = (const void *)address;
    if (address->sa_family == AF_INET) {
        *size = sizeof v4->sin_addr;
        *port = v4->sin_port;
        return (const uint8_t *)&v4->sin_addr;
    }
    if (address->sa_family == AF_INET6) {
        *size = sizeof v6->sin6_addr;
        *port = v6->sin6_port;
        return v6->sin6_addr.s6_addr;
    }
    return NULL;
}

bool address_public(const struct sockaddr *address)
{
    size_t size;
    in_port_t port;
    const uint8_t *bytes = bytes_of(address, &size, &port);
    if (!bytes)
        return false;
    return size == 4 ? public4(bytes) : public6(bytes);
}

const char *address_text(const struct sockaddr *address, char text[ADDRESS_TEXT_SIZE])
{
    size_t size;
    in_port_t port;
    const uint8_t *bytes = bytes_of(address, &size, &port);
    if (!bytes || !inet_ntop(address->sa_family, bytes, text, ADDRESS_TEXT_SIZE))
        memcpy(text, "?", 2);
    return text;
}

bool address_equal(const struct sockaddr *a, const struct sockaddr *b)
{
    size_t size_a = 0, size_b = 0;
    in_port_t port_a = 0, port_b = 0;
    const uint8_t *bytes_a = bytes_of(a, &size_a, &port_a);
    const uint8_t *bytes_b = bytes_of(b, &size_b, &port_b);
    return bytes_a && bytes_b && size_a == size_b && port_a == port_b &&
           memcmp(bytes_a, bytes_b, size_a) == 0;
}
