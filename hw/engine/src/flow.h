/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The selectors of one packet, and whether an SA's traffic selectors permit it (RFC 4301 §4.4.1.1,
 * §5.2).
 *
 * For ICMP and the Mobility Header there is one "port": type * 256 + code, and MH type * 256. It is
 * both source and destination port, so that a selector pair may name it on either side.
 */
#ifndef GW_FLOW_H
#define GW_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bytes.h"
#include "gw_drop_reasons.h"

struct gw_selector;

/* An address as a number in two halves; IPv4 in the lower one. */
struct gw_number {
	uint64_t high;
	uint64_t low;
};

static inline struct gw_number gw_number_of(const uint8_t *address, uint8_t family)
{
	if (family == 4)
		return (struct gw_number){.high = 0, .low = gw_load32(address)};
	return (struct gw_number){
		.high = (uint64_t)gw_load32(address) << 32 | gw_load32(address + 4),
		.low = (uint64_t)gw_load32(address + 8) << 32 | gw_load32(address + 12),
	};
}

/* A protocol or port that the packet does not show. */
#define GW_HIDDEN (-1)

struct gw_flow {
	struct gw_number source;
	struct gw_number destination;
	int32_t source_port; /* or GW_HIDDEN */
	int32_t destination_port;
	int16_t protocol; /* of the next layer, or GW_HIDDEN */
	uint8_t family;
	bool is_fragment;       /* part of a datagram, the first part included */
	bool is_first_fragment; /* starts at offset 0; true for a whole one */
	uint32_t transport;     /* where the next layer header starts */
};

struct gw_range {
	struct gw_number start;
	struct gw_number end;
	uint16_t start_port;
	uint16_t end_port;
	uint8_t family;
	uint8_t protocol; /* 0: any */
	uint16_t any_port;
};

/*
 * One pair of IPv4 ranges, each with all protocols and ports: what most tunnels have, and the
 * quickest to compare. Addresses in host order, a range as its start and how far it goes.
 */
struct gw_plain_pair {
	uint32_t source;
	uint32_t source_span;
	uint32_t destination;
	uint32_t destination_span;
	bool is_plain; /* else the selectors are others */
};

/* One on each side is what most SAs have. */
#define GW_NEAR_RANGES 2

struct gw_selector_set {
	struct gw_range *ranges; /* local ones first: `near`, or memory of their own */
	uint16_t local;
	uint16_t remote;
	struct gw_range near[GW_NEAR_RANGES];
};

/**
 * gw_parse_flow() - read the selectors of an IP packet.
 * @packet: from the IP header on.
 * @length: bytes there are.
 * @flow: written whole when the packet is good.
 *
 * Return: GW_DROP_NONE; or MALFORMED, UNSUPPORTED (too many extension headers), FRAGMENT (a first
 * fragment too small to show its ports, RFC 4301 §7).
 */
enum gw_drop_reason gw_parse_flow(const uint8_t *packet, size_t length, struct gw_flow *flow);

/**
 * gw_selectors_init() - copy selectors into the form that packets are compared with.
 * @set: filled in; must stay where it is until gw_selectors_clear.
 * @selectors: local ones first.
 * @local: how many.
 * @remote: how many.
 *
 * Return: false without memory.
 */
bool gw_selectors_init(struct gw_selector_set *set, const struct gw_selector *selectors,
		       uint16_t local, uint16_t remote);

/**
 * gw_selectors_clear() - free what gw_selectors_init allocated.
 * @set: of the SA, or all zero.
 */
void gw_selectors_clear(struct gw_selector_set *set);

/**
 * gw_selectors_permit_inbound() - say whether a packet from the peer's side to ours matches.
 * @set: of the SA.
 * @flow: of the packet.
 */
bool gw_selectors_permit_inbound(const struct gw_selector_set *set, const struct gw_flow *flow);

/**
 * gw_selectors_plain() - say whether selectors are one plain pair, and which.
 * @set: of the SA.
 *
 * Return: the pair, of packets from the peer's side to ours.
 */
struct gw_plain_pair gw_selectors_plain(const struct gw_selector_set *set);

/* Say whether a plain pair permits an IPv4 packet, as gw_selectors_permit_inbound would. */
static inline bool gw_plain_permits(const struct gw_plain_pair *pair, const uint8_t *packet)
{
	return gw_load32(packet + 12) - pair->source <= pair->source_span &&
	       gw_load32(packet + 16) - pair->destination <= pair->destination_span;
}

/**
 * gw_selectors_name() - say whether some selector is for exactly this protocol.
 * @set: of the SA.
 * @protocol: not 0.
 */
bool gw_selectors_name(const struct gw_selector_set *set, uint8_t protocol);

#endif
