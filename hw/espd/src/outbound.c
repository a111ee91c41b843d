/* SPDX-License-Identifier: Apache-2.0 */
#include "outbound.h"

#include <string.h>

#include "bytes.h"
#include "forward.h"
#include "icmp.h"
#include "ip.h"
#include "mss.h"

#define ACQUIRE_INTERVAL_NS 1000000000ull

/* --- what becomes of a flow */

static bool is_same_flow(const struct gw_flow *a, const struct gw_flow *b)
{
	return a->source.low == b->source.low && a->destination.low == b->destination.low &&
	       a->source_port == b->source_port && a->destination_port == b->destination_port &&
	       a->source.high == b->source.high && a->destination.high == b->destination.high &&
	       a->protocol == b->protocol && a->family == b->family;
}

static uint32_t hash_of(const struct gw_flow *flow)
{
	uint64_t mixed = flow->source.low * 0x9e3779b97f4a7c15ull ^
			 flow->destination.low * 0xc2b2ae3d27d4eb4full ^ flow->source.high ^
			 flow->destination.high << 1;

	mixed ^= (uint64_t)(uint32_t)flow->source_port << 32 ^
		 (uint64_t)(uint32_t)flow->destination_port << 13 ^ (uint16_t)flow->protocol;
	mixed *= 0xff51afd7ed558ccdull;
	return (uint32_t)(mixed >> 32);
}

/* Choose an SA that permits the flow: one of this thread's own, if there is any. */
static bool choose_sa(struct gw_thread *thread, const struct gw_tunnel_sas *sas,
		      const struct gw_flow *flow, struct gw_decision *decision)
{
	struct gw_flow answer = gw_flow_reversed(flow);
	uint32_t fit[GW_MAX_TUNNEL_SAS], count = 0, own = 0, at;

	for (uint32_t i = 0; sas && i < sas->count; i++) {
		if (!gw_selectors_permit_inbound(sas->sas[i].selectors, &answer))
			continue;
		/* Own ones stand first. */
		fit[count++] = i;
		if (sas->sas[i].worker == thread->number) {
			fit[count - 1] = fit[own];
			fit[own++] = i;
		}
	}
	if (count == 0)
		return false;
	/* The same flow by the same SA: a fair share of the hash's range to each. */
	at = fit[(uint64_t)hash_of(flow) * (own ? own : count) >> 32];
	decision->ref = sas->sas[at].ref;
	decision->worker = sas->sas[at].worker;
	return true;
}

/* A tunnel's device has entries of its own or none: never those of others. */
static bool lacks_entries(const struct gw_thread *thread, uint32_t device)
{
	const struct gw_port *port = thread->by_device[device];

	return port && port->device.flags & GW_DEVICE_TUNNEL &&
	       !thread->tables->spd->is_scoped[device];
}

static struct gw_decision look_up(struct gw_thread *thread, const struct gw_flow *flow,
				  uint32_t device)
{
	static const uint8_t verdicts[] = {
		[GW_POLICY_PROTECT] = GW_VERDICT_NO_SA,
		[GW_POLICY_BYPASS] = GW_VERDICT_BYPASS,
		[GW_POLICY_DISCARD] = GW_VERDICT_DISCARD,
	};
	struct gw_decision decision = {.verdict = GW_VERDICT_NO_ENTRY};
	const struct gw_spd_entry *entry = NULL;

	if (thread->tables && !lacks_entries(thread, device))
		entry = gw_spd_outbound(thread->tables->spd, flow, device);
	if (!entry)
		return decision;
	decision.policy = entry->policy;
	decision.acquires = entry->acquires;
	decision.verdict = verdicts[entry->action];
	if (entry->action == GW_POLICY_PROTECT &&
	    choose_sa(thread,
		      atomic_load_explicit(&thread->daemon->tunnels[entry->tunnel],
					   memory_order_acquire),
		      flow, &decision))
		decision.verdict = GW_VERDICT_SEAL;
	return decision;
}

struct gw_decision gw_decide(struct gw_thread *thread, const struct gw_flow *flow, uint32_t device)
{
	struct gw_cached_flow *cached = &thread->flows[hash_of(flow) % GW_CACHED_FLOWS];

	if (GW_LIKELY(cached->generation == thread->generation && cached->device == device &&
		      is_same_flow(&cached->flow, flow)))
		return cached->decision;
	cached->generation = thread->generation;
	cached->flow = *flow;
	cached->device = device;
	cached->decision = look_up(thread, flow, device);
	return cached->decision;
}

/* --- sealing */

void gw_hand_over(struct gw_thread *thread, struct gw_packet *packet, uint16_t worker, uint32_t ref,
		  bool inbound)
{
	struct gw_thread *owner = thread->daemon->threads[worker];
	struct gw_ring *ring = &owner->from[thread->number];
	struct gw_handover *slot = gw_ring_writable(ring);

	if (!slot) {
		gw_thread_drop(thread, packet, GW_DROP_NO_ENGINE);
		return;
	}
	*slot = (struct gw_handover){
		.length = packet->length,
		.ref = ref,
		.device = packet->reserved,
		.inbound = inbound,
	};
	memcpy(slot + 1, packet->data, packet->length);
	gw_ring_put(ring);
	thread->counts.handed_over++;
	gw_thread_wake(owner);
	gw_thread_forget(thread, packet);
}

void gw_seal_by(struct gw_thread *thread, struct gw_packet *packet,
		const struct gw_decision *decision)
{
	if (decision->worker == thread->number)
		gw_seal_later(thread, packet, decision->ref);
	else
		gw_hand_over(thread, packet, decision->worker, decision->ref, false);
}

static void add_to_burst(struct gw_thread *thread, const struct gw_packet *packet, uint32_t ref)
{
	if (thread->seal_count == GW_BATCH)
		gw_seal_all(thread);
	thread->to_seal[thread->seal_count] = *packet;
	thread->to_seal[thread->seal_count++].ref = ref;
}

/* Cut a packet before it is encapsulated (RFC 4301 §8.2). Return false where it must not be. */
static bool seal_in_pieces(struct gw_thread *thread, const struct gw_packet *packet, uint32_t ref,
			   uint32_t mtu)
{
	struct gw_pool *pool = &thread->pool;
	size_t offset = 0;

	do {
		uint32_t frame = gw_pool_take(pool);
		struct gw_packet piece;
		size_t length;

		if (frame == GW_NO_FRAME)
			return false;
		length = gw_fragment(packet->data, packet->length, mtu, &offset,
				     gw_frame_start(pool, frame) + GW_FRAME_DATA,
				     gw_frame_room(pool));
		if (length == 0) {
			gw_pool_return(pool, frame);
			return false;
		}
		gw_frame_describe(pool, frame, GW_FRAME_DATA, (uint32_t)length, &piece);
		piece.reserved = packet->reserved;
		add_to_burst(thread, &piece, ref);
	} while (offset);
	gw_thread_forget(thread, packet);
	return true;
}

void gw_seal_later(struct gw_thread *thread, struct gw_packet *packet, uint32_t ref)
{
	uint32_t mtu = thread->mtus[ref];

	if (mtu && gw_may_be_syn(packet->data, packet->length))
		gw_clamp_mss(packet->data, packet->length, mtu);
	if (mtu && packet->length > mtu && packet->data[0] >> 4 == 4 &&
	    seal_in_pieces(thread, packet, ref, mtu))
		return;
	add_to_burst(thread, packet, ref);
}

void gw_seal_all(struct gw_thread *thread)
{
	uint32_t count = thread->seal_count;

	/* First, since an ICMP error about one of these may be sealed too. */
	thread->seal_count = 0;
	if (count == 0)
		return;
	thread->counts.sealed +=
		gw_seal_burst(thread->engine, thread->to_seal, count, thread->now_ns);
	for (uint32_t i = 0; i < count; i++) {
		struct gw_packet *packet = &thread->to_seal[i];

		if (GW_LIKELY(packet->verdict == GW_DROP_NONE)) {
			gw_send_protected(thread, packet);
			continue;
		}
		if (packet->verdict == GW_DROP_TOO_BIG && thread->mtus[packet->ref])
			gw_icmp_to_our_side(thread, packet, GW_ICMP_TOO_BIG,
					    thread->mtus[packet->ref]);
		gw_thread_forget(thread, packet);
	}
}

/* --- acquires */

static void acquire(struct gw_thread *thread, const struct gw_packet *packet,
		    const struct gw_flow *flow, uint32_t policy)
{
	struct gw_acquire_time *time = &thread->acquires[policy % GW_ACQUIRE_TIMES];
	bool is_ipv4 = flow->family == 4;
	union gw_any_event event = {
		.acquire =
			{
				.policy = policy,
				.source_port =
					flow->source_port < 0 ? 0 : (uint16_t)flow->source_port,
				.destination_port = flow->destination_port < 0
							    ? 0
							    : (uint16_t)flow->destination_port,
				.family = flow->family,
				.protocol = flow->protocol < 0 ? 0 : (uint8_t)flow->protocol,
			},
	};

	if (time->policy == policy && thread->now_ns - time->last_ns < ACQUIRE_INTERVAL_NS) {
		time->suppressed++;
		return;
	}
	event.acquire.suppressed = time->policy == policy ? time->suppressed : 0;
	memcpy(event.acquire.source, packet->data + (is_ipv4 ? 12 : 8), is_ipv4 ? 4 : 16);
	memcpy(event.acquire.destination, packet->data + (is_ipv4 ? 16 : 24), is_ipv4 ? 4 : 16);
	if (gw_thread_tell(thread, &event, GW_MESSAGE_EVENT_ACQUIRE, sizeof(event.acquire)))
		*time = (struct gw_acquire_time){.last_ns = thread->now_ns, .policy = policy};
}

/* --- one packet */

/* A packet that we take from the kernel and forward is one hop further then. */
static bool is_forwarded(const struct gw_port *port)
{
	return port->receiver->method->layer == GW_LAYER_ETHERNET;
}

void gw_outbound(struct gw_thread *thread, struct gw_port *port, struct gw_packet *packet)
{
	struct gw_decision decision;
	struct gw_flow flow;
	enum gw_drop_reason reason = gw_parse_flow(packet->data, packet->length, &flow);

	if (GW_UNLIKELY(reason != GW_DROP_NONE)) {
		gw_thread_drop(thread, packet, reason);
		return;
	}
	decision = gw_decide(thread, &flow, port->device.device);
	if (GW_UNLIKELY(decision.verdict >= GW_VERDICT_BYPASS && !gw_port_takes(port))) {
		gw_thread_forget(thread, packet); /* the kernel has it, and its guard */
		return;
	}
	if (is_forwarded(port) && decision.verdict <= GW_VERDICT_BYPASS && !gw_count_hop(packet)) {
		gw_icmp_to_our_side(thread, packet, GW_ICMP_TIME_EXCEEDED, 0);
		gw_thread_drop(thread, packet, GW_DROP_TTL_EXPIRED);
		return;
	}
	switch (decision.verdict) {
	case GW_VERDICT_SEAL:
		gw_seal_by(thread, packet, &decision);
		break;
	case GW_VERDICT_NO_SA:
		if (decision.acquires)
			acquire(thread, packet, &flow, decision.policy);
		gw_hold(thread, packet, &decision);
		break;
	case GW_VERDICT_BYPASS:
		thread->counts.bypassed++;
		gw_send_clear(thread, packet);
		break;
	case GW_VERDICT_DISCARD:
		gw_thread_drop(thread, packet, GW_DROP_POLICY_DISCARD);
		break;
	default:
		gw_thread_drop(thread, packet, GW_DROP_NO_POLICY);
		break;
	}
}
