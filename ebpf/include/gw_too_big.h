/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * ICMP errors about packets that do not fit: the frame that came in is cut, gets new headers in
 * front, and goes back where it came from.
 */
#ifndef GW_TOO_BIG_H
#define GW_TOO_BIG_H

#include "gw_csum.h"
#include "gw_parse.h"

/* What is quoted: up to 576 octets over IPv4 (RFC 1812 section 4.3.2.3), 1280 over IPv6. */
#define GW_QUOTE4_BYTES             512
#define GW_QUOTE6_BYTES             1232
#define GW_ERROR_TTL                64
#define GW_TOS_INTERNETWORK_CONTROL 0xc0 /* RFC 1812 section 4.3.2.5 */
#define GW_IPV6_MIN_MTU             1280

struct gw_icmp_too_big {
	__u8 type;
	__u8 code;
	__be16 checksum_be;
	__be32 mtu_be; /* of ICMPv4 in the low 16 bits (RFC 1191 section 4) */
};

struct gw_error4 {
	struct iphdr ip;
	struct gw_icmp_too_big icmp;
} __attribute__((packed));

struct gw_error6 {
	struct ipv6hdr ip;
	struct gw_icmp_too_big icmp;
} __attribute__((packed));

/* The pseudo-header of IPv6 (RFC 8200 section 8.1). */
struct gw_pseudo6 {
	union gw_address source;
	union gw_address destination;
	__be32 length_be;
	__be32 protocol_be;
};

/*
 * Cut the packet to `quote_bytes`, make room for `header_bytes` before it, and move the link header
 * in front, turned round. Return 0, or -1.
 */
static __always_inline int gw_turn_round(struct xdp_md *ctx, const struct gw_flow *flow,
					 int header_bytes, int quote_bytes)
{
	__u8 link[sizeof(struct ethhdr) + GW_MAX_VLANS * sizeof(struct gw_vlan_header)];
	int excess = gw_frame_bytes(ctx) - flow->l3_offset - quote_bytes;
	__u32 link_bytes = flow->l3_offset;

	if (excess < 0 || (excess && bpf_xdp_adjust_tail(ctx, -excess)))
		return -1;
	if (link_bytes < sizeof(struct ethhdr) || link_bytes > sizeof(link) ||
	    bpf_xdp_load_bytes(ctx, 0, link, link_bytes) || bpf_xdp_adjust_head(ctx, -header_bytes))
		return -1;
		/* Swap the two addresses at its start. */
#pragma clang loop unroll(full)
	for (int i = 0; i < ETH_ALEN; i++) {
		__u8 octet = link[i];

		link[i] = link[i + ETH_ALEN];
		link[i + ETH_ALEN] = octet;
	}
	return bpf_xdp_store_bytes(ctx, 0, link, link_bytes) ? -1 : 0;
}

/* Say "fragmentation needed and DF set" (RFC 1191 section 4). Return 0, or -1. */
static __always_inline int gw_answer_too_big4(struct xdp_md *ctx, const struct gw_flow *flow,
					      const struct gw_port *port, __u32 mtu)
{
	struct gw_cursor cursor;
	struct gw_error4 *error;
	void *quote;

	if (gw_turn_round(ctx, flow, sizeof(*error), GW_QUOTE4_BYTES))
		return -1;
	cursor = gw_cursor_at(ctx, flow->l3_offset);
	error = cursor.at;
	quote = error + 1;
	if (quote + GW_QUOTE4_BYTES > cursor.end)
		return -1;
	__builtin_memset(error, 0, sizeof(*error));
	error->ip.version = 4;
	error->ip.ihl = 5;
	error->ip.tos = GW_TOS_INTERNETWORK_CONTROL;
	error->ip.tot_len = bpf_htons(sizeof(*error) + GW_QUOTE4_BYTES);
	error->ip.ttl = GW_ERROR_TTL;
	error->ip.protocol = IPPROTO_ICMP;
	error->ip.saddr = port->address4.words_be[3];
	error->ip.daddr = flow->source.words_be[3];
	error->ip.check = ~gw_csum_fold(gw_csum_add(0, &error->ip, sizeof(error->ip)));
	error->icmp.type = 3;
	error->icmp.code = 4;
	error->icmp.mtu_be = bpf_htonl(mtu & 0xffff);
	error->icmp.checksum_be = ~gw_csum_fold(gw_csum_add(
		gw_csum_add(0, &error->icmp, sizeof(error->icmp)), quote, GW_QUOTE4_BYTES));
	return 0;
}

/* Say "packet too big" (RFC 4443 section 3.2). Return 0, or -1. */
static __always_inline int gw_answer_too_big6(struct xdp_md *ctx, const struct gw_flow *flow,
					      const struct gw_port *port, __u32 mtu)
{
	struct gw_pseudo6 pseudo = {
		.source = port->address6,
		.destination = flow->source,
		.length_be = bpf_htonl(sizeof(struct gw_icmp_too_big) + GW_QUOTE6_BYTES),
		.protocol_be = bpf_htonl(IPPROTO_ICMPV6),
	};
	struct gw_cursor cursor;
	struct gw_error6 *error;
	void *quote;
	__u64 sum;

	if (gw_turn_round(ctx, flow, sizeof(*error), GW_QUOTE6_BYTES))
		return -1;
	cursor = gw_cursor_at(ctx, flow->l3_offset);
	error = cursor.at;
	quote = error + 1;
	if (quote + GW_QUOTE6_BYTES > cursor.end)
		return -1;
	__builtin_memset(error, 0, sizeof(*error));
	error->ip.version = 6;
	error->ip.payload_len = bpf_htons(sizeof(error->icmp) + GW_QUOTE6_BYTES);
	error->ip.nexthdr = IPPROTO_ICMPV6;
	error->ip.hop_limit = GW_ERROR_TTL;
	__builtin_memcpy(&error->ip.saddr, &port->address6, 16);
	__builtin_memcpy(&error->ip.daddr, &flow->source, 16);
	error->icmp.type = 2;
	error->icmp.mtu_be = bpf_htonl(mtu < GW_IPV6_MIN_MTU ? GW_IPV6_MIN_MTU : mtu);
	sum = gw_csum_add(0, &pseudo, sizeof(pseudo));
	sum = gw_csum_add(sum, &error->icmp, sizeof(error->icmp));
	sum = gw_csum_add(sum, quote, 512);
	sum = gw_csum_add(sum, quote + 512, 512);
	sum = gw_csum_add(sum, quote + 1024, GW_QUOTE6_BYTES - 1024);
	error->icmp.checksum_be = ~gw_csum_fold(sum);
	return 0;
}

#endif
