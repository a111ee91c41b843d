/* SPDX-License-Identifier: Apache-2.0 */
#include "offload.h"

#include <string.h>

#include "bytes.h"
#include "ip.h"

#define TCP_BYTES      20u
#define TCP_CHECKSUM   16u
#define UDP_CHECKSUM   6u
#define TCP_FLAGS      13u
#define TCP_FIN        0x01u
#define TCP_PSH        0x08u
#define TCP_ACK        0x10u
#define TCP_CWR        0x80u
#define GSO_UDP_L4     5 /* VIRTIO_NET_HDR_GSO_UDP_L4, Linux 6.2 */
#define WORTH_MERGING  256u
#define MAX_IPV4_BYTES 60u

bool gw_finish_checksum(const struct virtio_net_hdr *header, uint8_t *frame, uint32_t length)
{
	uint32_t start = header->csum_start, field = start + header->csum_offset;
	uint16_t checksum;

	if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return true;
	if (field + 2 > length || start >= length)
		return false;
	/* The field holds the sum of the pseudo-header. */
	checksum = (uint16_t)~gw_fold(gw_sum(frame + start, length - start));
	gw_store16(frame + field, checksum ? checksum : 0xffff);
	return true;
}

static uint64_t pseudo_sum(const uint8_t *ip, uint8_t protocol, uint32_t bytes)
{
	bool is_ipv6 = ip[0] >> 4 == 6;

	return gw_sum(ip + (is_ipv6 ? 8 : 12), is_ipv6 ? 32 : 8) + protocol + bytes;
}

/* --- cutting */

static bool find_payload(struct gw_segments *segments)
{
	const uint8_t *at = segments->frame + segments->transport;
	uint32_t left;

	if (segments->transport > segments->length)
		return false;
	left = segments->length - segments->transport;
	if (!segments->is_tcp) {
		segments->headers = segments->transport + GW_UDP_BYTES;
		return left > GW_UDP_BYTES;
	}
	if (left < TCP_BYTES)
		return false;
	segments->headers = segments->transport + (uint32_t)(at[12] >> 4) * 4;
	segments->sequence = gw_load32(at + 4);
	return (at[12] >> 4) >= 5 && segments->headers < segments->length;
}

bool gw_segments_init(struct gw_segments *segments, const struct virtio_net_hdr *header,
		      const uint8_t *frame, uint32_t length, uint32_t ip)
{
	uint8_t type = header->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
	const uint8_t *at = frame + ip;

	if (length < ip + GW_IPV6_BYTES || header->gso_size == 0)
		return false;
	*segments = (struct gw_segments){
		.frame = frame,
		.length = length,
		.ip = ip,
		.size = header->gso_size,
		.is_ipv6 = at[0] >> 4 == 6,
		.is_tcp = type != GSO_UDP_L4,
		.has_checksums = true,
	};
	if (type != VIRTIO_NET_HDR_GSO_TCPV4 && type != VIRTIO_NET_HDR_GSO_TCPV6 &&
	    type != GSO_UDP_L4)
		return false;
	if (type != GSO_UDP_L4 && (type == VIRTIO_NET_HDR_GSO_TCPV6) != segments->is_ipv6)
		return false;
	/* Where the kernel put it: behind extension headers, if there are any. */
	segments->transport = header->csum_start;
	if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || header->csum_start <= ip)
		return false;
	if (!segments->is_ipv6)
		segments->identification = gw_load16(at + 4);
	if (segments->transport < ip + (segments->is_ipv6 ? GW_IPV6_BYTES : GW_IPV4_BYTES) ||
	    !find_payload(segments))
		return false;
	segments->offset = segments->headers;
	return true;
}

static void write_ip(const struct gw_segments *segments, uint8_t *ip, uint32_t length)
{
	uint32_t header = (uint32_t)(ip[0] & 0x0f) * 4;

	if (segments->is_ipv6) {
		gw_store16(ip + 4, (uint16_t)(length - GW_IPV6_BYTES));
		return;
	}
	gw_store16(ip + 2, (uint16_t)length);
	gw_store16(ip + 4, (uint16_t)(segments->identification + segments->number));
	gw_store16(ip + 10, 0);
	gw_store16(ip + 10, (uint16_t)~gw_fold(gw_sum(ip, header)));
}

static void write_tcp(const struct gw_segments *segments, uint8_t *tcp, bool is_last)
{
	gw_store32(tcp + 4, segments->sequence + (segments->offset - segments->headers));
	if (!is_last)
		tcp[TCP_FLAGS] &= (uint8_t) ~(TCP_FIN | TCP_PSH);
	if (segments->number > 0)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR; /* RFC 3168 §6.1.2: on the first only */
}

uint32_t gw_segments_next(struct gw_segments *segments, uint8_t *to, uint32_t room)
{
	uint32_t left = segments->length - segments->offset;
	uint32_t payload = left < segments->size ? left : segments->size;
	uint32_t length = segments->headers + payload;
	uint32_t transport_bytes = length - segments->transport;
	uint8_t *ip = to + segments->ip, *transport = to + segments->transport;
	uint8_t protocol = segments->is_tcp ? GW_PROTOCOL_TCP : GW_PROTOCOL_UDP;
	uint8_t *field = transport + (segments->is_tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
	uint16_t checksum;

	if (left == 0 || length > room) {
		segments->offset = segments->length;
		return 0;
	}
	memcpy(to, segments->frame, segments->headers);
	memcpy(to + segments->headers, segments->frame + segments->offset, payload);
	write_ip(segments, ip, length - segments->ip);
	if (segments->is_tcp)
		write_tcp(segments, transport, payload == left);
	else
		gw_store16(transport + 4, (uint16_t)transport_bytes);
	gw_store16(field, 0);
	segments->offset += payload;
	segments->number++;
	if (!segments->has_checksums && !segments->is_tcp)
		return length;
	checksum = (uint16_t)~gw_fold(gw_sum(transport, transport_bytes) +
				      pseudo_sum(ip, protocol, transport_bytes));
	gw_store16(field, checksum ? checksum : 0xffff);
	return length;
}

/* --- merging */

/* Describe a packet that may be merged: TCP with data, nothing but ACK and PSH, no IP options. */
static bool look_at(const uint8_t *packet, uint32_t length, uint32_t *ip, uint32_t *headers)
{
	const uint8_t *tcp;

	*ip = packet[0] >> 4 == 4 ? GW_IPV4_BYTES : GW_IPV6_BYTES;
	if (length < *ip + TCP_BYTES)
		return false;
	if (*ip == GW_IPV4_BYTES &&
	    (packet[0] != 0x45 || packet[9] != GW_PROTOCOL_TCP ||
	     gw_load16(packet + 6) & GW_IPV4_MF_OR_OFFSET || gw_load16(packet + 2) != length ||
	     gw_fold(gw_sum(packet, GW_IPV4_BYTES)) != 0xffff))
		return false;
	if (*ip == GW_IPV6_BYTES && (packet[0] >> 4 != 6 || packet[6] != GW_PROTOCOL_TCP ||
				     gw_load16(packet + 4) + GW_IPV6_BYTES != length))
		return false;
	tcp = packet + *ip;
	*headers = *ip + (uint32_t)(tcp[12] >> 4) * 4;
	if (*headers < *ip + TCP_BYTES || *headers >= length)
		return false;
	return (tcp[TCP_FLAGS] & (uint8_t)~TCP_PSH) == TCP_ACK;
}

static bool is_sound(const uint8_t *packet, uint32_t length, uint32_t ip)
{
	return gw_fold(gw_sum(packet + ip, length - ip) +
		       pseudo_sum(packet, GW_PROTOCOL_TCP, length - ip)) == 0xffff;
}

void gw_merge_begin(struct gw_merge *merge, uint8_t *packet, uint32_t length)
{
	uint32_t ip, headers;

	merge->header = (struct virtio_net_hdr){0};
	merge->pieces[0] = (struct iovec){.iov_base = packet, .iov_len = length};
	merge->count = 1;
	merge->bytes = length;
	merge->is_last = true;
	if (!look_at(packet, length, &ip, &headers) || packet[ip + TCP_FLAGS] & TCP_PSH ||
	    length - headers < WORTH_MERGING)
		return;
	merge->ip = ip;
	merge->headers = headers;
	merge->size = length - headers;
	merge->next_sequence = gw_load32(packet + ip + 4) + merge->size;
	merge->is_last = !is_sound(packet, length, ip);
}

/* All headers are equal, but for lengths, identification, sequence number, PSH and checksums. */
static bool is_same_flow(const struct gw_merge *merge, const uint8_t *packet, uint32_t headers)
{
	const uint8_t *first = merge->pieces[0].iov_base;
	uint32_t ip = merge->ip;

	if (headers != merge->headers)
		return false;
	if (ip == GW_IPV4_BYTES) {
		if (memcmp(first, packet, 2) != 0 || memcmp(first + 6, packet + 6, 4) != 0 ||
		    memcmp(first + 12, packet + 12, 8) != 0)
			return false;
	} else if (memcmp(first, packet, 4) != 0 || memcmp(first + 6, packet + 6, 34) != 0) {
		return false;
	}
	/* Ports; acknowledgement number and data offset; window; options. */
	return memcmp(first + ip, packet + ip, 4) == 0 &&
	       memcmp(first + ip + 8, packet + ip + 8, 5) == 0 &&
	       memcmp(first + ip + 14, packet + ip + 14, 2) == 0 &&
	       memcmp(first + ip + TCP_BYTES, packet + ip + TCP_BYTES, headers - ip - TCP_BYTES) ==
		       0;
}

bool gw_merge_add(struct gw_merge *merge, uint8_t *packet, uint32_t length)
{
	uint32_t ip, headers, payload;

	if (merge->is_last || merge->count == GW_MAX_MERGED ||
	    !look_at(packet, length, &ip, &headers) || ip != merge->ip)
		return false;
	payload = length - headers;
	if (payload > merge->size || merge->bytes + payload > GW_MAX_IP_BYTES ||
	    gw_load32(packet + ip + 4) != merge->next_sequence ||
	    !is_same_flow(merge, packet, headers) || !is_sound(packet, length, ip))
		return false;
	merge->pieces[merge->count++] =
		(struct iovec){.iov_base = packet + headers, .iov_len = payload};
	merge->bytes += payload;
	merge->next_sequence += payload;
	merge->is_last = payload < merge->size || packet[ip + TCP_FLAGS] & TCP_PSH;
	if (packet[ip + TCP_FLAGS] & TCP_PSH)
		((uint8_t *)merge->pieces[0].iov_base)[ip + TCP_FLAGS] |= TCP_PSH;
	return true;
}

void gw_merge_end(struct gw_merge *merge)
{
	uint8_t *packet = merge->pieces[0].iov_base;
	uint32_t tcp_bytes = merge->bytes - merge->ip;

	if (merge->count == 1)
		return;
	merge->header = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = merge->ip == GW_IPV4_BYTES ? VIRTIO_NET_HDR_GSO_TCPV4
						       : VIRTIO_NET_HDR_GSO_TCPV6,
		.hdr_len = (uint16_t)merge->headers,
		.gso_size = (uint16_t)merge->size,
		.csum_start = (uint16_t)merge->ip,
		.csum_offset = TCP_CHECKSUM,
	};
	if (merge->ip == GW_IPV4_BYTES) {
		gw_store16(packet + 2, (uint16_t)merge->bytes);
		gw_store16(packet + 10, 0);
		gw_store16(packet + 10, (uint16_t)~gw_fold(gw_sum(packet, GW_IPV4_BYTES)));
	} else {
		gw_store16(packet + 4, (uint16_t)(merge->bytes - GW_IPV6_BYTES));
	}
	gw_store16(packet + merge->ip + TCP_CHECKSUM,
		   gw_fold(pseudo_sum(packet, GW_PROTOCOL_TCP, tcp_bytes)));
}
