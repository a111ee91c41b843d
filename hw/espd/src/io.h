/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one table of I/O methods, and the memory that packets lie in.
 *
 * A worker has one pool of frames. Every method takes the frames it receives into from that pool,
 * and gives those it has sent back to it, so that a packet received by one method is sealed in
 * place and sent by any other. Each AF_XDP socket registers the pool as its UMEM: it is one
 * page-aligned mapping, frames are of a power of two and numbered by their place. For live frames
 * it is the memory of a BPF map at the same time, out of which the program copies.
 *
 *   | 0                256 = GW_FRAME_DATA                            | frame_bytes
 *   |  headroom         | packet as received                | tailroom |
 *   |  XDP's 256 bytes, or ours: >= GW_HEADROOM + Ethernet  | >= GW_TAILROOM
 *
 * Every call is made in the thread of the worker; nothing is locked. No call blocks.
 */
#ifndef GW_IO_H
#define GW_IO_H

#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gw_control.h"
#include "gw_engine.h"

/* Where UDP-encapsulated ESP comes in (RFC 3948 §2). */
#define GW_UDP_ENCAPSULATION_PORT 4500

/* --- frames ----------------------------------------------------------------------------------- */

/* Where a received packet begins in its frame: what XDP reserves (XDP_PACKET_HEADROOM). */
#define GW_FRAME_DATA 256u
#define GW_NO_FRAME   UINT32_MAX

struct gw_pool {
	uint8_t *memory;      /* page-aligned, frames * frame_bytes */
	uint32_t frames;      /* how many */
	uint32_t frame_bytes; /* 2048 or 4096 where AF_XDP is used; a power of two */
	uint32_t frame_shift; /* its logarithm */
	uint32_t free_count;
	uint32_t *free;     /* numbers of unused frames, the newest last */
	uint32_t receivers; /* AF_XDP sockets that receive into frames of this pool */
	int fd;             /* whose memory it is: a memfd of ours, or -1: of a map */
	bool is_map;        /* the memory is a BPF map's: gw_pool_init_map() */
	/* Before a hand-over: receive() brings what it has at hand, and takes nothing more. */
	bool is_draining;
};

static inline uint32_t gw_pool_take(struct gw_pool *pool)
{
	return pool->free_count ? pool->free[--pool->free_count] : GW_NO_FRAME;
}

static inline void gw_pool_return(struct gw_pool *pool, uint32_t frame)
{
	pool->free[pool->free_count++] = frame;
}

static inline uint8_t *gw_frame_start(const struct gw_pool *pool, uint32_t frame)
{
	return pool->memory + ((size_t)frame << pool->frame_shift);
}

/* The frame in which a byte of a packet lies. */
static inline uint32_t gw_frame_of(const struct gw_pool *pool, const uint8_t *data)
{
	return (uint32_t)((size_t)(data - pool->memory) >> pool->frame_shift);
}

/* The longest packet, Ethernet header included, that can be received and then sealed in place. */
static inline uint32_t gw_frame_room(const struct gw_pool *pool)
{
	return pool->frame_bytes - GW_FRAME_DATA - GW_TAILROOM;
}

/* Describe what was received into a frame, `offset` bytes from its start. */
static inline void gw_frame_describe(const struct gw_pool *pool, uint32_t frame, uint32_t offset,
				     uint32_t length, struct gw_packet *packet)
{
	*packet = (struct gw_packet){
		.data = gw_frame_start(pool, frame) + offset,
		.length = length,
		.ref = GW_NO_REF,
		.headroom = (uint16_t)offset,
		.tailroom = (uint16_t)(pool->frame_bytes - offset - length),
	};
}

/**
 * gw_pool_init() - map frames; they are not touched until used.
 * @pool: filled in.
 * @frames: how many.
 * @frame_bytes: a power of two, 2048 or more.
 *
 * Return: 0, or -errno.
 */
int gw_pool_init(struct gw_pool *pool, uint32_t frames, uint32_t frame_bytes);

/**
 * gw_pool_adopt() - have the memory of another process's pool, as gw_pool_init() made it there.
 * @pool: filled in; every frame is free.
 * @fd: its memfd; becomes the pool's on success.
 * @frames: as many as it has.
 * @frame_bytes: as there.
 *
 * Return: 0, or -errno.
 */
int gw_pool_adopt(struct gw_pool *pool, int fd, uint32_t frames, uint32_t frame_bytes);

/**
 * gw_pool_keep() - have the frames that are not in use be free, and no others.
 * @pool: filled in.
 * @used: [frames]: whether somebody has it.
 */
void gw_pool_keep(struct gw_pool *pool, const uint8_t *used);

/**
 * gw_pool_init_map() - have the memory of a BPF map for frames, so that live frames can be sent from
 * them.
 * @pool: filled in; cleared by gw_pool_clear() like another.
 * @map_fd: gw_live_frames: a BPF array with BPF_F_MMAPABLE, of which every entry is a frame. Not kept.
 * @frames: as many as the map has.
 * @frame_bytes: see gw_pool_init().
 *
 * Return: 0, or -errno.
 */
int gw_pool_init_map(struct gw_pool *pool, int map_fd, uint32_t frames, uint32_t frame_bytes);

/**
 * gw_pool_clear() - unmap all frames; whoever had some must have been closed.
 * @pool: filled in, or all zero.
 */
void gw_pool_clear(struct gw_pool *pool);

/* In packet.flags, for `send`: it leaves in clear, as the SPD says, or is an ICMP error of ours. */
#define GW_PACKET_CLEAR 0x80

/* --- methods ---------------------------------------------------------------------------------- */

/* The program that sends live frames for one worker (ebpf/xdp_live.bpf.c), as the agent loaded it. */
struct gw_live {
	int program_fd;
	int burst_fd; /* its gw_live_burst */
};

/* What a packet begins with, where a method receives and sends it. */
enum gw_layer {
	GW_LAYER_UNSPECIFIED = 0,
	GW_LAYER_ETHERNET = 1, /* packet.data is the Ethernet header, VLAN tags included */
	GW_LAYER_IP = 2,       /* packet.data is the IP header: the kernel has or adds the rest */
};

/* Why a method could not be opened, or is given up; with its end, always. */
#define GW_IO_WHY_BYTES GW_REASON_BYTES

struct gw_io_options {
	const struct gw_control_device *device; /* as the agent asked for; not kept */
	struct gw_pool *pool;                   /* of this worker; kept */
	uint16_t queue;                         /* below device->queues */
	bool receives;                          /* else: it is opened to send only */
	bool sends;
	int steering_fd; /* the device's XSKMAP, where the agent attached one, or -1; not kept */
	uint32_t mark;   /* SO_MARK of protected packets that leave through sockets */
	uint32_t clear_mark;        /* and of those with GW_PACKET_CLEAR */
	const struct gw_live *live; /* of this worker, or NULL where the agent gave none; kept */
	const atomic_bool *agent;   /* whether there is one, who holds UDP 4500; kept; or NULL */
};

/* All monotonic. Losses that the caller sees (what `send` did not take) are counted by the caller. */
struct gw_io_counters {
	uint64_t received_packets;
	uint64_t received_bytes;
	uint64_t sent_packets; /* taken by `send`; on their way, as far as the method can tell */
	uint64_t sent_bytes;
	uint64_t receive_lost; /* came, and were lost before us: full rings, no frames, too long */
	uint64_t send_lost;    /* taken by `send`, and lost behind our back afterwards */
	uint64_t sent_bursts;  /* of packets that left as one (UDP_SEGMENT) */
	uint64_t received_supers; /* super-frames, of which packets were cut */
};

struct gw_io;

/* What one process tells the next of an object that is drained; descriptors are -1 where there is none. */
#define GW_IO_SAVED_DESCRIPTORS 10
#define GW_IO_SAVED_BYTES       1024u
struct gw_io_saved {
	int fds[GW_IO_SAVED_DESCRIPTORS]; /* save(): still the object's; restore(): taken on success */
	uint32_t bytes;
	_Alignas(8) uint8_t data[GW_IO_SAVED_BYTES]; /* a struct of the method's own */
	/* [frames of the pool]: those that the kernel has. save() marks them; restore() refuses none. */
	uint8_t *lent;
};

struct gw_io_method {
	const char *name;
	enum gw_io_kind kind;
	enum gw_layer layer;
	/* Whether what it receives is taken from the kernel. If not, the kernel has a copy of its own,
	 * and whoever configures the machine sees to it that the kernel ignores it. */
	bool takes;

	/**
	 * open() - make the object for one queue of one device.
	 * @options: see there.
	 * @io: where it goes; it begins with a struct gw_io that this call fills in.
	 * @why: GW_IO_WHY_BYTES, written on failure: what the machine said, and what would help.
	 *
	 * A method that can probe itself (a frame sent and accounted for: io_probe.h) does so here.
	 * Return: 0, or -errno and nothing is left behind. -ENETDOWN: the device is down, and no
	 * method to blame.
	 */
	int (*open)(const struct gw_io_options *options, struct gw_io **io, char *why);

	/**
	 * receive() - take what has come; NULL for a method that only sends.
	 * @packets: written: data, length, ref (GW_NO_REF), headroom, tailroom, the rest zero. Each
	 * lies in a frame of the pool that the caller now owns, with at least GW_HEADROOM + 18 bytes
	 * before and GW_TAILROOM behind it. What is longer is lost and counted.
	 *
	 * Return: how many, at most @max; 0 when nothing waits.
	 */
	unsigned int (*receive)(struct gw_io *io, struct gw_packet *packets, unsigned int max);

	/**
	 * send() - take packets in order; NULL for a method that only receives.
	 * @packets: each in a frame of the pool, whole; those taken belong to the method, which returns
	 * their frames to the pool as soon as it can.
	 *
	 * Return: how many of the first were taken. The others are still the caller's.
	 */
	unsigned int (*send)(struct gw_io *io, struct gw_packet *packets, unsigned int count);

	/* flush() - what is left to do at the end of a round of the worker: wake the driver, return
	 * frames of what was sent. Called every round, also if nothing was sent; may be NULL. */
	void (*flush)(struct gw_io *io);

	/* descriptors() - what to poll for when nothing waits; returns how many, at most @max. */
	unsigned int (*descriptors)(const struct gw_io *io, struct pollfd *fds, unsigned int max);

	/* counters() - read all counters, those of kernel and driver too; called about once a second,
	 * never per packet. */
	void (*counters)(struct gw_io *io, struct gw_io_counters *counters);

	/**
	 * check() - say whether the method still carries what it takes; may be NULL.
	 * @now_ns: CLOCK_MONOTONIC.
	 * @why: GW_IO_WHY_BYTES, written when it does not.
	 *
	 * Called about once a second. An error is about sending, for which the device goes on to its next
	 * method; whether it still receives by this one is not asked. But -ENETDOWN: the device is down, and
	 * the method goes on when it is up again; -ENODEV: it is gone. -EIO: nothing seems to arrive
	 * (gw_loss_judge()); gw_io_check() makes sure of it.
	 * Return: 0, or -errno.
	 */
	int (*check)(struct gw_io *io, uint64_t now_ns, char *why);

	/* close() - give back everything, frames to the pool too, and free the object. */
	void (*close)(struct gw_io *io);

	/* save() - write down what restore() needs, and change nothing; see succession.h. A new field of
	 * the method's object belongs in here unless zero does: raise GW_SUCCESSION_VERSION with it. */
	void (*save)(const struct gw_io *io, struct gw_io_saved *saved);

	/**
	 * restore() - make the object that save() described, in another process.
	 * @options: as for open(); the pool's memory is the same as there.
	 * @saved: of the same version; its bytes are not to be trusted.
	 * @io: where it goes.
	 * @why: GW_IO_WHY_BYTES, written on failure.
	 *
	 * Touches no packet and no ring: the other process may go on if something fails.
	 * Return: 0, or -errno and nothing is left behind; descriptors are the caller's then.
	 */
	int (*restore)(const struct gw_io_options *options, struct gw_io_saved *saved,
		       struct gw_io **io, char *why);
};

/* What every method's object begins with. */
struct gw_io {
	const struct gw_io_method *method;
	struct gw_pool *pool;
};

extern const struct gw_io_method gw_io_packet;   /* io_packet.c: AF_PACKET */
extern const struct gw_io_method gw_io_tun;      /* io_tun.c: TUN with IFF_VNET_HDR */
extern const struct gw_io_method gw_io_raw;      /* io_raw.c: raw sockets, the kernel routes */
extern const struct gw_io_method gw_io_xdp;      /* io_xdp.c: AF_XDP zero-copy */
extern const struct gw_io_method gw_io_xdp_copy; /* io_xdp.c: AF_XDP copy */
extern const struct gw_io_method gw_io_live;     /* io_live.c: live frames; sends only */

/**
 * gw_io_save_data() - put a method's struct into what is saved.
 * @saved: see there.
 * @data: at most GW_IO_SAVED_BYTES.
 * @bytes: of it.
 */
void gw_io_save_data(struct gw_io_saved *saved, const void *data, uint32_t bytes);

/**
 * gw_io_saved_data() - return a method's struct, or NULL where another size was saved.
 * @saved: see there.
 * @bytes: of the struct.
 * @why: GW_IO_WHY_BYTES, written on failure.
 */
const void *gw_io_saved_data(const struct gw_io_saved *saved, uint32_t bytes, char *why);

/**
 * gw_io_find() - return a method by its number, or NULL where this build does not have it.
 * @kind: of any value.
 */
const struct gw_io_method *gw_io_find(unsigned int kind);

#endif
