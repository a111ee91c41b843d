/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fragments before encapsulation: what is too big for the tunnel and may be cut (RFC 4301 §8.2, RFC
 * 791 §3.2).
 */
#include "bytes.h"
#include "gw_engine.h"
#include "ip.h"

#define UNIT_BYTES     8u
#define MORE_FRAGMENTS 0x2000u
#define OFFSET_MASK    0x1fffu
#define END_OF_OPTIONS 0
#define NO_OPERATION   1
#define COPIED         0x80

/* Blank the options of the first fragment alone; false where they contradict themselves. */
static bool blank_uncopied_options(uint8_t *ip, uint32_t header)
{
	uint32_t at = GW_IPV4_BYTES;

	while (at < header && ip[at] != END_OF_OPTIONS) {
		uint32_t length = 1;

		if (ip[at] != NO_OPERATION) {
			length = at + 1 < header ? ip[at + 1] : 0;
			if (length < 2 || at + length > header)
				return false;
			if (!(ip[at] & COPIED))
				memset(ip + at, NO_OPERATION, length);
		}
		at += length;
	}
	return true;
}

size_t gw_fragment(const uint8_t *packet, size_t length, size_t mtu, size_t *offset, uint8_t *out,
		   size_t room)
{
	uint32_t header, total, payload, part, place;

	if (length < GW_IPV4_BYTES || packet[0] >> 4 != 4)
		return 0;
	header = (uint32_t)(packet[0] & 0x0f) * 4;
	total = gw_load16(packet + 2);
	place = gw_load16(packet + 6);
	if (header < GW_IPV4_BYTES || header > total || total > length || place & GW_IPV4_DF ||
	    mtu < header + UNIT_BYTES)
		return 0;
	payload = total - header;
	if (*offset >= payload)
		return 0;
	part = ((uint32_t)(mtu < GW_MAX_IP_BYTES ? mtu : GW_MAX_IP_BYTES) - header) &
	       ~(UNIT_BYTES - 1);
	if (part >= payload - *offset)
		part = payload - (uint32_t)*offset;
	if (room < header + part)
		return 0;
	memcpy(out, packet, header);
	if (*offset && !blank_uncopied_options(out, header))
		return 0;
	memcpy(out + header, packet + header + *offset, part);
	gw_store16(out + 2, (uint16_t)(header + part));
	/* A fragment may be cut again: its own offset and MF count on. */
	place = ((place & OFFSET_MASK) + (uint32_t)*offset / UNIT_BYTES) | (place & MORE_FRAGMENTS);
	*offset += part;
	if (*offset < payload)
		place |= MORE_FRAGMENTS;
	else
		*offset = 0;
	gw_store16(out + 6, (uint16_t)place);
	gw_store16(out + 10, 0);
	gw_store16(out + 10, (uint16_t)~gw_fold(gw_sum(out, header)));
	return header + part;
}
