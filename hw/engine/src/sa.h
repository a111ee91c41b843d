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
 * Operations under way at once: enough to fill the lanes of multi-buffer hashing. With 16 it takes
 * 18 % longer, with 8 twice as long.
 */
#define GW_CHUNK 64
/* Of suites whose packets are computed one by one: while these are, memory brings the next ones. */
#define GW_SHORT_CHUNK 16
#define GW_MAX_ICV     32
#define GW_MAX_IV      16
/* IPv6, UDP, and ESP's first two fields. */
#define GW_TEMPLATE_BYTES 56

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

/* What differs between the outer headers of an SA's packets, and what does not. */
struct gw_sending {
	uint16_t outer_sum; /* of the constant part of the outer IPv4 header */
	uint16_t tfc_bytes;
	uint16_t max_payload; /* what fits an IP packet, and the path MTU */
	uint8_t tos_mask;
	uint8_t df; /* enum gw_df */
	/* Outer headers, SPI, sequence number: they end where the IV begins. */
	uint8_t template[GW_TEMPLATE_BYTES];
};

struct gw_receiving {
	struct gw_replay replay;
	uint8_t destination[16];
	struct gw_plain_pair plain;
};

/* What packets seldom need. */
struct gw_sa_rest {
	uint8_t source[16];      /* where the peer is: of the newest packet, if behind a NAT */
	uint8_t destination[16]; /* outbound */
	uint64_t cookie;
	uint32_t ref;
	uint32_t events; /* enum gw_event_kind, waiting */
	uint32_t told;   /* limits told already */
	uint16_t source_port;
	uint16_t path_mtu;
	uint16_t wanted_tfc_bytes;
	uint16_t udp_source_port; /* 0: no UDP encapsulation */
	uint16_t udp_destination_port;
	uint8_t family;
	uint8_t crypto;        /* enum gw_crypto */
	uint16_t record_lines; /* of the piece that the SA is in */
	struct gw_selector_set selectors;
	uint64_t marks[6]; /* the limits, in the order of gw_event_kind */
	uint64_t reserve_mark;
	uint64_t sequence_limit; /* the first number not to be used */
	struct gw_sa *next_event;
	uint64_t drops[GW_DROP_REASON_COUNT];
	void (*clear)(struct gw_sa *sa);
};

struct gw_sa {
	/* --- line 0: of every packet */
	alignas(GW_LINE) gw_crypto_run run;
	void *keys;         /* of the crypto library, in its own layout */
	void *direct;       /* ipsec-mb's GCM function for this key length and direction */
	gw_prepare prepare; /* outbound */
	struct gw_sa_rest *rest;
	uint64_t last_used_ns;
	struct gw_suite suite;
	uint8_t salt[4];
	uint8_t outer_bytes; /* IP and UDP headers of tunnel mode */
	uint8_t ah_bytes;
	bool esn;
	bool inbound;
	/* --- line 1 */
	union {
		alignas(GW_LINE) struct gw_sending out;
		alignas(GW_LINE) struct gw_receiving in;
	};
	/* --- behind it, in the same piece: the keys, then the blocks of the replay window */
};
static_assert(sizeof(struct gw_sending) == GW_LINE, "line 1 is one line");
static_assert(sizeof(struct gw_sa) == 2 * GW_LINE, "two lines");

/* Keys of a library that has them behind the SA, and so the largest piece. */
#define GW_MAX_KEY_BYTES 1024u
#define GW_MAX_RECORD_LINES \
	((sizeof(struct gw_sa) + GW_MAX_KEY_BYTES + GW_MAX_WINDOW_BLOCKS * 8) / GW_LINE + 1)

/* Say how many packets of a burst are in the chunk that begins at one of them. */
static inline size_t gw_in_chunk(size_t count, size_t start, size_t chunk)
{
	if (start >= count)
		return 0;
	return count - start < chunk ? count - start : chunk;
}

/* Choose the chunks of a burst by the SA of its first packet; NULL: it has none. */
static inline size_t gw_choose_chunk(const struct gw_sa *sa)
{
	return sa && sa->direct ? GW_SHORT_CHUNK : GW_CHUNK;
}

static inline void gw_fetch_sa(const struct gw_sa *sa)
{
	if (!sa)
		return;
	__builtin_prefetch(sa, 1);
	__builtin_prefetch(&sa->out);
}

/* Round bytes up or down to the alignment of the SA's payloads. */
static inline uint32_t gw_align_up(const struct gw_sa *sa, uint32_t bytes)
{
	return (bytes + sa->suite.alignment - 1) & -(uint32_t)sa->suite.alignment;
}

static inline uint32_t gw_align_down(const struct gw_sa *sa, uint32_t bytes)
{
	return bytes & -(uint32_t)sa->suite.alignment;
}

#endif
