/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Protected packets that came in fragments of IPv6 (RFC 8200 §4.5): put together before they are
 * opened (RFC 4303 §3.4.1). The kernel does that for IPv4 where it brings packets, and for IPv6 only
 * for itself.
 *
 * Few at a time, each in memory of its own of one frame's size. Overlaps end a packet (RFC 5722), as
 * ECN fields do that contradict each other (RFC 3168 §5.3).
 */
#ifndef GW_REASSEMBLY_H
#define GW_REASSEMBLY_H

#include "io.h"

/* Packets that are put together at once; another takes the place of the oldest. */
#define GW_REASSEMBLIES 16u
/* Bytes of a packet behind its IPv6 header, at most. */
#define GW_REASSEMBLY_BYTES 16384u
#define GW_REASSEMBLY_UNITS (GW_REASSEMBLY_BYTES / 8)

/* One packet, as far as it is there. */
struct gw_reassembled {
	uint64_t until_ns; /* 0: none */
	uint8_t key[37];   /* source, destination, identification, next header */
	uint8_t ecns;      /* bits of the ECN fields that came */
	uint16_t payload;  /* bytes; 0: the last fragment is not there */
	uint16_t units;    /* of eight bytes, that are there */
	uint64_t there[GW_REASSEMBLY_UNITS / 64];
	uint8_t header[40]; /* of the first fragment */
	uint8_t bytes[GW_REASSEMBLY_BYTES];
};

struct gw_reassembly {
	struct gw_reassembled packets[GW_REASSEMBLIES];
};

/* What became of a fragment. */
enum gw_fragment_fate {
	GW_FRAGMENT_KEPT = 0, /* more must come */
	GW_FRAGMENT_WHOLE,    /* it was the last: the packet is written */
	GW_FRAGMENT_REFUSED, /* malformed, too long, or it contradicts the others, which are forgotten */
};

/* Whether a packet is what gw_reassemble takes. */
static inline bool gw_is_fragment6(const uint8_t *ip)
{
	return ip[0] >> 4 == 6 && ip[6] == 44;
}

/**
 * gw_reassemble() - take a fragment in.
 * @reassembly: all zero at first.
 * @fragment: of IPv6, whose first extension header is the Fragment header; stays the caller's.
 * @length: of it, as its header says.
 * @now_ns: monotonic.
 * @whole: where the packet goes; not where the fragment is.
 * @room: bytes there.
 * @whole_length: written with GW_FRAGMENT_WHOLE.
 * @lost: how many packets were given up for want of their rest, or of room.
 */
enum gw_fragment_fate gw_reassemble(struct gw_reassembly *reassembly, const uint8_t *fragment,
				    uint32_t length, uint64_t now_ns, uint8_t *whole, uint32_t room,
				    uint32_t *whole_length, uint32_t *lost);

#endif
