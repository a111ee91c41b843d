/* SPDX-License-Identifier: Apache-2.0 */
#include "mss.h"

#include <string.h>

#include "bytes.h"
#include "flow.h"

#define OPTION_END     0u
#define OPTION_NOTHING 1u
#define OPTION_MSS     2u
#define CHECKSUM       16u

/* Return the MSS option's value in the TCP header, or NULL. */
static uint8_t *find_mss(uint8_t *tcp, uint32_t length)
{
	uint32_t end, at = GW_TCP_BYTES;

	if (length < GW_TCP_BYTES || !(tcp[13] & GW_TCP_SYN))
		return NULL;
	end = (uint32_t)(tcp[12] >> 4) * 4;
	if (end > length)
		return NULL;
	while (at < end && tcp[at] != OPTION_END) {
		uint32_t size = tcp[at] == OPTION_NOTHING ? 1 : at + 1 < end ? tcp[at + 1] : 0;

		if (size == 0 || at + size > end || (tcp[at] != OPTION_NOTHING && size < 2))
			return NULL;
		if (tcp[at] == OPTION_MSS)
			return size == 4 ? tcp + at + 2 : NULL;
		at += size;
	}
	return NULL;
}

/* Change two bytes, which may lie across two words of the sum (RFC 1624). */
static void replace(uint8_t *tcp, uint8_t *value, uint16_t mss)
{
	uint8_t *first = value - ((value - tcp) & 1);
	uint8_t before[4];
	uint32_t bytes = first == value ? 2 : 4;
	uint16_t checksum = gw_load16(tcp + CHECKSUM);

	memcpy(before, first, bytes);
	gw_store16(value, mss);
	for (uint32_t at = 0; at < bytes; at += 2)
		checksum =
			gw_update_checksum(checksum, gw_load16(before + at), gw_load16(first + at));
	gw_store16(tcp + CHECKSUM, checksum);
}

void gw_clamp_mss(uint8_t *packet, uint32_t length, uint32_t mtu)
{
	uint32_t headers = (packet[0] >> 4 == 4 ? GW_IPV4_BYTES : GW_IPV6_BYTES) + GW_TCP_BYTES;
	uint32_t mss = mtu > headers ? mtu - headers : 1;
	struct gw_flow flow;
	uint8_t *tcp, *value;

	if (gw_parse_flow(packet, length, &flow) != GW_DROP_NONE ||
	    flow.protocol != GW_PROTOCOL_TCP || !flow.is_first_fragment)
		return;
	tcp = packet + flow.transport;
	value = find_mss(tcp, length - flow.transport);
	if (value && gw_load16(value) > mss)
		replace(tcp, value, (uint16_t)mss);
}
