/* SPDX-License-Identifier: Apache-2.0 */
#include "flow.h"

#include <stdlib.h>

#include "gw_engine.h"
#include "ip.h"

static bool at_most(const struct gw_number *a, const struct gw_number *b)
{
	return a->high != b->high ? a->high < b->high : a->low <= b->low;
}

/* How many bytes of a protocol's header its "ports" need; 0: it has none. */
static uint32_t port_bytes(int protocol)
{
	switch (protocol) {
	case GW_PROTOCOL_TCP:
	case GW_PROTOCOL_UDP:
	case GW_PROTOCOL_DCCP:
	case GW_PROTOCOL_SCTP:
	case GW_PROTOCOL_UDP_LITE:
		return 4;
	case GW_PROTOCOL_ICMP:
	case GW_PROTOCOL_ICMPV6:
		return 2;
	case GW_PROTOCOL_MOBILITY:
		return 3;
	default:
		return 0;
	}
}

static enum gw_drop_reason parse_ports(const uint8_t *packet, size_t length, struct gw_flow *flow)
{
	uint32_t needed = flow->is_first_fragment ? port_bytes(flow->protocol) : 0;
	const uint8_t *transport = packet + flow->transport;

	flow->source_port = flow->destination_port = GW_HIDDEN;
	if (needed == 0)
		return GW_DROP_NONE;
	if (length < flow->transport + needed)
		return flow->is_fragment ? GW_DROP_FRAGMENT : GW_DROP_MALFORMED;
	if (needed == 4) {
		flow->source_port = gw_load16(transport);
		flow->destination_port = gw_load16(transport + 2);
	} else {
		/* Type and code of ICMP; the type alone of the Mobility Header, its third byte. */
		int32_t port = needed == 2 ? gw_load16(transport) : transport[2] << 8;

		flow->source_port = flow->destination_port = port;
	}
	return GW_DROP_NONE;
}

static enum gw_drop_reason parse_ipv4(const uint8_t *packet, size_t length, struct gw_flow *flow)
{
	uint32_t header = (uint32_t)(packet[0] & 0x0f) * 4;
	uint16_t fragment;

	if (length < GW_IPV4_BYTES || header < GW_IPV4_BYTES || length < header)
		return GW_DROP_MALFORMED;
	fragment = gw_load16(packet + 6) & GW_IPV4_MF_OR_OFFSET;
	flow->family = 4;
	flow->source = gw_number_of(packet + 12, 4);
	flow->destination = gw_number_of(packet + 16, 4);
	flow->protocol = packet[9];
	flow->is_fragment = fragment != 0;
	flow->is_first_fragment = (fragment & 0x1fff) == 0;
	flow->transport = header;
	return parse_ports(packet, length, flow);
}

/* Walk to the next layer protocol; AH and ESP are such protocols (RFC 4301 §4.4.1.1). */
static enum gw_drop_reason walk_extensions(const uint8_t *packet, size_t length,
					   struct gw_flow *flow)
{
	uint32_t offset = GW_IPV6_BYTES;
	uint8_t protocol = packet[6];

	flow->is_fragment = false;
	flow->is_first_fragment = true;
	for (int headers = 0; gw_is_extension(protocol) || protocol == GW_PROTOCOL_FRAGMENT;
	     headers++) {
		uint32_t bytes = 8;

		if (!flow->is_first_fragment) {
			flow->protocol = GW_HIDDEN;
			flow->transport = offset;
			return GW_DROP_NONE;
		}
		if (headers == GW_MAX_EXTENSION_HEADERS)
			return GW_DROP_UNSUPPORTED;
		if (length < offset + 8)
			return GW_DROP_MALFORMED;
		if (protocol == GW_PROTOCOL_FRAGMENT) {
			uint16_t fragment = gw_load16(packet + offset + 2);

			/* An atomic fragment is a whole packet (RFC 6946). */
			flow->is_fragment |= (fragment & 0xfff9) != 0;
			flow->is_first_fragment = (fragment & 0xfff8) == 0;
		} else {
			bytes = ((uint32_t)packet[offset + 1] + 1) * 8;
		}
		protocol = packet[offset];
		offset += bytes;
	}
	flow->protocol = protocol;
	flow->transport = offset;
	return GW_DROP_NONE;
}

static enum gw_drop_reason parse_ipv6(const uint8_t *packet, size_t length, struct gw_flow *flow)
{
	enum gw_drop_reason reason;

	if (length < GW_IPV6_BYTES)
		return GW_DROP_MALFORMED;
	flow->family = 6;
	flow->source = gw_number_of(packet + 8, 6);
	flow->destination = gw_number_of(packet + 24, 6);
	reason = walk_extensions(packet, length, flow);
	return reason != GW_DROP_NONE ? reason : parse_ports(packet, length, flow);
}

enum gw_drop_reason gw_parse_flow(const uint8_t *packet, size_t length, struct gw_flow *flow)
{
	unsigned int version = length ? packet[0] >> 4 : 0;

	if (version == 4)
		return parse_ipv4(packet, length, flow);
	if (version == 6)
		return parse_ipv6(packet, length, flow);
	return GW_DROP_MALFORMED;
}

bool gw_selectors_init(struct gw_selector_set *set, const struct gw_selector *selectors,
		       uint16_t local, uint16_t remote)
{
	size_t count = (size_t)local + remote;

	set->ranges = count <= GW_NEAR_RANGES ? set->near : calloc(count, sizeof(*set->ranges));
	if (!set->ranges)
		return false;
	set->local = local;
	set->remote = remote;
	for (size_t i = 0; i < count; i++) {
		const struct gw_selector *from = &selectors[i];

		set->ranges[i] = (struct gw_range){
			.start = gw_number_of(from->start, from->family),
			.end = gw_number_of(from->end, from->family),
			.start_port = from->start_port,
			.end_port = from->end_port,
			.family = from->family,
			.protocol = from->protocol,
			.any_port = from->start_port == 0 && from->end_port == UINT16_MAX,
		};
	}
	return true;
}

void gw_selectors_clear(struct gw_selector_set *set)
{
	if (set->ranges != set->near)
		free(set->ranges);
	set->ranges = NULL;
}

static bool permits(const struct gw_range *range, const struct gw_flow *flow,
		    const struct gw_number *address, int32_t port)
{
	if (range->family != flow->family || !at_most(&range->start, address) ||
	    !at_most(address, &range->end))
		return false;
	if (range->protocol != 0 && range->protocol != flow->protocol)
		return false;
	if (range->any_port)
		return true;   /* ANY includes OPAQUE (RFC 4301 §4.4.1.1) */
	if (port == GW_HIDDEN) /* OPAQUE is written 65535 to 0 (RFC 7296 §3.13.1) */
		return range->start_port == UINT16_MAX && range->end_port == 0;
	return range->start_port <= port && port <= range->end_port;
}

static bool any_permits(const struct gw_range *ranges, size_t count, const struct gw_flow *flow,
			const struct gw_number *address, int32_t port)
{
	for (size_t i = 0; i < count; i++)
		if (permits(&ranges[i], flow, address, port))
			return true;
	return false;
}

bool gw_selectors_permit_inbound(const struct gw_selector_set *set, const struct gw_flow *flow)
{
	return any_permits(set->ranges + set->local, set->remote, flow, &flow->source,
			   flow->source_port) &&
	       any_permits(set->ranges, set->local, flow, &flow->destination,
			   flow->destination_port);
}

static bool is_plain(const struct gw_range *range)
{
	return range->family == 4 && range->protocol == 0 && range->any_port &&
	       at_most(&range->start, &range->end);
}

struct gw_plain_pair gw_selectors_plain(const struct gw_selector_set *set)
{
	const struct gw_range *local = set->ranges, *remote = local + 1;

	if (set->local != 1 || set->remote != 1 || !is_plain(local) || !is_plain(remote))
		return (struct gw_plain_pair){.is_plain = false};
	return (struct gw_plain_pair){
		.source = (uint32_t)remote->start.low,
		.source_span = (uint32_t)(remote->end.low - remote->start.low),
		.destination = (uint32_t)local->start.low,
		.destination_span = (uint32_t)(local->end.low - local->start.low),
		.is_plain = true,
	};
}

bool gw_selectors_name(const struct gw_selector_set *set, uint8_t protocol)
{
	for (size_t i = 0; i < (size_t)set->local + set->remote; i++)
		if (set->ranges[i].protocol == protocol)
			return true;
	return false;
}
