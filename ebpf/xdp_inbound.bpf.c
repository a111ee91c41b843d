// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * An interface to the peers: gw_outer.h. What may come in in clear goes to the stack.
 *
 * Each interface has its own instance (gw_engine_queue.h); SAs, SPD and the guard are shared by
 * all.
 */
#include "gw_outer.h"

SEC("xdp")
int gw_inbound(struct xdp_md *ctx)
{
	struct gw_flow *flow = gw_new_flow();
	struct gw_cursor cursor;
	enum gw_exit allowed;
	int verdict;

	if (!flow)
		return XDP_ABORTED;
	verdict = gw_begin(ctx, &cursor, flow);
	if (verdict == GW_GO_ON)
		verdict = gw_outer_side(ctx, &cursor, flow, &allowed);
	return verdict == GW_GO_ON ? gw_pass(ctx, allowed) : verdict;
}

char gw_licence[] SEC("license") = "Dual BSD/GPL";
