/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the library keeps of an SA: one hot cache line that packets write, and the rest, which they
 * read.
 *
 *   worker.inbound[SPI & mask]  ──┐
 *   worker.outbound[index]      ──┴─▶ struct gw_hot (64 bytes) ──▶ struct gw_sa (read-only, keys,
 * window)
 */
#ifndef GW_SA_H
#define GW_SA_H

#include <assert.h>
#include <stdalign.h>
#include <stddef.h>

#include "flow.h"
#include "gw_engine.h"
#include "replay.h"
#include "suite.h"

#define GW_LINE 64
/*
 * Operations under way at once: enough to fill the lanes of multi-buffer hashing. Fewer, 16 or 32,
 * were measured to be as quick.
 */
#define GW_CHUNK   64
#define GW_MAX_ICV 32
#define GW_MAX_IV  16

struct gw_sa;
struct gw_hot;
struct gw_worker;

/*
 * One packet at the crypto library. [auth, auth + auth_bytes) is authenticated; of ESP it is SPI,
 * sequence number, IV and text. [text, text + text_bytes) is enciphered; of AH there is none. The
 * high half of an extended sequence number follows in the ICV's computation, not in the packet (RFC
 * 4303 §2.2.1): behind auth + auth_bytes there are four bytes that may be overwritten.
 */
struct gw_op {
	struct gw_sa *sa;
	uint8_t *auth;
	uint8_t *text;
	const uint8_t *iv;
	uint8_t *icv; /* sealing: where it goes; opening: the one that came */
	uint64_t sequence;
	uint32_t text_bytes;
	uint32_t auth_bytes;
	uint32_t packet; /* its place in the burst */
	uint16_t head;   /* from the IP header to ESP or AH, or to the UDP header before it */
	uint8_t failed;  /* written: the ICV is wrong, or the library refused */
	uint8_t udp;     /* outbound: a UDP checksum is wanted; inbound: came in UDP */
};

/* Seal or open some operations whose SAs have all chosen this function. */
typedef void (*gw_crypto_run)(struct gw_worker *worker, struct gw_op *ops, size_t count);
/* Check one outbound packet, give it a sequence number and headers, and describe the operation. */
typedef enum gw_drop_reason (*gw_prepare)(struct gw_worker *worker, struct gw_hot *hot,
					  struct gw_packet *packet, struct gw_op *op);

struct gw_hot {
	struct gw_sa *sa; /* NULL: no SA here */
	uint32_t spi;
	uint32_t flags;    /* enum gw_sa_flag */
	uint64_t sequence; /* last sent, or highest authenticated */
	uint64_t packets;
	uint64_t bytes;         /* inner ones */
	uint64_t stop_sequence; /* at these numbers something is to be done: see usage.c */
	uint64_t stop_packets;
	uint64_t stop_bytes;
};
static_assert(sizeof(struct gw_hot) == GW_LINE, "one line");

enum gw_sa_flag {
	GW_SA_TUNNEL = 1 << 0,
	GW_SA_UDP = 1 << 1,
	GW_SA_AH = 1 << 2,
	GW_SA_IPV6 = 1 << 3, /* outer family */
	GW_SA_EXPIRED = 1 << 4,
	GW_SA_COUNTER_IV = 1 << 5, /* the IV is the sequence number */
	GW_SA_RANDOM_IV = 1 << 6,
};

struct gw_sa {
	/* --- line 0: of every packet */
	alignas(GW_LINE) gw_crypto_run run;
	void *keys;         /* of the crypto library, in its own layout; wiped by `clear` */
	void *direct;       /* ipsec-mb's GCM function for this key length and direction */
	gw_prepare prepare; /* outbound */
	uint64_t last_used_ns;
	uint8_t salt[4];
	uint32_t outer_sum; /* of the constant part of the outer IPv4 header */
	uint16_t tfc_bytes;
	uint16_t max_payload; /* what fits an IP packet, and the path MTU */
	uint8_t iv_bytes;
	uint8_t icv_bytes;
	uint8_t align_mask;  /* alignment less one */
	uint8_t outer_bytes; /* IP and UDP headers of tunnel mode */
	uint8_t tos_mask;
	uint8_t df; /* enum gw_df */
	uint8_t ah_bytes;
	bool esn;
	/* --- line 1: outer headers, SPI, sequence number: they end where the IV begins */
	alignas(GW_LINE) uint8_t template[GW_LINE];
	/* --- line 2: inbound */
	struct gw_replay replay;
	uint8_t destination[16];
	uint8_t source[16]; /* where the peer is: of the newest packet, if behind a NAT */
	struct gw_selector_set selectors; /* to line 4 */
	/* --- now and then */
	uint16_t source_port;
	uint16_t wanted_tfc_bytes;
	uint16_t path_mtu;
	uint16_t udp_source_port; /* 0: no UDP encapsulation */
	uint16_t udp_destination_port;
	uint8_t family;
	uint8_t crypto; /* enum gw_crypto */
	bool inbound;
	struct gw_suite suite;
	uint32_t ref;
	uint32_t events;   /* enum gw_event_kind, waiting */
	uint32_t told;     /* limits told already */
	uint64_t marks[6]; /* the limits, in the order of gw_event_kind */
	uint64_t reserve_mark;
	uint64_t sequence_limit; /* the first number not to be used */
	uint64_t cookie;
	struct gw_sa *next_event;
	uint64_t drops[GW_DROP_REASON_COUNT];
	void (*clear)(struct gw_worker *worker, struct gw_sa *sa);
};
static_assert(offsetof(struct gw_sa, template) == GW_LINE, "line 0 is one line");
static_assert(offsetof(struct gw_sa, selectors.near) == 3 * GW_LINE, "line 2 is one line");

#endif
