/* SPDX-License-Identifier: Apache-2.0 */
#include "tunnel.h"

void gw_set_template(struct gw_sa *sa, uint32_t spi, const uint8_t source[16])
{
	bool is_ipv4 = sa->rest->family == 4;
	size_t ip_bytes = is_ipv4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;
	bool has_udp = sa->rest->udp_source_port != 0;
	uint8_t protocol = has_udp        ? GW_PROTOCOL_UDP
			   : sa->ah_bytes ? GW_PROTOCOL_AH
					  : GW_PROTOCOL_ESP;
	uint8_t *ip, *udp;

	sa->outer_bytes = (uint8_t)(ip_bytes + (has_udp ? GW_UDP_BYTES : 0));
	memset(sa->out.template, 0, sizeof(sa->out.template));
	ip = sa->out.template + sizeof(sa->out.template) - GW_ESP_BYTES - sa->outer_bytes;
	udp = ip + ip_bytes;
	if (is_ipv4) {
		ip[0] = 0x45;
		ip[8] = GW_OUTER_TTL;
		ip[9] = protocol;
		memcpy(ip + 12, source, 4);
		memcpy(ip + 16, sa->rest->destination, 4);
		sa->out.outer_sum = gw_fold(gw_sum(ip, GW_IPV4_BYTES));
	} else {
		ip[0] = 0x60;
		ip[6] = protocol;
		ip[7] = GW_OUTER_TTL;
		memcpy(ip + 8, source, 16);
		memcpy(ip + 24, sa->rest->destination, 16);
	}
	if (has_udp) {
		gw_store16(udp, sa->rest->udp_source_port);
		gw_store16(udp + 2, sa->rest->udp_destination_port);
	}
	gw_store32(sa->out.template + sizeof(sa->out.template) - GW_ESP_BYTES, spi);
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
