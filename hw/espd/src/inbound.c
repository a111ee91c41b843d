/* SPDX-License-Identifier: Apache-2.0 */
#include "inbound.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "forward.h"
#include "ip.h"
#include "outbound.h"

#define ETHERNET_BYTES    14u
#define VLAN_BYTES        4u
#define TYPE_VLAN         0x8100u
#define TYPE_SERVICE_VLAN 0x88a8u
#define TYPE_IPV4         0x0800u
#define TYPE_IPV6         0x86ddu
#define BAD_SPIS_A_SECOND 10u

/* --- what it is */

/* Take the Ethernet header off, VLAN tags too. Return whether it is an IP packet for us. */
static bool strip_ethernet(const struct gw_port *port, struct gw_packet *packet)
{
	static const uint8_t none[6];
	uint32_t header = ETHERNET_BYTES;
	uint16_t type;

	if (packet->length < header)
		return false;
	type = gw_load16(packet->data + 12);
	while ((type == TYPE_VLAN || type == TYPE_SERVICE_VLAN) &&
	       packet->length >= header + VLAN_BYTES) {
		type = gw_load16(packet->data + header + 2);
		header += VLAN_BYTES;
	}
	if ((type != TYPE_IPV4 && type != TYPE_IPV6) ||
	    (memcmp(packet->data, port->device.mac, 6) != 0 &&
	     memcmp(port->device.mac, none, 6) != 0))
		return false;
	packet->data += header;
	packet->length -= header;
	packet->headroom = (uint16_t)(packet->headroom + header);
	return true;
}

/* Check the IP header as a router must (RFC 1812 §5.2.2), and cut padding of the link off. */
static bool trim(struct gw_packet *packet, bool from_wire)
{
	const uint8_t *ip = packet->data;
	uint32_t header, length;

	if (packet->length < GW_IPV4_BYTES)
		return false;
	if (ip[0] >> 4 == 4) {
		header = (uint32_t)(ip[0] & 0x0f) * 4;
		length = gw_load16(ip + 2);
		if (header < GW_IPV4_BYTES || length < header || length > packet->length ||
		    (from_wire && gw_fold(gw_sum(ip, header)) != 0xffff))
			return false;
	} else {
		length = GW_IPV6_BYTES;
		if (ip[0] >> 4 != 6 || packet->length < length)
			return false;
		length += gw_load16(ip + 4);
		if (length > packet->length)
			return false;
	}
	packet->tailroom = (uint16_t)(packet->tailroom + packet->length - length);
	packet->length = length;
	return true;
}

/* Find the SPI of a packet that may be ours to open (RFC 3948 §2.2 for UDP). */
static bool find_spi(const struct gw_packet *packet, uint32_t *spi, uint8_t *protocol)
{
	const uint8_t *ip = packet->data;
	uint32_t at = ip[0] >> 4 == 4 ? (uint32_t)(ip[0] & 0x0f) * 4 : GW_IPV6_BYTES;

	*protocol = ip[0] >> 4 == 4 ? ip[9] : ip[6];
	if (GW_UNLIKELY(ip[0] >> 4 == 6 && gw_is_extension(*protocol))) {
		struct gw_flow flow;

		if (gw_parse_flow(ip, packet->length, &flow) != GW_DROP_NONE || flow.protocol < 0)
			return false;
		*protocol = (uint8_t)flow.protocol;
		at = flow.transport;
	}
	if (*protocol == GW_PROTOCOL_UDP) {
		if (packet->length < at + GW_UDP_BYTES + 4 ||
		    gw_load16(ip + at + 2) != GW_UDP_ENCAPSULATION_PORT ||
		    (ip[0] >> 4 == 4 && gw_load16(ip + 6) & GW_IPV4_MF_OR_OFFSET))
			return false;
		*spi = gw_load32(ip + at + GW_UDP_BYTES);
		*protocol = GW_PROTOCOL_ESP;
		return *spi != 0; /* the non-ESP marker: IKE */
	}
	if (*protocol == GW_PROTOCOL_AH)
		at += 4;
	if ((*protocol != GW_PROTOCOL_ESP && *protocol != GW_PROTOCOL_AH) ||
	    packet->length < at + 4)
		return false;
	*spi = gw_load32(ip + at);
	return true;
}

/* --- what is for an SA */

static void tell_bad_spi(struct gw_thread *thread, const struct gw_packet *packet, uint32_t spi,
			 uint8_t protocol)
{
	const uint8_t *ip = packet->data;
	bool is_ipv4 = ip[0] >> 4 == 4;
	union gw_any_event event = {
		.bad_spi =
			{
				.spi = spi,
				.suppressed = thread->bad_spi_limit.suppressed,
				.family = is_ipv4 ? 4 : 6,
				.protocol = protocol,
			},
	};

	if (!gw_limit_allows(&thread->bad_spi_limit, thread->now_ns, BAD_SPIS_A_SECOND))
		return;
	memcpy(event.bad_spi.source, ip + (is_ipv4 ? 12 : 8), is_ipv4 ? 4 : 16);
	memcpy(event.bad_spi.destination, ip + (is_ipv4 ? 16 : 24), is_ipv4 ? 4 : 16);
	if (gw_thread_tell(thread, &event, GW_MESSAGE_EVENT_BAD_SPI, sizeof(event.bad_spi)))
		thread->bad_spi_limit.suppressed = 0;
}

/* Whether ESP in transit could be meant: our addresses are known, and this is none of them. */
static bool is_foreign(const struct gw_thread *thread, const uint8_t *ip)
{
	uint8_t family = ip[0] >> 4;
	const struct gw_routes *routes = thread->tables ? thread->tables->routes : NULL;
	const struct gw_route *route;

	if (!routes || !routes->has_local)
		return false;
	route = gw_routes_match(routes, ip + (family == 4 ? 16 : 24), family);
	return !route || route->kind != GW_ROUTE_LOCAL;
}

void gw_open_later(struct gw_thread *thread, struct gw_packet *packet)
{
	if (thread->open_count == GW_BATCH)
		gw_open_all(thread);
	thread->to_open[thread->open_count++] = *packet;
}

void gw_open_all(struct gw_thread *thread)
{
	uint32_t count = thread->open_count, spi;
	uint8_t protocol;

	thread->open_count = 0;
	if (count == 0)
		return;
	thread->counts.opened +=
		gw_open_burst(thread->engine, thread->to_open, count, thread->now_ns);
	for (uint32_t i = 0; i < count; i++) {
		struct gw_packet *packet = &thread->to_open[i];
		uint32_t index = packet->ref & ~GW_REF_INBOUND;

		if (GW_LIKELY(packet->verdict == GW_DROP_NONE)) {
			gw_deliver(thread, packet,
				   gw_owner_device(gw_owner_of(thread->daemon, index)));
			continue;
		}
		/* The SPI of an SA, but not its protocol or destination (RFC 4301 §4.1). */
		if (packet->verdict == GW_DROP_UNKNOWN_SPI && find_spi(packet, &spi, &protocol))
			tell_bad_spi(thread, packet, spi, protocol);
		gw_thread_forget(thread, packet);
	}
}

/* --- what is in clear */

/* RFC 4301 §5.2: what should have been protected and was not is dropped. */
static bool may_enter(struct gw_thread *thread, const struct gw_packet *packet, uint32_t device,
		      enum gw_drop_reason *reason)
{
	const struct gw_spd_entry *entry;
	struct gw_flow flow;

	*reason = gw_parse_flow(packet->data, packet->length, &flow);
	if (*reason != GW_DROP_NONE)
		return false;
	entry = thread->tables ? gw_spd_inbound(thread->tables->spd, &flow, device) : NULL;
	if (!entry || entry->action == GW_POLICY_BYPASS)
		return true;
	*reason =
		entry->action == GW_POLICY_PROTECT ? GW_DROP_CLEAR_INBOUND : GW_DROP_POLICY_DISCARD;
	return false;
}

static void clear_inbound(struct gw_thread *thread, struct gw_port *port, struct gw_packet *packet)
{
	enum gw_drop_reason reason;

	/* It came along with what is ours: the kernel has it, and its guard. */
	if (!gw_port_takes(port) &&
	    !(port->device.flags & (GW_DEVICE_CLEAR | GW_DEVICE_ALL_FRAMES))) {
		gw_thread_forget(thread, packet);
		return;
	}
	if (!may_enter(thread, packet, port->device.device, &reason))
		gw_thread_drop(thread, packet, reason);
	else if (port->device.flags & GW_DEVICE_CLEAR)
		gw_outbound(thread, port, packet);
	else if (gw_port_takes(port))
		gw_deliver(thread, packet, 0);
	else
		gw_thread_forget(thread, packet);
}

static void unknown_spi(struct gw_thread *thread, struct gw_port *port, struct gw_packet *packet,
			uint32_t spi, uint8_t protocol)
{
	if (is_foreign(thread, packet->data)) {
		clear_inbound(thread, port, packet);
		return;
	}
	tell_bad_spi(thread, packet, spi, protocol);
	gw_thread_drop(thread, packet, GW_DROP_UNKNOWN_SPI);
}

/* --- fragments of IPv6 */

/* Whether a fragment may be of a packet that is protected. What is taken from the kernel is none: XDP
 * leaves fragments there, and others' would be in transit. */
static bool is_protected_fragment(const struct gw_port *port, const struct gw_packet *packet)
{
	const uint8_t *ip = packet->data;
	uint8_t protocol;

	if (!gw_is_fragment6(ip) || packet->length <= GW_IPV6_BYTES || gw_port_takes(port))
		return false;
	protocol = ip[GW_IPV6_BYTES];
	return protocol == GW_PROTOCOL_ESP || protocol == GW_PROTOCOL_AH ||
	       protocol == GW_PROTOCOL_UDP;
}

/* Put it together with others. Return false where that is all that is to be done with it now. */
static bool put_together(struct gw_thread *thread, struct gw_packet *packet)
{
	struct gw_pool *pool = &thread->pool;
	uint32_t frame = gw_pool_take(pool), length = 0, lost = 0;
	enum gw_fragment_fate fate = GW_FRAGMENT_REFUSED;
	struct gw_packet whole;

	if (!thread->reassembly)
		thread->reassembly = calloc(1, sizeof(*thread->reassembly));
	if (frame != GW_NO_FRAME && thread->reassembly)
		fate = gw_reassemble(thread->reassembly, packet->data, packet->length,
				     thread->now_ns, gw_frame_start(pool, frame) + GW_FRAME_DATA,
				     gw_frame_room(pool), &length, &lost);
	thread->counts.drops[GW_DROP_FRAGMENT] += lost;
	if (fate == GW_FRAGMENT_WHOLE) {
		gw_frame_describe(pool, frame, GW_FRAME_DATA, length, &whole);
		whole.reserved = packet->reserved;
		gw_thread_forget(thread, packet);
		*packet = whole;
		return true;
	}
	if (frame != GW_NO_FRAME)
		gw_pool_return(pool, frame);
	if (fate == GW_FRAGMENT_REFUSED)
		gw_thread_drop(thread, packet, GW_DROP_FRAGMENT);
	else
		gw_thread_forget(thread, packet);
	return false;
}

/* --- one packet */

void gw_receive(struct gw_thread *thread, struct gw_port *port, struct gw_packet *packet)
{
	bool is_ethernet = port->receiver->method->layer == GW_LAYER_ETHERNET;
	uint32_t spi;
	uint8_t protocol;
	uint64_t owner;

	if (is_ethernet && !strip_ethernet(port, packet)) {
		gw_thread_drop(thread, packet, GW_DROP_UNSUPPORTED);
		return;
	}
	if (GW_UNLIKELY(!trim(packet, is_ethernet))) {
		gw_thread_drop(thread, packet, GW_DROP_MALFORMED);
		return;
	}
	if (!(port->device.flags & GW_DEVICE_PROTECTED)) {
		gw_outbound(thread, port, packet);
		return;
	}
	if (GW_UNLIKELY(is_protected_fragment(port, packet)) && !put_together(thread, packet))
		return;
	if (!find_spi(packet, &spi, &protocol)) {
		clear_inbound(thread, port, packet);
		return;
	}
	owner = gw_owner_of(thread->daemon, spi);
	if (GW_UNLIKELY(gw_owner_spi(owner) != spi || owner == 0))
		unknown_spi(thread, port, packet, spi, protocol);
	else if (gw_owner_worker(owner) != thread->number)
		gw_hand_over(thread, packet, (uint16_t)gw_owner_worker(owner), 0, true);
	else
		gw_open_later(thread, packet);
}
