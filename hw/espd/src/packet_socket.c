/* SPDX-License-Identifier: Apache-2.0 */
#include "packet_socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ip.h"

#define RECEIVE_BUFFER_BYTES (8 << 20)
#define SPILL_BYTES          (128u << 10)

/* Linux 4.20 and 5.8; older headers do not name it. */
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
/* Headers of Linux 6.1 do not name it. */
#ifndef PACKET_FANOUT_FLAG_IGNORE_OUTGOING
#define PACKET_FANOUT_FLAG_IGNORE_OUTGOING 0x4000u
#endif

int gw_io_fail(char *why, const char *what)
{
	int error = errno;

	snprintf(why, GW_IO_WHY_BYTES, "%s: %s%s", what, strerror(error),
		 error == EPERM || error == EACCES ? "; it needs CAP_NET_RAW and CAP_NET_ADMIN"
						   : "");
	return -error;
}

/* --- what is heard */

#define AT(offset)               ((uint32_t)SKF_NET_OFF + (offset))
#define AD(what)                 ((uint32_t)SKF_AD_OFF + (what))
#define LOAD_WORD(at)            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define LOAD_HALF(at)            BPF_STMT(BPF_LD | BPF_H | BPF_ABS, at)
#define LOAD_BYTE(at)            BPF_STMT(BPF_LD | BPF_B | BPF_ABS, at)
#define IF_EQUAL(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)

static int attach_filter(int fd, bool all)
{
	/* Untagged frames for this host. Jumps count from the next instruction. */
	struct sock_filter ipsec[] = {
		/*  0 */ LOAD_WORD(AD(SKF_AD_VLAN_TAG_PRESENT)),
		/*  1 */ IF_EQUAL(0, 0, 32),
		/*  2 */ LOAD_WORD(AD(SKF_AD_PKTTYPE)),
		/*  3 */ IF_EQUAL(PACKET_HOST, 0, 30),
		/*  4 */ LOAD_WORD(AD(SKF_AD_PROTOCOL)),
		/*  5 */ IF_EQUAL(ETH_P_IPV6, 12, 0),
		/*  6 */ IF_EQUAL(ETH_P_IP, 0, 27),
		/*  7 */ LOAD_BYTE(AT(9)),
		/*  8 */ IF_EQUAL(GW_PROTOCOL_ESP, 26, 0),
		/*  9 */ IF_EQUAL(GW_PROTOCOL_AH, 25, 0),
		/* 10 */ IF_EQUAL(GW_PROTOCOL_UDP, 0, 23),
		/* 11 */ LOAD_HALF(AT(6)),
		/* 12 */ BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x1fff, 21, 0),
		/* 13 */ BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, AT(0)),
		/* 14 */ BPF_STMT(BPF_LD | BPF_H | BPF_IND, AT(2)),
		/* 15 */ IF_EQUAL(GW_UDP_ENCAPSULATION_PORT, 0, 18),
		/* 16 */ BPF_STMT(BPF_LD | BPF_W | BPF_IND, AT(8)),
		/* 17 */ IF_EQUAL(0, 16, 17), /* the non-ESP marker: IKE */
		/* 18 */ LOAD_BYTE(AT(6)),
		/* 19 */ IF_EQUAL(GW_PROTOCOL_ESP, 15, 0),
		/* 20 */ IF_EQUAL(GW_PROTOCOL_AH, 14, 0),
		/* Behind extension headers there may be either. */
		/* 21 */ IF_EQUAL(GW_PROTOCOL_HOP_BY_HOP, 13, 0),
		/* 22 */ IF_EQUAL(GW_PROTOCOL_ROUTING, 12, 0),
		/* 23 */ IF_EQUAL(GW_PROTOCOL_DESTINATION_OPTIONS, 11, 0),
		/* 24 */ IF_EQUAL(GW_PROTOCOL_FRAGMENT, 0, 4),
		/* 25 */ LOAD_BYTE(AT(40)),
		/* 26 */ IF_EQUAL(GW_PROTOCOL_ESP, 8, 0),
		/* 27 */ IF_EQUAL(GW_PROTOCOL_AH, 7, 0),
		/* 28 */ IF_EQUAL(GW_PROTOCOL_UDP, 6, 5),
		/* 29 */ IF_EQUAL(GW_PROTOCOL_UDP, 0, 4),
		/* 30 */ LOAD_HALF(AT(42)),
		/* 31 */ IF_EQUAL(GW_UDP_ENCAPSULATION_PORT, 0, 2),
		/* 32 */ LOAD_WORD(AT(48)),
		/* 33 */ IF_EQUAL(0, 0, 1),
		/* 34 */ BPF_STMT(BPF_RET | BPF_K, 0),
		/* 35 */ BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_filter ip[] = {
		/* 0 */ LOAD_WORD(AD(SKF_AD_VLAN_TAG_PRESENT)),
		/* 1 */ IF_EQUAL(0, 0, 5),
		/* 2 */ LOAD_WORD(AD(SKF_AD_PKTTYPE)),
		/* 3 */ IF_EQUAL(PACKET_HOST, 0, 3),
		/* 4 */ LOAD_WORD(AD(SKF_AD_PROTOCOL)),
		/* 5 */ IF_EQUAL(ETH_P_IP, 2, 0),
		/* 6 */ IF_EQUAL(ETH_P_IPV6, 1, 0),
		/* 7 */ BPF_STMT(BPF_RET | BPF_K, 0),
		/* 8 */ BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog program = {
		.len = all ? sizeof(ip) / sizeof(ip[0]) : sizeof(ipsec) / sizeof(ipsec[0]),
		.filter = all ? ip : ipsec,
	};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

/* --- keeping the kernel quiet */

static int open_quiet(int fds[GW_QUIET_SOCKETS], char *why)
{
	static const struct {
		int family, protocol;
	} kinds[GW_QUIET_SOCKETS] = {
		{AF_INET, IPPROTO_ESP},
		{AF_INET, IPPROTO_AH},
		{AF_INET6, IPPROTO_ESP},
		{AF_INET6, IPPROTO_AH},
	};
	struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
	struct sock_fprog program = {.len = 1, .filter = nothing};

	for (int i = 0; i < GW_QUIET_SOCKETS; i++) {
		fds[i] = socket(kinds[i].family, SOCK_RAW | SOCK_CLOEXEC, kinds[i].protocol);
		if (fds[i] < 0 && errno == EAFNOSUPPORT)
			continue; /* a machine without IPv6 says nothing over it either */
		if (fds[i] < 0 ||
		    setsockopt(fds[i], SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)))
			return gw_io_fail(why, "a raw socket for ESP and AH");
	}
	return 0;
}

/* --- opening */

/*
 * Share the packets of a device among its queues. A group may be of one: only groups have the kernel
 * reassemble fragments of IPv4 before it looks at the filter, as ESP wants it (RFC 4303 §3.4.1).
 */
static int join_queues(int fd, const struct gw_io_options *options)
{
	const struct gw_control_device *device = options->device;
	uint32_t flags = device->flags & GW_DEVICE_PROTECTED ? PACKET_FANOUT_FLAG_DEFRAG : 0;
	/* One group for all queues of a device, and of this process. */
	uint32_t group = (device->ifindex * 31 + (uint32_t)getpid()) & 0xffff;
	uint32_t value = group | (PACKET_FANOUT_HASH | flags) << 16;
	uint32_t quiet = value | PACKET_FANOUT_FLAG_IGNORE_OUTGOING << 16;

	if (device->queues < 2 && flags == 0)
		return 0;
	/* A group hears for its sockets, and what these ignore only where it is told the same: else
	 * fragments on their way out would be put together with those that come in. */
	if (setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &quiet, sizeof(quiet)) == 0)
		return 0;
	return setsockopt(fd, SOL_PACKET, PACKET_FANOUT, &value, sizeof(value));
}

static int set_up(int fd, const struct gw_io_options *options)
{
	const struct gw_control_device *device = options->device;
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)device->ifindex,
	};
	int on = 1, bytes = RECEIVE_BUFFER_BYTES;

	/* Before it is bound it hears nothing; with the filter, nothing that it should not. */
	return attach_filter(fd, device->flags & GW_DEVICE_ALL_FRAMES ||
					 device->flags & GW_DEVICE_CLEAR) ||
	       setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	       setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	       setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) ||
	       setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) ||
	       bind(fd, (struct sockaddr *)&address, sizeof(address)) || join_queues(fd, options);
}

static void prepare_slots(struct gw_packet_receiver *receiver)
{
	for (uint32_t i = 0; i < GW_RECEIVE_SLOTS; i++) {
		struct iovec *pieces = receiver->pieces[i];

		pieces[0].iov_base = &receiver->headers[i];
		pieces[0].iov_len = sizeof(receiver->headers[i]);
		pieces[1].iov_len = gw_frame_room(receiver->pool);
		/* The part before is for what lies in the frame, so that both become one. */
		pieces[2].iov_base = receiver->spill + (size_t)i * SPILL_BYTES + pieces[1].iov_len;
		pieces[2].iov_len = SPILL_BYTES - pieces[1].iov_len;
		receiver->messages[i].msg_hdr = (struct msghdr){
			.msg_iov = pieces,
			.msg_iovlen = 3,
			.msg_control = receiver->controls[i],
		};
	}
}

void gw_packet_receiver_init(struct gw_packet_receiver *receiver, struct gw_pool *pool)
{
	*receiver = (struct gw_packet_receiver){.fd = -1, .pool = pool};
	for (uint32_t i = 0; i < GW_QUIET_SOCKETS; i++)
		receiver->quiet[i] = -1;
	for (uint32_t i = 0; i < GW_RECEIVE_SLOTS; i++)
		receiver->frames[i] = GW_NO_FRAME;
}

/* Have memory to receive into. */
static int make_slots(struct gw_packet_receiver *receiver, enum gw_layer layer, char *why)
{
	receiver->strips = layer == GW_LAYER_IP;
	receiver->spill = mmap(NULL, (size_t)GW_RECEIVE_SLOTS * SPILL_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (receiver->spill == MAP_FAILED) {
		receiver->spill = NULL;
		return gw_io_fail(why, "memory for super-frames");
	}
	prepare_slots(receiver);
	return 0;
}

int gw_packet_receiver_open(struct gw_packet_receiver *receiver,
			    const struct gw_io_options *options, enum gw_layer layer, char *why)
{
	int error;

	/* The kernel puts a virtio_net_hdr before frames only, so those it is, with links of any kind. */
	receiver->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (receiver->fd < 0)
		return gw_io_fail(why, "an AF_PACKET socket");
	error = make_slots(receiver, layer, why);
	if (error)
		return error;
	if (set_up(receiver->fd, options))
		return gw_io_fail(why, "to receive through AF_PACKET");
	return options->device->flags & GW_DEVICE_PROTECTED ? open_quiet(receiver->quiet, why) : 0;
}

void gw_packet_receiver_close(struct gw_packet_receiver *receiver)
{
	if (receiver->fd >= 0)
		close(receiver->fd);
	receiver->fd = -1;
	for (uint32_t i = 0; i < GW_QUIET_SOCKETS; i++)
		if (receiver->quiet[i] >= 0)
			close(receiver->quiet[i]);
	for (uint32_t i = 0; i < GW_RECEIVE_SLOTS; i++)
		if (receiver->frames[i] != GW_NO_FRAME)
			gw_pool_return(receiver->pool, receiver->frames[i]);
	if (receiver->spill)
		munmap(receiver->spill, (size_t)GW_RECEIVE_SLOTS * SPILL_BYTES);
	receiver->spill = NULL;
}

void gw_packet_receiver_save(const struct gw_packet_receiver *receiver, int *fds)
{
	fds[0] = receiver->fd;
	memcpy(fds + 1, receiver->quiet, sizeof(receiver->quiet));
}

int gw_packet_receiver_restore(struct gw_packet_receiver *receiver, const int *fds,
			       enum gw_layer layer, char *why)
{
	int error = fds[0] < 0 ? 0 : make_slots(receiver, layer, why);

	if (error)
		return error;
	receiver->fd = fds[0];
	memcpy(receiver->quiet, fds + 1, sizeof(receiver->quiet));
	return 0;
}

/* --- receiving */

static uint32_t refill(struct gw_packet_receiver *receiver, uint32_t wanted)
{
	uint32_t ready = 0;

	for (; ready < wanted; ready++) {
		uint32_t *frame = &receiver->frames[ready];

		if (*frame == GW_NO_FRAME)
			*frame = gw_pool_take(receiver->pool);
		if (*frame == GW_NO_FRAME)
			break;
		receiver->pieces[ready][1].iov_base =
			gw_frame_start(receiver->pool, *frame) + GW_FRAME_DATA;
		receiver->messages[ready].msg_hdr.msg_controllen = sizeof(receiver->controls[0]);
	}
	return ready;
}

static unsigned int cut(struct gw_packet_receiver *receiver, struct gw_packet *packets,
			unsigned int max)
{
	struct gw_pool *pool = receiver->pool;
	unsigned int count = 0;

	while (count < max) {
		uint32_t frame = gw_pool_take(pool), length;

		if (frame == GW_NO_FRAME)
			break; /* what is left waits for frames */
		length = gw_segments_next(&receiver->segments,
					  gw_frame_start(pool, frame) + GW_FRAME_DATA,
					  gw_frame_room(pool));
		if (length == 0) {
			gw_pool_return(pool, frame);
			receiver->is_cutting = false;
			break;
		}
		gw_frame_describe(pool, frame, GW_FRAME_DATA + receiver->cut,
				  length - receiver->cut, &packets[count++]);
	}
	return count;
}

/* Where the IP header of a frame is; the kernel knows the link. */
static uint32_t find_ip(struct gw_packet_receiver *receiver, uint32_t slot)
{
	struct msghdr *message = &receiver->messages[slot].msg_hdr;
	struct tpacket_auxdata auxiliary;

	for (struct cmsghdr *at = CMSG_FIRSTHDR(message); at; at = CMSG_NXTHDR(message, at))
		if (at->cmsg_level == SOL_PACKET && at->cmsg_type == PACKET_AUXDATA) {
			memcpy(&auxiliary, CMSG_DATA(at), sizeof(auxiliary));
			return auxiliary.tp_net;
		}
	return ETH_HLEN;
}

/* Take one message: a packet, or a super-frame to cut. Return whether it is one packet. */
static bool take(struct gw_packet_receiver *receiver, uint32_t slot, struct gw_packet *packet,
		 struct gw_io_counters *counters)
{
	const struct virtio_net_hdr *header = &receiver->headers[slot];
	uint32_t room = (uint32_t)receiver->pieces[slot][1].iov_len;
	uint32_t length = receiver->messages[slot].msg_len;
	uint8_t *frame = receiver->pieces[slot][1].iov_base;
	uint32_t ip = find_ip(receiver, slot);

	receiver->cut = receiver->strips ? ip : 0;
	if (length <= sizeof(*header) + ip || length - sizeof(*header) > SPILL_BYTES) {
		counters->receive_lost++;
		return false;
	}
	length -= (uint32_t)sizeof(*header);
	counters->received_bytes += length - receiver->cut;
	if (header->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		if (length > room || !gw_finish_checksum(header, frame, length)) {
			counters->receive_lost++;
			return false;
		}
		gw_frame_describe(receiver->pool, receiver->frames[slot],
				  GW_FRAME_DATA + receiver->cut, length - receiver->cut, packet);
		receiver->frames[slot] = GW_NO_FRAME;
		return true;
	}
	if (length > room) {
		memcpy((uint8_t *)receiver->pieces[slot][2].iov_base - room, frame, room);
		frame = (uint8_t *)receiver->pieces[slot][2].iov_base - room;
	}
	receiver->is_cutting = gw_segments_init(&receiver->segments, header, frame, length, ip);
	/* What is encapsulated in UDP has a better checksum than UDP's, and we are its end. */
	receiver->segments.has_checksums = !receiver->strips;
	counters->received_supers += receiver->is_cutting;
	counters->receive_lost += !receiver->is_cutting;
	return false;
}

static bool fetch(struct gw_packet_receiver *receiver, unsigned int max)
{
	uint32_t wanted = max < GW_RECEIVE_SLOTS ? max : GW_RECEIVE_SLOTS;
	uint32_t ready = refill(receiver, wanted);
	int got;

	receiver->next = receiver->filled = 0;
	if (ready == 0)
		return false;
	got = recvmmsg(receiver->fd, receiver->messages, ready, MSG_DONTWAIT | MSG_TRUNC, NULL);
	if (got <= 0)
		return false;
	receiver->filled = (uint32_t)got;
	return true;
}

unsigned int gw_packet_receive(struct gw_packet_receiver *receiver, struct gw_packet *packets,
			       unsigned int max, struct gw_io_counters *counters)
{
	unsigned int count = 0;

	while (count < max) {
		if (receiver->is_cutting) {
			count += cut(receiver, packets + count, max - count);
			if (receiver->is_cutting)
				break;
			continue;
		}
		/* One system call for each call of ours: others want their turn. */
		if (receiver->next == receiver->filled &&
		    (count > 0 || receiver->pool->is_draining || !fetch(receiver, max - count)))
			break;
		count += take(receiver, receiver->next++, &packets[count], counters);
	}
	counters->received_packets += count;
	return count;
}

uint64_t gw_packet_receiver_lost(const struct gw_packet_receiver *receiver)
{
	struct tpacket_stats stats = {0};
	socklen_t bytes = sizeof(stats);

	/* Reading it sets it back. */
	if (receiver->fd < 0 ||
	    getsockopt(receiver->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &bytes))
		return 0;
	return stats.tp_drops;
}

unsigned int gw_packet_receiver_descriptor(const struct gw_packet_receiver *receiver,
					   struct pollfd *fds, unsigned int max)
{
	if (receiver->fd < 0 || max == 0)
		return 0;
	fds[0] = (struct pollfd){.fd = receiver->fd, .events = POLLIN};
	return 1;
}

/* --- sending */

unsigned int gw_send_copied(struct gw_io *io, const struct gw_packet *packets, unsigned int count,
			    gw_send_some some)
{
	unsigned int done = 0;

	while (done < count) {
		unsigned int rest = count - done;
		unsigned int taken =
			some(io, packets + done, rest < GW_SEND_SLOTS ? rest : GW_SEND_SLOTS);

		if (taken == 0)
			break;
		done += taken;
	}
	for (unsigned int i = 0; i < done; i++)
		gw_pool_return(io->pool, gw_frame_of(io->pool, packets[i].data));
	return done;
}
