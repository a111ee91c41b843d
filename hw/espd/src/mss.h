/* SPDX-License-Identifier: Apache-2.0 */
/* The MSS of TCP connections that are begun through a tunnel (RFC 9293 §3.7.1). */
#ifndef GW_MSS_H
#define GW_MSS_H

#include <stdbool.h>
#include <stdint.h>

#include "ip.h"

#define GW_TCP_BYTES 20u
#define GW_TCP_SYN   0x02u

/* Whether a packet may open a TCP connection: cheap, and right but for extension headers. */
static inline bool gw_may_be_syn(const uint8_t *packet, uint32_t length)
{
	uint32_t flags;

	if (packet[0] >> 4 == 4) {
		flags = (uint32_t)(packet[0] & 0x0f) * 4 + 13;
		return packet[9] == GW_PROTOCOL_TCP && length > flags && packet[flags] & GW_TCP_SYN;
	}
	if (packet[6] != GW_PROTOCOL_TCP)
		return false;
	return length > GW_IPV6_BYTES + 13 && packet[GW_IPV6_BYTES + 13] & GW_TCP_SYN;
}

/**
 * gw_clamp_mss() - lower the MSS option of a SYN so that segments fit; anything else stays as it is.
 * @packet: for which gw_may_be_syn holds.
 * @length: bytes of it.
 * @mtu: the largest IP packet that fits.
 */
void gw_clamp_mss(uint8_t *packet, uint32_t length, uint32_t mtu);

#endif
