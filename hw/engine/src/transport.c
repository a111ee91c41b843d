/* SPDX-License-Identifier: Apache-2.0 */
#include "transport.h"

#include "ip.h"

#define IPV6_NEXT_HEADER 6

static enum gw_drop_reason split_ipv4(const uint8_t *packet, uint32_t length,
				      struct gw_split *split)
{
	uint32_t header = (uint32_t)(packet[0] & 0x0f) * 4;

	if (length < GW_IPV4_BYTES || header < GW_IPV4_BYTES || header > length)
		return GW_DROP_MALFORMED;
	if (gw_load16(packet + 6) & GW_IPV4_MF_OR_OFFSET)
		return GW_DROP_FRAGMENT;
	*split = (struct gw_split){.header = header, .next_field = 9, .next_header = packet[9]};
	return GW_DROP_NONE;
}

static enum gw_drop_reason split_ipv6(const uint8_t *packet, uint32_t length,
				      struct gw_split *split)
{
	uint32_t offset = GW_IPV6_BYTES, field = IPV6_NEXT_HEADER;
	uint32_t end = offset, end_field = field;

	if (length < GW_IPV6_BYTES)
		return GW_DROP_MALFORMED;
	for (int headers = 0; headers < GW_MAX_EXTENSION_HEADERS; headers++) {
		uint8_t kind = packet[field];

		if (!gw_is_extension(kind))
			break;
		if (length < offset + 8)
			return GW_DROP_MALFORMED;
		field = offset;
		offset += ((uint32_t)packet[offset + 1] + 1) * 8;
		if (offset > length)
			return GW_DROP_MALFORMED;
		if (kind != GW_PROTOCOL_DESTINATION_OPTIONS) {
			end = offset;
			end_field = field;
		}
	}
	if (packet[field] == GW_PROTOCOL_FRAGMENT)
		return GW_DROP_FRAGMENT;
	*split = (struct gw_split){
		.header = end,
		.next_field = end_field,
		.next_header = packet[end_field],
	};
	return GW_DROP_NONE;
}

enum gw_drop_reason gw_split_packet(const uint8_t *packet, uint32_t length, struct gw_split *split)
{
	unsigned int version = length ? packet[0] >> 4 : 0;

	if (version == 4)
		return split_ipv4(packet, length, split);
	if (version == 6)
		return split_ipv6(packet, length, split);
	return GW_DROP_MALFORMED;
}

void gw_set_payload(uint8_t *ip, uint32_t header, uint32_t next_field, uint8_t protocol,
		    uint32_t length)
{
	if (ip[0] >> 4 == 6) {
		gw_store16(ip + 4, (uint16_t)(length - GW_IPV6_BYTES));
		ip[next_field] = protocol;
		return;
	}
	gw_store16(ip + 2, (uint16_t)length);
	ip[9] = protocol;
	gw_store16(ip + 10, 0);
	gw_store16(ip + 10, (uint16_t)~gw_fold(gw_sum(ip, header)));
}

uint32_t gw_last_next_field(const uint8_t *ip, uint32_t header)
{
	uint32_t offset = GW_IPV6_BYTES, field = IPV6_NEXT_HEADER;

	while (offset + 8 <= header) {
		field = offset;
		offset += ((uint32_t)ip[offset + 1] + 1) * 8;
	}
	return offset == header ? field : 0;
}

void gw_fix_transport_checksum(uint8_t *packet, uint32_t length, uint8_t protocol, uint32_t header)
{
	uint32_t at = header + (protocol == GW_PROTOCOL_TCP ? 16 : 6);
	uint16_t checksum;
	uint64_t sum;

	if ((protocol != GW_PROTOCOL_TCP && protocol != GW_PROTOCOL_UDP) || length < at + 2)
		return;
	if (protocol == GW_PROTOCOL_UDP && gw_load16(packet + at) == 0)
		return;
	sum = packet[0] >> 4 == 4 ? gw_sum(packet + 12, 8) : gw_sum(packet + 8, 32);
	gw_store16(packet + at, 0);
	sum += gw_sum(packet + header, length - header) + protocol + (length - header);
	checksum = (uint16_t)~gw_fold(sum);
	if (protocol == GW_PROTOCOL_UDP && checksum == 0)
		checksum = 0xffff;
	gw_store16(packet + at, checksum);
}
