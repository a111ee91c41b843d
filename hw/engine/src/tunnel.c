/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel.h"

void gw_set_template(struct gw_sa *sa, uint32_t spi, const uint8_t source[16])
{
	bool is_ipv4 = sa->family == 4;
	size_t ip_bytes = is_ipv4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;
	bool has_udp = sa->udp_source_port != 0;
	uint8_t protocol = has_udp        ? GW_PROTOCOL_UDP
			   : sa->ah_bytes ? GW_PROTOCOL_AH
					  : GW_PROTOCOL_ESP;
	uint8_t *ip, *udp;

	sa->outer_bytes = (uint8_t)(ip_bytes + (has_udp ? GW_UDP_BYTES : 0));
	memset(sa->template, 0, sizeof(sa->template));
	ip = sa->template + sizeof(sa->template) - GW_ESP_BYTES - sa->outer_bytes;
	udp = ip + ip_bytes;
	if (is_ipv4) {
		ip[0] = 0x45;
		ip[8] = GW_OUTER_TTL;
		ip[9] = protocol;
		memcpy(ip + 12, source, 4);
		memcpy(ip + 16, sa->destination, 4);
		sa->outer_sum = gw_fold(gw_sum(ip, GW_IPV4_BYTES));
	} else {
		ip[0] = 0x60;
		ip[6] = protocol;
		ip[7] = GW_OUTER_TTL;
		memcpy(ip + 8, source, 16);
		memcpy(ip + 24, sa->destination, 16);
	}
	if (has_udp) {
		gw_store16(udp, sa->udp_source_port);
		gw_store16(udp + 2, sa->udp_destination_port);
	}
	gw_store32(sa->template + sizeof(sa->template) - GW_ESP_BYTES, spi);
}

void gw_udp6_checksum(const uint8_t *ip, uint8_t *udp)
{
	uint16_t length = gw_load16(udp + 4);
	uint16_t checksum;

	gw_store16(udp + 6, 0);
	checksum = (uint16_t)~gw_fold(gw_sum(ip + 8, 32) + GW_PROTOCOL_UDP + length +
				      gw_sum(udp, length));
	/* Zero would say that there is none, which is not legal over IPv6 (RFC 8200 §8.1). */
	gw_store16(udp + 6, checksum ? checksum : 0xffff);
}

/* --- taking off */

#define ECN_DROP 0xff

/* What the inner ECN field becomes: RFC 6040 figure 4, [inner][outer] by code point. */
static const uint8_t ecn_decapsulation[4][4] = {
	/* outer: Not-ECT, ECT(1), ECT(0), CE; inner: */
	{0, 0, 0, ECN_DROP}, /* Not-ECT */
	{1, 1, 1, 3},        /* ECT(1) */
	{2, 1, 2, 3},        /* ECT(0) */
	{3, 3, 3, 3},        /* CE */
};

static enum gw_drop_reason decapsulate_ipv4(uint8_t *packet, uint32_t *length, uint8_t outer_ecn)
{
	uint32_t header, total;
	uint8_t ecn, tos;

	if (*length < GW_IPV4_BYTES || packet[0] >> 4 != 4)
		return GW_DROP_MALFORMED;
	header = (uint32_t)(packet[0] & 0x0f) * 4;
	total = gw_load16(packet + 2);
	if (header < GW_IPV4_BYTES || header > total || total > *length)
		return GW_DROP_MALFORMED;
	ecn = ecn_decapsulation[packet[1] & GW_ECN][outer_ecn];
	if (ecn == ECN_DROP)
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

static enum gw_drop_reason decapsulate_ipv6(uint8_t *packet, uint32_t *length, uint8_t outer_ecn)
{
	uint32_t total;
	uint8_t ecn;

	if (*length < GW_IPV6_BYTES || packet[0] >> 4 != 6)
		return GW_DROP_MALFORMED;
	total = GW_IPV6_BYTES + gw_load16(packet + 4);
	if (total > *length)
		return GW_DROP_MALFORMED;
	ecn = ecn_decapsulation[gw_ipv6_tos(packet) & GW_ECN][outer_ecn];
	if (ecn == ECN_DROP)
		return GW_DROP_ECN_ILLEGAL;
	*length = total;
	packet[1] = (uint8_t)((packet[1] & 0xcf) | ecn << 4);
	return GW_DROP_NONE;
}

enum gw_drop_reason gw_decapsulate(uint8_t *payload, uint32_t *length, uint8_t next_header,
				   uint8_t outer_tos)
{
	if (next_header == GW_PROTOCOL_IPV4)
		return decapsulate_ipv4(payload, length, outer_tos & GW_ECN);
	if (next_header == GW_PROTOCOL_IPV6)
		return decapsulate_ipv6(payload, length, outer_tos & GW_ECN);
	return GW_DROP_MODE_MISMATCH;
}
