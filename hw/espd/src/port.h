/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port: one queue of one device in one thread. It receives by one method and sends by one, which
 * may be the same object, and sends by the next of its list when one fails; what it receives by stays.
 * The best one that was given up is tried again later. Where none is left, the last one goes on.
 */
#ifndef GW_PORT_H
#define GW_PORT_H

#include "io.h"

#define GW_PORT_BATCH 256u

struct gw_thread;

struct gw_port {
	struct gw_control_device device; /* as the agent asked for */
	struct gw_io *receiver;          /* NULL: receives nothing */
	struct gw_io *sender;            /* NULL: sends nothing */
	uint16_t queue;
	uint16_t idle_rounds; /* without a packet, up to GW_MANY_ROUNDS */
	uint16_t batch;       /* packets of one round, between batch_low and batch_high */
	uint8_t receive_at;   /* place of the method in the device's list */
	uint8_t send_at;
	uint8_t fell_from; /* 1 + the best place in the list of senders that was given up, or 0 */
	bool owns_queue;   /* else: it only sends */
	int steering_fd;   /* ours, or -1 */
	uint64_t next_check_ns;
	uint64_t stay_ns;  /* until then no other method is looked for: there was none; or 0 */
	uint64_t retry_ns; /* when fell_from is tried again, or was last */
	uint32_t retry_s;  /* what has been waited for that, the last time; 0: never */
	uint64_t send_refused;
	struct gw_io_counters closed; /* of methods given up */
	struct gw_io_counters told; /* of all, when last looked at: what was lost since is a drop */
	char reason[GW_REASON_BYTES]; /* why not a better method */
	uint8_t reason_bytes;         /* of it, that are about the methods before fell_from */
	uint32_t out_count;
	struct gw_packet out[GW_PORT_BATCH];
};

/**
 * gw_port_open() - open a queue of a device in a thread.
 * @thread: the caller's.
 * @device: as the agent asked for.
 * @queue: below device->queues.
 * @owns_queue: whether to receive from it.
 * @steering_fd: becomes the port's, or -1.
 * @why: GW_IO_WHY_BYTES, written on failure.
 * @error: -errno on failure.
 *
 * Return: the port, or NULL.
 */
struct gw_port *gw_port_open(struct gw_thread *thread, const struct gw_control_device *device,
			     uint16_t queue, bool owns_queue, int steering_fd, char *why,
			     int *error);

/**
 * gw_port_close() - close it; what waits to be sent is sent before.
 * @thread: the caller's.
 * @port: not to be used any more.
 */
void gw_port_close(struct gw_thread *thread, struct gw_port *port);

/**
 * gw_port_send() - queue a packet; it leaves at the end of the round, or when the batch is full.
 * @thread: the caller's.
 * @port: NULL drops it.
 * @packet: begins with what the port's method wants.
 */
void gw_port_send(struct gw_thread *thread, struct gw_port *port, const struct gw_packet *packet);

/**
 * gw_port_flush() - send what is queued, and let the method finish its round.
 * @thread: the caller's.
 * @port: of it.
 */
void gw_port_flush(struct gw_thread *thread, struct gw_port *port);

/**
 * gw_port_check() - once a second: read counters, give up a method that sends nothing.
 * @thread: the caller's.
 * @port: of it.
 */
void gw_port_check(struct gw_thread *thread, struct gw_port *port);

/**
 * gw_port_counters() - read the counters of a port since it was opened.
 * @port: of the caller's thread.
 * @counters: of all its methods.
 */
void gw_port_counters(struct gw_port *port, struct gw_io_counters *counters);

/**
 * gw_port_options() - say with which options the methods of a port are opened.
 * @thread: its own.
 * @port: see there.
 */
struct gw_io_options gw_port_options(struct gw_thread *thread, const struct gw_port *port);

/* Rounds without a packet after which a port is asked less often, if that costs a system call: AF_XDP
 * has a ring to look at. A thread that nobody gives anything sleeps, is woken, and asks them all. */
#define GW_MANY_ROUNDS 64u

/* Whether it is passed over in this round. */
static inline bool gw_port_rests(const struct gw_port *port, uint32_t round)
{
	enum gw_io_kind kind = port->receiver->method->kind;

	return port->idle_rounds == GW_MANY_ROUNDS && kind != GW_IO_XDP_ZERO_COPY &&
	       kind != GW_IO_XDP_COPY && round % 8 != 0;
}

/* How many packets the next round takes at most: more while a queue is full, fewer when it is nearly empty. */
static inline uint16_t gw_port_next_batch(uint16_t batch, uint32_t count, uint16_t low,
					  uint16_t high)
{
	if (count == batch && batch < high)
		return (uint16_t)(batch * 2 < high ? batch * 2 : high);
	if (count < batch / 4u && batch > low)
		return (uint16_t)(batch / 2 > low ? batch / 2 : low);
	return batch;
}

static inline bool gw_port_takes(const struct gw_port *port)
{
	return port->receiver && port->receiver->method->takes;
}

/* Which header frames begin with where it sends. */
static inline bool gw_port_sends_ethernet(const struct gw_port *port)
{
	return port->sender && port->sender->method->layer == GW_LAYER_ETHERNET;
}

#endif
