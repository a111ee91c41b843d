// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The inner side: what comes in from the networks that are protected, on its way out.
 *
 *   PROTECT             to the AF_XDP socket of the receive queue: the engine has the SAs
 *   DISCARD             dropped
 *   BYPASS, or no entry to the stack, which routes it in clear
 *
 * What is for this machine, or for more than one, is the stack's. Where a fragment hides what the
 * SPD wants to know it is dropped: it could be one that must be protected, and by another SA than
 * we would choose.
 */
#include "gw_engine_queue.h"
#include "gw_link.h"
#include "gw_parse.h"
#include "gw_spd.h"
#include "gw_stats.h"

/* Addresses of this machine. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, union gw_address);
	__type(value, __u32);
	__uint(max_entries, 1024);
} gw_locals SEC(".maps");

SEC("xdp")
int gw_outbound(struct xdp_md *ctx)
{
	struct gw_flow *flow = gw_new_flow();
	struct gw_decision decision;
	struct gw_cursor cursor;
	int verdict;

	if (!flow)
		return XDP_ABORTED;
	verdict = gw_begin(ctx, &cursor, flow);
	if (verdict != GW_GO_ON)
		return verdict;
	if (gw_is_link_icmpv6(flow) || gw_stays_on_link(flow->family, &flow->destination) ||
	    gw_is_group_mac(ctx))
		return gw_pass(ctx, GW_EXIT_LINK_LOCAL);
	if (bpf_map_lookup_elem(&gw_locals, &flow->destination))
		return gw_pass(ctx, GW_EXIT_NOT_OURS);
	decision = gw_decide(flow, GW_OUTBOUND);
	if (decision.is_ambiguous)
		return gw_drop(ctx, GW_DROP_FRAGMENT);
	switch (decision.action) {
	case GW_ACTION_PROTECT:
		return gw_to_engine(ctx);
	case GW_ACTION_DISCARD:
		return gw_drop(ctx, GW_DROP_POLICY_DISCARD);
	case GW_ACTION_BYPASS:
		return gw_pass(ctx, GW_EXIT_BYPASS);
	default:
		return gw_pass(ctx, GW_EXIT_NO_ENTRY);
	}
}

char gw_licence[] SEC("license") = "Dual BSD/GPL";
