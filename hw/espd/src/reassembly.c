/* SPDX-License-Identifier: Apache-2.0 */
#include "reassembly.h"

#include <string.h>

#include "bytes.h"
#include "ip.h"

#define FRAGMENT_BYTES 8u
#define MORE           0x0001u
#define OFFSET         0xfff8u
/* RFC 8200 §4.5 */
#define LIFETIME_NS 60000000000ull
#define NOT_ECT     (1u << 0)
#define CE          3u

/* What a Fragment header says, and what is behind it. */
struct piece {
	const uint8_t *ip;
	const uint8_t *bytes;
	uint32_t length;
	uint32_t offset;
	bool is_last;
};

static bool parse(const uint8_t *ip, uint32_t length, struct piece *piece)
{
	const uint8_t *header = ip + GW_IPV6_BYTES;
	uint32_t bytes;

	if (length < GW_IPV6_BYTES + FRAGMENT_BYTES)
		return false;
	bytes = length - GW_IPV6_BYTES - FRAGMENT_BYTES;
	*piece = (struct piece){
		.ip = ip,
		.bytes = header + FRAGMENT_BYTES,
		.length = bytes,
		.offset = gw_load16(header + 2) & OFFSET,
		.is_last = !(gw_load16(header + 2) & MORE),
	};
	return bytes > 0 && (piece->is_last || bytes % 8 == 0) &&
	       piece->offset + bytes <= GW_REASSEMBLY_BYTES;
}

static void write_key(uint8_t key[37], const uint8_t *ip)
{
	memcpy(key, ip + 8, 32);
	memcpy(key + 32, ip + GW_IPV6_BYTES + 4, 4);
	key[36] = ip[GW_IPV6_BYTES];
}

/* Find the packet of a fragment, or a place for it: a free one, one that is over, the oldest. */
static struct gw_reassembled *find(struct gw_reassembly *reassembly, const uint8_t *ip,
				   uint64_t now_ns, uint32_t *lost)
{
	struct gw_reassembled *oldest = &reassembly->packets[0];
	uint8_t key[37];

	write_key(key, ip);
	for (uint32_t i = 0; i < GW_REASSEMBLIES; i++) {
		struct gw_reassembled *packet = &reassembly->packets[i];

		if (packet->until_ns && packet->until_ns <= now_ns) {
			packet->until_ns = 0;
			++*lost;
		}
		if (packet->until_ns && memcmp(packet->key, key, sizeof(key)) == 0)
			return packet;
		if (packet->until_ns < oldest->until_ns)
			oldest = packet;
	}
	*lost += oldest->until_ns != 0;
	oldest->until_ns = now_ns + LIFETIME_NS;
	oldest->ecns = 0;
	oldest->payload = oldest->units = 0;
	memset(oldest->there, 0, sizeof(oldest->there));
	memcpy(oldest->key, key, sizeof(key));
	return oldest;
}

/* Note which units came. Return false where one was there already (RFC 5722). */
static bool claim(struct gw_reassembled *packet, const struct piece *piece)
{
	uint32_t first = piece->offset / 8, end = (piece->offset + piece->length + 7) / 8;

	for (uint32_t unit = first; unit < end; unit++) {
		uint64_t bit = 1ull << unit % 64;

		if (packet->there[unit / 64] & bit)
			return false;
		packet->there[unit / 64] |= bit;
	}
	packet->units = (uint16_t)(packet->units + end - first);
	return true;
}

static bool is_there_behind(const struct gw_reassembled *packet, uint32_t unit)
{
	for (; unit % 64; unit++)
		if (packet->there[unit / 64] & 1ull << unit % 64)
			return true;
	for (uint32_t word = unit / 64; word < GW_REASSEMBLY_UNITS / 64; word++)
		if (packet->there[word])
			return true;
	return false;
}

/* Put a fragment in its place. Return false where it contradicts the others. */
static bool put(struct gw_reassembled *packet, const struct piece *piece)
{
	uint32_t end = piece->offset + piece->length;

	if (!claim(packet, piece) || (packet->payload && (piece->is_last || end > packet->payload)))
		return false;
	if (piece->is_last) {
		if (is_there_behind(packet, (end + 7) / 8))
			return false;
		packet->payload = (uint16_t)end;
	}
	if (piece->offset == 0)
		memcpy(packet->header, piece->ip, GW_IPV6_BYTES);
	memcpy(packet->bytes + piece->offset, piece->bytes, piece->length);
	packet->ecns |= (uint8_t)(1u << (piece->ip[1] >> 4 & 3));
	return true;
}

static bool is_whole(const struct gw_reassembled *packet)
{
	return packet->payload && packet->units == (packet->payload + 7) / 8;
}

/* Write the packet as it was before it was cut. Return false where it must not be. */
static bool write_whole(const struct gw_reassembled *packet, uint8_t *whole, uint32_t room)
{
	bool has_ce = packet->ecns & 1u << CE;

	if (GW_IPV6_BYTES + (uint32_t)packet->payload > room || (has_ce && packet->ecns & NOT_ECT))
		return false;
	memcpy(whole, packet->header, GW_IPV6_BYTES);
	memcpy(whole + GW_IPV6_BYTES, packet->bytes, packet->payload);
	gw_store16(whole + 4, packet->payload);
	whole[6] = packet->key[36];
	if (has_ce)
		whole[1] |= CE << 4;
	return true;
}

enum gw_fragment_fate gw_reassemble(struct gw_reassembly *reassembly, const uint8_t *fragment,
				    uint32_t length, uint64_t now_ns, uint8_t *whole, uint32_t room,
				    uint32_t *whole_length, uint32_t *lost)
{
	struct gw_reassembled *packet;
	struct piece piece;

	*lost = 0;
	if (!parse(fragment, length, &piece))
		return GW_FRAGMENT_REFUSED;
	packet = find(reassembly, fragment, now_ns, lost);
	if (!put(packet, &piece)) {
		packet->until_ns = 0;
		return GW_FRAGMENT_REFUSED;
	}
	if (!is_whole(packet))
		return GW_FRAGMENT_KEPT;
	packet->until_ns = 0;
	if (!write_whole(packet, whole, room))
		return GW_FRAGMENT_REFUSED;
	*whole_length = GW_IPV6_BYTES + packet->payload;
	return GW_FRAGMENT_WHOLE;
}
