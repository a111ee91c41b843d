/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Changes to a packet that is forwarded: hop limit, MSS, link header. */
#ifndef GW_FORWARD_H
#define GW_FORWARD_H

#include <linux/tcp.h>

#include "gw_csum.h"
#include "gw_parse.h"

#define GW_TCP_OPTION_END  0
#define GW_TCP_OPTION_NOP  1
#define GW_TCP_OPTION_MSS  2
#define GW_TCP_MAX_OPTIONS 40

/* Count the hop (RFC 791, RFC 8200 section 3). Return 0, or -1 where there is no header. */
static __always_inline int gw_count_hop(struct xdp_md *ctx, const struct gw_flow *flow)
{
	struct gw_cursor cursor = gw_cursor_at(ctx, flow->l3_offset);

	if (flow->family == 4) {
		struct iphdr *ip = cursor.at;
		__be16 before_be, after_be;

		if ((void *)(ip + 1) > cursor.end)
			return -1;
		/* TTL and protocol are one word. */
		before_be = bpf_htons(ip->ttl << 8 | ip->protocol);
		ip->ttl--;
		after_be = bpf_htons(ip->ttl << 8 | ip->protocol);
		ip->check = gw_csum_replace(ip->check, before_be, after_be);
	} else {
		struct ipv6hdr *ip = cursor.at;

		if ((void *)(ip + 1) > cursor.end)
			return -1;
		ip->hop_limit--;
	}
	return 0;
}

/* Write a lower MSS at an offset of the frame, which may be odd, and mend the checksum of TCP. */
static __always_inline void gw_lower_mss(struct xdp_md *ctx, const struct gw_flow *flow,
					 __u32 option_offset, __u16 limit)
{
	struct gw_cursor at_tcp = gw_cursor_at(ctx, flow->l4_offset);
	struct gw_cursor at_option = gw_cursor_at(ctx, option_offset);
	struct tcphdr *tcp = at_tcp.at;
	__u8 *mss = at_option.at;
	__u16 old;

	if ((void *)(tcp + 1) > at_tcp.end || (void *)(mss + 2) > at_option.end)
		return;
	old = mss[0] << 8 | mss[1];
	if (old <= limit)
		return;
	mss[0] = limit >> 8;
	mss[1] = limit & 0xff;
	/* At an odd place the octets stand in two words, each the other half: the sum turns with them. */
	if ((option_offset - flow->l4_offset) & 1)
		tcp->check = gw_csum_replace(tcp->check, bpf_htons(old << 8 | old >> 8),
					     bpf_htons((__u16)(limit << 8 | limit >> 8)));
	else
		tcp->check = gw_csum_replace(tcp->check, bpf_htons(old), bpf_htons(limit));
}

/*
 * Keep the MSS of a SYN within what fits. `mtu` is of IP packets. What is not a whole TCP header
 * with sound options is left as it is.
 */
static __always_inline void gw_clamp_mss(struct xdp_md *ctx, struct gw_flow *flow, __u32 mtu)
{
	struct gw_cursor cursor = gw_cursor_at(ctx, flow->l4_offset);
	__u32 headers = (flow->family == 4 ? 20 : 40) + sizeof(struct tcphdr);
	struct tcphdr *tcp = cursor.at;
	__u32 end;

	if (flow->protocol != IPPROTO_TCP || flow->fragment || mtu <= headers ||
	    (void *)(tcp + 1) > cursor.end || !tcp->syn)
		return;
	end = tcp->doff * 4;
	if (end > flow->l4_bytes)
		return;
	flow->option_offset = sizeof(*tcp);
#pragma clang loop unroll(disable)
	for (int i = 0; i < GW_TCP_MAX_OPTIONS; i++) {
		__u32 offset = flow->option_offset;
		struct gw_cursor at_option = gw_cursor_at(ctx, flow->l4_offset + offset);
		__u8 *option = at_option.at;

		/* The shortest option of interest has four octets. */
		if (offset + 4 > end || (void *)(option + 4) > at_option.end ||
		    option[0] == GW_TCP_OPTION_END)
			return;
		if (option[0] == GW_TCP_OPTION_NOP) {
			flow->option_offset++;
			barrier();
			continue;
		}
		if (option[0] == GW_TCP_OPTION_MSS && option[1] == 4) {
			gw_lower_mss(ctx, flow, flow->l4_offset + offset + 2, mtu - headers);
			return;
		}
		if (option[1] < 2)
			return;
		flow->option_offset += option[1];
		barrier();
	}
}

/*
 * Put another link header before the packet: that of the next hop, with its VLAN tag or none.
 * Return 0, or -1 where the frame has no room.
 */
static __always_inline int gw_rewrite_link(struct xdp_md *ctx, const struct gw_flow *flow,
					   const struct gw_next_hop *hop)
{
	int wanted = sizeof(struct ethhdr) + (hop->vlan_id ? sizeof(struct gw_vlan_header) : 0);
	struct gw_cursor cursor;
	struct ethhdr *ethernet;
	__be16 ethertype_be = flow->family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);

	if (wanted != flow->l3_offset && bpf_xdp_adjust_head(ctx, flow->l3_offset - wanted))
		return -1;
	cursor = gw_cursor_at(ctx, 0);
	if (gw_parse_ethernet(&cursor, &ethernet) < 0)
		return -1;
	__builtin_memcpy(ethernet->h_dest, hop->destination_mac, ETH_ALEN);
	__builtin_memcpy(ethernet->h_source, hop->source_mac, ETH_ALEN);
	ethernet->h_proto = ethertype_be;
	if (hop->vlan_id) {
		struct gw_vlan_header *vlan;

		if (gw_parse_vlan(&cursor, &vlan) < 0)
			return -1;
		ethernet->h_proto = bpf_htons(ETH_P_8021Q);
		vlan->tci_be = bpf_htons(hop->vlan_id);
		vlan->ethertype_be = ethertype_be;
	}
	return 0;
}

#endif
