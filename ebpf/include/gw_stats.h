/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* How a program begins, and ends: always through gw_exit(), which counts, with a named reason. */
#ifndef GW_STATS_H
#define GW_STATS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "gw_parse.h"

#define GW_GO_ON -1 /* no verdict yet */

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, enum gw_exit);
	__type(value, struct gw_counter);
	__uint(max_entries, GW_EXIT_ENTRIES);
} gw_stats SEC(".maps");

/* Count the frame under its reason and return the verdict. */
static __always_inline int gw_exit(struct xdp_md *ctx, __u32 reason, int verdict)
{
	struct gw_counter *counter = bpf_map_lookup_elem(&gw_stats, &reason);

	if (counter) {
		counter->packets++;
		counter->bytes += ctx->data_end - ctx->data;
	}
	return verdict;
}

static __always_inline int gw_drop(struct xdp_md *ctx, __u32 reason)
{
	return gw_exit(ctx, reason, XDP_DROP);
}

static __always_inline int gw_pass(struct xdp_md *ctx, enum gw_exit reason)
{
	return gw_exit(ctx, reason, XDP_PASS);
}

/*
 * Begin: read the frame into `flow`, and leave the cursor at the next layer header. Return the
 * verdict for what is not sound IP, or GW_GO_ON.
 */
static __always_inline int gw_begin(struct xdp_md *ctx, struct gw_cursor *cursor,
				    struct gw_flow *flow)
{
	int reason = gw_parse_frame(ctx, cursor, flow);

	if (reason)
		return gw_drop(ctx, reason);
	return flow->family ? GW_GO_ON : gw_pass(ctx, GW_EXIT_NOT_IP);
}

/*
 * One bucket of the generic cell rate algorithm: may one more thing happen at `now_ns`?
 *
 * `due_ns` is when it would be on time; it may be early by `tolerance_ns`. Two CPUs that race let
 * one too many through.
 */
static __always_inline int gw_is_within_rate(__u64 *due_ns, __u64 now_ns, __u64 interval_ns,
					     __u64 tolerance_ns)
{
	__u64 due = *due_ns > now_ns ? *due_ns : now_ns;

	if (due - now_ns > tolerance_ns)
		return 0;
	*due_ns = due + interval_ns;
	return 1;
}

#endif
