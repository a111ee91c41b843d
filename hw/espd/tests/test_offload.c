/* SPDX-License-Identifier: Apache-2.0 */
/* Super-frames: cut as their header says, never beyond what is there; merged only where GRO would. */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "ip.h"
#include "offload.h"
#include "tap.h"

#define HEADERS4 (GW_IPV4_BYTES + 20u)
#define HEADERS6 (GW_IPV6_BYTES + 20u)
#define FLAG_PSH 0x08u
#define FLAG_ACK 0x10u
#define FLAG_FIN 0x01u
#define FLAG_CWR 0x80u
#define GSO_UDP  5

static uint64_t pseudo_sum(const uint8_t *ip, uint8_t protocol, uint32_t bytes)
{
	return ip[0] >> 4 == 6 ? gw_sum(ip + 8, 32) + protocol + bytes
			       : gw_sum(ip + 12, 8) + protocol + bytes;
}

/* Write a TCP packet with a right checksum; return its size. */
static uint32_t tcp_packet(uint8_t *to, int version, uint32_t sequence, uint8_t flags,
			   uint32_t payload)
{
	uint32_t ip = version == 4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;
	uint32_t length = ip + 20 + payload;
	uint8_t *tcp = to + ip;

	memset(to, 0, ip + 20);
	if (version == 4) {
		to[0] = 0x45;
		gw_store16(to + 2, (uint16_t)length);
		gw_store16(to + 4, (uint16_t)sequence);
		to[6] = 0x40;
		to[8] = 64;
		to[9] = GW_PROTOCOL_TCP;
		gw_store32(to + 12, 0x0a010001);
		gw_store32(to + 16, 0x0a020001);
		gw_store16(to + 10, (uint16_t)~gw_fold(gw_sum(to, GW_IPV4_BYTES)));
	} else {
		to[0] = 0x60;
		gw_store16(to + 4, (uint16_t)(20 + payload));
		to[6] = GW_PROTOCOL_TCP;
		to[7] = 64;
		to[23] = 1;
		to[39] = 2;
	}
	gw_store16(tcp, 1000);
	gw_store16(tcp + 2, 2000);
	gw_store32(tcp + 4, sequence);
	tcp[12] = 5 << 4;
	tcp[13] = flags;
	for (uint32_t i = 0; i < payload; i++)
		tcp[20 + i] = (uint8_t)((sequence + i) * 7);
	gw_store16(tcp + 16, (uint16_t)~gw_fold(gw_sum(tcp, 20 + payload) +
						pseudo_sum(to, GW_PROTOCOL_TCP, 20 + payload)));
	return length;
}

static bool is_sound(const uint8_t *packet, uint32_t length, uint8_t protocol)
{
	uint32_t ip = packet[0] >> 4 == 4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;

	if (ip == GW_IPV4_BYTES &&
	    (gw_fold(gw_sum(packet, ip)) != 0xffff || gw_load16(packet + 2) != length))
		return false;
	if (ip == GW_IPV6_BYTES && gw_load16(packet + 4) + GW_IPV6_BYTES != length)
		return false;
	return gw_fold(gw_sum(packet + ip, length - ip) +
		       pseudo_sum(packet, protocol, length - ip)) == 0xffff;
}

/* --- cutting */

static void test_cut(int version, uint8_t flags)
{
	static const uint32_t sizes[] = {1000, 1000, 500};
	uint32_t headers = version == 4 ? HEADERS4 : HEADERS6;
	uint8_t *super = malloc(headers + 2500), piece[2000];
	uint32_t length = tcp_packet(super, version, 0xfffffe00, flags, 2500);
	struct virtio_net_hdr header = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6,
		.gso_size = 1000,
		.csum_start = (uint16_t)(headers - 20),
		.csum_offset = 16,
	};
	struct gw_segments segments;
	bool good = gw_segments_init(&segments, &header, super, length, 0);

	tap_check(good, "a super-frame of TCP is known");
	for (uint32_t i = 0, offset = 0; good && i < 3; offset += sizes[i++]) {
		uint32_t got = gw_segments_next(&segments, piece, sizeof(piece));
		const uint8_t *tcp = piece + headers - 20;
		uint8_t expected = flags;

		if (i < 2)
			expected &= (uint8_t) ~(FLAG_FIN | FLAG_PSH);
		if (i > 0)
			expected &= (uint8_t)~FLAG_CWR;
		tap_check(got == headers + sizes[i], "a piece has its size");
		tap_check(is_sound(piece, got, GW_PROTOCOL_TCP),
			  "its lengths and checksums are right");
		tap_check(gw_load32(tcp + 4) == 0xfffffe00 + offset, "its sequence number goes on");
		tap_check(tcp[13] == expected, "FIN and PSH are on the last, CWR on the first");
		tap_check(memcmp(piece + headers, super + headers + offset, sizes[i]) == 0,
			  "its payload is what was there");
		if (version == 4)
			tap_check(gw_load16(piece + 4) == (uint16_t)(0xfe00 + i),
				  "its identification is its own");
	}
	tap_check(gw_segments_next(&segments, piece, sizeof(piece)) == 0, "no piece is left");
	free(super);
}

static void test_cut_udp(void)
{
	uint8_t *super = malloc(28 + 300), piece[500];
	struct virtio_net_hdr header = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = GSO_UDP,
		.gso_size = 200,
		.csum_start = 20,
		.csum_offset = 6,
	};
	struct gw_segments segments;

	tcp_packet(super, 4, 5, 0, 288);
	super[9] = GW_PROTOCOL_UDP;
	tap_check(gw_segments_init(&segments, &header, super, 328, 0), "UDP is known");
	tap_check(gw_segments_next(&segments, piece, sizeof(piece)) == 228 &&
			  is_sound(piece, 228, GW_PROTOCOL_UDP) && gw_load16(piece + 24) == 208,
		  "a datagram is whole");
	tap_check(gw_segments_next(&segments, piece, sizeof(piece)) == 128 &&
			  is_sound(piece, 128, GW_PROTOCOL_UDP),
		  "and the last, which is shorter");
	free(super);
}

/* What a kernel never says, and a packet socket must survive all the same. */
static void test_cut_nonsense(void)
{
	static const struct row {
		const char *name;
		uint8_t type, flags;
		uint16_t size, start;
		uint32_t length;
	} rows[] = {
		{"no size", VIRTIO_NET_HDR_GSO_TCPV4, 1, 0, 20, 100},
		{"no checksum to start at", VIRTIO_NET_HDR_GSO_TCPV4, 0, 10, 20, 100},
		{"a transport in the IP header", VIRTIO_NET_HDR_GSO_TCPV4, 1, 10, 19, 100},
		{"a transport behind the end", VIRTIO_NET_HDR_GSO_TCPV4, 1, 10, 101, 100},
		{"a TCP header cut off", VIRTIO_NET_HDR_GSO_TCPV4, 1, 10, 90, 100},
		{"nothing behind the TCP header", VIRTIO_NET_HDR_GSO_TCPV4, 1, 10, 20, 40},
		{"another family", VIRTIO_NET_HDR_GSO_TCPV6, 1, 10, 40, 100},
		{"an unknown kind", 9, 1, 10, 20, 100},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		uint8_t *super = malloc(100);
		struct virtio_net_hdr header = {
			.flags = row->flags,
			.gso_type = row->type,
			.gso_size = row->size,
			.csum_start = row->start,
		};
		struct gw_segments segments;

		tcp_packet(super, 4, 5, FLAG_ACK, 60);
		tap_check(!gw_segments_init(&segments, &header, super, row->length, 0), row->name);
		free(super);
	}
}

static void test_checksum(void)
{
	uint8_t *packet = malloc(HEADERS4 + 11);
	uint32_t length = tcp_packet(packet, 4, 9, FLAG_ACK, 11);
	struct virtio_net_hdr header = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.csum_start = 20,
		.csum_offset = 16,
	};
	uint16_t right = gw_load16(packet + 36);

	gw_store16(packet + 36, gw_fold(pseudo_sum(packet, GW_PROTOCOL_TCP, 31)));
	tap_check(gw_finish_checksum(&header, packet, length) && gw_load16(packet + 36) == right,
		  "a checksum is completed");
	header.csum_offset = (uint16_t)(length - 21);
	tap_check(!gw_finish_checksum(&header, packet, length), "never beyond the end");
	free(packet);
}

/* --- merging */

struct piece {
	uint8_t *data;
	uint32_t length;
};

static struct piece piece_of(int version, uint32_t sequence, uint8_t flags, uint32_t payload)
{
	struct piece piece = {.data = malloc(HEADERS6 + payload)};

	piece.length = tcp_packet(piece.data, version, sequence, flags, payload);
	return piece;
}

static void test_merge(int version)
{
	uint32_t headers = version == 4 ? HEADERS4 : HEADERS6;
	struct piece first = piece_of(version, 1, FLAG_ACK, 1000);
	struct piece second = piece_of(version, 1001, FLAG_ACK, 1000);
	struct piece last = piece_of(version, 2001, FLAG_ACK | FLAG_PSH, 400);
	struct piece more = piece_of(version, 2401, FLAG_ACK, 400);
	uint8_t *whole = malloc(headers + 2400);
	uint32_t length = 0;
	struct gw_merge merge;

	gw_merge_begin(&merge, first.data, first.length);
	tap_check(gw_merge_add(&merge, second.data, second.length), "the next is added");
	tap_check(gw_merge_add(&merge, last.data, last.length), "and a shorter one");
	tap_check(!gw_merge_add(&merge, more.data, more.length), "which is the last");
	gw_merge_end(&merge);
	for (uint32_t i = 0; i < merge.count; i++) {
		memcpy(whole + length, merge.pieces[i].iov_base, merge.pieces[i].iov_len);
		length += (uint32_t)merge.pieces[i].iov_len;
	}
	tap_check(length == headers + 2400 && merge.bytes == length, "all of it is there");
	tap_check(merge.header.gso_size == 1000 && merge.header.hdr_len == headers,
		  "the kernel is told where to cut");
	tap_check(whole[headers - 7] == (FLAG_ACK | FLAG_PSH), "PSH is on the whole");
	tap_check(gw_finish_checksum(&merge.header, whole, length) &&
			  is_sound(whole, length, GW_PROTOCOL_TCP),
		  "its lengths are right, and its checksum when it is completed");
	free(whole);
	free(first.data);
	free(second.data);
	free(last.data);
	free(more.data);
}

static void test_merge_not(void)
{
	static const struct row {
		const char *name;
		uint32_t at; /* of the byte that differs in the second packet; 0: none */
		uint32_t sequence, payload;
		uint8_t first_flags, flags;
	} rows[] = {
		{"a gap", 0, 1002, 1000, FLAG_ACK, FLAG_ACK},
		{"a larger one", 0, 1001, 1001, FLAG_ACK, FLAG_ACK},
		{"nothing", 0, 1001, 0, FLAG_ACK, FLAG_ACK},
		{"behind PSH", 0, 1001, 1000, FLAG_ACK | FLAG_PSH, FLAG_ACK},
		{"a FIN", 0, 1001, 1000, FLAG_ACK, FLAG_ACK | FLAG_FIN},
		{"a wrong checksum", 50, 1001, 1000, FLAG_ACK, FLAG_ACK},
		{"another TOS", 1, 1001, 1000, FLAG_ACK, FLAG_ACK},
		{"another source", 15, 1001, 1000, FLAG_ACK, FLAG_ACK},
		{"another port", 23, 1001, 1000, FLAG_ACK, FLAG_ACK},
		{"another window", 34, 1001, 1000, FLAG_ACK, FLAG_ACK},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];
		struct piece first = piece_of(4, 1, row->first_flags, 1000);
		struct piece second = piece_of(4, row->sequence, row->flags, row->payload);
		struct gw_merge merge;

		if (row->at)
			second.data[row->at] ^= 1;
		gw_merge_begin(&merge, first.data, first.length);
		tap_check(!gw_merge_add(&merge, second.data, second.length), row->name);
		gw_merge_end(&merge);
		tap_check(merge.header.gso_type == VIRTIO_NET_HDR_GSO_NONE &&
				  merge.pieces[0].iov_len == first.length,
			  "the first goes alone");
		free(first.data);
		free(second.data);
	}
}

int main(void)
{
	test_cut(4, FLAG_ACK | FLAG_PSH | FLAG_CWR);
	test_cut(6, FLAG_ACK | FLAG_FIN);
	test_cut_udp();
	test_cut_nonsense();
	test_checksum();
	test_merge(4);
	test_merge(6);
	test_merge_not();
	return tap_end();
}
