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
#define IPV6_MIN_MTU   1280u

/* Whether a packet has business beyond the link that it came from only as the kernel says:
 * multicast and limited broadcast (RFC 1812 §5.3.5), link-local addresses (RFC 4007 §9). */
static bool is_link_scoped(const uint8_t *ip)
{
	if (ip[0] >> 4 == 4)
		return ip[16] >= 224 || (ip[16] == 169 && ip[17] == 254);
	return ip[24] == 0xff || (ip[24] == 0xfe && (ip[25] & 0xc0) == 0x80) ||
	       (ip[8] == 0xfe && (ip[9] & 0xc0) == 0x80);
}

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
	if (!thread->tables || is_link_scoped(ip))
		return &none;
	cached->generation = thread->generation;
	cached->family = family;
	memcpy(cached->address, address, bytes);
	cached->hop =
		gw_find_hop(thread->tables->routes, thread->tables->neighbours, address, family);
	return &cached->hop;
}

/* The port of a wire to a next hop, or NULL where the kernel knows better: into a TUN device, by
 * which packets come to us, nothing is sent on. */
static struct gw_port *port_to(struct gw_thread *thread, const struct gw_next_hop *hop)
{
	struct gw_port *port;

	if (hop->kind != GW_ROUTE_FORWARD || !hop->is_resolved)
		return NULL;
	port = thread->by_device[hop->device];
	return port && gw_port_sends_ethernet(port) ? port : NULL;
}

/* Whether a packet in clear may leave by a port: to the peers only what the SPD lets pass, and from an
 * interface that is to both sides also what it has no entry for. */
static bool may_leave(struct gw_thread *thread, const struct gw_port *port,
		      const struct gw_packet *packet)
{
	struct gw_flow flow;
	uint8_t verdict;

	if (!(port->device.flags & GW_DEVICE_PROTECTED))
		return true;
	if (gw_parse_flow(packet->data, packet->length, &flow) != GW_DROP_NONE)
		return false;
	verdict = gw_decide(thread, &flow, 0).verdict;
	return verdict == GW_VERDICT_BYPASS ||
	       (verdict == GW_VERDICT_NO_ENTRY && port->device.flags & GW_DEVICE_CLEAR);
}

bool gw_may_leave(struct gw_thread *thread, const struct gw_packet *packet)
{
	const struct gw_port *port = port_to(thread, next_hop(thread, packet->data));

	return !port || may_leave(thread, port, packet);
}

static void send_to(struct gw_thread *thread, struct gw_port *port, const struct gw_next_hop *hop,
		    struct gw_packet *packet)
{
	bool is_ipv4 = packet->data[0] >> 4 == 4;

	packet->data -= ETHERNET_BYTES;
	packet->length += ETHERNET_BYTES;
	packet->headroom = (uint16_t)(packet->headroom - ETHERNET_BYTES);
	memcpy(packet->data, hop->mac, MAC_BYTES);
	memcpy(packet->data + MAC_BYTES, port->device.mac, MAC_BYTES);
	gw_store16(packet->data + 2 * MAC_BYTES, is_ipv4 ? TYPE_IPV4 : TYPE_IPV6);
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
	if (port)
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
			gw_icmp_to_peer(thread, packet, GW_ICMP_TOO_BIG, mtu, hop->device,
					packet->reserved);
			gw_thread_drop(thread, packet, GW_DROP_TOO_BIG);
			return;
		}
		gw_frame_describe(&thread->pool, frame, GW_FRAME_DATA, (uint32_t)length, &piece);
		send_to(thread, port, hop, &piece);
	} while (offset);
	gw_thread_forget(thread, packet);
}

/* Give a packet to the kernel: out of the tunnel device that it belongs to, or out of ours. */
static void to_kernel(struct gw_thread *thread, struct gw_packet *packet, uint32_t device)
{
	thread->counts.slow_path++;
	gw_port_send(thread, device ? thread->by_device[device] : thread->slow_path, packet);
}

/* Whether the tables here say where packets of a tunnel device's SAs go; 0: of no such device. */
static bool is_routed(const struct gw_thread *thread, uint32_t device)
{
	const struct gw_port *port = thread->by_device[device];

	return device == 0 || (port && port->device.flags & GW_DEVICE_ROUTED);
}

static bool is_tunnel(const struct gw_thread *thread, const struct gw_next_hop *hop)
{
	const struct gw_port *port = thread->by_device[hop->device];

	return hop->kind == GW_ROUTE_FORWARD && port && port->device.flags & GW_DEVICE_TUNNEL;
}

/* Whether the SA that was decided on takes a packet as it is, so that nobody must be told. */
static bool is_carried(const struct gw_thread *thread, const struct gw_decision *decision,
		       uint32_t length)
{
	uint32_t mtu = IPV6_MIN_MTU; /* what another thread's SA takes for sure */

	if (decision->verdict != GW_VERDICT_SEAL)
		return false;
	if (decision->worker == thread->number)
		mtu = thread->mtus[decision->ref];
	return mtu == 0 || length <= mtu;
}

/* Seal what came out of one tunnel for another, to whose device the route leads. Return false where
 * the kernel must see it: without an SA, or too big, of which the device's MTU tells. */
static bool into_tunnel(struct gw_thread *thread, struct gw_packet *packet, uint32_t device)
{
	struct gw_decision decision;
	struct gw_flow flow;

	if (gw_parse_flow(packet->data, packet->length, &flow) != GW_DROP_NONE)
		return false;
	decision = gw_decide(thread, &flow, device);
	if (!is_carried(thread, &decision, packet->length) || !gw_count_hop(packet))
		return false;
	thread->counts.forwarded++;
	packet->reserved = (uint16_t)device;
	gw_seal_by(thread, packet, &decision);
	return true;
}

void gw_deliver(struct gw_thread *thread, struct gw_packet *packet, uint32_t device)
{
	struct gw_next_hop hop = {.kind = GW_ROUTE_UNSPECIFIED};
	struct gw_port *port;
	uint32_t mtu;

	packet->reserved = (uint16_t)device;
	if (gw_may_be_syn(packet->data, packet->length))
		clamp_by_answer(thread, packet, device);
	if (is_routed(thread, device))
		hop = *next_hop(thread, packet->data);
	if (is_tunnel(thread, &hop) && into_tunnel(thread, packet, hop.device))
		return;
	port = port_to(thread, &hop);
	if (!port || !may_leave(thread, port, packet)) {
		to_kernel(thread, packet, device);
		return;
	}
	if (!gw_count_hop(packet)) {
		gw_icmp_to_peer(thread, packet, GW_ICMP_TIME_EXCEEDED, 0, hop.device, device);
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
