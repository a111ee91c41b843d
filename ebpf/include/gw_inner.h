/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The inner side: what comes in from the networks that are protected, on its way out.
 *
 *   PROTECT             to the AF_XDP socket of the receive queue: the engine has the SAs
 *   DISCARD             dropped
 *   BYPASS, or no entry to the stack, which routes it in clear
 *   undecided           to the stack, whose routes lead it to the engine
 *
 * What is for more than one is the stack's. Where a fragment hides what the SPD wants to know it is
 * dropped: it could be one that must be protected, and by another SA than we would choose.
 */
#ifndef GW_INNER_H
#define GW_INNER_H

#include "gw_engine_queue.h"
#include "gw_link.h"
#include "gw_parse.h"
#include "gw_spd.h"
#include "gw_stats.h"

/* Return what becomes of a frame that is not for this machine. */
static __always_inline int gw_inner_side(struct xdp_md *ctx, const struct gw_flow *flow)
{
	struct gw_decision decision;

	if (gw_is_link_icmpv6(flow) || gw_stays_on_link(flow->family, &flow->destination) ||
	    gw_is_group_mac(ctx))
		return gw_pass(ctx, GW_EXIT_LINK_LOCAL);
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
	case GW_ACTION_UNDECIDED:
		return gw_pass(ctx, GW_EXIT_UNDECIDED);
	default:
		return gw_pass(ctx, GW_EXIT_NO_ENTRY);
	}
}

#endif
