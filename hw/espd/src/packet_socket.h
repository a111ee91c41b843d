/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receiving through AF_PACKET: for io_packet.c, which sees frames, and io_raw.c, which sees IP
 * packets.
 *
 * Sockets, not a mapped ring: a ring has a copy into it and a second one out of it, into the frame
 * where a packet is opened in place; recvmmsg copies once, straight into that frame.
 */
#ifndef GW_PACKET_SOCKET_H
#define GW_PACKET_SOCKET_H

#include <stdalign.h>
#include <sys/socket.h>

#include "io.h"
#include "offload.h"

#define GW_RECEIVE_SLOTS 64u
#define GW_SEND_SLOTS    64u
/* CMSG_SPACE of a struct tpacket_auxdata. */
#define GW_AUXILIARY_BYTES 40
/* ESP and AH, each over IPv4 and IPv6. */
#define GW_QUIET_SOCKETS 4

struct gw_packet_receiver {
	int fd; /* or -1 */
	/* Where the kernel sees what we also see, it says "protocol unreachable" if nobody listens. These
	 * take all ESP and AH of this network namespace and throw it away. */
	int quiet[GW_QUIET_SOCKETS];
	struct gw_pool *pool;
	bool strips;  /* packets begin with the IP header, wherever that is in a frame */
	uint32_t cut; /* bytes in front of the packets that are being cut */
	struct gw_segments segments; /* of a super-frame in `spill` that is still being cut */
	bool is_cutting;
	uint32_t frames[GW_RECEIVE_SLOTS]; /* GW_NO_FRAME, or ready to receive into */
	struct virtio_net_hdr headers[GW_RECEIVE_SLOTS];
	struct iovec pieces[GW_RECEIVE_SLOTS][3];
	/* Where the IP header is, whatever the link has in front of it (struct tpacket_auxdata). */
	alignas(struct cmsghdr) uint8_t controls[GW_RECEIVE_SLOTS][GW_AUXILIARY_BYTES];
	struct mmsghdr messages[GW_RECEIVE_SLOTS];
	uint8_t *spill;  /* for each slot, what does not fit a frame */
	uint32_t next;   /* of the messages at hand, the one to look at */
	uint32_t filled; /* how many there are */
};

/**
 * gw_packet_receiver_init() - make a receiver that is not open.
 * @receiver: filled in; may be closed.
 * @pool: kept.
 */
void gw_packet_receiver_init(struct gw_packet_receiver *receiver, struct gw_pool *pool);

/**
 * gw_packet_receiver_open() - open a socket that hears IPsec packets; or all of IP, where a device
 * has clear traffic or the agent says so.
 * @receiver: initialized; at failure to be closed nevertheless.
 * @options: queue, device and pool.
 * @layer: what packets begin with.
 * @why: GW_IO_WHY_BYTES.
 *
 * Frames with a VLAN tag, of other hosts, and those we send are not heard.
 * Return: 0, or -errno.
 */
int gw_packet_receiver_open(struct gw_packet_receiver *receiver,
			    const struct gw_io_options *options, enum gw_layer layer, char *why);

/**
 * gw_packet_receive() - gw_io_method.receive of such a socket.
 * @receiver: open.
 * @packets: as there.
 * @max: as there.
 * @counters: counted in.
 */
unsigned int gw_packet_receive(struct gw_packet_receiver *receiver, struct gw_packet *packets,
			       unsigned int max, struct gw_io_counters *counters);

/**
 * gw_packet_receiver_lost() - read how many packets the kernel dropped since the last call.
 * @receiver: open or not.
 */
uint64_t gw_packet_receiver_lost(const struct gw_packet_receiver *receiver);

/**
 * gw_packet_receiver_close() - return everything.
 * @receiver: open, or failed to.
 */
void gw_packet_receiver_close(struct gw_packet_receiver *receiver);

/**
 * gw_packet_receiver_save() - name its descriptors for another process, behind those there are.
 * @receiver: open or not, drained.
 * @fds: 1 + GW_QUIET_SOCKETS, written.
 */
void gw_packet_receiver_save(const struct gw_packet_receiver *receiver, int *fds);

/**
 * gw_packet_receiver_restore() - go on with sockets of another process.
 * @receiver: initialized; at failure to be closed nevertheless, without them.
 * @fds: of gw_packet_receiver_save(); taken on success.
 * @layer: what packets begin with.
 * @why: GW_IO_WHY_BYTES.
 *
 * Return: 0, or -errno.
 */
int gw_packet_receiver_restore(struct gw_packet_receiver *receiver, const int *fds,
			       enum gw_layer layer, char *why);

/**
 * gw_packet_receiver_descriptor() - gw_io_method.descriptors of such a socket.
 * @receiver: open or not.
 * @fds: as there.
 * @max: as there.
 */
unsigned int gw_packet_receiver_descriptor(const struct gw_packet_receiver *receiver,
					   struct pollfd *fds, unsigned int max);

/* Send up to GW_SEND_SLOTS packets: how many are done with, 0 when no more are taken. */
typedef unsigned int (*gw_send_some)(struct gw_io *io, const struct gw_packet *packets,
				     unsigned int count);

/**
 * gw_send_copied() - gw_io_method.send, for methods whose kernel side copies: by rounds of some.
 * @io: for @some.
 * @packets: as there.
 * @count: as there.
 * @some: called until it takes no more.
 */
unsigned int gw_send_copied(struct gw_io *io, const struct gw_packet *packets, unsigned int count,
			    gw_send_some some);

/**
 * gw_io_fail() - write why, from errno.
 * @why: GW_IO_WHY_BYTES.
 * @what: that was refused.
 *
 * Return: -errno.
 */
int gw_io_fail(char *why, const char *what);

#endif
