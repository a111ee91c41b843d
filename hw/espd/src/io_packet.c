/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_PACKET: works on every device and takes nothing away from the kernel, which sees all frames
 * too. Whoever uses it has the kernel ignore what we carry: nftables rules drop clear packets that
 * want protection, and sockets of ours keep it from answering ESP (packet_socket.h).
 *
 * Sent frames bypass the queueing discipline (PACKET_QDISC_BYPASS): espd has no queue of its own to
 * shape, a full device queue is then an error that we can count instead of one more place to wait
 * in, and the taps of tcpdump cost nothing. An operator's egress shaping does not apply to them.
 */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <unistd.h>

#include "packet_socket.h"

struct packet_io {
	struct gw_io io;
	struct gw_io_counters counters;
	struct gw_packet_receiver receiver;
	int sender;
};

static void packet_close(struct gw_io *io)
{
	struct packet_io *packet = (struct packet_io *)io;

	gw_packet_receiver_close(&packet->receiver);
	if (packet->sender >= 0)
		close(packet->sender);
	free(packet);
}

static int open_sender(struct packet_io *packet, const struct gw_io_options *options, char *why)
{
	struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_ifindex = (int)options->device->ifindex,
	};
	int on = 1;

	/* Of no protocol: it receives nothing. */
	packet->sender = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (packet->sender < 0)
		return gw_io_fail(why, "an AF_PACKET socket");
	if (setsockopt(packet->sender, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on)) ||
	    bind(packet->sender, (struct sockaddr *)&address, sizeof(address)))
		return gw_io_fail(why, "to send through AF_PACKET");
	return 0;
}

static int packet_open(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	struct packet_io *packet = calloc(1, sizeof(*packet));
	int error = 0;

	if (!packet)
		return gw_io_fail(why, "memory");
	packet->io = (struct gw_io){.method = &gw_io_packet, .pool = options->pool};
	packet->sender = -1;
	gw_packet_receiver_init(&packet->receiver, options->pool);
	if (options->device->ifindex == 0) {
		errno = ENODEV;
		error = gw_io_fail(why, "AF_PACKET sends and receives at one device");
	}
	if (!error && options->receives)
		error = gw_packet_receiver_open(&packet->receiver, options, GW_LAYER_ETHERNET, why);
	if (!error && options->sends)
		error = open_sender(packet, options, why);
	if (error)
		packet_close(&packet->io);
	else
		*io = &packet->io;
	return error;
}

static unsigned int packet_receive(struct gw_io *io, struct gw_packet *packets, unsigned int max)
{
	struct packet_io *packet = (struct packet_io *)io;

	return gw_packet_receive(&packet->receiver, packets, max, &packet->counters);
}

/* Send some; return how many are done with, 0 when the device takes no more. */
static unsigned int send_some(struct gw_io *io, const struct gw_packet *packets, unsigned int count)
{
	struct packet_io *packet = (struct packet_io *)io;
	struct mmsghdr messages[GW_SEND_SLOTS];
	struct iovec pieces[GW_SEND_SLOTS];
	int sent;

	for (unsigned int i = 0; i < count; i++) {
		pieces[i] = (struct iovec){packets[i].data, packets[i].length};
		messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &pieces[i], .msg_iovlen = 1}};
	}
	sent = sendmmsg(packet->sender, messages, count, MSG_DONTWAIT);
	if (sent > 0) {
		for (int i = 0; i < sent; i++)
			packet->counters.sent_bytes += packets[i].length;
		packet->counters.sent_packets += (unsigned int)sent;
		return (unsigned int)sent;
	}
	if (errno == EAGAIN || errno == ENOBUFS || errno == ENETDOWN)
		return 0;
	/* The first one cannot be sent, whatever the state of the device: others may. */
	packet->counters.send_lost++;
	return 1;
}

static unsigned int packet_send(struct gw_io *io, struct gw_packet *packets, unsigned int count)
{
	return gw_send_copied(io, packets, count, send_some);
}

static unsigned int packet_descriptors(const struct gw_io *io, struct pollfd *fds, unsigned int max)
{
	return gw_packet_receiver_descriptor(&((const struct packet_io *)io)->receiver, fds, max);
}

static void packet_counters(struct gw_io *io, struct gw_io_counters *counters)
{
	struct packet_io *packet = (struct packet_io *)io;

	packet->counters.receive_lost += gw_packet_receiver_lost(&packet->receiver);
	*counters = packet->counters;
}

/* --- to another process */

#define SAVED_SENDER (1 + GW_QUIET_SOCKETS)

static void packet_save(const struct gw_io *io, struct gw_io_saved *saved)
{
	const struct packet_io *packet = (const struct packet_io *)io;

	gw_packet_receiver_save(&packet->receiver, saved->fds);
	saved->fds[SAVED_SENDER] = packet->sender;
	gw_io_save_data(saved, &packet->counters, sizeof(packet->counters));
}

static int packet_restore(const struct gw_io_options *options, struct gw_io_saved *saved,
			  struct gw_io **io, char *why)
{
	const struct gw_io_counters *counters = gw_io_saved_data(saved, sizeof(*counters), why);
	struct packet_io *packet;
	int error;

	if (!counters)
		return -EINVAL;
	packet = calloc(1, sizeof(*packet));
	if (!packet)
		return gw_io_fail(why, "memory");
	packet->io = (struct gw_io){.method = &gw_io_packet, .pool = options->pool};
	packet->counters = *counters;
	gw_packet_receiver_init(&packet->receiver, options->pool);
	error = gw_packet_receiver_restore(&packet->receiver, saved->fds, GW_LAYER_ETHERNET, why);
	if (error) {
		gw_packet_receiver_close(&packet->receiver);
		free(packet);
		return error;
	}
	packet->sender = saved->fds[SAVED_SENDER];
	*io = &packet->io;
	return 0;
}

const struct gw_io_method gw_io_packet = {
	.name = "AF_PACKET",
	.kind = GW_IO_PACKET,
	.layer = GW_LAYER_ETHERNET,
	.takes = false,
	.open = packet_open,
	.receive = packet_receive,
	.send = packet_send,
	.descriptors = packet_descriptors,
	.counters = packet_counters,
	.close = packet_close,
	.save = packet_save,
	.restore = packet_restore,
};
