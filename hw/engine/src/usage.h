/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an SA carried, and the limits it reached (RFC 4301 §4.4.2.1). The hot line has the next
 * numbers at which there is anything to do, so that a packet costs three comparisons. Lifetimes in
 * seconds belong to the controller, which has timers.
 */
#ifndef GW_USAGE_H
#define GW_USAGE_H

#include "worker.h"

/**
 * gw_usage_init() - set the limits of an SA that is being added.
 * @hot: its line; sequence, packets and bytes are set.
 * @params: the limits.
 */
void gw_usage_init(struct gw_hot *hot, const struct gw_sa_params *params);

/**
 * gw_usage_resume() - find anew what is to be done when, after the counters of an SA were set.
 * @hot: its line.
 */
void gw_usage_resume(struct gw_hot *hot);

/**
 * gw_usage_reserve() - move the end of the reserved block of sequence numbers.
 * @hot: of an outbound SA.
 * @limit: the first number not reserved.
 */
void gw_usage_reserve(struct gw_hot *hot, uint64_t limit);

/**
 * gw_usage_reach() - do what a limit asks for; called through gw_account only.
 * @worker: the SA's owner.
 * @hot: of the SA.
 * @inner_bytes: of the packet at hand.
 * @sequence: of the packet at hand.
 *
 * Return: GW_DROP_NONE, or why the packet must not pass.
 */
enum gw_drop_reason gw_usage_reach(struct gw_worker *worker, struct gw_hot *hot,
				   uint32_t inner_bytes, uint64_t sequence);

/**
 * gw_usage_tell() - have an event drained.
 * @worker: the SA's owner.
 * @sa: whose event it is.
 * @kind: enum gw_event_kind.
 */
void gw_usage_tell(struct gw_worker *worker, struct gw_sa *sa, uint32_t kind);

/*
 * Count one packet, unless a limit forbids it. Validate before: this is the step that changes
 * state.
 */
static inline enum gw_drop_reason gw_account(struct gw_worker *worker, struct gw_hot *hot,
					     uint32_t inner_bytes, uint64_t sequence)
{
	uint64_t packets = hot->packets + 1;
	uint64_t bytes = hot->bytes + inner_bytes;

	if (GW_UNLIKELY(packets >= hot->stop_packets || bytes >= hot->stop_bytes ||
			sequence >= hot->stop_sequence)) {
		enum gw_drop_reason reason = gw_usage_reach(worker, hot, inner_bytes, sequence);

		if (reason != GW_DROP_NONE)
			return reason;
	}
	hot->packets = packets;
	hot->bytes = bytes;
	hot->sa->last_used_ns = worker->now_ns;
	return GW_DROP_NONE;
}

#endif
