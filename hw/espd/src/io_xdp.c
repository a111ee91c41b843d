/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_XDP: frames of one queue of one device, received into and sent from our own memory.
 *
 * Each socket registers the whole pool as a UMEM of its own. One shared by several sockets
 * (XDP_SHARED_UMEM) would be zero-copy for all of its devices or for none, and would depend on the
 * socket that came first; of memory it saves nothing.
 *
 * What is sent goes to the driver at once: no queueing discipline, no netfilter, so no mark either.
 *
 * A frame is the kernel's from the moment it is in the fill or the transmit ring until it comes
 * back by the receive or the completion ring; `lent` remembers which are, so that close() can return
 * those that the kernel kept.
 */
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "io.h"
#include "io_loss.h"
#include "io_probe.h"
#include "link_state.h"
#include "xsk_ring.h"

/* Entries of each ring, where the pool is large enough: a millisecond at two million packets/s. */
#define RING_ENTRIES 2048
/*
 * Frames that the kernel has to receive into, in copy mode: they take turns, so this is the memory that
 * receiving goes through. That of FEW stays in the caches and TLBs of the CPU that copies and of ours,
 * and half as many long packets again come in. So FEW are enough while packets come by the MANY in a
 * round and we keep up, for STEADY_ROUNDS rounds. It has all when we do not keep up, and when few
 * packets come for SPARSE_ROUNDS rounds: then it does not matter, but when we get no CPU for some time.
 */
#define FEW_FRAMES    512u
#define MANY_PACKETS  16u
#define STEADY_ROUNDS 16u
#define SPARSE_ROUNDS 256u
/* Options that Debian 12's headers do not know. */
#define OPTION_MAX_TX_SKB_BUDGET 9 /* XDP_MAX_TX_SKB_BUDGET, Linux 6.17 */
#define DESCRIPTOR_CONTINUES     1 /* XDP_PKT_CONTD: the rest of the packet is in the next one */
/* Packets that one sendto() makes in copy mode; without the option the kernel stops after 32. */
#define TX_BUDGET 256
/* The kernel gives the queue of a closed socket free some milliseconds later. */
#define BIND_TRIES  300
#define BIND_NAP_NS 1000000
/* How often flush() calls the kernel before it leaves the rest for the next round. */
#define MAX_WAKEUPS 64

struct gw_io_xdp {
	struct gw_io io;
	int fd;
	int link_fd;
	uint32_t ifindex;
	char name[GW_NAME_BYTES];
	bool is_zero_copy;
	bool receives;
	bool sends;
	bool counts_link; /* what the link sends: each while it is opened, then the first queue */
	uint16_t queues;  /* of the device */
	int error;        /* what ended sending, or 0 */
	uint32_t entries; /* of each ring */
	uint32_t enough;  /* frames to receive into */
	uint32_t steady_rounds; /* with many packets, and not too many */
	uint32_t sparse_rounds; /* with few, since there were many */
	struct gw_xsk_ring rx, tx, fill, completion;
	uint32_t in_flight; /* sent, not completed */
	uint8_t *lent;      /* one for each frame of the pool */
	struct gw_link_counts link;
	uint64_t link_dropped_before; /* when we began */
	uint64_t link_sent_before;    /* at the last check */
	uint64_t sent_before;         /* of ours, when the link was read */
	struct gw_io_loss loss;
	struct gw_io_counters counters;
};

static struct gw_io_xdp *gw_xdp_of(struct gw_io *io)
{
	return (struct gw_io_xdp *)io;
}

/* Say what failed, and return -error. */
static int gw_xdp_fail(char *why, const char *what, int error)
{
	snprintf(why, GW_IO_WHY_BYTES, "%s: %s", what, strerror(error));
	return -error;
}

/* --- frames on loan --------------------------------------------------------------------------- */

static void gw_xdp_lend(struct gw_io_xdp *xdp, uint32_t frame)
{
	xdp->lent[frame] = 1;
}

/* Take back the frame of an address that the kernel wrote; GW_NO_FRAME where we never lent it. */
static uint32_t gw_xdp_regain(struct gw_io_xdp *xdp, uint64_t address)
{
	uint64_t frame = address >> xdp->io.pool->frame_shift;

	if (frame >= xdp->io.pool->frames || !xdp->lent[frame])
		return GW_NO_FRAME;
	xdp->lent[frame] = 0;
	return (uint32_t)frame;
}

/*
 * How many frames the kernel may have to receive into: as many as its ring has entries or are enough now,
 * but all sockets together three quarters of the pool, or nothing would be left to send. The sockets
 * that a worker opens next are not known; two devices with as many queues are expected.
 */
static uint32_t gw_xdp_share(const struct gw_io_xdp *xdp)
{
	const struct gw_pool *pool = xdp->io.pool;
	uint32_t expected = 2u * xdp->queues;
	uint32_t share =
		pool->frames / 4 * 3 / (pool->receivers > expected ? pool->receivers : expected);

	return share < xdp->enough ? share : xdp->enough;
}

/* See FEW_FRAMES; so many packets wait for us. */
static void gw_xdp_adapt(struct gw_io_xdp *xdp, uint32_t waiting)
{
	if (!waiting || xdp->is_zero_copy || xdp->entries <= FEW_FRAMES)
		return;
	if (waiting >= MANY_PACKETS)
		xdp->sparse_rounds = 0;
	else if (++xdp->sparse_rounds < SPARSE_ROUNDS)
		return;
	if (!xdp->sparse_rounds && waiting < FEW_FRAMES / 8 * 7) {
		if (++xdp->steady_rounds >= STEADY_ROUNDS)
			xdp->enough = FEW_FRAMES;
		return;
	}
	xdp->enough = xdp->entries;
	xdp->steady_rounds = xdp->sparse_rounds = 0;
}

/* Give the kernel frames to receive into. */
static void gw_xdp_refill(struct gw_io_xdp *xdp)
{
	struct gw_pool *pool = xdp->io.pool;
	uint32_t room = gw_ring_room(&xdp->fill, xdp->fill.size);
	uint32_t has = xdp->fill.size - room, share = gw_xdp_share(xdp);
	uint32_t wanted = has < share ? share - has : 0;
	uint32_t count = wanted < pool->free_count ? wanted : pool->free_count;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t frame = gw_pool_take(pool);

		gw_xdp_lend(xdp, frame);
		*gw_ring_address(&xdp->fill, xdp->fill.ours++) = (uint64_t)frame
								 << pool->frame_shift;
	}
	if (count)
		gw_ring_produced(&xdp->fill);
	if (gw_ring_needs_wakeup(&xdp->fill))
		recvfrom(xdp->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

/* Return frames of packets that are sent. */
static void gw_xdp_reap(struct gw_io_xdp *xdp)
{
	uint32_t ready = gw_ring_ready(&xdp->completion, xdp->completion.size);

	for (uint32_t i = 0; i < ready; i++) {
		uint64_t address = *gw_ring_address(&xdp->completion, xdp->completion.ours++);
		uint32_t frame = gw_xdp_regain(xdp, address);

		if (frame != GW_NO_FRAME)
			gw_pool_return(xdp->io.pool, frame);
	}
	xdp->in_flight -= ready;
	if (ready)
		gw_ring_consumed(&xdp->completion);
}

/* --- packets ---------------------------------------------------------------------------------- */

static unsigned int gw_xdp_receive(struct gw_io *io, struct gw_packet *packets, unsigned int max)
{
	struct gw_io_xdp *xdp = gw_xdp_of(io);
	struct gw_pool *pool = io->pool;
	uint32_t ready = pool->is_draining ? 0 : gw_ring_ready(&xdp->rx, xdp->rx.size);
	unsigned int count = 0;

	gw_xdp_adapt(xdp, ready);
	if (ready > max)
		ready = max;
	for (uint32_t i = 0; i < ready; i++) {
		const struct xdp_desc *entry = gw_ring_descriptor(&xdp->rx, xdp->rx.ours++);
		uint32_t offset = (uint32_t)(entry->addr & (pool->frame_bytes - 1));
		uint32_t frame = gw_xdp_regain(xdp, entry->addr);

		if (frame == GW_NO_FRAME)
			continue;
		if (offset + entry->len + GW_TAILROOM > pool->frame_bytes ||
		    entry->options & DESCRIPTOR_CONTINUES) {
			gw_pool_return(pool, frame);
			xdp->counters.receive_lost++;
			continue;
		}
		gw_frame_describe(pool, frame, offset, entry->len, &packets[count++]);
		xdp->counters.received_bytes += entry->len;
	}
	if (ready)
		gw_ring_consumed(&xdp->rx);
	xdp->counters.received_packets += count;
	gw_xdp_refill(xdp);
	return count;
}

static unsigned int gw_xdp_send(struct gw_io *io, struct gw_packet *packets, unsigned int count)
{
	struct gw_io_xdp *xdp = gw_xdp_of(io);
	struct gw_pool *pool = io->pool;
	uint32_t room = gw_ring_room(&xdp->tx, count);

	if (xdp->error)
		return 0;
	if (count > room)
		count = room;
	for (unsigned int i = 0; i < count; i++) {
		struct xdp_desc *entry = gw_ring_descriptor(&xdp->tx, xdp->tx.ours++);

		gw_xdp_lend(xdp, gw_frame_of(pool, packets[i].data));
		*entry = (struct xdp_desc){
			.addr = (uint64_t)(packets[i].data - pool->memory),
			.len = packets[i].length,
		};
		xdp->counters.sent_bytes += packets[i].length;
	}
	if (count)
		gw_ring_produced(&xdp->tx);
	xdp->in_flight += count;
	xdp->counters.sent_packets += count;
	return count;
}

/*
 * Have the kernel send what waits in the transmit ring. In copy mode each call makes some packets
 * and then says EAGAIN; ENOBUFS and EAGAIN without progress mean that the queue is full for now;
 * EBUSY that the device dropped one, which it has counted.
 */
static void gw_xdp_transmit(struct gw_io_xdp *xdp)
{
	uint32_t waiting = gw_ring_waiting(&xdp->tx);

	for (int i = 0; waiting && i < MAX_WAKEUPS; i++) {
		uint32_t before = waiting;
		int error = 0;

		if (sendto(xdp->fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0)
			error = errno;
		gw_xdp_reap(xdp);
		waiting = gw_ring_waiting(&xdp->tx);
		switch (error) {
		case 0:
		case EAGAIN:
		case ENOBUFS:
		case EBUSY:
		case EINTR:
			break;
		default:
			xdp->error = error;
			return;
		}
		if (xdp->is_zero_copy || waiting == before)
			return;
	}
}

static void gw_xdp_flush(struct gw_io *io)
{
	struct gw_io_xdp *xdp = gw_xdp_of(io);

	if (!xdp->in_flight)
		return;
	if (!xdp->error && gw_ring_needs_wakeup(&xdp->tx))
		gw_xdp_transmit(xdp);
	gw_xdp_reap(xdp);
}

static unsigned int gw_xdp_descriptors(const struct gw_io *io, struct pollfd *fds, unsigned int max)
{
	const struct gw_io_xdp *xdp = (const struct gw_io_xdp *)io;
	short events = 0;

	if (xdp->receives)
		events |= POLLIN;
	if (xdp->in_flight && !xdp->error)
		events |= POLLOUT;
	if (!max || !events)
		return 0;
	fds[0] = (struct pollfd){.fd = xdp->fd, .events = events};
	return 1;
}

/* --- counters and checks ---------------------------------------------------------------------- */

/* What the kernel says it lost before us, and of what we sent. */
static void gw_xdp_add_kernel_losses(struct gw_io_xdp *xdp, struct gw_io_counters *counters)
{
	struct xdp_statistics statistics = {0};
	socklen_t bytes = sizeof(statistics);

	/* rx_fill_ring_empty_descs is a part of rx_dropped in copy mode, and no packets in the other. */
	if (!getsockopt(xdp->fd, SOL_XDP, XDP_STATISTICS, &statistics, &bytes)) {
		counters->receive_lost += statistics.rx_dropped + statistics.rx_ring_full;
		counters->send_lost += statistics.tx_invalid_descs;
	}
	counters->send_lost += xdp->link.tx_dropped - xdp->link_dropped_before;
	if (xdp->error)
		counters->send_lost += xdp->in_flight;
}

/* Ask what the link sent and dropped, where we have sent since. */
static void gw_xdp_read_link(struct gw_io_xdp *xdp)
{
	if (!xdp->counts_link || xdp->counters.sent_packets == xdp->sent_before)
		return;
	xdp->sent_before = xdp->counters.sent_packets;
	gw_link_count(xdp->link_fd, xdp->ifindex, &xdp->link);
}

static void gw_xdp_counters(struct gw_io *io, struct gw_io_counters *counters)
{
	struct gw_io_xdp *xdp = gw_xdp_of(io);

	*counters = xdp->counters;
	gw_xdp_read_link(xdp);
	gw_xdp_add_kernel_losses(xdp, counters);
}

/*
 * What the link dropped of others' may be more than we sent. But as long as it sends anything, what it
 * drops is overload.
 */
static int gw_xdp_judge(struct gw_io_xdp *xdp, const struct gw_io_counters *counters, char *why)
{
	bool has_sent = xdp->link.tx_packets != xdp->link_sent_before;

	xdp->link_sent_before = xdp->link.tx_packets;
	if (!has_sent)
		return gw_loss_judge(&xdp->loss, xdp->name, counters->sent_packets,
				     counters->send_lost, why);
	gw_loss_excuse(&xdp->loss, counters->sent_packets, counters->send_lost);
	return 0;
}

static int gw_xdp_check(struct gw_io *io, uint64_t now_ns, char *why)
{
	struct gw_io_xdp *xdp = gw_xdp_of(io);
	struct gw_io_counters counters;
	int error = gw_link_require(xdp->link_fd, xdp->ifindex, xdp->name, why);

	(void)now_ns;
	gw_xdp_counters(io, &counters);
	if (error) {
		gw_loss_excuse(&xdp->loss, counters.sent_packets, counters.send_lost);
		return error;
	}
	/* The link is up; what failed is tried again, should there be no other method. */
	error = xdp->error;
	xdp->error = 0;
	if (error && error != ENETDOWN)
		return gw_xdp_fail(why, "it cannot send any more", error);
	return gw_xdp_judge(xdp, &counters, why);
}

/* --- opening ---------------------------------------------------------------------------------- */

/* The largest power of two that leaves most of the pool to others. */
static uint32_t gw_xdp_ring_entries(const struct gw_pool *pool)
{
	uint32_t entries = RING_ENTRIES;

	while (entries > 64 && entries > pool->frames / 4)
		entries /= 2;
	return entries;
}

static int gw_xdp_make_rings(struct gw_io_xdp *xdp, char *why)
{
	const struct gw_pool *pool = xdp->io.pool;
	struct xdp_umem_reg umem = {
		.addr = (uint64_t)(uintptr_t)pool->memory,
		.len = (uint64_t)pool->frames << pool->frame_shift,
		.chunk_size = pool->frame_bytes,
	};
	uint32_t entries = xdp->entries;
	uint32_t budget = TX_BUDGET < entries ? TX_BUDGET : entries;
	const struct {
		int option;
		bool is_wanted;
		const char *what;
	} rings[] = {
		{XDP_UMEM_FILL_RING, true, "fill ring"},
		{XDP_UMEM_COMPLETION_RING, true, "completion ring"},
		{XDP_RX_RING, xdp->receives, "receive ring"},
		{XDP_TX_RING, xdp->sends, "transmit ring"},
	};

	if (setsockopt(xdp->fd, SOL_XDP, XDP_UMEM_REG, &umem, sizeof(umem)))
		return gw_xdp_fail(why,
				   errno == ENOBUFS ? "memory may not be locked (CAP_IPC_LOCK)"
						    : "memory cannot be registered",
				   errno);
	for (size_t i = 0; i < sizeof(rings) / sizeof(rings[0]); i++)
		if (rings[i].is_wanted &&
		    setsockopt(xdp->fd, SOL_XDP, rings[i].option, &entries, sizeof(entries)))
			return gw_xdp_fail(why, rings[i].what, errno);
	/* Kernels before 6.17 have no such option, and a budget of 32. */
	if (xdp->sends)
		setsockopt(xdp->fd, SOL_XDP, OPTION_MAX_TX_SKB_BUDGET, &budget, sizeof(budget));
	return 0;
}

static int gw_xdp_map_ring(struct gw_io_xdp *xdp, struct gw_xsk_ring *ring,
			   const struct xdp_ring_offset *offset, uint64_t place, size_t entry_bytes)
{
	uint8_t *start;

	ring->size = xdp->entries;
	ring->mapping_bytes = offset->desc + ring->size * entry_bytes;
	start = mmap(NULL, ring->mapping_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		     xdp->fd, (off_t)place);
	if (start == MAP_FAILED)
		return -errno;
	ring->mapping = start;
	ring->producer = (uint32_t *)(start + offset->producer);
	ring->consumer = (uint32_t *)(start + offset->consumer);
	ring->flags = (uint32_t *)(start + offset->flags);
	ring->entries = start + offset->desc;
	return 0;
}

static int gw_xdp_map_rings(struct gw_io_xdp *xdp, char *why)
{
	struct xdp_mmap_offsets offsets;
	socklen_t bytes = sizeof(offsets);
	int error = 0;

	if (getsockopt(xdp->fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &bytes))
		return gw_xdp_fail(why, "offsets of the rings", errno);
	if (bytes != sizeof(offsets))
		return gw_xdp_fail(why, "rings of a kernel before 5.4", ENOPROTOOPT);
	error = gw_xdp_map_ring(xdp, &xdp->fill, &offsets.fr, XDP_UMEM_PGOFF_FILL_RING,
				sizeof(uint64_t));
	if (!error)
		error = gw_xdp_map_ring(xdp, &xdp->completion, &offsets.cr,
					XDP_UMEM_PGOFF_COMPLETION_RING, sizeof(uint64_t));
	if (!error && xdp->receives)
		error = gw_xdp_map_ring(xdp, &xdp->rx, &offsets.rx, XDP_PGOFF_RX_RING,
					sizeof(struct xdp_desc));
	if (!error && xdp->sends)
		error = gw_xdp_map_ring(xdp, &xdp->tx, &offsets.tx, XDP_PGOFF_TX_RING,
					sizeof(struct xdp_desc));
	return error ? gw_xdp_fail(why, "rings cannot be mapped", -error) : 0;
}

static int gw_xdp_bind(struct gw_io_xdp *xdp, uint16_t queue, char *why)
{
	struct sockaddr_xdp address = {
		.sxdp_family = AF_XDP,
		.sxdp_flags = (uint16_t)((xdp->is_zero_copy ? XDP_ZEROCOPY : XDP_COPY) |
					 XDP_USE_NEED_WAKEUP),
		.sxdp_ifindex = xdp->ifindex,
		.sxdp_queue_id = queue,
	};
	char what[80];
	int error;

	for (unsigned int tries = 0; tries < BIND_TRIES; tries++) {
		if (!bind(xdp->fd, (struct sockaddr *)&address, sizeof(address)))
			return 0;
		if (errno != EBUSY)
			break;
		nanosleep(&(struct timespec){.tv_nsec = BIND_NAP_NS}, NULL);
	}
	error = errno;
	switch (error) {
	case EOPNOTSUPP:
		snprintf(what, sizeof(what), "the driver has no %s",
			 xdp->is_zero_copy ? "zero-copy" : "AF_XDP at all");
		break;
	case EBUSY:
		snprintf(what, sizeof(what), "queue %u is another AF_XDP socket's", queue);
		break;
	case EINVAL:
		snprintf(what, sizeof(what), "there is no queue %u, or one direction of it", queue);
		break;
	default:
		snprintf(what, sizeof(what), "queue %u", queue);
	}
	return gw_xdp_fail(why, what, error);
}

/* Have the XDP program of the device give us what comes in on this queue. */
static int gw_xdp_steer(const struct gw_io_xdp *xdp, const struct gw_io_options *options, char *why)
{
	uint32_t queue = options->queue, value = (uint32_t)xdp->fd;
	union bpf_attr update;

	if (options->steering_fd < 0) {
		snprintf(why, GW_IO_WHY_BYTES,
			 "no XDP program is attached that would give us its packets");
		return -ENOENT;
	}
	memset(&update, 0, sizeof(update));
	update.map_fd = (uint32_t)options->steering_fd;
	update.key = (uint64_t)(uintptr_t)&queue;
	update.value = (uint64_t)(uintptr_t)&value;
	if (syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &update, sizeof(update)))
		return gw_xdp_fail(why, "the XSKMAP does not take the socket", errno);
	return 0;
}

static void gw_xdp_unmap(struct gw_xsk_ring *ring)
{
	if (ring->mapping)
		munmap(ring->mapping, ring->mapping_bytes);
}

static void gw_xdp_close(struct gw_io *io)
{
	struct gw_io_xdp *xdp = gw_xdp_of(io);

	gw_xdp_unmap(&xdp->rx);
	gw_xdp_unmap(&xdp->tx);
	gw_xdp_unmap(&xdp->fill);
	gw_xdp_unmap(&xdp->completion);
	if (xdp->fd >= 0)
		close(xdp->fd);
	if (xdp->link_fd >= 0)
		close(xdp->link_fd);
	for (uint32_t frame = 0; xdp->lent && frame < io->pool->frames; frame++)
		if (xdp->lent[frame])
			gw_pool_return(io->pool, frame);
	io->pool->receivers -= xdp->receives;
	free(xdp->lent);
	free(xdp);
}

static int gw_xdp_set_up(struct gw_io_xdp *xdp, const struct gw_io_options *options, char *why)
{
	int error;

	xdp->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (xdp->fd < 0)
		return gw_xdp_fail(why, errno == EAFNOSUPPORT ? "this kernel has none" : "socket",
				   errno);
	xdp->link_fd = gw_link_open();
	if (xdp->link_fd < 0)
		return gw_xdp_fail(why, "rtnetlink", -xdp->link_fd);
	error = gw_link_require(xdp->link_fd, xdp->ifindex, xdp->name, why);
	if (!error)
		error = gw_link_count(xdp->link_fd, xdp->ifindex, &xdp->link);
	if (error)
		return error;
	xdp->link_dropped_before = xdp->link.tx_dropped;
	xdp->link_sent_before = xdp->link.tx_packets;
	error = gw_xdp_make_rings(xdp, why);
	if (!error)
		error = gw_xdp_map_rings(xdp, why);
	if (error)
		return error;
	if (xdp->receives)
		gw_xdp_refill(xdp);
	error = gw_xdp_bind(xdp, options->queue, why);
	if (!error && xdp->sends)
		error = gw_probe_send(&xdp->io, options->device, why);
	xdp->counts_link = options->queue == 0;
	if (!error && xdp->receives)
		error = gw_xdp_steer(xdp, options, why);
	return error;
}

static int gw_xdp_new(const struct gw_io_method *method, const struct gw_io_options *options,
		      struct gw_io_xdp **made)
{
	const struct gw_pool *pool = options->pool;
	struct gw_io_xdp *xdp = calloc(1, sizeof(*xdp));

	if (!xdp)
		return -ENOMEM;
	*xdp = (struct gw_io_xdp){
		.io = {.method = method, .pool = options->pool},
		.fd = -1,
		.link_fd = -1,
		.ifindex = options->device->ifindex,
		.is_zero_copy = method == &gw_io_xdp,
		.receives = options->receives,
		.sends = options->sends,
		.queues = options->device->queues,
		.counts_link = true,
		.entries = gw_xdp_ring_entries(pool),
		.enough = gw_xdp_ring_entries(pool),
		.lent = calloc(pool->frames, 1),
	};
	memcpy(xdp->name, options->device->name, sizeof(xdp->name));
	options->pool->receivers += xdp->receives;
	if (!xdp->lent) {
		gw_xdp_close(&xdp->io);
		return -ENOMEM;
	}
	*made = xdp;
	return 0;
}

static int gw_xdp_open_kind(const struct gw_io_method *method, const struct gw_io_options *options,
			    struct gw_io **io, char *why)
{
	const struct gw_pool *pool = options->pool;
	struct gw_io_xdp *xdp;
	int error;

	if (pool->frame_bytes > (uint32_t)sysconf(_SC_PAGESIZE)) {
		snprintf(why, GW_IO_WHY_BYTES, "frames of %u bytes are larger than a page",
			 pool->frame_bytes);
		return -EMSGSIZE;
	}
	error = gw_xdp_new(method, options, &xdp);
	if (error)
		return error;
	error = gw_xdp_set_up(xdp, options, why);
	if (error) {
		gw_xdp_close(&xdp->io);
		return error;
	}
	*io = &xdp->io;
	return 0;
}

/* --- to another process ----------------------------------------------------------------------- */

struct gw_xdp_saved {
	struct gw_io_counters counters;
	struct gw_io_loss loss;
	struct gw_link_counts link;
	uint64_t link_dropped_before, link_sent_before, sent_before;
	uint32_t entries;
	uint32_t in_flight;
	int32_t error;
	uint8_t is_zero_copy, receives, sends, counts_link;
};

static void gw_xdp_save(const struct gw_io *io, struct gw_io_saved *saved)
{
	const struct gw_io_xdp *xdp = (const struct gw_io_xdp *)io;
	struct gw_xdp_saved data = {
		.counters = xdp->counters,
		.loss = xdp->loss,
		.link = xdp->link,
		.link_dropped_before = xdp->link_dropped_before,
		.link_sent_before = xdp->link_sent_before,
		.sent_before = xdp->sent_before,
		.entries = xdp->entries,
		.in_flight = xdp->in_flight,
		.error = xdp->error,
		.is_zero_copy = xdp->is_zero_copy,
		.receives = xdp->receives,
		.sends = xdp->sends,
		.counts_link = xdp->counts_link,
	};

	saved->fds[0] = xdp->fd;
	memcpy(saved->lent, xdp->lent, io->pool->frames);
	gw_io_save_data(saved, &data, sizeof(data));
}

/* Our ends of the rings are where the other process showed them to the kernel. */
static void gw_xdp_find_ends(struct gw_io_xdp *xdp)
{
	struct gw_xsk_ring *const producing[] = {&xdp->fill, &xdp->tx};
	struct gw_xsk_ring *const consuming[] = {&xdp->completion, &xdp->rx};

	for (int i = 0; i < 2; i++) {
		if (producing[i]->mapping) {
			producing[i]->ours =
				__atomic_load_n(producing[i]->producer, __ATOMIC_ACQUIRE);
			producing[i]->theirs =
				__atomic_load_n(producing[i]->consumer, __ATOMIC_ACQUIRE);
		}
		if (consuming[i]->mapping)
			consuming[i]->ours = consuming[i]->theirs =
				__atomic_load_n(consuming[i]->consumer, __ATOMIC_ACQUIRE);
	}
}

static int gw_xdp_reopen(struct gw_io_xdp *xdp, const struct gw_xdp_saved *data, int fd, char *why)
{
	int error;

	xdp->link_fd = gw_link_open();
	if (xdp->link_fd < 0)
		return gw_xdp_fail(why, "rtnetlink", -xdp->link_fd);
	xdp->fd = fd;
	error = gw_xdp_map_rings(xdp, why);
	if (error) {
		xdp->fd = -1; /* still the caller's */
		return error;
	}
	gw_xdp_find_ends(xdp);
	xdp->in_flight = data->in_flight;
	xdp->error = data->error;
	xdp->counters = data->counters;
	xdp->loss = data->loss;
	xdp->link = data->link;
	xdp->link_dropped_before = data->link_dropped_before;
	xdp->link_sent_before = data->link_sent_before;
	xdp->sent_before = data->sent_before;
	xdp->counts_link = data->counts_link != 0;
	return 0;
}

static int gw_xdp_restore(const struct gw_io_options *options, struct gw_io_saved *saved,
			  struct gw_io **io, char *why)
{
	const struct gw_xdp_saved *data = gw_io_saved_data(saved, sizeof(*data), why);
	struct gw_io_options same = *options;
	struct gw_io_xdp *xdp;
	int error;

	if (!data || saved->fds[0] < 0 || data->entries != gw_xdp_ring_entries(options->pool)) {
		snprintf(why, GW_IO_WHY_BYTES, "its rings have another size here");
		return -EINVAL;
	}
	same.receives = data->receives != 0;
	same.sends = data->sends != 0;
	error = gw_xdp_new(data->is_zero_copy ? &gw_io_xdp : &gw_io_xdp_copy, &same, &xdp);
	if (error)
		return error;
	error = gw_xdp_reopen(xdp, data, saved->fds[0], why);
	if (error) {
		gw_xdp_close(&xdp->io);
		return error;
	}
	memcpy(xdp->lent, saved->lent, options->pool->frames);
	*io = &xdp->io;
	return 0;
}

static int gw_xdp_open_zero_copy(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	return gw_xdp_open_kind(&gw_io_xdp, options, io, why);
}

static int gw_xdp_open_copy(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	return gw_xdp_open_kind(&gw_io_xdp_copy, options, io, why);
}

#define GW_XDP_OPERATIONS \
	.layer = GW_LAYER_ETHERNET, .takes = true, .receive = gw_xdp_receive, .send = gw_xdp_send, \
	.flush = gw_xdp_flush, .descriptors = gw_xdp_descriptors, .counters = gw_xdp_counters, \
	.check = gw_xdp_check, .close = gw_xdp_close, .save = gw_xdp_save, \
	.restore = gw_xdp_restore

const struct gw_io_method gw_io_xdp = {
	.name = "AF_XDP zero-copy",
	.kind = GW_IO_XDP_ZERO_COPY,
	.open = gw_xdp_open_zero_copy,
	GW_XDP_OPERATIONS,
};

const struct gw_io_method gw_io_xdp_copy = {
	.name = "AF_XDP copy",
	.kind = GW_IO_XDP_COPY,
	.open = gw_xdp_open_copy,
	GW_XDP_OPERATIONS,
};
