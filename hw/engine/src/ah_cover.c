/* SPDX-License-Identifier: Apache-2.0 */
#include "ah_cover.h"

#include "bytes.h"
#include "ip.h"

/* --- IPv4 (RFC 4302 §3.3.3.1.1, Appendix A1) */

/* Options by their type octet: copied flag, class and number (RFC 791 §3.1). */
enum ipv4_option {
	END_OF_OPTIONS = 0,
	NO_OPERATION = 1,
	SECURITY = 130, /* RFC 1108 */
	LOOSE_SOURCE_ROUTE = 131,
	EXTENDED_SECURITY = 133, /* RFC 1108 */
	COMMERCIAL_SECURITY = 134,
	STRICT_SOURCE_ROUTE = 137,
	ROUTER_ALERT = 148,          /* RFC 2113 */
	SENDER_DIRECTED_MULTI = 149, /* RFC 1770 */
};

/* Covered whole. All others are zero: those RFC 4302 calls mutable, and any that it lacks. */
static bool is_immutable(uint8_t option)
{
	switch (option) {
	case END_OF_OPTIONS:
	case NO_OPERATION:
	case SECURITY:
	case EXTENDED_SECURITY:
	case COMMERCIAL_SECURITY:
	case ROUTER_ALERT:
	case SENDER_DIRECTED_MULTI:
		return true;
	default:
		return false;
	}
}

/* Predict the destination at the end of a source route that is not followed yet (RFC 791 §3.1). */
static enum gw_drop_reason follow_source_route(uint8_t *ip, const uint8_t *option, uint32_t length)
{
	if (length < 7)
		return GW_DROP_MALFORMED;
	if (option[2] <= length)
		memcpy(ip + 16, option + length - 4, 4);
	return GW_DROP_NONE;
}

static enum gw_drop_reason cover_ipv4_options(uint8_t *ip, uint32_t bytes, bool sending)
{
	uint32_t at = GW_IPV4_BYTES;

	while (at < bytes && ip[at] != END_OF_OPTIONS) {
		uint8_t kind = ip[at];
		uint32_t length = kind == NO_OPERATION ? 1 : at + 1 < bytes ? ip[at + 1] : 0;

		if ((kind != NO_OPERATION && length < 2) || at + length > bytes)
			return GW_DROP_MALFORMED;
		if (sending && (kind == LOOSE_SOURCE_ROUTE || kind == STRICT_SOURCE_ROUTE)) {
			enum gw_drop_reason reason = follow_source_route(ip, ip + at, length);

			if (reason != GW_DROP_NONE)
				return reason;
		}
		if (!is_immutable(kind))
			memset(ip + at, 0, length);
		at += length;
	}
	return GW_DROP_NONE;
}

static enum gw_drop_reason cover_ipv4(uint8_t *ip, uint32_t bytes, bool sending)
{
	if (!sending && gw_load16(ip + 6) & GW_IPV4_MF_OR_OFFSET)
		return GW_DROP_FRAGMENT;
	ip[1] = 0;
	memset(ip + 6, 0, 3);
	memset(ip + 10, 0, 2);
	return cover_ipv4_options(ip, bytes, sending);
}

/* --- IPv6 (RFC 4302 §3.3.3.1.2, Appendix A2) */

#define PAD_1      0
#define MAY_CHANGE 0x20

/* Zero the data of each option whose third-highest bit says that it may change (RFC 8200 §4.2). */
static enum gw_drop_reason cover_options(uint8_t *extension, uint32_t length)
{
	uint32_t at = 2;

	while (at < length) {
		uint32_t end;

		if (extension[at] == PAD_1) {
			at++;
			continue;
		}
		if (at + 2 > length)
			return GW_DROP_MALFORMED;
		end = at + 2 + extension[at + 1];
		if (end > length)
			return GW_DROP_MALFORMED;
		if (extension[at] & MAY_CHANGE)
			memset(extension + at + 2, 0, end - at - 2);
		at = end;
	}
	return GW_DROP_NONE;
}

static void swap_addresses(uint8_t *a, uint8_t *b)
{
	uint8_t saved[16];

	memcpy(saved, a, 16);
	memcpy(a, b, 16);
	memcpy(b, saved, 16);
}

/*
 * Predict a routing header and the destination: each hop swaps the destination with its entry of
 * the list and counts the segments left down. Types 0 (RFC 2460 §4.4, deprecated) and 2 (RFC 6275
 * §6.4) can be predicted.
 */
static enum gw_drop_reason cover_routing(uint8_t *ip, uint8_t *extension, uint32_t length,
					 bool sending)
{
	uint32_t addresses = (length - 8) / 16, segments_left = extension[3];

	if (extension[2] != 0 && extension[2] != 2)
		return GW_DROP_UNSUPPORTED;
	if ((length - 8) % 16 != 0 || segments_left > addresses || (!sending && segments_left != 0))
		return GW_DROP_MALFORMED;
	for (uint32_t hop = addresses - segments_left; hop < addresses; hop++)
		swap_addresses(ip + 24, extension + 8 + hop * 16);
	extension[3] = 0;
	return GW_DROP_NONE;
}

static enum gw_drop_reason cover_extensions(uint8_t *ip, uint32_t bytes, bool sending)
{
	uint32_t at = GW_IPV6_BYTES;
	uint8_t kind = ip[6];

	for (int headers = 0; at < bytes; headers++) {
		enum gw_drop_reason reason;
		uint32_t length;

		if (kind == GW_PROTOCOL_FRAGMENT)
			return GW_DROP_FRAGMENT;
		if (!gw_is_extension(kind) || headers == GW_MAX_EXTENSION_HEADERS)
			return GW_DROP_UNSUPPORTED;
		length = at + 8 <= bytes ? ((uint32_t)ip[at + 1] + 1) * 8 : 0;
		if (length == 0 || at + length > bytes)
			return GW_DROP_MALFORMED;
		reason = kind == GW_PROTOCOL_ROUTING ? cover_routing(ip, ip + at, length, sending)
						     : cover_options(ip + at, length);
		if (reason != GW_DROP_NONE)
			return reason;
		kind = ip[at];
		at += length;
	}
	return GW_DROP_NONE;
}

static enum gw_drop_reason cover_ipv6(uint8_t *ip, uint32_t bytes, bool sending)
{
	gw_store32(ip, 6u << 28);
	ip[7] = 0;
	return cover_extensions(ip, bytes, sending);
}

enum gw_drop_reason gw_ah_cover(uint8_t *ip, uint32_t bytes, bool sending)
{
	return ip[0] >> 4 == 4 ? cover_ipv4(ip, bytes, sending) : cover_ipv6(ip, bytes, sending);
}
