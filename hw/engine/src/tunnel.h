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
 * gw_decapsulate() - return the inner packet of tunnel mode from a decrypted payload.
 * @payload: TFC padding is cut off, and ECN combined in place; DSCP and TTL stay.
 * @length: of the payload; becomes that of the packet.
 * @next_header: of the trailer or of AH.
 * @outer_tos: of the outer header.
 *
 * Return: GW_DROP_NONE, MODE_MISMATCH, MALFORMED or ECN_ILLEGAL.
 */
enum gw_drop_reason gw_decapsulate(uint8_t *payload, uint32_t *length, uint8_t next_header,
				   uint8_t outer_tos);

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
	return sa->df == GW_DF_COPY ? inner_df : sa->df == GW_DF_SET;
}

/* Fill in an outer header that was copied from the template; `length`: of the outer packet. */
static inline void gw_fill_ipv4(const struct gw_sa *sa, uint8_t *ip, uint32_t length, uint8_t tos,
				bool df, uint16_t identification)
{
	uint32_t flags = df ? GW_IPV4_DF : 0;
	uint32_t sum = sa->outer_sum + tos + length + identification + flags;

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

#endif
