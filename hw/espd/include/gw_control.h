/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the agent and espd say to each other over a Unix socket of type SOCK_SEQPACKET.
 *
 * One message is one datagram: one of the structs below, whole, that begins with a header naming
 * its version, type and size. All integers are little-endian, addresses as on the wire, IPv4 in the
 * first four bytes; reserved fields are zero. The other side is
 * gateway/datapath/engine/protocol.py, compared with this file by tests/espd.
 *
 *   agent -> espd   a request; many may be under way, they are done and answered in order
 *   espd -> agent   a reply: the request's type with GW_REPLY, and its number; or an event, number 0
 *
 * The first request of a connection is HELLO; a new HELLO on another connection takes over, and the
 * older connection is closed. espd keeps its state when there is no connection: packets go on, and
 * events of SAs wait. What was set but not committed is forgotten then.
 *
 * Requests that carry descriptors (SCM_RIGHTS) say which; espd closes all others.
 */
#ifndef GW_CONTROL_H
#define GW_CONTROL_H

#include <assert.h>
#include <stdint.h>

#include "gw_engine.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
	       "the control socket speaks little-endian");

/* Changed with every change of a struct; GW_DROP_REASON_COUNT is part of them and told apart. */
#define GW_CONTROL_VERSION 3

#define GW_REPLY        0x8000
#define GW_EVENT_FIRST  0x4000
#define GW_REASON_BYTES 160

#define GW_MAX_WORKERS 64
#define GW_MAX_DEVICES 250 /* devices are numbered from 1 to this */
#define GW_MAX_METHODS 6
#define GW_NOTE_BYTES  256
#define GW_NAME_BYTES  16
#define GW_BUILD_BYTES 48
#define GW_SAS_LISTED  32 /* records in one reply */

/* "Let espd choose", or "of all together". */
#define GW_ANY_WORKER 0xffff
#define GW_ANY_CPU    0xffff

enum gw_message_type {
	GW_MESSAGE_UNSPECIFIED = 0,
	GW_MESSAGE_HELLO = 1,
	GW_MESSAGE_CONFIGURE = 2,
	GW_MESSAGE_DEVICE_SET = 3,
	GW_MESSAGE_DEVICE_REMOVE = 4,
	GW_MESSAGE_DEVICE_READ = 5,
	GW_MESSAGE_SA_ADD = 6,
	GW_MESSAGE_SA_REMOVE = 7,
	GW_MESSAGE_SA_READ = 8,
	GW_MESSAGE_SA_LIST = 9,
	GW_MESSAGE_SA_RESERVE = 10,
	GW_MESSAGE_SA_MOVE = 11,
	GW_MESSAGE_SA_PATH_MTU = 12,
	GW_MESSAGE_TUNNEL_SET = 13,
	GW_MESSAGE_POLICY_SET = 14,
	GW_MESSAGE_POLICY_REMOVE = 15,
	GW_MESSAGE_ROUTE_SET = 16,
	GW_MESSAGE_ROUTE_REMOVE = 17,
	GW_MESSAGE_NEIGHBOUR_SET = 18,
	GW_MESSAGE_NEIGHBOUR_REMOVE = 19,
	GW_MESSAGE_COMMIT = 20,
	GW_MESSAGE_CLEAR = 21,
	GW_MESSAGE_COUNTERS_READ = 22,
	GW_MESSAGE_SHUT_DOWN = 23,
	GW_MESSAGE_COUNT,

	GW_MESSAGE_EVENT_SA = GW_EVENT_FIRST,
	GW_MESSAGE_EVENT_ACQUIRE,
	GW_MESSAGE_EVENT_BAD_SPI,
	GW_MESSAGE_EVENT_METHOD,
};

/* What `error` of a reply may be beside enum gw_error. */
enum gw_control_error {
	GW_E_VERSION = -32,  /* the other side speaks another version */
	GW_E_SIZE = -33,     /* a message has not the size of its type */
	GW_E_TYPE = -34,     /* no such request */
	GW_E_ORDER = -35,    /* before HELLO or CONFIGURE, or CONFIGURE again with other contents */
	GW_E_NO_ENTRY = -36, /* no such device, policy, route or neighbour */
	GW_E_FULL = -37,     /* a table is full */
	GW_E_SYSTEM = -38,   /* the kernel refused: see system_errno and reason */
	GW_E_DESCRIPTOR = -39, /* a descriptor is missing */
};

struct gw_control_header {
	uint16_t version; /* GW_CONTROL_VERSION */
	uint16_t type;    /* enum gw_message_type */
	uint32_t bytes;   /* of the whole message */
	uint64_t request; /* the agent's number, returned in the reply; 0 in events */
};

/* What every reply begins with; those of requests without another struct are just this. */
struct gw_control_reply {
	struct gw_control_header header;
	int32_t error;                /* GW_OK, enum gw_error or enum gw_control_error */
	int32_t system_errno;         /* with GW_E_SYSTEM */
	char reason[GW_REASON_BYTES]; /* for humans, with its end; empty on success */
};

/* Requests that say nothing more than what they are: SHUT_DOWN, COMMIT, CLEAR. COMMIT: what policies,
 * routes, neighbours and tunnels were set since is in force, all at once, before the reply. CLEAR:
 * forget all policies, routes and neighbours, at the next COMMIT. */
struct gw_control_plain {
	struct gw_control_header header;
};

/* --- life ------------------------------------------------------------------------------------- */

struct gw_control_hello {
	struct gw_control_header header;
	uint32_t drop_reasons; /* GW_DROP_REASON_COUNT of the agent; another is GW_E_VERSION */
	uint32_t reserved;
};

struct gw_control_hello_reply {
	struct gw_control_reply reply;
	uint8_t life[16];    /* drawn when espd started: another one, and all SAs are lost */
	uint64_t started_ns; /* CLOCK_MONOTONIC */
	uint32_t process;
	uint16_t workers; /* 0: not configured yet */
	uint16_t reserved;
	uint32_t sas;
	uint32_t methods; /* bits 1 << enum gw_io_kind: what this build has */
	char ipsecmb[48]; /* gw_crypto_name */
	char openssl[48];
	char build[GW_BUILD_BYTES]; /* of its executable, in hex; empty where it has none */
};

/* Of each worker that may send live frames: the program, gw_live_burst and gw_live_frames of
 * ebpf/xdp_live.bpf.c, and three links that espd keeps open. */
#define GW_LIVE_DESCRIPTORS 6

/*
 * Once in a life, before anything else. The same contents again are no error. It comes with no
 * descriptors, or with GW_LIVE_DESCRIPTORS for each worker in turn: gw_live_frames is then the memory
 * of the worker's pool, and has `frames` entries of `frame_bytes`.
 */
struct gw_control_configure {
	struct gw_control_header header;
	uint16_t workers;              /* 1 to GW_MAX_WORKERS */
	uint16_t cpus[GW_MAX_WORKERS]; /* where each is pinned, or GW_ANY_CPU */
	uint8_t busy_poll;             /* spin where there is nothing to do, instead of sleeping */
	uint8_t crypto;                /* enum gw_crypto: of SAs that say AUTO */
	uint32_t inbound_bits; /* so many low bits of an SPI are its index: no two SAs share them */
	uint32_t outbound_sas; /* at each worker */
	uint32_t tunnels;      /* tunnels are numbered from 1 to this */
	uint32_t mark;         /* SO_MARK of protected packets that leave through sockets, */
	uint32_t clear_mark;   /* and of clear ones: BYPASS, ICMP errors */
	uint32_t frames;       /* of each worker's pool */
	uint32_t frame_bytes;  /* a power of two from 2048, at least MTU + 338; AF_XDP: to 4096 */
	uint16_t batch_low;    /* packets of one round, at first */
	uint16_t batch_high;   /* and under load; up to 256 */
	uint32_t reserved;
};

/* --- devices ---------------------------------------------------------------------------------- */

enum gw_io_kind {
	GW_IO_UNSPECIFIED = 0,
	GW_IO_XDP_ZERO_COPY = 1,
	GW_IO_XDP_COPY = 2,
	GW_IO_LIVE_FRAME = 3, /* sends only */
	GW_IO_PACKET = 4,     /* AF_PACKET */
	GW_IO_TUN = 5,
	/* Raw sockets of one device or, with ifindex 0, of all: ESP and AH come in; any IP packet goes
	 * out, and the kernel routes it. Not beside a device that receives by AF_PACKET: both would
	 * hear the same packets. */
	GW_IO_RAW = 6,
	GW_IO_COUNT,
};

enum gw_device_flag {
	/* ESP and AH come in here; what comes in clear is checked against the SPD (RFC 4301 §5.2). */
	GW_DEVICE_PROTECTED = 1 << 0,
	/* What is to be protected comes in here. */
	GW_DEVICE_CLEAR = 1 << 1,
	/* A TUN device: decrypted packets without a known next hop go to the kernel here. */
	GW_DEVICE_SLOW_PATH = 1 << 2,
	/* GW_IO_RAW: what we send ourselves and know no next hop for leaves here. */
	GW_DEVICE_FALLBACK = 1 << 3,
	/* AF_PACKET: see all frames, not IPsec's only; for a device with no other use. */
	GW_DEVICE_ALL_FRAMES = 1 << 4,
	/* Descriptor 0 of DEVICE_SET is the device's XSKMAP (gw_xsks). */
	GW_DEVICE_STEERING = 1 << 5,
	/* TUN: super-frames, by a virtio_net_hdr. AF_PACKET has them always. */
	GW_DEVICE_OFFLOAD = 1 << 6,
	/* A TUN device of a route-based tunnel: what comes in here has no entries and SAs but those that
	 * name this device. It outlives espd, so that the routes into it do. */
	GW_DEVICE_TUNNEL = 1 << 7,
	/* TUNNEL: what its SAs bring may go on by the routes here, without the kernel. */
	GW_DEVICE_ROUTED = 1 << 8,
};
#define GW_DEVICE_FLAGS 0x1ff

/* Open a device, or open it anew with other methods. One that is open as it is asked for stays so, and
 * no packet is lost: of mtu, mac and addresses it has the new ones. Queue q belongs to worker q modulo
 * workers. */
struct gw_control_device {
	struct gw_control_header header;
	uint32_t device;  /* 1 to GW_MAX_DEVICES, as the agent chose */
	uint32_t ifindex; /* 0: by name (TUN devices are made by espd), or none */
	char name[GW_NAME_BYTES];
	uint32_t flags;  /* enum gw_device_flag */
	uint32_t mtu;    /* of IP packets */
	uint16_t queues; /* 1 or more */
	uint8_t mac[6];  /* zero where there is none */
	/* enum gw_io_kind, the best first, 0 behind the last; none: not used in this direction. */
	uint8_t receive_methods[GW_MAX_METHODS];
	uint8_t send_methods[GW_MAX_METHODS];
	uint8_t address4[4]; /* source of our ICMP errors; zero: none are sent */
	uint8_t address6[16];
};

struct gw_control_device_reply {
	struct gw_control_reply reply; /* `reason`: why not a better method, also on success */
	uint32_t ifindex;              /* of a TUN device that was made */
	uint8_t receive_method;        /* enum gw_io_kind, what was opened */
	uint8_t send_method;
	uint16_t reserved;
};

/* DEVICE_REMOVE and DEVICE_READ. */
struct gw_control_device_name {
	struct gw_control_header header;
	uint32_t device;
	uint32_t reserved;
};

struct gw_control_device_counters {
	struct gw_control_reply reply; /* `reason`: why not a better method */
	uint8_t receive_method;
	uint8_t send_method;
	uint8_t reserved[6];
	uint64_t received_packets; /* of all queues and methods since the device was set */
	uint64_t received_bytes;
	uint64_t sent_packets;
	uint64_t sent_bytes;
	uint64_t receive_lost; /* in rings, before us */
	uint64_t send_lost;    /* after the method took them: counted as drops `send_failed` too */
	uint64_t send_refused; /* not taken by the method: drops `send_failed` */
	uint64_t sent_bursts;  /* of packets that left as one (UDP_SEGMENT) */
	uint64_t received_supers; /* super-frames that came, and were cut */
};

/* --- SAs -------------------------------------------------------------------------------------- */

/* SA_ADD. An SA is named by params.cookie, which the agent chooses: not 0, never used twice.
 * params.index is 0, espd chooses it. An outbound SA sends below sequence_limit only: see SA_RESERVE. */
struct gw_control_sa {
	struct gw_control_header header;
	uint16_t worker;     /* its owner, or GW_ANY_WORKER */
	uint16_t note_bytes; /* at most GW_NOTE_BYTES */
	/* Inbound: decrypted packets go to this one, whatever the routes (but see GW_DEVICE_ROUTED), and
	 * nowhere as long as it is not there. 0: by routes. */
	uint32_t device;
	struct gw_sa_params params;
	uint8_t note
		[GW_NOTE_BYTES]; /* the agent's, returned in records: what it needs to adopt the SA */
};

struct gw_control_sa_reply {
	struct gw_control_reply reply;
	uint64_t cookie;
	uint32_t effective_mtu;
	uint16_t worker;
	uint8_t crypto; /* enum gw_crypto */
	uint8_t reserved;
};

/* SA_REMOVE, SA_READ; and SA_LIST: from the SA after this cookie on, in the order of cookies. */
struct gw_control_sa_name {
	struct gw_control_header header;
	uint64_t cookie;
};

struct gw_control_sa_record {
	uint64_t cookie;
	uint32_t spi;
	uint8_t direction;
	uint8_t protocol;
	uint8_t mode;
	uint8_t family;
	uint8_t source[16]; /* where it sends to now, after SA_MOVE */
	uint8_t destination[16];
	uint16_t udp_source_port;
	uint16_t udp_destination_port;
	uint16_t worker;
	uint16_t note_bytes;
	uint32_t device;
	uint32_t events;         /* enum gw_event_kind: all that were ever told */
	uint64_t sequence_limit; /* outbound */
	uint64_t now_ns;         /* beside usage.last_used_ns, 0 for never */
	struct gw_sa_usage usage;
	uint8_t note[GW_NOTE_BYTES];
};

/* The reply to SA_READ, and to SA_REMOVE: what it had counted. */
struct gw_control_sa_state {
	struct gw_control_reply reply;
	struct gw_control_sa_record sa;
};

struct gw_control_sa_list {
	struct gw_control_reply reply;
	uint32_t count; /* fewer than GW_SAS_LISTED: these were the last */
	uint32_t reserved;
	struct gw_control_sa_record sas[GW_SAS_LISTED];
};

/* The agent has written down that no life of this key begins below sequence_limit. */
struct gw_control_sa_reserve {
	struct gw_control_header header;
	uint64_t cookie;
	uint64_t sequence_limit;
};

struct gw_control_sa_move {
	struct gw_control_header header;
	uint64_t cookie;
	uint8_t destination[16];
	uint16_t port;
	uint16_t reserved[3];
};

struct gw_control_sa_path_mtu {
	struct gw_control_header header;
	uint64_t cookie;
	uint16_t path_mtu; /* bytes of the outer packet; 0: not checked */
	uint16_t reserved[3];
};

/* Which outbound SAs carry a tunnel's traffic from the reply on; at once, no COMMIT is needed. */
struct gw_control_tunnel {
	struct gw_control_header header;
	uint32_t tunnel; /* from 1 */
	uint32_t count;  /* 0: none, packets ask for one */
	uint64_t cookies[GW_MAX_TUNNEL_SAS];
};

/* --- SPD, routes, neighbours: changes wait for COMMIT ----------------------------------------- */

enum gw_policy_action {
	GW_POLICY_UNSPECIFIED = 0,
	GW_POLICY_PROTECT = 1,
	GW_POLICY_BYPASS = 2,
	GW_POLICY_DISCARD = 3,
};

/* One entry of the SPD, both directions at once. The first match in the order of `order` wins. */
struct gw_control_policy {
	struct gw_control_header header;
	uint64_t order;  /* lower is looked at first; equal ones by `policy` */
	uint32_t policy; /* its name: chosen by the agent, not 0; the same again replaces it */
	uint32_t tunnel; /* of PROTECT: who carries it, from 1 */
	uint32_t device; /* only for packets that come from this one, and SAs of it; 0: of none */
	uint8_t action;  /* enum gw_policy_action */
	uint8_t acquire; /* whether a packet without an SA is an event, or merely dropped */
	uint16_t local_selectors;
	uint16_t remote_selectors;
	uint16_t reserved[3];
	struct gw_selector selectors[GW_MAX_SELECTORS]; /* local ones first */
};

struct gw_control_policy_name {
	struct gw_control_header header;
	uint32_t policy;
	uint32_t reserved;
};

enum gw_route_kind {
	GW_ROUTE_UNSPECIFIED = 0,
	GW_ROUTE_FORWARD = 1,
	GW_ROUTE_LOCAL = 2,       /* ours: by the slow path */
	GW_ROUTE_UNREACHABLE = 3, /* dropped, as the kernel would */
};

/* ROUTE_SET, and ROUTE_REMOVE (family, prefix_bits and destination name it). One route to a prefix:
 * the best that the kernel has. */
struct gw_control_route {
	struct gw_control_header header;
	uint8_t destination[16];
	uint8_t gateway[16]; /* zero: the destination itself */
	uint32_t device; /* of FORWARD; one with GW_DEVICE_TUNNEL: sealed as if it came in there */
	uint32_t mtu;    /* of FORWARD: of IP packets; 0: the device's */
	uint8_t family;  /* 4 or 6 */
	uint8_t prefix_bits;
	uint8_t kind; /* enum gw_route_kind */
	uint8_t reserved[5];
};

/* NEIGHBOUR_SET, and NEIGHBOUR_REMOVE (device, family and address name it). */
struct gw_control_neighbour {
	struct gw_control_header header;
	uint8_t address[16];
	uint32_t device;
	uint8_t family;
	uint8_t mac[6];
	uint8_t reserved[5];
};

/* --- counters --------------------------------------------------------------------------------- */

struct gw_control_worker_name {
	struct gw_control_header header;
	uint16_t worker; /* or GW_ANY_WORKER: the sum */
	uint16_t reserved[3];
};

struct gw_control_counters {
	struct gw_control_reply reply;
	uint64_t rounds;      /* of the loop that found packets */
	uint64_t sealed;      /* packets protected */
	uint64_t opened;      /* packets verified, and permitted by selectors */
	uint64_t forwarded;   /* sent to a known next hop */
	uint64_t slow_path;   /* opened and given to the kernel: unresolved or local */
	uint64_t bypassed;    /* sent on in clear, as the SPD says */
	uint64_t handed_over; /* to the worker that owns the SA */
	uint64_t drops[GW_DROP_REASON_COUNT]; /* each once, those of SAs included */
};

/* --- events ----------------------------------------------------------------------------------- */

/* What happened to an SA: limits, sequence numbers (event.kinds has GW_EVENT_RESERVE: answer with
 * SA_RESERVE, or it stops), and its peer's NAT mapping, which only an authentic packet moves. */
struct gw_control_event_sa {
	struct gw_control_header header;
	struct gw_event event;
	uint32_t spi;
	uint32_t reserved;
	uint64_t sequence;
};

/* A packet matched a PROTECT entry that has no SA, and waits for one for a while. At most once a
 * second for each policy and worker. */
struct gw_control_event_acquire {
	struct gw_control_header header;
	uint32_t policy;
	uint32_t suppressed; /* so many others of this policy since the last event */
	uint8_t source[16];
	uint8_t destination[16];
	uint16_t source_port; /* 0 where there is none */
	uint16_t destination_port;
	uint8_t family;
	uint8_t protocol;
	uint8_t reserved[2];
};

/* ESP or AH with an SPI that no SA has. */
struct gw_control_event_bad_spi {
	struct gw_control_header header;
	uint8_t source[16];
	uint8_t destination[16];
	uint32_t spi;
	uint32_t suppressed;
	uint8_t family;
	uint8_t protocol;
	uint8_t reserved[6];
};

/* A device goes on with another method: what the old one took was lost without a word. */
struct gw_control_event_method {
	struct gw_control_header header;
	uint32_t device;
	uint16_t queue;
	uint8_t old_method; /* enum gw_io_kind */
	uint8_t new_method; /* the old one: there is no other; 0: the device is gone */
	uint8_t sends;      /* which direction */
	uint8_t reserved[7];
	char reason[GW_REASON_BYTES];
};

#endif
