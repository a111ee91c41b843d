// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What the loader refuses: a map with an attribute that it would have to know. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
	__uint(max_entries, 1);
	__uint(pinning, 1);
} pinned SEC(".maps");

SEC("xdp")
int uses_it(struct xdp_md *ctx)
{
	__u32 key = ctx->rx_queue_index;

	return bpf_map_lookup_elem(&pinned, &key) ? 1 : 2;
}

char licence[] SEC("license") = "GPL";
