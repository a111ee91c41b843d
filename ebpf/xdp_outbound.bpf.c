// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * An interface to the networks that are protected: gw_inner.h. What is for this machine is the
 * stack's.
 */
#include "gw_inner.h"
#include "gw_locals.h"

SEC("xdp")
int gw_outbound(struct xdp_md *ctx)
{
	struct gw_flow *flow = gw_new_flow();
	struct gw_cursor cursor;
	int verdict;

	if (!flow)
		return XDP_ABORTED;
	verdict = gw_begin(ctx, &cursor, flow);
	if (verdict != GW_GO_ON)
		return verdict;
	if (gw_is_local(&flow->destination))
		return gw_pass(ctx, GW_EXIT_NOT_OURS);
	return gw_inner_side(ctx, flow);
}

char gw_licence[] SEC("license") = "Dual BSD/GPL";
