// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The only interface of a gateway, or one of several that lead to peers and to protected networks
 * alike: first gw_outer.h, and what may be in clear there is asked for by gw_inner.h.
 */
#include "gw_inner.h"
#include "gw_outer.h"

SEC("xdp")
int gw_one_arm(struct xdp_md *ctx)
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
	return verdict == GW_GO_ON ? gw_inner_side(ctx, flow) : verdict;
}

char gw_licence[] SEC("license") = "Dual BSD/GPL";
