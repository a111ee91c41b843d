/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a link needs to live, and what may always come in clear: as gateway/host/nftables.py has it.
 */
#ifndef GW_LINK_H
#define GW_LINK_H

#include "gw_parse.h"

static __always_inline int gw_is_multicast6(const union gw_address *address)
{
	return address->octets[0] == 0xff;
}

/*
 * Neighbour discovery (RFC 4861 section 4) and multicast listener discovery (RFC 2710 section 3,
 * RFC 3810 section 5): an IPv6 link is dead without them. The hop limits are those that never cross
 * a router.
 */
static __always_inline int gw_is_link_icmpv6(const struct gw_flow *flow)
{
	__u32 type = flow->source_port >> 8;

	if (flow->protocol != IPPROTO_ICMPV6 || !flow->has_ports)
		return 0;
	if (type >= 133 && type <= 137)
		return flow->ttl == 255;
	return ((type >= 130 && type <= 132) || type == 143) && flow->ttl == 1 &&
	       gw_is_multicast6(&flow->destination);
}

/* Addresses of more than one host, or of a link only: a gateway does not forward them (RFC 1812
 * section 5.2.6). */
static __always_inline int gw_stays_on_link(__u8 family, const union gw_address *address)
{
	const __u8 *octets = address->octets;

	if (family == 4)
		return octets[12] >= 224 || (octets[12] == 169 && octets[13] == 254);
	return gw_is_multicast6(address) || (octets[0] == 0xfe && (octets[1] & 0xc0) == 0x80);
}

/* Is this the address of one host, to which an ICMP error may be sent (RFC 1122 section 3.2.2)? */
static __always_inline int gw_is_one_host(__u8 family, const union gw_address *address)
{
	if (family == 4)
		return address->octets[12] && address->octets[12] != 127 &&
		       address->octets[12] < 224;
	return !gw_is_multicast6(address) && (address->halves[0] || address->halves[1]);
}

/* Is the frame for a group of stations (IEEE 802: the lowest bit of the first octet)? */
static __always_inline int gw_is_group_mac(struct xdp_md *ctx)
{
	struct gw_cursor cursor = gw_cursor_at(ctx, 0);
	struct ethhdr *ethernet;

	return gw_parse_ethernet(&cursor, &ethernet) < 0 || ethernet->h_dest[0] & 1;
}

/* ICMP errors: about our own ESP and IKE they teach the path MTU (RFC 4301 section 8.2.1). */
static __always_inline int gw_is_icmp_error(const struct gw_flow *flow)
{
	__u32 type = flow->source_port >> 8;

	if (!flow->has_ports)
		return 0;
	if (flow->protocol == IPPROTO_ICMP)
		return type == 3 || type == 11 || type == 12;
	return flow->protocol == IPPROTO_ICMPV6 && type >= 1 && type <= 4;
}

#endif
