/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outer IP headers: the constant part once per SA with its checksum, the rest per packet; and what
 * the inner packet takes from them (RFC 4301 §5.1.2, RFC 6040 in normal mode).
 */
#ifndef GW_TUNNEL_H
#define GW_TUNNEL_H

#include "ip.h"
#include "worker.h"

/* What the outer header takes from the inner one. */
struct gw_inner {
	uint8_t next_header;
	uint8_t tos;
	bool is_df; /* IPv6 inside counts as set, because routers do not fragment it either */
};

/**
 * gw_set_template() - make the outer headers of an SA.
 * @sa: family, addresses and ports are set; template, outer_bytes and outer_sum are written.
 * @spi: host order.
 * @source: of the outer packet; its destination and ports are those of the SA.
 */
void gw_set_template(struct gw_sa *sa, uint32_t spi, const uint8_t source[16]);

/**
 * gw_udp6_checksum() - put the checksum, which IPv6 demands, into the UDP header of an encapsulated
 * packet.
 * @ip: an IPv6 header.
 * @udp: the UDP header, its length set, its checksum of any value.
 */
void gw_udp6_checksum(const uint8_t *ip, uint8_t *udp);

/* Read what tunnel encapsulation must know of an IP packet. */
static inline enum gw_drop_reason gw_inspect_inner(const uint8_t *packet, uint32_t length,
						   struct gw_inner *inner)
{
	unsigned int version = length ? packet[0] >> 4 : 0;

	if (GW_LIKELY(version == 4 && length >= GW_IPV4_BYTES)) {
		inner->next_header = GW_PROTOCOL_IPV4;
		inner->tos = packet[1];
		inner->is_df = packet[6] & GW_IPV4_DF >> 8;
		return GW_DROP_NONE;
	}
	if (version != 6 || length < GW_IPV6_BYTES)
		return GW_DROP_MALFORMED;
	inner->next_header = GW_PROTOCOL_IPV6;
	inner->tos = gw_ipv6_tos(packet);
	inner->is_df = true;
	return GW_DROP_NONE;
}

static inline bool gw_outer_df(const struct gw_sa *sa, bool inner_df)
{
	return sa->out.df == GW_DF_COPY ? inner_df : sa->out.df == GW_DF_SET;
}

/* Fill in an outer header that was copied from the template; `length`: of the outer packet. */
static inline void gw_fill_ipv4(const struct gw_sa *sa, uint8_t *ip, uint32_t length, uint8_t tos,
				bool df, uint16_t identification)
{
	uint32_t flags = df ? GW_IPV4_DF : 0;
	uint32_t sum = sa->out.outer_sum + tos + length + identification + flags;

	ip[1] = tos;
	gw_store16(ip + 2, (uint16_t)length);
	gw_store16(ip + 4, identification);
	gw_store16(ip + 6, (uint16_t)flags);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	gw_store16(ip + 10, (uint16_t)~sum);
}

static inline void gw_fill_ipv6(uint8_t *ip, uint32_t length, uint8_t tos)
{
	gw_store32(ip, 6u << 28 | (uint32_t)tos << 20);
	gw_store16(ip + 4, (uint16_t)(length - GW_IPV6_BYTES));
}

/* --- taking off */

#define GW_ECN_DROP 0xff

/* What the inner ECN field becomes: RFC 6040 figure 4, [inner][outer] by code point. */
static const uint8_t gw_ecn_decapsulation[4][4] = {
	/* outer: Not-ECT, ECT(1), ECT(0), CE; inner: */
	{0, 0, 0, GW_ECN_DROP}, /* Not-ECT */
	{1, 1, 1, 3},           /* ECT(1) */
	{2, 1, 2, 3},           /* ECT(0) */
	{3, 3, 3, 3},           /* CE */
};

static inline enum gw_drop_reason gw_decapsulate_ipv4(uint8_t *packet, uint32_t *length,
						      uint8_t outer_ecn)
{
	uint32_t header, total;
	uint8_t ecn, tos;

	if (*length < GW_IPV4_BYTES || packet[0] >> 4 != 4)
		return GW_DROP_MALFORMED;
	header = (uint32_t)(packet[0] & 0x0f) * 4;
	total = gw_load16(packet + 2);
	if (header < GW_IPV4_BYTES || header > total || total > *length)
		return GW_DROP_MALFORMED;
	ecn = gw_ecn_decapsulation[packet[1] & GW_ECN][outer_ecn];
	if (ecn == GW_ECN_DROP)
		return GW_DROP_ECN_ILLEGAL;
	*length = total;
	tos = (uint8_t)((packet[1] & ~GW_ECN) | ecn);
	if (GW_UNLIKELY(tos != packet[1])) {
		uint16_t before = gw_load16(packet);

		packet[1] = tos;
		gw_store16(packet + 10,
			   gw_update_checksum(gw_load16(packet + 10), before, gw_load16(packet)));
	}
	return GW_DROP_NONE;
}

static inline enum gw_drop_reason gw_decapsulate_ipv6(uint8_t *packet, uint32_t *length,
						      uint8_t outer_ecn)
{
	uint32_t total;
	uint8_t ecn;

	if (*length < GW_IPV6_BYTES || packet[0] >> 4 != 6)
		return GW_DROP_MALFORMED;
	total = GW_IPV6_BYTES + gw_load16(packet + 4);
	if (total > *length)
		return GW_DROP_MALFORMED;
	ecn = gw_ecn_decapsulation[gw_ipv6_tos(packet) & GW_ECN][outer_ecn];
	if (ecn == GW_ECN_DROP)
		return GW_DROP_ECN_ILLEGAL;
	*length = total;
	packet[1] = (uint8_t)((packet[1] & 0xcf) | ecn << 4);
	return GW_DROP_NONE;
}

/**
 * gw_decapsulate() - return the inner packet of tunnel mode from a decrypted payload.
 * @payload: TFC padding is cut off, and ECN combined in place; DSCP and TTL stay.
 * @length: of the payload; becomes that of the packet.
 * @next_header: of the trailer or of AH.
 * @outer_tos: of the outer header.
 *
 * Return: GW_DROP_NONE, MODE_MISMATCH, MALFORMED or ECN_ILLEGAL.
 */
static inline enum gw_drop_reason gw_decapsulate(uint8_t *payload, uint32_t *length,
						 uint8_t next_header, uint8_t outer_tos)
{
	if (next_header == GW_PROTOCOL_IPV4)
		return gw_decapsulate_ipv4(payload, length, outer_tos & GW_ECN);
	if (next_header == GW_PROTOCOL_IPV6)
		return gw_decapsulate_ipv6(payload, length, outer_tos & GW_ECN);
	return GW_DROP_MODE_MISMATCH;
}

#endif
