/* SPDX-License-Identifier: Apache-2.0 */
#include "usage.h"

enum mark {
	SOFT_PACKETS,
	HARD_PACKETS,
	SOFT_BYTES,
	HARD_BYTES,
	SOFT_SEQUENCE,
	HARD_SEQUENCE,
	MARKS,
};

static_assert(1 << HARD_SEQUENCE == GW_EVENT_HARD_SEQUENCE,
	      "marks are in the order of gw_event_kind");

static uint64_t lowest(const struct gw_sa *sa, enum mark soft)
{
	uint64_t stop = GW_NEVER;

	for (unsigned int mark = soft; mark <= (unsigned int)soft + 1; mark++)
		if (!(sa->rest->told & 1u << mark) && sa->rest->marks[mark] < stop)
			stop = sa->rest->marks[mark];
	return stop;
}

static void set_stops(struct gw_hot *hot)
{
	const struct gw_sa *sa = hot->sa;
	bool has_ended = hot->flags & GW_SA_EXPIRED || sa->rest->told & GW_EVENT_HARD_SEQUENCE;

	/* Zero is reached always: every packet is then looked at. */
	hot->stop_packets = has_ended ? 0 : lowest(sa, SOFT_PACKETS);
	hot->stop_bytes = lowest(sa, SOFT_BYTES);
	hot->stop_sequence = lowest(sa, SOFT_SEQUENCE);
	if (sa->inbound)
		return;
	if (sa->rest->sequence_limit < hot->stop_sequence)
		hot->stop_sequence = sa->rest->sequence_limit;
	if (!(sa->rest->told & GW_EVENT_RESERVE) && sa->rest->reserve_mark < hot->stop_sequence)
		hot->stop_sequence = sa->rest->reserve_mark;
}

void gw_usage_init(struct gw_hot *hot, const struct gw_sa_params *params)
{
	struct gw_sa *sa = hot->sa;
	uint64_t last = sa->esn ? UINT64_MAX : UINT32_MAX;

	sa->rest->marks[SOFT_PACKETS] = params->soft_packets;
	sa->rest->marks[HARD_PACKETS] = params->hard_packets;
	sa->rest->marks[SOFT_BYTES] = params->soft_bytes;
	sa->rest->marks[HARD_BYTES] = params->hard_bytes;
	/* Rekey when three quarters of the sequence space are used up. */
	sa->rest->marks[SOFT_SEQUENCE] = last / 4 * 3 + last % 4 * 3 / 4;
	sa->rest->marks[HARD_SEQUENCE] = last;
	sa->rest->sequence_limit = params->sequence_limit;
	gw_usage_resume(hot);
}

void gw_usage_resume(struct gw_hot *hot)
{
	if (hot->sa->inbound)
		set_stops(hot);
	else
		gw_usage_reserve(hot, hot->sa->rest->sequence_limit);
}

void gw_usage_reserve(struct gw_hot *hot, uint64_t limit)
{
	struct gw_sa *sa = hot->sa;

	sa->rest->sequence_limit = limit;
	sa->rest->reserve_mark = limit == GW_NEVER ? GW_NEVER : limit - (limit - hot->sequence) / 4;
	sa->rest->told &= ~(uint32_t)GW_EVENT_RESERVE;
	set_stops(hot);
}

void gw_usage_tell(struct gw_worker *worker, struct gw_sa *sa, uint32_t kind)
{
	if (sa->rest->events == 0) {
		sa->rest->next_event = worker->first_event;
		worker->first_event = sa;
	}
	sa->rest->events |= kind;
}

static void pass(struct gw_worker *worker, struct gw_hot *hot, enum mark mark)
{
	uint32_t kind = 1u << mark;

	if (hot->sa->rest->told & kind)
		return;
	hot->sa->rest->told |= kind;
	/* An exhausted sequence has a drop reason of its own. */
	if (kind & (GW_EVENT_HARD_PACKETS | GW_EVENT_HARD_BYTES))
		hot->flags |= GW_SA_EXPIRED;
	gw_usage_tell(worker, hot->sa, kind);
}

/* Say whether an outbound number must not be used: 0 is what comes after the last of 64 bits. */
static bool is_beyond(const struct gw_sa *sa, uint64_t sequence)
{
	return sequence == 0 || sequence > sa->rest->marks[HARD_SEQUENCE] ||
	       (sequence >= sa->rest->sequence_limit && sa->rest->sequence_limit != GW_NEVER);
}

enum gw_drop_reason gw_usage_reach(struct gw_worker *worker, struct gw_hot *hot,
				   uint32_t inner_bytes, uint64_t sequence)
{
	struct gw_sa *sa = hot->sa;
	uint64_t reached[MARKS];

	if (hot->flags & GW_SA_EXPIRED)
		return GW_DROP_SA_EXPIRED;
	reached[SOFT_PACKETS] = reached[HARD_PACKETS] = hot->packets + 1;
	reached[SOFT_BYTES] = reached[HARD_BYTES] = hot->bytes + inner_bytes;
	reached[SOFT_SEQUENCE] = reached[HARD_SEQUENCE] = sequence;
	if (reached[HARD_BYTES] > sa->rest->marks[HARD_BYTES]) {
		pass(worker, hot, HARD_BYTES);
		set_stops(hot);
		return GW_DROP_SA_EXPIRED;
	}
	if (!sa->inbound && is_beyond(sa, sequence))
		return GW_DROP_SEQUENCE_OVERFLOW;
	for (unsigned int mark = 0; mark < MARKS; mark++)
		if (sa->rest->marks[mark] != GW_NEVER && reached[mark] >= sa->rest->marks[mark])
			pass(worker, hot, mark);
	if (sa->rest->marks[HARD_SEQUENCE] == sequence)
		pass(worker, hot, HARD_SEQUENCE); /* also 2^64 - 1, which is GW_NEVER */
	if (!sa->inbound && sa->rest->sequence_limit != GW_NEVER &&
	    sequence >= sa->rest->reserve_mark && !(sa->rest->told & GW_EVENT_RESERVE)) {
		sa->rest->told |= GW_EVENT_RESERVE;
		gw_usage_tell(worker, sa, GW_EVENT_RESERVE);
	}
	set_stops(hot);
	return GW_DROP_NONE;
}
