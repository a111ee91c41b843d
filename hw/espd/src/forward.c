/* SPDX-License-Identifier: Apache-2.0 */
#include "forward.h"

#include <string.h>

#include "bytes.h"
#include "icmp.h"
#include "ip.h"
#include "mss.h"
#include "outbound.h"

#define ETHERNET_BYTES 14u
#define MAC_BYTES      6u
#define TYPE_IPV4      0x0800u
#define TYPE_IPV6      0x86ddu

/* Look up a destination, in what this thread has found before. */
static const struct gw_next_hop *next_hop(struct gw_thread *thread, const uint8_t *ip)
{
	static const struct gw_next_hop none;
	uint8_t family = ip[0] >> 4;
	size_t bytes = family == 4 ? 4 : 16;
	const uint8_t *address = ip + (family == 4 ? 16 : 24);
	uint32_t hash = gw_load32(address + bytes - 4) * 2654435761u;
	struct gw_cached_hop *cached = &thread->hops[hash >> 24];

	static_assert(GW_CACHED_HOPS == 256, "eight bits of the hash");
	if (cached->generation == thread->generation && cached->family == family &&
	    memcmp(cached->address, address, bytes) == 0)
		return &cached->hop;
	if (!thread->tables)
		return &none;
	cached->generation = thread->generation;
	cached->family = family;
	memcpy(cached->address, address, bytes);
	cached->hop = gw_routes_find(&thread->tables->routes, address, family);
	return &cached->hop;
}

/* The port to a next hop, or NULL where the kernel knows better. */
static struct gw_port *port_to(struct gw_thread *thread, const struct gw_next_hop *hop)
{
	struct gw_port *port;

	if (hop->kind != GW_ROUTE_FORWARD)
		return NULL;
	port = thread->by_device[hop->device];
	if (!port || !port->sender || (gw_port_sends_ethernet(port) && !hop->is_resolved))
		return NULL;
	return port;
}

static void send_to(struct gw_thread *thread, struct gw_port *port, const struct gw_next_hop *hop,
		    struct gw_packet *packet)
{
	if (gw_port_sends_ethernet(port)) {
		bool is_ipv4 = packet->data[0] >> 4 == 4;

		packet->data -= ETHERNET_BYTES;
		packet->length += ETHERNET_BYTES;
		packet->headroom = (uint16_t)(packet->headroom - ETHERNET_BYTES);
		memcpy(packet->data, hop->mac, MAC_BYTES);
		memcpy(packet->data + MAC_BYTES, port->device.mac, MAC_BYTES);
		gw_store16(packet->data + 2 * MAC_BYTES, is_ipv4 ? TYPE_IPV4 : TYPE_IPV6);
	}
	gw_port_send(thread, port, packet);
}

void gw_send_protected(struct gw_thread *thread, struct gw_packet *packet)
{
	const struct gw_next_hop *hop = next_hop(thread, packet->data);
	struct gw_port *port = port_to(thread, hop);

	if (port)
		send_to(thread, port, hop, packet);
	else
		gw_port_send(thread, thread->fallback, packet);
}

void gw_send_clear(struct gw_thread *thread, struct gw_packet *packet)
{
	const struct gw_next_hop *hop = next_hop(thread, packet->data);
	struct gw_port *port = port_to(thread, hop);

	packet->flags |= GW_PACKET_CLEAR;
	/* Into a TUN device it would come back. */
	if (port && gw_port_sends_ethernet(port))
		send_to(thread, port, hop, packet);
	else
		gw_port_send(thread, thread->fallback, packet);
}

bool gw_count_hop(struct gw_packet *packet)
{
	uint8_t *ip = packet->data;
	bool is_ipv4 = ip[0] >> 4 == 4;
	uint8_t *ttl = ip + (is_ipv4 ? 8 : 7);
	uint16_t before;

	if (*ttl <= 1)
		return false;
	before = gw_load16(ip + 8);
	--*ttl;
	if (is_ipv4)
		gw_store16(ip + 10,
			   gw_update_checksum(gw_load16(ip + 10), before, gw_load16(ip + 8)));
	return true;
}

/* Lower the MSS of a peer's SYN to what fits on the way back. */
static void clamp_by_answer(struct gw_thread *thread, struct gw_packet *packet, uint32_t device)
{
	struct gw_decision decision;
	struct gw_flow flow, answer;

	if (gw_parse_flow(packet->data, packet->length, &flow) != GW_DROP_NONE)
		return;
	answer = gw_flow_reversed(&flow);
	decision = gw_decide(thread, &answer, device);
	/* Another thread's SA has its MTU there; that thread clamps what it sends itself. */
	if (decision.verdict == GW_VERDICT_SEAL && decision.worker == thread->number &&
	    thread->mtus[decision.ref])
		gw_clamp_mss(packet->data, packet->length, thread->mtus[decision.ref]);
}

/* Send a packet that does not fit in pieces, or say so. */
static void too_big(struct gw_thread *thread, struct gw_port *port, const struct gw_next_hop *hop,
		    struct gw_packet *packet, uint32_t mtu)
{
	size_t offset = 0;

	do {
		uint32_t frame = gw_pool_take(&thread->pool);
		struct gw_packet piece;
		size_t length = 0;

		if (frame != GW_NO_FRAME)
			length = gw_fragment(packet->data, packet->length, mtu, &offset,
					     gw_frame_start(&thread->pool, frame) + GW_FRAME_DATA,
					     gw_frame_room(&thread->pool));
		if (length == 0) {
			if (frame != GW_NO_FRAME)
				gw_pool_return(&thread->pool, frame);
			gw_icmp_to_peer(thread, packet, GW_ICMP_TOO_BIG, mtu, hop->device);
			gw_thread_drop(thread, packet, GW_DROP_TOO_BIG);
			return;
		}
		gw_frame_describe(&thread->pool, frame, GW_FRAME_DATA, (uint32_t)length, &piece);
		send_to(thread, port, hop, &piece);
	} while (offset);
	gw_thread_forget(thread, packet);
}

static void to_kernel(struct gw_thread *thread, struct gw_packet *packet)
{
	thread->counts.slow_path++;
	gw_port_send(thread, thread->slow_path, packet);
}

void gw_deliver(struct gw_thread *thread, struct gw_packet *packet, uint32_t device)
{
	struct gw_next_hop hop = {.kind = GW_ROUTE_FORWARD, .device = device};
	struct gw_port *port;
	uint32_t mtu;

	if (gw_may_be_syn(packet->data, packet->length))
		clamp_by_answer(thread, packet, device);
	if (device) {
		/* The kernel behind a tunnel device of its own routes on. */
		thread->counts.slow_path++;
		gw_port_send(thread, thread->by_device[device], packet);
		return;
	}
	hop = *next_hop(thread, packet->data);
	port = port_to(thread, &hop);
	if (!port || !gw_port_sends_ethernet(port)) {
		to_kernel(thread, packet);
		return;
	}
	if (!gw_count_hop(packet)) {
		gw_icmp_to_peer(thread, packet, GW_ICMP_TIME_EXCEEDED, 0, hop.device);
		gw_thread_drop(thread, packet, GW_DROP_TTL_EXPIRED);
		return;
	}
	thread->counts.forwarded++;
	mtu = hop.mtu ? hop.mtu : port->device.mtu;
	if (mtu && packet->length > mtu)
		too_big(thread, port, &hop, packet, mtu);
	else
		send_to(thread, port, &hop, packet);
}
