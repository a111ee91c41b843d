/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Live frames: packets leave as if an XDP program had redirected them, many with one system call.
 *
 * Packets lie in frames that are the memory of a BPF map. To send them is to write down which, and to
 * have BPF_PROG_TEST_RUN run a program once for each, which copies the packet into a page of the
 * kernel's and redirects it (ebpf/xdp_live.bpf.c). When the call is back, every packet has been
 * taken by the device or is lost, and tracepoints have counted which: nothing is in flight for us.
 *
 * A call costs as much as a hundred packets. So packets wait while rounds bring more of them, for
 * ENOUGH or ROUNDS of them; a round that brings none sends what there is.
 *
 * Program, slots and frames belong to the worker; all its devices take turns with them.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gw_live.h"
#include "io.h"
#include "io_loss.h"
#include "io_probe.h"
#include "link_state.h"

/* Pages that the kernel has in hand at once, the first so many packets of a call; all others get a
 * page that has come back. 32 to 64 are fastest; 256, the kernel's limit, overflow a veth's queue. */
#define MAX_PAGES 32u
#define ENOUGH    512u
#define ROUNDS    8u
/* Ethernet header and two VLAN tags. */
#define LINK_BYTES 22u

struct gw_io_live {
	struct gw_io io;
	const struct gw_live *live;
	struct gw_live_burst *burst;
	int link_fd;
	uint32_t ifindex;
	char name[GW_NAME_BYTES];
	uint32_t max_length; /* of a frame */
	uint32_t longest;    /* of those that wait */
	uint32_t waiting;
	uint32_t waiting_before; /* at the end of the last round */
	uint32_t rounds;         /* that packets have waited */
	int error;               /* of the system call, or 0 */
	uint64_t too_long;
	uint64_t lost[GW_LIVE_ERRNOS]; /* of this device */
	uint64_t lost_before[GW_LIVE_ERRNOS];
	uint64_t too_long_before;
	struct gw_io_loss loss;
	struct gw_io_counters counters;
	struct gw_live_slot slots[GW_LIVE_SLOTS];
};

#define VETH_PEER "the other end of a veth does not poll: give it GRO or an XDP program"

/* What an errno of ndo_xdp_xmit() or of the redirection says of a device, if it is for good. */
static const struct gw_live_verdict {
	int error;
	const char *meaning;
} gw_live_verdicts[] = {
	{EOPNOTSUPP, "the driver cannot send redirected frames (no ndo_xdp_xmit), or " VETH_PEER},
	{ENXIO, "no queue takes redirected frames, or " VETH_PEER},
	{EINVAL, "redirection to it is refused"},
	{ENOSPC, "it has no room in front of a frame"},
};

static struct gw_io_live *gw_live_of(struct gw_io *io)
{
	return (struct gw_io_live *)io;
}

/* --- the system call -------------------------------------------------------------------------- */

/* Run the program so often, on frames that are `bytes` long until it says otherwise. */
static int gw_live_call(const struct gw_io_live *live, uint32_t runs, uint32_t bytes)
{
	static const uint8_t nothing[4096];
	union bpf_attr attributes;

	memset(&attributes, 0, sizeof(attributes));
	attributes.test.prog_fd = (uint32_t)live->live->program_fd;
	attributes.test.repeat = runs;
	attributes.test.data_in = (uint64_t)(uintptr_t)nothing;
	attributes.test.data_size_in = bytes;
	attributes.test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
	attributes.test.batch_size = runs < MAX_PAGES ? runs : MAX_PAGES;
	if (bytes > sizeof(nothing))
		return -EINVAL;
	return syscall(SYS_bpf, BPF_PROG_TEST_RUN, &attributes, sizeof(attributes)) ? -errno : 0;
}

/* Have the program send all slots of the burst. A signal interrupts it; what is done is done. */
static int gw_live_run(const struct gw_io_live *live, uint32_t count)
{
	struct gw_live_burst *burst = live->burst;
	int error = 0;

	burst->slots_used = count;
	burst->next_slot = 0;
	burst->ifindex = live->ifindex;
	burst->pending = 0;
	while (!error && burst->next_slot < count) {
		uint32_t before = burst->next_slot;

		error = gw_live_call(live, count - before, live->longest);
		if ((error == -EINTR || error == -EAGAIN) && burst->next_slot > before)
			error = 0;
	}
	return error;
}

/* --- packets ---------------------------------------------------------------------------------- */

/* Send what waits, and return the frames. */
static void gw_live_transmit(struct gw_io_live *live)
{
	struct gw_live_burst *burst = live->burst;
	uint64_t lost_before[GW_LIVE_ERRNOS];
	uint64_t sent_before, sent;

	if (!live->waiting)
		return;
	sent_before = burst->sent;
	memcpy(lost_before, burst->lost, sizeof(lost_before));
	memcpy(burst->slots, live->slots, live->waiting * sizeof(burst->slots[0]));
	live->error = gw_live_run(live, live->waiting);
	sent = burst->sent - sent_before;
	if (sent < live->waiting) {
		live->counters.send_lost += live->waiting - sent;
		for (unsigned int i = 0; i < GW_LIVE_ERRNOS; i++)
			live->lost[i] += burst->lost[i] - lost_before[i];
	}
	for (uint32_t i = 0; i < live->waiting; i++)
		gw_pool_return(live->io.pool, live->slots[i].frame);
	live->waiting = live->waiting_before = 0;
	live->longest = 0;
	live->rounds = 0;
}

static void gw_live_flush(struct gw_io *io)
{
	struct gw_io_live *live = gw_live_of(io);
	bool has_grown = live->waiting > live->waiting_before;

	live->waiting_before = live->waiting;
	if (has_grown && live->waiting < ENOUGH && ++live->rounds < ROUNDS)
		return;
	gw_live_transmit(live);
}

static unsigned int gw_live_send(struct gw_io *io, struct gw_packet *packets, unsigned int count)
{
	struct gw_io_live *live = gw_live_of(io);
	const struct gw_pool *pool = io->pool;

	for (unsigned int i = 0; i < count; i++) {
		struct gw_packet *packet = &packets[i];
		uint32_t frame = gw_frame_of(pool, packet->data);
		uint8_t *start = gw_frame_start(pool, frame);

		live->counters.sent_packets++;
		live->counters.sent_bytes += packet->length;
		if (packet->length > live->max_length) {
			gw_pool_return(io->pool, frame);
			live->counters.send_lost++;
			live->too_long++;
			continue;
		}
		if (packet->data - start > GW_LIVE_MAX_OFFSET) {
			memmove(start + GW_FRAME_DATA, packet->data, packet->length);
			packet->data = start + GW_FRAME_DATA;
		}
		live->slots[live->waiting++] = (struct gw_live_slot){
			.frame = frame,
			.offset = (uint16_t)(packet->data - start),
			.length = (uint16_t)packet->length,
		};
		if (packet->length > live->longest)
			live->longest = packet->length;
		if (live->waiting == GW_LIVE_SLOTS)
			gw_live_transmit(live);
	}
	return count;
}

static unsigned int gw_live_descriptors(const struct gw_io *io, struct pollfd *fds,
					unsigned int max)
{
	(void)io;
	(void)fds;
	(void)max;
	return 0;
}

/* --- counters and checks ---------------------------------------------------------------------- */

static void gw_live_counters(struct gw_io *io, struct gw_io_counters *counters)
{
	struct gw_io_live *live = gw_live_of(io);

	gw_live_transmit(live); /* what is sent has been counted, lost or not */
	*counters = live->counters;
}

/* Has a loss of this kind been counted since the last check? */
static bool gw_live_has_lost(const struct gw_io_live *live, int error)
{
	return live->lost[error] != live->lost_before[error];
}

static int gw_live_judge(const struct gw_io_live *live, char *why)
{
	if (live->error) {
		snprintf(why, GW_IO_WHY_BYTES, "the program cannot be run: %s",
			 strerror(-live->error));
		return live->error;
	}
	if (live->burst->pending) {
		snprintf(why, GW_IO_WHY_BYTES, "no tracepoint tells what becomes of them");
		return -ENOPROTOOPT;
	}
	if (live->too_long != live->too_long_before) {
		snprintf(why, GW_IO_WHY_BYTES,
			 "packets were longer than the %u bytes that fit a page", live->max_length);
		return -EMSGSIZE;
	}
	for (size_t i = 0; i < sizeof(gw_live_verdicts) / sizeof(gw_live_verdicts[0]); i++) {
		const struct gw_live_verdict *verdict = &gw_live_verdicts[i];

		if (!gw_live_has_lost(live, verdict->error))
			continue;
		snprintf(why, GW_IO_WHY_BYTES, "%s", verdict->meaning);
		return -verdict->error;
	}
	return 0;
}

static int gw_live_check(struct gw_io *io, uint64_t now_ns, char *why)
{
	struct gw_io_live *live = gw_live_of(io);
	uint64_t sent = live->counters.sent_packets;
	uint64_t lost = live->counters.send_lost - live->lost[ENETDOWN];
	int error = gw_link_require(live->link_fd, live->ifindex, live->name, why);

	(void)now_ns;
	if (error) {
		gw_loss_excuse(&live->loss, sent, lost);
	} else {
		error = gw_live_judge(live, why);
		if (!error)
			error = gw_loss_judge(&live->loss, live->name, sent, lost, why);
	}
	memcpy(live->lost_before, live->lost, sizeof(live->lost_before));
	live->too_long_before = live->too_long;
	return error;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Find out how long a live frame can be, and have the longest of this device fit. */
static int gw_live_measure(struct gw_io_live *live, const struct gw_io_options *options, char *why)
{
	uint32_t wanted = (options->device->mtu ? options->device->mtu : 1500) + LINK_BYTES;
	uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE), most = 0;
	int error = -EINVAL;

	live->burst->slots_used = 0; /* the program sends nothing */
	for (most = options->pool->frame_bytes - GW_LIVE_MAX_OFFSET - 1; most > page / 2;
	     most -= 16) {
		error = gw_live_call(live, 1, most);
		if (error != -EINVAL)
			break;
	}
	if (error == -EINVAL)
		error = gw_live_call(live, 1, most);
	if (error) {
		snprintf(why, GW_IO_WHY_BYTES, "%s",
			 error == -EINVAL ? "this kernel has none" : strerror(-error));
		return error;
	}
	if (wanted > most) {
		snprintf(why, GW_IO_WHY_BYTES,
			 "frames of this device have up to %u bytes, %u fit a page", wanted, most);
		return -EMSGSIZE;
	}
	live->max_length = most;
	return 0;
}

/* Have what is shared with the program, and a socket to ask for the link. */
static int gw_live_connect(struct gw_io_live *live, const struct gw_io_options *options, char *why)
{
	void *burst;

	if (!options->live || !options->pool->is_map) {
		snprintf(why, GW_IO_WHY_BYTES, "the agent gave no program for them");
		return -ENOENT;
	}
	burst = mmap(NULL, sizeof(*live->burst), PROT_READ | PROT_WRITE, MAP_SHARED,
		     options->live->burst_fd, 0);
	if (burst == MAP_FAILED) {
		snprintf(why, GW_IO_WHY_BYTES, "gw_live_burst: %s", strerror(errno));
		return -errno;
	}
	live->burst = burst;
	live->link_fd = gw_link_open();
	if (live->link_fd < 0) {
		snprintf(why, GW_IO_WHY_BYTES, "rtnetlink: %s", strerror(-live->link_fd));
		return live->link_fd;
	}
	return 0;
}

static int gw_live_set_up(struct gw_io_live *live, const struct gw_io_options *options, char *why)
{
	int error = gw_live_connect(live, options, why);

	if (error)
		return error;
	error = gw_link_require(live->link_fd, live->ifindex, live->name, why);
	if (!error)
		error = gw_live_measure(live, options, why);
	return error ? error : gw_probe_send(&live->io, options->device, why);
}

static void gw_live_close(struct gw_io *io)
{
	struct gw_io_live *live = gw_live_of(io);

	gw_live_transmit(live);
	if (live->burst)
		munmap(live->burst, sizeof(*live->burst));
	if (live->link_fd >= 0)
		close(live->link_fd);
	free(live);
}

static struct gw_io_live *gw_live_new(const struct gw_io_options *options)
{
	struct gw_io_live *live = calloc(1, sizeof(*live));

	if (!live)
		return NULL;
	live->io = (struct gw_io){.method = &gw_io_live, .pool = options->pool};
	live->live = options->live;
	live->link_fd = -1;
	live->ifindex = options->device->ifindex;
	memcpy(live->name, options->device->name, sizeof(live->name));
	return live;
}

static int gw_live_open(const struct gw_io_options *options, struct gw_io **io, char *why)
{
	struct gw_io_live *live = gw_live_new(options);
	int error;

	if (!live)
		return -ENOMEM;
	error = gw_live_set_up(live, options, why);
	if (error) {
		gw_live_close(&live->io);
		return error;
	}
	*io = &live->io;
	return 0;
}

/* --- to another process: what waited has been sent ------------------------------------------- */

struct gw_live_saved {
	struct gw_io_counters counters;
	struct gw_io_loss loss;
	uint64_t too_long, too_long_before;
	uint32_t max_length;
	int32_t error;
};

static void gw_live_save(const struct gw_io *io, struct gw_io_saved *saved)
{
	const struct gw_io_live *live = (const struct gw_io_live *)io;
	struct gw_live_saved data = {
		.counters = live->counters,
		.loss = live->loss,
		.too_long = live->too_long,
		.too_long_before = live->too_long_before,
		.max_length = live->max_length,
		.error = live->error,
	};

	/* Which errno lost frames is told at the next check, of those since then. */
	gw_io_save_data(saved, &data, sizeof(data));
}

static int gw_live_restore(const struct gw_io_options *options, struct gw_io_saved *saved,
			   struct gw_io **io, char *why)
{
	const struct gw_live_saved *data = gw_io_saved_data(saved, sizeof(*data), why);
	struct gw_io_live *live;
	int error;

	if (!data || data->max_length > options->pool->frame_bytes)
		return -EINVAL;
	live = gw_live_new(options);
	if (!live)
		return -ENOMEM;
	error = gw_live_connect(live, options, why);
	if (error) {
		gw_live_close(&live->io);
		return error;
	}
	live->counters = data->counters;
	live->loss = data->loss;
	live->too_long = data->too_long;
	live->too_long_before = data->too_long_before;
	live->max_length = data->max_length;
	live->error = data->error;
	*io = &live->io;
	return 0;
}

const struct gw_io_method gw_io_live = {
	.name = "live frames",
	.kind = GW_IO_LIVE_FRAME,
	.layer = GW_LAYER_ETHERNET,
	.takes = false,
	.open = gw_live_open,
	.send = gw_live_send,
	.flush = gw_live_flush,
	.descriptors = gw_live_descriptors,
	.counters = gw_live_counters,
	.check = gw_live_check,
	.close = gw_live_close,
	.save = gw_live_save,
	.restore = gw_live_restore,
};
