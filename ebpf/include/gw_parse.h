/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Parsers of headers over a cursor. Each checks that its header is whole, steps over it and returns
 * the number of the next one, or -1; none has another effect. gw_parse_frame() puts them together
 * into what the SPD wants to know.
 */
#ifndef GW_PARSE_H
#define GW_PARSE_H

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gw_abi.h"

#define GW_MAX_VLANS      2
#define GW_MAX_EXTENSIONS 10 /* as gateway/esp/flow.py; RFC 8883 section 1 allows such a limit */
/* All bits that the offset of the next layer header can have: 14 + 8 + 40 + GW_MAX_EXTENSIONS *
 * 2048 is below. */
#define GW_MAX_L4_OFFSET 0x7fff

#define GW_PORT_IKE   500
#define GW_PORT_NAT_T 4500

#ifndef barrier
#define barrier() asm volatile("" ::: "memory")
#endif

#define GW_PROTOCOL_HIDDEN 256 /* a fragment that does not show its protocol */

/* A place in a frame. `at` never passes `end` without a check. */
struct gw_cursor {
	void *at;
	void *end;
};

struct gw_vlan_header {
	__be16 tci_be;
	__be16 ethertype_be;
};

struct gw_extension_header {
	__u8 next_header;
	__u8 length; /* of AH in words of 4 less 2, of others in words of 8 less 1 */
	__be16 fragment_be;
};

struct gw_esp_header {
	__be32 spi_be;
	__be32 sequence_be;
};

struct gw_ah_header {
	__u8 next_header;
	__u8 length;
	__be16 reserved_be;
	__be32 spi_be;
	__be32 sequence_be;
};

/* RFC 7296 section 3.1 */
struct gw_ike_header {
	__be32 initiator_spi_be[2];
	__be32 responder_spi_be[2];
	__u8 next_payload;
	__u8 version;
	__u8 exchange_type;
	__u8 flags;
	__be32 message_id_be;
	__be32 length_be;
};

_Static_assert(sizeof(struct gw_ike_header) == 28, "RFC 7296 section 3.1");
_Static_assert(sizeof(struct gw_ah_header) == 12, "RFC 4302 section 2.2");

#define GW_IKE_FLAG_RESPONSE 0x20

enum gw_fragment {
	GW_FRAGMENT_WHOLE,
	GW_FRAGMENT_FIRST,
	GW_FRAGMENT_LATER,
};

/* What a frame says of itself: the selectors of RFC 4301 section 4.4.1.1, and where its headers
 * are. */
struct gw_flow {
	union gw_address source;
	union gw_address destination;
	__u16 protocol; /* the next layer protocol, or GW_PROTOCOL_HIDDEN */
	__u16 source_port;
	__u16 destination_port; /* of ICMP and the Mobility Header both are type * 256 + code */
	__u16 l3_offset;
	__u16 l4_offset;
	__u32 l3_bytes;      /* of the IP packet, as its header says */
	__u32 l4_bytes;      /* from the next layer header on */
	__u16 vlan_id;       /* of the outer tag, 0 without */
	__u16 option_offset; /* in TCP's header, while gw_clamp_mss() walks over its options */
	__u8 family;         /* 4 or 6; 0: not IP */
	__u8 vlans;
	__u8 fragment; /* enum gw_fragment */
	__u8 has_ports;
	__u8 has_options; /* of IPv4, or a hop-by-hop header */
	__u8 ttl;
};

/*
 * The flow of the packet that this CPU works on. In a map, and not on the stack, because the
 * verifier forgets what it knows about values there: else it would follow each way through the
 * parsers separately through all that comes after.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct gw_flow);
	__uint(max_entries, 1);
} gw_flows SEC(".maps");

/* Return a flow that is zero, or NULL, which cannot happen. */
static __always_inline struct gw_flow *gw_new_flow(void)
{
	__u32 key = 0;
	struct gw_flow *flow = bpf_map_lookup_elem(&gw_flows, &key);

	if (flow)
		__builtin_memset(flow, 0, sizeof(*flow));
	return flow;
}

/*
 * Return the cursor at an offset of the frame. The pointers are hidden from the compiler, which
 * knows that the context has them as 32-bit numbers: else it may keep and add them so, and then the
 * verifier does not take them for pointers.
 */
static __always_inline struct gw_cursor gw_cursor_at(struct xdp_md *ctx, __u32 offset)
{
	void *start = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct gw_cursor cursor;

	asm volatile("" : "+r"(start), "+r"(end));
	cursor.at = start + (offset & GW_MAX_L4_OFFSET);
	cursor.end = end;
	return cursor;
}

static __always_inline long gw_frame_bytes(struct xdp_md *ctx)
{
	struct gw_cursor cursor = gw_cursor_at(ctx, 0);
	long bytes = cursor.end - cursor.at;

	asm volatile("" : "+r"(bytes)); /* as above: not to be calculated in 32 bits */
	return bytes;
}

/* Return the ethertype behind the MAC addresses, in host order. */
static __always_inline int gw_parse_ethernet(struct gw_cursor *cursor, struct ethhdr **ethernet)
{
	*ethernet = cursor->at;
	if ((void *)(*ethernet + 1) > cursor->end)
		return -1;
	cursor->at = *ethernet + 1;
	return bpf_ntohs((*ethernet)->h_proto);
}

/* Return the ethertype behind a tag (IEEE 802.1Q). */
static __always_inline int gw_parse_vlan(struct gw_cursor *cursor, struct gw_vlan_header **vlan)
{
	*vlan = cursor->at;
	if ((void *)(*vlan + 1) > cursor->end)
		return -1;
	cursor->at = *vlan + 1;
	return bpf_ntohs((*vlan)->ethertype_be);
}

/* Return the protocol of an IPv4 packet (RFC 791 section 3.1) and step over its options. */
static __always_inline int gw_parse_ipv4(struct gw_cursor *cursor, struct iphdr **header)
{
	struct iphdr *ip = cursor->at;
	__u32 header_bytes;

	*header = ip;
	if ((void *)(ip + 1) > cursor->end)
		return -1;
	header_bytes = ip->ihl * 4;
	if (ip->version != 4 || header_bytes < sizeof(*ip) ||
	    bpf_ntohs(ip->tot_len) < header_bytes || cursor->at + header_bytes > cursor->end)
		return -1;
	cursor->at += header_bytes;
	return ip->protocol;
}

/* Return the first next header of an IPv6 packet (RFC 8200 section 3). */
static __always_inline int gw_parse_ipv6(struct gw_cursor *cursor, struct ipv6hdr **header)
{
	*header = cursor->at;
	if ((void *)(*header + 1) > cursor->end || (*header)->version != 6)
		return -1;
	cursor->at = *header + 1;
	return (*header)->nexthdr;
}

/* Return what follows an extension header (RFC 8200 section 4), a Fragment header among them. */
static __always_inline int gw_parse_extension(struct gw_cursor *cursor, int kind,
					      struct gw_extension_header **extension)
{
	struct gw_extension_header *header = cursor->at;
	__u32 bytes;

	*extension = header;
	if ((void *)(header + 1) > cursor->end)
		return -1;
	bytes = kind == IPPROTO_FRAGMENT ? 8 : (header->length + 1) * 8;
	if (cursor->at + bytes > cursor->end)
		return -1;
	cursor->at += bytes;
	return header->next_header;
}

/* Return the destination port, and step over the header (RFC 768). */
static __always_inline int gw_parse_udp(struct gw_cursor *cursor, struct udphdr **udp)
{
	*udp = cursor->at;
	if ((void *)(*udp + 1) > cursor->end)
		return -1;
	cursor->at = *udp + 1;
	return bpf_ntohs((*udp)->dest);
}

/* Return 0; behind ESP's header all is ciphertext (RFC 4303 section 2). */
static __always_inline int gw_parse_esp(struct gw_cursor *cursor, struct gw_esp_header **esp)
{
	*esp = cursor->at;
	if ((void *)(*esp + 1) > cursor->end)
		return -1;
	cursor->at = *esp + 1;
	return 0;
}

/* Return the next header of AH, and step over its fixed part (RFC 4302 section 2). */
static __always_inline int gw_parse_ah(struct gw_cursor *cursor, struct gw_ah_header **ah)
{
	*ah = cursor->at;
	if ((void *)(*ah + 1) > cursor->end)
		return -1;
	cursor->at = *ah + 1;
	return (*ah)->next_header;
}

/* Return the exchange type of an IKE message (RFC 7296 section 3.1). */
static __always_inline int gw_parse_ike(struct gw_cursor *cursor, struct gw_ike_header **ike)
{
	*ike = cursor->at;
	if ((void *)(*ike + 1) > cursor->end)
		return -1;
	cursor->at = *ike + 1;
	return (*ike)->exchange_type;
}

static __always_inline int gw_is_vlan(int ethertype)
{
	return ethertype == ETH_P_8021Q || ethertype == ETH_P_8021AD;
}

static __always_inline int gw_is_extension(int protocol)
{
	return protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING ||
	       protocol == IPPROTO_FRAGMENT || protocol == IPPROTO_DSTOPTS;
}

static __always_inline void gw_map_ipv4(union gw_address *address, __be32 ipv4_be)
{
	address->words_be[0] = 0;
	address->words_be[1] = 0;
	address->words_be[2] = bpf_htonl(0xffff);
	address->words_be[3] = ipv4_be;
}

static __always_inline int gw_same_address(const union gw_address *one,
					   const union gw_address *other)
{
	return one->halves[0] == other->halves[0] && one->halves[1] == other->halves[1];
}

/* Read the IPv4 header into `flow`; return 0, or the drop reason. */
static __always_inline int gw_flow_ipv4(struct gw_cursor *cursor, struct gw_flow *flow)
{
	struct iphdr *ip;
	__u32 fragment;
	int protocol = gw_parse_ipv4(cursor, &ip);

	if (protocol < 0)
		return GW_DROP_MALFORMED;
	gw_map_ipv4(&flow->source, ip->saddr);
	gw_map_ipv4(&flow->destination, ip->daddr);
	fragment = bpf_ntohs(ip->frag_off) & 0x3fff;
	if (fragment)
		flow->fragment = fragment & 0x1fff ? GW_FRAGMENT_LATER : GW_FRAGMENT_FIRST;
	flow->protocol = protocol;
	flow->l3_bytes = bpf_ntohs(ip->tot_len);
	flow->l4_offset = flow->l3_offset + ip->ihl * 4;
	flow->l4_bytes = flow->l3_bytes - ip->ihl * 4;
	flow->has_options = ip->ihl != 5;
	flow->ttl = ip->ttl;
	return 0;
}

/* Note what an extension header says of the whole packet. */
static __always_inline void gw_note_extension(struct gw_flow *flow, int kind,
					      const struct gw_extension_header *extension)
{
	if (kind == IPPROTO_HOPOPTS)
		flow->has_options = 1;
	if (kind == IPPROTO_FRAGMENT) {
		__u32 fragment = bpf_ntohs(extension->fragment_be);

		/* Offset 0 and no more to come is a whole packet (RFC 6946). */
		if (fragment & 0xfff8)
			flow->fragment = GW_FRAGMENT_LATER;
		else if (fragment & 1)
			flow->fragment = GW_FRAGMENT_FIRST;
	}
}

/*
 * Step over the extension headers, of which each round begins with numbers from the map: the next
 * header and its place. Return 0, or the drop reason.
 */
static __always_inline int gw_flow_extensions(struct xdp_md *ctx, struct gw_flow *flow)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < GW_MAX_EXTENSIONS; i++) {
		struct gw_extension_header *extension;
		struct gw_cursor cursor;
		void *start;
		int kind, next;

		barrier();
		kind = flow->protocol;
		if (!gw_is_extension(kind) || flow->fragment == GW_FRAGMENT_LATER)
			break;
		cursor = gw_cursor_at(ctx, flow->l4_offset);
		start = cursor.at;
		next = gw_parse_extension(&cursor, kind, &extension);
		if (next < 0)
			return GW_DROP_MALFORMED;
		gw_note_extension(flow, kind, extension);
		flow->protocol = next;
		flow->l4_offset += cursor.at - start;
	}
	barrier();
	if (!gw_is_extension(flow->protocol))
		return 0;
	if (flow->fragment != GW_FRAGMENT_LATER)
		return GW_DROP_UNSUPPORTED;
	flow->protocol = GW_PROTOCOL_HIDDEN;
	return 0;
}

/* Read the IPv6 header and its extension headers into `flow`; return 0, or the drop reason. */
static __always_inline int gw_flow_ipv6(struct xdp_md *ctx, struct gw_cursor *cursor,
					struct gw_flow *flow)
{
	struct ipv6hdr *ip;
	int protocol = gw_parse_ipv6(cursor, &ip);
	int reason;

	if (protocol < 0)
		return GW_DROP_MALFORMED;
	__builtin_memcpy(&flow->source, &ip->saddr, 16);
	__builtin_memcpy(&flow->destination, &ip->daddr, 16);
	flow->ttl = ip->hop_limit;
	flow->protocol = protocol;
	flow->l3_bytes = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	flow->l4_offset = flow->l3_offset + sizeof(*ip);
	reason = gw_flow_extensions(ctx, flow);
	if (reason)
		return reason;
	flow->l4_bytes = flow->l3_bytes - (flow->l4_offset - flow->l3_offset);
	return flow->l4_offset - flow->l3_offset > flow->l3_bytes ? GW_DROP_MALFORMED : 0;
}

/* What stands where ports are, in the next layer header. */
struct gw_ports_header {
	__be16 source_be; /* of ICMP: type and code */
	__be16 destination_be;
};

static __always_inline int gw_has_two_ports(int protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_DCCP ||
	       protocol == IPPROTO_SCTP || protocol == IPPROTO_UDPLITE;
}

static __always_inline int gw_is_icmp(int protocol)
{
	return protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6;
}

/* Read the ports of the next layer into `flow`, where it has some; return 0, or the drop reason. */
static __always_inline int gw_flow_ports(struct gw_cursor *cursor, struct gw_flow *flow)
{
	struct gw_ports_header *ports = cursor->at;
	int protocol = flow->protocol;

	if (flow->fragment == GW_FRAGMENT_LATER ||
	    !(gw_has_two_ports(protocol) || gw_is_icmp(protocol) || protocol == IPPROTO_MH))
		return 0;
	/* The shortest of these headers has four octets, ICMP's included. */
	if (flow->l4_bytes < sizeof(*ports) || (void *)(ports + 1) > cursor->end)
		return flow->fragment ? GW_DROP_FRAGMENT : GW_DROP_MALFORMED;
	flow->has_ports = 1;
	flow->source_port = bpf_ntohs(ports->source_be);
	flow->destination_port = flow->source_port;
	if (gw_has_two_ports(protocol)) {
		flow->destination_port = bpf_ntohs(ports->destination_be);
	} else if (protocol == IPPROTO_MH) {
		flow->source_port = bpf_ntohs(ports->destination_be) & 0xff00;
		flow->destination_port = flow->source_port;
	}
	return 0;
}

/* Read link and IP headers, and find the next layer's; return 0 or the drop reason. */
static __always_inline int gw_flow_headers(struct xdp_md *ctx, struct gw_flow *flow)
{
	struct gw_cursor cursor = gw_cursor_at(ctx, 0);
	struct ethhdr *ethernet;
	int ethertype = gw_parse_ethernet(&cursor, &ethernet);

	flow->l3_offset = sizeof(*ethernet);
#pragma clang loop unroll(full)
	for (int i = 0; i < GW_MAX_VLANS; i++) {
		struct gw_vlan_header *vlan;

		if (!gw_is_vlan(ethertype))
			break;
		ethertype = gw_parse_vlan(&cursor, &vlan);
		if (ethertype < 0)
			return GW_DROP_MALFORMED;
		if (!flow->vlans++)
			flow->vlan_id = bpf_ntohs(vlan->tci_be) & 0xfff;
		flow->l3_offset += sizeof(*vlan);
	}
	if (ethertype < 0 || gw_is_vlan(ethertype))
		return ethertype < 0 ? GW_DROP_MALFORMED : GW_DROP_UNSUPPORTED;
	if (ethertype == ETH_P_IP) {
		flow->family = 4;
		return gw_flow_ipv4(&cursor, flow);
	}
	if (ethertype == ETH_P_IPV6) {
		flow->family = 6;
		return gw_flow_ipv6(ctx, &cursor, flow);
	}
	return 0;
}

/*
 * Read a frame into `flow`, which is zero and in a map. Return 0, also for a frame that is not IP
 * (family 0), or the drop reason; and leave the cursor at the next layer header.
 *
 * The place of that header is kept as a number in the map and made a pointer again: however many
 * ways lead through the headers before it, the verifier goes on from here once.
 */
static __always_inline int gw_parse_frame(struct xdp_md *ctx, struct gw_cursor *cursor,
					  struct gw_flow *flow)
{
	int reason = gw_flow_headers(ctx, flow);

	barrier();
	*cursor = gw_cursor_at(ctx, flow->l4_offset);
	if (reason || !flow->family)
		return reason;
	if (flow->l3_offset + flow->l3_bytes > gw_frame_bytes(ctx))
		return GW_DROP_MALFORMED;
	reason = gw_flow_ports(cursor, flow);
	barrier();
	return reason;
}

#endif
