// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* What the verifier rejects: a frame is read without looking where it ends. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int unchecked(struct xdp_md *ctx)
{
	return *(__u8 *)(long)ctx->data;
}

char licence[] SEC("license") = "GPL";
