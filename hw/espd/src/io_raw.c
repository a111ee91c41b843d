/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Raw sockets: whole IP packets that the kernel routes, resolves and queues, for what has no next
 * hop in our tables, and for machines that have no table of ours at all. Packets come in by
 * AF_PACKET, without their Ethernet header, from one device or from all. ESP in UDP leaves in bursts
 * where it can (udp_burst.h), and what came in as one is cut.
 *
 * A mark tells protected packets from those in clear, for rules of routing and of the firewall.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "packet_socket.h"
#include "udp_burst.h"

/* Of IPv4 and of IPv6, protected and in clear. */
#define SENDERS 4
_Static_assert(1 + GW_QUIET_SOCKETS + SENDERS <= GW_IO_SAVED_DESCRIPTORS, "they fit");
/* A burst of 256 packets with what the kernel counts around each, and some more. */
#define SEND_BUFFER_BYTES (4 << 20)

/* Linux 4.5 <linux/in6.h> */
#ifndef IPV6_HDRINCL
#define IPV6_HDRINCL 36
#endif

struct raw_io {
	struct gw_io io;
	struct gw_io_counters counters;
	struct gw_packet_receiver receiver;
	int senders[SENDERS];
	struct gw_udp_burst burst;
};

static void raw_close(struct gw_io *io)
{
	struct raw_io *raw = (struct raw_io *)io;

	gw_packet_receiver_close(&raw->receiver);
	gw_udp_burst_close(&raw->burst);
	for (int i = 0; i < SENDERS; i++)
		if (raw->senders[i] >= 0)
			close(raw->senders[i]);
	free(raw);
}

static unsigned int sender_of(const struct gw_packet *packet)
{
	return (packet->data[0] >> 4 == 6 ? 2u : 0u) + (packet->flags & GW_PACKET_CLEAR ? 1u : 0u);
}

static int open_senders(struct raw_io *raw, const struct gw_io_options *options, char *why)
{
	int on = 1, bytes = SEND_BUFFER_BYTES;

	for (int i = 0; i < SENDERS; i++) {
		bool is_ipv6 = i >= 2;
		uint32_t mark = i % 2 ? options->clear_mark : options->mark;
		int fd = socket(is_ipv6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW);

		raw->senders[i] = fd;
		if (fd < 0 && is_ipv6 && errno == EAFNOSUPPORT)
			continue;
		if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) ||
		    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) ||
		    setsockopt(fd, is_ipv6 ? IPPROTO_IPV6 : IPPROTO_IP,
			       is_ipv6 ? IPV6_HDRINCL : IP_HDRINCL, &on, sizeof(on)))
			return gw_io_fail(why, "a raw socket to send through");
	}
	return 0;
}

static int raw_open(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	struct raw_io *raw = calloc(1, sizeof(*raw));
	int error = 0;

	if (!raw)
		return gw_io_fail(why, "memory");
	raw->io = (struct gw_io){.method = &gw_io_raw, .pool = options->pool};
	gw_packet_receiver_init(&raw->receiver, options->pool);
	gw_udp_burst_init(&raw->burst, options->sends ? options->agent : NULL, options->mark);
	for (int i = 0; i < SENDERS; i++)
		raw->senders[i] = -1;
	if (options->receives)
		error = gw_packet_receiver_open(&raw->receiver, options, GW_LAYER_IP, why);
	if (!error && options->sends)
		error = open_senders(raw, options, why);
	if (error) {
		raw_close(&raw->io);
		return error;
	}
	gw_udp_burst_follow(&raw->burst);
	*io = &raw->io;
	return 0;
}

static unsigned int raw_receive(struct gw_io *io, struct gw_packet *packets, unsigned int max)
{
	struct raw_io *raw = (struct raw_io *)io;

	return gw_packet_receive(&raw->receiver, packets, max, &raw->counters);
}

union destination {
	struct sockaddr_in ipv4;
	struct sockaddr_in6 ipv6;
};

static socklen_t set_destination(union destination *to, const uint8_t *ip)
{
	memset(to, 0, sizeof(*to));
	if (ip[0] >> 4 == 6) {
		to->ipv6.sin6_family = AF_INET6;
		memcpy(&to->ipv6.sin6_addr, ip + 24, 16);
		return sizeof(to->ipv6);
	}
	to->ipv4.sin_family = AF_INET;
	memcpy(&to->ipv4.sin_addr, ip + 16, 4);
	return sizeof(to->ipv4);
}

static void count_sent(struct raw_io *raw, const struct gw_packet *packets, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		raw->counters.sent_bytes += packets[i].length;
	raw->counters.sent_packets += count;
}

/* Send some for the same socket; return how many are done with, 0 when it takes no more. */
static unsigned int send_each(struct raw_io *raw, const struct gw_packet *packets,
			      unsigned int count)
{
	union destination destinations[GW_SEND_SLOTS];
	struct mmsghdr messages[GW_SEND_SLOTS];
	struct iovec pieces[GW_SEND_SLOTS];
	unsigned int sender = sender_of(&packets[0]), same = 0;
	int sent;

	for (; same < count && sender_of(&packets[same]) == sender; same++) {
		pieces[same] = (struct iovec){packets[same].data, packets[same].length};
		messages[same].msg_hdr = (struct msghdr){
			.msg_name = &destinations[same],
			.msg_namelen = set_destination(&destinations[same], packets[same].data),
			.msg_iov = &pieces[same],
			.msg_iovlen = 1,
		};
	}
	sent = sendmmsg(raw->senders[sender], messages, same, MSG_DONTWAIT);
	if (sent > 0) {
		count_sent(raw, packets, (unsigned int)sent);
		return (unsigned int)sent;
	}
	if (errno == EAGAIN || errno == ENOBUFS)
		return 0;
	/* No route for this one, or a firewall: the next may have another destination. */
	raw->counters.send_lost++;
	return 1;
}

static unsigned int send_some(struct gw_io *io, const struct gw_packet *packets, unsigned int count)
{
	struct raw_io *raw = (struct raw_io *)io;
	int together = gw_udp_burst_send(&raw->burst, packets, count);

	if (together < 0)
		return 0;
	if (together == 0)
		return send_each(raw, packets, count);
	count_sent(raw, packets, (unsigned int)together);
	raw->counters.sent_bursts++;
	return (unsigned int)together;
}

static unsigned int raw_send(struct gw_io *io, struct gw_packet *packets, unsigned int count)
{
	return gw_send_copied(io, packets, count, send_some);
}

static unsigned int raw_descriptors(const struct gw_io *io, struct pollfd *fds, unsigned int max)
{
	return gw_packet_receiver_descriptor(&((const struct raw_io *)io)->receiver, fds, max);
}

static void raw_counters(struct gw_io *io, struct gw_io_counters *counters)
{
	struct raw_io *raw = (struct raw_io *)io;

	raw->counters.receive_lost += gw_packet_receiver_lost(&raw->receiver);
	*counters = raw->counters;
}

static int raw_check(struct gw_io *io, uint64_t now_ns, char *why)
{
	(void)now_ns;
	(void)why;
	gw_udp_burst_follow(&((struct raw_io *)io)->burst);
	return 0;
}

/* --- to another process */

#define SAVED_SENDERS (1 + GW_QUIET_SOCKETS)

static void raw_save(const struct gw_io *io, struct gw_io_saved *saved)
{
	const struct raw_io *raw = (const struct raw_io *)io;

	gw_packet_receiver_save(&raw->receiver, saved->fds);
	memcpy(saved->fds + SAVED_SENDERS, raw->senders, sizeof(raw->senders));
	gw_io_save_data(saved, &raw->counters, sizeof(raw->counters));
}

static int raw_restore(const struct gw_io_options *options, struct gw_io_saved *saved,
		       struct gw_io **io, char *why)
{
	const struct gw_io_counters *counters = gw_io_saved_data(saved, sizeof(*counters), why);
	struct raw_io *raw;
	int error;

	if (!counters)
		return -EINVAL;
	raw = calloc(1, sizeof(*raw));
	if (!raw)
		return gw_io_fail(why, "memory");
	raw->io = (struct gw_io){.method = &gw_io_raw, .pool = options->pool};
	raw->counters = *counters;
	gw_packet_receiver_init(&raw->receiver, options->pool);
	error = gw_packet_receiver_restore(&raw->receiver, saved->fds, GW_LAYER_IP, why);
	if (error) {
		gw_packet_receiver_close(&raw->receiver);
		free(raw);
		return error;
	}
	memcpy(raw->senders, saved->fds + SAVED_SENDERS, sizeof(raw->senders));
	/* Its sockets are made anew, with the next check: the old process has its own until it ends. */
	gw_udp_burst_init(&raw->burst, raw->senders[0] < 0 ? NULL : options->agent, options->mark);
	*io = &raw->io;
	return 0;
}

const struct gw_io_method gw_io_raw = {
	.name = "raw sockets",
	.kind = GW_IO_RAW,
	.layer = GW_LAYER_IP,
	.takes = false,
	.open = raw_open,
	.receive = raw_receive,
	.send = raw_send,
	.descriptors = raw_descriptors,
	.counters = raw_counters,
	.check = raw_check,
	.close = raw_close,
	.save = raw_save,
	.restore = raw_restore,
};
