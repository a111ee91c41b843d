// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What the loader refuses: an access that wants to be relocated for the running kernel (CO-RE). */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct thing {
	int before;
	int wanted;
} __attribute__((preserve_access_index));

SEC("xdp")
int relocated(struct xdp_md *ctx)
{
	struct thing *thing = (void *)(long)ctx->data;

	return (void *)(thing + 1) > (void *)(long)ctx->data_end ? 2 : thing->wanted;
}

char licence[] SEC("license") = "GPL";
