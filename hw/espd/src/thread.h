/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One worker: a pinned thread with its SAs, its pool of frames, and a queue of each device.
 *
 *   receive ─┬─ ESP, AH ── inbound.c ── gw_open_burst ── forward.c ─┬─ send
 *            └─ clear ──── outbound.c ─ gw_seal_burst ── forward.c ─┘
 *
 * Everything here is touched by this thread only, but for the rings, the command and `sleeps`. The
 * control thread does what it wants done through gw_thread_call, which runs it in this thread.
 */
#ifndef GW_THREAD_H
#define GW_THREAD_H

#include <pthread.h>
#include <semaphore.h>

#include "daemon.h"
#include "hold.h"
#include "io.h"
#include "port.h"
#include "reassembly.h"
#include "ring.h"

#define GW_BATCH         256u
#define GW_MAX_PORTS     512u
#define GW_CACHED_FLOWS  2048u
#define GW_CACHED_HOPS   256u
#define GW_ACQUIRE_TIMES 256u
#define GW_RING_SLOTS    1024u

/* What is to be done with the packets of a flow. */
enum gw_verdict {
	GW_VERDICT_UNSPECIFIED = 0,
	GW_VERDICT_SEAL,  /* with the SA `ref` of `worker` */
	GW_VERDICT_NO_SA, /* PROTECT, and nothing to protect it with */
	GW_VERDICT_BYPASS,
	GW_VERDICT_DISCARD,
	GW_VERDICT_NO_ENTRY,
};

struct gw_decision {
	uint32_t ref;
	uint32_t policy; /* the agent's name of the entry */
	uint16_t worker;
	uint8_t verdict; /* enum gw_verdict */
	bool acquires;
};

struct gw_cached_flow {
	uint64_t generation;
	struct gw_flow flow;
	uint32_t device;
	struct gw_decision decision;
};

struct gw_cached_hop {
	uint64_t generation;
	uint8_t address[16];
	uint8_t family;
	struct gw_next_hop hop;
};

/* At most so many of something a second. */
struct gw_limit {
	uint64_t since_ns;
	uint32_t used;
	uint32_t suppressed;
};

struct gw_acquire_time {
	uint64_t last_ns;
	uint32_t policy;
	uint32_t suppressed;
};

/* What one thread hands to another: behind it lies the packet. */
struct gw_handover {
	uint32_t length;
	uint32_t ref;
	uint16_t device;
	uint8_t inbound;
	uint8_t reserved[5];
};

/* Done in the thread, while whoever asked waits. */
struct gw_command {
	void (*run)(struct gw_thread *thread, void *argument);
	void *argument;
	sem_t done;
};

/* A thread that stands still; the memory of whoever has it do so. */
struct gw_parking {
	struct gw_command command;
	sem_t parked;
	sem_t leave;
};

union gw_any_event {
	struct gw_control_header header;
	struct gw_control_event_sa sa;
	struct gw_control_event_acquire acquire;
	struct gw_control_event_bad_spi bad_spi;
	struct gw_control_event_method method;
};

struct gw_thread {
	struct gw_daemon *daemon;
	struct gw_worker *engine;
	struct gw_pool pool;
	struct gw_live live;
	int live_fds[GW_LIVE_DESCRIPTORS]; /* -1: the agent gave none */
	uint64_t now_ns;
	uint64_t generation;
	const struct gw_tables *tables;
	struct gw_port *ports[GW_MAX_PORTS];
	uint32_t port_count;
	uint32_t round; /* of its loop */
	uint16_t number;
	bool ends;
	/* To send to a device, whatever queue this thread has of it. */
	struct gw_port *by_device[GW_MAX_DEVICES + 1];
	struct gw_port *slow_path;
	struct gw_port *fallback;
	/* packet.reserved is the device that it came from. */
	struct gw_packet received[GW_BATCH];
	struct gw_packet to_seal[GW_BATCH];
	struct gw_packet to_open[GW_BATCH];
	uint32_t seal_count;
	uint32_t open_count;
	uint16_t *mtus;        /* of outbound SAs, by reference: the largest inner packet; 0: any */
	struct gw_ring *from;  /* [thread]: what others hand over to this one */
	struct gw_ring events; /* of union gw_any_event, to the control thread */
	struct gw_control_counters counts; /* drops: those the engine did not count */
	struct gw_limit icmp_limit;
	struct gw_limit bad_spi_limit;
	struct gw_acquire_time acquires[GW_ACQUIRE_TIMES];
	struct gw_reassembly *reassembly; /* NULL until the first fragment comes */
	struct gw_hold hold;
	struct gw_cached_flow flows[GW_CACHED_FLOWS];
	struct gw_cached_hop hops[GW_CACHED_HOPS];
	/* --- other threads see these */
	_Atomic(struct gw_command *) command;
	_Atomic bool sleeps;
	int wake_fd;
	pthread_t id;
};

/**
 * gw_thread_start() - make a worker and run it.
 * @daemon: configured; the thread is not yet in its list.
 * @number: of the worker.
 * @live: GW_LIVE_DESCRIPTORS, that become the thread's when it starts, or NULL.
 * @error: where the reason goes.
 *
 * Return: the thread, or NULL.
 */
struct gw_thread *gw_thread_start(struct gw_daemon *daemon, uint16_t number, const int *live,
				  enum gw_error *error);

/**
 * gw_threads_stop() - end all workers, close their devices, wipe their SAs.
 * @daemon: without threads then.
 */
void gw_threads_stop(struct gw_daemon *daemon);

/**
 * gw_thread_add_port() - receive from a port, and send by it.
 * @thread: the caller's.
 * @port: becomes the thread's.
 *
 * Return: false where there are too many.
 */
bool gw_thread_add_port(struct gw_thread *thread, struct gw_port *port);

/**
 * gw_thread_close_device() - close all ports of a device.
 * @thread: the caller's.
 * @device: its number; 0: of all devices.
 */
void gw_thread_close_device(struct gw_thread *thread, uint32_t device);

/**
 * gw_thread_empty_rings() - do all that was handed over to this thread so far.
 * @thread: the caller's.
 */
void gw_thread_empty_rings(struct gw_thread *thread);

/**
 * gw_thread_call() - have something done in a thread, and wait for it.
 * @thread: running.
 * @run: gets @argument.
 * @argument: may lie on the caller's stack.
 */
void gw_thread_call(struct gw_thread *thread, void (*run)(struct gw_thread *, void *),
		    void *argument);

/**
 * gw_thread_park() - have a thread stand still between two rounds.
 * @thread: running; until gw_thread_unpark() it is the caller's, and must not be called.
 * @parking: kept until then.
 */
void gw_thread_park(struct gw_thread *thread, struct gw_parking *parking);

/**
 * gw_thread_unpark() - have it go on.
 * @parking: of gw_thread_park().
 */
void gw_thread_unpark(struct gw_parking *parking);

/**
 * gw_thread_drain() - do one round with what a thread has at hand, and receive nothing new.
 * @thread: parked.
 *
 * Return: how many packets there were.
 */
uint32_t gw_thread_drain(struct gw_thread *thread);

/**
 * gw_quiesce() - wait until no thread uses what was published before.
 * @daemon: all its threads go through their loops once.
 */
void gw_quiesce(struct gw_daemon *daemon);

/**
 * gw_thread_wake() - see to it that a thread looks at its rings.
 * @thread: of any other.
 */
void gw_thread_wake(struct gw_thread *thread);

/**
 * gw_thread_tell() - queue an event for the agent.
 * @thread: the caller's.
 * @event: its header's type and bytes are set here.
 * @type: enum gw_message_type.
 * @bytes: of its struct.
 *
 * Return: false when the queue is full.
 */
bool gw_thread_tell(struct gw_thread *thread, union gw_any_event *event, uint16_t type,
		    uint32_t bytes);

/**
 * gw_limit_allows() - count one of something, and say whether it may be done.
 * @limit: of it.
 * @now_ns: monotonic.
 * @per_second: how many.
 */
bool gw_limit_allows(struct gw_limit *limit, uint64_t now_ns, uint32_t per_second);

/* Every drop that the engine did not count goes through here. */
static inline void gw_thread_drop(struct gw_thread *thread, const struct gw_packet *packet,
				  enum gw_drop_reason reason)
{
	thread->counts.drops[reason]++;
	gw_pool_return(&thread->pool, gw_frame_of(&thread->pool, packet->data));
}

/* What the engine dropped, or the kernel has a copy of. */
static inline void gw_thread_forget(struct gw_thread *thread, const struct gw_packet *packet)
{
	gw_pool_return(&thread->pool, gw_frame_of(&thread->pool, packet->data));
}

#endif
