// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* For tests of I/O alone: every frame to the socket of its queue; and a program that drops all. */
#include "gw_engine_queue.h"

SEC("xdp")
int steer_all(struct xdp_md *ctx)
{
	return gw_to_engine(ctx);
}

SEC("xdp")
int drop_all(struct xdp_md *ctx)
{
	return gw_drop(ctx, GW_DROP_NONE);
}

char licence[] SEC("license") = "Dual BSD/GPL";
