/* SPDX-License-Identifier: Apache-2.0 */
#include "icmp.h"

#include <string.h>

#include "bytes.h"
#include "forward.h"
#include "ip.h"
#include "outbound.h"

#define ICMP_BYTES        8u
#define IPV4_ERROR_BYTES  576u /* RFC 1812 §4.3.2.3 */
#define TTL               64u
#define INTERNET_CONTROL  0xc0u /* TOS of ICMPv4 errors (RFC 1812 §4.3.2.5) */
#define IPV6_MIN_MTU      1280u
#define ICMPV6_REDIRECT   137u
#define ERRORS_PER_SECOND 100u

struct kind {
	uint8_t type4, code4;
	uint8_t type6, code6;
};

static const struct kind kinds[] = {
	[GW_ICMP_TOO_BIG] = {3, 4, 2, 0},
	[GW_ICMP_TIME_EXCEEDED] = {11, 0, 3, 0},
};

static bool is_one_host4(uint32_t address)
{
	uint32_t network = address >> 24;

	return network != 0 && network != 127 && network < 224;
}

static bool is_one_host6(const struct gw_number *address)
{
	return address->high >> 56 != 0xff && (address->high != 0 || address->low > 1);
}

static bool is_multicast(const struct gw_flow *flow)
{
	if (flow->family == 4)
		return (uint32_t)flow->destination.low >> 28 >= 14; /* 224/4, and 240/4 too */
	return flow->destination.high >> 56 == 0xff;
}

static bool is_error4(uint8_t type)
{
	return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

static bool may_answer(const uint8_t *packet, const struct gw_flow *flow, enum gw_icmp_error error)
{
	uint8_t type = packet[flow->transport];

	if (!flow->is_first_fragment)
		return false;
	if (flow->family == 4)
		return is_one_host4((uint32_t)flow->source.low) && !is_multicast(flow) &&
		       !(flow->protocol == GW_PROTOCOL_ICMP && is_error4(type));
	if (!is_one_host6(&flow->source) || (is_multicast(flow) && error != GW_ICMP_TOO_BIG))
		return false;
	return flow->protocol != GW_PROTOCOL_ICMPV6 || (type >= 128 && type != ICMPV6_REDIRECT);
}

static uint32_t write_ipv4(uint8_t *to, const uint8_t *packet, uint32_t quoted,
			   const uint8_t *source)
{
	uint32_t length = GW_IPV4_BYTES + ICMP_BYTES + quoted;
	uint8_t *icmp = to + GW_IPV4_BYTES;

	memset(to, 0, GW_IPV4_BYTES);
	to[0] = 0x45;
	to[1] = INTERNET_CONTROL;
	gw_store16(to + 2, (uint16_t)length);
	to[8] = TTL;
	to[9] = GW_PROTOCOL_ICMP;
	memcpy(to + 12, source, 4);
	memcpy(to + 16, packet + 12, 4);
	gw_store16(to + 10, (uint16_t)~gw_fold(gw_sum(to, GW_IPV4_BYTES)));
	gw_store16(icmp + 2, (uint16_t)~gw_fold(gw_sum(icmp, ICMP_BYTES + quoted)));
	return length;
}

static uint32_t write_ipv6(uint8_t *to, const uint8_t *packet, uint32_t quoted,
			   const uint8_t *source)
{
	uint32_t bytes = ICMP_BYTES + quoted;
	uint8_t *icmp = to + GW_IPV6_BYTES;

	memset(to, 0, GW_IPV6_BYTES);
	to[0] = 0x60;
	gw_store16(to + 4, (uint16_t)bytes);
	to[6] = GW_PROTOCOL_ICMPV6;
	to[7] = TTL;
	memcpy(to + 8, source, 16);
	memcpy(to + 24, packet + 8, 16);
	gw_store16(icmp + 2, (uint16_t)~gw_fold(gw_sum(to + 8, 32) + GW_PROTOCOL_ICMPV6 + bytes +
						gw_sum(icmp, bytes)));
	return GW_IPV6_BYTES + bytes;
}

uint32_t gw_icmp_write(uint8_t *to, const uint8_t *packet, uint32_t length,
		       enum gw_icmp_error error, uint32_t mtu, const uint8_t source[16])
{
	const struct kind *kind = &kinds[error];
	bool is_ipv4 = length > 0 && packet[0] >> 4 == 4;
	uint32_t header = is_ipv4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;
	uint32_t room = (is_ipv4 ? IPV4_ERROR_BYTES : GW_ICMP_BYTES) - header - ICMP_BYTES;
	uint32_t quoted = length < room ? length : room;
	uint8_t *icmp = to + header;
	struct gw_flow flow;

	if (gw_parse_flow(packet, length, &flow) != GW_DROP_NONE || flow.transport >= length ||
	    !may_answer(packet, &flow, error))
		return 0;
	if (!is_ipv4 && mtu < IPV6_MIN_MTU)
		mtu = IPV6_MIN_MTU;
	memset(icmp, 0, ICMP_BYTES);
	icmp[0] = is_ipv4 ? kind->type4 : kind->type6;
	icmp[1] = is_ipv4 ? kind->code4 : kind->code6;
	if (error == GW_ICMP_TOO_BIG)
		gw_store32(icmp + 4, is_ipv4 && mtu > UINT16_MAX ? UINT16_MAX : mtu);
	memcpy(icmp + ICMP_BYTES, packet, quoted);
	return is_ipv4 ? write_ipv4(to, packet, quoted, source)
		       : write_ipv6(to, packet, quoted, source);
}

/* Make the message in a frame of its own. */
static bool make(struct gw_thread *thread, const struct gw_packet *packet, enum gw_icmp_error error,
		 uint32_t mtu, uint32_t device, struct gw_packet *message)
{
	static const uint8_t none[16];
	const struct gw_port *port = thread->by_device[device];
	uint8_t source[16] = {0};
	uint32_t frame, length;

	if (!port || packet->length == 0)
		return false;
	if (packet->data[0] >> 4 == 4)
		memcpy(source, port->device.address4, 4);
	else
		memcpy(source, port->device.address6, 16);
	if (memcmp(source, none, sizeof(source)) == 0 ||
	    !gw_limit_allows(&thread->icmp_limit, thread->now_ns, ERRORS_PER_SECOND))
		return false;
	frame = gw_pool_take(&thread->pool);
	if (frame == GW_NO_FRAME)
		return false;
	length = gw_icmp_write(gw_frame_start(&thread->pool, frame) + GW_FRAME_DATA, packet->data,
			       packet->length, error, mtu, source);
	if (length == 0) {
		gw_pool_return(&thread->pool, frame);
		return false;
	}
	gw_frame_describe(&thread->pool, frame, GW_FRAME_DATA, length, message);
	message->reserved = (uint16_t)device;
	return true;
}

void gw_icmp_to_our_side(struct gw_thread *thread, const struct gw_packet *packet,
			 enum gw_icmp_error error, uint32_t mtu)
{
	struct gw_packet message;

	if (!make(thread, packet, error, mtu, packet->reserved, &message))
		return;
	if (gw_may_leave(thread, &message))
		gw_send_clear(thread, &message);
	else
		gw_thread_forget(thread, &message); /* the sender is not on our side */
}

void gw_icmp_to_peer(struct gw_thread *thread, const struct gw_packet *packet,
		     enum gw_icmp_error error, uint32_t mtu, uint32_t device, uint32_t tunnel)
{
	struct gw_packet message;
	struct gw_decision decision;
	struct gw_flow flow;

	if (!make(thread, packet, error, mtu, device, &message))
		return;
	if (gw_parse_flow(message.data, message.length, &flow) == GW_DROP_NONE) {
		decision = gw_decide(thread, &flow, tunnel);
		if (decision.verdict == GW_VERDICT_SEAL) {
			gw_seal_by(thread, &message, &decision);
			return;
		}
	}
	/* Nothing protects it: it would tell in clear what went through the tunnel. */
	gw_thread_forget(thread, &message);
}
