/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The outer side: what comes in from where the peers are.
 *
 *   ESP, AH, ESP in UDP   known SPI: to the AF_XDP socket of the receive queue;
 *                         unknown: counted, a sample told, to the stack
 *   IKE                   to the stack, first messages at a limited rate for each source prefix
 *   in clear              dropped where the SPD wants PROTECT (RFC 4301 section 5.2) or DISCARD
 *
 * Fragments of what is for this machine go to the stack, which puts them together and has the
 * nftables guard look at the whole.
 */
#ifndef GW_OUTER_H
#define GW_OUTER_H

#include "gw_engine_queue.h"
#include "gw_link.h"
#include "gw_locals.h"
#include "gw_parse.h"
#include "gw_sas.h"
#include "gw_spd.h"
#include "gw_stats.h"

/* Set at load. Rates as the time between two: 0 is no limit for IKE, no event at all for events. */
const volatile __u32 gw_drop_unknown_spi = 0;
const volatile __u64 gw_ike_interval_ns = 0;
const volatile __u64 gw_ike_tolerance_ns = 0;
const volatile __u32 gw_ike_prefix4_bits = 24;
const volatile __u32 gw_ike_prefix6_bits = 56;
const volatile __u64 gw_event_interval_ns = 10000000;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct gw_spi_key);
	__type(value, struct gw_inbound_sa);
	__uint(max_entries, 65536);
} gw_sas SEC(".maps");

/* When the next IKE_SA_INIT from a prefix would be on time (gw_is_within_rate). */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__type(key, union gw_address);
	__type(value, __u64);
	__uint(max_entries, 16384);
} gw_ike_sources SEC(".maps");

/* The type of its value is that of its records: for our loader, the kernel wants none. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__type(value, struct gw_event);
	__uint(max_entries, 65536);
} gw_events SEC(".maps");

struct gw_sampler {
	__u64 due_ns;
	__u64 suppressed;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct gw_sampler);
	__uint(max_entries, 1);
} gw_samplers SEC(".maps");

static __always_inline void gw_tell_unknown_spi(struct xdp_md *ctx, const struct gw_flow *flow,
						const struct gw_carrier *carrier)
{
	__u64 now_ns = bpf_ktime_get_ns();
	struct gw_sampler *sampler;
	struct gw_event *event;
	__u32 key = 0;

	sampler = bpf_map_lookup_elem(&gw_samplers, &key);
	if (!sampler || !gw_event_interval_ns)
		return;
	event = NULL;
	if (gw_is_within_rate(&sampler->due_ns, now_ns, gw_event_interval_ns, 0))
		event = bpf_ringbuf_reserve(&gw_events, sizeof(*event), 0);
	if (!event) {
		sampler->suppressed++;
		return;
	}
	event->time_ns = now_ns;
	event->source = flow->source;
	event->destination = flow->destination;
	event->spi_be = carrier->spi_be;
	event->protocol = carrier->protocol;
	event->ifindex = ctx->ingress_ifindex;
	event->suppressed = sampler->suppressed;
	sampler->suppressed = 0;
	bpf_ringbuf_submit(event, 0);
}

static __always_inline int gw_unknown_spi(struct xdp_md *ctx, const struct gw_flow *flow,
					  const struct gw_carrier *carrier)
{
	gw_tell_unknown_spi(ctx, flow, carrier);
	if (gw_drop_unknown_spi)
		return gw_drop(ctx, GW_DROP_UNKNOWN_SPI);
	return gw_pass(ctx, GW_EXIT_STRANGE_SPI);
}

/* Keep of an address the prefix that shares one rate: of IPv6 at most the first half. */
static __always_inline union gw_address gw_ike_prefix(const struct gw_flow *flow)
{
	union gw_address prefix = flow->source;

	if (flow->family == 4) {
		__u32 bits = gw_ike_prefix4_bits & 31;

		if (bits)
			prefix.words_be[3] &= bpf_htonl(0xffffffff << (32 - bits));
	} else {
		__u32 bits = gw_ike_prefix6_bits & 63;

		if (bits)
			prefix.halves[0] &= bpf_cpu_to_be64(~0ULL << (64 - bits));
		prefix.halves[1] = 0;
	}
	return prefix;
}

/* Is this the first message of an IKE SA, and one too many? IKEv1's first messages count too. */
static __always_inline int gw_exceeds_ike_rate(struct gw_cursor *cursor, const struct gw_flow *flow)
{
	struct gw_ike_header *ike;
	union gw_address prefix;
	__u64 *due_ns, now_ns, first_due_ns;

	if (!gw_ike_interval_ns || gw_parse_ike(cursor, &ike) < 0 || ike->responder_spi_be[0] ||
	    ike->responder_spi_be[1] || ike->flags & GW_IKE_FLAG_RESPONSE)
		return 0;
	now_ns = bpf_ktime_get_ns();
	prefix = gw_ike_prefix(flow);
	due_ns = bpf_map_lookup_elem(&gw_ike_sources, &prefix);
	if (due_ns)
		return !gw_is_within_rate(due_ns, now_ns, gw_ike_interval_ns, gw_ike_tolerance_ns);
	first_due_ns = now_ns + gw_ike_interval_ns;
	bpf_map_update_elem(&gw_ike_sources, &prefix, &first_due_ns, BPF_ANY);
	return 0;
}

/*
 * What is not protected: does the SPD want it to be? GW_GO_ON: it may come in, and `allowed` says
 * why.
 */
static __always_inline int gw_in_clear(struct xdp_md *ctx, const struct gw_flow *flow,
				       enum gw_exit *allowed)
{
	struct gw_decision decision = gw_decide(flow, GW_INBOUND);

	switch (decision.action) {
	case GW_ACTION_PROTECT:
		return gw_drop(ctx, GW_DROP_CLEAR_INBOUND);
	case GW_ACTION_DISCARD:
		return gw_drop(ctx, GW_DROP_POLICY_DISCARD);
	case GW_ACTION_UNDECIDED:
		return gw_pass(ctx, GW_EXIT_UNDECIDED);
	case GW_ACTION_BYPASS:
		*allowed = GW_EXIT_BYPASS;
		return GW_GO_ON;
	default:
		*allowed = GW_EXIT_NO_ENTRY;
		return GW_GO_ON;
	}
}

/* A packet to this machine that no SA of ours takes: what of it may be in clear? */
static __always_inline int gw_to_this_machine(struct xdp_md *ctx, struct gw_cursor *cursor,
					      const struct gw_flow *flow,
					      const struct gw_carrier *carrier,
					      enum gw_carried carried)
{
	enum gw_exit allowed;
	int verdict;

	switch (carried) {
	case GW_CARRIED_IPSEC:
		return gw_unknown_spi(ctx, flow, carrier);
	case GW_CARRIED_IKE:
		if (gw_exceeds_ike_rate(cursor, flow))
			return gw_drop(ctx, GW_DROP_IKE_RATE_LIMIT);
		return gw_pass(ctx, GW_EXIT_IKE);
	case GW_CARRIED_KEEPALIVE:
		return gw_pass(ctx, GW_EXIT_KEEPALIVE);
	case GW_CARRIED_CUT:
		return gw_drop(ctx, GW_DROP_MALFORMED);
	default:
		break;
	}
	if (flow->fragment)
		return gw_pass(ctx, GW_EXIT_LOCAL_FRAGMENT);
	if (gw_is_icmp_error(flow))
		return gw_pass(ctx, GW_EXIT_ICMP_ERROR);
	verdict = gw_in_clear(ctx, flow, &allowed);
	return verdict == GW_GO_ON ? gw_pass(ctx, allowed) : verdict;
}

/* Return what becomes of a frame, or GW_GO_ON for one in transit that may be in clear, and why. */
static __always_inline int gw_outer_side(struct xdp_md *ctx, struct gw_cursor *cursor,
					 struct gw_flow *flow, enum gw_exit *allowed)
{
	enum gw_carried carried = GW_CARRIED_OTHER;
	struct gw_carrier carrier = {};
	struct gw_inbound_sa *sa;

	if (!flow->fragment)
		carried = gw_classify(cursor, flow, &carrier);
	if (carried == GW_CARRIED_IPSEC) {
		sa = bpf_map_lookup_elem(&gw_sas, &carrier.spi_be);
		if (sa && sa->protocol == carrier.protocol &&
		    gw_same_address(&sa->destination, &flow->destination))
			return sa->owner == GW_OWNER_ENGINE ? gw_to_engine(ctx)
							    : gw_pass(ctx, GW_EXIT_STACK_SA);
	}
	if (gw_is_link_icmpv6(flow))
		return gw_pass(ctx, GW_EXIT_LINK_LOCAL);
	if (gw_is_local(&flow->destination))
		return gw_to_this_machine(ctx, cursor, flow, &carrier, carried);
	return gw_in_clear(ctx, flow, allowed);
}

#endif
