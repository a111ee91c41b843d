/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TUN: the kernel routes clear packets into the device and takes decrypted ones out of it. With
 * GW_DEVICE_OFFLOAD one read brings up to 64 KB of a flow, which is cut here and sealed in one
 * burst; and packets of a TCP flow that were opened together go back in one write.
 *
 * The device is this process's: it vanishes with it, and the routes into it too; but one with
 * GW_DEVICE_TUNNEL stays, and drops what is routed there. All queues are opened by the workers, one
 * each or more; the kernel chooses the queue of a flow.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "offload.h"
#include "packet_socket.h"

/* Linux 6.2; older headers do not name them. */
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tun_io {
	struct gw_io io;
	struct gw_io_counters counters;
	struct gw_segments segments;
	bool is_cutting;
	bool has_offload;
	int fd;
	struct gw_merge merge;
	struct virtio_net_hdr header;
	uint8_t super[GW_SUPER_BYTES]; /* what was read and did not fit a frame */
};

static void tun_close(struct gw_io *io)
{
	struct tun_io *tun = (struct tun_io *)io;

	if (tun->fd >= 0)
		close(tun->fd);
	free(tun);
}

static int set_offload(int fd)
{
	unsigned int tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

	if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)(tcp | TUN_F_USO4 | TUN_F_USO6)) == 0)
		return 0;
	return ioctl(fd, TUNSETOFFLOAD, (unsigned long)tcp); /* before Linux 6.2 */
}

static int attach(struct tun_io *tun, const struct gw_control_device *device, char *why)
{
	struct ifreq request = {
		.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE,
	};

	memcpy(request.ifr_name, device->name, sizeof(device->name));
	tun->fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (tun->fd < 0)
		return gw_io_fail(why, "/dev/net/tun");
	if (ioctl(tun->fd, TUNSETIFF, &request) == 0)
		return 0;
	if (errno != EINVAL)
		return gw_io_fail(why, "the TUN device");
	/* Somebody made it for one reader: then one of us may be it. */
	request.ifr_flags &= ~IFF_MULTI_QUEUE;
	if (ioctl(tun->fd, TUNSETIFF, &request) == 0)
		return 0;
	return gw_io_fail(why, "the TUN device (made by `ip tuntap add mode tun`; for several "
			       "workers: multi_queue)");
}

static int set_up(const struct tun_io *tun, const struct gw_control_device *device, char *why)
{
	if (tun->has_offload && set_offload(tun->fd))
		return gw_io_fail(why, "offloads of the TUN device");
	if (device->flags & GW_DEVICE_TUNNEL && ioctl(tun->fd, TUNSETPERSIST, 1ul))
		return gw_io_fail(why, "the persistence of the TUN device");
	return 0;
}

static int tun_open(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	struct tun_io *tun = malloc(sizeof(*tun));
	int error;

	if (!tun)
		return gw_io_fail(why, "memory");
	memset(tun, 0, offsetof(struct tun_io, super));
	tun->io = (struct gw_io){.method = &gw_io_tun, .pool = options->pool};
	tun->has_offload = options->device->flags & GW_DEVICE_OFFLOAD;
	error = attach(tun, options->device, why);
	if (error == 0)
		error = set_up(tun, options->device, why);
	if (error)
		tun_close(&tun->io);
	else
		*io = &tun->io;
	return error;
}

/* --- receiving */

static bool cut_one(struct tun_io *tun, struct gw_packet *packet)
{
	struct gw_pool *pool = tun->io.pool;
	uint32_t frame = gw_pool_take(pool), length;

	if (frame == GW_NO_FRAME)
		return false; /* what is left waits for frames */
	length = gw_segments_next(&tun->segments, gw_frame_start(pool, frame) + GW_FRAME_DATA,
				  gw_frame_room(pool));
	if (length == 0) {
		gw_pool_return(pool, frame);
		tun->is_cutting = false;
		return false;
	}
	gw_frame_describe(pool, frame, GW_FRAME_DATA, length, packet);
	return true;
}

/* Begin to cut what was read. */
static void begin_cutting(struct tun_io *tun, uint8_t *frame, uint32_t room, uint32_t length)
{
	uint8_t *whole = tun->super;

	/* The part that lies in the frame goes before the rest. */
	memcpy(whole, frame, length < room ? length : room);
	tun->is_cutting = gw_segments_init(&tun->segments, &tun->header, whole, length, 0);
	tun->counters.receive_lost += !tun->is_cutting;
}

/* Read one packet or super-frame. Return 1: a packet; 0: none, or one to cut; -1: nothing waits. */
static int read_one(struct tun_io *tun, struct gw_packet *packet)
{
	struct gw_pool *pool = tun->io.pool;
	uint32_t frame = gw_pool_take(pool), room = gw_frame_room(pool), length;
	uint8_t *data;
	struct iovec pieces[3];
	ssize_t got;

	if (frame == GW_NO_FRAME)
		return -1;
	data = gw_frame_start(pool, frame) + GW_FRAME_DATA;
	pieces[0] = (struct iovec){&tun->header, sizeof(tun->header)};
	pieces[1] = (struct iovec){data, room};
	pieces[2] = (struct iovec){tun->super + room, sizeof(tun->super) - room};
	got = readv(tun->fd, pieces, 3);
	if (got < (ssize_t)sizeof(tun->header)) {
		gw_pool_return(pool, frame);
		return -1;
	}
	length = (uint32_t)got - (uint32_t)sizeof(tun->header);
	tun->counters.received_bytes += length;
	if (tun->header.gso_type == VIRTIO_NET_HDR_GSO_NONE && length <= room &&
	    gw_finish_checksum(&tun->header, data, length)) {
		gw_frame_describe(pool, frame, GW_FRAME_DATA, length, packet);
		return 1;
	}
	if (tun->header.gso_type == VIRTIO_NET_HDR_GSO_NONE)
		tun->counters.receive_lost++;
	else
		begin_cutting(tun, data, room, length);
	gw_pool_return(pool, frame);
	return 0;
}

static unsigned int tun_receive(struct gw_io *io, struct gw_packet *packets, unsigned int max)
{
	struct tun_io *tun = (struct tun_io *)io;
	unsigned int count = 0;

	while (count < max) {
		int got;

		if (tun->is_cutting) {
			if (cut_one(tun, &packets[count]))
				count++;
			else if (tun->is_cutting)
				break;
			continue;
		}
		if (io->pool->is_draining)
			break;
		got = read_one(tun, &packets[count]);
		if (got < 0)
			break;
		count += (unsigned int)got;
	}
	tun->counters.received_packets += count;
	return count;
}

/* --- sending */

static bool write_merged(struct tun_io *tun)
{
	struct iovec pieces[GW_MAX_MERGED + 1];

	gw_merge_end(&tun->merge);
	pieces[0] = (struct iovec){&tun->merge.header, sizeof(tun->merge.header)};
	memcpy(pieces + 1, tun->merge.pieces, tun->merge.count * sizeof(pieces[0]));
	if (writev(tun->fd, pieces, (int)tun->merge.count + 1) >= 0) {
		tun->counters.sent_packets += tun->merge.count;
		tun->counters.sent_bytes += tun->merge.bytes;
		return true;
	}
	return false;
}

static unsigned int tun_send(struct gw_io *io, struct gw_packet *packets, unsigned int count)
{
	struct tun_io *tun = (struct tun_io *)io;
	unsigned int done = 0;

	while (done < count) {
		unsigned int next = done + 1;

		gw_merge_begin(&tun->merge, packets[done].data, packets[done].length);
		while (tun->has_offload && next < count &&
		       gw_merge_add(&tun->merge, packets[next].data, packets[next].length))
			next++;
		if (!write_merged(tun)) {
			if (errno == EAGAIN)
				break;
			/* The device is down, or the kernel finds the packet malformed. */
			tun->counters.send_lost += tun->merge.count;
		}
		for (; done < next; done++)
			gw_pool_return(io->pool, gw_frame_of(io->pool, packets[done].data));
	}
	return done;
}

static unsigned int tun_descriptors(const struct gw_io *io, struct pollfd *fds, unsigned int max)
{
	const struct tun_io *tun = (const struct tun_io *)io;

	if (max == 0)
		return 0;
	fds[0] = (struct pollfd){.fd = tun->fd, .events = POLLIN};
	return 1;
}

/* A device that somebody removed leaves descriptors behind that are always ready, for nothing. */
static int tun_check(struct gw_io *io, uint64_t now_ns, char *why)
{
	struct ifreq request;

	(void)now_ns;
	if (!ioctl(((const struct tun_io *)io)->fd, TUNGETIFF, &request))
		return 0;
	gw_io_fail(why, "the TUN device is gone");
	return -ENODEV;
}

static void tun_counters(struct gw_io *io, struct gw_io_counters *counters)
{
	*counters = ((const struct tun_io *)io)->counters;
}

/* --- to another process: what is being cut has been cut */

struct tun_saved {
	struct gw_io_counters counters;
	uint32_t has_offload;
	uint32_t reserved;
};

static void tun_save(const struct gw_io *io, struct gw_io_saved *saved)
{
	const struct tun_io *tun = (const struct tun_io *)io;
	struct tun_saved data = {.counters = tun->counters, .has_offload = tun->has_offload};

	saved->fds[0] = tun->fd;
	gw_io_save_data(saved, &data, sizeof(data));
}

static int tun_restore(const struct gw_io_options *options, struct gw_io_saved *saved,
		       struct gw_io **io, char *why)
{
	const struct tun_saved *data = gw_io_saved_data(saved, sizeof(*data), why);
	struct tun_io *tun;

	if (!data || saved->fds[0] < 0)
		return -EINVAL;
	tun = malloc(sizeof(*tun));
	if (!tun)
		return gw_io_fail(why, "memory");
	memset(tun, 0, offsetof(struct tun_io, super));
	tun->io = (struct gw_io){.method = &gw_io_tun, .pool = options->pool};
	tun->counters = data->counters;
	tun->has_offload = data->has_offload != 0;
	tun->fd = saved->fds[0];
	*io = &tun->io;
	return 0;
}

const struct gw_io_method gw_io_tun = {
	.name = "TUN",
	.kind = GW_IO_TUN,
	.layer = GW_LAYER_IP,
	.takes = true,
	.open = tun_open,
	.receive = tun_receive,
	.send = tun_send,
	.descriptors = tun_descriptors,
	.counters = tun_counters,
	.check = tun_check,
	.close = tun_close,
	.save = tun_save,
	.restore = tun_restore,
};
