/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hand-over: a new espd takes the place of the one that runs, with its sockets, its memory and its
 * SAs, and no packet is lost.
 *
 *   new                                           old
 *   connects to the control socket    ASK  ──▶
 *                                          ◀──   BEGIN, POOL..., MESSAGE...    packets go on meanwhile
 *   has made workers, SAs, tables     PREPARED ──▶
 *                                                its threads stand still
 *                                          ◀──   WORKER, PORT..., SA..., HELD..., EVENT..., END
 *   understood all of it              READY ──▶
 *                                          ◀──   GO     wipes its keys, and ends
 *   opens the ports, and carries packets
 *
 * Only GO changes who carries packets. Until then the new one touches none, and whatever goes wrong, a
 * refusal, a timeout, a connection that ends, has the old one go on with what it has. With GO gone out
 * the old one never touches a packet or a key again, so that no sequence number is used by both.
 *
 * What lies in the rings of AF_XDP, in queues of TUN devices and in socket buffers waits there. What old
 * threads have at hand when they stop they send first (gw_thread_drain), but for packets that are held
 * for an SA: those lie in the pool, which both share. So every frame is free, held, or the kernel's.
 *
 * The static state is told in the messages of gw_control.h, which the new one checks and does as if the
 * agent sent them. So both must speak the same GW_CONTROL_VERSION, and the same GW_SUCCESSION_VERSION:
 * raise it with every change of what is told here. The first record and REFUSED never change.
 */
#ifndef GW_SUCCESSION_H
#define GW_SUCCESSION_H

#include "control.h"

#define GW_SUCCESSION_VERSION 2
/* The first bytes of every record; as a message of the agent's it would be of version 0x5347. */
#define GW_SUCCESSION_MAGIC 0x4f485347u
/* Most descriptors with one record, and the longest record. */
#define GW_SUCCESSION_DESCRIPTORS 32
#define GW_SUCCESSION_BYTES       (320u << 10)

enum gw_succession_kind {
	GW_SUCCESSION_UNSPECIFIED = 0,
	GW_SUCCESSION_ASK,
	GW_SUCCESSION_REFUSED, /* by either side; `reason` */
	GW_SUCCESSION_BEGIN,   /* descriptor 0: the listening socket */
	GW_SUCCESSION_POOL,    /* descriptors: memory of a worker's pool, or its live frames */
	GW_SUCCESSION_MESSAGE,
	GW_SUCCESSION_PREPARED,
	GW_SUCCESSION_WORKER,
	GW_SUCCESSION_PORT,
	GW_SUCCESSION_SA,
	GW_SUCCESSION_HELD,
	GW_SUCCESSION_EVENT,
	GW_SUCCESSION_END,
	GW_SUCCESSION_READY,
	GW_SUCCESSION_GO,
};

struct gw_succession_header {
	uint32_t magic;
	uint32_t kind;
	uint32_t bytes;       /* of the whole record */
	uint32_t descriptors; /* bit i: descriptor i is there, in this order */
};

/* ASK and REFUSED: the same in every version. */
struct gw_succession_ask {
	struct gw_succession_header header;
	uint32_t version; /* GW_SUCCESSION_VERSION */
	uint32_t control_version;
	uint32_t drop_reasons;
	uint32_t reserved;
};

struct gw_succession_refused {
	struct gw_succession_header header;
	char reason[GW_REASON_BYTES];
};

struct gw_succession_begin {
	struct gw_succession_header header;
	uint8_t life[16];
	uint64_t started_ns;
	uint32_t pools; /* records POOL that follow: workers, or 0 before CONFIGURE */
	uint32_t reserved;
};

struct gw_succession_pool {
	struct gw_succession_header header;
	uint32_t worker;
	uint32_t is_live; /* GW_LIVE_DESCRIPTORS, else one: a memfd */
};

/* A message of gw_control.h lies behind it; a DEVICE_SET is noted, its ports come later. */
struct gw_succession_message {
	struct gw_succession_header header;
};

/* PREPARED, READY, GO. */
struct gw_succession_plain {
	struct gw_succession_header header;
};

struct gw_succession_worker {
	struct gw_succession_header header;
	uint32_t worker;
	uint32_t reserved;
	struct gw_control_counters counts; /* drops of the engine included */
};

/* Descriptors: the XSKMAP, then GW_IO_SAVED_DESCRIPTORS of the receiver and as many of the sender. */
struct gw_succession_port {
	struct gw_succession_header header;
	uint32_t device;
	uint16_t worker;
	uint16_t queue;
	uint16_t batch;
	uint8_t receive_at;
	uint8_t send_at;
	uint8_t owns_queue;
	uint8_t receiver_kind; /* 0: there is none */
	uint8_t sender_kind;
	uint8_t is_same; /* the receiver sends too */
	uint8_t fell_from;
	uint8_t reason_bytes;
	uint8_t reserved[4];
	uint32_t retry_s;
	uint64_t retry_ns;
	uint64_t send_refused;
	struct gw_io_counters closed;
	struct gw_io_counters told;
	char reason[GW_REASON_BYTES];
	uint32_t receiver_bytes;
	uint32_t sender_bytes;
	uint8_t receiver[GW_IO_SAVED_BYTES];
	uint8_t sender[GW_IO_SAVED_BYTES];
	/* Then a bit for each frame of the pool: whether the kernel has it through this port. */
};

struct gw_succession_sa {
	struct gw_succession_header header;
	uint64_t cookie;
	uint32_t events;
	uint32_t reserved;
	struct gw_sa_state state;
};

struct gw_succession_held {
	struct gw_succession_header header;
	uint64_t until_ns;
	uint64_t offset; /* of the packet, in the pool's memory */
	uint32_t worker;
	uint32_t policy;
	uint32_t length;
	uint16_t device;
	uint16_t reserved;
};

struct gw_succession_event {
	struct gw_succession_header header;
	uint32_t worker;
	uint32_t reserved;
	union gw_any_event event;
};

/* How many there were: none was lost on the way. */
struct gw_succession_end {
	struct gw_succession_header header;
	uint32_t ports;
	uint32_t sas;
	uint32_t held;
	uint32_t reserved;
};

/* --- records (succession_record.c) */

/* A connection to the other espd, and memory for one record. */
struct gw_succession {
	int connection;
	int fds[GW_SUCCESSION_DESCRIPTORS]; /* of the record that was received; -1: none, or taken */
	char why[GW_REASON_BYTES];          /* what went wrong */
	_Alignas(8) uint8_t record[GW_SUCCESSION_BYTES];
};

/**
 * gw_succession_put() - send a record.
 * @talk: its connection.
 * @record: begins with a header, of which kind and bytes are set.
 * @fds: GW_SUCCESSION_DESCRIPTORS or fewer, -1 where there is none; kept open.
 * @fd_count: how many.
 *
 * Return: false, and `why`, where the other side does not take it in time or is gone.
 */
bool gw_succession_put(struct gw_succession *talk, void *record, const int *fds, size_t fd_count);

/**
 * gw_succession_say() - send a record without contents.
 * @talk: its connection.
 * @kind: of it.
 */
bool gw_succession_say(struct gw_succession *talk, enum gw_succession_kind kind);

/**
 * gw_succession_refuse() - tell the other side why not.
 * @talk: its connection.
 * @reason: for humans.
 */
void gw_succession_refuse(struct gw_succession *talk, const char *reason);

/**
 * gw_succession_get() - receive a record.
 * @talk: `record` and `fds` are written; what was left of `fds` is closed.
 * @timeout_ms: how long it may take.
 *
 * Return: its header, checked; or NULL and `why`: it said REFUSED, is gone, or talks nonsense.
 */
const struct gw_succession_header *gw_succession_get(struct gw_succession *talk, int timeout_ms);

/**
 * gw_succession_expect() - receive a record of one kind and size.
 * @talk: as gw_succession_get().
 * @kind: enum gw_succession_kind.
 * @bytes: of it.
 * @timeout_ms: how long it may take.
 */
const void *gw_succession_expect(struct gw_succession *talk, enum gw_succession_kind kind,
				 size_t bytes, int timeout_ms);

/**
 * gw_succession_close_fds() - close the descriptors of the last record that nobody took.
 * @talk: see there.
 */
void gw_succession_close_fds(struct gw_succession *talk);

/**
 * gw_succession_is_ask() - say whether another espd, and not an agent, said this.
 * @message: any bytes.
 * @bytes: how many.
 */
bool gw_succession_is_ask(const void *message, size_t bytes);

/* --- both sides */

/**
 * gw_give_over() - give everything to another espd (succession_give.c).
 * @control: goes on unless it is given away.
 * @connection: where it asked.
 * @listener: the control socket.
 * @ask: what it said.
 *
 * Return: true: it carries the packets now; wipe what there is and end, by gw_control_vanish().
 */
bool gw_give_over(struct gw_control *control, int connection, int listener,
		  const struct gw_succession_ask *ask);

/**
 * gw_take_over() - get everything from the espd that runs (succession_take.c).
 * @control: initialized, and nothing else; where this fails, only good for gw_control_end().
 * @connection: to its control socket.
 * @listener: where the control socket goes.
 * @why: GW_REASON_BYTES, written on failure: the other one carries on.
 */
bool gw_take_over(struct gw_control *control, int connection, int *listener, char *why);

#endif
