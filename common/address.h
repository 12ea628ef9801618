/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which network addresses a URL from outside may lead to: the public ones. Everything else (this
 * host, private and link-local networks, carriers' networks, cloud metadata, documentation,
 * multicast, tunnels that carry another address) is refused, so that a job cannot make a worker
 * talk to what stands behind the firewall. Source: IANA's special-purpose address registries
 * (RFC 6890 and its updates).
 */
#ifndef UNCLIP_COMMON_ADDRESS_H
#define UNCLIP_COMMON_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

/* Whether it is a public address of IPv4, or of IPv6's global unicast. Any other family is not. */
bool address_public(const struct sockaddr *address);

#define ADDRESS_TEXT_SIZE 64
/* "203.0.113.7", "2001:db8::1"; "?" for another family. Returns `text`. */
const char *address_text(const struct sockaddr *address, char text[ADDRESS_TEXT_SIZE]);

/* Whether both are the same address and port. */
bool address_equal(const struct sockaddr *a, const struct sockaddr *b);

#endif
