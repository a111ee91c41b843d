/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of IP headers: protocols, sizes, bits (IANA, RFC 791, RFC 8200). */
#ifndef GW_IP_H
#define GW_IP_H

#include <stdbool.h>
#include <stdint.h>

enum gw_protocol {
	GW_PROTOCOL_HOP_BY_HOP = 0,
	GW_PROTOCOL_ICMP = 1,
	GW_PROTOCOL_IPV4 = 4,
	GW_PROTOCOL_TCP = 6,
	GW_PROTOCOL_UDP = 17,
	GW_PROTOCOL_DCCP = 33,
	GW_PROTOCOL_IPV6 = 41,
	GW_PROTOCOL_ROUTING = 43,
	GW_PROTOCOL_FRAGMENT = 44,
	GW_PROTOCOL_ESP = 50,
	GW_PROTOCOL_AH = 51,
	GW_PROTOCOL_ICMPV6 = 58,
	GW_PROTOCOL_NONE = 59,
	GW_PROTOCOL_DESTINATION_OPTIONS = 60,
	GW_PROTOCOL_SCTP = 132,
	GW_PROTOCOL_MOBILITY = 135,
	GW_PROTOCOL_UDP_LITE = 136,
};

#define GW_IPV4_BYTES    20u
#define GW_IPV6_BYTES    40u
#define GW_UDP_BYTES     8u
#define GW_ESP_BYTES     8u
#define GW_TRAILER_BYTES 2u
#define GW_MAX_IP_BYTES  65535u
/* More is nothing but work for us; RFC 8883 §1 gives nodes the right to such a limit. */
#define GW_MAX_EXTENSION_HEADERS 10

#define GW_IPV4_DF           0x4000u
#define GW_IPV4_MF_OR_OFFSET 0x3fffu
#define GW_ECN               0x03u
/* The outer TTL is ours, not a copy (RFC 4301 §5.1.2.1, note 2). */
#define GW_OUTER_TTL 64u

static inline bool gw_is_extension(uint8_t protocol)
{
	return protocol == GW_PROTOCOL_HOP_BY_HOP || protocol == GW_PROTOCOL_ROUTING ||
	       protocol == GW_PROTOCOL_DESTINATION_OPTIONS;
}

static inline uint8_t gw_ipv6_tos(const uint8_t *ip)
{
	return (uint8_t)(ip[0] << 4 | ip[1] >> 4);
}

#endif
