/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ESP core library: packets of SAs in memory, sealed and opened in bursts (RFC 4301, 4302,
 * 4303).
 *
 * It does no I/O, reads no clock, draws no randomness of its own (its seed is given), and allocates
 * nothing per packet. A worker is one thread's share: it owns its SAs, and every function that
 * takes a worker must be called by that thread, or while it stands still. Nothing here is locked.
 *
 *            gw_packet.data                              in place, growing into headroom and
 * tailroom
 *                 v
 *   | headroom    | IP packet                            | tailroom |
 *   | outer | ESP | IP packet           | trailer | ICV  |
 *     ^ gw_packet.data after gw_seal_burst
 */
#ifndef GW_ENGINE_H
#define GW_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gw_drop_reasons.h"

/*
 * What a packet must have around it to be sealed, in bytes. To be opened it needs no room, but for
 * the four bytes of an ESN behind AH.
 */
#define GW_HEADROOM 96
/* Padding to a block, trailer, the longest ICV, the four bytes of an ESN; TFC padding is extra. */
#define GW_TAILROOM 64

/* Selectors of one SA, both sides together. */
#define GW_MAX_SELECTORS     64
#define GW_MAX_REPLAY_WINDOW 4096
/* A ring of 64-bit blocks, one more than the window, a power of two (RFC 6479 §3). */
#define GW_MAX_WINDOW_BLOCKS 128
/* SAs of one tunnel (RFC 9611 has several in use at once). */
#define GW_MAX_TUNNEL_SAS 16
/* No limit, where a limit is asked for. */
#define GW_NEVER UINT64_MAX

enum gw_crypto {
	GW_CRYPTO_AUTO = 0, /* ipsec-mb where it and the CPU have the suite, else OpenSSL */
	GW_CRYPTO_IPSECMB = 1,
	GW_CRYPTO_OPENSSL = 2,
};

enum gw_error {
	GW_OK = 0,
	GW_E_MEMORY = -1,
	GW_E_INVALID = -2,     /* a value is out of range or contradicts another */
	GW_E_UNSUPPORTED = -3, /* the RFCs know the suite or combination, this library does not */
	GW_E_KEY = -4,         /* a key has the wrong length */
	GW_E_TAKEN = -5,       /* another SA has this index */
	GW_E_NO_SA = -6,       /* there is no SA */
	GW_E_CRYPTO = -7,      /* the crypto library refused */
};

enum gw_direction {
	GW_INBOUND = 0,
	GW_OUTBOUND = 1
};
enum gw_mode {
	GW_TUNNEL = 0,
	GW_TRANSPORT = 1
};
/* The outer DF bit of IPv4 (RFC 4301 §8.1). */
enum gw_df {
	GW_DF_COPY = 0,
	GW_DF_SET = 1,
	GW_DF_CLEAR = 2
};

/*
 * A traffic selector (RFC 7296 §3.13.1), host order; addresses as on the wire, IPv4 in the first
 * four.
 */
struct gw_selector {
	uint8_t start[16];
	uint8_t end[16];
	uint16_t start_port;
	uint16_t end_port;
	uint8_t family;   /* 4 or 6 */
	uint8_t protocol; /* 0: any */
	uint16_t reserved;
};

/*
 * One direction of one SA, as gateway.ipsec.sa has it. Integers are in host order. All limits:
 * GW_NEVER for none. The caller wipes its copy of the keys.
 */
struct gw_sa_params {
	uint32_t spi;
	uint32_t index;    /* outbound: its place in the table, as the caller chose it */
	uint8_t direction; /* enum gw_direction */
	uint8_t protocol;  /* 50 ESP, 51 AH */
	uint8_t mode;      /* enum gw_mode */
	uint8_t family;    /* of the outer addresses: 4 or 6 */
	uint8_t source[16];
	uint8_t destination[16];
	uint16_t udp_source_port; /* both zero: no UDP encapsulation */
	uint16_t udp_destination_port;
	uint16_t encryption; /* IANA transform IDs, as gateway.ipsec.algorithms */
	uint16_t integrity;
	uint16_t key_bits; /* without salt */
	uint16_t encryption_key_bytes;
	uint16_t integrity_key_bytes;
	uint16_t replay_window; /* packets: 0, or 64 to 4096 */
	uint16_t tfc_bytes;     /* tunnel mode: payload is padded to this (RFC 4303 §2.7) */
	uint16_t path_mtu;      /* of the outer packet; 0: not checked */
	uint8_t esn;
	uint8_t copy_dscp;
	uint8_t df;     /* enum gw_df */
	uint8_t crypto; /* enum gw_crypto */
	uint16_t local_selectors;
	uint16_t remote_selectors;
	uint8_t encryption_key[40]; /* with salt behind it */
	uint8_t integrity_key[64];
	uint64_t soft_packets;
	uint64_t hard_packets;
	uint64_t soft_bytes;
	uint64_t hard_bytes;
	uint64_t next_sequence;  /* outbound: the first number to send, 1 or more */
	uint64_t sequence_limit; /* outbound: the first number not reserved, or GW_NEVER */
	uint64_t cookie;         /* the caller's, returned in events */
	struct gw_selector selectors[GW_MAX_SELECTORS]; /* local ones first, then remote */
};

/* What must live on when an SA changes hands; see gw_sa_release. */
struct gw_sa_state {
	uint64_t sequence; /* last sent, or highest authenticated */
	uint64_t packets;
	uint64_t bytes;
	/* Of the window below. Where the SA that goes on has another, all numbers so far count as seen. */
	uint64_t window_packets;
	uint64_t window[GW_MAX_WINDOW_BLOCKS];
	uint64_t last_used_ns;
	uint64_t drops[GW_DROP_REASON_COUNT]; /* of this SA; not added to those of the new worker */
	uint64_t told; /* enum gw_event_kind: limits that were drained as events */
};

struct gw_sa_usage {
	uint64_t sequence;
	uint64_t packets;
	uint64_t bytes; /* inner bytes */
	uint64_t last_used_ns;
	uint64_t drops[GW_DROP_REASON_COUNT];
	uint32_t effective_mtu; /* largest inner packet within path_mtu; 0 without one */
	uint8_t crypto;         /* enum gw_crypto: what was chosen */
	uint8_t expired;
};

/* Events of one SA, as bits: each limit is told once. */
enum gw_event_kind {
	GW_EVENT_SOFT_PACKETS = 1 << 0,
	GW_EVENT_HARD_PACKETS = 1 << 1,
	GW_EVENT_SOFT_BYTES = 1 << 2,
	GW_EVENT_HARD_BYTES = 1 << 3,
	GW_EVENT_SOFT_SEQUENCE = 1 << 4,
	GW_EVENT_HARD_SEQUENCE = 1 << 5,
	GW_EVENT_RESERVE = 1 << 6,   /* a quarter of the block of sequence numbers is left */
	GW_EVENT_NAT_MOVED = 1 << 7, /* source and port of the newest authentic packet changed */
};

struct gw_event {
	uint64_t cookie;
	uint32_t ref;
	uint32_t kinds; /* enum gw_event_kind */
	uint8_t address[16];
	uint16_t port;
	uint8_t family;
	uint8_t reserved[5];
};

enum gw_packet_flag {
	GW_PACKET_DUMMY =
		1 << 0, /* seal: a dummy packet of this length, next header 59 (RFC 4303 §2.6) */
};

struct gw_packet {
	uint8_t *data; /* first byte of the IP header, before and after */
	uint32_t length;
	uint32_t ref;      /* seal: the SA to use; open: the one it came through, or GW_NO_REF */
	uint64_t sequence; /* written: the full sequence number; 0 where none was reached */
	uint16_t headroom; /* free bytes before data; kept up to date */
	uint16_t tailroom; /* free bytes behind */
	uint8_t verdict;   /* written: enum gw_drop_reason; what is dropped must not be sent */
	uint8_t flags;     /* enum gw_packet_flag */
	uint16_t reserved;
};

/* References to SAs: outbound ones are their index. */
#define GW_REF_INBOUND 0x80000000u
#define GW_NO_REF      0xffffffffu

struct gw_worker_config {
	uint32_t inbound_bits; /* so many low bits of an SPI are its index in the inbound table */
	uint32_t outbound_sas;
	uint32_t tunnels;
	uint32_t crypto;  /* enum gw_crypto: what SAs that say AUTO get */
	uint8_t seed[32]; /* unpredictable, never used twice: IVs of CBC come from it */
	/* Whether another CPU wrote the packets, as a kernel does that receives: they are fetched ahead. */
	uint32_t cold_packets;
};

struct gw_worker;

#pragma GCC visibility push(default)

/**
 * gw_worker_new() - make a worker without SAs.
 * @config: sizes and seed; not kept.
 * @error: where the reason goes when there is none.
 *
 * Return: the worker, or NULL.
 */
struct gw_worker *gw_worker_new(const struct gw_worker_config *config, enum gw_error *error);

/**
 * gw_worker_free() - wipe and free a worker with all its SAs; NULL is ignored.
 * @worker: not to be used any more.
 */
void gw_worker_free(struct gw_worker *worker);

/**
 * gw_sa_add() - install one direction of an SA.
 * @worker: its owner from now on.
 * @params: checked whole before anything is changed; not kept.
 * @state: what gw_sa_release gave, to carry on; NULL for a new SA.
 * @ref: where the reference goes.
 *
 * Never give one key to two outbound SAs: sequence numbers are IVs.
 * Return: GW_OK, GW_E_INVALID, GW_E_UNSUPPORTED, GW_E_KEY, GW_E_TAKEN, GW_E_MEMORY or GW_E_CRYPTO.
 */
enum gw_error gw_sa_add(struct gw_worker *worker, const struct gw_sa_params *params,
			const struct gw_sa_state *state, uint32_t *ref);

/**
 * gw_sa_remove() - take an SA out, wipe its keys and free it.
 * @worker: its owner.
 * @ref: the SA.
 *
 * Return: GW_OK or GW_E_NO_SA.
 */
enum gw_error gw_sa_remove(struct gw_worker *worker, uint32_t ref);

/**
 * gw_sa_release() - remove an SA and say how far it got, so that another worker or process goes on.
 * @worker: its owner; it sends and receives nothing with the SA any more.
 * @ref: the SA.
 * @state: for gw_sa_add there. An outbound SA goes on behind its last number, whatever was
 * reserved.
 *
 * Return: GW_OK or GW_E_NO_SA.
 */
enum gw_error gw_sa_release(struct gw_worker *worker, uint32_t ref, struct gw_sa_state *state);

/**
 * gw_sa_save() - say how far an SA got, and leave it there.
 * @worker: its owner, which stands still until the SA is removed, or until nobody uses the state.
 * @ref: the SA.
 * @state: for gw_sa_restore.
 *
 * Return: GW_OK or GW_E_NO_SA.
 */
enum gw_error gw_sa_save(const struct gw_worker *worker, uint32_t ref, struct gw_sa_state *state);

/**
 * gw_sa_restore() - have an SA that was added, and has carried nothing, go on where another one was.
 * @worker: its owner.
 * @ref: the SA.
 * @state: of gw_sa_save or gw_sa_release. Sequence numbers never go back.
 *
 * Return: GW_OK or GW_E_NO_SA.
 */
enum gw_error gw_sa_restore(struct gw_worker *worker, uint32_t ref,
			    const struct gw_sa_state *state);

/**
 * gw_sa_reserve() - let an outbound SA use more sequence numbers.
 * @worker: its owner.
 * @ref: the SA.
 * @sequence_limit: the first number that it may not use; call only when a restart would begin
 * there.
 *
 * Return: GW_OK, GW_E_NO_SA, or GW_E_INVALID: less than before.
 */
enum gw_error gw_sa_reserve(struct gw_worker *worker, uint32_t ref, uint64_t sequence_limit);

/**
 * gw_sa_move() - send to another address and port: the peer's NAT mapping changed (RFC 7296 §2.23).
 * @worker: its owner.
 * @ref: an outbound SA with UDP encapsulation; in transport mode only the port may change.
 * @destination: of the SA's family; IPv4 in the first four bytes.
 * @port: UDP, host order.
 *
 * Return: GW_OK, GW_E_NO_SA or GW_E_INVALID.
 */
enum gw_error gw_sa_move(struct gw_worker *worker, uint32_t ref, const uint8_t destination[16],
			 uint16_t port);

/**
 * gw_sa_set_path_mtu() - say how large outer packets of an SA may be.
 * @worker: its owner.
 * @ref: an outbound SA.
 * @path_mtu: bytes; 0 for no check. What does not fit gets the verdict GW_DROP_TOO_BIG, untouched.
 *
 * Return: GW_OK or GW_E_NO_SA.
 */
enum gw_error gw_sa_set_path_mtu(struct gw_worker *worker, uint32_t ref, uint16_t path_mtu);

/**
 * gw_sa_read() - read the counters of an SA.
 * @worker: its owner.
 * @ref: the SA.
 * @usage: where they go.
 *
 * Return: GW_OK or GW_E_NO_SA.
 */
enum gw_error gw_sa_read(const struct gw_worker *worker, uint32_t ref, struct gw_sa_usage *usage);

/**
 * gw_worker_drops() - read how many packets were dropped, by reason, those of no SA included.
 * @worker: whose.
 * @drops: where the counts go.
 */
void gw_worker_drops(const struct gw_worker *worker, uint64_t drops[GW_DROP_REASON_COUNT]);

/**
 * gw_worker_drain_events() - take events, one record per SA that has any; none is ever lost.
 * @worker: whose.
 * @events: where they go.
 * @max: how many there is room for.
 *
 * Return: how many were taken; fewer than @max when no more wait.
 */
size_t gw_worker_drain_events(struct gw_worker *worker, struct gw_event *events, size_t max);

/**
 * gw_tunnel_set() - name the outbound SAs that carry a tunnel's traffic from now on.
 * @worker: their owner.
 * @tunnel: below gw_worker_config.tunnels.
 * @refs: at most GW_MAX_TUNNEL_SAS; at a rekey the new ones, while the old stay installed.
 * @count: 0: none, packets get GW_NO_REF.
 *
 * Return: GW_OK, GW_E_NO_SA or GW_E_INVALID.
 */
enum gw_error gw_tunnel_set(struct gw_worker *worker, uint32_t tunnel, const uint32_t *refs,
			    size_t count);

/**
 * gw_tunnel_sa() - choose the SA for a packet of a tunnel: the same flow, the same SA.
 * @worker: whose tunnels.
 * @tunnel: below gw_worker_config.tunnels.
 * @flow_hash: any hash of the packet's flow.
 *
 * Return: a reference, or GW_NO_REF.
 */
uint32_t gw_tunnel_sa(const struct gw_worker *worker, uint32_t tunnel, uint32_t flow_hash);

/**
 * gw_seal_burst() - protect packets, in place (RFC 4303 §3.3, RFC 4302 §3.3).
 * @worker: owner of the SAs.
 * @packets: whole IP packets; see struct gw_packet for what is read and written.
 * @count: how many.
 * @now_ns: for gw_sa_usage.last_used_ns.
 *
 * Return: how many have the verdict GW_DROP_NONE.
 */
size_t gw_seal_burst(struct gw_worker *worker, struct gw_packet *packets, size_t count,
		     uint64_t now_ns);

/**
 * gw_open_burst() - verify and decrypt packets, in place (RFC 4303 §3.4, RFC 4302 §3.4, RFC 4301
 * §5.2).
 * @worker: owner of the SAs.
 * @packets: whole IP packets that carry ESP, ESP in UDP, or AH, of any bytes at all.
 * @count: how many.
 * @now_ns: for gw_sa_usage.last_used_ns.
 *
 * Return: how many have the verdict GW_DROP_NONE.
 */
size_t gw_open_burst(struct gw_worker *worker, struct gw_packet *packets, size_t count,
		     uint64_t now_ns);

/**
 * gw_fragment() - copy one fragment of an IPv4 packet, made before encapsulation (RFC 4301 §8.2,
 * RFC 791 §3.2).
 * @packet: a whole packet or a fragment, without DF, that gw_seal_burst found too big.
 * @length: its size.
 * @mtu: gw_sa_usage.effective_mtu.
 * @offset: of the payload, 0 at first; moved on to the next fragment, or to 0 behind the last.
 * @out: where the fragment goes.
 * @room: bytes there.
 *
 * Return: size of the fragment; 0 where the packet must not be fragmented, or @room or @mtu is too
 * small.
 */
size_t gw_fragment(const uint8_t *packet, size_t length, size_t mtu, size_t *offset, uint8_t *out,
		   size_t room);

/**
 * gw_drop_name() - name a drop reason as metrics do.
 * @reason: enum gw_drop_reason.
 *
 * Return: a constant; "" for GW_DROP_NONE and unknown numbers.
 */
const char *gw_drop_name(unsigned int reason);

/**
 * gw_crypto_name() - name the library behind a kind of crypto, with its version.
 * @crypto: enum gw_crypto.
 *
 * Return: a constant; "" where this build or CPU does not have it.
 */
const char *gw_crypto_name(enum gw_crypto crypto);

/**
 * gw_suite_crypto() - say what carries a suite here.
 * @protocol: 50 or 51.
 * @encryption: IANA transform ID.
 * @integrity: IANA transform ID.
 * @key_bits: of the encryption key.
 * @wanted: GW_CRYPTO_AUTO, or one of the others to ask for just that.
 *
 * Return: GW_CRYPTO_IPSECMB, GW_CRYPTO_OPENSSL, or GW_E_UNSUPPORTED.
 */
int gw_suite_crypto(uint8_t protocol, uint16_t encryption, uint16_t integrity, uint16_t key_bits,
		    enum gw_crypto wanted);

#pragma GCC visibility pop

#endif
