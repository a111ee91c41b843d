/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The way to the engine. An AF_XDP socket takes frames of its own queue only, so each interface has
 * its own instance of a program with its own gw_xsks.
 */
#ifndef GW_ENGINE_QUEUE_H
#define GW_ENGINE_QUEUE_H

#include "gw_stats.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 64);
} gw_xsks SEC(".maps");

/* Give the frame to the socket of its receive queue, where there is one. */
static __always_inline int gw_to_engine(struct xdp_md *ctx)
{
	int verdict = bpf_redirect_map(&gw_xsks, ctx->rx_queue_index, XDP_DROP);

	if (verdict != XDP_REDIRECT)
		return gw_drop(ctx, GW_DROP_NO_ENGINE);
	return gw_exit(ctx, GW_EXIT_ENGINE, verdict);
}

#endif
