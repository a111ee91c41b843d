/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel leaves to a device that offloads: checksums half done, and super-frames of up to
 * 64 KB that stand for many packets of one flow (virtio_net_hdr, virtio 1.2 §5.1.6). Here they
 * become packets, and packets become super-frames again.
 */
#ifndef GW_OFFLOAD_H
#define GW_OFFLOAD_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define GW_SUPER_BYTES (65535u + 14u + 8u)
/* A super-frame of the smallest packets worth it. */
#define GW_MAX_MERGED 64u

/* A super-frame that is being cut. */
struct gw_segments {
	const uint8_t *frame; /* what it begins with: Ethernet or IP header */
	uint32_t length;
	uint32_t ip;        /* where the IP header is */
	uint32_t transport; /* where the TCP or UDP header is */
	uint32_t headers;   /* bytes in front of the payload, all of them */
	uint32_t size;      /* payload of each packet but the last */
	uint32_t offset; /* of the payload, where the next packet begins; `length`: none is left */
	uint32_t sequence; /* of TCP: that of the first byte */
	uint16_t identification;
	uint16_t number;
	bool is_ipv6;
	bool is_tcp;
	bool has_checksums; /* else UDP's are zero; may be set after gw_segments_init() */
};

/**
 * gw_finish_checksum() - complete a checksum that the kernel began.
 * @header: VIRTIO_NET_HDR_F_NEEDS_CSUM may be set.
 * @frame: what the header came with.
 * @length: bytes of it.
 *
 * Return: false where the header points outside of the frame.
 */
bool gw_finish_checksum(const struct virtio_net_hdr *header, uint8_t *frame, uint32_t length);

/**
 * gw_segments_init() - look at a super-frame.
 * @segments: filled in; refers to @frame.
 * @header: its gso_type is not VIRTIO_NET_HDR_GSO_NONE.
 * @frame: Ethernet or IP header first.
 * @length: bytes of it.
 * @ip: where the IP header is.
 *
 * Return: false where it is none that we know (TCP over IPv4 or IPv6, UDP with equal sizes).
 */
bool gw_segments_init(struct gw_segments *segments, const struct virtio_net_hdr *header,
		      const uint8_t *frame, uint32_t length, uint32_t ip);

/**
 * gw_segments_next() - write the next packet of a super-frame, checksums and all.
 * @segments: see gw_segments_init.
 * @to: where it goes.
 * @room: bytes there.
 *
 * Return: its size; 0 when none is left, or it does not fit: then none is left either.
 */
uint32_t gw_segments_next(struct gw_segments *segments, uint8_t *to, uint32_t room);

/* Packets of one TCP flow that follow each other. */
struct gw_merge {
	struct virtio_net_hdr header; /* filled in by gw_merge_end */
	struct iovec pieces[GW_MAX_MERGED];
	uint32_t count;
	uint32_t bytes; /* of all pieces */
	uint32_t ip;    /* bytes of the IP header */
	uint32_t headers;
	uint32_t size;          /* payload of each packet */
	uint32_t next_sequence; /* of TCP */
	bool is_last;           /* a shorter one came: nothing may follow it */
};

/**
 * gw_merge_begin() - begin with one packet, whatever it is.
 * @merge: filled in.
 * @packet: an IP packet; it is changed by gw_merge_end where others follow.
 * @length: bytes of it.
 */
void gw_merge_begin(struct gw_merge *merge, uint8_t *packet, uint32_t length);

/**
 * gw_merge_add() - add the packet that came next, if it goes on where the last one ended.
 * @merge: see gw_merge_begin.
 * @packet: as there.
 * @length: bytes of it.
 *
 * As in the kernel's GRO all but length, identification and sequence must be equal, PSH may be set
 * on the last. Checksums must be right: a wrong one ends the merging, and is passed on as it is.
 * Return: false: it begins a frame of its own.
 */
bool gw_merge_add(struct gw_merge *merge, uint8_t *packet, uint32_t length);

/**
 * gw_merge_end() - make the headers of what was merged.
 * @merge: its header and the first piece are written; a single packet stays as it is.
 */
void gw_merge_end(struct gw_merge *merge);

#endif
