/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Where the SPI of a frame is, whether it comes as ESP, AH or ESP in UDP (RFC 3948). */
#ifndef GW_SAS_H
#define GW_SAS_H

#include "gw_parse.h"

enum gw_carried {
	GW_CARRIED_OTHER, /* neither IKE nor ESP nor AH */
	GW_CARRIED_IPSEC,
	GW_CARRIED_IKE,
	GW_CARRIED_KEEPALIVE,
	GW_CARRIED_CUT, /* too short for what it says it is */
};

struct gw_carrier {
	__be32 spi_be;
	__u32 protocol; /* 50 or 51 */
};

/* Look behind UDP: port 4500 has ESP, or IKE behind four zero octets (RFC 3948 section 2). */
static __always_inline enum gw_carried
gw_classify_udp(struct gw_cursor *cursor, const struct gw_flow *flow, struct gw_carrier *carrier)
{
	struct gw_esp_header *esp;
	struct udphdr *udp;
	int port = gw_parse_udp(cursor, &udp);
	__be32 *marker = cursor->at;
	__u32 payload_bytes;

	if (port < 0 || flow->l4_bytes < sizeof(*udp))
		return GW_CARRIED_CUT;
	payload_bytes = flow->l4_bytes - sizeof(*udp);
	if (port == GW_PORT_IKE)
		return GW_CARRIED_IKE;
	if (port != GW_PORT_NAT_T)
		return GW_CARRIED_OTHER;
	if (payload_bytes == 1)
		return GW_CARRIED_KEEPALIVE;
	if (payload_bytes < sizeof(*marker) || (void *)(marker + 1) > cursor->end)
		return GW_CARRIED_CUT;
	if (!*marker) {
		cursor->at = marker + 1;
		return GW_CARRIED_IKE;
	}
	if (payload_bytes < sizeof(*esp) || gw_parse_esp(cursor, &esp) < 0)
		return GW_CARRIED_CUT;
	carrier->spi_be = esp->spi_be;
	carrier->protocol = IPPROTO_ESP;
	return GW_CARRIED_IPSEC;
}

/*
 * Say what a whole packet carries, from its next layer header on. The cursor ends behind the header
 * that was read; for IKE it stands at the IKE header.
 */
static __always_inline enum gw_carried
gw_classify(struct gw_cursor *cursor, const struct gw_flow *flow, struct gw_carrier *carrier)
{
	struct gw_esp_header *esp;
	struct gw_ah_header *ah;

	switch (flow->protocol) {
	case IPPROTO_ESP:
		if (flow->l4_bytes < sizeof(*esp) || gw_parse_esp(cursor, &esp) < 0)
			return GW_CARRIED_CUT;
		carrier->spi_be = esp->spi_be;
		carrier->protocol = IPPROTO_ESP;
		return GW_CARRIED_IPSEC;
	case IPPROTO_AH:
		if (flow->l4_bytes < sizeof(*ah) || gw_parse_ah(cursor, &ah) < 0)
			return GW_CARRIED_CUT;
		carrier->spi_be = ah->spi_be;
		carrier->protocol = IPPROTO_AH;
		return GW_CARRIED_IPSEC;
	case IPPROTO_UDP:
		return gw_classify_udp(cursor, flow, carrier);
	default:
		return GW_CARRIED_OTHER;
	}
}

#endif
