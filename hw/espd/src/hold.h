/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets that wait for the SA that they asked for: a few of each policy, for a while (RFC 4301
 * §4.4.1 leaves it open whether they are kept).
 */
#ifndef GW_HOLD_H
#define GW_HOLD_H

#include "io.h"

/* Of one thread, and of one policy. */
#define GW_HELD_PACKETS 256u
#define GW_HELD_ALIKE   64u

struct gw_thread;
struct gw_decision;

struct gw_held {
	struct gw_packet packet;
	uint64_t until_ns;
	uint32_t policy;
};

struct gw_hold {
	uint64_t generation; /* of the tables in which they were last looked up */
	uint32_t count;
	struct gw_held packets[GW_HELD_PACKETS]; /* in the order in which they came */
};

/**
 * gw_hold() - keep a packet for its SA, or drop it.
 * @thread: the caller's.
 * @packet: its frame becomes the hold's.
 * @decision: its verdict is GW_VERDICT_NO_SA.
 */
void gw_hold(struct gw_thread *thread, const struct gw_packet *packet,
	     const struct gw_decision *decision);

/**
 * gw_release_held() - seal what has an SA by now, and drop what has waited too long.
 * @thread: the caller's; called once a round.
 */
void gw_release_held(struct gw_thread *thread);

#endif
